#!/usr/bin/env bash
# A mount shows what the source has: a hostile tree and /usr/include, in every mode, read twice (cold, then cached).
TEST_DEADLINE_S=240
source "$(dirname -- "$0")/lib.sh"

tree=$MOUNT_TMP/tree
mnt=$MOUNT_TMP/mnt
"$PYTHON" "$MOUNT_TESTS/hostile_tree.py" "$tree"
"$PYTHON" "$MOUNT_TESTS/tree_manifest.py" "$tree" >"$MOUNT_TMP/hostile"
"$PYTHON" "$MOUNT_TESTS/tree_manifest.py" /usr/include >"$MOUNT_TMP/include"
[[ $(wc -l <"$MOUNT_TMP/hostile") -gt 3000 ]] || fail "the hostile tree was not made"

check() {
  start_mount "$tree" "$mnt"
  expect_manifest "$MOUNT_TMP/hostile" "$mnt"
  expect_manifest "$MOUNT_TMP/hostile" "$mnt"
  stop_mount "$mnt"
  start_mount /usr/include "$mnt"
  expect_manifest "$MOUNT_TMP/include" "$mnt"
  diff -r --no-dereference /usr/include "$mnt" || fail "diff -r"
  stop_mount "$mnt"
}
with_each_mode check
