#!/usr/bin/env bash
# A bucket of OBJECTS objects (20,000) from nothing to LARGE_MIB (5 GiB, in parts) on a real S3 server, with names that trip
# whoever is careless: every name, size and byte through a mount, on both transports, and again from the disks of the first.
TEST_DEADLINE_S=${TEST_DEADLINE_S:-3600}
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
objects=${1:-20000}
large_mib=${2:-5120}

# The object lies in the server and in the cache.
free_mib=$(df --output=avail -BM "$MOUNT_TMP" | tail -n 1 | tr -dc 0-9)
if ((free_mib < 3 * large_mib + 4096)); then
  not_tested "an object of $large_mib MiB" "$free_mib MiB are free below $MOUNT_TMP"
  large_mib=256
fi

tree() { "$PYTHON" "$MOUNT_TESTS/s3_tree.py" "$@" || fail "s3_tree.py $1"; }

check() {
  start_mount s3://blobs/tree "$mnt" "${S3_OPTIONS[@]}" -o volume.revalidate=10min
  tree check "$mnt" "$objects" "$large_mib"
  stop_mount "$mnt"
}

check_with_disk() {
  local pass
  for pass in cold warm; do
    start_mount s3://blobs/tree "$mnt" "${S3_OPTIONS[@]}" -o volume.revalidate=10min --cache-dir="$MOUNT_TMP/cache"
    tree check "$mnt" "$objects" "$large_mib"
    stop_mount "$mnt"
    say "the $pass cache"
  done
}

start_s3
began=$SECONDS
tree put blobs tree/ "$objects" "$large_mib"
say "put in $((SECONDS - began)) s"
mkdir -p "$mnt"
with_each_transport check
MODE_TRANSPORT=dev
check_with_disk
