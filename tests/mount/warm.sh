#!/usr/bin/env bash
# warm fills memory and disk with what it is told and reports it; --check reads nothing; --evict drops it from both; what
# fails is named, and the rest is done all the same.
TEST_DEADLINE_S=200
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir/deep/er" "$source_dir/other"
"$MOUNT_PROBE" write "$source_dir/deep/big" $((70 * 1048576 + 3)) 1 3 # two pieces of the command's
"$MOUNT_PROBE" write "$source_dir/deep/er/middle" $((5 * 1048576)) 1 4
head -c 9999 "$source_dir/deep/big" >"$source_dir/deep/er/small"
: >"$source_dir/deep/empty"
head -c 4000000 "$source_dir/deep/big" >"$source_dir/other/file"
ln "$source_dir/deep/er/small" "$source_dir/deep/hard-link"
ln -s ../other/file "$source_dir/deep/link"
find "$source_dir" -type f -exec touch -d '2020-01-01 00:00:00' {} +
wait_for 5 "the files are old enough to be kept" is_settled "$source_dir/other/file"

# report_is PYTHON-CONDITION ARGUMENT...: runs warm --json, and the condition holds for its report.
report_is() {
  local condition=$1
  shift
  timeout $((60 * MOUNT_TIME_FACTOR)) "$BLOBCACHE" warm --json "$@" >"$MOUNT_TMP/report" 2>"$MOUNT_TMP/error" || true
  "$PYTHON" -c 'import json, sys
report = json.loads(open(sys.argv[1]).read())
t = report["tiers"]
assert eval(sys.argv[2]), (sys.argv[2], report)' "$MOUNT_TMP/report" "$condition" || fail "warm $*: $condition"
}

check() {
  rm -rf -- "$MOUNT_TMP/cache"
  start_mount "$source_dir" "$mnt" --cache-dir="$MOUNT_TMP/cache" --cache-size=1GB -o fuse.passthrough=off
  local deep=$((70 * 1048576 + 3 + 5 * 1048576 + 9999))
  report_is "report['files'] == 4 and report['bytes'] == $deep and report['read_bytes'] == 0" --check "$mnt/deep"
  report_is "t['memory'] == t['disk'] == 0" --check "$mnt/deep"
  # Only what was named; links are not followed, hard links count once.
  report_is "report['files'] == 4 and report['read_bytes'] == $deep and report['failed'] == []" "$mnt/deep"
  # What the disk left out at first was forgotten and read again, and what is read from disk need not be in memory.
  report_is "t['disk'] == $deep and t['memory'] > 0" --check "$mnt/deep"
  report_is "t['memory'] == t['disk'] == 0" --check "$mnt/other"
  expect_status 0 "$BLOBCACHE" warm --check "$mnt/deep"
  grep -qE '^disk +[0-9]+ +100\.0%' "$MOUNT_TMP/output" || fail "the plain report: $(<"$MOUNT_TMP/output")"
  # What is warm comes from the cache: the source is not needed.
  mv "$source_dir/deep" "$MOUNT_TMP/aside"
  mkdir "$source_dir/deep"
  rmdir "$source_dir/deep"
  mv "$MOUNT_TMP/aside" "$source_dir/deep"
  cmp "$source_dir/deep/big" "$mnt/deep/big" || fail "wrong bytes"
  # One of them leaves both tiers; the others stay.
  report_is "report['failed'] == [] and t['memory'] == t['disk'] == 0" --evict "$mnt/deep/big"
  report_is "t['disk'] == 5 * 1048576 + 9999 >= t['memory']" --check "$mnt/deep"
  cmp "$source_dir/deep/big" "$mnt/deep/big" || fail "wrong bytes after the eviction"
  # Lists, from a file and from standard input, and paths that fail beside paths that do not.
  printf '%s\n' "$mnt/other" '' "$mnt/missing" "$source_dir" >"$MOUNT_TMP/list"
  expect_status 1 "$BLOBCACHE" warm --list="$MOUNT_TMP/list" --jobs=2
  grep -q "$mnt/missing: No such file" "$MOUNT_TMP/error" || fail "the missing file is not named"
  grep -q "$source_dir: it is not on a blobcache mount" "$MOUNT_TMP/error" || fail "the path outside is not named"
  # So little is never left out.
  report_is "t['memory'] == t['disk'] == 4000000" --check "$mnt/other"
  report_is "report['files'] == 1 and len(report['failed']) == 2" --check --list=- <"$MOUNT_TMP/list"
  # What was refused is not said to be dropped.
  expect_status 0 "$BLOBCACHE" warm --evict "$mnt/other"
  grep -q ', 1 dropped$' "$MOUNT_TMP/output" || fail "--evict says: $(<"$MOUNT_TMP/output")"
  expect_status 0 "$BLOBCACHE" warm --pin "$mnt/other"
  expect_status 1 "$BLOBCACHE" warm --evict "$mnt/other"
  grep -q ', 0 dropped$' "$MOUNT_TMP/output" || fail "--evict of what is pinned says: $(<"$MOUNT_TMP/output")"
  expect_status 0 "$BLOBCACHE" warm --unpin --evict "$mnt/other"
  # Wrong use.
  expect_refusal 2 "no file or directory" "$BLOBCACHE" warm
  expect_status 2 "$BLOBCACHE" warm --check --evict "$mnt"
  expect_status 2 "$BLOBCACHE" warm --jobs=0 "$mnt"
  expect_refusal 1 "list .*missing-list" "$BLOBCACHE" warm --list="$MOUNT_TMP/missing-list"
  stop_mount "$mnt"
}
with_each_transport check
