#!/usr/bin/env bash
# Without /dev/fuse, or without the right to it: a refusal that says so and names the remedy, exit 3 or 1. Hidden in a
# mount namespace of the test's own, so that the rest of the machine keeps its device.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir" "$mnt" "$MOUNT_TMP/dev"
chmod 755 "$source_dir"
mapfile -t options < <(mode_options)

# in_namespace SCRIPT COMMAND...: runs SCRIPT (it arranges /dev), then the command, in a private mount namespace.
in_namespace=(unshare -m --propagation private bash -c 'set -e; eval "$0"; exec "$@"')

if ! "${in_namespace[@]}" true true 2>"$MOUNT_TMP/error"; then
  nothing_tested "no /dev/fuse" "unshare -m is not allowed here: $(<"$MOUNT_TMP/error")"
fi
# A /dev of its own with the usual devices, but without fuse.
hide_fuse='for name in null zero random urandom; do touch "$MOUNT_TMP/dev/$name"; mount --bind "/dev/$name" "$MOUNT_TMP/dev/$name"; done; mount --rbind "$MOUNT_TMP/dev" /dev'
expect_refusal 3 "/dev/fuse.*(modprobe|load|container|device)" "${in_namespace[@]}" "$hide_fuse" \
  "$BLOBCACHE" mount "$source_dir" "$mnt" "${options[@]}"
is_unmounted "$mnt" || fail "a refused mount left a mount"

# The device is there, but not for this user.
close_fuse='mknod "$MOUNT_TMP/fuse" c 10 229; chmod 600 "$MOUNT_TMP/fuse"; mount --bind "$MOUNT_TMP/fuse" /dev/fuse'
cp -- "$BLOBCACHE" "$MOUNT_TMP/blobcache"
chmod 755 "$MOUNT_TMP/blobcache"
chown 65534 "$mnt"
expect_refusal '[13]' "permission|root|allowed|fusermount3" "${in_namespace[@]}" "$close_fuse" \
  setpriv --reuid=65534 --regid=65534 --clear-groups "$MOUNT_TMP/blobcache" mount "$source_dir" "$mnt" "${options[@]}"
