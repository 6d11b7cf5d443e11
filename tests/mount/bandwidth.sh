#!/usr/bin/env bash
# origin.bandwidth of a directory: what is read of it in a second stays below the limit, every byte is right, and what is cached
# costs none of it.
TEST_DEADLINE_S=90
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
blocks=6 # of 1 MiB

now_ms() {
  local now=${EPOCHREALTIME/[.,]/}
  echo $((now / 1000))
}

# read_all: READ_MS.
read_all() {
  local begun
  begun=$(now_ms)
  dd if="$mnt/file" of="$MOUNT_TMP/copy" bs=1M iflag=direct status=none || fail "the read"
  READ_MS=$(($(now_ms) - begun))
  cmp "$MOUNT_TMP/copy" "$source_dir/file" || fail "wrong bytes"
  say "$blocks MiB in $READ_MS ms"
}

check() {
  start_mount "$source_dir" "$mnt" -o origin.bandwidth=2MiB -o prefetch.enabled=false
  read_all
  # The last block is begun when those before it are paid, less a burst of a tenth of a second.
  ((READ_MS >= (blocks - 1) * 500 - 100)) || fail "$blocks MiB took $READ_MS ms at 2 MiB a second"
  stop_mount "$mnt"
  # Worth days: only what nobody asks the directory for comes at all.
  start_mount "$source_dir" "$mnt" -o origin.bandwidth=16B -o prefetch.enabled=false
  dd if="$mnt/file" of=/dev/null bs=1M count=1 iflag=direct status=none || fail "the first block, which owes nothing"
  cmp <(dd if="$mnt/file" bs=1M count=1 iflag=direct status=none) <(head -c 1M "$source_dir/file") ||
    fail "what is cached costs bandwidth"
  stop_mount "$mnt"
}

mkdir -p "$source_dir"
head -c $((blocks * 1048576)) /dev/urandom >"$source_dir/file"
wait_for 10 "the end of the file's youth" is_settled "$source_dir/file"
with_each_transport check
