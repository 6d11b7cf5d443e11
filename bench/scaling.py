"""P20: what more readers and more objects cost: throughput of 1 to 64 readers, and the index's lookup at three sizes."""

from statistics import median

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
    objects fit into the first cache and 10,000,000 into none: what that comparison shows is the machine's memory. Where one
    load of plain memory is as slow as a look-up may be, no index could do better: under some hypervisors one in a hundred
    takes more than 100 us."""
    program = builds.helper("index_bench")
    rows = []
    for copied, name, target in ((1 << 20, "1 MiB copied in between", 2), (0, "hot", None)):
        rounds = [{size: list(map(int, run([program, "lookup", str(size), str(copied)]).split())) for size in SIZES}
                  for _ in range(max(3, options.pairs))]
        def of_all(size, number):
            return [found[size][number] for found in rounds]
        base = of_all(SIZES[0], 1)
        for size in SIZES:
            invalid = ""
            if target and size != SIZES[0] and median(of_all(size, 3)) > target * median(base):
                invalid = f"p99 of one load from as much plain memory: {median(of_all(size, 3)):,.0f} ns"
            rows.append(Row("P20", f"lookup in the disk index, p99, {size:,} objects, {name}", "ns", of_all(size, 1),
                            None if size == SIZES[0] else target, at_most=True, baseline=base, invalid=invalid,
                            baseline_name=f"{SIZES[0]:,} objects", note=f"p50 of {size:,}, {name}: " +
                            ", ".join(map(str, of_all(size, 0))) + " ns; p99 of one load from as much plain memory: " +
                            ", ".join(map(str, of_all(size, 3))) + " ns"))
    return rows
