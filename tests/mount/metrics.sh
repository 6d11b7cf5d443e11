#!/usr/bin/env bash
# Metrics tell the truth: a known amount goes through a mount, and each number moves by that amount and no other. Here: reads by
# tier, names, latencies, what the tiers take, ratios and rates.
TEST_DEADLINE_S=100
source "$(dirname -- "$0")/disk_lib.sh"
source "$MOUNT_TESTS/metrics_lib.sh"

tree=$source_dir
mkdir -p "$tree"
bytes=$((6 << 20))
pieces=$((bytes >> 16)) # of 64 KiB
head -c "$bytes" /dev/urandom >"$tree/file"
wait_for 10 "a settled file" is_settled "$tree/file"
cache_mib=100

read_all() { dd if="$mnt/file" of="$MOUNT_TMP/copy" bs=64K iflag=direct status=none; }

# expect_read TIER: all bytes were replied once more, all from that tier.
expect_read() {
  local each
  local -A wanted=([memory]=0 [disk]=0 [peer]=0 [origin]=0)
  wanted[$1]=$pieces
  for each in memory disk peer origin; do
    expect_moved "blobcache_read_bytes_total{volume=\"test\",tier=\"$each\"}" $((wanted[$each] << 16))
  done
  expect_moved blobcache_reads_total "$pieces"
  expect_moved blobcache_l0_hits_total "${wanted[memory]}"
  expect_moved blobcache_l1_hits_total "${wanted[disk]}"
  expect_moved blobcache_l2_misses_total "${wanted[origin]}"
  expect_moved blobcache_l0_bytes_served_total $((wanted[memory] << 16))
  expect_moved blobcache_l1_bytes_served_total $((wanted[disk] << 16))
  expect_moved blobcache_l2_bytes_served_total $((wanted[origin] << 16))
  expect_moved 'blobcache_fuse_request_seconds_count{op="read"}' "$pieces"
  expect_moved 'blobcache_fuse_request_seconds_bucket{op="read",le="+Inf"}' "$pieces"
  expect_moved blobcache_fuse_read_latency_ms_count "$pieces"
  # The two histograms are of the same times.
  expect_true 'abs(v("blobcache_fuse_read_latency_ms_sum") - 1000 * v("blobcache_fuse_request_seconds_sum{op=\"read\"}")) < 1e-3'
  expect_moved_all blobcache_errors_total 0
}

# expect_rate BYTES: so many in the time since the mount came; it is told how long that is at least and at most.
expect_rate() {
  local rate
  rate=$(value blobcache_read_throughput_mbps)
  "$PYTHON" -c "
import time
most = $1 / 1e6 / max($2, 1e-3)
least = $1 / 1e6 / $3
assert least * 0.99 <= $rate <= most * 1.01, f'{least} <= $rate <= {most}'" || fail "read_throughput_mbps is $rate after $1 bytes"
}

start() {
  BEGUN=$EPOCHREALTIME
  start_mount "$tree" "$mnt" --cache-dir="$cache" --cache-size=${cache_mib}MiB "${METRICS_OPTIONS[@]}" \
    -o prefetch.enabled=false -o fuse.passthrough=off -o fuse.attr_timeout=0s "$@"
  READY=$EPOCHREALTIME
}

MODE_CORES=1
MODE_TRANSPORT=$(first_transport)
start
scrape "$MOUNT_TMP/after"
expect_value 'blobcache_build_info{version="[0-9.]*"}' 1
# Without reads there is no ratio.
for name in blobcache_l0_hit_ratio blobcache_l1_hit_ratio blobcache_l2_miss_ratio; do
  expect_value $name ""
done
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
SCRAPED=$EPOCHREALTIME
expect_read memory
expect_moved blobcache_l2_bytes_fetched_total 0
expect_value blobcache_l0_hit_ratio 50
expect_value blobcache_l2_miss_ratio 50
expect_value blobcache_l1_hit_ratio 0
# From its first sample on, which is taken while it starts.
expect_rate $((2 * bytes)) "$("$PYTHON" -c "print($SCRAPED - $READY - 0.5)")" "$("$PYTHON" -c "print($SCRAPED - $BEGUN)")"
# Frames are taken in blocks of 64 KiB or chunks of 4 MiB.
expect_true "$bytes / 1e6 <= v('blobcache_mem_cache_usage_mb') <= 3 * $bytes / 1e6"
expect_true 'v("blobcache_mem_cache_usage_pct") == 100e6 * v("blobcache_mem_cache_usage_mb") / v("blobcache_memory_bytes{pool=\"arena\"}")'
# All pools together are the limit, less what was rounded off; the arena has what the others leave.
expect_true "0.95 <= sum(every('blobcache_memory_bytes')) / ($((${MOUNT_MEMORY%MiB} << 20))) <= 1"
arena=$(value 'blobcache_memory_bytes{pool="arena"}')

# Names: a look-up that finds nothing is a request, and so is each getattr that the kernel does not know by itself.
look_up() { for i in {1..7}; do [[ ! -e $mnt/nothing-$i ]] || return 1; done; }
measure look_up
expect_moved 'blobcache_fuse_request_seconds_count{op="lookup"}' 7
expect_moved blobcache_fuse_lookup_latency_ms_count 7
exec {held}<"$mnt/file"
ask_attributes() { "$PYTHON" -c 'import os, sys; [os.fstat(int(sys.argv[1])) for _ in range(9)]' "$held"; }
measure ask_attributes
exec {held}<&-
expect_moved 'blobcache_fuse_request_seconds_count{op="getattr"}' 9
expect_moved blobcache_fuse_getattr_latency_ms_count 9

# A core that works is busier than before, by no more than the time there was; an idle one hardly is.
idle=$(value 'blobcache_reactor_busy_ratio{core="0"}')
busy_reads() {
  for _ in {1..40}; do dd if="$mnt/file" of=/dev/null bs=4K iflag=direct status=none; done
}
measure busy_reads
expect_true "$idle < v('blobcache_reactor_busy_ratio{core=\"0\"}') <= 1"
expect_true "0 <= $idle < 0.5"

# Writes behind replies may be left out when there are too many at once, and come with the next miss.
FILES_TO_FILL=(file) FILL_TOTAL=$bytes
for try in 1 2 3 4 5 6; do
  ! becomes_full || break
  ((try < 6)) || fail "not all that was read is on disk: $(status disk)"
  stop_mount "$mnt"
  start
  read_all
done
wait_for 30 "all of it verified" verified_is "$bytes" file
stop_mount "$mnt"
start
# After a restart: from the disk.
measure read_all
cmp "$tree/file" "$MOUNT_TMP/copy" || fail "bytes from the disk"
expect_read disk
expect_moved blobcache_l2_bytes_fetched_total 0
expect_value blobcache_l1_hit_ratio 100
disk="{disk=\"$cache\"}"
expect_value "blobcache_disk_limit_bytes$disk" $((cache_mib << 20))
expect_true "$bytes <= v('blobcache_disk_used_bytes$disk') <= 2 * $bytes"
expect_true "v('blobcache_disk_cache_usage_mb') == v('blobcache_disk_used_bytes$disk') / 1e6"
expect_true "v('blobcache_disk_cache_usage_pct') == 100 * v('blobcache_disk_used_bytes$disk') / $((cache_mib << 20))"
expect_value "blobcache_disk_pinned_bytes$disk" 0
"$BLOBCACHE" warm --pin "$mnt/file" >"$MOUNT_TMP/warm" 2>&1 || fail "warm --pin: $(<"$MOUNT_TMP/warm")"
scrape "$MOUNT_TMP/after"
expect_value "blobcache_disk_pinned_bytes$disk" "$bytes"

# The text is what Prometheus reads. Its linter dislikes units that are no base units, which the older names have.
if command -v promtool >/dev/null; then
  promtool check metrics <"$MOUNT_TMP/after" >"$MOUNT_TMP/promtool" 2>&1 || true
  ! grep -vE '^blobcache_(fuse_(read|lookup|getattr)_latency_ms|(disk|mem)_cache_usage_mb|read_throughput_mbps) ' \
    "$MOUNT_TMP/promtool" || fail "promtool complains"
else
  not_tested "the format of /metrics" "promtool is not installed (package prometheus)"
fi
stop_mount "$mnt"

# 64 MiB more memory are the arena's, less what grows with it.
MOUNT_MEMORY=$((${MOUNT_MEMORY%MiB} + 64))MiB
start
scrape "$MOUNT_TMP/after"
expect_true "40 << 20 <= v('blobcache_memory_bytes{pool=\"arena\"}') - $arena <= 64 << 20"
stop_mount "$mnt"
