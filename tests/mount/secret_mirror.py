#!/usr/bin/env python3
"""A server that shows in its answers all that it was told: every answer is an error whose text repeats the request.

usage: secret_mirror.py PORT_FILE
"""
import http.server
import os
import sys


class Mirror(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def answer(self):
        told = f'{self.command} {self.path} ' + ' '.join(f'{name}: {value}' for name, value in self.headers.items())
        told = told.replace('&', '&amp;').replace('<', '&lt;')
        body = f'<?xml version="1.0"?><Error><Code>SignatureDoesNotMatch</Code><Message>{told}</Message></Error>'.encode()
        self.send_response(403, 'Forbidden ' + self.headers.get('x-amz-security-token', '')[:200])
        self.send_header('Content-Length', str(len(body)))
        self.send_header('Content-Type', 'application/xml')
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Mirror)
with open(sys.argv[1] + '.new', 'w', encoding='ascii') as file:
    file.write(str(server.server_address[1]))
os.rename(sys.argv[1] + '.new', sys.argv[1])
server.serve_forever()
