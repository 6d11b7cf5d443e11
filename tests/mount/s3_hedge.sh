#!/usr/bin/env bash
# Some ranges stall for ever, before their first byte or in the middle: each is asked for again beside the first attempt, and
# wins, so that no reader waits for the watchdog; every byte is right, and the server is not asked much more.
TEST_DEADLINE_S=200
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
object=$MOUNT_TMP/object
blocks=512
known=160 # blocks read before anything stalls: a hundred are wanted to know what is slow

# read_blocks FIRST COUNT: direct, a range each.
read_blocks() {
  timeout $((100 * MOUNT_TIME_FACTOR)) dd if="$mnt/object" of="$MOUNT_TMP/copy" bs=64K skip="$1" count="$2" iflag=direct \
    status=none || fail "the read of $2 blocks from $1"
  cmp "$MOUNT_TMP/copy" <(dd if="$object" bs=64K skip="$1" count="$2" status=none) || fail "wrong bytes"
}

check() {
  local stalled begun=$SECONDS
  faults ""
  # Who waits for the end of an attempt waits for most of this test, and `retries` tells of it.
  start_mount s3://blobs "$mnt" "${PROXIED[@]}" -o origin.attempt_timeout=60s -o origin.deadline=90s
  read_blocks 0 "$known"
  [[ $(origin_status 'origin["retries"]') == 0 ]] || fail "retries without any fault"
  faults "stop=40"
  read_blocks "$known" $((blocks - known))
  stalled=$(count faults)
  say "$stalled of $((blocks - known)) ranges stalled for ever, in $((SECONDS - begun)) s: $(origin_status origin)"
  ((stalled >= 8)) || fail "only $stalled ranges stalled: nothing was tested"
  [[ $(origin_status "origin['hedges_won'] >= $stalled") == True ]] || fail "not each stalled range was won by another"
  [[ $(origin_status 'origin["retries"] == 0 and origin["errors"] == 0') == True ]] || fail "a reader waited for an end"
  # One in twenty, and what is saved up.
  [[ $(origin_status 'origin["hedges"] * 20 <= origin["requests"]') == True ]] || fail "too many second attempts"
  (($(count ranges) - (blocks - known) <= $(origin_status 'origin["hedges"]'))) || fail "$(count ranges) ranges"
  stop_mount "$mnt"
}

start_s3
start_proxy "${S3_ENDPOINT##*:}"
PROXIED=("${S3_OPTIONS[@]:2}" -o "volume.s3.endpoint=http://127.0.0.1:$PROXY_PORT" -o volume.revalidate=never
  -o prefetch.enabled=false)
head -c $((blocks * 65536)) /dev/urandom >"$object"
s3 put blobs object "$object"
with_each_transport check
