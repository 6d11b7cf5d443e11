"""P1 and P2: reads that the local disk answers, against fio on the backing file itself.

Source and cache lie on the disk that the build folder is on: a tmpfs is no stand-in (its reads block the ring). What is
measured is checked: P1 that no READ reaches the daemon (by its own count and by the kernel's tracepoint), P2 that the
daemon answers from its disk and not from memory.
"""

import glob
import json
import os
import re
import shutil
import time

from harness import MIB, BenchError, connection_of, fio, is_settled, kernel_trace, run, timed, verified_pass, wait_until, \
    write_verifiable_file
from measure import Row, alternate
from servers import mount_blobcache, node_status

FILE_BYTES = 2048 * MIB
# Warm: both sides from the page cache, which fio would otherwise empty when it starts.
BUFFERED = ["--direct=0", "--invalidate=0"]
WARM_SHAPES = [
    ("1 MiB sequential", "GB/s", [*BUFFERED, "--rw=read", "--bs=1m", "--ioengine=psync"]),
    ("4 KiB random", "K reads/s", [*BUFFERED, "--rw=randread", "--bs=4k", "--ioengine=psync"]),
    ("mmap 4 KiB random", "K reads/s", [*BUFFERED, "--rw=randread", "--bs=4k", "--ioengine=mmap"]),
    ("mmap sequential", "GB/s", [*BUFFERED, "--rw=read", "--bs=64k", "--ioengine=mmap"]),
]
DEEP_SHAPES = [
    ("1 MiB sequential QD16", "GB/s", ["--rw=read", "--bs=1m", "--ioengine=io_uring", "--iodepth=16"]),
    ("4 KiB random QD32", "K reads/s", ["--rw=randread", "--bs=4k", "--ioengine=io_uring", "--iodepth=32"]),
    # A FUSE queue belongs to the reader's CPU: one reader has one core of ours, and shares the CPU with it.
    ("4 KiB random, 2 readers of QD16", "K reads/s", ["--rw=randread", "--bs=4k", "--ioengine=io_uring", "--iodepth=16",
                                                      "--numjobs=2", "--group_reporting"]),
]
# L0 as small as the plan allows, so that nothing comes from it.
MEMORY_SMALL = "256MiB"
# Prefetch would answer a part of it from memory.
DISK_ONLY = {"fuse.passthrough": "off", "prefetch.enabled": "false"}


class DiskFolder:
    """A folder on the disk, gone at the end; what a killed run left in it goes at the start."""

    def __init__(self, place, options):
        self.path = os.path.join(os.path.realpath(options.build), "scratch")
        shutil.rmtree(self.path, ignore_errors=True)
        os.makedirs(self.path)
        place.undo.callback(shutil.rmtree, self.path, ignore_errors=True)
        self.source = os.path.join(self.path, "source")
        self.cache = os.path.join(self.path, "cache")
        os.mkdir(self.source)

    def need(self, size_bytes):
        free = shutil.disk_usage(self.path).free
        if free < size_bytes * 1.3:
            raise BenchError(f"{self.path} has {free / 1e9:.0f} GB free, {size_bytes * 1.3 / 1e9:.0f} GB are needed: "
                             f"put the build folder on a larger disk (--build) or make it smaller (--scale)")


class CachedFile:
    """One verifiable file, its mount, and its backing file in the cache directory: whole, and every block verified."""

    def __init__(self, place, builds, options, transport, keys, memory="1GiB", extra_environment=None,
                 write=write_verifiable_file, file_bytes=FILE_BYTES):
        self.place, self.builds, self.keys, self.memory = place, builds, {"fuse.transport": transport, **keys}, memory
        self.extra_environment = extra_environment
        self.verifiable = write == write_verifiable_file
        self.folder = DiskFolder(place, options)
        self.bytes = int(file_bytes * options.scale) // MIB * MIB
        self.folder.need(3 * self.bytes)
        self.source = os.path.join(self.folder.source, "data")
        write(self.source, self.bytes)
        wait_until(lambda: is_settled(self.source), 5, "the file being old enough to be cached")
        if transport == "uring":
            place.enable_fuse_uring()
        self.new_mount()
        self._fill()
        # What the fill left in memory would be served from there.
        self.mount.stop()
        self.new_mount()
        self.backing = self._backing()

    def new_mount(self):
        self.mount = mount_blobcache(self.place, self.builds, self.folder.source, self.keys, memory=self.memory,
                                     cache=self.folder.cache, extra_environment=self.extra_environment)
        self.path = self.mount.file("data")

    def _fill(self):
        """Writes may be left out when many come at once, and are not made up for while memory holds the bytes: what is
        missing is read again through a fresh mount."""
        for _ in range(6):
            if self.verifiable:
                verified_pass(self.path, "1m")
            else:
                run(["cmp", self.source, self.path])
            before = -1
            while before < (now := self.tiers()["disk_verified"]) < self.bytes:
                before = now
                time.sleep(3)
            if now == self.bytes:
                return
            self.mount.stop()
            self.new_mount()
        raise BenchError(f"the file is not whole and verified on disk: {self.tiers()} of {self.bytes}")

    def _backing(self):
        found = [path for path in glob.glob(f"{self.folder.cache}/objects/*/*") if os.path.getsize(path) == self.bytes]
        if len(found) != 1:
            raise BenchError(f"{len(found)} backing files of {self.bytes} bytes are in the cache directory, not one")
        return found[0]

    def tiers(self):
        return json.loads(os.getxattr(self.path, "user.blobcache.tiers"))

    def served(self):
        """Bytes of replies by tier."""
        return node_status(self.mount.process)["volumes"][0]["bytes"]

    def close(self):
        self.mount.stop()


def rate(path, seconds, arguments, unit):
    done = timed(path, seconds, arguments)
    return done["bw_bytes"] / 1e9 if unit == "GB/s" else done["iops"] / 1000


def warm_page_cache(path):
    fio([f"--filename={path}", "--readonly", *BUFFERED, "--rw=read", "--bs=1m", "--ioengine=psync"])


def passthrough(place, builds, options):
    rows = []
    for transport in ("uring", "dev"):
        file = CachedFile(place, builds, options, transport, {"fuse.passthrough": "auto"})
        if not node_status(file.mount.process)["volumes"][0]["passthrough"]:
            raise BenchError("passthrough is not in force: root and Linux 6.9 are needed")
        for path in (file.path, file.backing):
            warm_page_cache(path)
        with kernel_trace("fuse/fuse_request_send", f"connection == {connection_of(file.mount.path)}") as take:
            before = node_status(file.mount.process)["volumes"][0]["reads"]
            take()
            for shape, unit, arguments in WARM_SHAPES:
                ours, base = alternate(options.pairs, lambda: rate(file.path, options.seconds, arguments, unit),
                                       lambda: rate(file.backing, options.seconds, arguments, unit))
                rows.append(Row("P1", f"{shape}, warm, {file.bytes // MIB} MiB, passthrough, {transport}", unit, ours, 0.95,
                                baseline=base, baseline_name="fio on the backing file, page cache warm"))
            reads = node_status(file.mount.process)["volumes"][0]["reads"] - before
            sent = len(re.findall(r"FUSE_READ\)", take()))
        rows.append(Row("P1", f"READ requests during all that, {transport}", "requests", [max(reads, sent)], 0, at_most=True,
                        note="the larger of the daemon's count and the kernel's tracepoint"))
        file.close()
    return rows


def chain(place, builds, options):
    rows = []
    for transport in ("uring", "dev"):
        file = CachedFile(place, builds, options, transport, DISK_ONLY, memory=MEMORY_SMALL)
        for shape, unit, arguments in DEEP_SHAPES:
            before = file.served()
            ours, base = alternate(options.pairs, lambda: rate(file.path, options.seconds, arguments, unit),
                                   lambda: rate(file.backing, options.seconds, arguments, unit))
            rows.append(Row("P2", f"{shape}, direct, from the disk tier, {transport}", unit, ours, 0.95, baseline=base,
                            baseline_name="fio on the backing file, O_DIRECT, io_uring", **from_disk(before, file.served())))
        file.close()
    return rows


def from_disk(before, after):
    """What the row says of where the bytes came from; invalid when it was not the disk."""
    tiers = {tier: after[tier] - before[tier] for tier in after}
    total = sum(tiers.values())
    if not total:
        return {"invalid": "no read reached the daemon"}
    share = 100 * tiers["disk"] / total
    note = f"{share:.1f} % of {total / 1e9:.1f} GB from the disk tier"
    return {"note": note} if share >= 98 else {"invalid": f"only {note}: {tiers}"}
