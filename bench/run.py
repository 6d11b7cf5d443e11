#!/usr/bin/env python3
"""Measures blobcache against its baselines and says whether the targets are met.

  bench/run.py                      everything, on a release build of this tree
  bench/run.py P3 P6 --pairs=9      some of it, longer
  bench/run.py --results            everything, and renews bench/results.json and bench/RESULTS.md
  bench/run.py --list               what there is

Needs root (it mounts and traces) and installs the tools it lacks. Ends with 0 when everything was measured, whatever
the verdicts; 1 when something could not be.
"""

import argparse
import os
import signal
import sys

import costs
import disk
import epochs
import eviction
import harness
import http_crowd
import metadata
import metrics_cost
import origins
import prefetch
import readers
import reads
import report
import scaling
import servers
import start
from measure import Row

FOLDER = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(FOLDER)

BENCHES = {
    "P1": ("whole objects by passthrough against the raw file, page cache warm", disk.passthrough),
    "P2": ("reads from the disk tier against the raw file with O_DIRECT", disk.chain),
    "P3": ("4 KiB random reads from memory against libfuse's passthrough_ll", reads.random_reads),
    "P4": ("1 MiB sequential reads from memory against a server that only copies", reads.sequential_reads),
    "P5": ("buffered sequential reads from memory, page cache cold, against libfuse's passthrough_ll", prefetch.buffered),
    "P6": ("system calls of the daemon in steady state", costs.system_calls),
    "P7": ("allocations of the daemon on hits", costs.allocations),
    "P8": ("acquire and release of a buffer", costs.buffer_pool),
    "P9": ("cold sequential reads from a web server, near and far, against 16 parallel curl ranges", origins.sequential),
    "P10": ("cold 4 KiB random reads from a web server against curl ranges", origins.random_reads),
    "P11": ("mapped models from the disk tier against read(2), and what prefetch costs random readers", prefetch.mapped_models),
    "P12": ("epochs over 100,000 small files against the tree on the raw disk", epochs.small_files),
    "P15": ("start with 1,000,000 cached chunks, and the memory of their index", start.warm_start),
    "P16": ("what the daemons of all the others held of their memory limit", None),
    "P18": ("hit rates of the eviction policies: epochs, popularity, models over a scan, a trace", eviction.hit_rates),
    "P20": ("throughput of 1 to 64 readers, index lookups at 1 K to 10 M objects", scaling.growth),
    "P22": ("FUSE requests of everyday metadata work, with and without timeouts", metadata.metadata_requests),
    "E1": ("a model of safetensors shards loaded as by the package, against the raw disk", readers.model),
    "E2": ("a loader of tar shards with 4 processes, against the raw disk", readers.shards),
    "E3": ("two epochs of an image folder of 50,000 files with 8 processes, against the raw disk", readers.images),
    "H1": ("latency of the mount while 10,000 callers crowd the HTTP endpoint", http_crowd.crowded),
    "H2": ("what the metrics cost a hit", metrics_cost.counting),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"one or more of {' '.join(BENCHES)}; all without")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of ours and the baseline (5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of one timed turn (3)")
    parser.add_argument("--scale", type=float, default=1, help="share of the full number of files, chunks and bytes in P1, P2, "
                        "P9, P12, P15, P20, E1, E2, E3 (1); to try them, not for results")
    parser.add_argument("--json", metavar="FILE", help="also write the figures of this run to FILE")
    parser.add_argument("--results", action="store_true", help="renew results.json and RESULTS.md beside this program")
    parser.add_argument("--blobcache", metavar="PATH", help="the binary to measure; a release build of this tree without")
    parser.add_argument("--build", metavar="DIR", default=os.path.join(REPOSITORY, "build", "bench"), help="where to build")
    parser.add_argument("--list", action="store_true", help="say what can be measured, and end")
    options = parser.parse_args()
    unknown = [id for id in options.ids if id not in BENCHES]
    if unknown:
        parser.error(f"there is no {' '.join(unknown)}; there are {' '.join(BENCHES)}")
    if options.pairs < 1 or options.seconds < 1:
        parser.error("--pairs and --seconds start at 1")
    if not 0 < options.scale <= 1:
        parser.error("--scale is more than 0 and at most 1")
    if options.results and options.scale != 1:
        parser.error("results are of the full size: --scale and --results do not go together")
    if options.ids == ["P16"]:
        parser.error("P16 is measured during the others: name some of them too")
    return options


def measure(options, failures):
    """Each id in a place of its own, so that nothing of one is left for the next."""
    rows, memory = [], []
    for id in options.ids or BENCHES:
        if id == "P16":
            continue
        print(f"{id}: {BENCHES[id][0]} ...", file=sys.stderr, flush=True)
        try:
            with harness.Place(options) as place:
                found = BENCHES[id][1](place, servers.Builds(place, options, REPOSITORY), options)
            print(report.text_table(found), end="\n\n", file=sys.stderr, flush=True)
            rows += found
            memory += memory_row(id, place.memory_watch)
        except harness.BenchError as error:
            failures.append(f"{id}: {error}")
            print(f"{id} could not be measured: {error}", file=sys.stderr, flush=True)
    return rows + ordered_memory_rows(memory, options)


def memory_row(id, watch):
    """P16: the most that a daemon of this bench held."""
    if not watch.samples:
        return []
    return [Row("P16", f"resident memory and huge pages of the limit, during {id}", "share", [watch.most], 1.05,
                        at_most=True, note=f"{id}: {watch.words} at most, {watch.samples:,} samples")]


def ordered_memory_rows(memory, options):
    """Asked for by name or with everything; a limit that was not kept is told in any case."""
    if not options.ids or "P16" in options.ids:
        return memory
    return [row for row in memory if row.verdict() != "met"]


def stop_on_signal(*_):
    raise KeyboardInterrupt


def main():
    options = parse_arguments()
    if options.list:
        for id, (what, _) in BENCHES.items():
            print(f"{id:4} {what}")
        return 0
    harness.enter_private_namespace()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_on_signal)
    harness.install_tools()
    # Paths are of this machine and say nothing elsewhere.
    shown = [word for word in sys.argv[1:] if not word.startswith(("--json", "--build", "--blobcache"))]
    run = report.facts(REPOSITORY, " ".join(["bench/run.py", *shown]))
    failures = []
    rows = measure(options, failures)
    run["rows"] = [row.as_json() for row in rows]
    if rows:
        print(f"{run['machine']}, Linux {run['kernel']}, commit {run['commit']}, {run['date']}\n\n{report.text_table(rows)}")
    if options.json:
        report.write_json(options.json, [run])
    if options.results and rows:
        results = os.path.join(FOLDER, "results.json")
        runs = report.merge(report.load_runs(results), run)
        report.write_json(results, runs)
        report.write_results(os.path.join(FOLDER, "RESULTS.md"), runs)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except harness.BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        sys.exit(130)
