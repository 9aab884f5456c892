#!/bin/bash
# Memory (PSS, MiB) and CPU seconds per part of the test bed, inside the lab.
set -uo pipefail
. "$(dirname "$0")/settings.sh"
HZ=$(getconf CLK_TCK)
total() { # NAME PID...
  local n=$1 p m=0 c=0 k=0 x; shift
  for p in "$@"; do
    x=$(awk '/^Pss:/{s+=$2} END{print s+0}' "/proc/$p/smaps_rollup" 2>/dev/null) || continue
    m=$((m + ${x:-0})); k=$((k + 1)); x=$(awk '{sub(/.*\) /,""); print $12+$13}' "/proc/$p/stat" 2>/dev/null); c=$((c + ${x:-0}))
  done
  printf '%-26s %3d processes %6d MiB %7d CPU-s\n' "$n" $k $((m / 1024)) $((c / HZ))
}
group() { local f; for f in "$@"; do [ ! -s "$f" ] || pgrep -g "$(cat "$f")"; done; }
# shellcheck disable=SC2046
for c in a b; do
  total "cloud site-$c" $(group "$CLOUDS/$c"/run/*.pid) $(pgrep -f "dnsmasq.*$CLOUDS/$c/")
  total "guests of site-$c" $(pgrep -f "guest=os$c-")
  total "cluster site-$c" $(group "$K8S/$c"/pid/*)
done
# shellcheck disable=SC2046
{
  total "fork servers, helpers" $(group "$CLOUDS"/infra/forkservers/*/*.pid)
  total "MariaDB" $(group "$CLOUDS/infra/run/mysql.pid"); total "RabbitMQ" $(pgrep -x beam.smp)
  total "libvirt" $(head -qn1 "$CLOUDS"/infra/run/libvirtd.pid) $(cat "$CLOUDS/infra/run/virtlogd.pid"); total "Open vSwitch" $(cat "$CLOUDS"/infra/run/{ovsdb,vswitchd}.pid 2>/dev/null); total "store" $(group "$STORE/pid")
}
printf 'tmpfs of the clouds: %s; disk: %s\n' "$(df -h --output=used "$CLOUDS" | tail -n1 | tr -d ' ')" "$(du -shx "$STATE" 2>/dev/null | cut -f1)"
free -m | head -2
