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
import eviction
import harness
import metadata
import reads
import report
import servers

FOLDER = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(FOLDER)

BENCHES = {
    "P3": ("4 KiB random reads from memory against libfuse's passthrough_ll", reads.random_reads),
    "P4": ("1 MiB sequential reads from memory against a server that only copies", reads.sequential_reads),
    "P6": ("system calls of the daemon in steady state", costs.system_calls),
    "P7": ("allocations of the daemon on hits", costs.allocations),
    "P8": ("acquire and release of a buffer", costs.buffer_pool),
    "P18": ("hit rates of the eviction policies: epochs, popularity, models over a scan, a trace", eviction.hit_rates),
    "P22": ("FUSE requests of everyday metadata work, with and without timeouts", metadata.metadata_requests),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"one or more of {' '.join(BENCHES)}; all without")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of ours and the baseline (5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of one timed turn (3)")
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
    return options


def measure(options, failures):
    """Each id in a place of its own, so that nothing of one is left for the next."""
    rows = []
    for id in options.ids or BENCHES:
        print(f"{id}: {BENCHES[id][0]} ...", file=sys.stderr, flush=True)
        try:
            with harness.Place(options) as place:
                found = BENCHES[id][1](place, servers.Builds(place, options, REPOSITORY), options)
            print(report.text_table(found), end="\n\n", file=sys.stderr, flush=True)
            rows += found
        except harness.BenchError as error:
            failures.append(f"{id}: {error}")
            print(f"{id} could not be measured: {error}", file=sys.stderr, flush=True)
    return rows


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
