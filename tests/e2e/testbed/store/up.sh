#!/bin/bash
# Starts the object store inside the lab: versitygw over a directory, S3 over HTTPS, with the bucket the tests use.
set -euo pipefail
. "$(dirname "$0")/../lib/settings.sh"
mkdir -p "$STORE/data/$S3_BUCKET"; cd "$STORE" # a directory is a bucket
[ -s cert.pem ] || "$TB/lib/certificate.sh" cert.pem key.pem store "IP:${STORE_ADDR%:*},DNS:store.test"
# What each address sends to the store and gets from it, in bytes on the wire, since the lab began: testbed traffic.
T="inet testbed-traffic"
/usr/sbin/nft list table $T >/dev/null 2>&1 || /usr/sbin/nft -f - <<N
table $T {
  set received { type ipv4_addr; flags dynamic; counter; }
  set sent { type ipv4_addr; flags dynamic; counter; }
  chain input {
    type filter hook input priority -20
    ip daddr ${STORE_ADDR%:*} tcp dport ${STORE_ADDR#*:} add @received { ip saddr counter }
  }
  chain output {
    type filter hook output priority -20
    ip saddr ${STORE_ADDR%:*} tcp sport ${STORE_ADDR#*:} add @sent { ip daddr counter }
  }
}
N
live_f pid || {
  ROOT_ACCESS_KEY=$S3_ACCESS_KEY ROOT_SECRET_KEY=$S3_SECRET_KEY setsid "$BIN/versitygw" --port "$STORE_ADDR" --cert "$STORE/cert.pem" --key "$STORE/key.pem" \
    posix "$STORE/data" </dev/null >>log 2>&1 & echo $! >pid; }
wait_for $PATIENCE tcp_open "${STORE_ADDR%:*}" "${STORE_ADDR#*:}" || { tail log; exit 1; }
say "store: ready"
