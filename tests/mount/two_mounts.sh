#!/usr/bin/env bash
# Several mounts live side by side, of one source and of several; each has its own daemon, each is unmounted alone; names
# with blanks and other odd bytes work for source and mount point.
source "$(dirname -- "$0")/lib.sh"

check() {
  local odd="$MOUNT_TMP/odd name"$'\n'"with \\ and %"
  mkdir -p "$odd/source" "$MOUNT_TMP/source/dir"
  head -c 300000 /dev/urandom >"$odd/source/file"
  head -c 300000 /dev/urandom >"$MOUNT_TMP/source/dir/file"
  start_mount "$MOUNT_TMP/source" "$MOUNT_TMP/one"
  start_mount "file://$MOUNT_TMP/source" "$MOUNT_TMP/two"
  expect_same "$MOUNT_TMP/source" "$MOUNT_TMP/one"
  expect_same "$MOUNT_TMP/source" "$MOUNT_TMP/two"
  mkdir -p "$odd/mount"
  timeout 30 "$BLOBCACHE" mount "$odd/source" "$odd/mount" --memory="$MOUNT_MEMORY" \
    -o fuse.transport="$MODE_TRANSPORT" >"$MOUNT_TMP/odd.log" 2>&1 || fail "a mount with an odd name"
  cmp "$odd/source/file" "$odd/mount/file" || fail "bytes under an odd name"
  stop_mount "$MOUNT_TMP/one"
  expect_same "$MOUNT_TMP/source" "$MOUNT_TMP/two"
  timeout 20 "$BLOBCACHE" umount "$odd/mount" || fail "umount of an odd name"
  [[ ! -e $odd/mount/file ]] || fail "still mounted under an odd name"
  # A mount point given by a relative path and through a link is the same place.
  ln -sfn two "$MOUNT_TMP/link"
  (cd "$MOUNT_TMP" && timeout 20 "$BLOBCACHE" umount ./link) || fail "umount through a link"
  is_unmounted "$MOUNT_TMP/two" || fail "still mounted"
  local pid
  pid=$(daemon_pid "$MOUNT_TMP/two") && wait_gone 20 "$pid"
  no_crash
}
with_each_transport check
