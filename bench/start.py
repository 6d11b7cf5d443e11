"""P15: from exec to the first hit with 1,000,000 chunks in the cache directory, and what the index takes in memory.

A daemon caches one real file; index_bench then adds the rest with the daemon's own classes, as objects in sparse files.
The hit is a read of the real file through the mount that the disk tier answers: the count of the daemon says so.
"""

import json
import os
import signal
import time

from disk import DiskFolder, is_settled
from harness import MIB, BenchError, run, wait_until
from measure import Row
from servers import mount_blobcache, node_status

CHUNKS = 1_000_000
REAL_BYTES = 64 * MIB
READ_BYTES = 64 << 10


def first_hit(place, builds, folder, expected):
    """Seconds from exec to the first bytes, and the daemon's mount."""
    start = time.monotonic()
    mount = mount_blobcache(place, builds, folder.source, {"fuse.passthrough": "off"}, memory="2GiB", cache=folder.cache)
    with open(mount.file("data"), "rb", buffering=0) as file:
        got = file.read(READ_BYTES)
    seconds = time.monotonic() - start
    if got != expected:
        raise BenchError("the first read gave wrong bytes")
    return seconds, mount


def fill_one_file(place, builds, folder):
    path = os.path.join(folder.source, "data")
    with open(path, "wb") as file:
        file.write(os.urandom(REAL_BYTES))
    wait_until(lambda: is_settled(path), 5, "the file being old enough to be cached")
    mount = mount_blobcache(place, builds, folder.source, {"fuse.passthrough": "off"}, memory="2GiB", cache=folder.cache)
    run(["cmp", path, mount.file("data")])
    def is_written():
        return json.loads(os.getxattr(mount.file("data"), "user.blobcache.tiers"))["disk"] == REAL_BYTES
    wait_until(is_written, 60, "the file being on disk")
    mount.stop()
    with open(path, "rb") as file:
        return file.read(READ_BYTES)


def warm_start(place, builds, options):
    chunks = int(CHUNKS * options.scale)
    program = builds.helper("index_bench")
    folder = DiskFolder(place, options)
    expected = fill_one_file(place, builds, folder)
    added = int(run([program, "grow", folder.cache, str(chunks)]))
    rows, seconds, index_bytes = [], [], []
    invalid = ""
    for turn in range(options.pairs + 1):
        took, mount = first_hit(place, builds, folder, expected)
        status = node_status(mount.process)
        if not status["volumes"][0]["bytes"]["disk"]:
            invalid = f"the first read was no hit: {status['volumes'][0]['bytes']}"
        disk = status["tiers"]["disk"]
        if disk["objects"] < added // 16:
            invalid = f"the daemon knows {disk['objects']} of {added // 16} objects"
        if turn:
            seconds.append(took)
        index_bytes.append(disk["index_bytes"] / added)
        # After a kill as well as after an end in order: both starts are measured in turns.
        if turn % 2:
            place.stop(mount.process, signal.SIGKILL)
        mount.stop()
    rows.append(Row("P15", f"exec to the first hit, {added:,} chunks cached", "s", seconds, 1, at_most=True, invalid=invalid,
                    note="every second start follows a kill -9"))
    rows.append(Row("P15", f"memory of index and eviction, {added:,} chunks in files of 64 MiB", "bytes a chunk", index_bytes, 64,
                    at_most=True, invalid=invalid, note="what the daemon says of itself"))
    for objects, per_object in ((chunks, 1), (chunks // 16, 16), (chunks // 1000, 1000)):
        size = float(run([program, "memory", str(max(1, objects)), str(per_object)]))
        rows.append(Row("P15", f"memory of the index, objects of {per_object:,} chunk{'s' * (per_object > 1)}", "bytes a chunk",
                        [size], 64, at_most=True))
    return rows
