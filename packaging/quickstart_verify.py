#!/usr/bin/env python3
"""The reading half of quickstart.sh.

  demo FOLDER            makes a small tree to mount: many small files, one of 256 MiB, folders, a symlink
  verify SOURCE MOUNT    reads every file of the mount twice and compares each with its source, names and links too

Speed is that of read(2) alone, 1 MiB at a time; hashing and comparing are not timed. Before the first pass the kernel is
told to forget the source, before the second to forget the mount, so that each pass shows what it says.
Exit 0: everything was equal; 1: something was not (named).
"""

import hashlib
import json
import os
import stat
import sys
import time

MIB = 1024 * 1024
BIG_FILE_BYTES = 256 * MIB
SMALL_FILES = 300


def make_demo(folder):
    for number in range(SMALL_FILES):
        place = os.path.join(folder, f'images/class-{number % 10:02}')
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, f'{number:04}.bin'), 'wb') as file:
            file.write(os.urandom(1000 + 331 * number))
    os.mkdir(os.path.join(folder, 'empty'))
    with open(os.path.join(folder, 'model.bin'), 'wb') as file:
        for _ in range(BIG_FILE_BYTES // MIB):
            file.write(os.urandom(MIB))
    os.symlink('model.bin', os.path.join(folder, 'latest'))
    os.sync()


def tree_of(folder):
    """Relative path -> what can be compared without reading: kind, size or link target."""
    entries = {}
    for place, folders, files in os.walk(os.fsencode(folder)):
        for name in folders + files:
            path = os.path.join(place, name)
            about = os.lstat(path)
            key = os.path.relpath(path, os.fsencode(folder))
            if stat.S_ISREG(about.st_mode):
                entries[key] = ('file', about.st_size)
            elif stat.S_ISLNK(about.st_mode):
                entries[key] = ('symlink', os.readlink(path))
            else:
                entries[key] = (stat.S_IFMT(about.st_mode), 0)
    return entries


def read_file(path):
    """(sha256 of the file, bytes, seconds spent in open and read)."""
    digest = hashlib.sha256()
    buffer = bytearray(MIB)
    view = memoryview(buffer)
    total = 0
    started = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    seconds = time.perf_counter() - started
    try:
        while True:
            started = time.perf_counter()
            count = os.readv(descriptor, [buffer])
            seconds += time.perf_counter() - started
            if count == 0:
                return digest.digest(), total, seconds
            digest.update(view[:count])
            total += count
    finally:
        os.close(descriptor)


def forget(paths):
    """The kernel drops its cached pages of these files."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # the pass over it says what is wrong
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def tiers_of(paths):
    """Tier -> bytes that it holds of these files; None where the mount does not tell."""
    sums = {}
    for path in paths:
        try:
            tiers = json.loads(os.getxattr(path, 'user.blobcache.tiers'))
        except (OSError, ValueError):
            return None
        for tier, count in tiers.items():
            if isinstance(count, int):
                sums[tier] = sums.get(tier, 0) + count
    return sums


def in_words(count):
    return f'{count / MIB:.1f} MiB'


def describe(tiers, total):
    """Where the bytes of the pass that follows come from, by what the tiers hold before it."""
    if tiers is None:
        return 'unknown: the mount does not tell (no user.blobcache.tiers)'
    held = {tier: count for tier, count in tiers.items() if tier != 'origin' and count > 0}
    parts = [f'{in_words(count)} from {tier}' for tier, count in held.items()]
    rest = max(0, total - sum(held.values()))
    if rest > 0 or not parts:
        parts.append(f'{in_words(rest)} from the origin')
    return ', '.join(parts)


def read_pass(number, mount, keys, expected, total):
    """Reads all; returns the paths that differ."""
    paths = [os.path.join(os.fsencode(mount), key) for key in keys]
    sources = describe(tiers_of(paths), total)
    wrong = []
    seconds = 0.0
    for key, path in zip(keys, paths):
        try:
            digest, _, file_seconds = read_file(path)
        except OSError as problem:
            wrong.append(f'{os.fsdecode(key)}: {problem.strerror}')
            continue
        seconds += file_seconds
        if digest != expected[key]:
            wrong.append(f'{os.fsdecode(key)}: other bytes than the source has')
    speed = total / MIB / seconds if seconds > 0 else 0
    print(f'pass {number}: {len(keys)} files, {in_words(total)} in {seconds:.2f} s, {speed:.0f} MiB/s: {sources}', flush=True)
    return wrong


def verify(source, mount):
    entries = tree_of(source)
    wrong = []
    for key in sorted(set(entries) ^ set(seen := tree_of(mount))):
        wrong.append(f'{os.fsdecode(key)}: only in the ' + ('source' if key in entries else 'mount'))
    wrong += [f'{os.fsdecode(key)}: source has {entries[key]}, mount has {seen[key]}'
              for key in sorted(set(entries) & set(seen)) if entries[key] != seen[key]]

    expected = {}
    total = 0
    for key in sorted(key for key in entries if entries[key][0] == 'file'):
        try:
            digest, count, _ = read_file(os.path.join(os.fsencode(source), key))
        except OSError as problem:
            print(f'not compared: {os.fsdecode(key)}: {problem.strerror} at the source')
            continue
        expected[key] = digest
        total += count
    keys = list(expected)
    forget(os.path.join(os.fsencode(source), key) for key in keys)
    wrong += read_pass(1, mount, keys, expected, total)
    forget(os.path.join(os.fsencode(mount), key) for key in keys)
    wrong += read_pass(2, mount, keys, expected, total)
    for line in wrong[:20]:
        print(f'WRONG: {line}')
    if len(wrong) > 20:
        print(f'WRONG: and {len(wrong) - 20} more')
    print(f'compared twice: {len(keys)} files by SHA-256, {len(entries)} names with kinds and link targets: '
          f'{len(wrong)} differences')
    return 1 if wrong else 0


if __name__ == '__main__':
    if sys.argv[1] == 'demo':
        make_demo(sys.argv[2])
    else:
        sys.exit(verify(sys.argv[2], sys.argv[3]))
