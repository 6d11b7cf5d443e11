"""P12: epochs over 100,000 small files in random order by 8 readers, through the mount and on the raw disk.

The first epoch fills the cache; what is compared are later ones, each in an order of its own. Cold: nothing is in any
page cache, so the raw tree comes from the disk and ours from the disk tier. Warm is shown beside it: both trees as the
page cache has them, where no cache below can make a difference to the raw one. What prefetch does for a first epoch, of a
fifth of the files, stands at the end: with it and without, each with a cache of its own.
"""

import os

from disk import DiskFolder
from harness import BenchError, run
from measure import Row, alternate
from servers import mount_blobcache, node_status

FILES = 100_000
BYTES_MIN = 20_000
BYTES_MAX = 100_000
READERS = 8


class Reader:
    """Epochs of one tree; each call reads all files in the next order."""

    def __init__(self, program, root, count):
        self.program = program
        self.root = root
        self.count = count
        self.epochs = 0
        self.bytes = 0

    def epoch(self, drop):
        if drop:
            os.sync()
            with open("/proc/sys/vm/drop_caches", "w") as control:
                control.write("3")
        self.epochs += 1
        seconds, bytes_read = run([self.program, "read", self.root, str(self.count), str(READERS), str(self.epochs)]).split()
        self.bytes = int(bytes_read)
        return float(seconds)


def small_files(place, builds, options):
    program = builds.helper("tree_reader")
    count = max(100, int(FILES * options.scale))
    folder = DiskFolder(place, options)
    folder.need(count * BYTES_MAX * 2)
    run([program, "make", folder.source, str(count), str(BYTES_MIN), str(BYTES_MAX)])
    rows = []
    for transport in ("uring", "dev"):
        if transport == "uring":
            place.enable_fuse_uring()
        cache = f"{folder.cache}-{transport}"
        mount = mount_blobcache(place, builds, folder.source, {"fuse.transport": transport}, memory="1GiB", probe="0/0",
                                cache=cache)
        ours = Reader(program, mount.path, count)
        raw = Reader(program, folder.source, count)
        first = ours.epoch(drop=True)
        first_raw = raw.epoch(drop=True)
        for drop, name, target in ((True, "cold", 1.1), (False, "warm", None)):
            before = node_status(mount.process)["volumes"][0]["bytes"]
            times, base = alternate(max(1, options.pairs // 2), lambda: ours.epoch(drop), lambda: raw.epoch(drop))
            after = node_status(mount.process)["volumes"][0]["bytes"]
            rows.append(Row("P12", f"epoch of {count:,} files, {READERS} readers, shuffled, {name}, {transport}", "s", times, target,
                            at_most=True, baseline=base, baseline_name="the source tree on the raw disk",
                            **origin_share(before, after, drop, ours.bytes)))
        rows[-2].note = f"the first epoch took {first:.1f} s, on the raw disk {first_raw:.1f} s"
        mount.stop()
    return rows + [first_epochs(place, builds, folder, options, count // 5)]


def first_epochs(place, builds, folder, options, count):
    notes = []

    def turn(enabled):
        # None is removed before the end: a filesystem that discards what is freed would do it in somebody's turn.
        cache = f"{folder.cache}-first-{len(notes)}"
        mount = mount_blobcache(place, builds, folder.source, {"prefetch.enabled": enabled}, memory="1GiB", probe="0/0", cache=cache)
        for number in range((count + 999) // 1000):
            os.listdir(os.path.join(mount.path, str(number)))  # as loaders do
        seconds = Reader(builds.helper("tree_reader"), mount.path, count).epoch(drop=True)
        prefetch = node_status(mount.process)["volumes"][0]["prefetch"]
        notes.append(f"{prefetch['used'] / 1e6:.0f} MB used, {prefetch['wasted'] / 1e6:.0f} MB wasted")
        mount.stop()
        return seconds

    ours, base = alternate(max(1, options.pairs // 2), lambda: turn("true"), lambda: turn("false"))
    return Row("P12", f"first epoch of {count:,} files, listed before, {READERS} readers, shuffled, with prefetch", "s", ours, None,
               baseline=base, baseline_name="without prefetch", note=f"prefetched bytes of the first turn: {notes[0]}")


def origin_share(before, after, drop, tree_bytes):
    """A later epoch that goes to the origin does not measure the cache."""
    origin = after["origin"] - before["origin"]
    if drop and sum(after.values()) == sum(before.values()):
        return {"invalid": "no read reached the daemon"}
    if origin > tree_bytes * 0.05:
        return {"invalid": f"{origin / 1e6:.0f} MB came from the origin after the first epoch"}
    return {}
