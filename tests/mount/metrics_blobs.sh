#!/usr/bin/env bash
# Metrics of the content store: what is put, got, refused, damaged and expires is counted, once each.
TEST_DEADLINE_S=80
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/metrics_lib.sh"

mnt=$MOUNT_TMP/mnt
cache=$MOUNT_TMP/cache
url=http://127.0.0.1:$METRICS_PORT/v1/blobs
reserved_mib=64
MODE_TRANSPORT=dev

id_of() { sha256sum <"$1" | cut -d' ' -f1; }
http() { # STATUS ARGUMENT...
  local wanted=$1 got
  shift
  got=$(curl -sS --noproxy '*' --max-time 60 -o "$MOUNT_TMP/output" -w '%{http_code}' "$@") || true
  [[ $got == "$wanted" ]] || fail "HTTP status $got instead of $wanted from: $* ($(<"$MOUNT_TMP/output"))"
}
start() {
  start_mount blobs: "$mnt" --cache-dir="$cache" --cache-size=1GiB -o cache.blobs_reserved=${reserved_mib}MiB \
    "${METRICS_OPTIONS[@]}"
}
puts() { printf 'blobcache_blob_puts_total{outcome="%s"}' "$1"; }

for number in 1 2 3; do head -c $((number * 100000)) /dev/urandom >"$MOUNT_TMP/$number"; done
truncate -s $(((reserved_mib + 1) << 20)) "$MOUNT_TMP/too-much"
start
scrape "$MOUNT_TMP/after"
expect_value blobcache_blob_limit_bytes $((reserved_mib << 20))
expect_value blobcache_blobs 0
# The store's part of the memory is there, and all parts together are the limit, less what was rounded off.
expect_true 'v("blobcache_memory_bytes{pool=\"content\"}") > 0'
expect_true "0.95 <= sum(every('blobcache_memory_bytes')) / ($((${MOUNT_MEMORY%MiB} << 20))) <= 1"

wishes() {
  http 201 -T "$MOUNT_TMP/1" "$url"
  http 200 -T "$MOUNT_TMP/1" "$url"
  http 201 -T "$MOUNT_TMP/2" "$url"
  "$BLOBCACHE" put --node="$mnt" "$MOUNT_TMP/3" >/dev/null
  "$BLOBCACHE" put --node="$mnt" "$MOUNT_TMP/3" >/dev/null
  http 507 -T "$MOUNT_TMP/too-much" "$url"
  http 422 -H "Blobcache-Expect: $(printf '0%.0s' {1..64})" -T "$MOUNT_TMP/2" "$url"
  # Of a length that is not said before: seen while it comes.
  http 507 -X PUT -H 'Transfer-Encoding: chunked' --data-binary "@$MOUNT_TMP/too-much" "$url"
}
measure wishes
expect_moved "$(puts stored)" 3
expect_moved "$(puts known)" 2
expect_moved "$(puts refused)" 2
expect_moved "$(puts mismatched)" 1
expect_moved "$(puts failed)" 0
expect_moved blobcache_blobs 3
on_disk() { find "$cache/blobs" -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%d\n", sum }'; }
expect_moved blobcache_blob_bytes "$(on_disk)"

gets() {
  http 200 "$url/$(id_of "$MOUNT_TMP/1")"
  http 206 -r 10-20 "$url/$(id_of "$MOUNT_TMP/2")"
  "$BLOBCACHE" get --node="$mnt" "$(id_of "$MOUNT_TMP/3")" | cmp - "$MOUNT_TMP/3" || fail "bytes"
  http 404 "$url/$(printf '0%.0s' {1..64})"
  http 200 -I "$url/$(id_of "$MOUNT_TMP/1")" # its size needs no look at the file
}
measure gets
expect_moved blobcache_blob_gets_total 3

# A producer who goes away in the middle.
scrape "$MOUNT_TMP/before"
"$PYTHON" - "$METRICS_PORT" <<'PYTHON'
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as link:
    link.sendall(b"PUT /v1/blobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 300000)
PYTHON
until_moved "$(puts failed)" 1

# What expires: by its second.
scrape "$MOUNT_TMP/before"
head -c 7000 /dev/urandom >"$MOUNT_TMP/brief"
http 201 -H 'Blobcache-TTL: 1s' -T "$MOUNT_TMP/brief" "$url"
until_moved blobcache_blobs_expired_total 1
expect_moved blobcache_blobs 0
expect_moved blobcache_blobs_corrupt_total 0

# One byte of a blob is another: it is not served, and set aside.
id=$(id_of "$MOUNT_TMP/2")
stop_mount "$mnt"
"$PYTHON" -c 'import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(4711); byte = file.read(1)[0]; file.seek(4711); file.write(bytes([byte ^ 1]))' "$cache/blobs/${id:0:2}/$id"
start
measure http 500 "$url/$id"
expect_moved blobcache_blobs_corrupt_total 1
expect_moved blobcache_blobs -1
stop_mount "$mnt"
