# shellcheck shell=bash
# What the tests of the disk tier share: a set of files of every kind, a cache directory, what the daemon says of both.
#
# Bytes are counted where the daemon answers the kernel, so a pass over files that the page cache does not have says from
# which tier each byte came. Passthrough reads are invisible to the daemon: tests that count switch it off.
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
cache=$MOUNT_TMP/cache
CACHE_SIZE=4GiB # of mount_cached
DISK_OPTIONS=() # more arguments of it
# What readers may see when their daemon is killed.
DEAD_DAEMON_ERRORS=EIO,ENOTCONN,ECONNABORTED,ECANCELED,ENOENT,EINTR,ENODEV,ESTALE

# make_files FOLDER BIG_MIB SMALL_COUNT: two thirds of the large ones with a tail that is no page; small ones, which
# the cache packs, of every size up to a chunk. Files carry their position as tag: FILES is in the order of tags.
make_files() {
  local folder=$1 big_mib=$2 small_count=$3 tag=0 number
  FILES=()
  mkdir -p "$folder"
  for number in 1 2 3; do
    tag=$((tag + 1))
    "$MOUNT_PROBE" write "$folder/big-$number" $((big_mib * 1048576 + (number - 1) * 69637)) 1 "$tag"
    FILES+=("big-$number")
  done
  for number in $(seq "$small_count"); do
    tag=$((tag + 1))
    "$MOUNT_PROBE" write "$folder/small-$number" $((number * number * 4000000 / (small_count * small_count) + 1)) 1 "$tag"
    FILES+=("small-$number")
  done
}

# settle FILE: the last file that was made; what changed within the last second is not cached.
settle() { wait_for 5 "$1 is old enough to be kept" is_settled "$1"; }

mount_cached() {
  MOUNT_ARGUMENTS=("$@")
  start_mount "$source_dir" "$mnt" --cache-dir="$cache" --cache-size="$CACHE_SIZE" "${DISK_OPTIONS[@]}" "$@"
}

# status EXPRESSION: of `node` (the daemon's status), `volume` (its only one), `disk` (its only one), in Python. The
# socket's name is that of the mount point as systemd escapes paths; a long one is cut and ends in a hash.
status() {
  "$PYTHON" - "$mnt" "$1" <<'PYTHON'
import glob, json, re, socket, sys
mount, expression = sys.argv[1:]
name = re.sub(r"[^A-Za-z0-9:_./]", lambda found: f"\\x{ord(found.group()):02x}", mount).strip("/").replace("/", "-")
paths = [f"/run/blobcache/{name}.sock"]
if len(name) > 64:
    paths = glob.glob(f"/run/blobcache/{glob.escape(name[:47])}-*.sock")
for path in paths:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(20)
        link.connect(path)
        link.sendall(b"status\n")
        answer = b"".join(iter(lambda: link.recv(65536), b""))
    node = json.loads(answer)
    volume = node["volumes"][0]
    if volume["mountpoint"] != mount:
        continue
    disks = node["tiers"]["disk"]["disks"]
    disk = disks[0] if disks else None
    value = eval(expression)
    print(json.dumps(value) if isinstance(value, (dict, list)) else value)
    sys.exit(0)
sys.exit(f"no daemon of {mount} answers")
PYTHON
}

status_is() { [[ $(status "$1") == "$2" ]]; }
status_at_least() { (($(status "$1") >= $2)); }

# served TIER: bytes that the daemon answered from it so far, and those that it fetched from there ahead of its readers,
# which memory answers then.
served() { status "volume['bytes']['$1'] + volume['prefetch'].get('$1', 0)"; }

# on_disk FILE...: bytes of these files (below the mount) that are in the cache directory; verified_on_disk: and verified.
on_disk() { sum_tiers disk "$@"; }
verified_on_disk() { sum_tiers disk_verified "$@"; }
sum_tiers() {
  "$PYTHON" - "$mnt" "$@" <<'PYTHON'
import json, os, sys
mount, tier, names = sys.argv[1], sys.argv[2], sys.argv[3:]
print(sum(json.loads(os.getxattr(f"{mount}/{name}", "user.blobcache.tiers"))[tier] for name in names))
PYTHON
}
on_disk_is() { (($(on_disk "${@:2}") == $1)); }
verified_is() { (($(verified_on_disk "${@:2}") == $1)); }

# total_bytes FOLDER FILE...
total_bytes() {
  local folder=$1
  shift
  (cd "$folder" && stat -c %s -- "$@") | awk '{ sum += $1 } END { printf "%d\n", sum }'
}

# compare FILE...: every byte through the mount against the source.
compare() {
  local name
  for name in "$@"; do
    cmp -- "$source_dir/$name" "$mnt/$name" >&2 || fail "$name: wrong bytes or an error through the mount"
  done
}

# drop_mount_cache FILE...: the next read of these reaches the daemon.
drop_mount_cache() {
  "$PYTHON" - "$mnt" "$@" <<'PYTHON'
import os, sys
for name in sys.argv[2:]:
    fd = os.open(f"{sys.argv[1]}/{name}", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
PYTHON
}

# fill_cache FILE...: until all of these files is on disk. Writes behind replies may be left out when there are too many
# at once, and are not made up for while the memory holds the bytes: what is missing is read again on a fresh mount.
fill_cache() {
  local try name
  FILES_TO_FILL=("$@")
  FILL_TOTAL=$(total_bytes "$source_dir" "$@")
  for try in 1 2 3 4 5 6; do
    compare "$@"
    ! becomes_full || return 0
    say "fill $try: $(on_disk "$@") of $FILL_TOTAL bytes are on disk: $(status disk)"
    stop_mount "$mnt"
    mount_cached "${MOUNT_ARGUMENTS[@]}"
  done
  for name in "$@"; do
    say "$name: $(getfattr --absolute-names --only-values -n user.blobcache.tiers "$mnt/$name") of $(stat -c %s "$source_dir/$name")"
  done
  fail "not all that was read $try times is on disk: $(status disk)"
}
# becomes_full: as long as more comes, and a second beyond.
becomes_full() {
  local now last=-1 deadline=0
  while :; do
    now=$(on_disk "${FILES_TO_FILL[@]}")
    ((now != FILL_TOTAL)) || return 0
    if ((now != last)); then
      last=$now
      deadline=$((SECONDS + 1 + MOUNT_TIME_FACTOR))
    fi
    ((SECONDS <= deadline)) || return 1
    pause_ms 20
  done
}

# start_hammer FILE_PREFIX OPTION...: readers of all FILES, of which each has verified something; HAMMER_PID.
# stop_hammer: ends them and fails the test if one saw a wrong byte or an error that it may not see.
start_hammer() {
  local prefix=$1
  shift
  rm -f "$MOUNT_TMP/hammer.input"
  mkfifo "$MOUNT_TMP/hammer.input"
  "$MOUNT_PROBE" hammer "$@" "${FILES[@]/#/$prefix}" <"$MOUNT_TMP/hammer.input" >"$MOUNT_TMP/hammer.events" &
  HAMMER_PID=$!
  exec {HAMMER_INPUT}>"$MOUNT_TMP/hammer.input"
  wait_for 60 "every reader verified a read" grep -qE '^(ready|wrong|error)' "$MOUNT_TMP/hammer.events"
}

hammer_is_right() {
  ! grep wrong "$MOUNT_TMP/hammer.events" >&2 || fail "a reader saw what it must not see"
  ! is_gone "$HAMMER_PID" || fail "the readers ended by themselves"
}

stop_hammer() {
  exec {HAMMER_INPUT}>&-
  wait "$HAMMER_PID" || fail "a reader saw what it must not see: $(grep wrong "$MOUNT_TMP/hammer.events")"
  grep summary "$MOUNT_TMP/hammer.events" >&2
}

# pause_ms NUMBER: for a random instant, where no event is the point.
pause_ms() { read -rt "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))" -u "$never_fd" || true; }

# make_fault_disk MIB TYPE [MOUNT_OPTION]: a file system of that size at $MOUNT_TMP/fs on a disk that fails on command
# (fault_disk.cc); `cache` is on it then. The loop device goes with its mount.
make_fault_disk() {
  local mib=$1 type=$2 mount_options=${3:-noatime} loop program=$MOUNT_TMP/fault_disk
  if [[ ! -x $program ]]; then
    # shellcheck disable=SC2046 # flags are words
    ${CXX:-g++} -std=c++20 -O1 -o "$program" "$MOUNT_TESTS/fault_disk.cc" $(pkg-config --cflags --libs fuse3)
  fi
  mkdir -p "$MOUNT_TMP/fault" "$MOUNT_TMP/fs"
  rm -f "$MOUNT_TMP/image" "$MOUNT_TMP/faults" "$MOUNT_TMP/faults.hits"
  : >"$MOUNT_TMP/faults"
  : >"$MOUNT_TMP/faults.hits"
  truncate -s "${mib}M" "$MOUNT_TMP/image"
  make_filesystem "$type" "$MOUNT_TMP/image"
  "$program" "$MOUNT_TMP/image" "$MOUNT_TMP/faults" "$MOUNT_TMP/fault" >"$MOUNT_TMP/fault_disk.log" 2>&1 &
  FAULT_PID=$!
  wait_for 10 "the disk that fails is there" test -e "$MOUNT_TMP/fault/disk"
  loop=$(losetup --find --show --direct-io=on "$MOUNT_TMP/fault/disk")
  FAULT_DEVICE=${loop#/dev/}
  mount -o "$mount_options" "$loop" "$MOUNT_TMP/fs"
  losetup --detach "$loop" # takes effect with the unmount
  cache=$MOUNT_TMP/fs/cache
}

make_filesystem() {
  case $1 in
    # No journal: one that met a failed write ends the file system, and no repair of the disk would bring it back.
    ext4) mkfs.ext4 -q -F -m0 -O ^has_journal "$2" ;;
    xfs) mkfs.xfs -q -f "$2" ;;
    *) fail "no file system of type $1" ;;
  esac
}

# faults WORD...: from the next request of the disk on; none: it is well again.
faults() { printf '%s ' "$@" >"$MOUNT_TMP/faults"; }
fault_hits() { stat -c %s "$MOUNT_TMP/faults.hits"; }
has_fault_hits() { (($(fault_hits) > ${1:-0})); }

remove_fault_disk() {
  faults
  # What the disk began before that takes as long as it was told then: 12 s, of a disk that hung.
  wait_for 30 "the file system can be unmounted" umount "$MOUNT_TMP/fs"
  wait_for 30 "the loop device lets go of its disk" umount "$MOUNT_TMP/fault"
  wait_gone 10 "$FAULT_PID"
}
