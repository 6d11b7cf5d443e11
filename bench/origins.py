"""P9 and P10: cold reads through the mount from a web server, against curl asking the same server.

The server (range_server) is as far away as it is told, and counts what it sends. Every turn of ours is a fresh mount, so
every byte comes from the server once, but for the ranges that stalled and were asked for a second time (hedges, which the
notes name): that none else came twice is a row of its own, and makes the other rows invalid where it is not so. The bytes
are compared with the file's, outside of the timed turns.

P9, sequential: the baseline is sixteen curls, each with a sixteenth of the file as one range: it pays for a request once. They
throw the bytes away, where our reader's lie in the page cache afterwards; so there is a row with curls that keep them.
Without prefetch we pay for each piece after the other; that the gain is prefetch's is the second row.
P10, 4 KiB random: a curl a reader, which asks one range after the other over one connection, and tells how long each
took. We fetch a block of 64 KiB for each, so at most 16 times what is asked for. Between two ranges a curl is busy with itself,
so near the server ours ask several times as often, and for each other's CPUs: they are also measured at the pace of the curls.
"""

import json
import os
import random
import subprocess
import time
import urllib.request

from harness import MIB, BenchError, die_with_parent, fio, run, wait_until
from measure import Row, alternate
from servers import mount_blobcache, node_status

CONNECTIONS = 16
FAR_MS = 30  # an object store in the same region
READERS = 8
RANDOM_FILE_BYTES = 64 << 30  # sparse: large enough that two random reads rarely meet in one block
READ_BYTES = 4096
MEMORY = "2GiB"


class WebServer:
    """range_server over one file, and what it counts."""

    def __init__(self, place, builds, file, delay_ms):
        self.bytes = os.path.getsize(file)
        port_file = place.new_path("port")
        place.start([builds.helper("range_server"), file, port_file, str(delay_ms)])
        wait_until(lambda: os.path.exists(port_file), 10, "the web server")
        with open(port_file) as port:
            self.url = f"http://127.0.0.1:{port.read()}"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def counts(self):
        with self.opener.open(f"{self.url}/counts", timeout=20) as answer:
            return json.load(answer)


def fresh_mount(place, builds, server, keys):
    return mount_blobcache(place, builds, f"{server.url}/", keys, memory=MEMORY)


class Repeats:
    """What the server sent more than once, over several turns, and how much of that were hedges."""

    def __init__(self):
        self.requests = self.bytes = self.hedges = 0

    def add(self, counts, mount):
        self.requests += counts["requests_again"]
        self.bytes += counts["bytes_again"]
        self.hedges += node_status(mount.process)["origins"][0]["hedges"]

    def note(self):
        return f"{self.bytes} bytes came twice, {self.hedges} hedges" if self.bytes else ""

    def invalid(self):
        return f"{self.requests} requests were repeated, {self.hedges} of them hedges" if self.requests > self.hedges else ""


def curl(arguments):
    return subprocess.Popen(["curl", "-sS", *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)


def finish(processes):
    """Waits for all; what they printed, joined."""
    said = [process.communicate() for process in processes]
    for process, (_, error) in zip(processes, said):
        if process.returncode != 0:
            raise BenchError(f"curl ended with {process.returncode}: {error.strip()}")
    return "".join(out for out, _ in said)


class Sequential:
    """Turns over one file: whole, cold, by one reader, and by parallel curls."""

    def __init__(self, place, builds, server, transport):
        self.place, self.builds, self.server = place, builds, server
        self.keys = {"fuse.transport": transport}
        self.shares = []  # of the file, sent in a turn of ours
        self.repeats = Repeats()

    def ours(self, keys=None):
        mount = fresh_mount(self.place, self.builds, self.server, {**self.keys, **(keys or {})})
        self.server.counts()
        start = time.monotonic()
        run(["dd", f"if={mount.file('data')}", "of=/dev/null", "bs=1M"])
        seconds = time.monotonic() - start
        counts = self.server.counts()
        self.shares.append(counts["bytes"] / self.server.bytes)
        self.repeats.add(counts, mount)
        mount.stop()
        return self.server.bytes / seconds / 1e9

    def curls(self, keep=None):
        """keep: a folder in memory; without one they throw away what they get."""
        part = self.server.bytes // CONNECTIONS
        outputs = [os.path.join(keep, str(i)) if keep else "/dev/null" for i in range(CONNECTIONS)]
        start = time.monotonic()
        finish([curl(["--fail", "--noproxy", "*", "-o", output, "-r", f"{i * part}-{(i + 1) * part - 1}", f"{self.server.url}/data"])
                for i, output in enumerate(outputs)])
        seconds = time.monotonic() - start
        for output in outputs if keep else ():
            os.remove(output)
        return self.server.bytes / seconds / 1e9

    def compare_bytes(self, file):
        mount = fresh_mount(self.place, self.builds, self.server, self.keys)
        run(["cmp", file, mount.file("data")])
        mount.stop()

    def bytes_row(self, what):
        return Row("P9", f"bytes that left the origin, of the file's, {what}", "share", self.shares, 1.0, at_most=True,
                   note=self.repeats.note())


def random_file(place, size_bytes):
    """In a tmpfs, so that the server's disk is not what is measured."""
    path = place.new_path("data")
    piece = os.urandom(64 * MIB)
    with open(path, "wb") as file:
        for number in range(0, size_bytes, len(piece)):
            file.write(number.to_bytes(8, "little") + piece[8:min(len(piece), size_bytes - number)])
    return path


def sequential(place, builds, options):
    rows = []
    for size, delay_ms, what in ((1024 * MIB, FAR_MS, f"1 GiB, {FAR_MS} ms per request"), (4096 * MIB, 0, "4 GiB, on loopback")):
        size = int(size * options.scale) // (64 * MIB) * 64 * MIB or 64 * MIB
        file = random_file(place, size)
        server = WebServer(place, builds, file, delay_ms)
        for transport in ("uring", "dev"):
            if transport == "uring":
                place.enable_fuse_uring()
            turns = Sequential(place, builds, server, transport)
            turns.compare_bytes(file)
            ours, base = alternate(options.pairs, turns.ours, turns.curls)
            rows.append(Row("P9", f"cold sequential, 1 reader, {what}, {transport}", "GB/s", ours, 0.9, baseline=base,
                            baseline_name=f"{CONNECTIONS} parallel curl ranges", invalid=turns.repeats.invalid()))
            rows.append(turns.bytes_row(f"{what}, {transport}"))
            keep = place.new_folder("kept")
            ours, base = alternate(max(1, options.pairs // 2), turns.ours, lambda: turns.curls(keep))
            rows.append(Row("P9", f"the same, {what}, {transport}", "GB/s", ours, None, baseline=base,
                            baseline_name="curls that keep what they get in a tmpfs, as the page cache does for us"))
            if delay_ms:
                off = Sequential(place, builds, server, transport)
                ours, base = alternate(max(1, options.pairs // 2), turns.ours,
                                       lambda: off.ours({"prefetch.enabled": "false"}))
                rows.append(Row("P9", f"the same with prefetch, {what}, {transport}", "GB/s", ours, 8, baseline=base,
                                baseline_name="without prefetch", invalid=off.repeats.invalid()))
        os.remove(file)
    return rows


class RandomReads:
    """Turns of 4 KiB reads at random places, cold, as many for each reader: the median time of one, in milliseconds."""

    def __init__(self, place, builds, server, transport, reads):
        self.place, self.builds, self.server = place, builds, server
        self.keys = {"fuse.transport": transport}
        self.reads = reads  # of each reader; their blocks fit in memory, so none is fetched again
        self.numbers = random.Random(10)
        self.fetched = []  # bytes sent for each byte asked for
        self.repeats = Repeats()
        self.rates = []  # reads a second of all readers, in each turn
        self.curl_rates = []

    def ours(self, rate=None):
        """rate: of all readers together, reads a second; without one they read as fast as they can."""
        mount = fresh_mount(self.place, self.builds, self.server, self.keys)
        self.server.counts()
        done = fio([f"--filename={mount.file('data')}", "--readonly", "--norandommap", "--rw=randread", "--bs=4k",
                    "--ioengine=psync", f"--numjobs={READERS}", f"--number_ios={self.reads}",
                    f"--randseed={self.numbers.randrange(1 << 30)}",
                    *([f"--rate_iops={max(1, round(rate / READERS))}", "--rate_process=poisson"] if rate else [])])
        counts = self.server.counts()
        replied = sum(node_status(mount.process)["volumes"][0]["bytes"].values())
        self.fetched.append(counts["bytes"] / replied)
        self.repeats.add(counts, mount)
        self.rates.append(done["iops"])
        mount.stop()
        return done["clat_ns"]["percentile"]["50.000000"] / 1e6

    def curls(self):
        configs = [self.write_curl_config() for _ in range(READERS)]  # before the first one starts: they run side by side
        start = time.monotonic()
        processes = [curl(["--config", config]) for config in configs]
        times = sorted(float(line) for line in finish(processes).split())
        self.curl_rates.append(len(times) / (time.monotonic() - start))
        return times[len(times) // 2] * 1e3

    def write_curl_config(self):
        config = self.place.new_path("curl")
        pages = self.server.bytes // READ_BYTES
        with open(config, "w") as file:
            for number in range(self.reads):
                first = self.numbers.randrange(pages) * READ_BYTES
                file.write("next\n" if number else "")
                file.write(f'url = "{self.server.url}/data"\nrange = "{first}-{first + READ_BYTES - 1}"\n'
                           'output = "/dev/null"\nwrite-out = "%{time_total}\\n"\nfail\nnoproxy = "*"\n')
        return config


def random_reads(place, builds, options):
    rows = []
    file = place.new_path("sparse")
    with open(file, "wb") as sparse:
        sparse.truncate(RANDOM_FILE_BYTES)
    for delay_ms, reads, what in ((FAR_MS, 80, f"{FAR_MS} ms per request"), (0, 1000, "on loopback")):
        server = WebServer(place, builds, file, delay_ms)
        for transport in ("uring", "dev"):
            if transport == "uring":
                place.enable_fuse_uring()
            turns = RandomReads(place, builds, server, transport, reads)
            shape = f"4 KiB random, cold, {READERS} readers, {what}"
            def latency(name, act):
                ours, base = alternate(options.pairs, act, turns.curls)
                rows.append(Row("P10", f"{name}, {transport}", "ms (median)", ours, 1.1, at_most=True, baseline=base,
                                baseline_name="curl ranges of 4 KiB, a connection a reader", invalid=turns.repeats.invalid()))
            latency(shape, turns.ours)
            rows.append(Row("P10", f"reads a second in that, {what}, {transport}", "K reads/s",
                            [rate / 1e3 for rate in turns.rates[1:]], None,  # without those that warmed up
                            baseline=[rate / 1e3 for rate in turns.curl_rates[1:]],
                            baseline_name="the curls, their own time included"))
            if not delay_ms:  # where the distance does not set the pace: the curls leave the CPUs idle between two reads
                latency(f"{shape}, at the pace of the curls", lambda: turns.ours(turns.curl_rates[-1]))
            rows.append(Row("P10", f"bytes fetched for each asked for, {what}, {transport}", "times", turns.fetched, 16,
                            at_most=True, note=turns.repeats.note()))
    return rows
