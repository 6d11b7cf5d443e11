#!/usr/bin/env bash
# The daemon keeps to its memory: with a tree several times the limit read twice by 8 readers, its peak (VmHWM and huge
# pages) stays within 1.05 of --memory, and every byte is right although most were evicted in between.
TEST_DEADLINE_S=180
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
limit_mib=256
MOUNT_MEMORY=${limit_mib}MiB
mkdir -p "$source_dir"
for number in $(seq 1 8); do
  "$MOUNT_PROBE" write "$source_dir/big-$number" $((96 * 1048576 + number)) 1 "$number"
done
for number in $(seq 1 3000); do
  head -c $((number * 7)) "$source_dir/big-1" >"$source_dir/small-$number"
done
"$PYTHON" "$MOUNT_TESTS/tree_manifest.py" "$source_dir" >"$MOUNT_TMP/wanted"

check() {
  start_mount "$source_dir" "$mnt"
  local reader readers=()
  expect_manifest "$MOUNT_TMP/wanted" "$mnt"
  for reader in 1 2 3 4 5 6 7 8; do
    cmp "$source_dir/big-$reader" "$mnt/big-$reader" &
    readers+=($!)
  done
  for reader in "${readers[@]}"; do
    wait "$reader" || fail "wrong bytes"
  done
  expect_manifest "$MOUNT_TMP/wanted" "$mnt"
  expect_peak_within "$limit_mib"
  stop_mount "$mnt"
}
with_each_mode check
