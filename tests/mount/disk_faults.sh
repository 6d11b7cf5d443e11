#!/usr/bin/env bash
# A disk that fails makes reads slower, never wrong and never an error: one that other writers filled, one whose reads
# fail, whose writes fail, that is slow, that hangs, that went read-only. The status tells of it, and when the disk is
# well again it is used again without anyone's help.
#   disk_faults.sh full|read|write|slow|hang|readonly...       all without
TEST_DEADLINE_S=240
source "$(dirname -- "$0")/disk_lib.sh"

cases=("$@")
[[ ${#cases[@]} != 0 ]] || cases=(full read write slow hang readonly)
DISK_OPTIONS=(-o fuse.passthrough=off)
disk_options=noatime
make_files "$source_dir" 12 24
settle "$source_dir/small-24"

# reads_go_on: every file whole and right, with O_DIRECT readers among buffered ones, while the fault lasts.
reads_go_on() {
  drop_mount_cache "${FILES[@]}"
  start_hammer "$mnt/" --readers=4 --mode=direct --request=262144
  compare "${FILES[@]}"
  hammer_is_right
  stop_hammer
}

# Files that nobody has read yet: what the disk would not take is not written later, so each look at whether it takes
# something again needs one of its own.
extra_bytes=4500000
extra_count=60
for number in $(seq "$extra_count"); do
  "$MOUNT_PROBE" write "$source_dir/extra-$number" "$extra_bytes" 1 200
done
settle "$source_dir/extra-$extra_count"
extra_next=1

read_extra() {
  EXTRA=extra-$extra_next
  ((extra_next <= extra_count)) || fail "no file is left that nobody has read"
  extra_next=$((extra_next + 1))
  compare "$EXTRA"
}

# is_used_again: what is read now is on the disk a moment later.
is_used_again() {
  local deadline=$((SECONDS + 2 * MOUNT_TIME_FACTOR))
  read_extra
  until on_disk_is "$extra_bytes" "$EXTRA"; do
    ((SECONDS <= deadline)) || return 1
    pause_ms 20
  done
}

recovers() {
  wait_for 60 "the disk is ok again" status_is "disk['state']" ok
  wait_for 60 "what is read is written again" is_used_again
  reads_go_on
}

case_full() {
  # Full to the last page, by somebody else: what the watermark knows of at one moment is not so at the next.
  local free filler
  compare "${FILES[@]:0:5}"
  free=$(stat -f -c '%a * %S' "$MOUNT_TMP/fs")
  fallocate -l $((free)) "$MOUNT_TMP/fs/filler" || fallocate -l $((free - 4 * 1048576)) "$MOUNT_TMP/fs/filler"
  # The cache gives way while it sees the disk fill: what it gives is taken too.
  for filler in $(seq 50); do
    dd if=/dev/zero of="$MOUNT_TMP/fs/filler.$filler" bs=4096 status=none 2>/dev/null || true
    [[ $(stat -f -c %a "$MOUNT_TMP/fs") != 0 ]] || break
  done
  [[ $(stat -f -c %a "$MOUNT_TMP/fs") == 0 ]] || fail "the file system is not full: nothing is tested"
  reads_go_on
  (($(status "disk['writes_shed'] + disk['write_errors']") > 0)) || fail "the disk is full, and nothing tells of it"
  say "full: $(status disk)"
  rm "$MOUNT_TMP/fs"/filler*
  recovers
}

case_read() {
  fill_cache "${FILES[@]}"
  stop_mount "$mnt"
  mount_cached # so that nothing is in memory
  faults read=fail
  reads_go_on
  has_fault_hits || fail "no read of the disk failed: nothing is tested"
  (($(status "disk['read_errors']") > 0)) || fail "reads of the disk fail, and nothing tells of it"
  (($(served origin) > 0)) || fail "where do the bytes come from?"
  say "reads fail: $(status disk)"
  faults
  recovers
}

case_write() {
  compare "${FILES[0]}"
  faults write=fail
  reads_go_on
  wait_for 20 "a write of the disk failed" has_fault_hits
  read_extra
  wait_for 20 "the status tells of failed writes" status_at_least "disk['write_errors']" 1
  say "writes fail: $(status disk)"
  faults
  recovers
}

case_slow() {
  fill_cache "${FILES[@]}"
  stop_mount "$mnt"
  mount_cached
  faults delay_ms=30
  reads_go_on
  faults
  recovers
}

case_hang() {
  local before not_from_disk reader
  fill_cache "${FILES[@]}"
  stop_mount "$mnt"
  mount_cached
  # Each request of the disk takes 12 s. Who reads from it when that begins waits for it: the disk writes into the memory of
  # his reply. Whoever comes later must not wait.
  faults delay_ms=12000
  before=$SECONDS
  cmp "$source_dir/big-1" "$mnt/big-1" &
  reader=$!
  wait_for 8 "a disk that hangs is not used" status_is "disk['state']" down
  # What was fetched ahead comes from memory. Nothing of it was there before.
  not_from_disk=$(($(served origin) + $(served memory)))
  timeout 8 cmp "$source_dir/big-2" "$mnt/big-2" || fail "a file of which all is on the hanging disk: exit $?"
  (($(served origin) + $(served memory) >= not_from_disk + $(stat -c %s "$source_dir/big-2"))) ||
    fail "where do the bytes come from?"
  say "$((SECONDS - before)) s after the disk began to hang, what is on it had come from the origin"
  before=$SECONDS
  timeout 10 cmp "$source_dir/extra-$extra_next" "$mnt/extra-$extra_next" ||
    fail "a file that is not on the hanging disk: exit $?"
  extra_next=$((extra_next + 1))
  say "a file that is not on the disk took $((SECONDS - before)) s"
  faults
  wait "$reader" || fail "the reader that waited for the disk: exit $?"
  compare "${FILES[@]}"
  recovers
}

# Reads into the cache's own memory are left to the disk, and their readers go to the origin: whoever was there when the
# disk began to hang waits a second or so. With cache.verify=always every read of the disk is one of these.
case_hang_loads() {
  local name before readers=()
  fill_cache "${FILES[@]}"
  stop_mount "$mnt"
  mount_cached -o cache.verify=always
  # Their files are open, so that they hang in reads.
  for name in "${FILES[@]:0:3}"; do
    cmp -n 65536 "$source_dir/$name" "$mnt/$name" || fail "$name: wrong bytes"
  done
  drop_mount_cache "${FILES[@]:0:3}"
  faults delay_ms=12000
  before=$SECONDS
  for name in "${FILES[@]:0:3}"; do
    timeout 9 cmp "$source_dir/$name" "$mnt/$name" &
    readers+=($!)
  done
  for name in "${readers[@]}"; do wait "$name" || fail "a reader that was there when the disk began to hang: exit $?"; done
  say "$((SECONDS - before)) s after the disk began to hang, its readers had all of their files"
  status_is "disk['state']" down || fail "the disk is used: $(status disk)"
  faults
  recovers
}

case_readonly() {
  compare "${FILES[@]:0:5}"
  expect_status 0 "$BLOBCACHE" warm --pin "$mnt/${FILES[0]}"
  local trigger=/sys/fs/ext4/$FAULT_DEVICE/trigger_fs_error
  [[ -e $trigger ]] || {
    not_tested "a file system that goes read-only" "this kernel has no $trigger"
    return 0
  }
  echo blobcache-test >"$trigger"
  ! touch "$MOUNT_TMP/fs/probe" 2>/dev/null || fail "the file system is not read-only: nothing is tested"
  reads_go_on
  read_extra
  wait_for 20 "the status tells of it" status_is "disk['state'] != 'ok'" True
  # What is there is still read.
  reads_go_on
  status_is "disk['state']" degraded || fail "the disk is not degraded: $(status disk)"
  # A pin that is taken off now is there again after a restart: said, and again when it is repeated.
  for _ in 1 2; do
    expect_refusal 1 'its disk takes no writes now, so the pin comes back with a restart' "$BLOBCACHE" warm --unpin "$mnt/${FILES[0]}"
  done
  grep -q ', 0 unpinned$' "$MOUNT_TMP/output" || fail "--unpin says: $(<"$MOUNT_TMP/output")"
  say "read-only: $(status disk)"
}

check() {
  local each
  for each in "${cases[@]}"; do
    say "-- $each"
    disk_options=noatime
    [[ $each != readonly ]] || disk_options=noatime,errors=remount-ro
    make_fault_disk 256 ext4 "$disk_options"
    mount_cached
    "case_$each"
    stop_mount "$mnt"
    extra_next=1
    remove_fault_disk
  done
}
with_each_transport check
