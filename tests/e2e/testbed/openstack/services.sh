#!/bin/bash
# Starts the services of one cloud that do not run: services.sh a|b [SERVICE]. RESTORED=1: the databases already hold the catalog.
set -euo pipefail
. "$(dirname "$0")/env.sh"; cloud_env "$1"; only=${2:-}
alive() { live_f $RUN/$1.pid; }
wanted() { [ -z "$only" ] || [ "$only" = "$1" ] || return 1; ! alive $1; }
start() { local n=$1; shift; setsid "$@" </dev/null >>$LOG/$n.out 2>&1 & echo $! > $RUN/$n.pid; }
wsgi() { # NAME PORT FILE-OR-MODULE UWSGI-OPTION...
  local n=$1 port=$2 app=(--module "$3"); shift 3; [[ ${app[1]} != /* ]] || app[0]=--wsgi-file
  # shellcheck disable=SC2086
  OS_DEFAULT__LOG_FILE=$LOG/$n.log start $n uwsgi_python3 $UWSGI --http-socket $BE:$port "${app[@]}" --master --processes 1 --threads 4 --enable-threads --lazy-apps \
    --buffer-size 65535 --die-on-term --no-orphans --disable-logging --add-header "Connection: close" --need-app --procname $n "$@"; }
fork() { # NAME PROJECT COMMAND MODULE:FUNCTION CONFIGURATION-FILE...; from the project's fork server
  local n=$1 p=$2 cmd=$3 main=$4 a f; shift 4
  a=(); for f in "$@"; do a+=(--config-file "$ETC/$p/$f"); done; a+=(--log-file "$LOG/$n.log")
  if ! forkserver $p; then start $n $cmd "${a[@]}"; return; fi
  rm -f $RUN/$n.pid; f=$(printf ', "%s"' "${a[@]}")
  echo "{\"main\": \"$main\", \"argv\": [\"$n\"$f], \"env\": {\"PATH\": \"$PATH\"}, \"out\": \"$LOG/$n.out\", \"pid\": \"$RUN/$n.pid\"}" > $FORKSERVERS/$p.fifo
  for _ in $(seq $((PATIENCE * 20))); do [ -s $RUN/$n.pid ] && return; sleep 0.05; done; echo "$n was not forked" >&2; return 1; }
forkserver() { # PROJECT: true when its fork server is ready
  [ -e $FORKSERVERS/$1.pid ] || return 1
  for _ in $(seq $((PATIENCE * 10))); do
    live_f $FORKSERVERS/$1.pid || return 1
    [ ! -e $FORKSERVERS/$1.ready ] || return 0; sleep 0.1; done; return 1; }
answers() { # SERVICE PORT: uwsgi opens the port before the application is there, hence over HTTP
  for _ in $(seq $((PATIENCE * 10))); do
    ! curl -s -o /dev/null -m 20 http://$BE:$2/ || return 0
    alive $1 || { echo "$1 of cloud $C died:"; tail -n 15 $LOG/$1.out; return 1; }; sleep 0.1; done
  echo "$1 of cloud $C never answered" >&2; return 1; }
there=" - "
after() { # WHAT: waits until it is there
  [ -z "$only" ] || return 0
  [[ $there != *" $1 "* ]] || return 0; there+="$1 "
  case $1 in
  rabbitmq) wait_for $PATIENCE tcp_open $INFRA_IP 5672 ;;
  placement) answers placement 8778 ;;
  neutron) answers neutron-server 9696; /usr/bin/python3 "$TB/openstack/consumed.py" $INFRA_IP os$C $SVCPW q-plugin $PATIENCE ;;
  keystone)
    answers keystone 5000; say "keystone answers"
    [ -n "${RESTORED:-}" ] || { /usr/bin/python3 "$TB/openstack/catalog.py" $BE $REGION $SVCPW $SCHEME://$IP; say "catalog registered"; } ;;
  esac; }
for p in keystone placement nova glance cinder neutron; do export "OS_${p^^}_CONFIG_DIR=$ETC/$p"; done
export OS_NEUTRON_CONFIG_FILES="neutron.conf;ml2_conf.ini"
! wanted haproxy || start haproxy haproxy -db -f $D/haproxy/haproxy.cfg
while read -r name need how args; do
  [ -n "$name" ] || continue
  after $need
  # shellcheck disable=SC2086
  ! wanted $name || $how $name $args
done <<<"$PROGRAMS"
[ -n "$only" ] && exit 0
answers glance-api 9292; answers cinder-api 8776; answers nova-api 8774; say "all APIs answer"
# shellcheck disable=SC2086
/usr/bin/python3 "$TB/openstack/waitup.py" $BE $REGION $SVCPW $PATIENCE $NETWORK_AGENTS; say "agents and services report up"
