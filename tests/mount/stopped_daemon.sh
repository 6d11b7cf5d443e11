#!/usr/bin/env bash
# The daemon is stopped (SIGSTOP) in the middle of reads: `blobcache umount` ends within 5 s, afterwards every reader
# can die, and the daemon itself, woken, ends.
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/readers_lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
make_big_file "$source_dir"

check() {
  start_mount "$source_dir" "$mnt"
  start_readers "$mnt/big" --gate
  kill -STOP "$DAEMON_PID"
  wait_for 5 "the daemon is stopped" state_is "$DAEMON_PID" T
  open_gate
  wait_for 10 "readers wait for the stopped daemon" all_waiting
  local started_ms=${EPOCHREALTIME/./}
  timeout 20 "$BLOBCACHE" umount "$mnt" >"$MOUNT_TMP/umount.log" 2>&1 || fail "umount ended with $?"
  local took_ms=$(((${EPOCHREALTIME/./} - started_ms) / 1000))
  say "umount with a stopped daemon took $took_ms ms"
  ((took_ms <= 5500)) || fail "umount took $took_ms ms; the promise is 5 s"
  is_unmounted "$mnt" || fail "still mounted"
  kill_readers
  kill -CONT "$DAEMON_PID"
  wait_gone 20 "$DAEMON_PID"
}
with_each_mode check
