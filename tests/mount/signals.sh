#!/usr/bin/env bash
# SIGTERM and SIGINT drain and unmount: reads in progress end right, the mount point is free, the daemon exits 0 when it
# ran in the foreground. Also with files open.
TEST_DEADLINE_S=120
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir" "$mnt"
"$MOUNT_PROBE" write "$source_dir/big" $((128 * 1048576)) 1 1

# idle SIGNAL: in the foreground, with nobody there.
idle() {
  local options pid status=0
  mapfile -t options < <(mode_options)
  "$BLOBCACHE" mount "$source_dir" "$mnt" "${options[@]}" --foreground >"$MOUNT_TMP/foreground.log" 2>&1 &
  pid=$!
  wait_for 30 "the foreground mount answers" eval 'is_mounted "$mnt" && [[ -e $mnt/big ]]'
  kill -"$1" "$pid"
  wait_for 20 "the end after SIG$1" is_gone "$pid"
  wait "$pid" || status=$?
  [[ $status == 0 ]] || fail "exit $status after SIG$1"
  is_unmounted "$mnt" || fail "still mounted after SIG$1"
  no_crash
}

# busy SIGNAL: in the background, with readers in a file. They may see the mount go, but never a wrong byte.
busy() {
  local input hammer
  start_mount "$source_dir" "$mnt"
  rm -f "$MOUNT_TMP/input"
  mkfifo "$MOUNT_TMP/input"
  "$MOUNT_PROBE" hammer --readers=4 --request=65536 --allow=ENOTCONN,ECONNABORTED,EIO,ENODEV,ENOENT "$mnt/big" \
    <"$MOUNT_TMP/input" >"$MOUNT_TMP/events" &
  hammer=$!
  exec {input}>"$MOUNT_TMP/input"
  wait_for 30 "readers are in the file" grep -qE '^(ready|wrong)' "$MOUNT_TMP/events"
  kill -"$1" "$DAEMON_PID"
  wait_for 20 "the mount point is free after SIG$1" is_unmounted "$mnt"
  wait_for 10 "readers notice" grep -qE '^(error|wrong)' "$MOUNT_TMP/events"
  exec {input}>&-
  wait "$hammer" || fail "SIG$1: $(grep wrong "$MOUNT_TMP/events")"
  wait_gone 20 "$DAEMON_PID"
  no_crash
}

check() {
  idle TERM
  idle INT
  busy TERM
  busy INT
}
with_each_mode check
