"""P5 and P11: what reading ahead is worth where the data is near: in memory, and on the local disk.

P5, a buffered sequential read of a file that lies in L0, by one reader whose page cache is cold: libfuse's passthrough_ll over
the file in tmpfs, read as cold. The kernel's own read-ahead asks; how fast it is answered is what is compared. (The plan
names passthrough_hp, which Debian's package of examples leaves out.)
P11, a model mapped into memory: every page of a safetensors file touched for the first time, tensor by tensor, in the order
of the file and in random order, against read(2) of the same file from its start, in the same way cold: a fresh mount, and
the backing file out of the page cache. Beside it, with neither passthrough nor prefetch. What random readers pay for a
prefetch that they have no use for is a row of its own, and so is what linked reads are worth: 4 KiB reads beside a scan, and
the scan, with chains of linked reads and with every read of a batch submitted at once.
"""

import json
import mmap
import os
import random
import struct
import threading
import time

from disk import MEMORY_SMALL, CachedFile, rate
from harness import MIB, fio
from measure import Row, alternate
from reads import Data, mount_warm, origin_reads
from servers import mount_passthrough, node_status

MODEL_BYTES = 1024 * MIB
TENSOR_BYTES = 6 * MIB + 4096 * 3  # no multiple of any chunk
RANDOM_4K = ["--rw=randread", "--bs=4k", "--ioengine=io_uring", "--iodepth=8"]


def cold_pass(path):
    """Bytes per second of one buffered pass; fio takes the file out of the page cache first."""
    return fio([f"--filename={path}", "--readonly", "--direct=0", "--invalidate=1", "--rw=read", "--bs=1m",
                "--ioengine=psync"])["bw_bytes"] / 1e9


def buffered(place, builds, options):
    data = Data(place)
    baseline = mount_passthrough(place, builds, data.folder, "cache=always")
    rows = []
    for transport in ("uring", "dev"):
        mount = mount_warm(place, builds, data, transport, "1m")
        before = data.disk.bytes_read()
        ours, base = alternate(options.pairs, lambda: cold_pass(mount.file("data")), lambda: cold_pass(baseline.file("data")))
        rows.append(Row("P5", f"buffered sequential from L0, page cache cold, {transport}", "GB/s", ours, 2, baseline=base,
                        baseline_name="passthrough_ll -o cache=always over tmpfs", invalid=origin_reads(data, before)))
        mount.stop()
    return rows


def write_model(path, size_bytes):
    """A safetensors file of many tensors of one size."""
    count = size_bytes // TENSOR_BYTES
    header = json.dumps({f"layer.{i}": {"dtype": "F32", "shape": [TENSOR_BYTES // 4],
                                        "data_offsets": [i * TENSOR_BYTES, (i + 1) * TENSOR_BYTES]} for i in range(count)})
    header += " " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header.encode())
        for _ in range(count):
            file.write(os.urandom(TENSOR_BYTES))
        file.truncate(size_bytes)
        os.fsync(file.fileno())


def read_through(path):
    buffer = memoryview(bytearray(MIB))
    fd = os.open(path, os.O_RDONLY)
    while os.preadv(fd, [buffer], position := os.lseek(fd, 0, os.SEEK_CUR)):
        os.lseek(fd, position + MIB, os.SEEK_SET)
    os.close(fd)


def touch_tensors(path, order):
    """Copies each tensor out of the mapping into one buffer, as a framework does on its way to a device."""
    fd = os.open(path, os.O_RDONLY)
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapping:
        os.close(fd)
        data = 8 + struct.unpack("<Q", mapping[:8])[0]
        tensors = [data + at for at in range(0, len(mapping) - data - TENSOR_BYTES + 1, TENSOR_BYTES)]
        if order == "shuffled":
            random.Random(7).shuffle(tensors)
        buffer = memoryview(bytearray(TENSOR_BYTES))
        with memoryview(mapping) as view:
            for at in tensors:
                buffer[:] = view[at:at + TENSOR_BYTES]
        return len(tensors) * TENSOR_BYTES


def mapped_again(path):
    """Nobody is asked for anything: page faults and a copy."""
    start = time.monotonic()
    return touch_tensors(path, "in file order") / (time.monotonic() - start) / 1e9


class Model(CachedFile):
    """The file on the disk tier; each turn starts with nothing of it in memory."""

    def __init__(self, place, builds, options, transport, keys):
        super().__init__(place, builds, options, transport, keys, memory="1GiB", write=write_model, file_bytes=MODEL_BYTES)

    def turn(self, act):
        self.mount.stop()
        fd = os.open(self.backing, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        self.new_mount()
        start = time.monotonic()
        count = act(self.path) or self.bytes
        return count / (time.monotonic() - start) / 1e9

    def used(self):
        prefetch = node_status(self.mount.process)["volumes"][0]["prefetch"]
        return f"prefetched bytes of the last turn: {prefetch['used'] / 1e6:.0f} MB used, {prefetch['wasted'] / 1e6:.0f} MB wasted"


def mapped_models(place, builds, options):
    rows = []
    for transport in ("uring", "dev"):
        for name, keys, target in (("as by default", {}, 0.8),
                                   ("no passthrough", {"fuse.passthrough": "off"}, 0.8),
                                   ("no passthrough, no prefetch", {"fuse.passthrough": "off", "prefetch.enabled": "false"}, None)):
            model = Model(place, builds, options, transport, keys)
            for order in ("in file order", "shuffled"):
                notes = []
                def mapped():
                    speed = model.turn(lambda path: touch_tensors(path, order))
                    notes[:] = [model.used()]
                    return speed
                ours, base = alternate(max(1, options.pairs // 2), mapped, lambda: model.turn(read_through))
                rows.append(Row("P11", f"safetensors mapped, tensors {order}, {name}, {transport}", "GB/s", ours, target,
                                baseline=base, baseline_name="read(2) of the same file, as cold", note=notes[0]))
            if target and keys:
                rows.append(Row("P11", f"what mapping costs: all of it in the page cache already, {transport}", "GB/s",
                                [mapped_again(model.path) for _ in range(options.pairs)], None))
            model.close()
    return rows + random_readers(place, builds, options) + linked_chains(place, builds, options)


def random_readers(place, builds, options):
    """Direct 4 KiB reads from the disk tier, with and without prefetch, in turns."""
    keys = {"fuse.passthrough": "off"}
    file = CachedFile(place, builds, options, "uring", keys, memory=MEMORY_SMALL)
    def turn(enabled):
        file.mount.stop()
        file.keys = {**keys, "prefetch.enabled": enabled}
        file.new_mount()
        return rate(file.path, options.seconds, RANDOM_4K, "K reads/s")
    wasted = []
    def with_prefetch():
        speed = turn("true")
        status = node_status(file.mount.process)["volumes"][0]
        wasted.append(100 * status["prefetch"]["wasted"] / max(1, sum(status["bytes"].values())))
        return speed
    ours, base = alternate(options.pairs, with_prefetch, lambda: turn("false"))
    file.close()
    return [Row("P11", "4 KiB random direct QD8 from the disk tier, prefetch on, uring", "K reads/s", ours, 0.97, baseline=base,
                baseline_name="prefetch off"),
            Row("P11", "bytes prefetched in vain of bytes replied, in that", "%", wasted, 5, at_most=True)]


def linked_chains(place, builds, options):
    """A buffered scan from the disk tier, and direct 4 KiB reads of one reader beside it."""
    file = CachedFile(place, builds, options, "uring", {"fuse.passthrough": "off"})
    def turn(environment):
        file.mount.stop()
        file.extra_environment = environment
        file.new_mount()
        speeds = []
        scan = threading.Thread(target=lambda: speeds.append(cold_pass(file.path)))
        scan.start()
        latencies = []
        while scan.is_alive():
            done = fio([f"--filename={file.path}", "--readonly", "--norandommap", "--rw=randread", "--bs=4k", "--ioengine=psync",
                        "--number_ios=500", f"--randseed={len(latencies) + 1}"])
            latencies.append(done["clat_ns"]["percentile"]["99.000000"] / 1000)
        scan.join()
        return latencies[0], speeds[0]
    ours, base = alternate(options.pairs, lambda: turn({}), lambda: turn({"BLOBCACHE_PRETEND_ABSENT": "linked_reads"}))
    file.close()
    name = "each batch of reads submitted at once"
    return [Row("P11", "p99 of 4 KiB direct reads during a scan from the disk tier, linked", "us", [p99 for p99, _ in ours], 1.0,
                at_most=True, baseline=[p99 for p99, _ in base], baseline_name=name),
            Row("P11", "that scan, linked", "GB/s", [speed for _, speed in ours], None, baseline=[speed for _, speed in base],
                baseline_name=name)]
