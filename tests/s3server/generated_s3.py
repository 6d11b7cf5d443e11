#!/usr/bin/env python3
"""A bucket "blobs" that nobody has to fill: keys, sizes and bytes follow from a number. ListObjectsV2 with prefix, delimiter,
continuation-token and max-keys (1,000 a page at most), HEAD and ranged GET; signatures are not looked at.

usage: generated_s3.py COUNT PORT_FILE     flat/NNNNNNNN, COUNT of them, and tree/DDDDD/NNNNNNNN, 1,000 a directory

GET /__counts__ tells how many requests of each kind came since the last /__reset__.
"""
import bisect
import http.server
import json
import os
import sys
import urllib.parse
from xml.sax.saxutils import escape

PAGE_KEYS = 1000
DATE = 'Sun, 06 Nov 1994 08:49:37 GMT'
counts = {'list': 0, 'list_all': 0, 'head': 0, 'get': 0}


class Keys:
    """The keys in their order, made when asked for."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return 2 * self.count

    def __getitem__(self, number):
        if number >= 2 * self.count:
            raise IndexError
        if number < self.count:
            return f'flat/{number:08}'
        number -= self.count
        return f'tree/{number // 1000:05}/{number:08}'


keys = Keys(int(sys.argv[1]))


def size_of(number):
    return number % 5000


def etag_of(number):
    return f'"number-{number}"'  # 32 hexadecimal digits would be taken for an MD5


def bytes_of(number):
    return (f'{number:08} ' * (size_of(number) // 9 + 1)).encode()[:size_of(number)]


def number_of(key):
    number = bisect.bisect_left(keys, key)
    return number if number < len(keys) and keys[number] == key else None


def page(query):
    """One answer to ListObjectsV2. A token is the last name of the page before."""
    prefix, delimiter, token = query.get('prefix', ''), query.get('delimiter', ''), query.get('continuation-token', '')
    keys_max = min(int(query.get('max-keys', PAGE_KEYS)), PAGE_KEYS)
    number = bisect.bisect_left(keys, prefix)
    if token:
        past = token[:-1] + '0' if delimiter and token.endswith(delimiter) else token + '\0'  # '0' follows '/'
        number = max(number, bisect.bisect_left(keys, past))
    told, last = [], ''
    while number < len(keys) and (key := keys[number]).startswith(prefix):
        if len(told) == keys_max:
            break
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        if end < 0:
            last = key
            told.append(f'<Contents><Key>{escape(key)}</Key><LastModified>1994-11-06T08:49:37.000Z</LastModified>'
                        f'<ETag>{escape(etag_of(number))}</ETag><Size>{size_of(number)}</Size></Contents>')
            number += 1
        else:
            last = key[:end + 1]
            told.append(f'<CommonPrefixes><Prefix>{escape(last)}</Prefix></CommonPrefixes>')
            number = bisect.bisect_left(keys, last[:-1] + '0')
    more = number < len(keys) and keys[number].startswith(prefix)
    rest = f'<IsTruncated>true</IsTruncated><NextContinuationToken>{escape(last)}</NextContinuationToken>' if more else ''
    return f'<?xml version="1.0"?><ListBucketResult>{"".join(told)}{rest}</ListBucketResult>'.encode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def say(self, status, body=b'', headers=()):
        head = [f'HTTP/1.1 {status}', f'Content-Length: {len(body)}', *(f'{name}: {value}' for name, value in headers)]
        answer = '\r\n'.join(head + ['', '']).encode()
        self.wfile.write(answer if self.command == 'HEAD' else answer + body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == '/__counts__':
            return self.say('200 OK', json.dumps(counts).encode())
        if url.path == '/__reset__':
            counts.update(dict.fromkeys(counts, 0))
            return self.say('200 OK')
        if url.path == '/blobs' and url.query:
            query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
            counts['list' if 'delimiter' in query else 'list_all'] += 1
            return self.say('200 OK', page(query), [('Content-Type', 'application/xml')])
        counts['head' if self.command == 'HEAD' else 'get'] += 1
        number = number_of(urllib.parse.unquote(url.path).removeprefix('/blobs/'))
        if number is None:
            return self.say('404 Not Found', b'<Error><Code>NoSuchKey</Code></Error>')
        headers = [('ETag', etag_of(number)), ('Last-Modified', DATE)]
        body = bytes_of(number)
        if self.headers.get('If-Match', etag_of(number)) != etag_of(number):
            return self.say('412 Precondition Failed')
        if (wanted := self.headers.get('Range')) and self.command == 'GET':
            first, last = (int(part) for part in wanted.removeprefix('bytes=').split('-'))
            if first >= len(body):
                return self.say('416 Range Not Satisfiable')
            part = body[first:last + 1]
            headers.append(('Content-Range', f'bytes {first}-{first + len(part) - 1}/{len(body)}'))
            return self.say('206 Partial Content', part, headers)
        self.say('200 OK', body, headers)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(('127.0.0.1', 0), Handler)
with open(sys.argv[2] + '.new', 'w') as file:
    file.write(str(server.server_address[1]))
os.rename(sys.argv[2] + '.new', sys.argv[2])
server.serve_forever()
