#!/usr/bin/env bash
# The tracepoints of docs/OPERATING.md are in the binary, with their arguments; where bpftrace can watch programs on this
# kernel, they count a known number of reads, the bytes by tier add up, and every request that begins ends.
TEST_DEADLINE_S=60
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
reads=64
read_bytes=65536
mkdir -p "$source_dir"
head -c $((reads * read_bytes)) /dev/urandom >"$source_dir/file"
wait_for 10 "the file's age" is_settled "$source_dir/file"

command -v readelf >/dev/null || nothing_tested "tracepoints" "binutils are not installed"
readelf -n "$BLOBCACHE" >"$MOUNT_TMP/notes" 2>&1
# expect_probe NAME ARGUMENTS: somewhere in the binary, and with so many arguments everywhere.
expect_probe() {
  "$PYTHON" - "$MOUNT_TMP/notes" "$1" "$2" <<'PYTHON' || fail "the tracepoint $1"
import re, sys
notes, name, count = open(sys.argv[1]).read(), sys.argv[2], int(sys.argv[3])
found = re.findall(r'Provider: blobcache\n\s+Name: (\w+)\n.*\n\s+Arguments: ?(.*)', notes)
places = [arguments.split() for probe, arguments in found if probe == name]
sys.exit(not places or any(len(arguments) != count for arguments in places))
PYTHON
}
expect_probe request_begin 3
expect_probe request_end 1
expect_probe tier 4
expect_probe reply 3
expect_probe prefetch 4

command -v bpftrace >/dev/null || { not_tested "watching" "bpftrace is not installed"; exit 0; }
if ! timeout 20 bpftrace -e "usdt:$BLOBCACHE:blobcache:tier { @ = count(); } interval:ms:10 { exit(); }" \
  >"$MOUNT_TMP/trial" 2>&1; then
  not_tested "watching" "bpftrace cannot attach here: $(tail -n 1 "$MOUNT_TMP/trial")"
  exit 0
fi

# Probes are attached in their order, so the last one says that all are.
watch='
  usdt:BIN:blobcache:request_begin /pid == DAEMON && arg1 == 15/ { @begun = count(); @open[arg0] = 1; }
  usdt:BIN:blobcache:reply /pid == DAEMON && @open[arg0]/ { @replied_bytes = sum(arg1); }
  usdt:BIN:blobcache:request_end /pid == DAEMON && @open[arg0]/ { @ended = count(); delete(@open[arg0]); }
  usdt:BIN:blobcache:tier /pid == DAEMON/ { @tier_bytes[arg1] = sum(arg2); }
  interval:ms:10 /!@attached/ { @attached = 1; printf("attached\n"); }'

# number NAME: of the map in the answer; 0 when it is not there.
number() { sed -n "s/^@$1: //p" "$MOUNT_TMP/seen" | grep . || echo 0; }

# watch_reads COPIES: bpftrace sees the file being read so often; says how many reads began, ended, and the bytes.
watch_reads() {
  local watcher pass watch_now=${watch//BIN/$BLOBCACHE}
  rm -f "$MOUNT_TMP/seen" # of the watcher before
  bpftrace -e "${watch_now//DAEMON/$DAEMON_PID}" >"$MOUNT_TMP/seen" 2>"$MOUNT_TMP/watch.log" &
  watcher=$!
  wait_for 20 "bpftrace is attached" grep -qs attached "$MOUNT_TMP/seen"
  for ((pass = 0; pass < $1; pass++)); do
    dd if="$mnt/file" of="$MOUNT_TMP/copy" bs=$read_bytes iflag=direct status=none
  done
  kill -INT "$watcher"
  wait "$watcher" || fail "bpftrace: $(<"$MOUNT_TMP/watch.log")"
  cmp "$source_dir/file" "$MOUNT_TMP/copy" || fail "the bytes"
  say "seen: $(tr '\n' ' ' <"$MOUNT_TMP/seen")"
  # The reader asks once more at the end of the file, and the kernel may answer that by itself.
  local begun ended
  begun=$(number begun) ended=$(number ended) bytes=$(number replied_bytes)
  ((begun >= $1 * reads && begun <= $1 * reads + $1)) || fail "$begun reads began, not $(($1 * reads))"
  ((ended == begun)) || fail "$ended reads ended, $begun began"
  ((bytes == $1 * reads * read_bytes)) || fail "$bytes bytes were replied"
}

check() {
  # From the origin, then from memory.
  start_mount "$source_dir" "$mnt" -o prefetch.enabled=false
  watch_reads 2
  (($(number 'tier_bytes\[0\]') + $(number 'tier_bytes\[3\]') == bytes)) || fail "the tiers do not add up"
  (($(number 'tier_bytes\[0\]') >= reads * read_bytes)) || fail "the second pass is from memory"
  (($(number 'tier_bytes\[3\]') > 0)) || fail "the first pass is from the origin"
  stop_mount "$mnt"
  # From disk, on uring by replies that leave without us: filled by one daemon, read through the next.
  local disk=(--cache-dir="$MOUNT_TMP/cache-$MODE_TRANSPORT" -o prefetch.enabled=false -o fuse.passthrough=off)
  start_mount "$source_dir" "$mnt" "${disk[@]}"
  "$BLOBCACHE" warm "$mnt/file" >"$MOUNT_TMP/warm.log" 2>&1 || fail "warm ended with $?"
  stop_mount "$mnt"
  start_mount "$source_dir" "$mnt" "${disk[@]}"
  watch_reads 1
  (($(number 'tier_bytes\[1\]') == bytes)) || fail "it is from disk"
  stop_mount "$mnt"
}
with_each_transport check
