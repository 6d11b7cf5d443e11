#!/usr/bin/env bash
# The origin hangs: mount B has mount A as its source, and A's daemon is stopped. Who reads, stats or lists on B dies at
# once on kill -9 (the daemon answers the kernel's interrupt, although the origin does not answer it), what B has cached
# is still served, and `blobcache umount` ends within 5 s, for B and for A.
TEST_DEADLINE_S=180
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/readers_lib.sh"

source_dir=$MOUNT_TMP/source
a=$MOUNT_TMP/a
b=$MOUNT_TMP/b
make_big_file "$source_dir"
head -c 1000000 /dev/urandom >"$source_dir/cached"
touch -d '2020-01-01 00:00:00' "$source_dir/cached"

# waits_for PID: the process is in a call that waits.
waits() { state_is "$1" D || grep -qE '^(request_wait_answer|fuse|__fuse|folio_wait)' "/proc/$1/wchan" 2>/dev/null; }

umount_in_time() {
  local started_ms=${EPOCHREALTIME/./} took_ms
  timeout 20 "$BLOBCACHE" umount "$1" >>"$MOUNT_TMP/umount.log" 2>&1 || fail "umount of $1 ended with $?"
  took_ms=$(((${EPOCHREALTIME/./} - started_ms) / 1000))
  say "umount of ${1##*/} took $took_ms ms"
  ((took_ms <= 5500)) || fail "umount took $took_ms ms; the promise is 5 s"
  is_unmounted "$1" || fail "$1 is still mounted"
}

check() {
  local a_pid b_pid stats=() pid
  start_mount "$source_dir" "$a"
  a_pid=$DAEMON_PID
  start_mount "$a" "$b" -o fuse.entry_timeout=60s -o fuse.attr_timeout=60s
  b_pid=$DAEMON_PID
  cmp "$source_dir/cached" "$b/cached"
  start_readers "$b/big" --gate
  kill -STOP "$a_pid"
  wait_for 5 "A's daemon is stopped" state_is "$a_pid" T
  open_gate
  wait_for 30 "readers wait for the hung origin" all_waiting
  stat "$b/tree/1" >"$MOUNT_TMP/output" 2>&1 &
  stats+=($!)
  ls "$b/tree" >"$MOUNT_TMP/output" 2>&1 &
  stats+=($!)
  cat "$b/tree/2" >"$MOUNT_TMP/output" 2>&1 &
  stats+=($!)
  disown "${stats[@]}"
  for pid in "${stats[@]}"; do
    wait_for 10 "process $pid waits for the hung origin" waits "$pid"
  done
  timeout -s KILL 10 stat "$b/cached" >"$MOUNT_TMP/output" || fail "what the kernel knows is not answered"
  kill -KILL "${stats[@]}"
  wait_gone 2 "${stats[@]}"
  kill_readers
  umount_in_time "$b"
  umount_in_time "$a"
  kill -CONT "$a_pid"
  wait_gone 20 "$a_pid" "$b_pid"
  no_crash
}
with_each_mode check
