"""P22: how many requests the kernel sends for everyday metadata work, with our timeouts and with none.

Counted by the kernel's own tracepoint fuse:fuse_request_send, for our connection alone, so nothing depends on what the
daemon says about itself. FORGETs do not pass that tracepoint; they cost no round trip.
"""

import collections
import os
import re
import sys

from harness import BenchError, connection_of, kernel_trace, run
from measure import Row
from servers import mount_blobcache

NO_TIMEOUTS = {"fuse.entry_timeout": "0s", "fuse.attr_timeout": "0s", "fuse.negative_timeout": "0s"}
FOLDERS = 40
FILES_PER_FOLDER = 50
RE_OPENS = 1000
PROCESSES = 20
IMPORTS_PER_PROCESS = 50

# Twenty processes look for the same fifty modules that are not there, as workers of one job do: first the importer,
# which lists the folder, then a plain look for each of the names an interpreter without such a list would try.
IMPORTS = """
import importlib, os, sys
root = sys.argv[1]
sys.path.insert(0, root)
for number in range(int(sys.argv[2])):
    name = f"missing_{number}"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        pass
    else:
        sys.exit("a module that does not exist was imported")
    if os.path.exists(os.path.join(root, name, "__init__.py")) or os.path.exists(os.path.join(root, name + ".py")):
        sys.exit("a file that does not exist was found")
"""


def make_tree(folder):
    for number in range(FOLDERS):
        sub = os.path.join(folder, f"folder_{number}")
        os.mkdir(sub)
        for index in range(FILES_PER_FOLDER):
            with open(os.path.join(sub, f"file_{index}"), "wb") as file:
                file.write(f"{number}/{index}\n".encode() * 100)
    with open(os.path.join(folder, "data"), "wb") as file:
        file.write(os.urandom(64 << 10))


def list_twice(path, source):
    expected = len(run(["ls", "-lR", source]).splitlines())
    for _ in range(2):
        if len(run(["ls", "-lR", path]).splitlines()) != expected:
            raise BenchError("ls -lR shows another tree than the origin's")


def failed_imports(path, _source):
    for _ in range(PROCESSES):
        run([sys.executable, "-c", IMPORTS, path, str(IMPORTS_PER_PROCESS)])


def re_opens(path, source):
    with open(os.path.join(source, "data"), "rb") as file:
        expected = file.read()
    for _ in range(RE_OPENS):
        with open(os.path.join(path, "data"), "rb", buffering=0) as file:
            if file.read(len(expected)) != expected:
                raise BenchError("a re-opened file gave other bytes")


WORKLOADS = [("ls -lR twice", list_twice), (f"{PROCESSES * IMPORTS_PER_PROCESS:,} failed imports", failed_imports),
             (f"{RE_OPENS:,} re-opens with a read", re_opens)]


def counts_of(trace):
    return collections.Counter(re.findall(r"opcode \d+ \(FUSE_(\w+)\)", trace))


def requests_of(place, builds, source, keys):
    """The requests of each workload on a fresh mount."""
    mount = mount_blobcache(place, builds, source, keys, memory="512MiB")
    counts = []
    with kernel_trace("fuse/fuse_request_send", f"connection == {connection_of(mount.path)}") as take:
        for _, workload in WORKLOADS:
            workload(mount.path, source)
            counts.append(counts_of(take()))
    mount.stop()
    return counts


def metadata_requests(place, builds, options):
    source = place.new_folder("tree")
    make_tree(source)
    ours, base = [], []
    for _ in range(options.pairs):
        ours.append(requests_of(place, builds, source, {}))
        base.append(requests_of(place, builds, source, NO_TIMEOUTS))
    def row(what, pick):
        return Row("P22", what, "requests", [pick(counts) for counts in ours], 0.5, at_most=True,
                   baseline=[pick(counts) for counts in base], baseline_name="the same mount with all timeouts 0")
    rows = [row("all three", lambda counts: sum(count.total() for count in counts))]
    for i, (what, _) in enumerate(WORKLOADS):
        rows.append(row(what, lambda counts: counts[i].total()))
        rows[-1].note = f"ours: {listed(ours[-1][i])}; timeouts 0: {listed(base[-1][i])}"
    return rows


def listed(opcodes):
    return ", ".join(f"{count} {name}" for name, count in opcodes.most_common()) or "none"
