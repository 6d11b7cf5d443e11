#!/usr/bin/env bash
# A file that lies in the cache is opened without opening the origin's file: the origin is asked for its version only. When
# its bytes leave the cache while it is open, the origin's file is opened then; if that is another version by now, the
# reader gets ESTALE and never the other one's bytes.
TEST_DEADLINE_S=160
source "$(dirname -- "$0")/disk_lib.sh"

"$MOUNT_PROBE" write "$source_dir.small" 50001 1 1
"$MOUNT_PROBE" write "$source_dir.large" $((9 * 1048576 + 17)) 1 2

# origin_is_open FILE: by the daemon.
origin_is_open() {
  local link
  for link in "/proc/$DAEMON_PID/fd"/*; do
    [[ $(readlink "$link") == "$source_dir/$1" ]] && return 0
  done
  return 1
}

read_held() { # what a read through descriptor 5 ends in: same, an errno, or "wrong"
  "$PYTHON" - "$source_dir.$1" 3<&5 <<'PYTHON'
import errno, os, sys
wanted = open(sys.argv[1], "rb").read()
try:
    got = b""
    while len(got) < len(wanted):
        piece = os.pread(3, 1 << 20, len(got))
        if not piece:
            break
        got += piece
    print("same" if got == wanted else "wrong")
except OSError as error:
    print(errno.errorcode[error.errno])
PYTHON
}

check_file() {
  local name=$1
  rm -rf -- "$cache" "$source_dir"
  mkdir -p "$source_dir"
  cp "$source_dir.$name" "$source_dir/$name"
  settle "$source_dir/$name"
  mount_cached -o fuse.passthrough=off
  fill_cache "$name"
  stop_mount "$mnt"

  # On a fresh mount nothing of it is in memory or in the page cache.
  mount_cached -o fuse.passthrough=off
  exec 5<"$mnt/$name"
  ! origin_is_open "$name" || fail "$name: the origin's file was opened, though all of it is on disk"
  [[ $(read_held "$name") == same ]] || fail "$name: wrong bytes from the disk"
  [[ $(served origin) == 0 ]] || fail "$name: it was read from the origin"
  ! origin_is_open "$name" || fail "$name: the origin's file was opened for a read from disk"
  exec 5<&-

  # It leaves the cache under its reader.
  drop_mount_cache "$name"
  exec 5<"$mnt/$name"
  expect_status 0 "$BLOBCACHE" warm --evict "$mnt/$name"
  [[ $(read_held "$name") == same ]] || fail "$name: wrong bytes from the origin, opened late"
  (($(served origin) > 0)) || fail "$name: it was not read from the origin"
  origin_is_open "$name" || fail "$name: the file was not kept open for the reads that follow"
  exec 5<&-
  wait_for 10 "the origin's file is closed" eval '! origin_is_open '"$name"

  # The same, and the origin's file is another one by now.
  fill_cache "$name"
  drop_mount_cache "$name"
  exec 5<"$mnt/$name"
  expect_status 0 "$BLOBCACHE" warm --evict "$mnt/$name"
  "$MOUNT_PROBE" write "$source_dir/new" "$(stat -c %s "$source_dir.$name")" 2 3
  mv "$source_dir/new" "$source_dir/$name"
  [[ $(read_held "$name") == ESTALE ]] || fail "$name: bytes that are gone"
  ! origin_is_open "$name" || fail "$name: another version is held open"
  exec 5<&-
  stop_mount "$mnt"
}

check() {
  check_file small
  check_file large
}
with_each_transport check
