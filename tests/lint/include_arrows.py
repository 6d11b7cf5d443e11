#!/usr/bin/env python3
"""The arrows of the house: which room may include which, and which room may see which library.

main -> cli -> node -> serve -> {fuse, cache, peer, origin} -> ring -> base; a room may include every room below it,
the four in the middle never each other. The data path is also kept free of std::function, shared_ptr and exceptions.
"""

import re
import sys

import source_text

LEVEL = {'base': 0, 'ring': 1, 'fuse': 2, 'cache': 2, 'peer': 2, 'origin': 2, 'serve': 3, 'node': 4, 'cli': 5,
         'main.cc': 6}
# (what it is, pattern of the include, rooms that may have it)
LIBRARIES = [
    ('liburing', re.compile(r'liburing(\.h|/)'), {'ring'}),
    ('libfuse3', re.compile(r'fuse3/|fuse(_lowlevel|_opt|_common|_log)?\.h$'), {'fuse'}),
    ('CLI11', re.compile(r'CLI/'), {'cli', 'main.cc'}),
    ('toml++', re.compile(r'toml\+\+/|toml\.hpp$'), {'cli', 'base'}),
]
DATA_PATH_ROOMS = {'ring', 'fuse', 'cache', 'serve', 'peer'}
DATA_PATH_FORBIDDEN = [
    ('std::function', re.compile(r'\bstd\s*::\s*(move_only_)?function\s*<')),
    ('shared_ptr', re.compile(r'\b(shared_ptr|make_shared|weak_ptr)\b')),
    ('an exception', re.compile(r'\b(throw|try|catch)\b')),
]
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def complain_about_include(room, quoted, angled):
    """None, or what is wrong with one include directive."""
    if quoted:
        target = quoted.split('/')[0]
        if target not in LEVEL or '/' not in quoted:
            return f'#include "{quoted}" names no room: own headers are included as "room/file.h"'
        if target != room and LEVEL[target] >= LEVEL[room]:
            return f'{room} must not include {target}: #include "{quoted}"'
    name = quoted or angled
    for library, pattern, rooms in LIBRARIES:
        if (angled or quoted.split('/')[0] not in LEVEL) and pattern.match(name) and room not in rooms:
            return f'{library} is for {", ".join(sorted(rooms))} only: #include <{name}>'
    if angled and angled.split('/')[0] in LEVEL:
        return f'#include <{angled}>: own headers are included with quotes'
    return None


def complaints_of(name, text):
    """Complaints about one file; name is relative to the root and starts with src/."""
    room = name.split('/')[1]
    if room not in LEVEL:
        return [f'{name}: {room} is no room of the house']
    complaints = []
    stripped = source_text.strip_literals(text)
    for include in INCLUDE.finditer(text):
        if '#' not in stripped[include.start():include.end()]:
            continue  # inside a comment or a literal
        wrong = complain_about_include(room, include.group(1), include.group(2))
        if wrong:
            complaints.append(f'{name}:{source_text.line_of(text, include.end())}: {wrong}')
    if room in DATA_PATH_ROOMS:
        for what, pattern in DATA_PATH_FORBIDDEN:
            for use in pattern.finditer(stripped):
                complaints.append(f'{name}:{source_text.line_of(text, use.start())}: {what} on the data path')
    return complaints


def check(root):
    names = source_text.source_files(root, ['src'], {'.h', '.cc'})
    return len(names), [c for name in names for c in complaints_of(name, source_text.read(root, name))]


GOOD = [
    ('src/main.cc', '#include "cli/commands.h"\n#include <CLI/CLI.hpp>\n'),
    ('src/serve/read.cc', '#include "serve/read.h"\n#include "fuse/reply.h"\n#include "base/log.h"\n'),
    ('src/fuse/mount.cc', '#include <fuse3/fuse_lowlevel.h>\n#include "ring/op.h"\n#include <linux/fuse.h>\n'),
    ('src/ring/uring.cc', '#include <liburing.h>\n// throw nothing, no shared_ptr\nconst char* s = "throw";\n'),
    ('src/base/config.cc', '#include <toml++/toml.h>\nvoid f() { throw 1; }\n'),
    ('src/cache/index.cc', '/*\n#include "fuse/reply.h"\n*/\nint trying = 1;\n'),
]
BAD = [
    ('src/fuse/dev.cc', '#include "cache/index.h"\n', 'fuse must not include cache'),
    ('src/base/log.cc', '#include "ring/op.h"\n', 'base must not include ring'),
    ('src/ring/op.h', '  #  include "serve/read.h"\n', 'ring must not include serve'),
    ('src/node/node.cc', '#include "cli/mount.h"\n', 'node must not include cli'),
    ('src/serve/read.cc', '#include "read.h"\n', 'names no room'),
    ('src/serve/read.cc', '#include <serve/read.h>\n', 'with quotes'),
    ('src/serve/read.cc', '#include <liburing.h>\n', 'liburing is for ring only'),
    ('src/fuse/dev.cc', '#include <liburing/io_uring.h>\n', 'liburing is for ring only'),
    ('src/node/node.cc', '#include <fuse3/fuse.h>\n', 'libfuse3 is for fuse only'),
    ('src/node/node.cc', '#include <fuse_lowlevel.h>\n', 'libfuse3 is for fuse only'),
    ('src/node/node.cc', '#include <CLI/CLI.hpp>\n', 'CLI11 is for'),
    ('src/node/node.cc', '#include <toml++/toml.h>\n', 'toml++ is for'),
    ('src/cache/index.h', '#include <functional>\nstd::function<void()> f;\n', 'std::function'),
    ('src/peer/wire.h', 'std::shared_ptr<int> p;\n', 'shared_ptr'),
    ('src/serve/read.cc', 'void f() {\n  throw 1;\n}\n', 'exception'),
    ('src/attic/old.cc', '\n', 'no room of the house'),
]


def self_test():
    for name, text in GOOD:
        assert complaints_of(name, text) == [], (name, complaints_of(name, text))
    for name, text, expected in BAD:
        complaints = complaints_of(name, text)
        assert len(complaints) == 1 and expected in complaints[0], (name, text, complaints)
    line = complaints_of('src/fuse/dev.cc', '\n\n#include "cache/index.h"\n')[0]
    assert line.startswith('src/fuse/dev.cc:3:'), line


if __name__ == '__main__':
    sys.exit(source_text.run(check, self_test, sys.argv[1:]))
