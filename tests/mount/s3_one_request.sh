#!/usr/bin/env bash
# A thousand readers of one block that nobody has yet cost the server one request, and all of them get its bytes. So does
# one reader of several blocks, and what is there already is not asked for again.
TEST_DEADLINE_S=140
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
object=$MOUNT_TMP/object
connections=$MOUNT_TMP/connections
readers=1000

is_count() { [[ $(count "$1") == "$2" ]]; }
# Requests that the kernel has sent or is about to send, not yet answered.
waiting() { cat "$connections/$(stat -c %Ld "$mnt")/waiting"; }
all_wait() { (($(waiting) >= readers)); }

# Direct reads: the page cache would make one of them all. Each says on stderr what was wrong.
read_all() {
  "$PYTHON" - "$mnt/object" "$object" "$readers" <<'PYTHON'
import mmap, os, sys, threading
path, source, readers = sys.argv[1], sys.argv[2], int(sys.argv[3])
block, offset = 65536, 5 * 65536
with open(source, "rb") as file:
    file.seek(offset)
    wanted = file.read(block)
wrong = []

def read():
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, block)
    got = os.preadv(descriptor, [buffer], offset)
    if got != block or buffer[:] != wanted:
        wrong.append(got)
    os.close(descriptor)

threading.stack_size(128 * 1024)
threads = [threading.Thread(target=read) for _ in range(readers)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(f"{len(wrong)} readers got something else: {wrong[:5]}" if wrong else 0)
PYTHON
}

check() {
  local all
  faults ""
  start_mount s3://blobs "$mnt" "${PROXIED[@]}"
  stat "$mnt/object" >"$MOUNT_TMP/output"
  faults "stall=1"
  read_all &
  all=$!
  wait_for 60 "the range that stalls" is_count stalled 1
  wait_for 60 "$readers readers that wait for it" all_wait
  curl -fsS --noproxy '*' "http://127.0.0.1:$PROXY_PORT/__go__" >/dev/null
  wait "$all" || fail "the readers"
  [[ $(count ranges) == 1 && $(count requests) == 1 ]] ||
    fail "$readers readers of one block made $(count ranges) ranges, $(count requests) requests"
  stop_mount "$mnt"
}

# In memory the blocks lie wherever there was room.
check_small() {
  local before
  faults ""
  start_mount s3://blobs "$mnt" "${PROXIED[@]}"
  stat "$mnt/small" >"$MOUNT_TMP/output"
  before=$(count ranges)
  dd if="$mnt/small" of="$MOUNT_TMP/block" bs=250000 count=1 iflag=direct status=none
  cmp "$small" "$MOUNT_TMP/block" || fail "wrong bytes of four blocks in one request"
  (($(count ranges) == before + 1)) || fail "a file of four blocks took $(($(count ranges) - before)) ranges"
  # The second block alone, then all of it: the first, and the two behind.
  before=$(count ranges)
  dd if="$mnt/other" of="$MOUNT_TMP/block" bs=64k skip=1 count=1 iflag=direct status=none
  cmp -n 65536 "$MOUNT_TMP/block" <(tail -c +65537 "$small") || fail "wrong bytes of one block"
  dd if="$mnt/other" of="$MOUNT_TMP/block" bs=250000 count=1 iflag=direct status=none
  cmp "$small" "$MOUNT_TMP/block" || fail "wrong bytes around a block that was there"
  (($(count ranges) == before + 3)) || fail "three parts of a file took $(($(count ranges) - before)) ranges"
  stop_mount "$mnt"
}

# A chunk's frame that lacks its second block only, and a block's frame before it: what is asked for at once must not take the one
# for the other.
check_mixed() {
  faults ""
  start_mount s3://blobs "$mnt" "${PROXIED[@]}"
  "$PYTHON" - "$mnt/object" "$object" <<'PYTHON' || fail "wrong bytes around the beginning of a chunk"
import mmap, os, sys
KIB, MIB = 1024, 1024 * 1024
wanted = open(sys.argv[2], "rb").read()
descriptor = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
for bytes, offset in ((320 * KIB, 4 * MIB + 128 * KIB), (4 * KIB, 4 * MIB), (256 * KIB, 4 * MIB - 64 * KIB),
                      (1024 * KIB, 4 * MIB), (1024 * KIB, 3 * MIB)):
    buffer = mmap.mmap(-1, bytes)
    got = os.preadv(descriptor, [buffer], offset)
    if got != bytes or buffer[:] != wanted[offset:offset + bytes]:
        sys.exit(f"{bytes} bytes at {offset}: {got}")
PYTHON
  stop_mount "$mnt"
}

start_s3
start_proxy "${S3_ENDPOINT##*:}"
PROXIED=("${S3_OPTIONS[@]:2}" -o "volume.s3.endpoint=http://127.0.0.1:$PROXY_PORT" -o origin.attempt_timeout=60s
  -o volume.revalidate=never -o prefetch.enabled=false)
head -c $((8 * 1024 * 1024)) /dev/urandom >"$object"
s3 put blobs object "$object"
small=$MOUNT_TMP/small
head -c 250000 /dev/urandom >"$small"
s3 put blobs small "$small"
s3 put blobs other "$small"
mkdir "$connections"
mount -t fusectl none "$connections" || nothing_tested "one request" "fusectl cannot be mounted, which counts who waits"
MODE_CORES=2
with_each_transport check
with_each_transport check_small
with_each_transport check_mixed
umount "$connections"
