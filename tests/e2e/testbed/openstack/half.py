#!/usr/bin/python3
"""Gives half of an OpenStack API's answers, as real clouds do: half.py ADDRESS PORT

haproxy sends requests here while `testbed fault half` is on. X-Backend says who has the whole answer, X-Fault what becomes of it:
how=cell | short | cut | in-use, and server=ID for that one only.
"""
import http.client
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LISTS = ('servers', 'volumes', 'snapshots', 'images', 'ports')
# What Nova still knows of a server whose cell does not answer: in a list, and of one.
OF_A_LIST = ('id', 'tenant_id', 'created', 'links')
OF_ONE = OF_A_LIST + ('image', 'flavor', 'OS-EXT-AZ:availability_zone', 'OS-EXT-STS:power_state', 'server_groups')
# With one of these Nova's list is made by skipping what a cell does not tell.
SKIPPING = ('limit', 'marker', 'sort_key', 'sort_dir', 'name', 'status', 'changes-since')
# As Glance on Ceph says it.
IN_USE = '''<html>
 <head>
  <title>409 Conflict</title>
 </head>
 <body>
  <h1>409 Conflict</h1>
  Image %s could not be deleted because it is in use: The image cannot be deleted because it is in use through the backend store \
outside of Glance.<br /><br />
 </body>
</html>'''


class Request:
    def __init__(self, method, target, fault):
        parts = urlsplit(target)
        self.method, self.target, self.path, self.query = method, target, parts.path.rstrip('/'), parse_qs(parts.query)
        self.how = re.search(r'how=([\w-]+)', fault).group(1)
        one = re.search(r'server=([0-9a-f-]+)', fault)
        self.one = one and one.group(1)

    def hits(self, server_id):
        return not self.one or self.one == server_id


def partial(server, keys):
    return {**{key: server[key] for key in keys if key in server}, 'status': 'UNKNOWN'}


def cell(request, body):
    """From microversion 2.69 on a server of a cell that is down is half a record, without name, metadata and lock."""
    if isinstance(body.get('server'), dict) and request.hits(body['server'].get('id')):
        return {'server': {**partial(body['server'], OF_ONE), 'user_id': 'UNKNOWN'}}
    if isinstance(body.get('servers'), list):
        if any(key in request.query for key in SKIPPING):
            return short(request, body)
        servers = [partial(s, OF_A_LIST) if request.hits(s['id']) else s for s in body['servers']]
        return {**body, 'servers': servers}
    return body


def short(request, body):
    """The list leaves servers out."""
    if not isinstance(body.get('servers'), list):
        return body
    return {**body, 'servers': [s for s in body['servers'] if not request.hits(s['id'])]}


def cut(request, body):
    """The list says that there is more, and does not give it."""
    key = next((key for key in LISTS if isinstance(body.get(key), list)), None)
    if key is None:
        return body
    there = [] if 'marker' in request.query else body[key][:len(body[key]) // 2]
    more = '%s?marker=more' % request.path
    link = {'next': more} if key == 'images' else {key + '_links': [{'rel': 'next', 'href': more}]}
    return {**body, key: there, **link}


TWISTS = {'cell': cell, 'short': short, 'cut': cut}


def twisted(request, body):
    """What becomes of a whole answer."""
    return TWISTS[request.how](request, body) if request.how in TWISTS and isinstance(body, dict) else body


def refusal(request):
    """The answer that is given without asking anybody: status, type, text; or none."""
    image = re.fullmatch(r'/v2/images/([0-9a-f-]+)', request.path)
    if request.how == 'in-use' and request.method == 'DELETE' and image:
        return 409, 'text/html; charset=UTF-8', IN_USE % image.group(1)
    below = re.search(r'/servers/([0-9a-f-]{36})/.', request.path)
    if request.how == 'cell' and below and request.hits(below.group(1)):
        fault = {'code': 500, 'message': 'Unexpected API Error. The cell is not responding and hence instance info is not available.'}
        return 500, 'application/json', json.dumps({'computeFault': fault})
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def answer(self):
        request = Request(self.command, self.path, self.headers.get('X-Fault', ''))
        sent = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        refused = refusal(request)
        if refused:
            status, kind, text = refused
            return self.give(status, [('Content-Type', kind)], text.encode())
        there = http.client.HTTPConnection(self.headers['X-Backend'], timeout=600)
        try:
            ours = ('x-backend', 'x-fault', 'connection', 'accept-encoding')
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ours}
            there.request(self.command, self.path, sent or None, headers)
            reply = there.getresponse()
            self.pass_on(request, reply)
        finally:
            there.close()

    def pass_on(self, request, reply):
        hop = ('connection', 'content-length', 'transfer-encoding')
        headers = [(key, value) for key, value in reply.getheaders() if key.lower() not in hop]
        if reply.status != 200 or 'json' not in (reply.getheader('Content-Type') or ''):
            return self.stream(reply, headers)
        body = json.dumps(twisted(request, json.loads(reply.read()))).encode()
        return self.give(200, headers, body)

    def give(self, status, headers, body):
        self.send_response_only(status)
        for key, value in headers + [('Content-Length', str(len(body)))]:
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, reply, headers):
        """Data of images are not kept in memory; the end of the connection is theirs."""
        self.send_response_only(reply.status)
        self.close_connection = True
        length = reply.getheader('Content-Length')
        for key, value in headers + ([('Content-Length', length)] if length else []) + [('Connection', 'close')]:
            self.send_header(key, value)
        self.end_headers()
        while piece := reply.read(1 << 16):
            self.wfile.write(piece)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, form, *values):
        pass


if __name__ == '__main__':
    ThreadingHTTPServer.allow_reuse_address = True
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
