#!/usr/bin/env bash
# A fifo, a socket and device nodes are visible with their attributes, and the daemon never opens them at the source: a
# fifo would block it, a device would act. The mount itself is nodev and nosuid.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
"$PYTHON" "$MOUNT_TESTS/hostile_tree.py" "$MOUNT_TMP/tree"
mv "$MOUNT_TMP/tree/special" "$source_dir"
echo plain >"$source_dir/plain"
cp -L "$(command -v id)" "$source_dir/suid-id"
chmod 4755 "$source_dir/suid-id"

check() {
  start_mount "$source_dir" "$mnt"
  "$PYTHON" - "$source_dir" "$mnt" <<'PYTHON'
import ctypes, errno, os, select, socket, stat, struct, sys
source, mount = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
IN_OPEN, IN_ACCESS = 0x20, 0x1
watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
names = sorted(os.listdir(source))
ids = {libc.inotify_add_watch(watch, os.fsencode(f"{source}/{name}"), IN_OPEN | IN_ACCESS): name for name in names}
assert -1 not in ids

def opened():
    """Names that somebody opened at the source since the last call."""
    found = set()
    while select.select([watch], [], [], 0.3)[0]:
        events = os.read(watch, 65536)
        at = 0
        while at < len(events):
            wd, _, _, length = struct.unpack_from("iIII", events, at)
            found.add(ids[wd])
            at += 16 + length
    return found

def error_of(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "no error"

special = [name for name in names if not stat.S_ISREG(os.lstat(f"{source}/{name}").st_mode)]
assert len(special) >= 2, special
for name in special:
    a, b = os.lstat(f"{source}/{name}"), os.lstat(f"{mount}/{name}")
    for field in ("st_mode", "st_rdev", "st_uid", "st_size", "st_nlink", "st_mtime_ns"):
        assert getattr(a, field) == getattr(b, field), (name, field)
    error_of(os.getxattr, f"{mount}/{name}", "user.blobcache.id")
    error_of(os.listxattr, f"{mount}/{name}")
    if stat.S_ISCHR(a.st_mode) or stat.S_ISBLK(a.st_mode):
        assert error_of(os.open, f"{mount}/{name}", os.O_RDONLY) == "EACCES", f"{name}: the mount is not nodev"
    if stat.S_ISSOCK(a.st_mode):
        assert error_of(os.open, f"{mount}/{name}", os.O_RDONLY) == "ENXIO"
        with socket.socket(socket.AF_UNIX) as end:
            assert error_of(end.connect, f"{mount}/{name}") == "ECONNREFUSED"
    if stat.S_ISFIFO(a.st_mode):
        # The kernel makes the pipe on the mount's own inode: two ends meet there, the source's fifo is another one.
        reader = os.open(f"{mount}/{name}", os.O_RDONLY | os.O_NONBLOCK)
        assert error_of(os.open, f"{source}/{name}", os.O_WRONLY | os.O_NONBLOCK) == "ENXIO", "opened at the source"
        os.close(reader)
seen = opened() & set(special) - {"fifo"}  # the check above tried the fifo at the source itself
assert not seen, f"opened at the source: {seen}"
with open(f"{mount}/plain", "rb") as file:
    assert file.read() == b"plain\n"
os.close(os.open(f"{source}/plain", os.O_RDONLY))
assert "plain" in opened(), "the watch sees no opens, so the check above says nothing"
PYTHON
  local flags
  flags=$(awk -v m="$mnt" '$5 == m { print $6 }' /proc/self/mountinfo)
  [[ ,$flags, == *,nosuid,* && ,$flags, == *,nodev,* ]] || fail "mount flags $flags"
  [[ $(setpriv --reuid=65534 --clear-groups "$mnt/suid-id" -u) == 65534 ]] || fail "a set-uid program worked"
  stop_mount "$mnt"
}
with_each_transport check
