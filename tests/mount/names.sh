#!/usr/bin/env bash
# Names that are not text: each is found by lookup alone (no listing before), under its own bytes and no others; a name of
# 256 bytes is ENAMETOOLONG, not ENOENT.
source "$(dirname -- "$0")/lib.sh"

mnt=$MOUNT_TMP/mnt
mkdir -p "$MOUNT_TMP/source"

check() {
  start_mount "$MOUNT_TMP/source" "$mnt"
  "$PYTHON" - "$MOUNT_TMP/source" "$mnt" <<'PYTHON'
import errno, os, sys
source, mount = (os.fsencode(path) for path in sys.argv[1:])
names = [b"n" * 255, b"\xe9" * 255, b"\xff\xfe", b"a\nb", b"a\\nb", b"\\", b"\\\\", b"a\\040b", b"a b", b" ", b"\t", b"%2F",
         b"%00", b"a%20b", b"...", b"..a", b"e\xcc\x81", b"\xc3\xa9", b"\x01", b"\x7f", b"A", b"a", b"*", b"-"]
for name in names:
    with open(source + b"/" + name, "wb") as file:
        file.write(b"content of " + name)
for name in names:
    with open(mount + b"/" + name, "rb") as file:
        assert file.read() == b"content of " + name, name
assert sorted(os.listdir(mount)) == sorted(names)

def error_of(path):
    try:
        os.stat(path)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "found"

for name, wanted in ((b"n" * 256, "ENAMETOOLONG"), (b"n" * 254, "ENOENT"), (b"\xff", "ENOENT"), (b"B", "ENOENT"),
                     (b"a/b", "ENOTDIR"), (b"\\/..", "ENOTDIR")):
    got = error_of(mount + b"/" + name)
    assert got == wanted, f"{name!r}: {got} instead of {wanted}"
# Nothing above the root of the volume is reachable through it.
assert os.stat(mount + b"/..").st_ino == os.stat(os.path.dirname(mount)).st_ino
for name in names:
    os.unlink(source + b"/" + name)

# A path longer than the longest (4095 bytes), which only descriptors reach: a clear errno there, and nothing breaks.
def open_levels(root, make):
    here, level = os.open(root, os.O_RDONLY), 0
    try:
        for level in range(30):
            name = b"%02d-" % level + b"l" * 197
            if make:
                os.mkdir(name, dir_fd=here)
            os.listdir(here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    except OSError as error:
        return level, errno.errorcode[error.errno]
    finally:
        os.close(here)
    return 30, "end"

assert open_levels(source, True) == (30, "end")
level, verdict = open_levels(mount, False)
assert verdict == "ENAMETOOLONG" and level >= 19, (level, verdict)
assert error_of(mount + b"/none") == "ENOENT"
os.system(b"rm -rf " + source + b"/00-*")
PYTHON
  stop_mount "$mnt"
}
with_each_transport check
