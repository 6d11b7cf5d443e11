#!/usr/bin/env bash
# Metrics of the disk tier: what is written, evicted, damaged, passed through, fetched ahead, and what becomes of a disk that
# fails.
TEST_DEADLINE_S=200
source "$(dirname -- "$0")/disk_lib.sh"
source "$MOUNT_TESTS/metrics_lib.sh"

MODE_TRANSPORT=$(first_transport)
MIB=1048576
mkdir -p "$source_dir"
file_bytes=$((8 * MIB))
FILES=()
for tag in 1 2 3 4 5 6 7 8; do
  "$MOUNT_PROBE" write "$source_dir/file-$tag" "$file_bytes" 1 "$tag"
  FILES+=("file-$tag")
done
settle "$source_dir/file-8"
of_disk() { printf '%s{disk="%s"}' "$1" "$cache"; }

# Whole blocks, each written once: as many bytes are written as are on the disk (some may be left out when there are many).
written() {
  DISK_OPTIONS=("${METRICS_OPTIONS[@]}" -o prefetch.enabled=false -o fuse.passthrough=off)
  mount_cached
  scrape "$MOUNT_TMP/before"
  FILES_TO_FILL=(file-1)
  FILL_TOTAL=$file_bytes
  compare file-1
  becomes_full || say "not all was written: $(status disk)"
  (($(on_disk file-1) > 0)) || fail "nothing was written: $(status disk)"
  until_moved "$(of_disk blobcache_disk_written_bytes_total)" "$(on_disk file-1)"
  expect_moved "$(of_disk blobcache_evicted_bytes_total)" 0
  stop_mount "$mnt"
}

# One byte of the backing file is another: one block does not match, is counted, and is fetched again.
damaged() {
  local backing
  mount_cached
  fill_cache file-2
  wait_for 60 "all of it is verified" verified_is "$file_bytes" file-2
  backing=$(getfattr --absolute-names --only-values -n user.blobcache.path "$mnt/file-2")
  stop_mount "$mnt"
  "$PYTHON" -c 'import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(5000000); byte = file.read(1)[0]; file.seek(5000000); file.write(bytes([byte ^ 16]))' "$backing"
  mount_cached
  measure compare file-2
  expect_moved 'blobcache_corrupt_blocks_total{tier="disk"}' 1
  expect_moved blobcache_l2_bytes_fetched_total 65536
  stop_mount "$mnt"
}

# What was written and is not there any more was evicted.
evicted() {
  local on_disk
  rm -rf "$cache"
  CACHE_SIZE=32MiB
  DISK_OPTIONS=("${METRICS_OPTIONS[@]}" -o prefetch.enabled=false -o fuse.passthrough=off -o cache.admission=all)
  mount_cached
  scrape "$MOUNT_TMP/before"
  for _ in 1 2; do compare "${FILES[@]}"; done
  adds_up() {
    scrape "$MOUNT_TMP/after"
    on_disk=$(on_disk "${FILES[@]}")
    (($(moved "$(of_disk blobcache_evicted_bytes_total)") > 0 && \
      $(moved "$(of_disk blobcache_disk_written_bytes_total)") - $(moved "$(of_disk blobcache_evicted_bytes_total)") == on_disk))
  }
  wait_for 30 "written less evicted is what is there" adds_up
  say "written $(moved "$(of_disk blobcache_disk_written_bytes_total)"), evicted $(moved "$(of_disk blobcache_evicted_bytes_total)"), on disk $on_disk"
  stop_mount "$mnt"
  CACHE_SIZE=4GiB
}

# Opens that the kernel serves itself, and how long their objects are.
passed_through() {
  rm -rf "$cache"
  DISK_OPTIONS=("${METRICS_OPTIONS[@]}" -o prefetch.enabled=false)
  mount_cached
  if [[ $(status "volume['passthrough']") != True ]]; then
    not_tested "passthrough opens" "this kernel or file system has none"
    stop_mount "$mnt"
    return 0
  fi
  fill_cache file-3
  wait_for 60 "all of it is verified" verified_is "$file_bytes" file-3
  stop_mount "$mnt"
  mount_cached
  five_times() { for _ in 1 2 3 4 5; do compare file-3; done; }
  measure five_times
  expect_moved 'blobcache_passthrough_opens_total{volume="test"}' 5
  expect_moved 'blobcache_passthrough_object_bytes_total{volume="test"}' $((5 * file_bytes))
  expect_moved blobcache_reads_total 0
  stop_mount "$mnt"
}

# All that was fetched ahead is used by who reads to the end, and used or wasted when he stops. What was fetched the status
# counts by itself, where it lands.
prefetched() {
  local mode brought
  for mode in whole half; do
    rm -rf "$cache"
    truncate -s 64M "$source_dir/sparse-$mode"
    settle "$source_dir/sparse-$mode"
    DISK_OPTIONS=("${METRICS_OPTIONS[@]}")
    start_mount "$source_dir" "$mnt" "${DISK_OPTIONS[@]}"
    scrape "$MOUNT_TMP/before"
    dd if="$mnt/sparse-$mode" of=/dev/null bs=64K iflag=direct status=none $([[ $mode == whole ]] || echo count=300)
    lies_still() { [[ $(status "node['tiers']['memory']['pinned_frames']") == 0 && $(status "volume['open']") == 0 ]]; }
    wait_for 20 "the last loads" lies_still
    brought=$(status "volume['prefetch']['disk'] + volume['prefetch']['origin']")
    scrape "$MOUNT_TMP/after"
    say "$mode: $(status "volume['prefetch']")"
    ((brought > 8 * MIB)) || fail "$brought bytes were fetched ahead: nothing was tested"
    expect_moved_all blobcache_prefetch_bytes_total "$brought"
    if [[ $mode == whole ]]; then
      expect_moved 'blobcache_prefetch_bytes_total{outcome="wasted"}' 0
    else
      (($(moved 'blobcache_prefetch_bytes_total{outcome="used"}') <= 300 * 65536)) || fail "more was used than read"
      (($(moved 'blobcache_prefetch_bytes_total{outcome="wasted"}') > 0)) || fail "nothing was wasted"
    fi
    stop_mount "$mnt"
  done
}

# A disk that takes no write is not written to, one that cannot be read is not used, and both are told of until they are well.
failing() {
  make_fault_disk 128 ext4
  DISK_OPTIONS=("${METRICS_OPTIONS[@]}" -o prefetch.enabled=false -o fuse.passthrough=off)
  mount_cached
  state_is_told() { scrape "$MOUNT_TMP/after" && [[ $(value "$(of_disk blobcache_disk_state)") == "$1" ]]; }
  state_is_told 0 || fail "the disk is not ok at the beginning: $(status disk)"
  fill_cache file-4
  faults write=fail
  compare file-5
  wait_for 30 "state 1" state_is_told 1
  faults
  wait_for 60 "state 0 again" state_is_told 0
  stop_mount "$mnt"
  mount_cached # so that nothing is in memory
  faults read=fail
  compare file-4
  wait_for 30 "state 2" state_is_told 2
  faults
  wait_for 60 "state 0 again" state_is_told 0
  stop_mount "$mnt"
  remove_fault_disk
}

written
damaged
evicted
passed_through
prefetched
failing
