#!/usr/bin/env bash
# The page cache is kept across opens: what one open has read, the next one finds in the kernel. Proved by a daemon that
# is stopped after the second open: whoever reads then gets every byte without it.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir"
head -c 20000123 /dev/urandom >"$source_dir/file"
wait_for 5 "the file is old enough to be kept" is_settled "$source_dir/file"

check() {
  # Long timeouts, so that a slow machine does not ask for attributes in between.
  start_mount "$source_dir" "$mnt" -o fuse.entry_timeout=60s -o fuse.attr_timeout=60s
  cmp "$source_dir/file" "$mnt/file"
  "$PYTHON" - "$source_dir/file" "$mnt/file" "$DAEMON_PID" <<'PYTHON'
import os, select, signal, sys
wanted = open(sys.argv[1], "rb").read()
file, daemon = os.open(sys.argv[2], os.O_RDONLY), int(sys.argv[3])
os.kill(daemon, signal.SIGSTOP)
try:
    while open(f"/proc/{daemon}/stat").read().rsplit(")", 1)[1].split()[0] != "T":
        pass
    verdicts, says = os.pipe()
    # A child reads: should it have to ask the daemon, only the child hangs until the daemon goes on.
    child = os.fork()
    if child == 0:
        got = os.pread(file, len(wanted), 0)
        os.write(says, b"same" if got == wanted else b"wrong bytes")
        os._exit(0)
    in_time = select.select([verdicts], [], [], 10)[0]
finally:
    os.kill(daemon, signal.SIGCONT)
verdict = os.read(verdicts, 100)
os.waitpid(child, 0)
assert verdict == b"same", verdict
assert in_time, "a second open read through the daemon again"
PYTHON
  stop_mount "$mnt"
}
with_each_transport check
