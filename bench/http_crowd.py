"""H1: the mount's latency while ten thousand callers crowd its HTTP endpoint, against the same without them.

4 KiB random direct reads that memory answers, one reader: p99 of fio's completion latencies, in turns with and without the
crowd. The crowd (crowd_client.py) is a process of its own on the same machine: what it costs by itself counts against us.
"""

import os
import socket
import subprocess
import sys

import servers
from harness import BenchError, die_with_parent, timed, verified_pass
from measure import Row, alternate
from reads import Data, origin_reads

CROWD = 10_000
AGAIN_A_SECOND = 100
RANDOM_4K = ["--rw=randread", "--bs=4k", "--ioengine=psync"]
MEMORY = "1GiB"


def free_port():
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        return link.getsockname()[1]


class Crowd:
    def __init__(self, port):
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "crowd_client.py")
        self.process = subprocess.Popen([sys.executable, program, str(port), str(CROWD), str(AGAIN_A_SECOND)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        if self.process.stdout.readline() != "here\n":
            raise BenchError("the crowd did not come: see above")

    def leave(self):
        self.process.stdin.close()
        if self.process.wait(30) != 0:
            raise BenchError(f"the crowd ended with {self.process.returncode}")


def p99_us(path, seconds):
    return timed(path, seconds, RANDOM_4K)["clat_ns"]["percentile"]["99.000000"] / 1000


def crowded(place, builds, options):
    data = Data(place)
    rows = []
    for transport in ("uring", "dev"):
        if transport == "uring":
            place.enable_fuse_uring()
        port = free_port()
        keys = {"fuse.transport": transport, "http.listen": f"127.0.0.1:{port}"}
        mount = servers.mount_blobcache(place, builds, data.origin, keys, memory=MEMORY)
        verified_pass(mount.file("data"), "1m")
        verified_pass(mount.file("data"), "4k")
        data.disk.forget(data.origin_file)
        before = data.disk.bytes_read()

        def with_crowd():
            crowd = Crowd(port)
            try:
                return p99_us(mount.file("data"), options.seconds)
            finally:
                crowd.leave()
        ours, base = alternate(options.pairs, with_crowd, lambda: p99_us(mount.file("data"), options.seconds))
        rows.append(Row("H1", f"p99 of 4 KiB random reads from memory, {CROWD:,} HTTP callers, {transport}", "us", ours, 1.2,
                        at_most=True, baseline=base, baseline_name="the same mount without callers",
                        invalid=origin_reads(data, before)))
        mount.stop()
    watch = place.memory_watch
    rows.append(Row("H1", "resident memory and huge pages of the limit meanwhile", "share", [watch.most], 1.05, at_most=True,
                    note=f"{watch.words} at most, {watch.samples:,} samples"))
    return rows
