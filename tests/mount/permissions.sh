#!/usr/bin/env bash
# Other users get through the mount what the source's modes give them, and no more: default_permissions is in force, the
# daemon's own rights (root's) never show. A change of mode at the source counts after the attribute timeout.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir/closed" "$source_dir/search-only" "$source_dir/nobodys"
for name in private group public closed/inside search-only/inside nobodys/inside; do
  echo "$name" >"$source_dir/$name"
done
chmod 755 "$source_dir"
chmod 600 "$source_dir/private"
chmod 640 "$source_dir/group"
chgrp 4321 "$source_dir/group"
chmod 700 "$source_dir/closed"
chmod 711 "$source_dir/search-only"
chown -R 65534 "$source_dir/nobodys"
chmod 700 "$source_dir/nobodys"

nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@" 2>"$MOUNT_TMP/error"; }
member() { setpriv --reuid=65534 --regid=65534 --groups=4321 "$@" 2>"$MOUNT_TMP/error"; }
denied() {
  ! "$@" >"$MOUNT_TMP/output" || fail "allowed: $*"
  grep -q 'Permission denied' "$MOUNT_TMP/error" || fail "$(<"$MOUNT_TMP/error")"
}

check() {
  start_mount "$source_dir" "$mnt" -o fuse.entry_timeout=100ms -o fuse.attr_timeout=100ms
  [[ $(cat "$mnt/private" "$mnt/closed/inside") == private$'\n'closed/inside ]] || fail "root cannot read"
  [[ $(nobody cat "$mnt/public") == public ]] || fail "nobody cannot read a public file"
  denied nobody cat "$mnt/private"
  denied nobody cat "$mnt/group"
  [[ $(member cat "$mnt/group") == group ]] || fail "a member of its group cannot read"
  denied nobody cat "$mnt/closed/inside"
  denied nobody ls "$mnt/closed"
  denied nobody ls "$mnt/search-only"
  [[ $(nobody cat "$mnt/search-only/inside") == search-only/inside ]] || fail "a directory to search only"
  [[ $(nobody cat "$mnt/nobodys/inside") == nobodys/inside ]] || fail "the owner cannot read"
  chmod 600 "$source_dir/public"
  wait_for 10 "the new mode counts" eval '! nobody cat "$mnt/public" >"$MOUNT_TMP/output"'
  denied nobody cat "$mnt/public"
  chmod 644 "$source_dir/public"
  wait_for 10 "the old mode counts again" eval 'nobody cat "$mnt/public" >"$MOUNT_TMP/output"'
  stop_mount "$mnt"
}
with_each_transport check
