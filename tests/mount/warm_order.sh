#!/usr/bin/env bash
# warm --order goes ahead of the readers of a list, as far as it may and no further, and follows them as they open one file
# after the other; what it opens itself does not draw it on.
source "$(dirname -- "$0")/lib.sh"

MIB=1048576
source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir"
for number in $(seq -w 40); do head -c $MIB /dev/urandom >"$source_dir/$number"; done
find "$source_dir" -type f -exec touch -d '2020-01-01 00:00:00' {} +
wait_for 5 "the files are old enough to be kept" is_settled "$source_dir/40"
# The order is not that of the names.
ls "$source_dir" | sort -r | sed "s|^|$mnt/|" >"$MOUNT_TMP/order"
mapfile -t order <"$MOUNT_TMP/order"

in_memory() {
  "$PYTHON" - "${order[@]}" <<'PYTHON'
import json, os, sys
print("".join("1" if json.loads(os.getxattr(path, "user.blobcache.tiers"))["memory"] else "0" for path in sys.argv[1:]))
PYTHON
}
# The first so many of the list, and no other.
warm_are() { [[ $(in_memory) == "$(printf '%*s' "$1" '' | tr ' ' 1)$(printf '%*s' $((40 - $1)) '' | tr ' ' 0)" ]]; }

check() {
  start_mount "$source_dir" "$mnt"
  "$BLOBCACHE" warm --json --order="$MOUNT_TMP/order" --ahead=8MiB --jobs=2 >"$MOUNT_TMP/report" &
  local follower=$!
  wait_for 10 "8 MiB are warm before anybody reads" warm_are 8
  head -c 1 "${order[0]}" >"$MOUNT_TMP/byte"
  wait_for 10 "one file further" warm_are 9
  # Readers overtake each other: what counts is the furthest.
  head -c 1 "${order[11]}" >"$MOUNT_TMP/byte"
  wait_for 10 "8 MiB beyond the twelfth" warm_are 20
  head -c 1 "${order[3]}" >"$MOUNT_TMP/byte"
  cmp "$source_dir/$(basename "${order[14]}")" "${order[14]}" || fail "wrong bytes"
  wait_for 10 "8 MiB beyond the fifteenth" warm_are 23
  ! is_gone "$follower" || fail "it ended before its readers"
  cat "${order[@]}" | cmp - <(cat "${order[@]/#$mnt/$source_dir}") || fail "wrong bytes"
  wait_gone 10 "$follower"
  grep -q "\"read_bytes\":$((40 * MIB))," "$MOUNT_TMP/report" || fail "not all was read: $(<"$MOUNT_TMP/report")"
  stop_mount "$mnt"
}
with_each_mode check

start_mount "$source_dir" "$mnt"
expect_status 2 "$BLOBCACHE" warm --order="$MOUNT_TMP/order" "$mnt"
expect_status 2 "$BLOBCACHE" warm --ahead=1GiB "$mnt"
expect_status 2 "$BLOBCACHE" warm --order="$MOUNT_TMP/order" --ahead=0
expect_status 1 "$BLOBCACHE" warm --order="$MOUNT_TMP/missing"
stop_mount "$mnt"
