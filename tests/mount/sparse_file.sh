#!/usr/bin/env bash
# A 6 GiB sparse file: data around 2 GiB, 4 GiB and at the end is found where it is, holes read as zeros, SEEK_DATA and
# SEEK_HOLE find the same edges as at the source.
source "$(dirname -- "$0")/lib.sh"

mkdir -p "$MOUNT_TMP/source"
mnt=$MOUNT_TMP/mnt
"$PYTHON" - "$MOUNT_TMP/source/sparse" <<'PYTHON'
import os, sys
GIB = 1 << 30
with open(sys.argv[1], "wb") as file:
    file.truncate(6 * GIB)
    for at in (0, 2 * GIB - 65536, 4 * GIB - 4096, 4 * GIB + (1 << 20), 5 * GIB + 12288, 6 * GIB - 8192):
        file.seek(at)
        file.write(b"%020d" % at * 400)
    file.truncate(6 * GIB)
PYTHON

check() {
  start_mount "$MOUNT_TMP/source" "$mnt"
  "$PYTHON" - "$MOUNT_TMP/source/sparse" "$mnt/sparse" <<'PYTHON'
import errno, os, sys
GIB = 1 << 30
wanted, got = (os.open(path, os.O_RDONLY) for path in sys.argv[1:])
direct = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECT)

def seek(file, at, whence):
    try:
        return os.lseek(file, at, whence)
    except OSError as error:
        return errno.errorcode[error.errno]

edges = {0, 6 * GIB - 1, 6 * GIB, 6 * GIB + 1}
for base in (0, 2 * GIB - 65536, 4 * GIB - 4096, 4 * GIB + (1 << 20), 5 * GIB + 12288, 6 * GIB - 8192):
    edges |= {max(0, base + step) for step in (-70000, -4096, -1, 0, 1, 4095, 4096, 7999, 8000, 8192, 70000)}
for at in sorted(edges):
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        a, b = seek(wanted, at, whence), seek(got, at, whence)
        assert a == b, f"lseek to {at} whence {whence}: {b} instead of {a}"
    for length in (1, 100, 65536, 300000):
        assert os.pread(wanted, length, at) == os.pread(got, length, at), f"pread of {length} at {at}"
assert os.lseek(got, 0, os.SEEK_END) == 6 * GIB
assert os.fstat(got).st_size == 6 * GIB
# From the first byte to the last by the file's own map, without reading 6 GiB of zeros through a slow machine twice.
at, data = 0, 0
while at < 6 * GIB:
    start = seek(got, at, os.SEEK_DATA)
    if start == "ENXIO":
        break
    end = os.lseek(got, start, os.SEEK_HOLE)
    assert os.pread(got, end - start, start) == os.pread(wanted, end - start, start)
    at, data = end, data + end - start
assert 6 * 8000 <= data < 1 << 22, f"{data} bytes of data in the map"
assert not any(os.pread(got, 8 << 20, 3 * GIB)), "a hole that is not zeros"
PYTHON
  stop_mount "$mnt"
}
with_each_transport check
