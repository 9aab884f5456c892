#!/bin/bash
# Injects faults, inside the lab. SITE: site-a or site-b
#
#  answer SITE API STATUS SECONDS [PERCENT]   a cloud's public API answers 401 403 404 409 413 429 500 502 503 504, or "drop" (never answers), "reset",
#                                             "404page" (404 with a web page, as a gateway without a backend answers);
#                                             API: keystone nova cinder placement glance neutron, or API/METHOD (nova/POST)
#  half SITE API HOW SECONDS [SERVER-ID]      half of what it should answer: "cell" (nova: all servers, or this one, are in a cell that is down:
#                                             status UNKNOWN, no name, no metadata), "short" (nova: lists leave them out), "cut" (any list: there
#                                             is more, and it is not given), "in-use" (glance: DELETE of an image answers 409, as on Ceph);
#                                             half SITE API off: whole again
#  slow SITE API MS SECONDS [PERCENT]         every answer of the public API takes MS longer
#  cut SITE API                               break the transfers that run now (image upload or download in the middle)
#  apiserver SITE off [SECONDS] | on          the cluster's API server refuses connections, running ones are reset (also for the cluster's own parts)
#  store off [SECONDS] | on                   the object store refuses connections, running ones are reset
#  store small MIB | room | whole             its bucket is an empty one with so much room | gets room | is the former one again
#  link SITE RATE|off                         limit the pods' traffic from and to a site, e.g. 200mbit
#  kill | start | restart COMPONENT           (site-b/nova-api, store, ...; "testbed logs" lists them); also: kill SITE SERVICE
#  freeze COMPONENT [SECONDS]                 SIGSTOP: connections are taken, nothing is answered; also: freeze SITE SERVICE SECONDS
#  heal [SITE]                                end all of the above but killed components
#  list [SITE]                                faults that are on now
#
#  volume-state SITE VOLUME STATE [ATTACH]    e.g. error, available (admin's reset_status)
#  server-state SITE SERVER error|active
#  no-disk SITE on|off                        new volumes end in "error": the scheduler sees the share as full
#  no-host SITE on|off                        new servers end in ERROR, "No valid host was found"
#  boot-fails SITE on|off                     new servers end in ERROR after scheduling: libvirt refuses to start them
#  snapshot-fails SITE on|off                 new volume snapshots end in "error"
#  quota SITE full|default|volumes=N|instances=N|cores=N|ram=N|gigabytes=N|ports=N...   full: exactly what is used now
#  guest-kill SERVER-ID                       the guest's QEMU dies (power failure)
set -euo pipefail
. "$(dirname "$0")/../openstack/env.sh"
verb=${1:-}; [ -n "$verb" ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }
shift
COMPONENT=$TB/lib/components.sh
is_site() { case $1 in a | b | site-a | site-b) ;; *) return 1 ;; esac; }
name() { if is_site "$1"; then echo "site-$(site_letter "$1")/$2"; else echo "$1"; fi; } # SITE SERVICE or COMPONENT

# --- the network: a rule that resets connections to an address and port, under a comment that is the fault's name
T="inet testbed-faults"
net_on() { # NAME: end the fault
  local h
  for h in $(nft -a list chain $T input 2>/dev/null | sed -n "s/.*comment \"$1\" # handle \([0-9]*\)/\1/p"); do nft delete rule $T input handle "$h" 2>/dev/null || true; done
}
net_off() { # NAME ADDRESS PORT [SECONDS]
  nft add table $T; nft add chain $T input '{ type filter hook input priority -10; }'
  net_on "$1"
  nft add rule $T input ip daddr "$2" tcp dport "$3" reject with tcp reset comment "\"$1\""
  # An `if`, not `||`: a list in the background would be a shell of its own that keeps the caller's pipes open.
  if [ -n "${4:-}" ]; then setsid bash -c 'sleep "$2"; exec "$1" "${@:3}"' f "$0" "$4" net-on "$1" </dev/null >/dev/null 2>&1 & fi
}
switch() { # NAME ADDRESS PORT on|off [SECONDS]
  case ${4:-} in on) net_on "$1" ;; off) net_off "$1" "$2" "$3" "${5:-}" ;; *) die "on or off [SECONDS]?" ;; esac
}
# Another bucket over the store's own: on a disk of its own, which a file beside the bucket fills up.
bucket() { # small MIB | room | whole
  local over=$STORE/data/$S3_BUCKET small=$STORE/small size=$((16 << 30))
  case $1 in
  small)
    "$0" store whole
    mkdir -p "$small"; truncate -s $size "$small.img"; mkfs.ext4 -q -F -m 0 "$small.img"; mount -o loop "$small.img" "$small"
    mkdir "$small/bucket"
    fallocate -l $(($(df -B1 --output=avail "$small" | tail -n1) - ($2 << 20))) "$small/filler"
    mkdir -p "$STORE/below"; mount --bind --make-private "$STORE/data" "$STORE/below"
    mount --bind "$small/bucket" "$over"
    # A probe that was under way does not reach what it wrote any more.
    find "$STORE/below/$S3_BUCKET" -name '.probe-*' -delete; umount "$STORE/below" ;;
  room) rm -f "$small/filler" ;;
  whole) for m in "$over" "$small"; do ! mountpoint -q "$m" || umount "$m"; done; rm -f "$small.img" ;;
  esac
}
case $verb in
guest-kill) p=$(pgrep -f "qemu-system.*uuid $1" | head -n1); [ -n "$p" ] || die "no guest $1 runs"; kill -9 "$p"; exit ;;
apiserver) cluster_vars "${1:-}"; switch "apiserver site-$C" "$API" 6443 "${@:2}"; exit ;;
store) case ${1:-} in small | room | whole) bucket "$@"; exit ;; esac; switch store "${STORE_ADDR%:*}" "${STORE_ADDR#*:}" "$@"; exit ;;
net-on) net_on "$1"; exit ;; # the end of a timed fault
link)
  cluster_vars "${1:-}"; node=(nsenter -t "$(cat "$K8S/$C/pid/node")" -n --)
  for side in "tc qdisc|dev site-$C" "${node[*]} tc qdisc|dev up0"; do
    ${side%|*} del ${side#*|} root 2>/dev/null || true
    [ "$2" = off ] || ${side%|*} add ${side#*|} root tbf rate "$2" burst 512kb latency 50ms
  done; exit ;;
kill | start | restart) exec "$COMPONENT" $verb "$(name "$@")" ;;
freeze) if is_site "$1"; then exec "$COMPONENT" freeze "$(name "$@")" "${3:-}"; else exec "$COMPONENT" freeze "$@"; fi ;;
heal | list)
  if [ $# = 0 ]; then
    "$0" $verb site-a; "$0" $verb site-b
    [ $verb = list ] || { nft delete table $T 2>/dev/null || true; "$0" store whole; }
    exit 0
  fi ;;
esac
cloud_vars "${1:-}"; shift
hap() { /usr/bin/python3 - $RUN/haproxy.sock "$@" <<'P'
import socket, sys
for cmd in sys.argv[2:]:
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall((cmd + '\n').encode()); out = b''
    while 1:
        d = s.recv(65536)
        if not d: break
        out += d
    if out.strip(): print(out.decode().strip())
P
}
MAP=$D/haproxy/fault.map
fault() { # key value seconds: set it now, take it back later unless another fault has replaced it
  local tag="id=$$"; hap "del map $MAP $1" >/dev/null; hap "add map $MAP $1 $2,$tag"
  # outlives this script
  ( sleep $3; hap "show map $MAP" | grep -qF "$tag" && hap "del map $MAP $1" >/dev/null ) </dev/null >/dev/null 2>&1 & }
adm() { /usr/bin/python3 -c "import sys
from oslib import admin
k = admin('$BE', '$SVCPW', region='$REGION'); host = 'cloud$C'; arg = sys.argv[1:]
$1" "${@:2}"; }
half() { # API HOW SECONDS [SERVER-ID] | API off: half.py stands before the API, which haproxy asks instead
  [ $2 != off ] || { hap "del map $MAP $1/GET" "del map $MAP $1/DELETE" >/dev/null; return; }
  case $1/$2 in nova/cell | nova/short) k=$1/GET ;; glance/in-use) k=$1/DELETE ;; nova/cut | cinder/cut | glance/cut | neutron/cut) k=$1/GET ;; *) die "$1 has no fault $2" ;; esac
  live_f $RUN/half.pid || { setsid /usr/bin/python3 "$TB/openstack/half.py" $BE $HALF_PORT </dev/null >>$LOG/half.out 2>&1 & echo $! > $RUN/half.pid; }
  wait_for 30 tcp_open $BE $HALF_PORT
  fault $k "status=half,how=$2,server=${4:-}" $3; }
flag() { [ "$1" = on ] && touch "$2" || rm -f "$2"; }
case $verb in
answer) fault $1 "status=$2,percent=${4:-100}" $3 ;;
half) half "$@" ;;
slow) fault $1 "delay=$2,percent=${4:-100}" $3 ;;
cut) hap "shutdown sessions server $1/$1" ;;
heal)
  hap "clear map $MAP"; rm -f $D/fault.*
  for f in $RUN/*.pid $K8S/$C/pid/*; do kill -CONT -- -$(cat $f) 2>/dev/null || true; done
  net_on "apiserver site-$C"; "$0" link $C off
  adm "
for s in k.get('compute', '/os-services')['services']:
    if s['status'] == 'disabled': k.put('compute', '/os-services/' + s['id'], {'status': 'enabled'})
for s in k.get('volumev3', '/os-services', microversion='3.0')['services']:
    if s['status'] == 'disabled': k.put('volumev3', '/os-services/enable', {'host': s['host'], 'binary': s['binary']})" ;;
list)
  hap "show map $MAP" | sed "s/^[^ ]* /site-$C API /"; ls $D/fault.* 2>/dev/null | sed "s/.*fault\./site-$C /" || true
  nft list table $T 2>/dev/null | sed -n 's/.*comment "\(.*\)"/\1 off/p' | grep -E "site-$C|store" || true
  for f in $RUN/*.pid; do ! grep -qs ') T ' "/proc/$(cat $f)/stat" || echo "site-$C/$(basename $f .pid) frozen"; done
  for n in $("$COMPONENT" list | grep "^site-$C/"); do "$COMPONENT" alive $n || echo "$n does not run"; done ;;
volume-state) adm "b = {'status': arg[1]}
if len(arg) > 2: b['attach_status'] = arg[2]
k.post('volumev3', '/volumes/%s/action' % arg[0], {'os-reset_status': b})" "$@" ;;
server-state) adm "k.post('compute', '/servers/%s/action' % arg[0], {'os-resetState': {'state': arg[1]}})" "$@" ;;
no-disk) adm "s = 'disable' if arg[0] == 'on' else 'enable'; k.put('volumev3', '/os-services/' + s, {'host': host + '@nfs', 'binary': 'cinder-volume'})" "$1" ;;
no-host) adm "i = [s['id'] for s in k.get('compute', '/os-services')['services'] if s['binary'] == 'nova-compute'][0]
k.put('compute', '/os-services/' + i, {'status': 'disabled' if arg[0] == 'on' else 'enabled'})" "$1" ;;
boot-fails) flag $1 $D/fault.boot ;;
snapshot-fails) flag $1 $D/fault.snapshot ;;
quota) adm "
import json, os
p = json.load(open('$D/tenant.json'))['project']
sets = {'compute': ('instances', 'cores', 'ram', 'key_pairs', 'server_groups', 'metadata_items'), 'volumev3': ('volumes', 'snapshots', 'gigabytes'), 'network': ('network', 'subnet', 'port', 'router', 'floatingip', 'security_group', 'security_group_rule')}
def put(svc, b):
    if svc == 'network': k.put(svc, '/quotas/' + p, {'quota': b})
    else: k.put(svc, '/os-quota-sets/' + p, {'quota_set': b}, microversion={'compute': '2.35', 'volumev3': '3.0'}[svc])
if arg == ['default']:
    for svc in ('compute', 'volumev3'): k.delete(svc, '/os-quota-sets/' + p, microversion={'compute': '2.35', 'volumev3': '3.0'}[svc])
    k.delete('network', '/quotas/' + p, ok=False) # none was set: 404
elif arg == ['full']:
    l = k.get('compute', '/os-quota-sets/%s/detail' % p, microversion='2.35')['quota_set']; put('compute', {x: l[x]['in_use'] for x in ('instances', 'cores', 'ram')})
    v = k.get('volumev3', '/os-quota-sets/%s?usage=true' % p)['quota_set']; put('volumev3', {x: v[x]['in_use'] for x in sets['volumev3']})
    n = k.get('network', '/quotas/%s/details' % p)['quota']; put('network', {x: n[x]['used'] for x in ('port', 'floatingip', 'security_group')})
else:
    for a in arg:
        x, v = a.split('='); x = {'ports': 'port', 'floatingips': 'floatingip', 'security_groups': 'security_group'}.get(x, x)
        for svc, names in sets.items():
            if x in names: put(svc, {x: int(v)}); break
        else: sys.exit('no such quota: ' + x)" "$@" ;;
*) echo "unknown verb: $verb" >&2; exit 2 ;;
esac
