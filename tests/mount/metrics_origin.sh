#!/usr/bin/env bash
# Metrics of an origin, against those who know as well: nginx by its log, the fault proxy by its counts.
TEST_DEADLINE_S=160
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"
source "$MOUNT_TESTS/metrics_lib.sh"

mnt=$MOUNT_TMP/mnt
tree=$MOUNT_TMP/tree
mkdir -p "$tree/folder"
bytes=$((8 << 20))
head -c "$bytes" /dev/urandom >"$tree/file"
head -c 500000 /dev/urandom >"$tree/other"
port=$(free_port)
install_nginx
start_tree_server "$port" "$tree"
trap 'kill "$NGINX_PID" ${PROXY_PID:+"$PROXY_PID"} 2>/dev/null; wait || true' EXIT
wait_for 20 "nginx" curl -fsS --noproxy '*' -o /dev/null "http://127.0.0.1:$port/"
MODE_TRANSPORT=dev

# As nginx logs them: requests, bytes of GETs, and how many of a method and status.
log() { awk "$1" "$MOUNT_TMP/nginx/access"; }
requests() { log 'END { print NR }'; }
body_bytes() { log '$6 == "\"GET" && $9 == 206 { sum += $10 } END { printf "%d\n", sum }'; }
with_status() { log "\$6 == \"\\\"$1\" && \$9 == $2 { count++ } END { print count + 0 }"; }
is_logged() { (($(requests) >= $1)); } # nginx writes a moment after it has answered

as_nginx_says() {
  local verb status listing label="volume=\"test\""
  start_mount "http://127.0.0.1:$port/" "$mnt" "${METRICS_OPTIONS[@]}" -o prefetch.enabled=false
  listing=$(curl -fsS --noproxy '*' "http://127.0.0.1:$port/folder/" | wc -c)
  scrape "$MOUNT_TMP/before"
  : >"$MOUNT_TMP/nginx/access" # what came before it is `mount` itself too
  cmp "$tree/other" "$mnt/other" || fail "bytes"
  dd if="$mnt/file" of=/dev/null bs=1M iflag=direct status=none
  ls "$mnt/folder" >/dev/null
  [[ ! -e $mnt/nothing ]] || fail "a file that is not there"
  scrape "$MOUNT_TMP/after"
  wait_for 20 "nginx's log" is_logged "$(moved "blobcache_origin_requests_total{$label}")"
  expect_moved "blobcache_origin_requests_total{$label}" "$(requests)"
  for verb in GET HEAD; do
    for status in 200 206 404; do
      expect_moved "blobcache_origin_request_seconds_count{$label,verb=\"$verb\",status=\"$status\"}" "$(with_status $verb $status)"
    done
  done
  # Whoever asks for a folder without its slash is led to it: two requests, and one time until the answer.
  (($(with_status HEAD 301) > 0)) || fail "nobody was led on"
  expect_moved_all blobcache_origin_request_seconds_count $(($(requests) - $(with_status HEAD 301)))
  # Of the listing nginx counts its chunks' heads too.
  expect_moved "blobcache_origin_request_bytes_total{$label}" $(($(body_bytes) + listing))
  (($(body_bytes) >= bytes + 500000)) || fail "nginx sent $(body_bytes) bytes only"
  (($(with_status HEAD 404) + $(with_status GET 404) > 0)) || fail "nobody asked for what is not there"
  for name in blobcache_origin_retries_total blobcache_origin_throttled_total blobcache_origin_errors_total \
    blobcache_origin_hedges_total blobcache_origin_corrupt_answers_total blobcache_errors_total; do
    expect_moved_all $name 0
  done
  stop_mount "$mnt"
}

read_blocks() { # FIRST COUNT: of 64 KiB, each a request of its own
  dd if="$mnt/file" of=/dev/null bs=64K skip="$1" count="$2" iflag=direct status=none
}
start_proxied() {
  start_mount "http://127.0.0.1:$PROXY_PORT/" "$mnt" "${METRICS_OPTIONS[@]}" -o prefetch.enabled=false \
    -o origin.attempt_timeout=20s "$@"
}

# Every second answer is a refusal, which is repeated: as many refusals, as many repetitions.
refused_for_a_while() {
  start_proxied
  faults "status=503:1"
  measure read_blocks 0 10
  # The first answer of two is the refusal.
  expect_moved 'blobcache_origin_throttled_total{volume="test"}' "$(count faults)"
  expect_moved 'blobcache_origin_retries_total{volume="test"}' "$(count repeated)"
  expect_moved 'blobcache_origin_requests_total{volume="test"}' "$(count requests)"
  expect_moved 'blobcache_origin_request_seconds_count{volume="test",verb="GET",status="503"}' "$(count faults)"
  (($(count faults) >= 9)) || fail "$(count faults) of ten answers were refused: nothing was tested"
  expect_moved_all blobcache_origin_errors_total 0
  faults ""
  stop_mount "$mnt"
}

# What fails in the end is an error of the origin, of the load, and of the read that waited for it: once each.
refused_for_good() {
  start_proxied -o origin.retries=1
  faults "status=503:1000000"
  fails() { for block in 1 2 3; do ! read_blocks $((block * 20)) 1 2>/dev/null || fail "a read without an origin"; done; }
  measure fails
  expect_moved 'blobcache_origin_errors_total{volume="test"}' 3
  expect_moved 'blobcache_origin_retries_total{volume="test"}' 3
  expect_moved 'blobcache_origin_throttled_total{volume="test"}' 6
  expect_moved 'blobcache_errors_total{code="io",where="read"}' 3
  expect_moved 'blobcache_errors_total{code="io",where="load"}' 3
  expect_moved_all blobcache_errors_total 6
  faults ""
  stop_mount "$mnt"
}

# When it is known how long answers take, one that never comes is asked for a second time.
hedged() {
  start_proxied -o origin.attempt_timeout=60s
  faults ""
  read_blocks 0 120
  faults "hang=2"
  measure read_blocks 120 4
  expect_moved 'blobcache_origin_hedges_total{volume="test"}' "$(count faults)"
  (($(count faults) == 3)) || fail "$(count faults) answers were held back, not three"
  expect_moved_all blobcache_origin_retries_total 0
  faults ""
  stop_mount "$mnt"
}

# A bit that turned on the way is seen where the store tells a checksum.
corrupt() {
  for number in 1 2 3 4; do
    head -c $((40000 + number)) /dev/urandom >"$MOUNT_TMP/object-$number"
    s3 put blobs "object-$number" "$MOUNT_TMP/object-$number"
  done
  start_mount s3://blobs "$mnt" "${S3_OPTIONS[@]:2}" -o "volume.s3.endpoint=http://127.0.0.1:$PROXY_PORT" \
    "${METRICS_OPTIONS[@]}" -o prefetch.enabled=false
  faults "flip=2"
  compare_all() {
    for number in 1 2 3 4; do cmp "$MOUNT_TMP/object-$number" "$mnt/object-$number" || fail "wrong bytes"; done
  }
  measure compare_all
  (($(count faults) >= 2)) || fail "no answer was damaged: nothing was tested"
  expect_moved 'blobcache_origin_corrupt_answers_total{volume="test"}' "$(count faults)"
  faults ""
  stop_mount "$mnt"
}

as_nginx_says
start_proxy "$port"
refused_for_a_while
refused_for_good
hedged
# The next server has an end of its own, and takes the trap's place.
kill "$PROXY_PID" "$NGINX_PID"
wait "$PROXY_PID" "$NGINX_PID" || true
start_s3
start_proxy "${S3_ENDPOINT##*:}"
corrupt
