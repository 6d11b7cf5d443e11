#!/usr/bin/env python3
"""Every metric of the table is proven by some test: it stands in tests/mount/metrics.list, and the test named there speaks of
it. So the table cannot grow untested."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "mount"
# What carries its number in another name.
SUFFIXES = ("", "_count", "_bucket", "_sum")


def in_table():
    names = re.findall(r'^\s*\{"(blobcache_[a-z0-9_]+)",', (ROOT / "src/node/metrics_table.cc").read_text(), re.M)
    if len(names) < 40:
        sys.exit(f"only {len(names)} metrics were found in the table: the table or this program has changed")
    return names


def in_list():
    lines = [line for line in (TESTS / "metrics.list").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split() for line in lines)


def checks(text, name):
    """A line of the test that is no comment and names the metric as a whole, maybe as a pattern (l0_hits among others)."""
    wanted = re.compile(rf"\b{name}({'|'.join(SUFFIXES)})\b")
    return any(wanted.search(line) for line in text.splitlines() if not line.lstrip().startswith("#"))


def problems_of(table, listed, text_of):
    """text_of(test): its script, None when there is none."""
    yield from (f"{name} is in the table and in no test's list" for name in table if name not in listed)
    yield from (f"{name} is in metrics.list and not in the table" for name in listed if name not in table)
    for name, test in listed.items():
        text = text_of(test)
        if text is None:
            yield f"{name}: there is no tests/mount/{test}.sh"
        elif not checks(text, name):
            yield f"{name}: {test}.sh does not speak of it"


def self_test():
    scripts = {"one": "expect_moved blobcache_a_total 1\n", "two": "# blobcache_b\nexpect_moved 'blobcache_b_count{x=\"y\"}' 1\n",
               "three": "# blobcache_c\nblobcache_cd\n"}
    good = {"blobcache_a_total": "one", "blobcache_b": "two"}
    bad = [({"blobcache_a_total": "one"}, "blobcache_b is in the table"), (good | {"blobcache_x": "one"}, "not in the table"),
           (good | {"blobcache_b": "none"}, "no tests/mount/none.sh"), (good | {"blobcache_b": "three"}, "not speak of it")]
    found = list(problems_of(list(good), good, scripts.get))
    assert not found, found
    assert not checks(scripts["three"], "blobcache_c"), "a comment or a longer name is taken for a check"
    for listed, wanted in bad:
        found = list(problems_of(list(good), listed, scripts.get))
        assert any(wanted in problem for problem in found), f"{listed}: {found}"


def main():
    if "--self-test" in sys.argv:
        return self_test()
    def text_of(test):
        script = TESTS / f"{test}.sh"
        return script.read_text() if script.exists() else None
    problems = list(problems_of(in_table(), in_list(), text_of))
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


main()
