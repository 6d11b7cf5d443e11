#!/usr/bin/env python3
"""Prints what must be built before the tests of the named suites can run, one file a line.

  targets.py BUILD_DIR SUITE...
"""
import json
import os
import subprocess
import sys


def main() -> int:
    build, suites = os.path.abspath(sys.argv[1]), set(sys.argv[2:])

    def introspect(what: str):
        return json.loads(subprocess.check_output(["meson", "introspect", what, build], text=True))

    files = {target["id"]: target["filename"] for target in introspect("--targets")}
    needed = set()
    for test in introspect("--tests"):
        if suites.isdisjoint(name.split(":")[-1] for name in test["suite"]):
            continue
        for target in test["depends"]:
            needed.update(os.path.relpath(file, build) for file in files[target])
    print("\n".join(sorted(needed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
