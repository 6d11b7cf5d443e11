#!/usr/bin/env python3
"""Puts objects into an S3 server for the tests: any bytes are a key, which curl's signatures do not all take.

usage: s3_client.py bucket BUCKET | put BUCKET KEY FILE | tree BUCKET PREFIX DIRECTORY | delete BUCKET KEY
Environment: S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY, S3_REGION.
"""
import concurrent.futures
import datetime
import hashlib
import hmac
import http.client
import os
import re
import sys
import threading
import urllib.parse

LOCAL = threading.local()


def quoted(key):
    return urllib.parse.quote(key, safe='/-_.~')


def request(verb, path, body=b'', query=''):
    """One signed request; path is bytes, not yet encoded, query is sorted and encoded. A status that is no success ends
    the program. What the server said: headers and body."""
    endpoint = urllib.parse.urlsplit(os.environ['S3_ENDPOINT'])
    region = os.environ['S3_REGION']
    if not hasattr(LOCAL, 'connection'):
        LOCAL.connection = http.client.HTTPConnection(endpoint.netloc, timeout=60)
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime('%Y%m%dT%H%M%SZ')
    digest = hashlib.sha256(body).hexdigest()
    headers = {'host': endpoint.netloc, 'x-amz-content-sha256': digest, 'x-amz-date': stamp}
    names = ';'.join(sorted(headers))
    canonical = '\n'.join([verb, quoted(path), query] + [f'{name}:{headers[name]}' for name in sorted(headers)] +
                          ['', names, digest])
    scope = f'{stamp[:8]}/{region}/s3/aws4_request'
    to_sign = '\n'.join(['AWS4-HMAC-SHA256', stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ('AWS4' + os.environ['S3_SECRET_KEY']).encode()
    for part in scope.split('/'):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    headers['Authorization'] = (f'AWS4-HMAC-SHA256 Credential={os.environ["S3_ACCESS_KEY"]}/{scope}, '
                                f'SignedHeaders={names}, Signature={signature}')
    LOCAL.connection.request(verb, quoted(path) + ('?' + query if query else ''), body, headers)
    answer = LOCAL.connection.getresponse()
    said = answer.read()
    if answer.status >= 300:
        sys.exit(f'{verb} {path!r}: {answer.status} {said[:300]!r}')
    return answer.headers, said


def put(bucket, key, body):
    request('PUT', os.fsencode(bucket) + b'/' + key, body)


def put_parts(bucket, key, parts):
    """One object of several parts: an iterable of bytes, each but the last of 5 MiB at least."""
    path = os.fsencode(bucket) + b'/' + key
    upload = re.search(rb'<UploadId>(.*?)</UploadId>', request('POST', path, query='uploads=')[1])[1].decode()
    upload_query = 'uploadId=' + urllib.parse.quote(upload, safe='')
    listed = ''
    for number, part in enumerate(parts, 1):
        etag = request('PUT', path, part, f'partNumber={number}&{upload_query}')[0]['ETag']
        listed += f'<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>'
    body = f'<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>'.encode()
    said = request('POST', path, body, upload_query)[1]
    if b'<Error>' in said:  # with status 200: the answer begins before the work is done
        sys.exit(f'{path!r}: {said[:300]!r}')


def put_tree(bucket, prefix, directory):
    root = os.fsencode(directory)
    files = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]

    def put_file(path):
        with open(path, 'rb') as file:
            put(bucket, os.fsencode(prefix) + os.path.relpath(path, root), file.read())

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in pool.map(put_file, files):
            pass


def main(command, bucket, *rest):
    bucket = '/' + bucket
    if command == 'bucket':
        request('PUT', os.fsencode(bucket))
    elif command == 'put':
        with open(rest[1], 'rb') as file:
            put(bucket, os.fsencode(rest[0]), file.read())
    elif command == 'tree':
        put_tree(bucket, *rest)
    elif command == 'delete':
        request('DELETE', os.fsencode(bucket) + b'/' + os.fsencode(rest[0]))
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    main(*sys.argv[1:])
