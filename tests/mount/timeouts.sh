#!/usr/bin/env bash
# Names, attributes and absences are trusted for their timeout and no longer. Within a long timeout the kernel does not
# ask again (a stopped daemon does not matter); after a short one the change at the source shows.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir"

short() {
  rm -rf "${source_dir:?}"/*
  echo one >"$source_dir/replaced"
  echo here >"$source_dir/removed"
  start_mount "$source_dir" "$mnt" -o fuse.entry_timeout=100ms -o fuse.attr_timeout=100ms \
    -o fuse.negative_timeout=100ms -o volume.revalidate=100ms
  [[ $(<"$mnt/replaced") == one && -e $mnt/removed && ! -e $mnt/created ]] || fail "the first look"
  echo another >"$source_dir/fresh"
  mv "$source_dir/fresh" "$source_dir/replaced"
  rm "$source_dir/removed"
  echo new >"$source_dir/created"
  mkdir "$source_dir/created-dir"
  wait_for 10 "a replaced file shows its new version" eval '[[ $(cat "$mnt/replaced") == another ]]'
  wait_for 10 "a removed file is gone" eval '[[ ! -e $mnt/removed ]]'
  wait_for 10 "a created file is there" eval '[[ -e $mnt/created && $(cat "$mnt/created") == new ]]'
  touch -d '2001-02-03 04:05:06.789' "$source_dir/created"
  chmod 640 "$source_dir/created"
  wait_for 10 "new attributes show" eval \
    '[[ $(stat -c "%a %y" "$mnt/created") == "640 2001-02-03 04:05:06.789000000 +0000" ]]'
  wait_for 10 "the listing is the source's" eval '[[ $(ls -A "$mnt") == "$(ls -A "$source_dir")" ]]'
  stop_mount "$mnt"
}

# Within the timeout an answer needs no daemon: with it stopped, who must ask hangs, and that is what this looks for.
long() {
  rm -rf "${source_dir:?}"/*
  echo one >"$source_dir/known"
  start_mount "$source_dir" "$mnt" -o fuse.entry_timeout=10min -o fuse.attr_timeout=10min -o fuse.negative_timeout=10min
  stat "$mnt/known" >"$MOUNT_TMP/output"
  [[ ! -e $mnt/absent ]] || fail "an absent name is there"
  echo new >"$source_dir/absent"
  kill -STOP "$DAEMON_PID"
  wait_for 5 "the daemon is stopped" state_is "$DAEMON_PID" T
  stat "$mnt/known" >"$MOUNT_TMP/known" &
  local known=$!
  { stat "$mnt/absent" >"$MOUNT_TMP/absent" 2>&1 || true; } &
  local absent=$!
  wait_for_answer "$known" "an entry and its attributes"
  wait_for_answer "$absent" "an absent name"
  kill -CONT "$DAEMON_PID"
  cmp "$MOUNT_TMP/output" "$MOUNT_TMP/known" || fail "other attributes"
  grep -q 'No such file' "$MOUNT_TMP/absent" || fail "the absence was not kept: $(<"$MOUNT_TMP/absent")"
  stop_mount "$mnt"
}

# wait_for_answer PID WHAT: the command ends although the daemon is stopped.
wait_for_answer() {
  local deadline=$((SECONDS + 10))
  until is_gone "$1"; do
    ((SECONDS < deadline)) || {
      kill -CONT "$DAEMON_PID"
      fail "$2 was asked for again within its timeout"
    }
    read -rt 0.02 -u "$never_fd" || true
  done
}

check() {
  short
  long
}
with_each_transport check
