#!/usr/bin/env bash
# fuse.read_ahead reaches the kernel: the mount's backing device info has it, and buffered reads still give the right
# bytes with the smallest and a large window. Left alone it follows the volume's profile.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir"
head -c 30000123 /dev/urandom >"$source_dir/file"

window_is() {
  local got
  got=$(<"/sys/class/bdi/$(mountpoint -d "$mnt")/read_ahead_kb")
  [[ $got == "$1" ]] || fail "read_ahead_kb is $got instead of $1"
}

check() {
  local size
  for size in 64 4096; do
    start_mount "$source_dir" "$mnt" -o fuse.read_ahead="${size}KiB"
    window_is "$size"
    cmp "$source_dir/file" "$mnt/file" || fail "wrong bytes"
    stop_mount "$mnt"
  done
}
with_each_transport check

for profile in auto:512 dataset:512 model:1024; do
  start_mount "$source_dir" "$mnt" -o volume.profile="${profile%:*}"
  window_is "${profile#*:}"
  cmp "$source_dir/file" "$mnt/file" || fail "wrong bytes"
  stop_mount "$mnt"
done
