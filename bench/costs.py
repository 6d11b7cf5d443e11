"""P6, P7, P8: what a hit costs the process: system calls, allocations, and the handing out of a buffer."""

import json
import mmap
import os
import random
import re
import signal
import struct
import subprocess
import time

from harness import FIO_ALWAYS, BenchError, die_with_parent, run
from measure import Row
from reads import Data, FILE_BYTES, mount_warm, origin_reads

QUEUE_DEPTH_32 = ["--rw=randread", "--bs=4k", "--ioengine=io_uring", "--iodepth=32"]
SEQUENTIAL_1M = ["--rw=read", "--bs=1m", "--ioengine=psync"]
HITS = 100_000


class Load:
    """fio in the background for as long as something else is measured; its report at the end."""

    def __init__(self, place, path, seconds, arguments):
        self.report_path = place.new_path("fio.json")
        self.process = place.start(["fio", *FIO_ALWAYS, f"--output={self.report_path}", f"--filename={path}", "--readonly",
                                    "--norandommap", "--time_based", f"--runtime={seconds}", "--ramp_time=1", *arguments])
        time.sleep(1.5)  # past fio's own start and ramp; its report leaves the ramp out as well

    def requests_per_second(self):
        if self.process.wait() != 0:
            raise BenchError(f"fio failed, see {self.process.log_path}")
        with open(self.report_path) as report:
            return json.load(report)["jobs"][0]["read"]["iops"]


def count_calls(pid, seconds):
    """(all system calls, io_uring_enter alone) per second of every thread of `pid`, by the kernel's tracepoints."""
    events = ("raw_syscalls:sys_enter", "syscalls:sys_enter_io_uring_enter")
    out = subprocess.run(["perf", "stat", "-x,", "-e", ",".join(events), "-p", str(pid), "--", "sleep", str(seconds)],
                         capture_output=True, text=True, preexec_fn=die_with_parent)
    counts = {fields[2]: fields[0] for fields in (line.split(",") for line in out.stderr.splitlines()) if len(fields) > 3}
    try:
        return tuple(int(counts[name]) / seconds for name in events)
    except (KeyError, ValueError):
        raise BenchError(f"perf stat counted nothing: {out.stderr[-400:]}") from None


def name_calls(pid, seconds):
    """The system calls of `pid` by name, from strace -c, which is too slow to count with but knows the names."""
    process = subprocess.Popen(["strace", "-f", "-c", "-p", str(pid)], stderr=subprocess.PIPE, text=True,
                               preexec_fn=die_with_parent)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, table = process.communicate(timeout=20)
    names = set()
    for line in table.splitlines():
        fields = line.split()
        if len(fields) >= 5 and re.fullmatch(r"[\d.]+", fields[0]) and fields[-1] != "total":
            names.add(fields[-1])
    return sorted(names)


def calls_under(place, mount, arguments, seconds):
    """io_uring_enter and other calls per second, and the requests that fio made per second meanwhile."""
    load = Load(place, mount.file("data"), seconds + 2, arguments)
    total, enters = count_calls(mount.process.pid, seconds)
    return enters, total - enters, load.requests_per_second()


def names_under(place, mount, arguments):
    load = Load(place, mount.file("data"), 3, arguments)
    names = name_calls(mount.process.pid, 1)
    load.requests_per_second()
    return f"seen by strace: {', '.join(names) or 'none'}"


def system_calls(place, builds, options):
    data = Data(place)
    rows = []
    for transport in ("uring", "dev"):
        mount = mount_warm(place, builds, data, transport, "4k")
        for arguments, shape in ((QUEUE_DEPTH_32, "4 KiB random QD32"), (SEQUENTIAL_1M, "1 MiB sequential")):
            before = data.disk.bytes_read()
            samples = [calls_under(place, mount, arguments, options.seconds) for _ in range(options.pairs)]
            seen = names_under(place, mount, arguments)
            invalid = origin_reads(data, before)
            # A large read is a copy of 1 MiB: what it costs in calls is shown, and only asked of the small ones.
            target = 0.6 if arguments is QUEUE_DEPTH_32 else None
            rows.append(Row("P6", f"io_uring_enter per request, {shape}, {transport}", "calls", at_most=True, target=target,
                            ours=[enters / rate for enters, _, rate in samples], invalid=invalid))
            rows.append(Row("P6", f"other system calls, {shape}, {transport}", "calls/s", at_most=True, target=0,
                            ours=[other for _, other, _ in samples], invalid=invalid, note=seen))
        mount.stop()
    return rows


class Reader:
    """Direct 4 KiB reads by preadv, each compared with the bytes that the file was made of."""

    def __init__(self, path, expected_path):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, 4096)  # page-aligned, as O_DIRECT wants
        expected = os.open(expected_path, os.O_RDONLY)
        self.expected = mmap.mmap(expected, 0, prot=mmap.PROT_READ)
        os.close(expected)
        self.random = random.Random(1)

    def read(self, count):
        blocks = FILE_BYTES // 4096
        for _ in range(count):
            offset = self.random.randrange(blocks) * 4096
            if os.preadv(self.fd, [self.buffer], offset) != 4096 or self.buffer[:] != self.expected[offset:offset + 4096]:
                raise BenchError(f"wrong bytes at offset {offset}")

    def close(self):
        os.close(self.fd)


def allocations(place, builds, options):
    data = Data(place)
    rows = []
    for transport in ("uring", "dev"):
        counts_path = place.new_path("counts")
        with open(counts_path, "wb") as file:
            file.write(bytes(16))
        mount = mount_warm(place, builds, data, transport, "4k", extra_environment={
            "LD_PRELOAD": builds.helper("alloc_counter.so"), "BLOBCACHE_ALLOC_COUNTS": counts_path})
        def counted():
            with open(counts_path, "rb") as file:
                return struct.unpack("<2Q", file.read())
        if counted() == (0, 0):
            raise BenchError("the allocation counter is not in the daemon")
        reader = Reader(mount.file("data"), data.file)
        reader.read(1000)
        before_disk = data.disk.bytes_read()
        samples = []
        for _ in range(options.pairs):
            before = counted()
            reader.read(HITS)
            after = counted()
            samples.append(sum(after) - sum(before))
        rows.append(Row("P7", f"allocator calls in {HITS:,} hits, {transport}", "calls", samples, 0, at_most=True,
                        invalid=origin_reads(data, before_disk), note="malloc, calloc, realloc, memalign and free together"))
        reader.close()
        mount.stop()
    return rows


def buffer_pool(place, builds, options):
    program = builds.helper("pool_bench")
    counter = builds.helper("alloc_counter.so")
    rows = []
    names = run([program, "--list"]).split("\n")
    for name, what in (line.split(" ", 1) for line in names if line):
        run([program, name, "1000000"])
        samples = [float(run([program, name, "20000000"])) for _ in range(options.pairs)]
        target = None if name == "frame" else 8
        rows.append(Row("P8", f"{what}, acquire + release", "ns", samples, target, at_most=True,
                        note="the reference's pool takes 38 ns and 26 B for the pair"))
        rows.append(Row("P8", f"{what}, allocator calls in 1,000,000 pairs", "calls", at_most=True, target=0,
                        ours=[pool_allocations(place, program, counter, name)]))
    return rows


def pool_allocations(place, program, counter, name):
    """How many more allocator calls two million pairs make than one million: what start and end cost drops out."""
    totals = []
    for pairs in (1_000_000, 2_000_000):
        path = place.new_path("counts")
        with open(path, "wb") as file:
            file.write(bytes(16))
        run([program, name, str(pairs)], env=dict(os.environ, LD_PRELOAD=counter, BLOBCACHE_ALLOC_COUNTS=path))
        with open(path, "rb") as file:
            totals.append(sum(struct.unpack("<2Q", file.read())))
    if not totals[0]:
        raise BenchError("the allocation counter is not in pool_bench")
    return totals[1] - totals[0]
