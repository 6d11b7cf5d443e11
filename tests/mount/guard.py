"""Runs one mount test under a hard deadline and leaves nothing behind, whatever happens to the test.

usage: guard.py DEADLINE_S SCRIPT [ARGUMENT...] | --self-test

A test that mounts can end in ways its own trap never sees: killed, or stuck behind a request that nobody answers. So
the script runs as a child in a session of its own, and two processes look after it: this one, and a cleaner that does
the same work should this one be killed. Both know a process of the test by MOUNT_TMP in its environment or by its session
(sessions.py), and a mount of the test by its place below that folder, and touch nothing else. Settings of the machine that a test changes are
written to MOUNT_TMP/restore first (one "PATH<tab>OLD VALUE" a line), and put back here.

A test that passes but leaves a process or a mount behind has failed: the daemon should be gone by then. What the test has
told to end (a server, from its trap) may take DYING_WAIT_S for it.
"""
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "harness"))
import sessions  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)
MNT_FORCE = 1
MNT_DETACH = 2
EXIT_DEADLINE = 124
END_WAIT_S = 10
DYING_WAIT_S = 5


def own_processes(folder):
    """Pids of the test: those that were started with MOUNT_TMP=folder, and those of its session."""
    mark = b"MOUNT_TMP=" + os.fsencode(folder) + b"\0"
    found = sessions.members(folder)
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid() or int(name) in found:
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as environ:
                if mark in environ.read() + b"\0":
                    found.append(int(name))
        except OSError:
            continue  # it ended meanwhile, or is a zombie, or is not ours to look into
    return found


def own_mounts(folder):
    """Mount points below folder, the one mounted last first."""
    prefix = os.fsencode(folder) + b"/"
    found = []
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            path = line.split(b" ")[4]
            for code in (b" ", b"\t", b"\n", b"\\"):
                path = path.replace(b"\\%03o" % ord(code), code)
            if path.startswith(prefix):
                found.append(path)
    return found[::-1]


def describe(pid):
    def read(name):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return "?"
    state = [line for line in read("status").splitlines() if line.startswith("State:")]
    return f"  pid {pid}: {read('cmdline')[:300]} {state} wchan={read('wchan')} stack={read('stack').split()[1::2][:6]}"


def wait_gone(pids, seconds):
    deadline = time.monotonic() + seconds
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
        os.close(pidfd)


def clean(folder):
    """Ends the test's processes and mounts, restores its settings, removes its folder; says what it had to end."""
    left = [describe(pid) for pid in own_processes(folder)]
    left += [f"  mount {os.fsdecode(path)}" for path in own_mounts(folder)]
    deadline = time.monotonic() + END_WAIT_S
    while time.monotonic() < deadline:
        pids = own_processes(folder)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        for path in own_mounts(folder):
            # By force first: that ends the requests that readers still wait for, and they can die.
            if LIBC.umount2(path, MNT_FORCE) != 0:
                LIBC.umount2(path, MNT_DETACH)
        wait_gone(pids, 1)
        if not own_processes(folder) and not own_mounts(folder):
            break
    restore = os.path.join(folder, "restore")
    if os.path.exists(restore):
        with open(restore, encoding="ascii") as lines:
            for path, value in reversed([line.rstrip("\n").split("\t") for line in lines]):
                with open(path, "w", encoding="ascii") as setting:
                    setting.write(value)
    if not own_mounts(folder):
        shutil.rmtree(folder, ignore_errors=True)
    return left


def start_cleaner(folder):
    """A process that waits for this one to end and cleans if this one could not."""
    guard = os.pidfd_open(os.getpid())
    if os.fork() != 0:
        os.close(guard)
        return
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    select.select([guard], [], [])
    if os.path.isdir(folder):
        clean(folder)
    os._exit(0)


def run(command, folder, seconds):
    environ = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C", "TZ": "UTC", "HOME": folder + "/home",
        "XDG_RUNTIME_DIR": folder + "/home/run", "XDG_CACHE_HOME": folder + "/home/cache",
        "MOUNT_TMP": folder, "PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1",
    }
    for name in ("BLOBCACHE", "MOUNT_PROBE", "MOUNT_MEMORY", "MOUNT_TRANSPORTS", "MOUNT_TIME_FACTOR", "ARTEFACTS", "CXX",
                 "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS"):
        if name in os.environ:
            environ[name] = os.environ[name]
    os.makedirs(environ["XDG_RUNTIME_DIR"], 0o700)
    child = subprocess.Popen(["bash", *command], env=environ, start_new_session=True, stdin=subprocess.DEVNULL)
    sessions.write(folder, child.pid)
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"FAIL: not done after {seconds} s; these were running:", file=sys.stderr)
        for pid in own_processes(folder):
            print(describe(pid), file=sys.stderr)
        return EXIT_DEADLINE


def self_test():
    """What a test leaves without its mark is seen and ended; a test passes that leaves nothing, or what ends after it."""
    with tempfile.TemporaryDirectory() as folder:
        script, told = os.path.join(folder, "script"), os.path.join(folder, "pid")
        for left, wanted in (("", 0), ("timeout 1 tail -f /dev/null &", 0), (f"env -i tail -f /dev/null & echo $! >{told}", 1)):
            with open(script, "w", encoding="ascii") as file:
                file.write(left + "\nexit 0\n")
            done = subprocess.run([sys.executable, __file__, "60", script], stderr=subprocess.PIPE, text=True, check=False)
            assert done.returncode == wanted, done
            assert ("left behind" in done.stderr) == (wanted == 1), done
        with open(told, encoding="ascii") as file:
            fields = sessions.stat_fields(int(file.read()))
        assert not fields or fields[0] == "Z", fields
    print("self-test passed")


def main():
    seconds, command = float(sys.argv[1]) * float(os.environ.get("MOUNT_TIME_FACTOR", "1")), sys.argv[2:]
    folder = os.path.realpath(tempfile.mkdtemp(prefix="blobcache-mount-"))
    os.chmod(folder, 0o755)
    start_cleaner(folder)

    def on_signal(number, _frame):
        clean(folder)
        os._exit(128 + number)

    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, on_signal)
    status = run(command, folder, seconds)
    if status == 0:
        wait_gone(own_processes(folder), DYING_WAIT_S)
    left = clean(folder)
    if status == 0 and left:
        print("FAIL: the test passed but left behind:", *left, sep="\n", file=sys.stderr)
        status = 1
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    self_test() if sys.argv[1:] == ["--self-test"] else main()
