"""top between a terminal and a node, both of which this program holds.

usage: top.py BLOBCACHE NODE-SOCKET FILE

The control socket that top is given is a door before the node's own: what lies between two of top's questions is decided here
and not by the clock. A known read falls between two of them, so each number is known."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

BINARY, NODE_SOCKET, TREE_FILE = sys.argv[1:]
NAME = f"top-test-{os.getpid()}"
DOOR = f"/run/blobcache/{NAME}.sock"
FILE_BYTES = 4 << 20
READ_BYTES = 64 << 10
PATIENCE_S = 30


def check(condition, what):
    if not condition:
        sys.exit(f"top: {what}")


def read_file():
    """In 64 reads past the page cache."""
    subprocess.run(["dd", f"if={TREE_FILE}", "of=/dev/null", f"bs={READ_BYTES}", "iflag=direct", "status=none"], check=True)


class Door:
    """Forwards to the node; before the answer to the number-th question for the status, what `before` says is done."""

    def __init__(self):
        self.before = {}
        self.asked = 0
        self.closed = False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(DOOR)
        self.listener.listen(16)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            caller, _ = self.listener.accept()
            with caller, socket.socket(socket.AF_UNIX) as node:
                line = caller.recv(256)
                if self.closed:
                    continue
                if line.startswith(b"status"):
                    self.asked += 1
                    self.before.pop(self.asked, lambda: None)()
                node.connect(NODE_SOCKET)
                node.sendall(line)
                while part := node.recv(65536):
                    caller.sendall(part)

    def expect(self, **before):
        self.asked = 0
        self.before = {int(number[1:]): action for number, action in before.items()}


class Screen:
    """top on a terminal of its own; frames as lists of lines without their colours."""

    def __init__(self, columns, rows, *arguments):
        self.output = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.read(0, 1)  # until the size is set
            os.execv(BINARY, [BINARY, "top", f"--node={NAME}", *arguments])
        self.resize(columns, rows)
        self.at_first = termios.tcgetattr(self.master)
        os.write(self.master, b"\n")

    def resize(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def frames(self):
        text = self.output.decode("ascii").split("\033[H")[1:-1]  # the last one may still grow
        return [re.sub(r"\033\[[0-9;?]*[a-zA-Z]", "", frame.replace("\r", "")).split("\n") for frame in text]

    def feed(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            part = os.read(self.master, 65536)
        except OSError:  # nobody has the other side any more
            return False
        self.output += part
        return bool(part)

    def wait_for(self, what, test):
        """The first frame that the test likes."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for frame in self.frames():
                if test(frame):
                    return frame
            if not self.feed(deadline - time.monotonic()):
                break
        print(self.output.decode("ascii", "replace"), file=sys.stderr)
        sys.exit(f"top: no screen shows {what}")

    def end(self):
        """Its status as waitpid tells it; everything was given back."""
        while self.feed(PATIENCE_S):
            pass
        status = os.waitpid(self.pid, 0)[1]
        check(b"\033[?1049h" in self.output, "it does not take the other screen")
        given_back = self.output.rindex(b"\033[?1049l")
        check(given_back > self.output.rindex(b"\033[H"), "something was drawn after the screen was given back")
        check(b"\033[?25h" in self.output and b"\033[?7h" in self.output, "the cursor is not shown again")
        return status


def row(frame, first):
    """The words of the line that begins so; none where there is none."""
    return next((line.split() for line in frame if line.startswith(first)), [])


def widths(frames, columns):
    for frame in frames:
        for line in frame:
            check(len(line) <= columns, f"{len(line)} of {columns} columns: {line}")


def shows_reads(columns):
    """A cold read, then a warm one, each between two questions."""
    door.expect(_2=read_file, _3=read_file)
    screen = Screen(columns, 50, "--interval=200ms")
    if columns == 80:
        cold = screen.wait_for("bytes of the origin", lambda f: "100.0" in row(f, "origin"))
        check(row(cold, "memory")[-1] == "-", "the cold read's bytes are told for memory")
        check(row(cold, "disk")[-1] == "-", "the cold read's bytes are told for the disk")
    warm = screen.wait_for("bytes of memory", lambda f: "100.0" in row(f, "memory"))
    check(row(warm, "origin")[-1] == "-", "the warm read went to the origin")
    check(re.match(r"Reads +[0-9]+/s +[0-9.]+ MiB/s +p50 +[0-9.]+ [um]s +p99 +[0-9.]+ [um]s +errors +-", warm[2]), warm[2])
    for title in ("TIER", "VOLUME", "DISK", "ORIGIN OF", "Prefetch", "SLOW OF LATE"):
        check(any(line.startswith(title) for line in warm), f"no {title}")
    check(len(warm[0]) == columns, f"the first line is {len(warm[0])} columns wide")
    widths(screen.frames(), columns)
    return screen


def of_two_sizes():
    screen = shows_reads(80)
    # Made smaller: the next screen is of that size, at once and not after the interval, and no taller either.
    screen.resize(60, 9)
    small = screen.wait_for("a smaller one", lambda f: len(f[0]) == 60)
    check(len(small) <= 9, f"{len(small)} lines on 9")
    widths([small], 60)
    os.write(screen.master, b"q")
    check(os.waitstatus_to_exitcode(screen.end()) == 0, "q is no failure")
    check(termios.tcgetattr(screen.master) == screen.at_first, "the terminal's settings are not as before")
    screen = shows_reads(200)
    os.write(screen.master, b"\x03")
    check(os.waitstatus_to_exitcode(screen.end()) == 0, "Ctrl-C is no failure")
    check(termios.tcgetattr(screen.master) == screen.at_first, "the terminal's settings are not as before")


def ended_otherwise():
    door.expect()
    screen = Screen(80, 24, "--interval=1h")
    while b"\033[H" not in screen.output:
        screen.feed(PATIENCE_S)
    os.kill(screen.pid, signal.SIGTERM)
    check(os.waitstatus_to_exitcode(screen.end()) == -signal.SIGTERM, "SIGTERM is not what ended it")
    check(termios.tcgetattr(screen.master) == screen.at_first, "the terminal's settings are not as before")
    # The node goes away.
    screen = Screen(80, 24, "--interval=100ms")
    screen.wait_for("a node", lambda f: any(line.startswith("TIER") for line in f))
    door.closed = True
    check(os.waitstatus_to_exitcode(screen.end()) == 1, "a node that is gone is a failure")
    check(b"is it running" in screen.output.split(b"\033[?1049l")[-1], "it does not say why it ends")
    door.closed = False


def top(*arguments):
    return subprocess.run([BINARY, "top", f"--node={NAME}", *arguments], check=True, capture_output=True, text=True,
                          timeout=PATIENCE_S).stdout


def as_json():
    door.expect(_2=read_file)
    view = json.loads(top("--once", "--json", "--interval=100ms"))
    total = {name: view[name] * view["seconds"] for name in ("reads_per_s", "bytes_per_s", "errors_per_s")}
    check(abs(total["bytes_per_s"] - FILE_BYTES) < 1, f"{total} for a read of {FILE_BYTES}")
    check(abs(total["reads_per_s"] - FILE_BYTES / READ_BYTES) < 0.01, f"{total}: not {FILE_BYTES / READ_BYTES} reads")
    check(total["errors_per_s"] == 0, "errors")
    check(0 < view["read_latency_us"]["p50"] <= view["read_latency_us"]["p99"] < 1e6, str(view["read_latency_us"]))
    tiers = {tier["name"]: tier for tier in view["tiers"]}
    check(tiers["memory"]["hit_ratio"] == 1 and tiers["origin"]["hit_ratio"] == 0, f"hits: {tiers}")
    check(tiers["memory"]["bytes_per_s"] == view["bytes_per_s"], f"bytes: {tiers}")
    check(tiers["memory"]["used"] >= FILE_BYTES and tiers["memory"]["limit"] > tiers["memory"]["used"], f"used: {tiers}")
    check([disk["state"] for disk in view["disks"]] == ["ok"], str(view["disks"]))
    check(view["disks"][0]["limit"] == 100 << 20, str(view["disks"]))
    check(len(view["volumes"]) == 1 and TREE_FILE.startswith(view["volumes"][0]["mountpoint"]), str(view["volumes"]))
    check(view["slow"] and {each["file"] for each in view["slow"]} <= {"file", ""}, str(view["slow"]))
    # Nobody reads: nothing has a ratio or a latency.
    view = json.loads(top("--once", "--json", "--interval=100ms"))
    check(view["reads_per_s"] == 0 and view["read_latency_us"] == {"p50": None, "p99": None}, "reads of nobody")
    check(all(tier["hit_ratio"] is None for tier in view["tiers"]), "hits of nobody")


def as_text():
    door.expect(_2=read_file)
    text = top("--once", "--interval=100ms")
    check("\033" not in text and "\r" not in text, "sequences of a terminal in plain text")
    check("100.0" in row(text.splitlines(), "memory"), text)
    widths([text.splitlines()], 80)
    # Without --once: one after the other.
    with subprocess.Popen([BINARY, "top", f"--node={NAME}", "--interval=100ms"], stdout=subprocess.PIPE, text=True) as piped:
        seen = 0
        for line in piped.stdout:
            check("\033" not in line, "sequences of a terminal in a pipe")
            seen += line.startswith("TIER")
            if seen == 2:
                break
        piped.terminate()


os.environ.pop("NO_COLOR", None)
door = Door()
try:
    of_two_sizes()
    ended_otherwise()
    as_json()
    as_text()
finally:
    os.unlink(DOOR)
