"""P3 and P4: reads of data in memory (L0) through the mount, against other FUSE servers over the same bytes.

P3, 4 KiB random direct, two readers: libfuse's example passthrough_ll over the file in tmpfs. Reading with O_DIRECT
makes the page cache of the mount irrelevant to both, so every read is a request. The example runs in the fastest of its
configurations on this machine, found anew in each run.
P4, 1 MiB sequential direct, one reader: ram_server, which has our shape and only copies.

"In memory" is checked, not assumed: our origin lies on a loop device of its own and is dropped from the page cache
after the warming pass; if that device is read during the timed turns, the row is invalid.
"""

from harness import LoopDisk, MIB, is_settled, timed, verified_pass, wait_until, write_verifiable_file
from measure import Row, alternate
from servers import PASSTHROUGH_OPTIONS, mount_blobcache, mount_passthrough, mount_ram_server

import os
import shutil

FILE_BYTES = 512 * MIB
RANDOM_4K = ["--rw=randread", "--bs=4k", "--ioengine=psync", "--numjobs=2"]
SEQUENTIAL_1M = ["--rw=read", "--bs=1m", "--ioengine=psync"]
# A read that went past memory shows as device reads; a little metadata (atime, directory) may be read again.
STRAY_BYTES_MAX = 4 * MIB


class Data:
    """The same verifiable file in tmpfs, for the baselines, and on a disk of its own, as our origin."""

    def __init__(self, place):
        self.folder = place.new_folder("tmpfs")
        self.file = os.path.join(self.folder, "data")
        write_verifiable_file(self.file, FILE_BYTES)
        self.disk = LoopDisk(place, FILE_BYTES)
        self.origin = os.path.join(self.disk.path, "origin")
        os.mkdir(self.origin)
        self.origin_file = shutil.copyfile(self.file, os.path.join(self.origin, "data"))
        wait_until(lambda: is_settled(self.origin_file), 10, "the file being old enough to be cached")


def mount_warm(place, builds, data, transport, block, extra_environment=None):
    """Our mount with the whole file in memory, every byte of it verified, and the origin out of the page cache."""
    if transport == "uring":
        place.enable_fuse_uring()
    mount = mount_blobcache(place, builds, data.origin, {"fuse.transport": transport}, extra_environment=extra_environment)
    verified_pass(mount.file("data"), "1m")
    verified_pass(mount.file("data"), block)
    data.disk.forget(data.origin_file)
    return mount


def origin_reads(data, before):
    """Empty when the timed reads stayed in memory; else the sentence that makes the row invalid."""
    stray = data.disk.bytes_read() - before
    if stray <= STRAY_BYTES_MAX:
        return ""
    return f"not all reads were hits: {stray / MIB:.0f} MiB were read from the origin's disk during the timed turns"


def thousand_reads(path, seconds):
    return timed(path, seconds, RANDOM_4K)["iops"] / 1000


def fastest_passthrough(place, builds, data):
    """The example's best configuration: the median of three short turns each, taken in rotation."""
    scores = {}
    for _ in range(3):
        for options in PASSTHROUGH_OPTIONS:
            mount = mount_passthrough(place, builds, data.folder, options)
            scores.setdefault(options, []).append(thousand_reads(mount.file("data"), 1))
            mount.stop()
    return max(scores, key=lambda options: sorted(scores[options])[1])


def random_reads(place, builds, options):
    data = Data(place)
    best = fastest_passthrough(place, builds, data)
    name = f"passthrough_ll -o {best} over tmpfs (the fastest of {len(PASSTHROUGH_OPTIONS)} configurations)"
    baseline = mount_passthrough(place, builds, data.folder, best)
    verified_pass(baseline.file("data"), "4k")
    rows = []
    def compare(what, mount, target):
        before = data.disk.bytes_read()
        ours, base = alternate(options.pairs, lambda: thousand_reads(mount.file("data"), options.seconds),
                               lambda: thousand_reads(baseline.file("data"), options.seconds))
        rows.append(Row("P3", f"4 KiB random direct, 2 jobs, {what}", "K reads/s", ours, target, baseline=base,
                        baseline_name=name, invalid=origin_reads(data, before)))
        mount.stop()
    for transport, target in (("uring", 1.8), ("dev", 1.1)):
        compare(transport, mount_warm(place, builds, data, transport, "4k"), target)
    for transport in ("uring", "dev"):
        mount = mount_ram_server(place, builds, data.file, transport)
        verified_pass(mount.file("data"), "4k")
        compare(f"ram_server {transport}", mount, None)
        rows[-1].note = "not ours: a server that only copies, to show how much the kernel's interface allows on this machine"
    return rows


def sequential_reads(place, builds, options):
    data = Data(place)
    rows = []
    def gigabytes(path):
        return timed(path, options.seconds, SEQUENTIAL_1M)["bw_bytes"] / 1e9
    for transport in ("uring", "dev"):
        mount = mount_warm(place, builds, data, transport, "1m")
        baseline = mount_ram_server(place, builds, data.file, transport)
        verified_pass(baseline.file("data"), "1m")
        before = data.disk.bytes_read()
        ours, base = alternate(options.pairs, lambda: gigabytes(mount.file("data")),
                               lambda: gigabytes(baseline.file("data")))
        rows.append(Row("P4", f"1 MiB sequential direct, 1 reader, {transport}", "GB/s", ours, 0.9, baseline=base,
                        baseline_name=f"ram_server --transport={transport}", invalid=origin_reads(data, before)))
        mount.stop()
        baseline.stop()
    return rows
