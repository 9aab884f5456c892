#!/bin/bash
# Brings both clouds up inside the lab, from the saved state if there is one that fits; what runs already is left alone.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$TB/openstack"
pfx() { sed -u "s/^/clouds: ${1:-}/"; }
tenant() {
  cloud_vars "$1"; local ca=; [ $SCHEME = http ] || ca=$STATE/ca.pem
  /usr/bin/python3 ./tenant.py $C $BE $REGION $NET $EXT $SVCPW "$CLOUDS" $SCHEME://$IP "$ca" "$CACHE/pki/id_ed25519.pub" "$CACHE/guest/guest.qcow2"
}
[ "${TESTBED_SITE_B:-$RELEASE_B}" = "$RELEASE_B" ] || die "cloud B of this lab is OpenStack $RELEASE_B: testbed down"
echo "$RELEASE_B" >"$CLOUDS/release-b"
./forkservers.sh
if [ -e "$CLOUDS/ready" ]; then export RESTORED=1 # already set up in this lab
elif [ -e "$CLOUDS/restored" ]; then export RESTORED=1 # an earlier "up" was cut off after this point
elif [ -d "$CLOUDS/infra/mysql" ]; then die "an earlier first start was cut off half way: testbed down, then up"
elif ./saved.sh restore; then export RESTORED=1; touch "$CLOUDS/restored"; say "clouds: saved state unpacked"; fi
./infra.sh; say "clouds: MariaDB up"
./config.sh a; ./config.sh b
if [ -n "${RESTORED:-}" ]; then
  ./services.sh a 2>&1 | pfx "A: " & ja=$!; ./services.sh b 2>&1 | pfx "B: " & jb=$!; wait $ja; wait $jb
else
  ./databases.sh a 2>&1 | { grep -v "not provided" || true; } | pfx; say "clouds: databases A made"
  ./services.sh a 2>&1 | pfx "A: " & ja=$!
  ./databases.sh b 2>&1 | { grep -v "not provided" || true; } | pfx
  ./services.sh b 2>&1 | pfx "B: " & jb=$!
  wait $ja; wait $jb; say "clouds: services up"
  tenant a & ja=$!; tenant b; wait $ja; say "clouds: tenants made"
fi
/usr/bin/python3 ./clouds-yaml.py "$CLOUDS" $SVCPW >"$STATE/clouds.yaml.new"; mv "$STATE/clouds.yaml.new" "$STATE/clouds.yaml"
for c in a b; do cp "$CLOUDS/$c/tenant.json" "$STATE/site-$c.json"; done
[ -n "${RESTORED:-}" ] || { ./saved.sh save; say "clouds: state saved for the next start"; }
touch "$CLOUDS/ready"
say "clouds: both ready"
