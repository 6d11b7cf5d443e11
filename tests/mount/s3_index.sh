#!/usr/bin/env bash
# volume.index: the names of a whole bucket kept on disk. Once it is made, `ls -lR`, opens of a known tree and names that are
# not there ask the server nothing, also after a new start; a damaged index is a miss and is made anew; one whose objects were
# replaced ends with the first read that shows it.
TEST_DEADLINE_S=150
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
cache=$MOUNT_TMP/cache
count=4000

mount_indexed() {
  start_mount s3://blobs "$mnt" "${GENERATED_OPTIONS[@]}" --cache-dir="$cache" -o volume.index=on -o volume.revalidate="$1"
}

index_file() { find "$cache/names" -type f ! -name '*.new' 2>/dev/null; }
has_index() { [[ -n $(index_file) ]]; }

# The whole tree as the server's rule has it: names, sizes, times.
walk() {
  "$PYTHON" - "$mnt" "$count" <<'PYTHON' || fail "the walk"
import os, sys
root, count = sys.argv[1], int(sys.argv[2])
wanted = {f"flat/{number:08}": number for number in range(count)}
wanted |= {f"tree/{number // 1000:05}/{number:08}": count + number for number in range(count)}
found = 0
for folder, _, names in os.walk(root, onerror=lambda error: sys.exit(str(error))):
    for name in names:
        path = os.path.join(folder, name)
        number, status = wanted[os.path.relpath(path, root)], os.lstat(path)
        if (status.st_size, status.st_mtime) != (number % 5000, 784111777):
            sys.exit(f"{path}: {status}")
        found += 1
if found != len(wanted):
    sys.exit(f"{found} files of {len(wanted)}")
PYTHON
}

# Opens without reads, and names that are not there.
open_all() {
  "$PYTHON" - "$mnt" <<'PYTHON' || fail "the opens"
import glob, os, sys
paths = glob.glob(sys.argv[1] + "/flat/*[05]") + glob.glob(sys.argv[1] + "/tree/*/*7")
for path in paths:
    os.close(os.open(path, os.O_RDONLY))
for name in ("none", "flat/none", "tree/00000/none", "flat/00000000/below", "tree/0000", "zzz"):
    if os.path.exists(os.path.join(sys.argv[1], name)):
        sys.exit(name + " is there")
print(len(paths), "opens", file=sys.stderr)
PYTHON
}

expect_counts() { # list list_all head get
  local kind wanted
  for kind in list list_all head get; do
    wanted=$1
    shift
    [[ $(generated_count $kind) == "$wanted" ]] || fail "$(generated_count $kind) requests of kind $kind, not $wanted"
  done
}

check_index() {
  rm -rf "$cache"
  mount_indexed never
  walk
  wait_for 60 "the index" has_index
  walk
  stop_mount "$mnt"
  mount_indexed never
  generated_reset
  walk
  open_all
  expect_counts 0 0 0 0
  [[ $(<"$mnt/flat/00000017") == "$(printf '%08d ' 17 17 | cut -c -17)" ]] || fail "bytes of an indexed file"
  expect_counts 0 0 0 1
  stop_mount "$mnt"
}

# Bytes in the middle are a block's; the mount finds out when it reads it.
check_damage() {
  local index before
  index=$(index_file)
  before=$(stat -c %i "$index")
  "$PYTHON" - "$index" <<'PYTHON'
import os, sys
with open(sys.argv[1], "r+b") as file:
    for offset in range(8192, os.path.getsize(sys.argv[1]) - 65536, 16384):
        file.seek(offset)
        file.write(b"\xff" * 16)
PYTHON
  mount_indexed never
  generated_reset
  walk
  (($(generated_count list) > 0)) || fail "a damaged index was believed"
  is_new() { [[ -n $(index_file) && $(stat -c %i "$(index_file)") != "$before" ]]; }
  wait_for 60 "another index" is_new
  stop_mount "$mnt"
  # Cut short it is none from the start.
  truncate -s 100000 "$(index_file)"
  mount_indexed never
  walk
  stop_mount "$mnt"
}

check_refusals() {
  expect_refusal 1 'needs a disk' "$BLOBCACHE" mount s3://blobs "$mnt" "${GENERATED_OPTIONS[@]}" -o volume.index=on
  expect_refusal 2 'at least 10s' "$BLOBCACHE" mount s3://blobs "$mnt" "${GENERATED_OPTIONS[@]}" -o volume.index=on \
    --cache-dir="$cache" -o volume.revalidate=1s
}

start_generated_s3 "$count"
mkdir -p "$mnt"
with_each_transport check_index
MODE_TRANSPORT=dev
check_damage
check_refusals
