#!/usr/bin/env bash
# df and statfs answer with sizes that make sense; nothing can be written, so a full or a foreign disk is no surprise.
source "$(dirname -- "$0")/lib.sh"

mnt=$MOUNT_TMP/mnt
mkdir -p "$MOUNT_TMP/source/dir"
echo text >"$MOUNT_TMP/source/file"

check() {
  start_mount "$MOUNT_TMP/source" "$mnt"
  "$PYTHON" - "$MOUNT_TMP/source" "$mnt" <<'PYTHON'
import os, sys
source, mount = sys.argv[1:]
wanted = os.statvfs(source)
for name in ("", "/dir", "/file"):
    got = os.statvfs(mount + name)
    assert got.f_bsize >= 512 and got.f_bsize & (got.f_bsize - 1) == 0, got
    assert got.f_namemax == 255, got
    assert got.f_blocks * got.f_frsize == wanted.f_blocks * wanted.f_frsize, (got, wanted)
    assert got.f_bavail <= got.f_bfree <= got.f_blocks and got.f_ffree <= got.f_files, got
PYTHON
  df "$mnt" >"$MOUNT_TMP/output" || fail "df"
  stop_mount "$mnt"
}
with_each_transport check
