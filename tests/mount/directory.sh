#!/usr/bin/env bash
# A directory of 100,000 entries: every name exactly once, found by lookup, telldir and seekdir come back to the same
# entry, rewinddir begins again, and a directory that grows while it is read still gives every old name once.
TEST_DEADLINE_S=240
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir/many"
"$PYTHON" - "$source_dir/many" <<'PYTHON'
import os, sys
os.chdir(sys.argv[1])
for number in range(100000):
    os.close(os.open(f"entry-{number:06d}" + "n" * (number % 40), os.O_CREAT | os.O_WRONLY, 0o644))
PYTHON

check() {
  start_mount "$source_dir" "$mnt" -o fuse.entry_timeout=100ms -o fuse.attr_timeout=100ms
  "$PYTHON" - "$source_dir/many" "$mnt/many" <<'PYTHON'
import ctypes, os, random, sys

libc = ctypes.CDLL(None, use_errno=True)

class Dirent(ctypes.Structure):
    _fields_ = [("d_ino", ctypes.c_ulong), ("d_off", ctypes.c_long), ("d_reclen", ctypes.c_ushort),
                ("d_type", ctypes.c_ubyte), ("d_name", ctypes.c_char * 256)]

libc.opendir.restype = libc.readdir64.restype = ctypes.c_void_p
libc.opendir.argtypes = [ctypes.c_char_p]
libc.telldir.restype = ctypes.c_long
for function in (libc.readdir64, libc.telldir, libc.rewinddir, libc.closedir):
    function.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

def read(stream):
    ctypes.set_errno(0)
    at = libc.readdir64(stream)
    assert ctypes.get_errno() == 0, os.strerror(ctypes.get_errno())
    return ctypes.cast(at, ctypes.POINTER(Dirent)).contents.d_name if at else None

source, mount = (os.fsencode(path) for path in sys.argv[1:])
wanted = set(os.listdir(source)) | {b".", b".."}
stream = libc.opendir(mount)
assert stream, "opendir"
places, names = [], []
while True:
    place = libc.telldir(stream)
    name = read(stream)
    if name is None:
        break
    places.append(place)
    names.append(name)
assert len(names) == len(set(names)), "a name twice"
assert set(names) == wanted, f"{len(set(names) ^ wanted)} names differ"
assert len(set(places)) == len(places), "a telldir place twice"

rng = random.Random(4)
for index in [0, 1, len(names) - 1] + [rng.randrange(len(names)) for _ in range(60)]:
    libc.seekdir(stream, places[index])
    for step in range(index, min(index + 3, len(names))):
        assert read(stream) == names[step], f"seekdir to entry {index}"
libc.rewinddir(stream)
assert [read(stream) for _ in range(500)] == names[:500], "rewinddir"

# New names may or may not appear in a scan that has begun; old ones must, once.
for number in range(1000):
    os.close(os.open(source + b"/added-%d" % number, os.O_CREAT | os.O_WRONLY, 0o644))
rest = []
while (name := read(stream)) is not None:
    rest.append(name)
libc.closedir(stream)
seen = names[:500] + [name for name in rest if not name.startswith(b"added-")]
assert len(seen) == len(set(seen)) and set(seen) == wanted, "a directory that grew lost or repeated a name"
for name in rng.sample(sorted(wanted - {b".", b".."}), 2000):
    assert os.stat(mount + b"/" + name).st_ino
for number in range(1000):
    os.unlink(source + b"/added-%d" % number)
PYTHON
  [[ $(find "$mnt/many" -type f | wc -l) == 100000 ]] ||
    wait_for 10 "find sees the 100,000 entries again" eval "[[ \$(find '$mnt/many' -type f | wc -l) == 100000 ]]"
  stop_mount "$mnt"
}
with_each_mode check
