#!/usr/bin/env bash
# kill -9 of the daemon in the middle of reads: readers get an error, never wrong bytes, none hangs; the dead mount is
# unmounted by `blobcache umount`, or found and replaced by the next `blobcache mount` of the same place.
TEST_DEADLINE_S=120
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/readers_lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
make_big_file "$source_dir"

# kill_daemon [--gate]: under running readers, or (--gate) surely with a request of each in its hands; then readers see
# an error (they try again and again) and can be ended.
kill_daemon() {
  start_mount "$source_dir" "$mnt"
  start_readers "$mnt/big" "$@"
  if [[ $# != 0 ]]; then
    kill -STOP "$DAEMON_PID"
    wait_for 5 "the daemon is stopped" state_is "$DAEMON_PID" T
    open_gate
    wait_for 10 "readers wait for the stopped daemon" all_waiting
  fi
  kill -KILL "$DAEMON_PID"
  wait_gone 10 "$DAEMON_PID"
  local mode
  for mode in pread direct mmap; do
    wait_for 10 "the $mode reader gets an error" grep -qE '^(error|wrong)' "$MOUNT_TMP/readers.$mode"
  done
  kill_readers
  is_mounted "$mnt" || fail "no stale mount is left to test with"
  ! timeout 10 ls "$mnt" >"$MOUNT_TMP/output" 2>&1 || fail "a dead mount answers"
}

check() {
  kill_daemon
  timeout 10 "$BLOBCACHE" umount "$mnt" >"$MOUNT_TMP/umount.log" 2>&1 || fail "umount of a dead mount ended with $?"
  is_unmounted "$mnt" || fail "still mounted"
  kill_daemon --gate
  start_mount "$source_dir" "$mnt"
  [[ $(grep -cF -- " $mnt " /proc/self/mountinfo) == 1 ]] || fail "the stale mount lies below the new one"
  expect_same "$source_dir/tree" "$mnt/tree"
  stop_mount "$mnt"
}
with_each_mode check
