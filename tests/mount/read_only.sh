#!/usr/bin/env bash
# Everything that writes gets EROFS, and nothing changes at the source.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir/dir/empty"
echo text >"$source_dir/file"
ln -s file "$source_dir/link"
"$PYTHON" "$MOUNT_TESTS/tree_manifest.py" "$source_dir" >"$MOUNT_TMP/before"

check() {
  start_mount "$source_dir" "$mnt"
  "$PYTHON" - "$mnt" <<'PYTHON'
import errno, os, socket, stat, sys
os.chdir(sys.argv[1])
def bind(name):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(name)
writes = {
    "open to write": lambda: os.open("file", os.O_WRONLY),
    "open to read and write": lambda: os.open("file", os.O_RDWR),
    "open to append": lambda: os.open("file", os.O_WRONLY | os.O_APPEND),
    "open and truncate": lambda: os.open("file", os.O_WRONLY | os.O_TRUNC),
    "create": lambda: os.open("new", os.O_WRONLY | os.O_CREAT, 0o644),
    "create exclusively": lambda: os.open("new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644),
    "open O_TMPFILE": lambda: os.open("dir", os.O_RDWR | os.O_TMPFILE, 0o600),
    "truncate": lambda: os.truncate("file", 1),
    "unlink": lambda: os.unlink("file"),
    "unlink a link": lambda: os.unlink("link"),
    "mkdir": lambda: os.mkdir("new"),
    "rmdir": lambda: os.rmdir("dir/empty"),
    "rename": lambda: os.rename("file", "new"),
    "rename over": lambda: os.rename("link", "file"),
    "symlink": lambda: os.symlink("file", "new"),
    "link": lambda: os.link("file", "new"),
    "mknod": lambda: os.mknod("new", stat.S_IFREG | 0o644),
    "mkfifo": lambda: os.mkfifo("new"),
    "bind a socket": lambda: bind("new"),
    "chmod": lambda: os.chmod("file", 0o600),
    "chown": lambda: os.chown("file", 1, 1),
    "lchown": lambda: os.lchown("link", 1, 1),
    "utime": lambda: os.utime("file", (1, 1)),
    "utime of a directory": lambda: os.utime("dir", (1, 1)),
    "setxattr": lambda: os.setxattr("file", "user.mine", b"1"),
    "setxattr over ours": lambda: os.setxattr("file", "user.blobcache.id", b"1"),
    "removexattr": lambda: os.removexattr("file", "user.blobcache.id"),
}
wrong = []
for what, call in writes.items():
    try:
        call()
        wrong.append(f"{what}: worked")
    except OSError as error:
        if error.errno != errno.EROFS:
            wrong.append(f"{what}: {errno.errorcode[error.errno]}")
# Through a descriptor that was opened to read.
file = os.open("file", os.O_RDONLY)
for what, call in {"fchmod": lambda: os.fchmod(file, 0o600), "fchown": lambda: os.fchown(file, 1, 1)}.items():
    try:
        call()
        wrong.append(f"{what}: worked")
    except OSError as error:
        if error.errno != errno.EROFS:
            wrong.append(f"{what}: {errno.errorcode[error.errno]}")
os.fsync(file)  # nothing to write is no error
assert not os.access("file", os.W_OK) and os.access("file", os.R_OK)
sys.exit("\n".join(wrong) or None)
PYTHON
  "$PYTHON" "$MOUNT_TESTS/tree_manifest.py" "$source_dir" >"$MOUNT_TMP/after"
  cmp "$MOUNT_TMP/before" "$MOUNT_TMP/after" || fail "the source changed"
  stop_mount "$mnt"
}
with_each_transport check
