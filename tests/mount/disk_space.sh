#!/usr/bin/env bash
# The disk tier keeps to its room: to --cache-size while four times as much is read, to the watermark of a file system
# that somebody else fills, and what is evicted while it is open stays readable.
TEST_DEADLINE_S=240
source "$(dirname -- "$0")/disk_lib.sh"

limit_mib=64
CACHE_SIZE=${limit_mib}MiB
# What may lie beside the data: index files, checksums, one chunk of each kind that is being written.
slack_mib=20
FILES=()
mkdir -p "$source_dir"
# 16 files of 14 MiB and 24 small ones: about 4 x the limit.
for tag in $(seq 16); do
  "$MOUNT_PROBE" write "$source_dir/big-$tag" $((14 * 1048576 + tag * 4097)) 1 "$tag"
  FILES+=("big-$tag")
done
for tag in $(seq 17 40); do
  "$MOUNT_PROBE" write "$source_dir/small-$tag" $((tag * 40000)) 1 "$tag"
  FILES+=("small-$tag")
done
settle "$source_dir/small-40"

used_kib() { { du -sk "$cache" 2>/dev/null || true; } | cut -f1; } # files may vanish while it looks

# watch_usage LIMIT_KIB PID: samples what the cache directory takes until the process ends; the most is in $MOUNT_TMP/most.
watch_usage() {
  local most=0 now
  until is_gone "$2"; do
    now=$(used_kib)
    [[ -n $now ]] || continue
    if ((now > most)); then most=$now; fi
    pause_ms 20
  done
  printf '%s\n' "$most" >"$MOUNT_TMP/most"
}

check_limit() {
  rm -rf "$cache"
  DISK_OPTIONS=(-o fuse.passthrough=off -o cache.admission=all)
  mount_cached
  start_hammer "$mnt/" --readers=4 --request=131072 --sequential
  compare "${FILES[@]}" &
  local reader=$! most
  watch_usage $((limit_mib * 1024)) "$reader"
  wait "$reader" || fail "wrong bytes"
  stop_hammer
  most=$(<"$MOUNT_TMP/most")
  say "at most $((most / 1024)) MiB of $limit_mib MiB; $(status disk)"
  ((most <= (limit_mib + slack_mib) * 1024)) || fail "the cache took $most KiB of $limit_mib MiB"
  ((most >= limit_mib * 1024 / 2)) || fail "the cache took only $most KiB of $limit_mib MiB: the limit was not tested"
  (($(status "disk['evicted_bytes']") > 0)) || fail "nothing was evicted"
  (($(status "disk['used']") <= limit_mib * 1048576)) || fail "the status says $(status "disk['used']") bytes"
  stop_mount "$mnt"
}

# Files held open (mapped, so that reads are possible without the page cache) while everything else pushes them out.
check_open_files() {
  rm -rf "$cache"
  DISK_OPTIONS=(-o fuse.passthrough="$1" -o cache.admission=all)
  mount_cached
  fill_cache big-1 big-2
  wait_for 30 "the first files are on disk and verified" verified_is "$(total_bytes "$source_dir" big-1 big-2)" big-1 big-2
  drop_mount_cache big-1 big-2
  "$PYTHON" - "$1" "$mnt" "$source_dir" "${FILES[@]}" <<'PYTHON'
import json, os, sys
passthrough, mount, source, names = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]

def right(fd, name):
    with open(f"{source}/{name}", "rb") as wanted:
        offset = 0
        while piece := wanted.read(1 << 20):
            got = os.pread(fd, len(piece), offset)
            assert got == piece, f"{name}: wrong bytes at {offset}"
            offset += len(piece)
        assert os.pread(fd, 1, offset) == b"", f"{name}: bytes behind its end"

def on_disk(name):
    return json.loads(os.getxattr(f"{mount}/{name}", "user.blobcache.tiers"))["disk"]

held = {name: os.open(f"{mount}/{name}", os.O_RDONLY) for name in ("big-1", "big-2")}
for _ in range(4):
    for name in names[2:]:
        fd = os.open(f"{mount}/{name}", os.O_RDONLY)
        right(fd, name)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
evicted = sum(on_disk(name) < os.path.getsize(f"{source}/{name}") for name in held)
# Those that the kernel reads by itself may also be kept.
assert evicted or passthrough == "auto", "nothing of the open files was evicted: nothing is tested"
for name, fd in held.items():
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    right(fd, name)
    os.close(fd)
print(f"{evicted} of {len(held)} open files were evicted and stayed readable", file=sys.stderr)
PYTHON
  wait_for 30 "the room of closed files is free again" status_is "disk['used'] <= $((limit_mib * 1048576))" True
  stop_mount "$mnt"
}

# Somebody else fills the file system: the cache gives way down to the watermark.
check_other_writer() {
  make_fault_disk 256 ext4
  CACHE_SIZE=4GiB
  DISK_OPTIONS=(-o fuse.passthrough=off)
  mount_cached
  fill_cache "${FILES[@]:0:10}"
  local before size
  before=$(used_kib)
  size=$(($(stat -f -c '%a * %S' "$MOUNT_TMP/fs")))
  # All but a twentieth of the whole: above the high watermark of 90 %.
  fallocate -l $((size - 12 * 1048576)) "$MOUNT_TMP/fs/other"
  wait_for 30 "the cache gives way" gave_way
  say "gave way: $before KiB before, $(used_kib) KiB now"
  compare "${FILES[@]}"
  rm "$MOUNT_TMP/fs/other"
  stop_mount "$mnt"
  remove_fault_disk
  cache=$MOUNT_TMP/cache
  CACHE_SIZE=${limit_mib}MiB
}

# gave_way: at least 10 % of the file system is free, to within a chunk.
gave_way() {
  local total free
  read -r total free <<<"$(stat -f -c '%b %a' "$MOUNT_TMP/fs")"
  ((free * 100 >= total * 8))
}

check() {
  check_limit
  check_open_files off
  check_open_files auto
  check_other_writer
}
with_each_transport check
