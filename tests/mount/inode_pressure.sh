#!/usr/bin/env bash
# A tree of three times as many names as the daemon may hold nodes: listings, a manifest with every attribute and byte, and
# readers side by side succeed on both transports, with the kernel's prune notification and with the older one. Files that
# are open all the while stay readable, a working directory keeps its name, and status never counts more nodes than there
# may be.
TEST_DEADLINE_S=560
source "$(dirname -- "$0")/lib.sh"

MOUNT_MEMORY=64MiB
source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt

# Some large directories and many small ones, so that directories have to go too.
"$PYTHON" - "$source_dir" <<'PYTHON'
import os, sys
root = sys.argv[1]
def fill(path, files):
    os.makedirs(path)
    for number in range(files):
        with open(f"{path}/file-{number}", "w") as file:
            file.write(f"{path} {number}\n" * (number % 50))
for number in range(3):
    fill(f"{root}/large-{number}", 7000)
for number in range(50):
    for below in range(50):
        fill(f"{root}/small-{number}/{below}", 6)
fill(f"{root}/held/deep/working", 0)
fill(f"{root}/held/open", 12)
PYTHON
names=$(find "$source_dir" | wc -l)
"$PYTHON" "$MOUNT_TESTS/tree_manifest.py" "$source_dir" >"$MOUNT_TMP/wanted"
wait_for 10 "files old enough to be kept" is_settled "$source_dir/held/open/file-11"

# Samples the daemon's status until the file STOP exists; prints the most nodes seen, nodes_max, and errors.
cat >"$MOUNT_TMP/watch.py" <<'PYTHON'
import glob, json, os, select, socket, sys
mountpoint, stop = sys.argv[1:]
def volume_at(path):
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(20)
        try:
            caller.connect(path)
            caller.sendall(b"status\n")
            text = b"".join(iter(lambda: caller.recv(65536), b""))
            return next((one for one in json.loads(text)["volumes"] if one["mountpoint"] == mountpoint), None)
        except (OSError, ValueError, KeyError):
            return None
paths = [path for path in glob.glob("/run/blobcache/*.sock") if volume_at(path)]
if len(paths) != 1:
    sys.exit(f"{len(paths)} daemons say that they serve {mountpoint}")
most = 0
while True:
    ended = os.path.exists(stop)
    volume = volume_at(paths[0])
    if volume is None:
        sys.exit("the daemon does not answer")
    most = max(most, volume["nodes"])
    if ended:
        break
    select.select([], [], [], 0.02)
print(most, volume["nodes_max"], volume["errors"])
PYTHON

# Opens files and a working directory, says so on stdout, and looks whether they are what they were when its stdin ends.
cat >"$MOUNT_TMP/hold.py" <<'PYTHON'
import os, sys
source, mount = sys.argv[1:]
working = f"{mount}/held/deep/working"
names = [f"held/open/file-{number}" for number in range(1, 12)]
files = [open(f"{mount}/{name}", "rb", buffering=0) for name in names]
os.chdir(working)
print("held", flush=True)
sys.stdin.read()
for name, file in zip(names, files):
    if file.read() != open(f"{source}/{name}", "rb").read():
        sys.exit(f"{name} has other bytes")
    if os.fstat(file.fileno()).st_ino != os.stat(f"{mount}/{name}").st_ino:
        sys.exit(f"{name} is another file than the one opened")
    if os.readlink(f"/proc/self/fd/{file.fileno()}") != f"{mount}/{name}":
        sys.exit(f"{name} lost its name while it was open")
if os.environ["KEEPS_DIRECTORIES"] == "1" and os.getcwd() != working:
    sys.exit(f"the working directory is {os.getcwd()}")
os.stat(working)
PYTHON

check() {
  local counts most limit errors walker walkers=()
  start_mount "$source_dir" "$mnt"
  coproc HOLD { "$PYTHON" "$MOUNT_TMP/hold.py" "$source_dir" "$mnt"; }
  local hold=$HOLD_PID line=
  read -r line <&"${HOLD[0]}" || true
  [[ $line == held ]] || fail "the files to hold could not be opened"
  rm -f "$MOUNT_TMP/stop"
  "$PYTHON" "$MOUNT_TMP/watch.py" "$mnt" "$MOUNT_TMP/stop" >"$MOUNT_TMP/counts" &
  local watcher=$!

  [[ $(find "$mnt" -ls | wc -l) == "$names" ]] || fail "find -ls misses names"
  expect_manifest "$MOUNT_TMP/wanted" "$mnt"
  # An entry is invalidated under its directory's lock, which look-ups hold: without PRUNE the table can be full for a
  # second when several walk directories that are larger than it, and they get ENFILE (docs/KERNEL.md).
  for walker in $BESIDE; do
    diff -r "$source_dir/large-$walker" "$mnt/large-$walker" &
    walkers+=($!)
  done
  [[ $(find "$mnt" -ls | wc -l) == "$names" ]] || fail "find -ls misses names beside readers"
  for walker in "${walkers[@]}"; do
    wait "$walker" || fail "diff -r beside other walkers"
  done

  : >"$MOUNT_TMP/stop"
  wait "$watcher" || fail "status could not be read"
  local keep=${HOLD[1]}
  exec {keep}>&-
  wait "$hold" || fail "what was held open is not what it was"
  read -r most limit errors <"$MOUNT_TMP/counts"
  say "$names names, at most $most of $limit nodes"
  ((names > 3 * limit)) || fail "the tree is too small to tell anything"
  ((most > limit / 2)) || fail "status counts too few nodes: $most"
  ((most < limit)) || fail "the table of nodes was full"
  ((errors == 0)) || fail "the daemon counted $errors errors"
  stop_mount "$mnt"
}

check_both() {
  local KEEPS_DIRECTORIES=1 BESIDE='0 1 2'
  export KEEPS_DIRECTORIES
  check
  say "-- without FUSE_NOTIFY_PRUNE"
  KEEPS_DIRECTORIES=0 BESIDE=''
  BLOBCACHE_PRETEND_ABSENT=notify_prune check
}
with_each_transport check_both
