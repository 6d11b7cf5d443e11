#!/usr/bin/env bash
# fuse.read_ahead reaches the kernel: the mount's backing device info has it, and buffered reads still give the right
# bytes with the smallest and a large window.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir"
head -c 30000123 /dev/urandom >"$source_dir/file"

check() {
  local size got
  for size in 64 4096; do
    start_mount "$source_dir" "$mnt" -o fuse.read_ahead="${size}KiB"
    got=$(<"/sys/class/bdi/$(mountpoint -d "$mnt")/read_ahead_kb")
    [[ $got == "$size" ]] || fail "read_ahead_kb is $got instead of $size"
    cmp "$source_dir/file" "$mnt/file" || fail "wrong bytes"
    stop_mount "$mnt"
  done
}
with_each_transport check
