"""H2: what counting costs a hit: the additions and the look at the clock that a READ answered from memory makes for the
metrics (metrics_bench), against the processor time that the daemon takes for one.

Left out and put in by turns the two could not be told apart: the difference is below what one run differs from the next.
"""

import os

from harness import run, timed
from measure import Row
from reads import Data, RANDOM_4K, mount_warm, origin_reads

COUNT = 20_000_000


def cpu_ns(pid):
    """Of all threads, to the nanosecond."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as fields:
            total += int(fields.read().split()[0])
    return total


def cpu_ns_per_hit(mount, seconds):
    before = cpu_ns(mount.process.pid)
    job = timed(mount.file("data"), seconds, [*RANDOM_4K, "--ramp_time=0"])
    return (cpu_ns(mount.process.pid) - before) / job["total_ios"]


def counting(place, builds, options):
    program = builds.helper("metrics_bench")
    data = Data(place)
    rows = []
    for transport in ("uring", "dev"):
        mount = mount_warm(place, builds, data, transport, "4k")
        cpu_ns_per_hit(mount, 1)
        before = data.disk.bytes_read()
        ours, base = [], []
        for _ in range(options.pairs):
            ours.append(float(run([program, str(COUNT)])))
            base.append(cpu_ns_per_hit(mount, options.seconds))
        rows.append(Row("H2", f"counting a hit, of the processor time of a 4 KiB hit, {transport}", "ns", ours, 0.01,
                        at_most=True, baseline=base, baseline_name="processor time of the daemon for one",
                        invalid=origin_reads(data, before)))
        mount.stop()
    return rows
