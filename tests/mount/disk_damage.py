"""Damages a cache directory that nobody uses at the moment, as disks and crashes do; says what it did.

usage: disk_damage.py CACHE KIND SEED

Kinds: data (bits of objects' files), segments, sums (sidecars), index (bits of logs and snapshots), cut (an index file ends
anywhere), torn (pages are zero), lost (pages have what lay there before, or what another place has), swapped (two blocks
of a file changed places), copied (one object's file has another's bytes), removed (files are gone), short (files end
early), many (four of these). Prints one line a damage; nothing when there was nothing to damage.
"""
import glob
import os
import random
import sys

PAGE = 4096
BLOCK = 65536
INDEX_HEADER = 64
INDEX_RECORD = 64


class Damage:
    def __init__(self, cache, seed):
        self.cache = cache
        self.random = random.Random(seed)

    def files(self, pattern):
        found = [path for path in glob.glob(f"{self.cache}/{pattern}") if os.path.getsize(path) > 0]
        # Objects have another name in each run, but the same size: a seed finds the same one again.
        return sorted(found, key=lambda path: (os.path.getsize(path), path))

    def objects(self):
        return [path for path in self.files("objects/*/*") if not path.endswith(".sums")]

    def data_files(self):
        return self.objects() + self.files("segments/*")

    def index_files(self):
        return self.files("index/*")

    def say(self, path, what):
        print(f"{path[len(self.cache) + 1:]}: {what}")

    def flip(self, files, header_bytes=0):
        """One to eight bits of a file; of a file that has something behind its header, nearly always there."""
        if not files:
            return
        path = self.random.choice(files)
        size = os.path.getsize(path)
        with open(path, "r+b") as file:
            for _ in range(self.random.randint(1, 8)):
                first = header_bytes if size > header_bytes and self.random.random() < 0.9 else 0
                at = self.random.randrange(first, size)
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 1 << self.random.randrange(8)]))
                self.say(path, f"a bit of byte {at}")

    def data(self):
        self.flip(self.objects())

    def segments(self):
        self.flip(self.files("segments/*"))

    def sums(self):
        self.flip(self.files("objects/*/*.sums"))

    def index(self):
        self.flip(self.index_files(), INDEX_HEADER)

    def cut(self):
        files = [path for path in self.index_files() if os.path.getsize(path) > INDEX_HEADER] or self.index_files()
        if not files:
            return
        path = self.random.choice(files)
        size = os.path.getsize(path)
        # At any byte, or just between two records.
        at = self.random.randrange(size)
        if self.random.random() < 0.3:
            at = at // INDEX_RECORD * INDEX_RECORD
        os.truncate(path, at)
        self.say(path, f"cut from {size} to {at} bytes")

    def torn(self):
        files = self.data_files() + self.files("objects/*/*.sums")
        if not files:
            return
        path = self.random.choice(files)
        pages = (os.path.getsize(path) + PAGE - 1) // PAGE
        first = self.random.randrange(pages)
        count = min(self.random.randint(1, 20), pages - first)
        size = os.path.getsize(path)
        with open(path, "r+b") as file:
            file.seek(first * PAGE)
            file.write(bytes(min(count * PAGE, size - first * PAGE)))
        self.say(path, f"pages {first} to {first + count - 1} are zero")

    def lost(self):
        files = self.data_files()
        if not files:
            return
        path, other = self.random.choice(files), self.random.choice(files)
        size, other_size = os.path.getsize(path), os.path.getsize(other)
        page = self.random.randrange((size + PAGE - 1) // PAGE)
        # The same place in another file, or another place of this one: what was there before.
        other_page = page if other != path and page * PAGE < other_size else self.random.randrange((other_size + PAGE - 1) // PAGE)
        with open(other, "rb") as file:
            file.seek(other_page * PAGE)
            old = file.read(min(PAGE, size - page * PAGE))
        with open(path, "r+b") as file:
            file.seek(page * PAGE)
            file.write(old)
        self.say(path, f"page {page} has page {other_page} of {os.path.basename(other)}")

    def swapped(self):
        files = [path for path in self.objects() if os.path.getsize(path) >= 2 * BLOCK]
        if not files:
            return
        path = self.random.choice(files)
        first, second = self.random.sample(range(os.path.getsize(path) // BLOCK), 2)
        with open(path, "r+b") as file:
            pieces = []
            for block in (first, second):
                file.seek(block * BLOCK)
                pieces.append(file.read(BLOCK))
            for block, piece in zip((second, first), pieces):
                file.seek(block * BLOCK)
                file.write(piece)
        self.say(path, f"blocks {first} and {second} changed places")

    def copied(self):
        pairs = self.objects()
        if self.random.random() < 0.5 and len(self.files("segments/*")) > 1:
            pairs = self.files("segments/*")
        if len(pairs) < 2:
            return
        path, other = self.random.sample(pairs, 2)
        size = os.path.getsize(path)
        with open(other, "rb") as file:
            bytes_of_other = file.read(size)
        with open(path, "r+b") as file:
            file.write(bytes_of_other)
        self.say(path, f"has the bytes of {os.path.basename(other)}")

    def removed(self):
        files = self.data_files() + self.files("objects/*/*.sums") + self.index_files()
        if not files:
            return
        path = self.random.choice(files)
        os.remove(path)
        self.say(path, "removed")

    def short(self):
        files = self.data_files() + self.files("objects/*/*.sums")
        if not files:
            return
        path = self.random.choice(files)
        size = os.path.getsize(path)
        at = self.random.randrange(size)
        os.truncate(path, at)
        self.say(path, f"cut from {size} to {at} bytes")

    def many(self):
        for _ in range(4):
            getattr(self, self.random.choice(KINDS))()


KINDS = ("data", "segments", "sums", "index", "cut", "torn", "lost", "swapped", "copied", "removed", "short")


def main():
    cache, kind, seed = sys.argv[1:]
    if kind not in KINDS + ("many",):
        sys.exit(f"there is no damage {kind}")
    getattr(Damage(cache, seed), kind)()


if __name__ == "__main__":
    main()
