"""Whether zsh and fish complete a blobcache command line, each in a shell of its own that has the generated file where it is
installed. usage: completions.py zsh|fish FILE"""

import os
import pathlib
import pty
import select
import subprocess
import sys
import tempfile
import time

SHELL, FILE = sys.argv[1:]
PATIENCE_S = 30
# What is typed, and a word that must be offered (fish) or stand there after the key (zsh, where it is the only one).
TYPED = {
    "blobcache umou": "umount",
    "blobcache vers": "version",
    "blobcache stat --js": "--json",
    "blobcache mount --cache-d": "--cache-dir",
    "blobcache warm --che": "--check",
    "blobcache config ref": "reference",
    "blobcache config reference --to": "--toml",
    "blobcache run --conf": "--config",
}


def check(condition, what):
    if not condition:
        sys.exit(f"{SHELL}: {what}")


def fish():
    for typed, wanted in TYPED.items():
        done = subprocess.run(["fish", "--no-config", "-c", f"source {FILE}; complete -C '{typed}'"], capture_output=True,
                              text=True, timeout=PATIENCE_S, check=False)
        offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
        check(done.returncode == 0 and not done.stderr, done.stderr)
        check(wanted in offered, f"{typed!r}: {wanted} is not among {offered}")
    done = subprocess.run(["fish", "--no-config", "-c", f"source {FILE}; complete -C 'blobcache '"], capture_output=True,
                          text=True, timeout=PATIENCE_S, check=True)
    check(any(line.startswith("mount\t") and len(line) > 10 for line in done.stdout.splitlines()), "no summary of mount")


class Zsh:
    """An interactive one on a terminal; what is typed is seen as it is echoed."""

    def __init__(self, folder):
        self.seen = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="dumb", HOME=folder, ZDOTDIR=folder, COLUMNS="200")
            os.execvp("zsh", ["zsh", "-f", "-i"])
        self.type(f"PS1= RPS1= PROMPT_EOL_MARK=; unsetopt zle_bracketed_paste beep; fpath=({folder} $fpath)\n")
        self.type(f"autoload -Uz compinit; compinit -u -d {folder}/dump; print 'rea''dy'\n")
        self.wait_for(b"ready")

    def type(self, text):
        os.write(self.master, text.encode())

    def wait_for(self, wanted):
        deadline = time.monotonic() + PATIENCE_S
        while wanted not in self.seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                sys.exit(f"zsh: no {wanted!r} in {self.seen[-2000:]!r}")
            self.seen += os.read(self.master, 65536)

    def complete(self, typed):
        """The line after TAB: what would be run is printed, quoted, by a command in its place."""
        self.seen = b""
        self.type(typed + "\t")
        self.type("\x01print -r -- '<<' \x05 '>''>'\n")  # to the line's start, to its end
        self.wait_for(b">>")
        printed = self.seen.split(b"<< ")[-1].split(b">>")[0].decode()
        return printed.split()


def zsh():
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "_blobcache").write_bytes(pathlib.Path(FILE).read_bytes())
        shell = Zsh(folder)
        for typed, wanted in TYPED.items():
            words = shell.complete(typed)
            check(words and words[-1].rstrip("=") == wanted, f"{typed!r} became {words}, not {wanted}")
        os.close(shell.master)
        os.waitpid(shell.pid, 0)


{"fish": fish, "zsh": zsh}[SHELL]()
