#!/usr/bin/env bash
# Listings of COUNT keys (1,000,000) in one directory, and of as many in a tree, from a server that makes its pages up: every
# name and size once, the first names long before the last page, and memory within the plan, which is too small for all of it.
TEST_DEADLINE_S=${TEST_DEADLINE_S:-1700}
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
count=${1:-1000000}
limit_mib=192
MOUNT_MEMORY=${limit_mib}MiB

# walk DIRECTORY KIND COUNT: each name once, with the size that its number says, and nothing kept but a bit for each.
walk() {
  "$PYTHON" - "$@" <<'PYTHON' || fail "the walk of $1"
import os, sys, time
root, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
first = 0 if kind == "flat" else count
seen, total = bytearray(count), 0
begun = time.monotonic()
earliest = None
folders = [root]
while folders:
    folder = folders.pop()
    with os.scandir(folder) as entries:
        for entry in entries:
            earliest = earliest or time.monotonic()
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
                continue
            number = int(entry.name)
            size = os.lstat(entry.path).st_size if number % 100 == 0 else None
            if seen[number] or size not in (None, (first + number) % 5000):
                sys.exit(f"{entry.path}: seen {seen[number]} times before, {size} bytes")
            seen[number] = 1
            total += 1
if total != count:
    sys.exit(f"{total} names of {count}")
ended = time.monotonic()
print(f"{kind}: {total} names in {ended - begun:.1f} s, {(ended - begun) * 1e6 / total:.2f} ms a page of 1,000, the first "
      f"after {(earliest - begun) * 1e3:.0f} ms", file=sys.stderr)
PYTHON
}

check() {
  generated_reset
  start_mount s3://blobs "$mnt" "${GENERATED_OPTIONS[@]}" -o volume.revalidate=10min
  # Ten names of the flat directory cost a page or two, not a thousand.
  "$PYTHON" -c 'import itertools, os, sys; list(itertools.islice(os.scandir(sys.argv[1]), 10))' "$mnt/flat"
  (($(generated_count list) <= 12)) || fail "ten names took $(generated_count list) pages"
  walk "$mnt/flat" flat "$count"
  say "peak $(peak_mib) MiB of $limit_mib MiB, $(generated_count list) pages so far"
  walk "$mnt/tree" tree "$count"
  say "$(generated_count list) pages so far"
  expect_peak_within "$limit_mib"
  stop_mount "$mnt"
}

start_generated_s3 "$count"
mkdir -p "$mnt"
with_each_transport check
