#!/usr/bin/env python3
"""A reverse HTTP proxy that does what networks and servers do on their bad days, and counts what it was asked.

usage: proxy.py UPSTREAM_PORT PORT_FILE       (loopback on both sides; the port it got is written to PORT_FILE)

It is told what to do by requests of its own:
    /__faults__?MODE=VALUE&...   sets the faults, all others off; counts start anew
    /__counts__                  JSON: requests, ranges (asked for), repeated (ranges asked for twice), bytes (of bodies sent),
                                 stalled (answers that stall now)
    /__go__, /__break__          what stalls goes on, or breaks off by RST; nothing stalls afterwards

Faults are for answers to GETs of objects (ranged, or without a query), with all=1 for every answer:
    latency_ms=N       before each answer
    rate=N             bytes a second of a body
    reset=K            each K-th answer breaks off by RST, each time at another position (of all of its bytes)
    truncate=K         the same, but by an orderly end
    status=CODE:K      K of K+1 answers are this status instead; retry_after=N adds that header
    trickle=K          each K-th answer is sent byte by byte, 20 a second, and never ends
    hang=K             each K-th answer never comes
    wrong_range=K      each K-th answer is the range that follows the one asked for, and says so
    wrong_label=K      each K-th answer is that other range under the name of the one asked for, with its ETag changed
    stop=K             each K-th answer stops for ever, in turn before its first byte and in the middle of its body; not one to
                       what was asked for before
    stall=N            each answer stops after N bytes of its body until it is told to go on
    flip=K             each K-th answer has one bit of its body turned
    html=K             each K-th answer is an error page with status 200
"""
import asyncio
import contextlib
import json
import os
import re
import socket
import struct
import sys
import urllib.parse

HEAD_BYTES_MAX = 64 * 1024
PAGE = b'<html><body>Please sign in</body></html>'


async def take_time(seconds):
    """A slow network is the fault itself: nothing is waited for."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)


class Proxy:
    def __init__(self, upstream_port):
        self.upstream_port = upstream_port
        self.set_faults({})

    def set_faults(self, faults):
        self.faults = faults
        self.counts = {'requests': 0, 'ranges': 0, 'repeated': 0, 'bytes': 0, 'faults': 0}
        self.counts['stalled'] = 0
        self.seen = set()
        self.answers = 0
        self.verdict = asyncio.get_running_loop().create_future()  # of what stalls: True goes on

    def number(self, name):
        return int(self.faults.get(name, '0').split(':')[-1])

    async def serve(self, reader, writer):
        upstream = None
        try:
            while True:
                try:
                    head = await reader.readuntil(b'\r\n\r\n')
                except asyncio.IncompleteReadError:
                    break
                target = head.split(b' ')[1].decode('latin-1')
                if target.startswith('/__'):
                    self.control(target, writer)
                    await writer.drain()
                    continue
                if upstream is None:
                    upstream = await asyncio.open_connection('127.0.0.1', self.upstream_port, limit=HEAD_BYTES_MAX)
                if not await self.forward(head, upstream, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for stream in (writer, upstream[1] if upstream else None):
                if stream is not None:
                    stream.close()

    def control(self, target, writer):
        if target.startswith('/__faults__'):
            self.set_faults(dict(urllib.parse.parse_qsl(target.partition('?')[2])))
        if target in ('/__go__', '/__break__'):
            self.faults.pop('stall', None)
            self.verdict.set_result(target == '/__go__')
            self.verdict = asyncio.get_running_loop().create_future()
        body = json.dumps(self.counts).encode()
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(body) + body)

    async def ask(self, head, upstream):
        upstream[1].write(head)
        answer = await upstream[0].readuntil(b'\r\n\r\n')
        length = re.search(rb'(?i)\r\ncontent-length: *(\d+)', answer)
        body = b''
        if length and not head.startswith(b'HEAD'):
            body = await upstream[0].readexactly(int(length.group(1)))
        elif re.search(rb'(?i)\r\ntransfer-encoding: *chunked', answer) and not head.startswith(b'HEAD'):
            answer = re.sub(rb'(?i)\r\ntransfer-encoding: *chunked', b'', answer)
            while size := int((await upstream[0].readuntil(b'\r\n')).split(b';')[0], 16):
                body += (await upstream[0].readexactly(size + 2))[:-2]
            await upstream[0].readuntil(b'\r\n')
            answer = answer[:-2] + b'Content-Length: %d\r\n\r\n' % len(body)
        return answer, body

    async def forward(self, head, upstream, writer):
        """False: the connection is over."""
        wanted = re.search(rb'(?i)\r\nrange: *bytes=(\d+)-(\d+)', head) or re.match(rb'GET [^? ]*[^?/ ]()() ', head)
        self.counts['requests'] += 1
        repeated = False
        if wanted:
            self.counts['ranges'] += 1
            what = (head.split(b' ')[1], wanted.groups())
            repeated = what in self.seen
            self.counts['repeated'] += repeated
            self.seen.add(what)
        answer, body = await self.ask(head, upstream)
        if not wanted and not self.number('all'):
            return await self.send(writer, answer + body)
        self.answers += 1
        number = self.answers

        def is_turn(name):
            every = self.number(name)
            self.counts['faults'] += bool(every and number % every == 0)
            return every and number % every == 0

        if self.number('latency_ms'):
            await take_time(self.number('latency_ms') / 1000)
        if 'status' in self.faults and number % (self.number('status') + 1) != 0:
            self.counts['faults'] += 1
            after = f'Retry-After: {self.faults["retry_after"]}\r\n' if 'retry_after' in self.faults else ''
            return await self.send(writer, f'HTTP/1.1 {self.faults["status"].split(":")[0]} Slow Down\r\n{after}'
                                           'Content-Length: 0\r\n\r\n'.encode())
        if is_turn('hang'):
            await asyncio.Event().wait()
        if is_turn('html'):
            return await self.send(writer, b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n'
                                   % len(PAGE) + PAGE)
        if wanted and body and is_turn('flip'):
            at = number * 7919 % len(body)
            body = body[:at] + bytes([body[at] ^ 1 << number % 8]) + body[at + 1:]
        if wanted and is_turn('wrong_range'):
            answer = re.sub(rb'(?i)(\r\ncontent-range: *bytes )(\d+)-(\d+)',
                            lambda m: b'%s%d-%d' % (m[1], int(m[2]) + 1, int(m[3]) + 1), answer)
            body = body[1:] + body[:1]
        if wanted and is_turn('wrong_label'):
            answer = re.sub(rb'(?i)(\r\netag: *"?)[0-9a-f]{4}', rb'\g<1>0000', answer)
            body = body[1:] + body[:1]
        whole = answer + body
        for name, linger in (('reset', True), ('truncate', False)):
            if is_turn(name):
                cut = number * 7919 % len(whole)
                await self.send(writer, whole[:cut])
                if linger:
                    self.reset(writer)
                return False
        if is_turn('trickle'):
            for i in range(len(whole)):
                await self.send(writer, whole[i:i + 1])
                await take_time(0.05)
        if not repeated and is_turn('stop'):
            if number // self.number('stop') % 2 == 0:
                await self.send(writer, whole[:len(answer) + len(body) // 2])
            await asyncio.Event().wait()
        stall = self.number('stall')
        if stall and len(body) > stall:
            verdict = self.verdict
            await self.send(writer, whole[:len(answer) + stall])
            self.counts['stalled'] += 1
            goes_on = await verdict
            self.counts['stalled'] -= 1
            if not goes_on:
                self.reset(writer)
                return False
            return await self.send(writer, whole[len(answer) + stall:])
        rate = self.number('rate')
        if rate:
            for at in range(0, len(whole), 4096):
                await self.send(writer, whole[at:at + 4096])
                await take_time(4096 / rate)
            return True
        return await self.send(writer, whole)

    def reset(self, writer):
        writer.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))

    async def send(self, writer, data):
        writer.write(data)
        await writer.drain()
        self.counts['bytes'] += len(data)
        return True


async def main(upstream_port, port_file):
    proxy = Proxy(int(upstream_port))
    server = await asyncio.start_server(proxy.serve, '127.0.0.1', 0, limit=HEAD_BYTES_MAX, backlog=512)
    with open(port_file + '.new', 'w', encoding='ascii') as file:
        file.write(str(server.sockets[0].getsockname()[1]))
    os.rename(port_file + '.new', port_file)
    async with server:
        await server.serve_forever()


if __name__ == '__main__':
    asyncio.run(main(*sys.argv[1:]))
