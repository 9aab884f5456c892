#!/bin/bash
# Starts the object store inside the lab: versitygw over a directory, S3 over HTTPS, with the bucket the tests use.
set -euo pipefail
. "$(dirname "$0")/../lib/settings.sh"
mkdir -p "$STORE/data/$S3_BUCKET"; cd "$STORE" # a directory is a bucket
[ -s cert.pem ] || "$TB/lib/certificate.sh" cert.pem key.pem store "IP:${STORE_ADDR%:*},DNS:store.test"
live_f pid || {
  ROOT_ACCESS_KEY=$S3_ACCESS_KEY ROOT_SECRET_KEY=$S3_SECRET_KEY setsid "$BIN/versitygw" --port "$STORE_ADDR" --cert "$STORE/cert.pem" --key "$STORE/key.pem" \
    posix "$STORE/data" </dev/null >>log 2>&1 & echo $! >pid; }
wait_for 20 tcp_open "${STORE_ADDR%:*}" "${STORE_ADDR#*:}" || { tail log; exit 1; }
say "store: ready"
