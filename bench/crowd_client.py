#!/usr/bin/env python3
"""A crowd at an HTTP port: so many connections, a third of them with half of a request. Who is shown out comes again, so many
a second; a byte more each second of those that are slow. Prints "here" when all have come, and lives until its standard input
ends.

usage: crowd_client.py PORT COUNT AGAIN-A-SECOND
"""

import itertools
import resource
import selectors
import socket
import sys
import time

PORT, COUNT, AGAIN = map(int, sys.argv[1:])
SLOW = 3
numbers = itertools.count()


def come(waiting):
    number = next(numbers)
    link = socket.socket()
    link.bind((f"127.0.{1 + number % 200}.1", 0))  # an address runs out of ports otherwise
    link.connect(("127.0.0.1", PORT))
    link.setblocking(False)
    slow = number % SLOW == 0
    if slow:
        link.send(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
    waiting.register(link, selectors.EVENT_READ, slow)


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (COUNT + 100, max(hard, COUNT + 100)))
    waiting = selectors.DefaultSelector()
    for _ in range(COUNT):
        come(waiting)
    waiting.register(sys.stdin, selectors.EVENT_READ)
    print("here", flush=True)
    shown_out = 0
    next_second = time.monotonic() + 1
    while True:
        for key, _ in waiting.select(max(0, next_second - time.monotonic())):
            if key.fileobj is sys.stdin:
                return
            waiting.unregister(key.fileobj)
            key.fileobj.close()
            shown_out += 1
        if time.monotonic() < next_second:
            continue
        next_second += 1
        for _ in range(min(shown_out, AGAIN)):
            come(waiting)
            shown_out -= 1
        for key in [key for key in waiting.get_map().values() if key.data]:
            try:
                key.fileobj.send(b"x")
            except OSError:
                pass


main()
