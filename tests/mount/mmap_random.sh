#!/usr/bin/env bash
# A mapped file shows the right bytes at random places, page by page and across pages, up to its last byte.
source "$(dirname -- "$0")/lib.sh"

mkdir -p "$MOUNT_TMP/source"
mnt=$MOUNT_TMP/mnt
head -c 50000123 /dev/urandom >"$MOUNT_TMP/source/random"
cp "$MOUNT_TMP/source/random" "$MOUNT_TMP/source/whole"

check() {
  start_mount "$MOUNT_TMP/source" "$mnt"
  "$PYTHON" - "$MOUNT_TMP/source/random" "$mnt/random" "$mnt/whole" <<'PYTHON'
import mmap, random, sys
wanted = open(sys.argv[1], "rb").read()
rng = random.Random(8)
with open(sys.argv[2], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
    assert len(mapped) == len(wanted)
    mapped.madvise(mmap.MADV_RANDOM)
    for _ in range(6000):
        at, length = rng.randrange(len(wanted)), rng.choice((1, 8, 100, 4096, 5000))
        assert mapped[at:at + length] == wanted[at:at + length], f"wrong bytes at {at}"
    # Behind the end, the last page is zeros by POSIX; within the file, never.
    assert mapped[-4096:] == wanted[-4096:], "the end"
    assert mapped[:] == wanted, "the whole, after random places"
with open(sys.argv[3], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
    # Without advice: either advice makes the kernel fault page by page, and larger reads would go untested.
    assert mapped[:] == wanted, "the whole, in order"
PYTHON
  stop_mount "$mnt"
}
with_each_transport check
