#!/usr/bin/env bash
# What is fetched ahead of readers, told by the daemon's counters: a scan has nearly all of its bytes fetched for it, many
# pieces at a time; a reader that stops has cost a window; random readers cost nothing; a closed file is not read on; and what
# is fetched are the right bytes.
TEST_DEADLINE_S=240
source "$(dirname -- "$0")/disk_lib.sh"

MIB=1048576
mkdir -p "$source_dir"
"$MOUNT_PROBE" write "$source_dir/scan" $((96 * MIB + 12345)) 1 1
truncate -s 100G "$source_dir/sparse"
settle "$source_dir/sparse"

prefetched() { status "volume['prefetch']['$1']"; }
# brought: bytes that prefetch fetched, from wherever.
brought() { status "volume['prefetch']['disk'] + volume['prefetch']['origin']"; }
# lies_still: no load is under way, so no counter will change.
lies_still() { [[ $(status "node['tiers']['memory']['pinned_frames']") == 0 ]]; }

scan() {
  local used
  start_mount "$source_dir" "$mnt"
  cmp "$source_dir/scan" "$mnt/scan" || fail "wrong bytes"
  wait_for 10 "the last loads" lies_still
  used=$(prefetched used)
  ((used > 80 * MIB)) || fail "of 96 MiB that were read in order $used bytes were fetched ahead: $(status "volume['prefetch']")"
  (($(prefetched in_flight_max) >= 4)) || fail "never 4 pieces at a time: $(status "volume['prefetch']")"
  (($(prefetched wasted) <= 96 * MIB / 20)) || fail "much was fetched for nothing: $(status "volume['prefetch']")"
  [[ $(status "volume['origin_bytes']") -le $((98 * MIB)) ]] || fail "bytes were fetched twice: $(status volume)"
  [[ $(prefetched failed) == 0 ]] || fail "pieces failed: $(status "volume['prefetch']")"
  say "$(status "volume['prefetch']")"
  stop_mount "$mnt"
}

# A quarter of the memory is what may lie unread; a window may be smaller.
stops_midway() {
  local read=$((40 * MIB)) fetched
  start_mount "$source_dir" "$mnt"
  "$PYTHON" - "$mnt/sparse" "$read" "$MOUNT_TMP/stopped" <<'PYTHON' &
import os, signal, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.lseek(fd, 50 << 30, os.SEEK_SET)
left = int(sys.argv[2])
while left > 0:
    left -= len(os.read(fd, 1 << 20))
open(sys.argv[3], "w").close()
signal.pause()  # it keeps the file open, and is ended by the test
PYTHON
  local reader=$!
  wait_for 60 "the reader stopped" test -e "$MOUNT_TMP/stopped"
  rm "$MOUNT_TMP/stopped"
  wait_for 10 "the last loads" lies_still
  fetched=$(brought)
  ((fetched > 16 * MIB)) || fail "$fetched bytes were fetched ahead of a scan"
  # It read 40 MiB; its window is 64 MiB (16 chunks) then, and the kernel read ahead of it.
  ((fetched <= read + 72 * MIB)) || fail "$fetched bytes were fetched for a reader of $read: $(status "volume['prefetch']")"
  kill "$reader"
  wait "$reader" || true
  is_closed() { [[ $(status "volume['open']") == 0 ]]; }
  wait_for 10 "the file is closed" is_closed
  wait_for 10 "the last loads" lies_still
  (($(brought) == fetched)) || fail "a closed file was read on: $(brought) after $fetched"
  (($(prefetched wasted) > 0)) || fail "nothing was counted as wasted: $(status "volume['prefetch']")"
  (($(prefetched used) + $(prefetched wasted) >= $(brought) - 4 * MIB)) || fail "uncounted: $(status "volume['prefetch']")"
  say "$(status "volume['prefetch']")"
  stop_mount "$mnt"
}

random_reads() {
  start_mount "$source_dir" "$mnt"
  "$PYTHON" - "$mnt/sparse" <<'PYTHON'
import mmap, os, random, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
page, numbers = mmap.mmap(-1, 4096), random.Random(7)
for _ in range(3000):
    os.preadv(fd, [page], numbers.randrange((100 << 30) // 4096) * 4096)
PYTHON
  [[ $(prefetched pieces) == 0 ]] || fail "random reads were fetched ahead of: $(status "volume['prefetch']")"
  say "$(status "volume['prefetch']")"
  stop_mount "$mnt"
}

# start_on_disk: a new daemon, nothing in its memory, over a cache that has all of `scan`, verified.
start_on_disk() {
  rm -rf "$cache"
  mount_cached
  fill_cache scan
  is_verified() { [[ -n $(getfattr --absolute-names --only-values -n user.blobcache.path "$mnt/scan" 2>/dev/null) ]]; }
  wait_for 60 "all of it is verified" is_verified
  BACKING=$(getfattr --absolute-names --only-values -n user.blobcache.path "$mnt/scan")
  stop_mount "$mnt"
  mount_cached
}

# As chains of linked reads, few submissions for many of them.
from_disk() {
  local disk
  DISK_OPTIONS=(-o fuse.passthrough=off)
  start_on_disk
  cmp "$source_dir/scan" "$mnt/scan" || fail "wrong bytes"
  wait_for 10 "the last loads" lies_still
  disk=$(prefetched disk)
  ((disk > 80 * MIB)) || fail "of 96 MiB on disk $disk bytes were fetched ahead: $(status "volume['prefetch']")"
  [[ $(served origin) == 0 ]] || fail "the origin was asked for what is on disk"
  (($(prefetched linked) * 10 >= disk * 9)) || fail "too little by linked reads: $(status "volume['prefetch']")"
  # Two for each window (a quarter of the file), and those of the beginning, when it was small.
  (($(prefetched submissions) <= 2 * 4 + 8)) || fail "too many submissions: $(status "volume['prefetch']")"
  (($(prefetched chains) > $(prefetched submissions))) || fail "never two chains: $(status "volume['prefetch']")"
  [[ $(prefetched broken) == 0 ]] || fail "chains broke: $(status "volume['prefetch']")"
  say "$(status "volume['prefetch']")"
  stop_mount "$mnt"
}

# The file loses its end while it is read: a read comes back short, and what its chain still had to read is not lost. Where
# the first lost byte happens to be in the last read of a chain, another place will not be.
broken_chains() {
  local cut_mib
  for cut_mib in 40 29 53 62; do
    broken_chain "$cut_mib"
    ((broken == 0)) || return 0
  done
  fail "no chain broke"
}

broken_chain() {
  DISK_OPTIONS=(-o fuse.passthrough=off)
  start_on_disk
  cmp -n 65536 -- "$source_dir/scan" "$mnt/scan"
  wait_for 10 "it is verified still" is_verified
  truncate -s $(($1 * MIB + 300000)) "$BACKING"
  drop_mount_cache scan
  cmp "$source_dir/scan" "$mnt/scan" || fail "wrong bytes"
  wait_for 10 "the last loads" lies_still
  broken=$(prefetched broken)
  (($(served origin) + $(prefetched origin) > 0)) || fail "the lost half came from nowhere"
  [[ $(status "volume['errors']") == 0 ]] || fail "a reader saw an error"
  say "$(status "volume['prefetch']")"
  stop_mount "$mnt"
}

# At the device what is fetched ahead has another priority than what readers wait for, so the two are never one request.
priorities() {
  local watch='tracepoint:block:block_rq_issue /pid == DAEMON && strncmp(args->rwbs, "R", 1) == 0/ { @issued[args->ioprio] = count(); }
    interval:ms:10 /!@attached/ { @attached = 1; printf("attached\n"); }'
  DISK_OPTIONS=(-o fuse.passthrough=off)
  start_on_disk
  command -v bpftrace >/dev/null || { not_tested "priorities at the device" "bpftrace is not installed"; return 0; }
  # Tracefs need not be mounted; here it is, for this program alone.
  unshare -m sh -c 'mount -t tracefs tracefs /sys/kernel/tracing; exec bpftrace -e "$1"' sh "${watch//DAEMON/$DAEMON_PID}" \
    >"$MOUNT_TMP/issued" 2>"$MOUNT_TMP/watch.log" &
  local watcher=$!
  watches() { grep -qs attached "$MOUNT_TMP/issued" || ! kill -0 "$watcher" 2>/dev/null; }
  wait_for 20 "bpftrace is attached or gives up" watches
  cmp "$source_dir/scan" "$mnt/scan" || fail "wrong bytes"
  wait_for 10 "the last loads" lies_still
  kill -INT "$watcher" 2>/dev/null || true
  wait "$watcher" || true
  stop_mount "$mnt"
  if ! grep -q '^@issued' "$MOUNT_TMP/issued"; then
    not_tested "priorities at the device" "no request was seen: $(tr '\n' ' ' <"$MOUNT_TMP/watch.log")"
    return 0
  fi
  # Best effort is class 2, of 8 levels; what has no priority of its own is of level 4 or of no class.
  say "$(grep '^@issued' "$MOUNT_TMP/issued" | tr '\n' ' ')"
  grep -q "^@issued\[$(((2 << 13) | 7))\]" "$MOUNT_TMP/issued" || fail "nothing was fetched at a low priority"
  grep '^@issued' "$MOUNT_TMP/issued" | grep -qv "\[$(((2 << 13) | 7))\]" || fail "the reader's own reads had it too"
}

switched_off() {
  start_mount "$source_dir" "$mnt" -o prefetch.enabled=false
  cmp "$source_dir/scan" "$mnt/scan" || fail "wrong bytes"
  [[ $(prefetched pieces) == 0 ]] || fail "prefetch is off: $(status "volume['prefetch']")"
  say "$(status "volume['prefetch']")"
  stop_mount "$mnt"
}

check() {
  scan
  stops_midway
  random_reads
  from_disk
}
with_each_mode check
broken_chains
priorities
switched_off
