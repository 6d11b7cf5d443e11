#!/usr/bin/env bash
# user.blobcache.{id,tiers,source,version}: listed, stable, true. The id names an object version: another file or another
# version has another one, hard links share it; the tiers say in bytes what is cached.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir/dir"

check() {
  head -c 3000000 /dev/urandom >"$source_dir/file"
  head -c 3000000 /dev/urandom >"$source_dir/dir/other"
  ln -f "$source_dir/file" "$source_dir/hard-link"
  touch -d '2020-01-01 00:00:00' "$source_dir/file" "$source_dir/dir/other"
  wait_for 5 "the file is old enough to be kept" is_settled "$source_dir/file"
  start_mount "$source_dir" "$mnt" -o fuse.entry_timeout=100ms -o fuse.attr_timeout=100ms
  "$PYTHON" - "$source_dir" "$mnt" <<'PYTHON'
import ctypes, errno, json, os, re, select, sys, time
source, mount = sys.argv[1:]
NAMES = {"user.blobcache." + name for name in ("id", "tiers", "source", "version")}

def get(name, attribute):
    return os.getxattr(f"{mount}/{name}", "user.blobcache." + attribute).decode()

listed = set(os.listxattr(f"{mount}/file"))
assert NAMES <= listed, listed
before = {name: get(name, "id") for name in ("file", "hard-link", "dir/other")}
assert all(re.fullmatch("[0-9a-f]{32}", value) for value in before.values()), before
assert before["file"] == before["hard-link"] != before["dir/other"], before
assert get("file", "id") == before["file"], "not stable"
assert get("dir/other", "source").endswith("dir/other"), get("dir/other", "source")
assert get("file", "version") and get("file", "version") == get("file", "version")
tiers = json.loads(get("file", "tiers"))
assert all(isinstance(value, int) and value >= 0 for value in tiers.values()), tiers
assert not any(value for name, value in tiers.items() if name != "size"), f"nothing was read, but {tiers}"
with open(f"{mount}/file", "rb") as file, open(f"{source}/file", "rb") as wanted:
    assert file.read() == wanted.read()
tiers = json.loads(get("file", "tiers"))
assert tiers.get("memory") == 3000000, f"all was read, but {tiers}"
assert json.loads(get("dir/other", "tiers")).get("memory", 0) == 0

def error_of(name, attribute, size):
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.getxattr(os.fsencode(f"{mount}/{name}"), attribute.encode(), ctypes.create_string_buffer(size or 1), size)
    return errno.errorcode[ctypes.get_errno()] if got < 0 else got

assert error_of("file", "user.blobcache.none", 100) == "ENODATA"
assert error_of("file", "user.blobcache.id", 5) == "ERANGE"
assert error_of("file", "user.blobcache.id", 0) == 32
# What ls and cp ask of every file is answered too, with "there is none".
for attribute in ("security.capability", "system.posix_acl_access", "security.selinux"):
    assert error_of("file", attribute, 100) in ("ENODATA", "EOPNOTSUPP", "ENOTSUP"), attribute

# A new version is a new object.
with open(f"{source}/fresh", "wb") as file:
    file.write(b"another version")
os.rename(f"{source}/fresh", f"{source}/file")
version = get("dir/other", "version")
deadline = time.monotonic() + 10
while get("file", "id") == before["file"]:
    assert time.monotonic() < deadline, "the id of the old version stays"
    select.select([], [], [], 0.02)
assert get("hard-link", "id") != get("file", "id"), "the name left the old inode, which hard-link still is"
assert get("dir/other", "version") == version
PYTHON
  stop_mount "$mnt"
}
with_each_transport check
