# Settings and small helpers shared by every part of the test bed (sourced, never run).
# shellcheck shell=bash disable=SC2034,SC2045,SC2154
# Directories do not depend on the checkout, so any checkout of the project controls the same lab.
TB=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${TESTBED_CACHE:-/var/cache/vmmigration-testbed} # survives "down": binaries, guest image, saved clouds, private CA
STATE=${TESTBED_DIR:-/var/lib/vmmigration-testbed}     # gone after "down"
DISK_NEEDED=${TESTBED_DISK_NEEDED:-6}                  # GiB that "up" wants free: images, volumes and snapshots of both clouds
LAB_RUN=${TESTBED_RUN:-/run/vmmigration-testbed}       # outside the lab: pid file, start log
CLOUDS=$STATE/clouds                                   # a tmpfs inside the lab: MariaDB, images, volumes (a real disk's fsync costs minutes)
K8S=$STATE/kubernetes                                  # on disk: containerd's images would only fill memory
STORE=$STATE/store
CGROUP=${STATE##*/} # a cluster's is CGROUP-a or CGROUP-b
BIN=$CACHE/bin
export TB CACHE STATE LAB_RUN CLOUDS K8S STORE BIN

K8S_VERSION=v1.35.4
INFRA_IP=10.99.0.10 # MariaDB and RabbitMQ
STORE_ADDR=10.99.0.20:9000
S3_BUCKET=migrations S3_ACCESS_KEY=testbed S3_SECRET_KEY=testbed-secret
SVCPW=ostack
DEFAULT_IMAGE=localhost/vmmigration:dev

# site-a, a -> a
site_letter() {
  case ${1:-} in
  a | site-a) echo a ;;
  b | site-b) echo b ;;
  *) echo "site-a or site-b, not '${1:-}'" >&2; return 2 ;;
  esac
}

# Which OpenStack each cloud runs: a file of openstack/releases. A lab that is up keeps what it was started with.
RELEASE_A=zed
RELEASE_B=${TESTBED_SITE_B:-zed}
[ ! -s "$CLOUDS/release-b" ] || RELEASE_B=$(<"$CLOUDS/release-b")

# Where half.py listens, which gives half answers (faults.sh).
HALF_PORT=8790

# The variables of cloud a or b. IP: what clients see (haproxy); BE: where the services listen and talk to each other.
cloud_vars() {
  C=$(site_letter "$1")
  case $C in
  a) IP=10.99.0.11 BE=127.0.1.11 NET=10.231.11 EXT=10.231.21 REGION=RegionA SCHEME=http RELEASE=$RELEASE_A ;;
  b) IP=10.99.0.12 BE=127.0.1.12 NET=10.231.12 EXT=10.231.22 REGION=RegionB SCHEME=https RELEASE=$RELEASE_B ;;
  esac
  D=$CLOUDS/$C ETC=$CLOUDS/$C/etc LOG=$CLOUDS/$C/log RUN=$CLOUDS/$C/run
  FORKSERVERS=$CLOUDS/infra/forkservers/$RELEASE
  # shellcheck source=/dev/null
  . "$TB/openstack/releases/$RELEASE.sh"
}
# The names of a cloud's services.
cloud_services() { (cloud_vars "$1"; awk 'BEGIN {printf "haproxy"} NF {printf " %s", $1} END {print ""}' <<<"$PROGRAMS"); }
# The projects whose services are forked from one process.
forked_projects() { awk '$3 == "fork" {print $4}' <<<"$PROGRAMS" | sort -u; }

# The variables of cluster a or b.
cluster_vars() {
  C=$(site_letter "$1") D=$K8S/$C
  case $C in
  a) API=10.99.0.31 LO=127.0.0.31 PODS=10.99.64.0/20 SERVICES=10.99.96.0/24 SVC=10.99.96.1 LINK=10.99.1.1 NODE=10.99.1.2 ;;
  b) API=10.99.0.32 LO=127.0.0.32 PODS=10.99.80.0/20 SERVICES=10.99.97.0/24 SVC=10.99.97.1 LINK=10.99.1.5 NODE=10.99.1.6 ;;
  esac
}

export T0=${T0:-$EPOCHREALTIME}
# seconds since T0 (or since $1) with one decimal
elapsed() { local t=${1:-$T0} n=$EPOCHREALTIME; local d=$(((${n/./} - ${t/./}) / 100000)); printf '%d.%d' $((d / 10)) $((d % 10)); }
say() { printf '[%6s s] %s\n' "$(elapsed)" "$*"; }
die() { echo "testbed: $*" >&2; exit 1; }

# a process that is there and no zombie (kill -0 succeeds on zombies)
live() { [ -n "${1:-}" ] && [ -r "/proc/$1/stat" ] && ! grep -q ') Z ' "/proc/$1/stat" 2>/dev/null; }
live_f() { [ -s "$1" ] && live "$(cat "$1")"; }
# For what comes up: a deadline is for what hangs, and never for what is slow beside others. What dies is seen at once.
PATIENCE=600
# wait_for SECONDS CMD...: poll until CMD succeeds
wait_for() {
  local end=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "gave up after $1 s waiting for: ${*:2}" >&2; return 1; }
    sleep 0.1
  done
}
tcp_open() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }
