#!/usr/bin/env bash
# A damaged cache directory never shows in the bytes: bits flipped in objects, segments, checksums and index, torn, lost
# and misdirected writes, files cut, exchanged and removed (disk_damage.py), each while the daemon is down. Every byte
# read afterwards is right, damage to data that was read is counted, and what was damaged is cached again.
#   disk_corrupt.sh [ROUNDS [SEED]]       each round is one damage of every kind; the seed is printed
TEST_DEADLINE_S=$((${1:-1} * 120 + 120))
source "$(dirname -- "$0")/disk_lib.sh"

rounds=${1:-1}
seed=${2:-$RANDOM$RANDOM}
kinds=(data segments sums index cut torn lost swapped copied removed short many)
make_files "$source_dir" 6 14
settle "$source_dir/small-14"
all_bytes=$(total_bytes "$source_dir" "${FILES[@]}")
say "seed $seed: disk_corrupt.sh $rounds $seed does the same again"

# check_damage KIND SEED PASSTHROUGH: one damage to a full cache, and everything read twice (the second time what was
# dropped has been filled again, and what is whole may be passed through).
check_damage() {
  local kind=$1 number=$2 passthrough=$3 damage corrupt origin
  damage=$("$PYTHON" "$MOUNT_TESTS/disk_damage.py" "$cache" "$kind" "$number") || fail "disk_damage.py $kind $number"
  [[ -n $damage ]] || fail "seed $number: nothing of kind $kind could be damaged"
  mount_cached -o fuse.passthrough="$passthrough"
  for name in "${FILES[@]}"; do
    cmp -- "$source_dir/$name" "$mnt/$name" >&2 ||
      fail "seed $number: $name: wrong bytes or an error; the damage was: $damage"
  done
  corrupt=$(status "disk['corrupt_blocks']")
  origin=$(served origin)
  say "$kind $number: corrupt blocks $corrupt, from the origin $origin of $all_bytes bytes; $(head -n 1 <<<"$damage")"
  # Every byte of these files was read through the daemon: a flipped bit of data was met.
  if [[ $kind == data && $passthrough == off ]]; then
    ((corrupt > 0)) || fail "seed $number: nothing was counted as corrupt; the damage was: $damage"
    ((origin > 0)) || fail "seed $number: the damaged block did not come from the origin: $damage"
  fi
  ((origin < all_bytes)) || [[ $kind =~ ^(index|cut|removed|many)$ ]] || fail "seed $number: the whole cache was given up: $damage"
  stop_mount "$mnt"
  # What was dropped is still in memory then; with an empty memory it is loaded, and written, again.
  mount_cached -o fuse.passthrough="$passthrough"
  fill_cache "${FILES[@]}"
  stop_mount "$mnt"
}

# An undamaged cache serves everything: without this the checks above could pass on a program that never uses its disk.
check_undamaged() {
  mount_cached -o fuse.passthrough=off
  compare "${FILES[@]}"
  [[ $(served origin) == 0 ]] || fail "$(served origin) bytes came from the origin, though all was cached"
  (($(served disk) + $(served memory) >= all_bytes)) || fail "not all bytes came from the cache"
  [[ $(status "disk['corrupt_blocks']") == 0 ]] || fail "an undamaged cache has corrupt blocks"
  stop_mount "$mnt"
}

mapfile -t list < <(transports)
MODE_CORES=$(($(nproc) > 1 ? 2 : 1))
MODE_TRANSPORT=${list[0]}
mount_cached
fill_cache "${FILES[@]}"
stop_mount "$mnt"
check_undamaged
number=0
for round in $(seq "$rounds"); do
  for kind in "${kinds[@]}"; do
    number=$((number + 1))
    MODE_TRANSPORT=${list[number % ${#list[@]}]}
    passthrough=off
    (((number / 2 + round) % 2)) || passthrough=auto
    check_damage "$kind" "$seed-$number" "$passthrough"
  done
done
check_undamaged
