#!/usr/bin/env bash
# versitygw answers 409 ExistingObjectIsDirectory to a PUT of a new key while another key below the same prefix is deleted.
#
# What surprises: nobody ever wrote a directory, each client writes and deletes keys of its own, and still some writes are
#   refused with "Existing Object is a directory.", a code that S3 does not have. On the posix backend a prefix is a
#   directory, which goes with its last key; a write that comes just then finds it gone, or there again, and says so.
#   Clients do not repeat a 409, which means "you and the store disagree" and not "try again": here the second try is good.
# Whom it bites: whatever makes and removes small objects below one prefix at the same time, as restic does with locks/.
# Versions: versitygw v1.8.0 (posix backend, --nometa); boto3 1.44.8 with one attempt.
set -euo pipefail
tmp=$(mktemp -d)
store=
trap '[ -z "$store" ] || kill "$store" 2>/dev/null; rm -rf "$tmp"' EXIT
export GOPATH="$tmp/go" GOCACHE="$tmp/cache" GOBIN="$tmp/bin" GOFLAGS=-modcacherw CGO_ENABLED=0
go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 2> "$tmp/build.log" || { cat "$tmp/build.log"; exit 1; }
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q boto3==1.44.8

cat > "$tmp/show.py" <<'EOF'
"""Four clients, each with keys of its own below one prefix: write, delete, write the next."""
import collections
import sys
import threading

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

MOST = 3000
s3 = boto3.client(
    "s3", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="key",
    aws_secret_access_key="secretsecret", config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}))
s3.create_bucket(Bucket="bucket")
answers, again, found = collections.Counter(), collections.Counter(), threading.Event()


def client(number):
    for turn in range(MOST):
        if found.is_set():
            return
        key = f"repository/locks/{number}-{turn}"
        try:
            s3.put_object(Bucket="bucket", Key=key, Body=b"x")
            answers["200"] += 1
        except ClientError as error:
            answers[f"{error.response['ResponseMetadata']['HTTPStatusCode']} {error.response['Error']['Code']}"] += 1
            s3.put_object(Bucket="bucket", Key=key, Body=b"x")
            again["200"] += 1
            found.set()
        s3.delete_object(Bucket="bucket", Key=key)


clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
for thread in clients:
    thread.start()
for thread in clients:
    thread.join()
print("writes of new keys:", dict(answers))
print("the same write once more:", dict(again))
sys.exit(0 if "409 ExistingObjectIsDirectory" in answers and again else 1)
EOF
mkdir "$tmp/data"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
ROOT_ACCESS_KEY=key ROOT_SECRET_KEY=secretsecret "$tmp/bin/versitygw" --port "127.0.0.1:$port" posix --nometa "$tmp/data" > "$tmp/store.log" 2>&1 &
store=$!
for _ in $(seq 100); do curl -s -o /dev/null "http://127.0.0.1:$port/" && break; sleep 0.1; done
echo "versitygw v1.8.0, boto3 1.44.8"
"$tmp/venv/bin/python" "$tmp/show.py" "http://127.0.0.1:$port" || { echo "the behaviour has changed"; exit 1; }
# Seen on 2026-11-30:
#   versitygw v1.8.0, boto3 1.44.8
#   writes of new keys: {'200': 14, '409 ExistingObjectIsDirectory': 1}
#   the same write once more: {'200': 1}
