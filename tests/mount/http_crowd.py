"""A crowd at a node's HTTP endpoint, in one process. usage: http_crowd.py PORT DAEMON-PID FILE SOURCE MEMORY-MIB

The server keeps 128 connections and shows out who has been silent for longest, so of ten thousand most are shown out. What is
asked of it: to whoever speaks it answers."""

import os
import resource
import selectors
import socket
import sys
import time
import urllib.request

PORT, DAEMON, FILE, SOURCE, MEMORY_MIB = int(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
CROWD = 10_000
PLACES = 128
PATIENCE_S = 15
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def check(condition, what):
    if not condition:
        sys.exit(f"http_crowd: {what}")


def raise_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + 200
    if hard < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))  # root may
    elif soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def descriptors():
    return len(os.listdir(f"/proc/{DAEMON}/fd"))


def held_mib():
    """What the daemon holds: resident memory and huge pages, which the kernel counts apart."""
    with open(f"/proc/{DAEMON}/status", encoding="ascii") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields.get(name, "0 kB").split()[0]) for name in ("VmRSS", "HugetlbPages")) / 1024


def ask(path):
    with opener.open(f"http://127.0.0.1:{PORT}/{path}", timeout=PATIENCE_S) as answer:
        check(answer.status == 200, f"{path}: {answer.status}")
        return answer.read()


def connect(number):
    link = socket.socket()
    link.bind((f"127.0.{1 + number % 100}.1", 0))  # so that no address runs out of ports
    link.settimeout(PATIENCE_S)
    link.connect(("127.0.0.1", PORT))
    return link


def mount_is_right():
    fd, wanted = os.open(FILE, os.O_RDONLY | os.O_DIRECT), open(SOURCE, "rb").read()
    import mmap
    page = mmap.mmap(-1, 1 << 20)
    offset = 0
    while got := os.preadv(fd, [page], offset):
        check(page[:got] == wanted[offset:offset + got], f"wrong bytes at {offset}")
        offset += got
    os.close(fd)
    check(offset == len(wanted), f"{offset} of {len(wanted)} bytes")


def everything_works(most_mib):
    for page in ("healthz", "readyz", "metrics", "v1/status"):
        ask(page)
    mount_is_right()
    most_mib.append(held_mib())


def come(most_mib):
    """Silent ones, slow ones with half of a request, and some that ask too much."""
    links = []
    for number in range(CROWD):
        link = connect(number)
        if number % 3 == 1:
            link.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        links.append(link)
        if number % 1000 == 999:
            ask("healthz")
            most_mib.append(held_mib())
            check(descriptors() < before + 2 * PLACES, f"{descriptors()} descriptors of a crowd of {number + 1}")
    return links


def drip(links):
    """A byte more of each of the slow ones; who was shown out is told so."""
    for link in links[1::3]:
        try:
            link.send(b"x", socket.MSG_DONTWAIT)
        except OSError:
            pass


def shown_out(links):
    """How many of them see their connection's end."""
    waiting = selectors.DefaultSelector()
    for link in links:
        waiting.register(link, selectors.EVENT_READ)
    left, deadline = len(links), time.monotonic() + 3 * PATIENCE_S
    while left > 0 and time.monotonic() < deadline:
        for key, _ in waiting.select(1):
            try:
                check(key.fileobj.recv(1) == b"", "an unfinished request was answered")
            except ConnectionError:
                pass
            waiting.unregister(key.fileobj)
            left -= 1
    return len(links) - left


def too_much():
    """Heads that do not end are refused, however many there are."""
    for _ in range(300):
        with connect(0) as link:
            try:
                link.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n")
                answer = link.recv(4096)
            except ConnectionError:
                continue  # refused before all of it had been sent
            check(answer.startswith(b"HTTP/1.1 431 "), f"an endless head: {answer[:60]}")


def not_taking():
    """As many as there are places ask for more than fits into their sockets, and take nothing of it."""
    links = []
    for number in range(PLACES):
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        link.settimeout(PATIENCE_S)
        link.connect(("127.0.0.1", PORT))
        link.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
        links.append(link)
    return links


raise_limit()
before = descriptors()
most = [held_mib()]
crowd = come(most)
everything_works(most)
drip(crowd)
too_much()
everything_works(most)
gone = shown_out(crowd)
check(gone == CROWD, f"{CROWD - gone} of the crowd still have a place, though they said nothing for all that time")
for each in crowd:
    each.close()
greedy = not_taking()
everything_works(most)
for each in greedy:
    each.close()
check(max(most) <= MEMORY_MIB * 1.05, f"{max(most):.0f} MiB of {MEMORY_MIB}")
check(max(most) - most[0] <= 64, f"the crowd took {max(most) - most[0]:.0f} MiB")
limit = time.monotonic() + 3 * PATIENCE_S
while descriptors() > before:
    check(time.monotonic() < limit, f"{descriptors() - before} descriptors are left over")
    ask("healthz")
print(f"{CROWD} callers, {gone} shown out, {most[0]:.0f} MiB before, {max(most):.0f} MiB at most", file=sys.stderr)
