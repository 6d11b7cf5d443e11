#!/usr/bin/env bash
# kill -9 of the daemon at random instants while it fills its disk and serves from it: every byte after the restart is
# right, and at least 95 % of what was valid on disk before the kill comes from the disk again. Each kill is checked.
#   disk_kill.sh [KILLS]       5 without; kill N is done in the N-th of the modes, in turn
TEST_DEADLINE_S=$((${1:-5} * 25 + 60))
source "$(dirname -- "$0")/disk_lib.sh"

kills=${1:-5}
CACHE_SIZE=16GiB # of each kill's fresh files some 30 MiB stay: nothing known may leave for want of room
make_files "$source_dir" 24 40
known=("${FILES[@]}")
known_bytes=$(total_bytes "$source_dir" "${known[@]}")
fresh_tag=${#FILES[@]}

# make_fresh VERSION: files that are not cached yet, so that writes are under way when the kill comes. A new version is a
# new object: the old one's bytes must never be seen again.
make_fresh() {
  local number
  FILES=("${known[@]}")
  for number in 1 2 3 4 5 6; do
    FILES+=("fresh-$number")
    "$MOUNT_PROBE" write "$source_dir/fresh-$number" $((number * number * 300000 + 4097)) "$1" $((fresh_tag + number))
  done
  settle "$source_dir/fresh-6"
}

# check_survivors: the known files once through a fresh mount; nothing of it is in memory or in the page cache.
check_survivors() {
  local disk memory origin
  [[ $(served disk) == 0 && $(served origin) == 0 ]] || fail "the daemon counts bytes that it has not served"
  compare "${known[@]}"
  disk=$(served disk) memory=$(served memory) origin=$(served origin)
  say "after kill $kill: disk $disk memory $memory origin $origin of $known_bytes"
  ((disk + memory >= known_bytes * 95 / 100)) || fail "only $((disk + memory)) of $known_bytes bytes are still a hit"
  # What memory served was loaded from the disk a moment before, unless the origin was asked.
  ((disk >= known_bytes / 4)) || fail "only $disk of $known_bytes bytes came from the disk"
  ((origin <= known_bytes * 5 / 100)) || fail "$origin of $known_bytes bytes came from the origin"
  [[ $(status "disk['corrupt_blocks']") == 0 ]] || say "corrupt blocks found and not served: $(status "disk['corrupt_blocks']")"
}

kill_once() {
  local passthrough=$1 reader_mode=$2
  make_fresh "$kill"
  mount_cached -o fuse.passthrough="$passthrough"
  fill_cache "${known[@]}"
  # Readers of known files come from disk, those of fresh ones from the origin with a write behind each.
  start_hammer "$mnt/" --readers=6 --mode="$reader_mode" --request=65536 --allow="$DEAD_DAEMON_ERRORS"
  pause_ms $((RANDOM % 700))
  hammer_is_right
  kill -KILL "$DAEMON_PID"
  wait_gone 10 "$DAEMON_PID"
  umount -l "$mnt"
  stop_hammer
  mount_cached -o fuse.passthrough=off
  check_survivors
  compare "${FILES[@]}"
  stop_mount "$mnt"
}

mapfile -t list < <(transports)
MODE_CORES=$(($(nproc) > 1 ? 2 : 1))
for kill in $(seq "$kills"); do
  MODE_TRANSPORT=${list[kill % ${#list[@]}]}
  passthrough=off
  ((kill % 4 < 2)) || passthrough=auto
  modes=(pread direct mmap)
  say "== kill $kill of $kills: transport=$MODE_TRANSPORT passthrough=$passthrough readers=${modes[kill % 3]}"
  kill_once "$passthrough" "${modes[kill % 3]}"
done
