#!/usr/bin/env bash
# What is on disk is read from there: a new daemon asks the origin for nothing; most of it goes straight into the reply;
# a reply whose disk read came back short is answered from the origin; a damaged block is noticed and mended; a whole and
# verified file is read by the kernel without us, also mapped, and also by opens beside others.
#   disk_read.sh tiers|truncated|damaged|passthrough...       all without
TEST_DEADLINE_S=240
source "$(dirname -- "$0")/disk_lib.sh"

cases=("$@")
[[ ${#cases[@]} != 0 ]] || cases=(tiers truncated damaged passthrough)
make_files "$source_dir" 12 12
settle "$source_dir/${FILES[-1]}"
total=$(total_bytes "$source_dir" "${FILES[@]}")

# backing_file FILE: where its bytes lie on disk; fails while they are not all verified.
backing_file() { getfattr --absolute-names --only-values -n user.blobcache.path "$mnt/$1" 2>/dev/null; }
has_backing_file() { [[ -n $(backing_file "$1") ]]; }

# start_filled: a new daemon, nothing in its memory, over a cache that has every file; BIG_ONE is where big-1 lies.
start_filled() {
  rm -rf "$cache"
  mount_cached
  fill_cache "${FILES[@]}"
  wait_for 60 "big-1 is verified" has_backing_file big-1
  BIG_ONE=$(backing_file big-1)
  stop_mount "$mnt"
  mount_cached
}

tiers() {
  DISK_OPTIONS=(-o fuse.passthrough=off)
  start_filled
  compare "${FILES[@]}"
  [[ $(served origin) == 0 ]] || fail "$(served origin) bytes of the origin, although all is on disk"
  # A request may find what the one before it brought into memory, by blocks.
  (($(served disk) > total / 10 * 9)) || fail "$(served disk) of $total bytes come from disk"
  (($(status "volume['disk_hits']") > 0)) || fail "nothing was read straight into a reply"
  [[ $(verified_on_disk "${FILES[@]}") == "$total" ]] || fail "what was read is not verified"
  stop_mount "$mnt"
}

truncated() {
  DISK_OPTIONS=(-o fuse.passthrough=off)
  start_filled
  # The file is open and its marks hold from here on, so what it loses is found out by reads that reply at once.
  cmp -n 65536 -- "$source_dir/big-1" "$mnt/big-1"
  wait_for 10 "big-1 is verified still" has_backing_file big-1
  truncate -s 6000000 "$BIG_ONE"
  drop_mount_cache big-1
  compare big-1
  (($(served origin) > 0)) || fail "the lost half came from nowhere"
  (($(status "disk['corrupt_blocks']") > 0)) || fail "nobody noticed that half of the file is lost"
  drop_mount_cache big-1
  compare big-1
  [[ $(status "volume['errors']") == 0 ]] || fail "a reader saw an error"
  stop_mount "$mnt"
}

damaged() {
  local before
  DISK_OPTIONS=(-o fuse.passthrough=off)
  start_filled
  stop_mount "$mnt"
  printf 'damage' | dd of="$BIG_ONE" bs=1 seek=3000000 conv=notrunc status=none
  mount_cached
  compare "${FILES[@]}"
  # The reader may be told of it, or the verifier, or both.
  (($(status "disk['corrupt_blocks']") > 0)) || fail "nobody noticed the damaged block"
  # One block, or the run of blocks that one request asked for.
  before=$(served origin)
  ((before > 0 && before <= 1048576)) || fail "$before bytes of the origin for one damaged block"
  drop_mount_cache big-1
  compare big-1
  [[ $(served origin) == "$before" ]] || fail "the origin was asked again for what it had given"
  stop_mount "$mnt"
}

passthrough() {
  local reads
  DISK_OPTIONS=(-o fuse.passthrough=auto)
  start_filled
  if [[ $(status "volume['passthrough']") != True ]]; then
    not_tested passthrough "this kernel or this file system cannot"
    stop_mount "$mnt"
    return
  fi
  reads=$(status "volume['reads']")
  compare big-1
  "$PYTHON" - "$source_dir/big-1" "$mnt/big-1" <<'PYTHON'
import mmap, sys
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "rb") as one, open(sys.argv[2], "rb") as other:
    wanted = source.read()
    assert mmap.mmap(one.fileno(), 0, prot=mmap.PROT_READ)[:] == wanted
    one.close()  # the open that joined it goes on
    assert other.read() == wanted
PYTHON
  [[ $(status "volume['reads']") == "$reads" ]] || fail "the kernel asked us for what it was to read by itself"
  (($(status "volume['passthrough_opens']") >= 3)) || fail "no passthrough opens"
  # Opens of the other way before and after, at the same time.
  "$PYTHON" - "$source_dir/big-2" "$mnt/big-2" <<'PYTHON'
import sys
wanted = open(sys.argv[1], "rb").read()
files = []
for _ in range(4):
    files.append(open(sys.argv[2], "rb"))
    assert files[-1].read() == wanted
for file in files:
    file.close()
PYTHON
  wait_for 60 "big-2 is verified" has_backing_file big-2
  compare "${FILES[@]}"
  [[ $(served origin) == 0 ]] || fail "the origin was asked, although all is on disk"
  stop_mount "$mnt"
}

for case in "${cases[@]}"; do
  say "--- $case"
  # Damage is found by whoever meets it: there the number of cores does not matter.
  case $case in
    truncated | damaged) with_each_transport "$case" ;;
    *) with_each_mode "$case" ;;
  esac
done
