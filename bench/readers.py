"""E1, E2, E3: whole readers end to end (training.py), through the mount and on the raw local disk.

E1 loads a model of 4 safetensors shards of 512 MiB tensor by tensor, as the package does, and, where Python has torch, the same
mapped by torch and a checkpoint of 1 GiB by torch.load; E2 streams 32 tar shards of 64 MiB in
random order through 4 processes, as WebDataset does; E3 reads an image folder of 50,000 files of 5 to 40 KiB in random order
through 8 processes, twice. Source and cache lie on the disk of the build folder, and every turn, ours or raw, begins with nothing
in any page cache and, ours, with a daemon that has nothing in memory. From the disk tier: all of it is there and verified, with
passthrough as by default, and without. From the origin: the cache directory is empty, and the origin is the source folder itself,
so what is shown is what our way costs beside the disk that both read.

Readers check every byte, which costs both sides the same; a wrong one ends the bench. What they report is their own time,
without the start of Python.
"""

import json
import os
import shutil
import subprocess
import sys
import time

from disk import DiskFolder
from harness import MIB, BenchError, is_settled, run, wait_until
from measure import Row, alternate
from servers import mount_blobcache, node_status

TRAINING = os.path.join(os.path.dirname(os.path.abspath(__file__)), "training.py")
MEMORY = "1GiB"
NO_PASSTHROUGH = {"fuse.passthrough": "off"}


def forget_all():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as control:
        control.write("3")


def python_with(package):
    """Debian's packages are those of Debian's Python, which need not be the one that runs this."""
    for python in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(python) and subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode == 0:
            return python
    return None


class Tree:
    """The files of one bench, their cache directory, and the mount over both."""

    def __init__(self, place, builds, options, size, make, python=sys.executable):
        self.place, self.builds = place, builds
        self.folder = DiskFolder(place, options)
        self.folder.need(3 * size)
        run([python, TRAINING, make[0], os.path.join(self.folder.source, "data"), *map(str, make[1:])])
        self.names = [os.path.relpath(os.path.join(folder, name), self.folder.source)
                      for folder, _, names in os.walk(self.folder.source) for name in names]
        self.bytes = sum(os.path.getsize(os.path.join(self.folder.source, name)) for name in self.names)
        wait_until(lambda: all(is_settled(os.path.join(self.folder.source, name)) for name in self.names), 10,
                   "the files being old enough to be cached")
        self.mount = None
        self.status = {}

    def new_mount(self, keys):
        self.stop()
        forget_all()
        self.mount = mount_blobcache(self.place, self.builds, self.folder.source, keys, memory=MEMORY, cache=self.folder.cache)

    def stop(self):
        if self.mount:
            self.mount.stop()
        self.mount = None

    def fill(self, keys):
        """All of it on the disk, every block verified."""
        self.new_mount(keys)
        run([self.builds.blobcache(), "warm", "--json", self.mount.path])
        waiting = list(self.names)
        deadline = time.monotonic() + 300
        while waiting:
            waiting = [name for name in waiting if not self._is_verified(name)]
            if time.monotonic() > deadline:
                raise BenchError(f"{len(waiting)} of {len(self.names)} files are not whole and verified on disk: "
                                 f"{node_status(self.mount.process)['tiers']}")
            time.sleep(0.5 if waiting else 0)

    def _is_verified(self, name):
        path = self.mount.file(name)
        return json.loads(os.getxattr(path, "user.blobcache.tiers"))["disk_verified"] == os.path.getsize(path)

    def ours(self, reader, keys, from_origin):
        if from_origin:
            self.stop()
            shutil.rmtree(self.folder.cache, ignore_errors=True)
        self.new_mount(keys)
        done = read(reader, self.mount.file("data"))
        self.status = node_status(self.mount.process)["volumes"][0]
        return done

    def raw(self, reader):
        forget_all()
        return read(reader, os.path.join(self.folder.source, "data"))

    def remarks(self, from_origin):
        """What the last turn brought ahead of the reader; whether its bytes came from where they should have."""
        ahead, came = self.status["prefetch"], self.status["origin_bytes"]
        if not from_origin and came > self.bytes * 0.01:
            return {"invalid": f"{came / 1e6:.0f} MB came from the origin"}
        if from_origin and came > self.bytes * 1.01:
            return {"invalid": f"{came / 1e6:.0f} MB came from the origin, for {self.bytes / 1e6:.0f} MB"}
        opens = f", {self.status['passthrough_opens']:,} opens passed through" if self.status["passthrough_opens"] else ""
        return {"note": f"prefetched bytes of the last turn: {ahead['used'] / 1e6:.0f} MB used, {ahead['wasted'] / 1e6:.0f} MB "
                        f"wasted, of {self.bytes / 1e6:.0f} MB{opens}"}


def read(reader, path):
    python, command, *options = reader
    done = json.loads(run([python, TRAINING, command, path, *options]))
    if not done["items"]:
        raise BenchError(f"{command} found nothing in {path}")
    return done


def cases(transport):
    """(name, keys, from the origin)"""
    keys = {"fuse.transport": transport}
    return [("from the disk tier", keys, False),
            ("from the disk tier, no passthrough", {**keys, **NO_PASSTHROUGH}, False),
            ("from the origin", keys, True)]


def measured(place, options, tree, readers, row):
    """Each reader in each case; `row` makes rows of what they said of themselves."""
    rows = []
    for transport in ("uring", "dev"):
        if transport == "uring":
            place.enable_fuse_uring()
        for case, keys, from_origin in cases(transport):
            if case == "from the disk tier":
                tree.stop()
                shutil.rmtree(tree.folder.cache, ignore_errors=True)
                tree.fill(keys)
            for name, reader in readers:
                pairs = max(1, options.pairs // 2) if from_origin else options.pairs
                ours, base = alternate(pairs, lambda: tree.ours(reader, keys, from_origin), lambda: tree.raw(reader))
                rows += row(f"{name}, {case}, {transport}", ours, base, tree.remarks(from_origin))
    tree.stop()
    return rows


def speeds(id, baseline_name):
    def row(what, ours, base, remarks):
        rates = [[done["bytes"] / done["seconds"][0] / 1e9 for done in samples] for samples in (ours, base)]
        return [Row(id, what, "GB/s", rates[0], None, baseline=rates[1], baseline_name=baseline_name, **remarks)]
    return row


def model(place, builds, options):
    size = int(512 * MIB * options.scale)
    tree = Tree(place, builds, options, 4 * size, ("make-model", 4, max(size, 32 * MIB)))
    readers = [("safetensors, tensor by tensor", (python_with("safetensors") or sys.executable, "load-model"))]
    if with_torch := python_with("torch"):
        readers.append(("safetensors mapped by torch", (with_torch, "load-model", "--framework=torch")))
    row = speeds("E1", "the same reader of the source on the raw disk, as cold")
    rows = measured(place, options, tree, readers, row)
    if with_torch:
        size = max(32 * MIB, int(1024 * MIB * options.scale))
        tree = Tree(place, builds, options, size, ("make-checkpoint", size), python=with_torch)
        rows += measured(place, options, tree, [("torch.load of a checkpoint", (with_torch, "load-checkpoint"))], row)
    return rows


def shards(place, builds, options):
    count = max(4, int(32 * options.scale))
    tree = Tree(place, builds, options, count * 64 * MIB, ("make-shards", count, 64 * MIB))
    readers = [(f"{count} tar shards, 4 processes, shuffled", (sys.executable, "load-shards", "--workers=4", "--seed=1"))]
    return measured(place, options, tree, readers, speeds("E2", "the same reader of the source on the raw disk, as cold"))


def images(place, builds, options):
    count = max(200, int(50_000 * options.scale))
    tree = Tree(place, builds, options, count * 40 * 1024, ("make-images", count))
    readers = [(f"{count:,} images, 8 processes", (sys.executable, "load-images", "--workers=8", "--epochs=2", "--seed=1"))]
    def row(what, ours, base, remarks):
        # A listing through the mount looks at each file, which the first epoch of the raw reader still has to do: they are one
        # figure. The second epoch finds what the first left in the page cache.
        rows = []
        for name, seconds_of in (("listing and epoch 1", lambda done: done["listing"] + done["seconds"][0]),
                                 ("epoch 2", lambda done: done["seconds"][1])):
            times = [[seconds_of(done) for done in samples] for samples in (ours, base)]
            rows.append(Row("E3", f"{what}, {name}", "s", times[0], None, at_most=True, baseline=times[1],
                            baseline_name="the same reader of the source on the raw disk, as cold at the start", **remarks))
        return rows
    return measured(place, options, tree, readers, row)
