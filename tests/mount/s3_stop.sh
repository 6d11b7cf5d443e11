#!/usr/bin/env bash
# A server that never answers holds neither a reader that is killed nor the daemon: its end does not wait for the request.
TEST_DEADLINE_S=120
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt

was_asked() { [[ $(count ranges) != 0 ]]; }

check() {
  local reader daemon begun
  start_mount s3://blobs "$mnt" "${S3_OPTIONS[@]:2}" -o "volume.s3.endpoint=http://127.0.0.1:$PROXY_PORT"
  daemon=$DAEMON_PID
  stat "$mnt/object" >"$MOUNT_TMP/output"
  faults "hang=1"
  dd if="$mnt/object" of=/dev/null bs=64K count=1 iflag=direct 2>/dev/null &
  reader=$!
  wait_for 20 "the request" was_asked
  kill -KILL "$reader"
  wait_gone 10 "$reader"
  begun=${EPOCHREALTIME/[.,]/}
  stop_mount "$mnt"
  is_gone "$daemon" || fail "the daemon is there"
  say "the daemon ended in $(((${EPOCHREALTIME/[.,]/} - begun) / 1000)) ms"
  ((${EPOCHREALTIME/[.,]/} - begun < 1500000 * MOUNT_TIME_FACTOR)) || fail "the end waited for the server"
  ! grep -q "something still hangs" "$DAEMON_LOG" || fail "the daemon left something behind"
  faults ""
}

start_s3
start_proxy "${S3_ENDPOINT##*:}"
head -c 1M /dev/urandom >"$MOUNT_TMP/object"
s3 put blobs object "$MOUNT_TMP/object"
with_each_transport check
