#!/usr/bin/env bash
# `restic snapshots --no-lock` creates the Swift container that it looks into.
#
# What surprises: a command that only lists snapshots, told not even to write a lock, first creates the container when
#   there is none, and says nothing of it. A mistyped name leaves a container behind for each wrong try, and a
#   monitoring job with a stale name brings a deleted container back. With its other commands restic does the same,
#   since it creates the container whenever it opens a Swift repository; only of `init` would one expect that.
# Whom it bites: whoever cleans up containers, counts them, or gives restic a credential that is thought to be used
#   for reading only.
# Versions: restic 0.19.1 (its Swift client is github.com/ncw/swift/v2 2.0.5).
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export GOPATH="$tmp/go" GOCACHE="$tmp/cache" GOBIN="$tmp/bin" GOFLAGS=-modcacherw CGO_ENABLED=0
go install github.com/restic/restic/cmd/restic@v0.19.1 2> "$tmp/build.log" || { cat "$tmp/build.log"; exit 1; }

cat > "$tmp/show.py" <<'EOF'
"""A Swift with one container, `backups`; restic is pointed at `bakcups`."""
import http.server
import os
import subprocess
import sys
import threading

containers, requests = {"backups"}, []


class Swift(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers=()):
        requests.append((self.command, self.path, status))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        if self.path == "/auth/v1.0":
            return self.answer(200, [("X-Storage-Url", url + "/v1/AUTH_me"), ("X-Auth-Token", "t")])
        self.answer(404)

    def do_HEAD(self):
        container, _, key = self.path.removeprefix("/v1/AUTH_me/").partition("/")
        if key or container not in containers:
            return self.answer(404)
        self.answer(204, [("X-Container-Object-Count", "0"), ("X-Container-Bytes-Used", "0")])

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        containers.add(self.path.removeprefix("/v1/AUTH_me/"))
        self.answer(201)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Swift)
url = f"http://127.0.0.1:{server.server_port}"
threading.Thread(target=server.serve_forever, daemon=True).start()

restic, home = sys.argv[1:]
env = {"HOME": home, "PATH": os.environ["PATH"], "RESTIC_PASSWORD": "p",
       "ST_AUTH": url + "/auth/v1.0", "ST_USER": "me:me", "ST_KEY": "k"}
print(subprocess.run([restic, "version"], env=env, text=True, stdout=subprocess.PIPE).stdout.strip())
before = sorted(containers)
command = ["--no-cache", "-r", "swift:bakcups:/", "snapshots", "--no-lock"]
ended = subprocess.run([restic, *command], env=env, text=True, timeout=120,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
print("$ restic", *command)
print(ended.stdout.strip())
print("exit code:", ended.returncode)
print("requests:")
for request in requests:
    print("   ", *request)
print("containers before:", before, "after:", sorted(containers))
if ("PUT", "/v1/AUTH_me/bakcups", 201) not in requests or ended.returncode != 10:
    sys.exit("CHANGED: this is not what this version did when this script was written")
EOF
python3 "$tmp/show.py" "$tmp/bin/restic" "$tmp"
