"""Makes a small tree of everything that is awkward in a filesystem, the same one each time (but for ctime).

usage: hostile_tree.py DIRECTORY

Sizes around the edges of pages, blocks and chunks; holes; every mode bit; foreign owners; times before 1970 and after
2038; hard links across directories; link targets of all kinds; names that scripts trip over; a path longer than
PATH_MAX; special files.
"""
import errno
import os
import random
import socket
import stat
import sys

KIB = 1024
MIB = 1024 * KIB
SIZES = [0, 1, 7, 511, 4095, 4096, 4097, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 128 * KIB + 1, MIB - 1, MIB, MIB + 1,
         4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 12345]
NAMES = [b"x" * 255, "\u00e9".encode() * 127, b"\xff\xfe\x80", b"new\nline", b"back\\slash", b"\\040octal", b" lead",
         b"trail ", b"...", b"-rf", b"*", b"?", b"[a]", b"quo'te", b'dou"ble', b"tab\there", b"%s%n", b"$HOME", b"a:b",
         b"\x01\x7f", b".hidden", b"~", b"#", b"nul", b"e\xcc\x81"]
MODES = [0o000, 0o001, 0o400, 0o444, 0o600, 0o644, 0o755, 0o777, 0o2755, 0o4755, 0o6711, 0o1644, 0o7777]
TIMES = [0, 1, 999999999, -1500000000, 123456789, (1 << 31) * 10**9 + 5, (1 << 33) * 10**9 + 987654321]
TARGETS = [b"files/size-4096", b"/usr/bin/env", b"no/such/file", b".", b"..", b"loop", b"\xff\xfe", b"a\nb",
           b"t" * 255 + b"/" + b"u" * 255, b"d/" * 2040 + b"end"]


def write(path, data, mode=0o644):
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def make_files(root, rng):
    os.mkdir(root + b"/files")
    for size in SIZES:
        write(root + b"/files/size-%d" % size, rng.randbytes(size))
    with open(root + b"/files/holes", "wb") as file:
        for offset in (0, 3 * MIB - 5, 8 * MIB + 77):
            file.seek(offset)
            file.write(rng.randbytes(10000))
        file.truncate(12 * MIB + 3)
    with open(root + b"/files/one-hole", "wb") as file:
        file.truncate(5 * MIB)


def make_names(root, rng):
    os.mkdir(root + b"/names")
    for name in NAMES:
        write(root + b"/names/" + name, rng.randbytes(100))
        os.makedirs(root + b"/names/dirs/" + name)
        write(root + b"/names/dirs/" + name + b"/" + name, rng.randbytes(10))
    os.mkdir(root + b"/names/many")
    for index in range(3000):
        write(root + b"/names/many/%d-%s" % (index, b"n" * (index % 200)), b"%d" % index)


def make_inodes(root, rng):
    os.mkdir(root + b"/modes")
    for mode in MODES:
        write(root + b"/modes/file-%o" % mode, rng.randbytes(50), mode)
        os.mkdir(root + b"/modes/dir-%o" % mode)
        write(root + b"/modes/dir-%o/inside" % mode, b"inside")
        os.chmod(root + b"/modes/dir-%o" % mode, mode)
    for uid, gid in ((65534, 65534), (12345, 54321), (4294967294, 4294967293)):
        path = root + b"/modes/owner-%d" % uid
        write(path, b"owned")
        os.chown(path, uid, gid)
    os.makedirs(root + b"/links/deep/er")
    write(root + b"/links/first", rng.randbytes(70000))
    for name in (b"second", b"deep/third", b"deep/er/fourth"):
        os.link(root + b"/links/first", root + b"/links/" + name)
    for index, target in enumerate(TARGETS):
        path = root + b"/links/symbolic-%d" % index
        try:
            os.symlink(target, path)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            os.symlink(target[:1023], path)  # the most that xfs takes
    os.symlink(b"loop", root + b"/links/loop")
    os.link(root + b"/links/symbolic-0", root + b"/links/hard-to-symbolic", follow_symlinks=False)
    os.mkdir(root + b"/empty")


def make_long_path(root):
    """18 levels of 200 bytes: near the longest path there is (4095 bytes; names.sh goes beyond)."""
    os.mkdir(root + b"/long")
    here = os.open(root + b"/long", os.O_RDONLY | os.O_DIRECTORY)
    for level in range(18):
        name = b"%02d-" % level + b"l" * 197
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open(b"the end", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
    os.write(file, b"reached")
    os.close(file)
    os.close(here)


def make_special(root):
    os.mkdir(root + b"/special")
    os.mkfifo(root + b"/special/fifo", 0o640)
    here = os.getcwd()
    os.chdir(root + b"/special")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(b"socket")
    os.chdir(here)
    for name, kind, device in ((b"null", stat.S_IFCHR, (1, 3)), (b"loop", stat.S_IFBLK, (7, 0))):
        try:
            os.mknod(root + b"/special/" + name, kind | 0o666, os.makedev(*device))
        except PermissionError:
            print(f"not tested: device node {name.decode()}: mknod is not allowed here", file=sys.stderr)


def set_times(root):
    os.mkdir(root + b"/times")
    for index, when in enumerate(TIMES):
        path = root + b"/times/%d" % index
        write(path, b"time")
        os.utime(path, ns=(when, when))
    os.utime(root + b"/links/symbolic-0", ns=(42, 42), follow_symlinks=False)
    for path in (b"/empty", b"/times", b""):
        os.utime(root + path, ns=(1000000007, 1000000007))


def main():
    root = os.fsencode(sys.argv[1])
    os.makedirs(root, exist_ok=True)
    os.umask(0o022)
    rng = random.Random(20)
    make_files(root, rng)
    make_names(root, rng)
    make_inodes(root, rng)
    make_long_path(root)
    make_special(root)
    set_times(root)


if __name__ == "__main__":
    main()
