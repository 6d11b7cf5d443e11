"""A place to measure in: a private mount namespace, a tmpfs, processes and mounts that are gone afterwards.

Everything is mounted in a mount namespace of the runner's own, and every process it starts dies with it
(PR_SET_PDEATHSIG): also after kill -9 nothing is left behind. An orderly end, Ctrl-C included, undoes each step.
The tmpfs covers a folder that every system has and nobody removes. A temporary folder in its stead would be visible to
others as an empty one, and whoever removes it detaches our mounts for good: the loop device holds the tmpfs that its own
file system is mounted on, and the kernel never frees either.
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
MIB = 1 << 20
TRACING = "/sys/kernel/tracing"
URING_SWITCH = "/sys/module/fuse/parameters/enable_uring"
PACKAGES = {"fio": "fio", "perf": "linux-perf", "gcc": "gcc", "meson": "meson", "ninja": "ninja-build",
            "pkg-config": "pkgconf", "mkfs.ext4": "e2fsprogs", "curl": "curl"}
PASSTHROUGH_SOURCE = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c"


class BenchError(Exception):
    """One sentence: what failed and what to do."""


def enter_private_namespace():
    """Runs this program again inside a mount namespace of its own; returns in the inner one."""
    if os.environ.get("BLOBCACHE_BENCH_NAMESPACE") == "private":
        forget_other_mounts()
        return
    if os.geteuid() != 0:
        raise BenchError("the benchmarks mount and trace: run them as root")
    os.environ["BLOBCACHE_BENCH_NAMESPACE"] = "private"
    os.execvp("unshare", ["unshare", "--mount", "--propagation=private", sys.executable, *sys.argv])


def forget_other_mounts():
    """A copy of a FUSE mount in this namespace would keep its daemon alive after it was unmounted outside."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        mounts = [line.split() for line in lines]
    for fields in mounts:
        if fields[fields.index("-") + 1].startswith("fuse"):
            path = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
            subprocess.run(["umount", "--lazy", path], check=False)


def install_tools():
    packages = [package for tool, package in PACKAGES.items() if not shutil.which(tool)]
    if not os.path.exists(PASSTHROUGH_SOURCE) and not os.path.exists(PASSTHROUGH_SOURCE + ".gz"):
        packages += ["libfuse3-dev", "fuse3"]
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise BenchError(f"install these first: {' '.join(packages)}")
    print(f"installing {' '.join(packages)}", file=sys.stderr)
    # Images for containers leave documentation out, and the baseline is an example in a doc folder.
    with_docs = ["-o", "DPkg::options::=--path-include=/usr/share/doc/*"]
    install = ["install", "-y", "-q", "--reinstall", "--no-install-recommends", *with_docs, *packages]
    for arguments in (["update", "-q"], install):
        subprocess.run(["apt-get", *arguments], check=True, stdout=subprocess.DEVNULL)


def run(command, **options):
    """Runs to the end; the failure's own words become the error."""
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=die_with_parent, **options)
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-800:]
        raise BenchError(f"`{' '.join(map(str, command))}` failed with {done.returncode}: {words}")
    return done.stdout


def mountpoints():
    with open("/proc/self/mountinfo") as mounts:
        return {line.split()[4]: line.split()[2] for line in mounts}


def connection_of(mountpoint):
    """The kernel's number of a FUSE connection: the minor device number of its mount."""
    return int(mountpoints()[mountpoint].split(":")[1])


def is_settled(path):
    """A file that changed within the last second is served and not kept."""
    return time.time() - os.stat(path).st_ctime > 1.5


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class MemoryWatch:
    """Samples what daemons of ours hold, all the time: resident memory and huge pages, which the kernel counts apart (P16)."""

    INTERVAL_S = 0.02

    def __init__(self):
        self.watched = {}  # pid -> limit
        self.most = 0.0    # the largest share of its limit that a daemon held
        self.samples = 0
        self.words = ""
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def add(self, pid, limit):
        units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
        self.watched[pid] = int(limit[:-3]) * units[limit[-3:]]

    def _watch(self):
        while not self.ending.wait(self.INTERVAL_S):
            for pid, limit in list(self.watched.items()):
                try:
                    with open(f"/proc/{pid}/status") as status:
                        fields = dict(line.split(":", 1) for line in status)
                except OSError:
                    self.watched.pop(pid, None)
                    continue
                if "VmRSS" not in fields:
                    continue  # it is ending
                held = sum(int(fields[name].split()[0]) for name in ("VmRSS", "HugetlbPages")) * 1024
                self.samples += 1
                if held / limit > self.most:
                    self.most = held / limit
                    self.words = f"{held / MIB:.0f} of {limit / MIB:.0f} MiB"

    def stop(self):
        self.ending.set()
        self.thread.join()


class Place:
    """A tmpfs with everything that is mounted and started in it. Use as a context manager."""

    def __init__(self, options):
        self.options = options
        self.undo = contextlib.ExitStack()
        self.serial = 0
        self.memory_watch = MemoryWatch()

    def __enter__(self):
        self.path = next(path for path in ("/media", "/mnt") if os.path.isdir(path) and not self._is_used(path))
        run(["mount", "-t", "tmpfs", "-o", "mode=0700", "bench", self.path])
        self.undo.callback(self._unmount, self.path)
        # Daemons are found by sockets in /run, which is not part of the namespace: two runs would meet there.
        run(["mount", "-t", "tmpfs", "bench", "/run"])
        self.undo.callback(self._unmount, "/run")
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not interrupt the cleaning.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.undo.close()
        self.memory_watch.stop()

    def _is_used(self, path):
        used = (self.options.build, self.options.blobcache or "", __file__)
        return any(os.path.realpath(each).startswith(path + "/") for each in used)

    def _unmount(self, path):
        if path in mountpoints():
            subprocess.run(["umount", "-l", path], capture_output=True)

    def new_path(self, name):
        self.serial += 1
        return os.path.join(self.path, f"{self.serial}-{name}")

    def new_folder(self, name):
        path = self.new_path(name)
        os.mkdir(path)
        return path

    def start(self, command, extra_environment=None):
        """Starts a process that lives until the place ends or stop() is called; its words go to a file."""
        log_path = self.new_path("log")
        with open(log_path, "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
                                       env=dict(os.environ, **(extra_environment or {})))
        process.log_path = log_path
        self.undo.callback(self.stop, process)
        return process

    def stop(self, process, first_signal=signal.SIGTERM, seconds=10):
        if process.poll() is None:
            process.send_signal(first_signal)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with open(process.log_path, errors="replace") as log:
            return log.read()

    def start_mount(self, command, mountpoint, probe, extra_environment=None):
        """Starts a FUSE server and waits until `probe`, a path under the mount, answers."""
        self.undo.callback(self._unmount, mountpoint)
        process = self.start(command, extra_environment)
        def answers():
            if process.poll() is not None:
                with open(process.log_path, errors="replace") as log:
                    raise BenchError(f"`{' '.join(command)}` ended with {process.returncode}: {log.read()[-800:].strip()}")
            return mountpoint in mountpoints() and os.path.exists(probe)
        wait_until(answers, 30, f"the mount of `{' '.join(command)}`")
        return process

    def stop_mount(self, process, mountpoint):
        self.stop(process)
        self._unmount(mountpoint)

    def enable_fuse_uring(self):
        """Turns FUSE over io_uring on for the mounts to come; back to what it was at the end."""
        if not os.path.exists(URING_SWITCH):
            raise BenchError("this kernel has no FUSE over io_uring (6.14 with CONFIG_FUSE_IO_URING)")
        with open(URING_SWITCH, "r+") as switch:
            if switch.read().strip() in ("Y", "1"):
                return
            switch.write("1")
        self.undo.callback(self._disable_fuse_uring)

    def _disable_fuse_uring(self):
        with open(URING_SWITCH, "w") as switch:
            switch.write("0")


@contextlib.contextmanager
def kernel_trace(event, condition, threads=()):
    """Records one tracepoint in a trace buffer of its own, where `condition` holds, for these threads or for all.

    Yields a function that returns what was recorded since its last call, as text. Nothing is ever missing from it: a
    buffer that overflowed is an error.
    """
    if not os.path.exists(os.path.join(TRACING, "events")):
        run(["mount", "-t", "tracefs", "tracefs", TRACING])
    instance = os.path.join(TRACING, "instances", f"blobcache_bench_{os.getpid()}")
    def write(name, text):
        with open(os.path.join(instance, name), "w") as file:
            file.write(text)
    def read(name):
        with open(os.path.join(instance, name)) as file:
            return file.read()
    def take():
        lines = [line for line in read("trace").splitlines() if not line.startswith("#")]
        for cpu in os.listdir(os.path.join(instance, "per_cpu")):
            if re.search(r"^(overrun|dropped events): [1-9]", read(f"per_cpu/{cpu}/stats"), re.M):
                raise BenchError("the kernel's trace buffer was too small")
        write("trace", "")
        return "\n".join(lines)
    os.mkdir(instance)
    try:
        if not os.path.exists(os.path.join(instance, "events", event)):
            raise BenchError(f"this kernel has no tracepoint {event}")
        write("buffer_size_kb", "16384")
        write("set_event_pid", " ".join(map(str, threads)))
        write(f"events/{event}/filter", condition)
        write(f"events/{event}/enable", "1")
        yield take
        write(f"events/{event}/enable", "0")
    finally:
        os.rmdir(instance)


class LoopDisk:
    """A small ext4 in the tmpfs behind a loop device of its own: the origin's disk, whose reads can be counted."""

    def __init__(self, place, size_bytes):
        image = place.new_path("disk.img")
        with open(image, "wb") as file:
            file.truncate(size_bytes + size_bytes // 8 + 64 * MIB)
        run(["mkfs.ext4", "-q", "-F", "-m0", image])
        self.path = place.new_folder("disk")
        run(["mount", "-o", "loop,noatime", image, self.path])
        place.undo.callback(place._unmount, self.path)
        self.stat_path = f"/sys/dev/block/{mountpoints()[self.path]}/stat"

    def forget(self, path):
        """Takes the file out of the page cache, so that every later read of it reaches the device."""
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def bytes_read(self):
        with open(self.stat_path) as stat:
            return int(stat.read().split()[2]) * 512


# Jobs as threads: one process, so that nothing of it survives when it is killed.
FIO_ALWAYS = ["--output-format=json", "--group_reporting", "--name=bench", "--direct=1", "--thread"]


def fio(arguments):
    """Runs one fio job and returns the read part of its report; any I/O or verification error is an exception."""
    out = run(["fio", *FIO_ALWAYS, *arguments])
    job = json.loads(out[out.index("{"):])["jobs"][0]
    if job["error"] != 0:
        raise BenchError(f"fio met error {job['error']} with {' '.join(arguments)}")
    return job["read"]


def write_verifiable_file(path, size_bytes):
    """Every 4 KiB carries its offset and a checksum, so that a read of any size can be verified."""
    run(["fio", "--name=fill", "--thread", f"--filename={path}", f"--size={size_bytes}", "--rw=write", "--bs=4k",
         "--ioengine=psync", "--verify=crc32c", "--do_verify=0", "--verify_state_save=0", "--end_fsync=1"])


def verified_pass(path, block):
    """Reads the whole file once in the pattern that is measured next and checks every block."""
    pattern = "randread" if block == "4k" else "read"
    done = fio([f"--filename={path}", "--readonly", f"--rw={pattern}", f"--bs={block}", "--ioengine=psync",
                "--verify=crc32c", "--verify_interval=4k", "--verify_fatal=1", "--verify_state_save=0"])
    if done["io_bytes"] != os.path.getsize(path):
        raise BenchError(f"the verified pass read {done['io_bytes']} of {os.path.getsize(path)} bytes of {path}")


def timed(path, seconds, arguments):
    return fio([f"--filename={path}", "--readonly", "--norandommap", "--time_based", f"--runtime={seconds}",
                "--ramp_time=300ms", *arguments])
