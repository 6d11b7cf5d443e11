#!/usr/bin/env bash
# Between us and the server: latency, throttling, resets and truncation at every position, storms of 503, answers that drip or
# never come, other ranges than asked for, error pages that call themselves a success. Never a wrong byte; what can be had is
# had; what cannot is an error within the deadline; and without faults no byte is asked for twice.
TEST_DEADLINE_S=400
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
object=$MOUNT_TMP/object
deadline_s=10

# read_all FAULTS BLOCK: a fresh mount, the faults, the whole object by direct reads of BLOCK; its bytes, or no end. Prints
# seconds; the status says whether the read succeeded.
read_all() {
  local begun status=0
  faults ""
  start_mount s3://blobs "$mnt" "${PROXIED[@]}"
  stat "$mnt/object" >"$MOUNT_TMP/output"
  faults "$1"
  begun=$SECONDS
  timeout $((120 * MOUNT_TIME_FACTOR)) dd if="$mnt/object" of="$MOUNT_TMP/copy" bs="$2" iflag=direct status=none \
    2>"$MOUNT_TMP/error" || status=$?
  ((status != 124)) || fail "with $1 a read hangs"
  READ_S=$((SECONDS - begun))
  # Whatever came is right, also when the read ended in an error.
  cmp -n "$(stat -c %s "$MOUNT_TMP/copy")" "$MOUNT_TMP/copy" "$object" || fail "wrong bytes with $1"
  ASKED=$(count ranges) REPEATED=$(count repeated) HURT=$(count faults)
  faults ""
  stop_mount "$mnt"
  say "$1 (blocks of $2): status $status in $READ_S s, $ASKED ranges, $REPEATED again, $HURT hurt"
  return "$status"
}

# survives FAULTS BLOCK: all bytes arrive in spite of faults that did happen.
survives() {
  read_all "$1" "$2" || fail "with $1 the read failed: $(<"$MOUNT_TMP/error")"
  cmp "$MOUNT_TMP/copy" "$object" || fail "bytes are missing with $1"
  [[ -z ${3:-} ]] || ((HURT >= $3)) || fail "with $1 only $HURT answers were hurt: nothing was tested"
}

# fails_in_time FAULTS: an error, not before it was tried again and not after the deadline.
fails_in_time() {
  ! read_all "$1" 64K || fail "with $1 the read succeeded"
  ((READ_S <= (deadline_s + 5) * MOUNT_TIME_FACTOR)) || fail "with $1 the error came after $READ_S s"
}

quick=0
if [[ ${1:-} == quick ]]; then quick=1; fi
check() {
  survives "" 64K
  ((REPEATED == 0)) || fail "$REPEATED ranges were asked for twice without any fault"
  survives "" 4M
  ((REPEATED == 0)) || fail "$REPEATED ranges were asked for twice without any fault"
  survives "latency_ms=30" 256K
  if [[ $quick == 0 ]]; then survives "rate=4000000" 1M; fi
  survives "reset=2" 64K 30
  survives "truncate=2" 64K 30
  survives "reset=2&truncate=3" 4M 2
  survives "status=503:1" 64K 30
  survives "status=429:2&retry_after=1" 4M 2
  survives "wrong_range=2" 64K 30
  survives "html=3" 64K 20
  survives "hang=20" 64K 3
  fails_in_time "hang=1"
  fails_in_time "wrong_label=1"
  if [[ $quick == 1 ]]; then return 0; fi
  survives "trickle=20" 64K 3
  fails_in_time "status=503:1000000"
  fails_in_time "html=1"
  fails_in_time "wrong_range=1"
  fails_in_time "trickle=1"
}

# What is in memory is served while the server is away, and reading goes on when it is back.
check_outage() {
  start_mount s3://blobs "$mnt" "${PROXIED[@]}" -o volume.revalidate=never
  dd if="$mnt/object" of=/dev/null bs=64K count=4 iflag=direct status=none || fail "the first read"
  faults "status=503:1000000"
  cmp <(dd if="$mnt/object" bs=64K count=4 iflag=direct status=none) <(head -c 256K "$object") ||
    fail "what is cached is not served without the server"
  ! dd if="$mnt/object" of=/dev/null bs=64K count=1 skip=60 iflag=direct status=none 2>/dev/null ||
    fail "bytes that nobody has"
  [[ $(origin_status 'origin["throttled"] > 0 and origin["retries"] > 0 and origin["errors"] > 0') == True ]] ||
    fail "the status does not tell of the outage: $(origin_status origin)"
  grep -q "reading 'object' of s3://blobs .*status 503.*lower origin.connections" "$DAEMON_LOG" ||
    fail "no line of the log names the object, the cause and the remedy"
  faults ""
  cmp <(dd if="$mnt/object" bs=64K count=1 skip=60 iflag=direct status=none) \
    <(dd if="$object" bs=64K count=1 skip=60 status=none) || fail "reading does not go on when the server is back"
  [[ $(origin_status 'origin["bytes"] >= 5 * 65536 and 0 < origin["connections"] <= origin["requests"]') == True ]] ||
    fail "wrong counts: $(origin_status origin)"
  stop_mount "$mnt"
}

start_s3
start_proxy "${S3_ENDPOINT##*:}"
PROXIED=("${S3_OPTIONS[@]:2}" -o "volume.s3.endpoint=http://127.0.0.1:$PROXY_PORT" -o origin.attempt_timeout=1s
  -o "origin.deadline=${deadline_s}s" -o origin.retries=5 -o prefetch.enabled=false) # many small ranges are what is wanted
head -c $((6 * 1024 * 1024 + 77)) /dev/urandom >"$object"
s3 put blobs object "$object"
# The faults are the origin's, so one transport is enough.
MODE_TRANSPORT=dev
check
check_outage
