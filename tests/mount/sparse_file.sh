#!/usr/bin/env bash
# A 6 GiB sparse file: data around 2 GiB, 4 GiB and at the end is found where it is, holes read as zeros, SEEK_DATA and
# SEEK_HOLE find the same edges as at the source, or say that all is data.
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

no_map = seek(got, 0, os.SEEK_HOLE) == 6 * GIB
if no_map:
    print("not tested: the map of holes: this mount has none, it says that all is data", file=sys.stderr)
edges = {0, 6 * GIB - 1, 6 * GIB, 6 * GIB + 1}
for base in (0, 2 * GIB - 65536, 4 * GIB - 4096, 4 * GIB + (1 << 20), 5 * GIB + 12288, 6 * GIB - 8192):
    edges |= {max(0, base + step) for step in (-70000, -4096, -1, 0, 1, 4095, 4096, 7999, 8000, 8192, 70000)}
for at in sorted(edges):
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        a, b = seek(wanted, at, whence), seek(got, at, whence)
        # The source's own map, or the one that lseek(2) allows where there is none: all data, the only hole at the end.
        mapless = "ENXIO" if at >= 6 * GIB else at if whence == os.SEEK_DATA else 6 * GIB
        assert b == (mapless if no_map else a), f"lseek to {at} whence {whence}: {b}, at the source {a}"
    for length in (1, 100, 65536, 300000):
        assert os.pread(wanted, length, at) == os.pread(got, length, at), f"pread of {length} at {at}"
assert os.lseek(got, 0, os.SEEK_END) == 6 * GIB
assert os.fstat(got).st_size == 6 * GIB
# From the first byte to the last by the file's own map, without reading 6 GiB of zeros through a slow machine twice.
at, data = 0, 0
while at < 6 * GIB:
    start = seek(wanted, at, os.SEEK_DATA)
    if start == "ENXIO":
        break
    end = os.lseek(wanted, start, os.SEEK_HOLE)
    assert os.pread(got, end - start, start) == os.pread(wanted, end - start, start)
    at, data = end, data + end - start
assert 6 * 8000 <= data < 1 << 22, f"{data} bytes of data in the map"
assert not any(os.pread(got, 8 << 20, 3 * GIB)), "a hole that is not zeros"
PYTHON
  stop_mount "$mnt"
}
with_each_transport check
