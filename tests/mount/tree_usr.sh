#!/usr/bin/env bash
# The whole of /usr through the mount, in every mode: every name, attribute and byte. Long: a target of its own.
TEST_DEADLINE_S=3600
source "$(dirname -- "$0")/lib.sh"

mnt=$MOUNT_TMP/mnt
"$PYTHON" "$MOUNT_TESTS/tree_manifest.py" /usr >"$MOUNT_TMP/usr"
say "/usr has $(wc -l <"$MOUNT_TMP/usr") names"

check() {
  start_mount /usr "$mnt"
  expect_manifest "$MOUNT_TMP/usr" "$mnt"
  diff -r --no-dereference /usr "$mnt" || fail "diff -r"
  stop_mount "$mnt"
}
with_each_mode check
