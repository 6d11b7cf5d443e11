#!/usr/bin/env bash
# What cannot be mounted is refused in one sentence that says what to do, with exit 1 (2 for wrong use), and leaves
# nothing behind: no mount, no process, no changed folder.
TEST_DEADLINE_S=120
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir" "$mnt" "$MOUNT_TMP/full"
echo text >"$source_dir/file"
echo text >"$MOUNT_TMP/full/file"
echo text >"$MOUNT_TMP/plain"
ln -s nowhere "$MOUNT_TMP/dangling"
mapfile -t options < <(mode_options)

# refuse_mount STATUS PATTERN ARGUMENT...
refuse_mount() {
  local status=$1 pattern=$2
  shift 2
  expect_refusal "$status" "$pattern" "$BLOBCACHE" mount "$@"
  ! grep -qF -- " $MOUNT_TMP/" /proc/self/mountinfo || fail "a refused mount left a mount: $*"
}

# Mount points.
refuse_mount 1 "missing.*(create|mkdir)|(no such|not exist).*(create|mkdir)" "$source_dir" "$MOUNT_TMP/missing" "${options[@]}"
[[ ! -e $MOUNT_TMP/missing ]] || fail "the mount point was made"
refuse_mount 1 "empty" "$source_dir" "$MOUNT_TMP/full" "${options[@]}"
refuse_mount 1 "directory" "$source_dir" "$MOUNT_TMP/plain" "${options[@]}"
refuse_mount 1 "$MOUNT_TMP/dangling" "$source_dir" "$MOUNT_TMP/dangling" "${options[@]}"

# Sources.
refuse_mount 1 "missing-source" "$MOUNT_TMP/missing-source" "$mnt" "${options[@]}"
refuse_mount 1 "directory" "$MOUNT_TMP/plain" "$mnt" "${options[@]}"
refuse_mount 1 "missing-source" "file://$MOUNT_TMP/missing-source" "$mnt" "${options[@]}"

# Memory that no plan fits into, and more than the machine has.
refuse_mount '[123]' "memory" "$source_dir" "$mnt" --memory=1MiB -o fuse.transport=dev -o node.cores=1
refuse_mount '[13]' "memory" "$source_dir" "$mnt" --memory=100TiB -o fuse.transport=dev -o node.cores=1

# Wrong use: unknown keys name the nearest right one.
refuse_mount 2 "fuse\.entry_timeout" "$source_dir" "$mnt" "${options[@]}" -o fuse.entri_timeout=5s
refuse_mount 2 "memory\.limit" "$source_dir" "$mnt" -o memory.limt=1GiB
refuse_mount 2 "fuse\.transport" "$source_dir" "$mnt" -o fuse.transport=tcp
refuse_mount 2 "fuse\.entry_timeout" "$source_dir" "$mnt" -o fuse.entry_timeout=5parsecs
refuse_mount 2 "KEY=VALUE|=" "$source_dir" "$mnt" -o fuse.entry_timeout
refuse_mount 2 "memory" "$source_dir" "$mnt" --memory=lots
refuse_mount 2 "memory" "$source_dir" "$mnt" --memory=512MiB -o memory.limit=512MiB
expect_status 2 "$BLOBCACHE" mount "$source_dir"
expect_status 2 "$BLOBCACHE" mount
expect_status 2 "$BLOBCACHE" mount "$source_dir" "$mnt" --no-such-option
expect_status 2 "$BLOBCACHE" no-such-command

# A mount point that is taken: by another filesystem, by a living mount of ours (which goes on).
mount -t tmpfs none "$mnt"
refuse_mount_on_busy() { expect_refusal 1 "mounted|busy|in use" "$BLOBCACHE" mount "$source_dir" "$mnt" "${options[@]}"; }
refuse_mount_on_busy
umount "$mnt"
start_mount "$source_dir" "$mnt"
refuse_mount_on_busy
[[ $(<"$mnt/file") == text ]] || fail "the living mount was disturbed"
stop_mount "$mnt"

# umount of what is not ours.
expect_refusal 1 "not.*mount" "$BLOBCACHE" umount "$mnt"
expect_refusal 1 "missing|no such|not.*mount|not exist" "$BLOBCACHE" umount "$MOUNT_TMP/missing"
mount -t tmpfs none "$mnt"
expect_refusal 1 "not.*blobcache|another|tmpfs" "$BLOBCACHE" umount "$mnt"
is_mounted "$mnt" || fail "umount took away a mount of somebody else"
umount "$mnt"

# After all that, the same command with nothing wrong works.
start_mount "$source_dir" "$mnt"
[[ $(<"$mnt/file") == text ]] || fail "the mount does not work"
stop_mount "$mnt"
