#!/usr/bin/env bash
# path names the backing file of what is whole and verified, and says why there is none otherwise; --fd hands it to a
# program, and only to who may read the file itself. stat says the same.
TEST_DEADLINE_S=200
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir"
"$MOUNT_PROBE" write "$source_dir/big" $((12 * 1048576 + 5)) 1 5
head -c 70000 "$source_dir/big" >"$source_dir/small"
head -c 6000000 "$source_dir/big" >"$source_dir/secret"
chmod 600 "$source_dir/secret"
touch -d '2020-01-01 00:00:00' "$source_dir"/*
wait_for 5 "the files are old enough to be kept" is_settled "$source_dir/secret"
# A copy that everybody may execute; the build folder may be closed to others.
cp -- "$BLOBCACHE" "$MOUNT_TMP/blobcache"
chmod 755 "$MOUNT_TMP/blobcache" "$MOUNT_TMP"

has_path() { "$BLOBCACHE" path "$1" >"$MOUNT_TMP/output" 2>"$MOUNT_TMP/error"; }

check() {
  local path user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  rm -rf -- "$MOUNT_TMP/cache"
  start_mount "$source_dir" "$mnt" --cache-dir="$MOUNT_TMP/cache" --cache-size=1GB
  expect_refusal 1 "not whole on disk.*blobcache warm" "$BLOBCACHE" path "$mnt/big"
  head -c 100000 "$mnt/big" >"$MOUNT_TMP/part"
  expect_refusal 1 "not whole on disk" "$BLOBCACHE" path "$mnt/big"
  "$BLOBCACHE" warm "$mnt" >"$MOUNT_TMP/output"
  wait_for 20 "the file is verified" has_path "$mnt/big"
  path=$("$BLOBCACHE" path "$mnt/big")
  [[ $path == "$MOUNT_TMP/cache/objects/"* ]] || fail "a path outside of the cache: $path"
  cmp "$source_dir/big" "$path" || fail "the backing file is not the source"
  expect_refusal 1 "smaller than" "$BLOBCACHE" path "$mnt/small"
  # stat agrees.
  "$BLOBCACHE" stat --json "$mnt/big" >"$MOUNT_TMP/stat"
  "$PYTHON" - "$MOUNT_TMP/stat" "$path" "$(stat -c %s "$source_dir/big")" <<'PYTHON'
import json, sys
facts = json.load(open(sys.argv[1]))
assert facts["path"] == sys.argv[2] and facts["passthrough"] is True, facts
assert facts["tiers"]["disk"] == facts["tiers"]["disk_verified"] == facts["size"] == int(sys.argv[3]), facts
PYTHON
  # A descriptor, and nothing else of ours, for a program; its exit code is the command's.
  "$BLOBCACHE" path --fd "$mnt/big" -- cmp /dev/fd/3 "$source_dir/big" || fail "descriptor 3 is not the source"
  # shellcheck disable=SC2016 # for the program
  expect_status 0 "$BLOBCACHE" path --fd "$mnt/big" -- sh -c '[ "$BLOBCACHE_FD" = 3 ] && ! echo x >&3'
  expect_status 7 "$BLOBCACHE" path --fd "$mnt/big" -- sh -c 'exit 7'
  expect_refusal 1 "cannot be run" "$BLOBCACHE" path --fd "$mnt/big" -- "$MOUNT_TMP/no-such-program"
  # The cache is closed to others: who may read the file is told so, who may not is refused for that.
  wait_for 20 "the file is verified" has_path "$mnt/secret"
  expect_refusal 1 "may not be opened by this user" "${user[@]}" "$MOUNT_TMP/blobcache" path --fd "$mnt/big" -- true
  expect_refusal 1 "may not be read: Permission denied" "${user[@]}" "$MOUNT_TMP/blobcache" path --fd "$mnt/secret" -- true
  # Evicted: gone from the path, kept by the descriptor.
  "$BLOBCACHE" path --fd "$mnt/big" -- sh -c '"$0" warm --evict "$1" >"$2" && ! "$0" path "$1" 2>"$2" && cmp /dev/fd/3 "$3"' \
    "$BLOBCACHE" "$mnt/big" "$MOUNT_TMP/output" "$source_dir/big" || fail "an evicted file behind a descriptor"
  [[ ! -e $path ]] || fail "the evicted file is still there"
  # Wrong use, and files elsewhere.
  expect_status 2 "$BLOBCACHE" path
  expect_refusal 2 "needs a command" "$BLOBCACHE" path --fd "$mnt/big"
  expect_refusal 2 "with --fd only" "$BLOBCACHE" path "$mnt/big" -- true
  expect_refusal 1 "no file on a blobcache mount" "$BLOBCACHE" path "$source_dir/big"
  expect_refusal 1 "No such file" "$BLOBCACHE" path "$mnt/missing"
  stop_mount "$mnt"
}
with_each_transport check
