"""P6, P7, P8: what a hit costs the process: system calls, allocations, and the handing out of a buffer."""

import collections
import json
import mmap
import os
import random
import re
import struct
import subprocess
import time

from disk import DISK_ONLY, MEMORY_SMALL, CachedFile, from_disk
from harness import FIO_ALWAYS, BenchError, die_with_parent, kernel_trace, run
from measure import Row
from reads import Data, FILE_BYTES, mount_warm, origin_reads

QUEUE_DEPTH_32 = ["--rw=randread", "--bs=4k", "--ioengine=io_uring", "--iodepth=32"]
SEQUENTIAL_1M = ["--rw=read", "--bs=1m", "--ioengine=psync"]
HITS = 100_000
DISK_HITS = 10_000


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


def system_call_names():
    """number -> name, from the C library's header."""
    out = run(["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"])
    return {int(number): name for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", out, re.M)}


def count_enters(pid, seconds):
    """io_uring_enter calls per second of all threads. Counted by perf: they are too many to record each."""
    event = "syscalls:sys_enter_io_uring_enter"
    out = subprocess.run(["perf", "stat", "-x,", "-e", event, "-p", str(pid), "--", "sleep", str(seconds)],
                         capture_output=True, text=True, preexec_fn=die_with_parent)
    counted = re.search(rf"^(\d+),.*{event}", out.stderr, re.M)
    if not counted:
        raise BenchError(f"perf stat counted nothing: {out.stderr[-400:]}")
    return int(counted.group(1)) / seconds


def calls_under(place, mount, arguments, seconds, names):
    """io_uring_enter per second, all other calls by name, and the requests that fio made per second meanwhile."""
    load = Load(place, mount.file("data"), seconds + 2, arguments)
    enter = next(number for number, name in names.items() if name == "io_uring_enter")
    threads = os.listdir(f"/proc/{mount.process.pid}/task")
    with kernel_trace("raw_syscalls/sys_enter", f"id != {enter}", threads) as take:
        enters = count_enters(mount.process.pid, seconds)
        others = collections.Counter(names.get(int(number), number) for number in re.findall(r"NR (\d+)", take()))
    return enters, others, load.requests_per_second()


def system_calls(place, builds, options):
    data = Data(place)
    names = system_call_names()
    rows = []
    for transport in ("uring", "dev"):
        mount = mount_warm(place, builds, data, transport, "4k")
        for arguments, shape in ((QUEUE_DEPTH_32, "4 KiB random QD32"), (SEQUENTIAL_1M, "1 MiB sequential")):
            before = data.disk.bytes_read()
            samples = [calls_under(place, mount, arguments, options.seconds, names) for _ in range(options.pairs)]
            rows += call_rows(samples, arguments, f"{shape}, {transport}", options, origin_reads(data, before))
        mount.stop()
        file = CachedFile(place, builds, options, transport, DISK_ONLY, memory=MEMORY_SMALL)
        for arguments, shape in ((QUEUE_DEPTH_32, "4 KiB random QD32"), (SEQUENTIAL_1M, "1 MiB sequential")):
            before = file.served()
            samples = [calls_under(place, file.mount, arguments, options.seconds, names) for _ in range(options.pairs)]
            invalid = from_disk(before, file.served()).get("invalid", "")
            rows += call_rows(samples, arguments, f"{shape}, disk tier, {transport}", options, invalid)
        file.close()
    return rows


def call_rows(samples, arguments, shape, options, invalid):
    # A large read is a copy of 1 MiB: what it costs in calls is shown, and only asked of the small ones.
    target = 0.6 if arguments is QUEUE_DEPTH_32 else None
    others = sum((others for _, others, _ in samples), collections.Counter())
    return [Row("P6", f"io_uring_enter per request, {shape}", "calls", at_most=True, target=target,
                ours=[enters / rate for enters, _, rate in samples], invalid=invalid),
            Row("P6", f"other system calls in {options.seconds} s, {shape}", "calls", at_most=True, target=0,
                ours=[others.total() for _, others, _ in samples], invalid=invalid,
                note=" ".join(["seen:"] + [f"{count} {name}" for name, count in others.items()]) if others else "")]


class Reader:
    """Direct 4 KiB reads by preadv, each compared with the bytes that the file was made of."""

    def __init__(self, path, expected_path, file_bytes=FILE_BYTES):
        self.blocks = file_bytes // 4096
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, 4096)  # page-aligned, as O_DIRECT wants
        expected = os.open(expected_path, os.O_RDONLY)
        self.expected = mmap.mmap(expected, 0, prot=mmap.PROT_READ)
        os.close(expected)
        self.random = random.Random(1)

    def read(self, count):
        for _ in range(count):
            offset = self.random.randrange(self.blocks) * 4096
            if os.preadv(self.fd, [self.buffer], offset) != 4096 or self.buffer[:] != self.expected[offset:offset + 4096]:
                raise BenchError(f"wrong bytes at offset {offset}")

    def close(self):
        os.close(self.fd)


class AllocationCounter:
    """Calls of the daemon's allocator, counted by a library that is loaded into it."""

    def __init__(self, place, builds):
        self.path = place.new_path("counts")
        with open(self.path, "wb") as file:
            file.write(bytes(16))
        self.environment = {"LD_PRELOAD": builds.helper("alloc_counter.so"), "BLOBCACHE_ALLOC_COUNTS": self.path}

    def calls(self):
        with open(self.path, "rb") as file:
            calls, core_calls = struct.unpack("<2Q", file.read())
        if not core_calls:
            raise BenchError("the allocation counter is not in the daemon")
        return calls - core_calls, core_calls

    def samples(self, reader, hits, rounds):
        """Calls by the cores in each round of so many verified reads, after some that nobody counts, and by other threads."""
        reader.read(1000)
        samples = []
        begin = self.calls()[0]
        for _ in range(rounds):
            before = self.calls()[1]
            reader.read(hits)
            samples.append(self.calls()[1] - before)
        reader.close()
        others = self.calls()[0] - begin
        return samples, f"malloc, calloc, realloc, memalign and free together; other threads than the cores called {others} times"


def allocations(place, builds, options):
    data = Data(place)
    rows = []
    for transport in ("uring", "dev"):
        counter = AllocationCounter(place, builds)
        mount = mount_warm(place, builds, data, transport, "4k", extra_environment=counter.environment)
        before_disk = data.disk.bytes_read()
        samples, note = counter.samples(Reader(mount.file("data"), data.file), HITS, options.pairs)
        rows.append(Row("P7", f"allocator calls in {HITS:,} hits, {transport}", "calls", samples, 0, at_most=True,
                        invalid=origin_reads(data, before_disk), note=note))
        mount.stop()
        counter = AllocationCounter(place, builds)
        file = CachedFile(place, builds, options, transport, DISK_ONLY, memory=MEMORY_SMALL,
                          extra_environment=counter.environment)
        before = file.served()
        samples, note = counter.samples(Reader(file.path, file.source, file.bytes), DISK_HITS, options.pairs)
        rows.append(Row("P7", f"allocator calls in {DISK_HITS:,} hits of the disk tier, {transport}", "calls", samples, 0,
                        at_most=True, invalid=from_disk(before, file.served()).get("invalid", ""), note=note))
        file.close()
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
            totals.append(struct.unpack("<2Q", file.read())[0])
    if not totals[0]:
        raise BenchError("the allocation counter is not in pool_bench")
    return totals[1] - totals[0]
