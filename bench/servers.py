"""The servers that are measured: ours and the baselines, each mounted over the same bytes."""

import glob
import gzip
import json
import os
import shutil
import socket
import subprocess

from harness import BenchError, PASSTHROUGH_SOURCE, run

# What can be asked of libfuse's example to make it faster; which wins depends on machine and kernel, so each run tries
# all and compares with the best. cache=never answers opens with FOPEN_DIRECT_IO (the kernel then skips its buffered
# path, and attributes are asked again); clone_fd gives every thread a channel of its own.
PASSTHROUGH_OPTIONS = ["cache=always", "cache=never", "cache=always,clone_fd", "cache=never,clone_fd"]


class Builds:
    """Release builds of blobcache and of the helpers, and libfuse's example, built from its documentation folder."""

    def __init__(self, place, options, repository):
        self.place = place
        self.options = options
        self.repository = repository
        self._passthrough = None
        self._made = set()  # asked for again within a timed turn, they cost nothing

    def _target(self, name):
        path = os.path.join(self.options.build, name)
        if name in self._made:
            return path
        build = self.options.build
        if not os.path.exists(os.path.join(build, "build.ninja")):
            run(["meson", "setup", "--buildtype=release", "-Dbench=true", "-Dtests=false", build, self.repository])
        done = subprocess.run(["ninja", "-C", build, name], capture_output=True, text=True)
        if done.returncode != 0:
            raise BenchError(f"building {name} failed:\n{done.stdout[-2000:]}")
        self._made.add(name)
        return path

    def blobcache(self):
        return self.options.blobcache or self._target("src/blobcache")

    def helper(self, name):
        return self._target(f"bench/{name}")

    def passthrough_ll(self):
        if self._passthrough is None:
            folder = self.place.new_folder("passthrough")
            for name in ("passthrough_ll.c", "passthrough_helpers.h"):
                copy_documentation(os.path.join(os.path.dirname(PASSTHROUGH_SOURCE), name), os.path.join(folder, name))
            flags = run(["pkg-config", "--cflags", "--libs", "fuse3"]).split()
            self._passthrough = os.path.join(folder, "passthrough_ll")
            run(["gcc", "-O2", os.path.join(folder, "passthrough_ll.c"), "-o", self._passthrough, *flags])
        return self._passthrough


def copy_documentation(path, destination):
    """Debian compresses large files in documentation folders."""
    if os.path.exists(path):
        shutil.copyfile(path, destination)
        return
    with gzip.open(path + ".gz") as packed, open(destination, "wb") as plain:
        shutil.copyfileobj(packed, plain)


class Mount:
    """A live mount: its process, its mount point."""

    def __init__(self, place, process, path):
        self.place = place
        self.process = process
        self.path = path

    def file(self, name):
        return os.path.join(self.path, name)

    def stop(self):
        self.place.stop_mount(self.process, self.path)


def mount_blobcache(place, builds, source, keys, memory="1GiB", probe="data", extra_environment=None, cache=None):
    """Ours. `keys` are configuration keys, as after -o; cache: a folder for the disk tier."""
    path = place.new_folder("blobcache")
    options = [part for key, value in keys.items() for part in ("-o", f"{key}={value}")]
    if cache:
        options += [f"--cache-dir={cache}", "--cache-size=100%"]
    command = [builds.blobcache(), "mount", source, path, "--foreground", f"--memory={memory}", *options]
    process = place.start_mount(command, path, os.path.join(path, probe), extra_environment)
    place.memory_watch.add(process.pid, memory)
    return Mount(place, process, path)


def node_status(process):
    """What the daemon says of itself; sockets lie in a /run of our own, so there are few."""
    for path in glob.glob("/run/blobcache/*.sock"):
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(20)
            try:
                link.connect(path)
            except ConnectionRefusedError:
                continue  # of a daemon that was killed
            link.sendall(b"status\n")
            answer = json.loads(b"".join(iter(lambda: link.recv(65536), b"")))
        if answer["pid"] == process.pid:
            return answer
    raise BenchError(f"the daemon {process.pid} does not answer on its control socket")


def mount_passthrough(place, builds, source, options, probe="data"):
    path = place.new_folder("passthrough_ll")
    command = [builds.passthrough_ll(), "-f", "-o", f"source={source},{options}", path]
    return Mount(place, place.start_mount(command, path, os.path.join(path, probe)), path)


def mount_ram_server(place, builds, file, transport):
    path = place.new_folder("ram_server")
    command = [builds.helper("ram_server"), f"--transport={transport}", file, path]
    return Mount(place, place.start_mount(command, path, os.path.join(path, "data")), path)
