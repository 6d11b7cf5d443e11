"""Prints one line for every name below a directory: all that must be the same on a mount and at its source.

usage: tree_manifest.py [--check-inodes] DIRECTORY

Type, mode, owner, size, times in nanoseconds, link count, device number, which names share an inode, SHA-256 or link
target, and the name. Access times are left out: reading changes them. Sizes of directories are the business of each
filesystem. Goes down by directory descriptors, so that paths longer than PATH_MAX are reached too. Special files are
never opened. --check-inodes also compares d_ino and d_type of readdir with stat, which a mount must keep in step.
"""
import hashlib
import os
import stat
import sys

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
         stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}


class Manifest:
    def __init__(self, check_inodes):
        self.check_inodes = check_inodes
        self.inodes = {}
        self.out = sys.stdout

    def content(self, name, directory, kind):
        if kind == "link":
            return repr(os.readlink(name, dir_fd=directory))
        if kind != "file":
            return "-"
        digest = hashlib.sha256()
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            while piece := os.read(file, 1 << 20):
                digest.update(piece)
        finally:
            os.close(file)
        return digest.hexdigest()

    def line(self, path, name, directory):
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = KINDS[stat.S_IFMT(info.st_mode)]
        group = self.inodes.setdefault((info.st_dev, info.st_ino), len(self.inodes))
        size = "-" if kind == "dir" else info.st_size
        print(kind, f"{stat.S_IMODE(info.st_mode):04o}", f"{info.st_uid}:{info.st_gid}", size,
              f"m={info.st_mtime_ns}", f"c={info.st_ctime_ns}", f"links={info.st_nlink}", f"rdev={info.st_rdev}",
              f"inode#{group}", self.content(name, directory, kind), repr(path), file=self.out)
        return info

    def directory(self, path, descriptor):
        with os.scandir(descriptor) as scan:
            # A scan by descriptor gives str names; surrogateescape brings the bytes back unharmed.
            entries = sorted(scan, key=lambda entry: os.fsencode(entry.name))
        names = [entry.name for entry in entries]
        if len(set(names)) != len(names):
            sys.exit(f"{path!r}: readdir gave a name twice")
        for entry in entries:
            name = os.fsencode(entry.name)
            info = self.line(path + b"/" + name, name, descriptor)
            if self.check_inodes:
                self.check(path + b"/" + name, entry, info)
            if stat.S_ISDIR(info.st_mode):
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                try:
                    self.directory(path + b"/" + name, below)
                finally:
                    os.close(below)

    @staticmethod
    def check(path, entry, info):
        if entry.inode() != info.st_ino:
            sys.exit(f"{path!r}: readdir says inode {entry.inode()}, stat says {info.st_ino}")
        if entry.is_dir(follow_symlinks=False) != stat.S_ISDIR(info.st_mode) or \
                entry.is_symlink() != stat.S_ISLNK(info.st_mode):
            sys.exit(f"{path!r}: readdir and stat disagree about the type")


def main():
    arguments = sys.argv[1:]
    check_inodes = "--check-inodes" in arguments
    root = os.fsencode(arguments[-1])
    manifest = Manifest(check_inodes)
    sys.setrecursionlimit(10000)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    manifest.line(b".", b".", descriptor)
    manifest.directory(b".", descriptor)


if __name__ == "__main__":
    main()
