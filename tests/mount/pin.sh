#!/usr/bin/env bash
# What is pinned stays on this node's disk, whole and verified, whatever else is read, over kill -9 too; unpinned it leaves
# like any other. There is an end to what may be pinned, and each refusal says why.
TEST_DEADLINE_S=340
MOUNT_MEMORY=224MiB # a third of it holds frames: what is read through goes through the disk, too
source "$(dirname -- "$0")/disk_lib.sh"

CACHE_SIZE=64MiB
model_bytes=$((21 * 1048576 + 5))
FILES=()
mkdir -p "$source_dir/model"
"$MOUNT_PROBE" write "$source_dir/model/weights" "$model_bytes" 1 1
"$MOUNT_PROBE" write "$source_dir/model/config" 5000 1 2
: >"$source_dir/model/empty"
MODEL=(model/weights model/config)
# Three times the cache.
for tag in $(seq 3 16); do
  "$MOUNT_PROBE" write "$source_dir/other-$tag" $((14 * 1048576 + tag * 4097)) 1 "$tag"
  FILES+=("other-$tag")
done
settle "$source_dir/other-16"

warm() { timeout $((120 * MOUNT_TIME_FACTOR)) "$BLOBCACHE" warm "$@" >"$MOUNT_TMP/output" 2>"$MOUNT_TMP/error"; }
warm_fails() { # PATTERN ARGUMENT...: exit 1, and stderr says so
  local pattern=$1 got=0
  shift
  warm "$@" || got=$?
  [[ $got == 1 ]] || fail "warm $* ended with $got: $(<"$MOUNT_TMP/error")"
  grep -qE -- "$pattern" "$MOUNT_TMP/error" || fail "warm $* does not say /$pattern/: $(<"$MOUNT_TMP/error")"
}
model_total=$((model_bytes + 5000))
is_pinned() { "$BLOBCACHE" stat --json "$mnt/$1" | grep -q '"pinned":true'; }
pinned_bytes() { status "disk['pinned']"; }

# The kernel reads past us what it was given, so that the others are read by the daemon they are dropped first.
read_others() {
  compare "${FILES[@]}"
  drop_mount_cache "${FILES[@]}"
}

model_stays() {
  on_disk_is "$model_total" "${MODEL[@]}" || fail "$1: $(on_disk "${MODEL[@]}") of $model_total bytes are on disk; $(status disk)"
  is_pinned model/weights || fail "$1: the weights are not pinned"
  is_pinned model/config || fail "$1: the config is not pinned"
  wait_for 30 "the weights are verified" verified_is "$model_bytes" model/weights
  [[ $(status "volume['passthrough']") != True ]] || "$BLOBCACHE" stat --json "$mnt/model/weights" |
    grep -q '"passthrough":true' || fail "$1: not passed through"
}

# Everything that is read comes in, and pushes something out.
check_stays() {
  rm -rf "$cache"
  DISK_OPTIONS=(-o cache.admission=all)
  mount_cached
  # Into a cache that is full: the model is what came last, and would be what leaves first.
  read_others
  warm --pin "$mnt/model" || fail "warm --pin: $(<"$MOUNT_TMP/error")"
  grep -qE '^pinned +[0-9]+ +100\.0%' "$MOUNT_TMP/output" || fail "the report does not tell of pins: $(<"$MOUNT_TMP/output")"
  model_stays "at first"
  (($(pinned_bytes) >= model_total)) || fail "the status says $(pinned_bytes) bytes are pinned"
  warm --pin "$mnt/model" || fail "a second pin is no error: $(<"$MOUNT_TMP/error")"
  read_others
  read_others
  model_stays "after three times the cache was read, twice"
  local evicted
  evicted=$(status "disk['evicted_bytes']")
  ((evicted > 64 * 1048576)) || fail "only $evicted bytes were evicted: nothing was tested"
  compare "${MODEL[@]}"
  # Neither a command nor a mistake drops it.
  warm_fails "model/weights: it is pinned; .*--unpin" --evict "$mnt/model"
  model_stays "after --evict was refused"

  kill -KILL "$DAEMON_PID"
  wait_gone 10 "$DAEMON_PID"
  umount -l "$mnt"
  mount_cached
  on_disk_is "$model_total" "${MODEL[@]}" || fail "after kill -9 $(on_disk "${MODEL[@]}") bytes are on disk"
  (($(pinned_bytes) >= model_total)) || fail "after kill -9 the status says $(pinned_bytes) bytes are pinned"
  warm "$mnt/model" || fail "$(<"$MOUNT_TMP/error")"
  read_others
  model_stays "after kill -9"
  compare "${MODEL[@]}"
}

check_leaves() {
  warm --unpin "$mnt/model" || fail "warm --unpin: $(<"$MOUNT_TMP/error")"
  [[ $(pinned_bytes) == 0 ]] || fail "nothing is pinned, the status says $(pinned_bytes)"
  ! is_pinned model/weights || fail "it is still pinned"
  warm --unpin "$mnt/model" || fail "what is not pinned is no error: $(<"$MOUNT_TMP/error")"
  read_others
  read_others
  (($(on_disk model/weights) < model_bytes)) || fail "unpinned, it is still whole after three times the cache was read, twice"
  # Both at once.
  warm --pin "$mnt/model" || fail "warm --pin: $(<"$MOUNT_TMP/error")"
  warm --evict --unpin "$mnt/model" || fail "warm --evict --unpin: $(<"$MOUNT_TMP/error")"
  on_disk_is 0 "${MODEL[@]}" || fail "$(on_disk "${MODEL[@]}") bytes are on disk after --evict --unpin"
  stop_mount "$mnt"
}

# A cyclic scan of more than the cache is seen, and nothing leaves for what is new: but for what is pinned.
check_scan() {
  rm -rf "$cache"
  DISK_OPTIONS=(-o fuse.passthrough=off)
  mount_cached
  local pass
  for pass in 1 2 3 4 5 6 7 8; do
    [[ $(status "disk['scan_frozen']") != True ]] || break
    read_others
  done
  [[ $(status "disk['scan_frozen']") == True ]] || not_tested "pins during a cyclic scan" "none was seen in $pass passes"
  warm --pin "$mnt/model" || fail "warm --pin during a scan: $(<"$MOUNT_TMP/error")"
  model_stays "pinned during a scan"
  stop_mount "$mnt"
}

# Fourteen times 14 MiB are more than may be pinned of 64 MiB: those that fit are, the others are refused one by one.
check_bound() {
  rm -rf "$cache"
  DISK_OPTIONS=()
  mount_cached
  local most pinned
  warm_fails "other-[0-9]+: it is not pinned: of disk $cache at most .* may be pinned, .* are, and this would add" --pin "$mnt"
  most=$(status "disk['pinned_max']")
  pinned=$(pinned_bytes)
  say "$pinned bytes of at most $most are pinned"
  ((pinned > 0 && pinned <= most)) || fail "$pinned bytes are pinned, $most may be"
  ((most < 64 * 1048576 * 4 / 5)) || fail "$most bytes may be pinned of 64 MiB"
  [[ $(wc -l <"$MOUNT_TMP/error") -lt 16 ]] || fail "all were refused: $(<"$MOUNT_TMP/error")"
  # Who was refused is read all the same, and what is pinned stays.
  compare "${FILES[@]}"
  [[ $(pinned_bytes) == "$pinned" ]] || fail "$(pinned_bytes) bytes are pinned now"
  (($(status "disk['used']") <= 64 * 1048576)) || fail "the cache takes $(status "disk['used']") bytes"
  # A version that the origin has replaced stays pinned, under no name: --unpin does not find it, --unpin-all does.
  warm --unpin "$mnt/model" "${FILES[@]/#/$mnt/}" || fail "$(<"$MOUNT_TMP/error")"
  warm --pin "$mnt/other-3" || fail "$(<"$MOUNT_TMP/error")"
  cp --preserve=timestamps "$source_dir/other-3" "$source_dir/new"
  mv "$source_dir/new" "$source_dir/other-3"
  wait_for 20 "the new version is seen" is_replaced other-3
  warm --unpin "$mnt/other-3" || fail "$(<"$MOUNT_TMP/error")"
  (($(pinned_bytes) > 0)) || fail "the old version is no longer pinned"
  warm --unpin-all "$mnt" || fail "$(<"$MOUNT_TMP/error")"
  grep -q '^1 objects unpinned' "$MOUNT_TMP/output" || fail "--unpin-all says: $(<"$MOUNT_TMP/output")"
  [[ $(pinned_bytes) == 0 ]] || fail "$(pinned_bytes) bytes are pinned after --unpin-all"
}
is_replaced() { ! is_pinned "$1"; }

# Who changes his mind: what has not come to the disk whole gives back its room; what was pinned before stays.
check_interrupted() {
  local warm got=0
  rm -rf "$cache"
  DISK_OPTIONS=(-o origin.bandwidth=4MiB -o prefetch.enabled=false)
  mount_cached
  warm --pin "$mnt/model/config" || fail "$(<"$MOUNT_TMP/error")"
  "$BLOBCACHE" warm --pin --jobs=1 "$mnt/model/config" "$mnt/model/weights" "$mnt/other-3" >"$MOUNT_TMP/output" 2>"$MOUNT_TMP/error" &
  warm=$!
  wait_for 20 "a part of the weights on disk" some_on_disk model/weights
  (($(pinned_bytes) >= model_bytes)) || fail "nothing is pinned yet: $(pinned_bytes)"
  kill -TERM "$warm"
  wait "$warm" || got=$?
  [[ $got == 1 ]] || fail "interrupted, it ended with $got"
  grep -q '^blobcache: interrupted: ' "$MOUNT_TMP/error" || fail "interrupted, it says: $(<"$MOUNT_TMP/error")"
  (($(on_disk model/weights) < model_bytes)) || fail "all of it had come: nothing was tested"
  ! is_pinned model/weights || fail "the half of a file is pinned"
  ! is_pinned other-3 || fail "a file that was not begun is pinned"
  is_pinned model/config || fail "what was pinned before is not pinned any more"
  (($(pinned_bytes) < model_bytes)) || fail "$(pinned_bytes) bytes are pinned"
  stop_mount "$mnt"
}
some_on_disk() { (($(on_disk "$1") > 0)); }

# Blobs stay by themselves: to give the node a disk cache would change nothing.
check_blobs() {
  local node=(--node="$mnt")
  start_mount blobs: "$mnt" --cache-dir="$cache" --cache-size=1GiB -o cache.blobs_reserved=64MiB
  "$BLOBCACHE" put "${node[@]}" "$source_dir/model/config" >"$MOUNT_TMP/id" || fail "put"
  local blob
  blob=$(find "$mnt" -name "$(<"$MOUNT_TMP/id")")
  [[ -n $blob ]] || fail "the blob is not in the mount"
  warm_fails "it is not pinned: blobs are never evicted; .blobcache put --pin. keeps one" --pin "$blob"
  ! grep -q 'no disk cache' "$MOUNT_TMP/error" || fail "a wrong cause: $(<"$MOUNT_TMP/error")"
  stop_mount "$mnt"
}

# ask LINE: what the daemon answers on its control socket.
ask() {
  "$PYTHON" - "$mnt" "$1" <<'PYTHON'
import glob, os, re, socket, sys
mount, line = sys.argv[1:]
name = re.sub(r"[^A-Za-z0-9:_./]", lambda found: f"\\x{ord(found.group()):02x}", mount).strip("/").replace("/", "-")
paths = [f"/run/blobcache/{name}.sock"] if len(name) <= 64 else glob.glob(f"/run/blobcache/{glob.escape(name[:47])}-*.sock")
for path in paths:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(20)
        link.connect(path)
        link.sendall(line.encode() + b"\n")
        print(b"".join(iter(lambda: link.recv(65536), b"")).decode(), end="")
PYTHON
}
answers() { # PATTERN LINE
  local got
  got=$(ask "$2")
  [[ $got =~ $1 ]] || fail "'$2' is answered with '$got'"
}

check_hostile() {
  local id nobody=0000000000000000
  id=$("$PYTHON" -c 'import os, sys; print(os.getxattr(sys.argv[1], "user.blobcache.id").decode())' "$mnt/model/weights")
  answers '^error: ' pin
  answers '^error: ' "pin $id"
  answers '^error: ' "pin $id many"
  answers '^error: ' "pin ../../$id 5"
  answers '^error: ' "pin $id -1"
  answers '^error: ' "pin $id 0"
  answers '^error: ' "pin $id 18446744073709551615"
  answers '^error: of disk ' "pin 123456789012345678901234567890ab 1000000000000"
  answers '^error: ' "unpin"
  answers '^error: ' "unpin $nobody$nobody"
  answers '^error: ' "unpin-all $id"
  answers '^ok 0' "unpin 123456789012345678901234567890ab"
  [[ $(pinned_bytes) == 0 ]] || fail "$(pinned_bytes) bytes are pinned by lines that were refused"
  warm "$mnt/model" || fail "$(<"$MOUNT_TMP/error")"
  answers '^error: the cache knows no such object' "pin $id 17"
  # An object that nobody has ever read may be pinned; and be forgotten again.
  answers '^ok' "pin 123456789012345678901234567890ab 5000000"
  answers '^already' "pin 123456789012345678901234567890ab 5000000"
  answers '^ok 1' "unpin 123456789012345678901234567890ab"
  # Who may read may not pin: the daemon is its owner's.
  local got=0
  setpriv --reuid=65534 --regid=65534 --clear-groups timeout 60 "$BLOBCACHE" warm --pin "$mnt/model" \
    >"$MOUNT_TMP/output" 2>"$MOUNT_TMP/error" || got=$?
  [[ $got != 0 ]] || fail "another user pinned it"
  [[ $(pinned_bytes) == 0 ]] || fail "another user pinned $(pinned_bytes) bytes"
  expect_status 2 "$BLOBCACHE" warm --pin --evict "$mnt"
  expect_status 2 "$BLOBCACHE" warm --pin --check "$mnt"
  expect_status 2 "$BLOBCACHE" warm --pin --unpin "$mnt"
  expect_status 2 "$BLOBCACHE" warm --unpin --unpin-all "$mnt"
  warm_fails "it is not on a blobcache mount" --unpin-all "$source_dir"
  warm_fails "it is not on a blobcache mount" --pin "$source_dir/model"
  stop_mount "$mnt"
  # No disk, no pins.
  start_mount "$source_dir" "$mnt"
  warm_fails "model/weights: it is not pinned: there is no disk cache" --pin "$mnt/model"
  warm --unpin "$mnt/model" || fail "$(<"$MOUNT_TMP/error")"
  stop_mount "$mnt"
}

check() {
  check_stays
  check_leaves
  check_scan
  check_bound
  check_hostile
  check_interrupted
  check_blobs
}
with_each_transport check
