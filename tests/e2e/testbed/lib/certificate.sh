#!/bin/bash
# certificate.sh CERT KEY COMMON-NAME SUBJECT-ALT-NAMES: a server certificate signed by the test bed's private CA.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
ca=$CACHE/pki
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$3" -keyout "$2" 2>/dev/null |
  openssl x509 -req -CA "$ca/ca.pem" -CAkey "$ca/ca.key" -set_serial "0x$(openssl rand -hex 8)" -days 3650 -out "$1" 2>/dev/null \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$4")
