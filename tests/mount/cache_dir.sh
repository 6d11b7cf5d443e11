#!/usr/bin/env bash
# --cache-dir: made with mode 0700 and used; one process at a time; what is not ours, or not of this version or node, is
# refused in one sentence and left as it was found; overlayfs and users without CAP_SYS_ADMIN do without passthrough, and
# are told so.
TEST_DEADLINE_S=240
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
cache=$MOUNT_TMP/cache
mkdir -p "$source_dir" "$mnt"
"$MOUNT_PROBE" write "$source_dir/big" $((24 * 1048576 + 17)) 1 7
head -c 70000 "$source_dir/big" >"$source_dir/small"
touch -d '2020-01-01 00:00:00' "$source_dir"/*
wait_for 5 "the files are old enough to be kept" is_settled "$source_dir/big"

# warm_is_on_disk MOUNTPOINT: all of it, as the mount itself says.
warm_is_on_disk() {
  timeout $((60 * MOUNT_TIME_FACTOR)) "$BLOBCACHE" warm --json "$1" >"$MOUNT_TMP/warm.json"
  "$PYTHON" - "$MOUNT_TMP/warm.json" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
assert report["failed"] == [] and report["files"] == 2, report
assert report["tiers"]["disk"] == report["bytes"], report
PYTHON
}

# refused STATUS PATTERN: a mount with the cache directory is refused, nothing is mounted, the directory is as it was.
refused() {
  local options before after
  mapfile -t options < <(mode_options)
  before=$(find "$cache" -printf '%P %s %T@\n' | sort)
  expect_refusal "$1" "$2" "$BLOBCACHE" mount "$source_dir" "$mnt" "${options[@]}" --cache-dir="$cache"
  is_unmounted "$mnt" || fail "refused, but mounted"
  after=$(find "$cache" -printf '%P %s %T@\n' | sort)
  [[ $before == "$after" ]] || fail "the refused directory was changed: $(diff <(echo "$before") <(echo "$after"))"
}

# with_format OLD NEW: FORMAT with one line changed and its checksum made right, by the published format.
with_format() {
  "$PYTHON" - "$cache/FORMAT" "$1" "$2" "$BLOBCACHE" <<'PYTHON'
import re, subprocess, sys
path, pattern, text, _ = sys.argv[1:]
old = open(path).read()
body, checksum = re.fullmatch(r"(.*\n)checksum ([0-9a-f]{16})\n", old, re.DOTALL).groups()

def xxh3(data):
    got = subprocess.run(["xxhsum", "-H3", "-"], input=data.encode(), capture_output=True, check=True).stdout.decode()
    return re.search(r"[0-9a-f]{16}", got).group()

assert xxh3(body) == checksum, "the checksum is not what docs/DISK_FORMAT.md says"
body, count = re.subn(pattern, text, body)
assert count == 1, body
open(path, "w").write(f"{body}checksum {xxh3(body)}\n")
PYTHON
}

check() {
  local options other=$MOUNT_TMP/other
  rm -rf -- "$cache"
  mkdir -p "$other"
  start_mount "$source_dir" "$mnt" --cache-dir="$cache" --cache-size=1GB
  [[ $(stat -c %a "$cache") == 700 ]] || fail "mode $(stat -c %a "$cache") instead of 700"
  [[ -f $cache/FORMAT && -d $cache/objects && -d $cache/segments && -d $cache/index ]] || fail "not a cache directory"
  warm_is_on_disk "$mnt"
  # In use: the one that has it goes on.
  mapfile -t options < <(mode_options)
  expect_refusal 1 "in use by another process" \
    "$BLOBCACHE" mount "$source_dir" "$other" "${options[@]}" --cache-dir="$cache"
  is_unmounted "$other" || fail "refused, but mounted"
  cmp "$source_dir/big" "$mnt/big" || fail "the living mount was disturbed"
  stop_mount "$mnt"
  # What was cached is still there, and right.
  start_mount "$source_dir" "$mnt" --cache-dir="$cache" --cache-size=1GB
  "$BLOBCACHE" warm --check --json "$mnt" >"$MOUNT_TMP/check.json"
  grep -q '"memory":0,"disk":'"$(($(stat -c %s "$source_dir/big") + 70000))" "$MOUNT_TMP/check.json" ||
    fail "after a restart: $(<"$MOUNT_TMP/check.json")"
  cmp "$source_dir/big" "$mnt/big" && cmp "$source_dir/small" "$mnt/small" || fail "wrong bytes from disk"
  stop_mount "$mnt"

  if command -v xxhsum >"$MOUNT_TMP/output"; then
    cp -p "$cache/FORMAT" "$MOUNT_TMP/FORMAT"
    with_format 'version \d+' 'version 999'
    refused 1 "version 999"
    cp -p "$MOUNT_TMP/FORMAT" "$cache/FORMAT"
    with_format 'node [0-9a-f]+' 'node 00000000000000010000000000000002'
    refused 1 "another node"
    cp -p "$MOUNT_TMP/FORMAT" "$cache/FORMAT"
  else
    not_tested "FORMAT of another version or node" "xxhsum is not installed"
  fi
  printf 'x' | dd of="$cache/FORMAT" bs=1 seek=3 conv=notrunc status=none
  refused 1 "FORMAT.*damaged"
  rm -rf -- "$cache"
  mkdir -m 700 "$cache"
  echo mine >"$cache/letter"
  refused 1 "holds files"
  rm -rf -- "$cache"
  # Where no cache can be.
  cache=$source_dir/cache
  expect_refusal 1 "lies inside" "$BLOBCACHE" mount "$source_dir" "$mnt" "${options[@]}" --cache-dir="$cache"
  [[ ! -e $cache ]] || fail "a refused directory was made in the source"
  cache=$mnt/cache
  expect_refusal 1 "lies inside" "$BLOBCACHE" mount "$source_dir" "$mnt" "${options[@]}" --cache-dir="$cache"
  cache=$MOUNT_TMP/cache
}

on_overlay() {
  local under=$MOUNT_TMP/under
  rm -rf -- "$under"
  mkdir -p "$under" "$MOUNT_TMP/stacked"
  mount -t tmpfs none "$under"
  mkdir "$under/lower" "$under/upper" "$under/work"
  if ! mount -t overlay overlay -o "lowerdir=$under/lower,upperdir=$under/upper,workdir=$under/work" "$MOUNT_TMP/stacked"; then
    not_tested "a cache directory on overlayfs" "it cannot be mounted here"
    umount "$under"
    return
  fi
  start_mount "$source_dir" "$mnt" --cache-dir="$MOUNT_TMP/stacked/cache" --cache-size=200MB -o log.file="$MOUNT_TMP/daemon.log"
  grep -q "passthrough off" "$MOUNT_LOG" || fail "passthrough is not said to be off: $(<"$MOUNT_LOG")"
  grep -q "no passthrough.*stacked" "$MOUNT_TMP/daemon.log" || fail "the log does not say why: $(<"$MOUNT_TMP/daemon.log")"
  warm_is_on_disk "$mnt"
  "$BLOBCACHE" stat "$mnt/big" >"$MOUNT_TMP/output"
  grep -qE '^passthrough +no: ' "$MOUNT_TMP/output" || fail "stat: $(<"$MOUNT_TMP/output")"
  cmp "$source_dir/big" "$mnt/big" || fail "wrong bytes"
  stop_mount "$mnt"
  umount "$MOUNT_TMP/stacked"
  umount "$under"
}

# As root, without the one capability that passthrough asks for; the mount itself is then made by fusermount3, which has it.
without_capability() {
  local options
  mapfile -t options < <(mode_options)
  rm -rf -- "$cache" "$MOUNT_TMP/user"
  command -v fusermount3 >"$MOUNT_TMP/output" || {
    not_tested "a cache without root" "fusermount3 is not installed"
    return 0
  }
  cp -- "$BLOBCACHE" "$MOUNT_TMP/blobcache"
  chmod 755 "$MOUNT_TMP/blobcache" "$MOUNT_TMP" "$source_dir"
  mkdir -m 700 "$MOUNT_TMP/user"
  mkdir "$MOUNT_TMP/user/mnt"
  chown -R 65534:65534 "$MOUNT_TMP/user" "$MOUNT_TMP/home"
  cat >"$MOUNT_TMP/inside.sh" <<'INSIDE'
set -euo pipefail
mknod "$MOUNT_TMP/fuse" c 10 229
chmod 666 "$MOUNT_TMP/fuse"
mount --bind "$MOUNT_TMP/fuse" /dev/fuse
rm -f "$MOUNT_TMP/fuse"
user() { setpriv --reuid=65534 --regid=65534 --clear-groups timeout 60 "$@"; }
own=$MOUNT_TMP/user
user "$BLOBCACHE" mount "$1" "$own/mnt" "${@:2}" --cache-dir="$own/cache" --cache-size=200MB \
  -o log.file="$own/log" >"$MOUNT_TMP/mounted"
grep -q "passthrough off" "$MOUNT_TMP/mounted"
grep -q "no passthrough.*CAP_SYS_ADMIN" "$own/log"
user "$BLOBCACHE" warm "$own/mnt"
user "$BLOBCACHE" path "$own/mnt/big" >"$MOUNT_TMP/path"
user cmp "$1/big" "$(<"$MOUNT_TMP/path")"
user cmp "$1/big" "$own/mnt/big"
user "$BLOBCACHE" umount "$own/mnt"
INSIDE
  BLOBCACHE=$MOUNT_TMP/blobcache unshare -m --propagation private bash -x "$MOUNT_TMP/inside.sh" "$source_dir" "${options[@]}" \
    >"$MOUNT_TMP/inside.log" 2>&1 || fail "without root: $(tail -n 5 "$MOUNT_TMP/inside.log")"
  no_crash
}

with_each_transport check
MODE_TRANSPORT=dev
on_overlay
without_capability
