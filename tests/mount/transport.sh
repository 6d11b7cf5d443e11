#!/usr/bin/env bash
# fuse.transport: auto takes FUSE-over-io_uring where the kernel's switch is on and /dev/fuse where it is off, and says
# which and why; uring by name where the switch is off is a refusal with the remedy, exit 3.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir" "$mnt"
echo text >"$source_dir/file"

# auto_says PATTERN: mounts with auto, reads, and finds the line in the log.
auto_says() {
  local pid
  "$BLOBCACHE" mount "$source_dir" "$mnt" --memory="$MOUNT_MEMORY" -o log.level=info --foreground >"$MOUNT_TMP/auto.log" 2>&1 &
  pid=$!
  wait_for 30 "the mount answers" eval '[[ -e $mnt/file ]]'
  [[ $(<"$mnt/file") == text ]] || fail "wrong bytes"
  timeout 20 "$BLOBCACHE" umount "$mnt" || fail "umount ended with $?"
  wait_gone 20 "$pid"
  wait "$pid" || fail "the daemon ended with $?"
  grep -iE 'transport' "$MOUNT_TMP/auto.log" | grep -qiE -- "$1" || fail "no line about the transport with /$1/"
}

if [[ ! -w $ENABLE_URING ]]; then
  not_tested "the choice between transports" "this kernel has no $ENABLE_URING to switch"
  auto_says "dev"
  exit 0
fi
set_setting "$ENABLE_URING" N
auto_says "dev.*enable_uring|enable_uring.*dev"
expect_refusal 3 "enable_uring" "$BLOBCACHE" mount "$source_dir" "$mnt" --memory="$MOUNT_MEMORY" -o fuse.transport=uring
is_unmounted "$mnt" || fail "a refused mount left a mount"
set_setting "$ENABLE_URING" Y
auto_says "uring"
