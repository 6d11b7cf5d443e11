#!/usr/bin/env python3
"""A bucket of many objects whose names and bytes follow from their number, so that nothing has to be kept to compare with.

usage: s3_tree.py put BUCKET PREFIX OBJECTS LARGE_MIB | check DIRECTORY OBJECTS LARGE_MIB
"""
import concurrent.futures
import os
import random
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 's3server'))
import s3_client

PIECE = 1 << 20
PART = 64 * PIECE
POOL = random.Random(11).randbytes(PIECE + (1 << 16))
EDGES = [0, 1, 4095, 4096, 65535, 65536, 65537, 131072, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 8 << 20, (33 << 20) + 7]
# What a path, a URL, a signature, XML or a terminal could trip over; "%2F" and "..." are plain names here.
ODD = ['ü 漢字 \U0001f40b', 'a+b=c&d', '%41%2F', '#?;:@', 'line\nbreak\ttab', 'quote"\'<>&amp;', '~-_.', '...', '.hidden',
       ' lead and trail ', 'back\\slash', '$(id)`id`', '*[x]?{a,b}', 'e\u0301', '\u00e9', '\u202eright', 'n' * 255,
       '漢' * 85, '\x7f', '-rf', '__init__', '?versionId=1', 'x-1', 'x.txt', 'x0']


def objects(count, large_mib):
    """(key, size, number): the first are the odd ones, the largest is the last."""
    number = 0
    sizes = random.Random(7)
    for size in EDGES:
        yield os.fsencode(f'sizes/{size}'), size, number
        number += 1
    for name in ODD:
        yield os.fsencode(f'odd/{name}'), 100 + number, number
        yield os.fsencode(f'odd.dirs/{name}/{name}'), 100 + number, number + 1
        number += 2
    yield b'/'.join([b'deep'] + [b'%02d' % level for level in range(100)]), 10, number
    number += 1
    while number < count - 1:
        kind = number % 10
        # Half in one directory of many pages, the rest in many directories; few larger than some blocks.
        key = f'flat/{number:06}' if kind < 5 else f'tree/{number % 37}/{number % 11}/{number}.bin'
        yield key.encode(), int(sizes.paretovariate(0.7) * 100) % (300_000 if kind == 0 else 9_000), number
        number += 1
    yield b'large/object', large_mib * PIECE, number


def piece_of(number, offset, size):
    """The bytes of an object at a multiple of PIECE."""
    length = min(PIECE, size - offset)
    start = (number * 7919 + offset // PIECE * 104729) % (1 << 16)
    return (struct.pack('<QQ', number, offset) + POOL[start:start + length])[:length]


def content(number, size):
    return b''.join(piece_of(number, offset, size) for offset in range(0, size, PIECE))


def parts_of(number, size):
    for start in range(0, size, PART):
        yield b''.join(piece_of(number, at, size) for at in range(start, min(start + PART, size), PIECE))


def run_all(function, items, threads):
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(function, items):
            pass


def put(bucket, prefix, count, large_mib):
    def put_one(item):
        key, size, number = item
        key = os.fsencode(prefix) + key
        if size > PART:
            s3_client.put_parts('/' + bucket, key, parts_of(number, size))
        else:
            s3_client.put('/' + bucket, key, content(number, size))

    run_all(put_one, list(objects(count, large_mib))[::-1], 8)


def check(directory, count, large_mib):
    root = os.fsencode(directory)
    wanted = {key: (size, number) for key, size, number in objects(count, large_mib)}
    begun = time.monotonic()
    found = {}
    for folder, _, names in os.walk(root, onerror=lambda error: sys.exit(str(error))):
        for name in names:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = os.lstat(path).st_size
    walked = time.monotonic()
    for key in sorted(wanted.keys() | found.keys()):
        size = wanted[key][0] if key in wanted else None
        if size != found.get(key):
            sys.exit(f'{key!r}: {size} bytes in the bucket, {found.get(key)} in the mount')
    failures = []
    read = [0]
    lock = threading.Lock()

    def read_one(item):
        key, (size, number) = item
        done = 0
        with open(os.path.join(root, key), 'rb', buffering=0) as file:
            while True:
                got = b''
                while len(got) < PIECE and (more := file.read(PIECE - len(got))):
                    got += more
                if got != piece_of(number, done, size):
                    failures.append(f'{key!r}: wrong bytes in the piece at {done} of {size}')
                    return
                done += len(got)
                if len(got) < PIECE:
                    break
        with lock:
            read[0] += done

    items = sorted(wanted.items())
    random.Random(3).shuffle(items)
    items.sort(key=lambda item: item[1][0] < PART)  # the longest first
    run_all(read_one, items, 8)
    if failures:
        sys.exit('\n'.join(failures[:5]))
    ended = time.monotonic()
    print(f'{len(wanted)} objects: walked in {walked - begun:.1f} s, {read[0] / 2**20:.0f} MiB read and compared in '
          f'{ended - walked:.1f} s', file=sys.stderr)


def main(command, *rest):
    if command == 'put':
        put(rest[0], rest[1], int(rest[2]), int(rest[3]))
    elif command == 'check':
        check(rest[0], int(rest[1]), int(rest[2]))
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    main(*sys.argv[1:])
