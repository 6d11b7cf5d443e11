#!/usr/bin/env python3
"""Nothing unfinished in src/ and tests/, and no test that sleeps: it waits for an event or it is wrong on a slow day.

What has no event (a counter in /proc) may be looked at again and again, in scripts, by a loop over the condition with at
most 50 ms between two looks.
"""

import re
import sys

import source_text

# Written in pieces so that this file passes its own check.
UNFINISHED = re.compile(r'\b(' + '|'.join(['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X']) + r')\b')
SLEEP = 'sl' + 'eep'
SLEEP_CALL = re.compile(r'\b(?:' + SLEEP + '_for|' + SLEEP + r'_until|u?sleep|(?:clock_)?nanosleep)\s*\(')
SLEEP_COMMAND = re.compile(r'(?:^|[;&|({\'"`]|\b(?:do|then|else|exec|busybox|!))\s*(?:/bin/|/usr/bin/)?' + SLEEP +
                           r'\s+[\'"]?[\d.$]')
POLL_S_MAX = 0.05
POLL_PAUSE = re.compile(SLEEP + r'(?:\s+|\s*\(\s*)(\d*\.\d+|\d+)')
LOOP = re.compile(r'(^|[;\s])(until|while)\s')
LOOP_LINES_MAX = 8
CODE = {'.h', '.cc', '.c', '.py', '.sh', '.build', '.txt', '.md', '.toml', ''}
SCRIPT_COMMENT = re.compile(r'(^|\s)#.*')


def is_poll(lines, number):
    """The line pauses between two looks at the condition of a loop that starts on it or a few lines above."""
    pause = POLL_PAUSE.search(lines[number])
    if not pause or float(pause.group(1)) > POLL_S_MAX:
        return False
    return any(LOOP.search(line) for line in lines[max(0, number - LOOP_LINES_MAX):number + 1])


def complaints_of(name, text):
    complaints = []
    is_cpp = name.endswith(('.h', '.cc', '.c'))
    code = source_text.strip_literals(text) if is_cpp else text
    code_lines = code.split('\n')
    if not is_cpp:
        code_lines = [SCRIPT_COMMENT.sub('', line) for line in code_lines]
    for number, (line, code_line) in enumerate(zip(text.split('\n'), code_lines), start=1):
        if UNFINISHED.search(line):
            complaints.append(f'{name}:{number}: unfinished: {line.strip()}')
        if not name.startswith('tests/'):
            continue
        found = SLEEP_CALL.search(code_line) or (not is_cpp and SLEEP_COMMAND.search(code_line))
        if found and (is_cpp or not is_poll(code_lines, number - 1)):
            complaints.append(f'{name}:{number}: a test waits for an event, it does not sleep: {line.strip()}')
    return complaints


def check(root):
    names = source_text.source_files(root, ['src', 'tests'], CODE)
    return len(names), [c for name in names for c in complaints_of(name, source_text.read(root, name))]


def self_test():
    for word in ('TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X'):
        assert len(complaints_of('src/base/a.cc', f'int a;  // {word}: later\n')) == 1, word
        assert len(complaints_of('tests/mount/a.sh', f'\n# {word}(me) later\n')) == 1, word
        assert complaints_of('src/base/a.cc', f'int {word}_list; // mktemp a.{word}{word}\n') == [], word
    for name, line in [('tests/unit/a_test.cc', f'std::this_thread::{SLEEP}_for(1ms);'),
                       ('tests/unit/a_test.cc', f'  u{SLEEP}(10);'),
                       ('tests/unit/a_test.cc', f'while (!done) u{SLEEP}(0.01);'),
                       ('tests/mount/a.py', f'time.{SLEEP}(1)'),
                       ('tests/mount/a.py', f'time.{SLEEP}(0.01)'),
                       ('tests/mount/a.py', f'while not up():\n    time.{SLEEP}(0.1)'),
                       ('tests/mount/a.sh', f'# until\n{SLEEP} 0.02'),
                       ('tests/mount/a.sh', f'{SLEEP} 1'),
                       ('tests/mount/a.sh', f'while ! up; do {SLEEP} 0.1; done'),
                       ('tests/mount/a.sh', f'true && {SLEEP} "$wait_s"'),
                       ('tests/mount/a.sh', f"timeout 9 sh -c '{SLEEP} 5'"),
                       ('tests/mount/no_suffix', f'  /bin/{SLEEP} .5')]:
        assert len(complaints_of(name, line + '\n')) == 1, (name, line)
        assert complaints_of(name.replace('tests/', 'bench/'), line + '\n') == [], (name, line)
    for name, line in [('tests/unit/a_test.cc', f'f();  // must not {SLEEP} (here)'),
                       ('tests/unit/a_test.cc', f'CHECK(text == "{SLEEP}(1)");'),
                       ('tests/mount/a.sh', f'# no {SLEEP} 1 here'),
                       ('tests/mount/a.sh', f'until up; do\n  {SLEEP} 0.02 # a look\ndone'),
                       ('tests/mount/a.py', f'while not up():\n    time.{SLEEP}(0.05)'),
                       ('tests/mount/a.sh', f'echo "readers {SLEEP} in D state"')]:
        assert complaints_of(name, line + '\n') == [], (name, line)


if __name__ == '__main__':
    sys.exit(source_text.run(check, self_test, sys.argv[1:]))
