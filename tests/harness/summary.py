#!/usr/bin/env python3
"""Counts what a meson test run really executed: summary.py TESTLOG.json [--self-test].

A doctest program counts as its test cases, any other test as one. Prints `PASSED FAILED SKIPPED` on the last line and
before it a line for each failed and each skipped thing. A line of a test that starts with "not tested:" or
"not checked:" is a thing skipped, whatever the result of the test that says so.
"""

import json
import re
import sys

DOCTEST = re.compile(r'^\[doctest\] test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed\s*\|\s*(\d+) skipped',
                     re.MULTILINE)
COLOUR = re.compile(r'\x1b\[[0-9;]*m')
NOT_TESTED = re.compile(r'^\s*(not (?:tested|checked):.*)$', re.MULTILINE)
GOOD = {'OK', 'EXPECTEDFAIL'}


def count(entries):
    """(passed, failed, skipped, lines to print) of meson's test records."""
    passed = failed = skipped = 0
    lines = []
    for entry in entries:
        name, result = entry['name'], entry['result']
        output = COLOUR.sub('', entry.get('stdout', '') + '\n' + entry.get('stderr', ''))
        reasons = [reason.strip() for reason in NOT_TESTED.findall(output)]
        for reason in reasons:
            lines.append(f'skipped: {name}: {reason}')
        skipped += len(reasons)
        if result == 'SKIP':
            if not reasons:
                skipped += 1
                lines.append(f'skipped: {name}: it says no reason')
            continue
        cases = [tuple(map(int, found)) for found in DOCTEST.findall(output)]
        cases_failed = sum(case[2] for case in cases)
        passed += sum(case[1] for case in cases)
        failed += cases_failed
        filtered = any(re.match(r'--?(?:dt-)?(?:t|s)[ces]e?\b|--?(?:dt-)?(?:test|source|sub)', word)
                       for word in entry.get('command', []))
        if not filtered and sum(case[3] for case in cases) > 0:
            skipped += sum(case[3] for case in cases)
            lines.append(f'skipped: {name}: {sum(case[3] for case in cases)} test cases are marked as skipped')
        if result in GOOD and not cases:
            passed += 1
        elif result in GOOD and sum(case[0] for case in cases) == 0:
            failed += 1
            lines.append(f'failed: {name}: it ran no test case')
        elif result not in GOOD:
            failed += 0 if cases_failed else 1  # it crashed, leaked, or ran out of time
            lines.append(f'failed: {name} ({result.lower()}, {entry.get("duration", 0):.1f} s)')
    return passed, failed, skipped, lines


def self_test():
    case = '[doctest] test cases:  5 |  4 passed | {} failed | {} skipped\n'
    samples = [
        ([{'name': 'a', 'result': 'OK', 'stdout': 'fine'}], (1, 0, 0)),
        ([{'name': 'a', 'result': 'OK', 'stdout': case.format(0, 0)}], (4, 0, 0)),
        ([{'name': 'a', 'result': 'FAIL', 'stdout': case.format(1, 0)}], (4, 1, 0)),
        ([{'name': 'a', 'result': 'FAIL', 'stdout': case.format(0, 0), 'stderr': 'LeakSanitizer'}], (4, 1, 0)),
        ([{'name': 'a', 'result': 'FAIL'}, {'name': 'b', 'result': 'TIMEOUT'}, {'name': 'c', 'result': 'ERROR'}],
         (0, 3, 0)),
        ([{'name': 'a', 'result': 'SKIP', 'stdout': 'not tested: x, no kernel'}], (0, 0, 1)),
        ([{'name': 'a', 'result': 'SKIP'}], (0, 0, 1)),
        ([{'name': 'a', 'result': 'OK', 'stdout': 'not tested: x\nnot tested: y\n'}], (1, 0, 2)),
        ([{'name': 'a', 'result': 'OK', 'stdout': case.format(0, 3)}], (4, 0, 3)),
        ([{'name': 'a', 'result': 'OK', 'stdout': case.format(0, 3), 'command': ['a', '--test-suite=b']}], (4, 0, 0)),
        ([{'name': 'a', 'result': 'OK', 'stdout': '[doctest] test cases: 0 | 0 passed | 0 failed | 0 skipped'}],
         (0, 1, 0)),
        ([{'name': 'a', 'result': 'INTERRUPT'}, {'name': 'b', 'result': 'UNEXPECTEDPASS'}], (0, 2, 0)),
    ]
    for entries, expected in samples:
        assert count(entries)[:3] == expected, (entries, count(entries))


def main(arguments):
    if arguments == ['--self-test']:
        self_test()
        return 0
    with open(arguments[0], encoding='utf-8') as log:
        passed, failed, skipped, lines = count(json.loads(line) for line in log if line.strip())
    print('\n'.join([*lines, f'{passed} {failed} {skipped}']))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
