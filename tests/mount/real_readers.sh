#!/usr/bin/env bash
# Readers as training and inference have them (bench/training.py: a model of several safetensors shards, a loader of tar shards
# with four processes, an image folder read by eight), cold, from the origin and then from the disk tier. They check every byte
# themselves; what they cost is told by the daemon's counters: little is fetched for nothing, nothing twice, nearly everything
# before its reader asks, and nothing at all once it is on the disk.
TEST_DEADLINE_S=220
source "$(dirname -- "$0")/disk_lib.sh"

training() { "$PYTHON" "$MOUNT_TESTS/../../bench/training.py" "$@"; }

SHARD_BYTES=70000000
TAR_BYTES=33554432
training make-model "$source_dir/model" 2 $SHARD_BYTES
training make-shards "$source_dir/shards" 6 $TAR_BYTES
training make-images "$source_dir/images" 1200
find "$source_dir" -type f -exec touch -d '2020-01-01 00:00:00' {} +
settle "$source_dir/images/n00000099/00001199.JPEG"

files_of() { (cd "$source_dir" && find "$@" -type f -printf '%p\n' | sort); }
prefetched() { status "volume['prefetch']['$1']"; }
lies_still() { [[ $(status "node['tiers']['memory']['pinned_frames']") == 0 ]]; }
nothing_open() { [[ $(status "volume['open']") == 0 ]]; }

# read_by SUBCOMMAND FOLDER OPTION...: a reader that checks what it reads; ends when the daemon has nothing left to do for it.
read_by() {
  local command=$1 folder=$2
  shift 2
  training "$command" "$mnt/$folder" "$@" >"$MOUNT_TMP/reader" || fail "$command $* of $folder"
  wait_for 10 "the files are closed" nothing_open
  wait_for 10 "the last loads" lies_still
  [[ $(status "volume['errors']") == 0 ]] || fail "requests of $command failed: $(status volume)"
  say "$command $*: $(sed 's/, "seconds.*//' "$MOUNT_TMP/reader"): $(status "volume['prefetch']")"
}

# has_read ITEMS: the reader found as many as were made.
has_read() { grep -q "\"items\": $1," "$MOUNT_TMP/reader" || fail "$1 items were made: $(<"$MOUNT_TMP/reader")"; }

# fetched_once BYTES: each byte came from the origin, and none twice.
fetched_once() {
  local came
  came=$(status "volume['origin_bytes']")
  ((came == $1)) || fail "$came bytes came from the origin, for $1: $(status volume)"
}

# foreseen BYTES PERCENT: so much of what came had been asked for before its reader came; of what was fetched ahead, at most one
# part in twenty for nothing.
foreseen() {
  local ahead wasted fetched
  ahead=$(prefetched used)
  wasted=$(prefetched wasted)
  fetched=$(status "volume['prefetch']['origin'] + volume['prefetch']['disk']")
  ((ahead * 100 >= $1 * $2)) || fail "of $1 bytes $ahead were fetched ahead: $(status volume)"
  ((wasted * 20 <= fetched)) || fail "much was fetched for nothing: $(status "volume['prefetch']")"
}

# on_disk_only: from now on, with a daemon that has nothing in memory; the files of FILES are on the disk. What a disk was too
# slow to take behind a fast reader is read again.
on_disk_only() {
  FILES_TO_FILL=("${FILES[@]}")
  FILL_TOTAL=$(total_bytes "$source_dir" "${FILES[@]}")
  becomes_full || fill_cache "${FILES[@]}"
  stop_mount "$mnt"
  mount_cached
}

nothing_from_origin() {
  [[ $(status "volume['origin_bytes']") == 0 ]] || fail "the origin was asked for what is on disk: $(status volume)"
}

model() {
  local total order
  mapfile -t FILES < <(files_of model)
  total=$(total_bytes "$source_dir" "${FILES[@]}")
  mount_cached
  read_by load-model model --order=file
  fetched_once "$total"
  foreseen "$total" 50 # each tensor begins with faults that nobody foresees
  on_disk_only
  for order in names shuffled; do
    read_by load-model model --order=$order
    nothing_from_origin
    drop_mount_cache "${FILES[@]}"
  done
  stop_mount "$mnt"
}

shards() {
  local total
  mapfile -t FILES < <(files_of shards)
  total=$(total_bytes "$source_dir" "${FILES[@]}")
  mount_cached
  read_by load-shards shards --workers=4 --seed=3
  has_read "$(cd "$source_dir/shards" && for name in *; do tar -tf "$name"; done | grep -c 'jpg$')"
  fetched_once "$total"
  foreseen "$total" 90
  on_disk_only
  read_by load-shards shards --workers=4 --seed=4
  nothing_from_origin
  stop_mount "$mnt"
}

images() {
  local total
  mapfile -t FILES < <(files_of images)
  total=$(total_bytes "$source_dir" "${FILES[@]}")
  mount_cached
  read_by load-images images --workers=8 --epochs=1 --seed=1
  has_read 1200
  fetched_once "$total"
  # As little as that is never left out: the second epoch has all of it.
  wait_for 30 "$total bytes on the disk" on_disk_is "$total" "${FILES[@]}"
  on_disk_only
  read_by load-images images --workers=8 --epochs=1 --seed=2
  has_read 1200
  nothing_from_origin
  (($(served disk) + $(served memory) >= total)) || fail "the daemon answered less than was read: $(status "volume['bytes']")"
  stop_mount "$mnt"
}

check() {
  rm -rf "$cache"
  DISK_OPTIONS=(-o fuse.passthrough=off)
  model
  shards
  images
}
with_each_transport check
