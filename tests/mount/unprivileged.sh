#!/usr/bin/env bash
# Without root: a mount through fusermount3 works on a folder of one's own, is unmounted again, and is refused on a
# folder of somebody else, or for a source that one may not read.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir" "$mnt" "$MOUNT_TMP/roots" "$MOUNT_TMP/closed"
"$PYTHON" "$MOUNT_TESTS/hostile_tree.py" "$MOUNT_TMP/tree"
cp -a "$MOUNT_TMP/tree/files" "$MOUNT_TMP/tree/links" "$source_dir"
chmod 700 "$MOUNT_TMP/closed"
chown -R 65534:65534 "$mnt" "$MOUNT_TMP/home"
chmod 755 "$source_dir"
# A copy that everybody may execute; the build folder may be closed to others.
cp -- "$BLOBCACHE" "$MOUNT_TMP/blobcache"
chmod 755 "$MOUNT_TMP/blobcache"
BLOBCACHE=$MOUNT_TMP/blobcache
"$PYTHON" "$MOUNT_TESTS/tree_manifest.py" "$source_dir" >"$MOUNT_TMP/wanted"
command -v fusermount3 >"$MOUNT_TMP/output" || nothing_tested "mounts without root" "fusermount3 is not installed"

# Everything in one namespace where /dev/fuse is open to all, as it is on a usual machine.
cat >"$MOUNT_TMP/inside.sh" <<'INSIDE'
set -euo pipefail
mknod "$MOUNT_TMP/fuse" c 10 229
chmod 666 "$MOUNT_TMP/fuse"
mount --bind "$MOUNT_TMP/fuse" /dev/fuse
rm -f "$MOUNT_TMP/fuse"
user() { setpriv --reuid=65534 --regid=65534 --clear-groups timeout 20 "$@"; }
user "$BLOBCACHE" mount "$1" "$2" "${@:3}"
# As that user: allow_other is off, so not even root may look.
user /usr/bin/env -C "$2" find . -type f -exec sha256sum {} + | sort >"$MOUNT_TMP/sums.got"
(cd "$1" && find . -type f -exec sha256sum {} + | sort) >"$MOUNT_TMP/sums.wanted"
cmp "$MOUNT_TMP/sums.wanted" "$MOUNT_TMP/sums.got"
[[ $(wc -l <"$MOUNT_TMP/sums.got") -gt 15 ]]
user "$BLOBCACHE" umount "$2"
! grep -qF -- " $2 " /proc/self/mountinfo
# Refusals.
status=0
user "$BLOBCACHE" mount "$1" "$MOUNT_TMP/roots" "${@:3}" 2>"$MOUNT_TMP/error" || status=$?
[[ $status == [13] ]] && grep -qiE 'permission|permitted|own|allowed|denied' "$MOUNT_TMP/error"
status=0
user "$BLOBCACHE" mount "$MOUNT_TMP/closed" "$2" "${@:3}" 2>"$MOUNT_TMP/error" || status=$?
[[ $status == 1 ]] && grep -qiE 'permission|denied|read' "$MOUNT_TMP/error"
INSIDE

check() {
  local options pid
  mapfile -t options < <(mode_options)
  BLOBCACHE=$BLOBCACHE unshare -m --propagation private bash "$MOUNT_TMP/inside.sh" "$source_dir" "$mnt" "${options[@]}" \
    >"$MOUNT_TMP/unprivileged.log" 2>&1 || fail "unprivileged: $(tail -n 3 "$MOUNT_TMP/error" 2>/dev/null)"
  pid=$(daemon_pid "$mnt") && wait_gone 20 "$pid"
  no_crash
}
with_each_transport check
