#!/usr/bin/env bash
# 64 concurrent readers of several files, buffered, O_DIRECT and mapped at random, every word verified, while the files
# together are larger than the daemon's memory: frames are evicted and filled again under them.
TEST_DEADLINE_S=180
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir"
files=()
for tag in $(seq 12); do
  # Sizes with every kind of end: at a chunk, at a block, at a page, in a word.
  "$MOUNT_PROBE" write "$source_dir/file-$tag" $((64 * 1048576 + (tag % 4) * 65536 + (tag % 3) * 4096 + (tag % 5) * 3)) "$tag" "$tag"
  files+=("$mnt/file-$tag")
done

# hammer_for BYTES OPTION...: readers run until they have together read that much; events come through a fifo.
hammer_all() {
  local readers=$1
  shift
  mkfifo "$MOUNT_TMP/input"
  "$MOUNT_PROBE" hammer --readers="$readers" "$@" "${files[@]}" <"$MOUNT_TMP/input" >"$MOUNT_TMP/events" &
  local pid=$! input tag
  exec {input}>"$MOUNT_TMP/input"
  wait_for 60 "every reader verified a read" grep -qE '^(ready|wrong)' "$MOUNT_TMP/events"
  for tag in $(seq 12); do
    wait_for 60 "file $tag was read" grep -qE "^(version $tag $tag|wrong.*)\$" "$MOUNT_TMP/events"
  done
  exec {input}>&-
  wait "$pid" || fail "$(grep wrong "$MOUNT_TMP/events")"
  grep summary "$MOUNT_TMP/events" >&2
  rm "$MOUNT_TMP/input"
}

check() {
  start_mount "$source_dir" "$mnt"
  hammer_all 64 --request=4096
  hammer_all 64 --request=1048576 --sequential
  hammer_all 64 --mode=direct --request=65536
  hammer_all 64 --mode=mmap --request=12288
  stop_mount "$mnt"
}
with_each_mode check
