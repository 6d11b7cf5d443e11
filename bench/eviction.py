"""P18: what the disk tier's eviction hits, beside the policies that it was chosen from. No disk and no clock is in it."""

import json

from harness import run
from measure import Row

CHOSEN = "S3-FIFO"
EPOCHS = ("fixed", "shuffled")
TRACE = "10 million requests in the oracleGeneral format of libCacheSim, generated"


def hit_rates(place, builds, options):
    program = builds.helper("eviction_bench")
    rows = []
    for line in run([program, "--list"]).strip().split("\n"):
        name, what = line.split(" ", 1)
        rows += rows_of(what, run([program, name]), 45 if name in EPOCHS else None)
    trace = place.new_path("trace")
    run([program, "--write", trace])
    return rows + rows_of(TRACE, run([program, "--trace", trace]), None)


def rows_of(what, output, target):
    """A row for each policy, with the detector and without; only what is used is judged."""
    rows = []
    for found in map(json.loads, output.strip().split("\n")):
        used = found["policy"] == CHOSEN and found["detector"]
        name = found["policy"] + (" + detector" if found["detector"] else "") + (" (used)" if used else "")
        rows.append(Row("P18", f"{what}: {name}", "% of bytes", [found["bytes_hit"]], target if used else None,
                        note=f"{name}, {what}: {found['requests_hit']:.1f} % of requests hit, {found['bytes_written']:.1f} % "
                             f"of bytes written to the cache, {found['ns']:.0f} ns an access, "
                             f"{found['bytes_per_entry']} B an entry"))
    return rows
