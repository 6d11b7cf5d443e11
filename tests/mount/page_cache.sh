#!/usr/bin/env bash
# The page cache is kept across opens: what one open has read, the next one finds in the kernel. Proved by a daemon that
# is stopped after the second open: whoever reads then gets every byte without it. The pages are locked in memory between
# the two opens, since the kernel may take others back whenever something else of the machine needs room.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir"
head -c 20000123 /dev/urandom >"$source_dir/file"
wait_for 5 "the file is old enough to be kept" is_settled "$source_dir/file"

check() {
  # Long timeouts, so that a slow machine does not ask for attributes in between.
  start_mount "$source_dir" "$mnt" -o fuse.entry_timeout=60s -o fuse.attr_timeout=60s
  "$PYTHON" - "$source_dir/file" "$mnt/file" "$DAEMON_PID" <<'PYTHON'
import ctypes, os, select, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
PAGE, PROT_READ, MAP_SHARED = os.sysconf("SC_PAGE_SIZE"), 1, 1
wanted = open(sys.argv[1], "rb").read()
daemon = int(sys.argv[3])
pages = -(-len(wanted) // PAGE)

def must(what, good):
    if not good:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")

def resident(mapping):
    here = (ctypes.c_ubyte * pages)()
    must("mincore", libc.mincore(ctypes.c_void_p(mapping), ctypes.c_size_t(len(wanted)), here) == 0)
    return sum(page & 1 for page in here)

with open(sys.argv[2], "rb") as first:
    mapping = libc.mmap(None, ctypes.c_size_t(len(wanted)), PROT_READ, MAP_SHARED, first.fileno(), ctypes.c_long(0))
    must("mmap", mapping != ctypes.c_void_p(-1).value)
    must("mlock", libc.mlock(ctypes.c_void_p(mapping), ctypes.c_size_t(len(wanted))) == 0)
    assert first.read() == wanted, "wrong bytes through the first open"
before = resident(mapping)
assert before == pages, f"{before} of {pages} pages are in memory after the first open"

file = os.open(sys.argv[2], os.O_RDONLY)
kept = resident(mapping)
assert kept == pages, f"the second open kept {kept} of {pages} pages"
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
    in_time = select.select([verdicts], [], [], 60)[0]
    waits = "" if in_time else open(f"/proc/{child}/wchan").read()
    left = resident(mapping)
finally:
    os.kill(daemon, signal.SIGCONT)
verdict = os.read(verdicts, 100)
os.waitpid(child, 0)
assert verdict == b"same", verdict
assert in_time, f"a second open read through the daemon again: it waited in {waits}, {left} of {pages} pages in memory"
PYTHON
  stop_mount "$mnt"
}
with_each_transport check
