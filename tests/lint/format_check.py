#!/usr/bin/env python3
"""All C++ is as clang-format 19 writes it. Another version formats differently, so none but 19 is taken."""

import collections
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import source_text

VERSION = '19'
SKIPPED = 77  # what meson counts as a skipped test


def find_tool():
    for name in (f'clang-format-{VERSION}', 'clang-format'):
        path = shutil.which(name)
        if path:
            said = subprocess.run([path, '--version'], capture_output=True, text=True, check=True).stdout
            if re.search(rf'version {VERSION}\.', said):
                return path
    return None


def complaints_of(tool, style, paths):
    """A line for each file that clang-format would change."""
    if not paths:
        return []
    command = [tool, f'--style=file:{style}', '--dry-run', '-Werror', *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    places = collections.Counter()
    first = {}
    for line in done.stderr.splitlines():
        found = re.match(r'(.+?):(\d+):\d+: (error|warning):', line)
        if found:
            places[found.group(1)] += 1
            first.setdefault(found.group(1), found.group(2))
    if done.returncode != 0 and not places:
        return [done.stderr.strip() or f'{tool} ended with {done.returncode}']
    return [f'{name}:{first[name]}: {count} places to format: clang-format-{VERSION} -i {name}'
            for name, count in places.items()]


def check(root):
    root = pathlib.Path(root)
    names = source_text.source_files(root, ['src', 'tests', 'bench'], {'.h', '.cc'})
    return len(names), complaints_of(find_tool(), root / '.clang-format', [root / name for name in names])


def self_test():
    style = pathlib.Path(__file__).resolve().parents[2] / '.clang-format'
    with tempfile.TemporaryDirectory() as folder:
        good = pathlib.Path(folder) / 'good.cc'
        bad = pathlib.Path(folder) / 'bad.cc'
        good.write_text('int f(int a) {\n  switch (a) {\n    case 1: return 2;\n  }\n  return a;\n}\n')
        bad.write_text('int f(int a)\n{\n    return a ;\n}\n')
        assert complaints_of(find_tool(), style, [good]) == [], complaints_of(find_tool(), style, [good])
        assert complaints_of(find_tool(), style, [bad]) != []
        assert all('bad.cc' in line for line in complaints_of(find_tool(), style, [good, bad]))


if __name__ == '__main__':
    if find_tool() is None:
        print(f'not checked: the format of the C++ files, because clang-format-{VERSION} is not installed')
        sys.exit(SKIPPED)
    sys.exit(source_text.run(check, self_test, sys.argv[1:]))
