#!/bin/bash
# Empties both tenants and the bucket, both at once; what "up" provides stays.
set -euo pipefail
. "$(dirname "$0")/../openstack/env.sh"
jobs=()
for c in a b; do /usr/bin/python3 "$TB/openstack/empty-tenant.py" "$CLOUDS/$c/tenant.json" $SVCPW & jobs+=($!); done
find "$STORE/data/$S3_BUCKET" -mindepth 1 -delete
rc=0; for j in "${jobs[@]}"; do wait "$j" || rc=1; done
say "reset done"; exit $rc
