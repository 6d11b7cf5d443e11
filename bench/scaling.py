"""P20: what more readers and more objects cost: throughput of 1 to 64 readers, and the index's lookup at three sizes."""

from disk import DISK_ONLY, MEMORY_SMALL, CachedFile, from_disk
from harness import run, timed
from measure import Row
from reads import Data, mount_warm, origin_reads

READERS = (1, 2, 4, 8, 16, 32, 64)
RANDOM_4K = ["--rw=randread", "--bs=4k", "--ioengine=psync"]
SIZES = (1_000, 1_000_000, 10_000_000)


def growth(place, builds, options):
    return memory_readers(place, builds, options) + disk_readers(place, builds, options) + lookups(builds, options)


def by_readers(path, what, options):
    """Rounds over all numbers of readers, so that each ratio is formed within a round."""
    def rate(readers):
        return timed(path, options.seconds, [*RANDOM_4K, f"--numjobs={readers}"])["iops"] / 1000
    rate(READERS[-1])
    rounds = [{readers: rate(readers) for readers in READERS} for _ in range(options.pairs)]
    return [Row("P20", f"4 KiB random direct, {readers} readers, {what}", "K reads/s", [found[readers] for found in rounds],
                None if readers == 1 else 0.95, baseline=[found[1] for found in rounds], baseline_name="1 reader")
            for readers in READERS]


def memory_readers(place, builds, options):
    data = Data(place)
    rows = []
    for transport in ("uring", "dev"):
        mount = mount_warm(place, builds, data, transport, "4k")
        before = data.disk.bytes_read()
        found = by_readers(mount.file("data"), f"from memory, {transport}", options)
        for row in found:
            row.invalid = origin_reads(data, before)
        rows += found
        mount.stop()
    return rows


def disk_readers(place, builds, options):
    rows = []
    for transport in ("uring", "dev"):
        file = CachedFile(place, builds, options, transport, DISK_ONLY, memory=MEMORY_SMALL)
        before = file.served()
        found = by_readers(file.path, f"from disk, {transport}", options)
        proof = from_disk(before, file.served())
        for row in found:
            row.note, row.invalid = proof.get("note", ""), proof.get("invalid", "")
        rows += found
        file.close()
    return rows


def lookups(builds, options):
    """As between requests, whose data takes the index out of the processor's caches; and beside it hot, where 1,000
    objects fit into the first cache and 10,000,000 into none: what that comparison shows is the machine's memory."""
    program = builds.helper("index_bench")
    rows = []
    for copied, name, target in ((1 << 20, "1 MiB copied in between", 2), (0, "hot", None)):
        rounds = [{size: list(map(int, run([program, "lookup", str(size), str(copied)]).split())) for size in SIZES}
                  for _ in range(max(3, options.pairs))]
        rows += [Row("P20", f"lookup in the disk index, p99, {size:,} objects, {name}", "ns", [found[size][1] for found in rounds],
                     None if size == SIZES[0] else target, at_most=True, baseline=[found[SIZES[0]][1] for found in rounds],
                     baseline_name=f"{SIZES[0]:,} objects", note=f"p50 of {size:,}, {name}: " +
                     ", ".join(str(found[size][0]) for found in rounds) + " ns") for size in SIZES]
    return rows
