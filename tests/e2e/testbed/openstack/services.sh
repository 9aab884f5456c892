#!/bin/bash
# Starts the services of one cloud that do not run: services.sh a|b [SERVICE]. RESTORED=1: the databases already hold the catalog.
set -euo pipefail
. "$(dirname "$0")/env.sh"; cloud_vars "$1"; only=${2:-}; Z=$CLOUDS/infra/forkservers
alive() { live_f $RUN/$1.pid; }
wanted() { [ -z "$only" ] || [ "$only" = "$1" ] || return 1; ! alive $1; }
start() { local n=$1; shift; wanted $n || return 0; setsid "$@" </dev/null >>$LOG/$n.out 2>&1 & echo $! > $RUN/$n.pid; }
uw() { # uwsgi app: name port wsgi-file [threads]
  start $1 uwsgi_python3 --http-socket $BE:$2 --wsgi-file $3 --master --processes 1 --threads ${4:-4} --enable-threads --lazy-apps \
    --buffer-size 65535 --die-on-term --no-orphans --disable-logging --add-header "Connection: close" --rem-header Content-Length --need-app; }
py() { # service in Python: name project module arguments...; forked from the project's fork server
  local n=$1 p=$2 m=$3 a cmd=$1; shift 3; case $n in neutron-lb) cmd=neutron-linuxbridge-agent ;; neutron-dhcp|neutron-l3) cmd=$n-agent ;; esac; wanted $n || return 0
  if [ ! -p $Z/$p.fifo ] || ! live_f $Z/$p.pid; then PYTHONPATH=$TB/openstack/py start $n $cmd "$@"; return; fi
  for _ in $(seq $((PATIENCE * 10))); do [ -e $Z/$p.ready ] && break; live_f $Z/$p.pid || { py "$n" none x "$@"; return; }; sleep 0.1; done
  rm -f $RUN/$n.pid; a=$(printf ', "%s"' "$@" --log-file $LOG/$n.log)
  echo "{\"main\": \"$m:main\", \"argv\": [\"$n\"$a], \"env\": {\"PATH\": \"$PATH\"}, \"out\": \"$LOG/$n.out\", \"pid\": \"$RUN/$n.pid\"}" > $Z/$p.fifo
  for _ in $(seq $((PATIENCE * 20))); do [ -s $RUN/$n.pid ] && return; sleep 0.05; done; echo "$n was not forked" >&2; return 1; }
port() { local ip=${3:-$BE}; for i in $(seq $((PATIENCE * 10))); do (exec 3<>/dev/tcp/$ip/$1) 2>/dev/null && return 0; [ -n "${3:-}" ] || alive $2 || { echo "$2 of cloud $C died:"; tail -n 5 $LOG/$2.out; return 1; }; sleep 0.1; done; echo "port $1 ($2) of cloud $C never opened" >&2; return 1; }
N="--config-file $ETC/neutron/neutron.conf"; M="$N --config-file $ETC/neutron/ml2_conf.ini"
export OS_KEYSTONE_CONFIG_DIR=$ETC/keystone OS_PLACEMENT_CONFIG_DIR=$ETC/placement
uw keystone 5000 /usr/bin/keystone-wsgi-public 4
uw placement 8778 /usr/bin/placement-api 2
start haproxy haproxy -db -f $D/haproxy/haproxy.cfg
[ -n "$only" ] || port 5672 rabbitmq $INFRA_IP
py neutron-server neutron neutron.cmd.eventlet.server $M
py glance-api glance glance.cmd.api --config-file $ETC/glance/glance-api.conf
py cinder-api cinder cinder.cmd.api --config-file $ETC/cinder/cinder.conf
[ -n "$only" ] || { port 5000 keystone; for i in $(seq $((PATIENCE * 10))); do curl -sf http://$BE:5000/v3 >/dev/null && break; sleep 0.1; done; say "keystone answers"; }
[ -n "$only" ] || [ -n "${RESTORED:-}" ] || { /usr/bin/python3 "$TB/openstack/catalog.py" $BE $REGION $SVCPW $SCHEME://$IP; say "catalog registered"; }
py nova-conductor nova nova.cmd.conductor --config-file $ETC/nova/nova.conf
py nova-api nova nova.cmd.api --config-file $ETC/nova/nova.conf
py cinder-volume cinder cinder.cmd.volume --config-file $ETC/cinder/cinder.conf
py cinder-scheduler cinder cinder.cmd.scheduler --config-file $ETC/cinder/cinder.conf
py nova-scheduler nova nova.cmd.scheduler --config-file $ETC/nova/nova.conf
[ -n "$only" ] || port 8778 placement
py nova-compute nova nova.cmd.compute --config-file $ETC/nova/nova-compute.conf
[ -n "$only" ] || port 9696 neutron-server
py neutron-lb neutron neutron.cmd.eventlet.plugins.linuxbridge_neutron_agent $M --config-file $ETC/neutron/linuxbridge_agent.ini
py neutron-dhcp neutron neutron.cmd.eventlet.agents.dhcp $N --config-file $ETC/neutron/dhcp_agent.ini
py neutron-l3 neutron neutron.cmd.eventlet.agents.l3 $N --config-file $ETC/neutron/l3_agent.ini
[ -n "$only" ] && exit 0
port 9292 glance-api; port 8776 cinder-api; port 8774 nova-api; say "all API ports open"
/usr/bin/python3 "$TB/openstack/waitup.py" $BE $REGION $SVCPW; say "agents and services report up"
