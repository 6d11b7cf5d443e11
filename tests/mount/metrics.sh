#!/usr/bin/env bash
# Metrics tell the truth: a known amount goes through a mount, and each number moves by that amount and no other.
TEST_DEADLINE_S=80
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
tree=$MOUNT_TMP/source
port=$(free_port)
mkdir -p "$tree"
bytes=$((6 << 20))
pieces=$((bytes >> 16)) # of 64 KiB
head -c "$bytes" /dev/urandom >"$tree/file"
wait_for 10 "a settled file" is_settled "$tree/file"

scrape() { curl -fsS --noproxy '*' --max-time 20 "http://127.0.0.1:$port/metrics" >"$1"; }

# moved NAME: by how much a metric grew between $MOUNT_TMP/before and $MOUNT_TMP/after; labels and all, as it is written there.
moved() {
  "$PYTHON" - "$MOUNT_TMP/before" "$MOUNT_TMP/after" "$1" <<'PYTHON'
import sys
def value(path):
    lines = dict(line.rsplit(" ", 1) for line in open(path) if not line.startswith("#"))
    return float(lines.get(sys.argv[3], 0))
print(int(value(sys.argv[2]) - value(sys.argv[1])))
PYTHON
}
expect_moved() { # NAME AMOUNT
  local got
  got=$(moved "$1")
  [[ $got == "$2" ]] || fail "$1 moved by $got, not by $2"
}
value() { sed -n "s/^$1 //p" "$MOUNT_TMP/after"; } # NAME, as a pattern
read_all() { dd if="$mnt/file" of="$MOUNT_TMP/copy" bs=64K iflag=direct status=none; }

# expect_read TIER: all bytes were replied once more, all from that tier.
expect_read() {
  local tier=$1 each hits amount
  for each in memory disk peer origin; do
    amount=0
    [[ $each == "$tier" ]] && amount=$bytes
    expect_moved "blobcache_read_bytes_total{volume=\"test\",tier=\"$each\"}" "$amount"
  done
  expect_moved blobcache_reads_total "$pieces"
  for each in l0_hits:memory l1_hits:disk l2_misses:origin; do
    hits=0
    [[ ${each#*:} == "$tier" ]] && hits=$pieces
    expect_moved "blobcache_${each%:*}_total" "$hits"
    expect_moved "blobcache_${each:0:2}_bytes_served_total" $((hits << 16))
  done
  expect_moved 'blobcache_fuse_request_seconds_count{op="read"}' "$pieces"
  expect_moved 'blobcache_fuse_request_seconds_bucket{op="read",le="+Inf"}' "$pieces"
  expect_moved blobcache_fuse_read_latency_ms_count "$pieces"
  expect_moved 'blobcache_errors_total{code="io",where="read"}' 0
}

measure() { # COMMAND...: before and after it
  scrape "$MOUNT_TMP/before"
  "$@"
  scrape "$MOUNT_TMP/after"
}

start() {
  start_mount "$tree" "$mnt" --cache-dir="$MOUNT_TMP/cache" --cache-size=100MiB -o "http.listen=127.0.0.1:$port" \
    -o volume.name=test -o prefetch.enabled=false -o fuse.passthrough=off
}

MODE_CORES=1
MODE_TRANSPORT=$(transports | head -n 1)
start
# Cold: from the origin, each block once.
measure read_all
cmp "$tree/file" "$MOUNT_TMP/copy" || fail "bytes"
expect_read origin
expect_moved blobcache_l2_bytes_fetched_total "$bytes"
expect_moved 'blobcache_origin_request_bytes_total{volume="test"}' "$bytes"
expect_moved 'blobcache_fuse_request_seconds_count{op="open"}' 1
expect_moved 'blobcache_fuse_request_seconds_count{op="release"}' 1
# Again: from memory, and nothing is fetched.
measure read_all
expect_read memory
expect_moved blobcache_l2_bytes_fetched_total 0
[[ $(value 'blobcache_l0_hit_ratio') == 50 ]] || fail "l0_hit_ratio is $(value blobcache_l0_hit_ratio) after half of the reads hit"
[[ $(value 'blobcache_l2_miss_ratio') == 50 ]] || fail "l2_miss_ratio is $(value blobcache_l2_miss_ratio)"
[[ $(value 'blobcache_l1_hit_ratio') == 0 ]] || fail "l1_hit_ratio is $(value blobcache_l1_hit_ratio)"
# Frames are taken in blocks of 64 KiB or chunks of 4 MiB.
memory=$(value blobcache_mem_cache_usage_mb)
"$PYTHON" -c "assert $bytes / 1e6 <= $memory <= 3 * $bytes / 1e6" || fail "mem_cache_usage_mb is $memory"

# Names: a look-up that finds nothing is a request, and so is each getattr that the kernel does not know by itself.
look_up() { for i in {1..7}; do [[ ! -e $mnt/nothing-$i ]] || return 1; done; }
measure look_up
expect_moved 'blobcache_fuse_request_seconds_count{op="lookup"}' 7
expect_moved blobcache_fuse_lookup_latency_ms_count 7

stop_mount "$mnt"
start
# After a restart: from the disk.
measure read_all
cmp "$tree/file" "$MOUNT_TMP/copy" || fail "bytes from the disk"
expect_read disk
expect_moved blobcache_l2_bytes_fetched_total 0
used=$(value 'blobcache_disk_used_bytes.*')
((used >= bytes)) || fail "disk_used_bytes is $used"
[[ $(value 'blobcache_disk_pinned_bytes.*') == 0 ]] || fail "the disk's pinned bytes are not 0"
"$BLOBCACHE" warm --pin "$mnt/file" >"$MOUNT_TMP/warm" 2>&1 || fail "warm --pin: $(<"$MOUNT_TMP/warm")"
scrape "$MOUNT_TMP/after"
[[ $(value 'blobcache_disk_pinned_bytes.*') == "$bytes" ]] || fail "the disk's pinned bytes are not those of the file"
[[ $(value 'blobcache_disk_state.*') == 0 ]] || fail "the disk's state is not 0"

# The text is what Prometheus reads. Its linter dislikes units that are no base units, which the older names have.
if command -v promtool >/dev/null; then
  promtool check metrics <"$MOUNT_TMP/after" >"$MOUNT_TMP/promtool" 2>&1 || true
  ! grep -vE '^blobcache_(fuse_(read|lookup|getattr)_latency_ms|(disk|mem)_cache_usage_mb|read_throughput_mbps) ' \
    "$MOUNT_TMP/promtool" || fail "promtool complains"
else
  not_tested "the format of /metrics" "promtool is not installed (package prometheus)"
fi
stop_mount "$mnt"
