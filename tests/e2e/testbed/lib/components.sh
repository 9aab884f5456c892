#!/bin/bash
# Components by name, inside the lab: components.sh list | logs [COMPONENT [TAIL-OPTION...]] | restart COMPONENT | kill | start | freeze COMPONENT [SECONDS]
# A name is site-a/SERVICE or site-b/SERVICE (of the cloud or of the cluster), or one of: store mariadb rabbitmq libvirtd virtlogd openvswitch
set -euo pipefail
. "$(dirname "$0")/settings.sh"
CLUSTER_SERVICES="etcd apiserver controller-manager scheduler containerd kubelet proxy csi"

# locate NAME: sets kind, PIDFILE and LOGS
locate() {
  local n=${1:-} s svc
  case $n in
  store) kind=store PIDFILE=$STORE/pid LOGS=$STORE/log ;;
  mariadb) kind=infra PIDFILE=$CLOUDS/infra/run/mysql.pid LOGS=$CLOUDS/infra/log/mysql.log ;;
  rabbitmq)
    # its own pid file is removed early when it stops, and by a second start that fails
    PIDFILE=$CLOUDS/infra/run/rabbit-beam.pid; pgrep -ox beam.smp >"$PIDFILE" || rm -f "$PIDFILE"
    kind=infra LOGS="$CLOUDS/infra/log/rabbit.out $CLOUDS/infra/log/ostack@localhost.log" ;;
  libvirtd | virtlogd) kind=infra PIDFILE=$CLOUDS/infra/run/$n.pid LOGS=/var/log/libvirt/qemu/*.log ;;
  openvswitch) kind=infra PIDFILE=$CLOUDS/infra/run/vswitchd.pid LOGS="$CLOUDS/infra/log/vswitchd.log $CLOUDS/infra/log/ovsdb.log" ;;
  site-[ab]/*)
    s=$(site_letter "${n%%/*}") svc=${n#*/} SVCNAME=$svc SITE=$s
    if [[ " $(cloud_services $s) " == *" $svc "* ]]; then kind=cloud PIDFILE=$CLOUDS/$s/run/$svc.pid LOGS="$CLOUDS/$s/log/$svc.log $CLOUDS/$s/log/$svc.out"
    elif [[ " $CLUSTER_SERVICES " == *" $svc "* ]]; then kind=cluster PIDFILE=$K8S/$s/pid/$svc LOGS=$K8S/$s/log/$svc.log
    else die "no component $n (testbed logs lists them)"; fi ;;
  *) die "no component '$n' (testbed logs lists them)" ;;
  esac
}
names() { echo store mariadb rabbitmq libvirtd; [ ! -d "$CLOUDS/infra/ovs" ] || echo openvswitch; local s x; for s in site-a site-b; do for x in $(cloud_services $s) $CLUSTER_SERVICES; do echo $s/$x; done; done; }
# a service's process is the leader of its group; libvirtd's group is its own too
signal() { local p; p=$(cat "$PIDFILE"); kill "-$1" -- "-$p" 2>/dev/null || kill "-$1" "$p" 2>/dev/null || true; }
gone() { ! live "$PID"; }
stop() { # SIGNAL
  # the pid is kept here, since some daemons remove their pid file long before they end
  PID=$(cat "$PIDFILE" 2>/dev/null || true); [ -n "$PID" ] || return 0
  signal CONT; signal "$1"; wait_for 20 gone 2>/dev/null || { kill -KILL "$PID"; wait_for 10 gone; }
  rm -f "$PIDFILE"
}
begin() {
  case $kind in
  store) "$TB/store/up.sh" ;;
  infra) "$TB/openstack/infra.sh" ;;
  cloud) RESTORED=1 "$TB/openstack/services.sh" "$SITE" "$SVCNAME" ;;
  cluster) "$TB/kubernetes/up.sh" "$SITE" ;;
  esac
}
verb=$1; shift
case $verb in
list) names | tr ' ' '\n' ;;
logs)
  if [ $# = 0 ]; then
    names | tr ' ' '\n' | while read -r n; do
      locate "$n"; sz=0; for f in $LOGS; do [ ! -e "$f" ] || sz=$((sz + $(stat -Lc %s "$f"))); done; printf '%-28s %8d bytes\n' "$n" $sz; done
    exit
  fi
  locate "$1"; shift; f=(); for x in $LOGS; do [ ! -s "$x" ] || f+=("$x"); done
  [ ${#f[@]} -gt 0 ] || { echo "(empty)"; exit 0; }
  exec tail "${@:--n200}" "${f[@]}" ;;
restart) locate "$1"; t=$EPOCHREALTIME; stop TERM; begin; say "$1: started again in $(elapsed "$t") s" ;;
kill) locate "$1"; stop KILL ;;
start) locate "$1"; begin ;;
freeze) locate "$1"; p=$(cat "$PIDFILE"); signal STOP
  [ -z "${2:-}" ] || setsid bash -c 'sleep "$1"; kill -CONT -- "-$2" 2>/dev/null || kill -CONT "$2"' f "$2" "$p" </dev/null >/dev/null 2>&1 & ;;
alive) locate "$1"; live_f "$PIDFILE" ;;
*) sed -n 2,3p "$0"; exit 2 ;;
esac
