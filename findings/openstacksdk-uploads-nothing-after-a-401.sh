#!/usr/bin/env bash
# An upload that meets a 401 is sent again with an empty body, and reported as done.
#
# What surprises: when a service answers 401, keystoneauth fetches a new token and sends the request again, but the
#   file it sends was read to its end by the first try and is not rewound. The second try has a body of 0 bytes, the
#   object store answers 201, and openstacksdk returns without an error. It also notes the file's SHA-256 beside the
#   empty object, so a second create_object of the same file finds it up to date, and sends nothing.
# Whom it bites: whoever uploads objects with openstacksdk while tokens can end early: one is revoked, a password is
#   changed, Keystone's keys are lost, its clock and the service's differ.
# Versions: openstacksdk 4.22.0, keystoneauth1 5.18.1, requests 2.34.2.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet openstacksdk==4.22.0 keystoneauth1==5.18.1 requests==2.34.2

cat > "$tmp/show.py" <<'EOF'
"""A Keystone and a Swift on loopback: the first token is good until the first PUT of an object."""
import http.server
import json
import sys
import tempfile
import threading

import keystoneauth1.session
import openstack
from importlib.metadata import version

DISK = b"0123456789abcdef" * 4096
puts, stored = [], {}


class Cloud(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tokens = 0

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        if self.path.rstrip("/") == "/v3":
            version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": url + "/v3/"}]}
            return self.answer(200, json.dumps({"version": version}).encode())
        self.answer(404)

    def do_POST(self):
        self.body()
        Cloud.tokens += 1
        endpoint = {"id": "e", "interface": "public", "region": "R", "region_id": "R", "url": url + "/swift/AUTH_p"}
        token = {
            "methods": ["password"], "user": {"id": "u", "name": "u", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p", "name": "p", "domain": {"id": "default", "name": "Default"}}, "roles": [],
            "issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": "2099-01-01T00:00:00.000000Z",
            "catalog": [{"id": "s", "type": "object-store", "name": "swift", "endpoints": [endpoint]}],
        }
        self.answer(201, json.dumps({"token": token}).encode(), [("X-Subject-Token", f"token-{Cloud.tokens}")])

    def do_HEAD(self):
        headers, data = stored.get(self.path, (None, b""))
        self.answer(404) if headers is None else self.answer(200, data, headers)

    def do_PUT(self):
        data = self.body()
        status = 401 if self.headers["X-Auth-Token"] == "token-1" else 201
        puts.append((status, len(data)))
        if status == 201:
            stored[self.path] = ([h for h in self.headers.items() if h[0].lower().startswith("x-object-meta-")], data)
        self.answer(status)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
url = f"http://127.0.0.1:{server.server_port}"
threading.Thread(target=server.serve_forever, daemon=True).start()

cloud = openstack.connect(
    load_yaml_config=False, load_envvars=False, auth_type="password", region_name="R",
    auth={"auth_url": url + "/v3", "username": "u", "password": "p", "project_name": "p",
          "user_domain_id": "default", "project_domain_id": "default"},
)
with tempfile.NamedTemporaryFile() as file:
    file.write(DISK)
    file.flush()
    print("versions:", *(f"{name} {version(name)}" for name in ("openstacksdk", "keystoneauth1", "requests")))
    result = cloud.object_store.create_object("backups", "disk.img", filename=file.name)
    print(f"create_object of {len(DISK)} bytes returns {result!r}, without an error")
    print("PUT requests seen by the store (answer, bytes received):", puts)
    first = list(puts)
    cloud.object_store.create_object("backups", "disk.img", filename=file.name)
    print("PUT requests of a second create_object of the same file:", puts[len(first):])

size = len(stored["/swift/AUTH_p/backups/disk.img"][1])
print(f"the object in the store now has {size} bytes")
if first != [(401, len(DISK)), (201, 0)] or len(puts) != 2 or size != 0:
    sys.exit("CHANGED: this is not what these versions did when this script was written")
EOF
"$tmp/venv/bin/python" "$tmp/show.py"
