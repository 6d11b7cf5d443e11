#!/usr/bin/env bash
# O_DIRECT reads at every alignment of offset, length and buffer around the edges of 4 KiB, 64 KiB, 4 MiB and the end of
# the file give the right bytes and the right count.
TEST_DEADLINE_S=180
source "$(dirname -- "$0")/lib.sh"

mkdir -p "$MOUNT_TMP/source"
mnt=$MOUNT_TMP/mnt
head -c $((8 * 1048576 + 70001)) /dev/urandom >"$MOUNT_TMP/source/random"
head -c 5 /dev/urandom >"$MOUNT_TMP/source/five"
: >"$MOUNT_TMP/source/empty"

check() {
  start_mount "$MOUNT_TMP/source" "$mnt"
  "$PYTHON" - "$MOUNT_TMP/source" "$mnt" <<'PYTHON'
import mmap, os, sys
source, mount = sys.argv[1:]
MIB = 1 << 20
buffer = memoryview(mmap.mmap(-1, 6 * MIB))
STEPS = (-4097, -4096, -513, -512, -511, -1, 0, 1, 511, 512, 513, 4095, 4096, 4097)

def check(name):
    wanted = open(f"{source}/{name}", "rb").read()
    file = os.open(f"{mount}/{name}", os.O_RDONLY | os.O_DIRECT)
    edges = {0, 1, 4096, 65536, 4 * MIB, 8 * MIB, len(wanted)}
    offsets = sorted({edge + step for edge in edges for step in STEPS if edge + step >= 0})
    lengths = (1, 7, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537)
    count = 0
    def one(offset, length, align):
        nonlocal count
        count += 1
        target = buffer[align:align + length]
        target[:] = b"\xa5" * length
        got = os.preadv(file, [target], offset)
        expected = wanted[offset:offset + length]
        what = f"{name}: O_DIRECT read of {length} at {offset} into buffer + {align}"
        assert got == len(expected), f"{what}: {got} bytes instead of {len(expected)}"
        assert target[:got] == expected, f"{what}: wrong bytes"
        assert bytes(target[got:]) == b"\xa5" * (length - got), f"{what}: wrote beyond the end"
    for index, offset in enumerate(offsets):
        for length in lengths:
            one(offset, length, (0, 512, 1, 8, 4095)[(index + length) % 5])
    for offset in (0, 1, 4095, 4096, 65536, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB - 4096):
        for length in (MIB - 1, MIB, MIB + 1, 4 * MIB, 4 * MIB + 1, 5 * MIB + 4096):
            for align in (0, 1, 512):
                one(offset, length, align)
    # Two buffers of odd lengths in one call.
    got = os.preadv(file, [buffer[1:1000], buffer[4096:9001]], 3)
    assert bytes(buffer[1:1000])[:got] + bytes(buffer[4096:9001])[:max(0, got - 999)] == wanted[3:3 + 999 + 4905]
    assert count > 500, count
    os.close(file)

for name in ("random", "five", "empty"):
    check(name)
PYTHON
  stop_mount "$mnt"
}
with_each_mode check
