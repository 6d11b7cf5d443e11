#!/usr/bin/env bash
# usage: origin_change.sh replace|truncate|delete|rewrite|unreadable
# A file changes at the source while readers are in it. Each handle gets the bytes of the version it opened, or ESTALE,
# EIO, EACCES or (at open) ENOENT: never zeros for what was not read, never two versions through one handle. What the
# change ends in becomes visible to fresh opens once the timeouts have passed.
TEST_DEADLINE_S=240
source "$(dirname -- "$0")/lib.sh"

change=$1
source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir"
# Not a multiple of anything; larger than what the kernel reads ahead, so that readers go on asking.
bytes=$((24 * 1048576 + 4096 + 24))

make() { "$MOUNT_PROBE" write "$source_dir/file" "$bytes" "$1" 1; }

# start_hammer OPTION...: readers on $mnt/file; their events go to $MOUNT_TMP/events.
start_hammer() {
  rm -f "$MOUNT_TMP/input"
  mkfifo "$MOUNT_TMP/input"
  : >"$MOUNT_TMP/events"
  # As another user, whose rights at the mount are those that the modes give.
  setpriv --reuid=65534 --regid=65534 --clear-groups "$MOUNT_PROBE" hammer --readers=6 \
    --allow=ESTALE,EIO,EACCES,ENOENT "$@" "$mnt/file" <"$MOUNT_TMP/input" >"$MOUNT_TMP/events" &
  hammer_pid=$!
  exec {hammer_input}>"$MOUNT_TMP/input"
  wait_for 30 "readers are in the file" grep -qE '^(ready|wrong)' "$MOUNT_TMP/events"
}

# await PATTERN: an event of the readers (or a wrong byte, which stop_hammer reports).
await() { wait_for 30 "readers see: $1" grep -qE "^($1|wrong.*)\$" "$MOUNT_TMP/events"; }

stop_hammer() {
  exec {hammer_input}>&-
  wait "$hammer_pid" || fail "$change: $(grep wrong "$MOUNT_TMP/events")"
  say "$change: $(tail -n 1 "$MOUNT_TMP/events")"
}

change_replace() {
  local version
  for version in 2 3 4 5 6; do
    make "$version"
    await "version 1 $version"
  done
}

change_truncate() {
  # To two pages and back, in place: the same inode, readers in it. It grows by what is written, so that the source never
  # has zeros to show.
  local version
  for version in 2 3 4; do
    truncate -s 8192 "$source_dir/file"
    wait_for 10 "the new size shows" eval '[[ $(stat -c %s "$mnt/file") == 8192 ]]'
    "$MOUNT_PROBE" rewrite "$source_dir/file" "$bytes" "$version" 1
    await "version 1 $version"
  done
}

change_delete() {
  local version
  for version in 2 3 4; do
    rm "$source_dir/file"
    await "error ENOENT"
    wait_for 10 "the name is gone" eval '[[ ! -e $mnt/file ]]'
    make "$version"
    await "version 1 $version"
  done
}

change_rewrite() {
  local version
  for version in 2 3 4 5 6; do
    "$MOUNT_PROBE" rewrite "$source_dir/file" "$bytes" "$version" 1
    await "version 1 $version"
  done
}

change_unreadable() {
  chmod 000 "$source_dir/file"
  await "error EACCES"
  chmod 644 "$source_dir/file"
  make 2
  await "version 1 2"
}

check() {
  local mode extra=()
  [[ $change != rewrite && $change != truncate ]] || extra=(--rewrite)
  for mode in pread direct mmap; do
    make 1
    start_mount "$source_dir" "$mnt" -o fuse.entry_timeout=100ms -o fuse.attr_timeout=100ms \
      -o fuse.negative_timeout=100ms -o volume.revalidate=100ms
    start_hammer --mode="$mode" --request=65536 "${extra[@]}"
    "change_$change"
    stop_hammer
    cmp "$source_dir/file" "$mnt/file" || fail "the end state differs"
    stop_mount "$mnt"
  done
}
[[ $change =~ ^(replace|truncate|delete|rewrite|unreadable)$ ]] || fail "no such change: $change"
with_each_transport check
