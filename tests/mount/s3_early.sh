#!/usr/bin/env bash
# A range of many blocks on its way from the origin: who wants its first blocks has them as soon as they came, and asks for
# nothing again; the last block waits for the rest. A connection that breaks behind them goes on behind them. And one core may
# have all connections.
TEST_DEADLINE_S=120
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
object=$MOUNT_TMP/object
stall_bytes=200000 # three blocks and a piece of the fourth

tell_proxy() { curl -fsS --noproxy '*' "http://127.0.0.1:$PROXY_PORT/__$1__" >/dev/null; }
is_count() { [[ $(count "$1") == "$2" ]]; }

# read_part OUTPUT BLOCK COUNT SKIP: direct, of the mounted object.
read_part() {
  timeout $((30 * MOUNT_TIME_FACTOR)) dd if="$mnt/object" of="$MOUNT_TMP/$1" bs="$2" count="$3" skip="$4" iflag=direct \
    status=none
}
expect_part() {
  cmp "$MOUNT_TMP/$1" <(dd if="$object" bs="$2" count="$3" skip="$4" status=none) || fail "wrong bytes in $1"
}

# check_ending ENDING RANGES: what stalls goes on or breaks off; so many ranges are asked for in the end.
check_ending() {
  local whole fourth begun=$SECONDS
  faults ""
  start_mount s3://blobs "$mnt" "${PROXIED[@]}"
  stat "$mnt/object" >"$MOUNT_TMP/output"
  faults "stall=$stall_bytes"
  read_part whole 1M 1 0 &
  whole=$!
  wait_for 20 "the range that stalls" is_count stalled 1
  read_part first 64K 3 0 || fail "the first blocks did not come while the rest is on its way"
  expect_part first 64K 3 0
  [[ $(count stalled) == 1 && $(count ranges) == 1 ]] || fail "the first blocks were asked for again"
  read_part fourth 64K 1 3 &
  fourth=$!
  is_gone "$whole" && fail "the reader of everything was answered too early"
  tell_proxy "$1"
  wait "$whole" || fail "the reader of everything"
  wait "$fourth" || fail "the reader of the block that came in two parts"
  expect_part whole 1M 1 0
  expect_part fourth 64K 1 3
  [[ $(count ranges) == "$2" && $(count repeated) == 0 ]] || fail "$(count ranges) ranges, $(count repeated) again"
  ((SECONDS - begun < 25 * MOUNT_TIME_FACTOR)) || fail "it took $((SECONDS - begun)) s"
  stop_mount "$mnt"
}

# Readers on one CPU, so at one core, may have all connections of the origin.
check_connections() {
  local number readers=()
  faults ""
  start_mount s3://blobs "$mnt" "${PROXIED[@]}" -o origin.connections=12
  stat "$mnt/object" >"$MOUNT_TMP/output"
  faults "stall=1"
  for ((number = 0; number < 20; ++number)); do
    taskset -c 0 dd if="$mnt/object" of="$MOUNT_TMP/part-$number" bs=64K count=1 skip=$((number * 4)) iflag=direct \
      status=none &
    readers+=($!)
  done
  wait_for 20 "twelve requests at a time" is_count stalled 12
  tell_proxy go
  for number in "${!readers[@]}"; do
    wait "${readers[number]}" || fail "reader $number"
    expect_part "part-$number" 64K 1 $((number * 4))
  done
  [[ $(count ranges) == 20 && $(count repeated) == 0 ]] || fail "$(count ranges) ranges, $(count repeated) again"
  stop_mount "$mnt"
}

check() {
  check_ending go 1
  check_ending break 2
  check_connections
}

start_s3
start_proxy "${S3_ENDPOINT##*:}"
# No attempt ends by itself while the test looks.
PROXIED=("${S3_OPTIONS[@]:2}" -o "volume.s3.endpoint=http://127.0.0.1:$PROXY_PORT" -o origin.attempt_timeout=30s
  -o prefetch.enabled=false)
head -c $((6 * 1024 * 1024 + 77)) /dev/urandom >"$object"
s3 put blobs object "$object"
with_each_transport check
