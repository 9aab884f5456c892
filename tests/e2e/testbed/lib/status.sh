#!/bin/bash
# Says per component whether it is ready, or why not; exit code 0 only if all are. Runs inside the lab.
set -uo pipefail
. "$(dirname "$0")/../openstack/env.sh"
export PATH=$BIN:$PATH
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
COMPONENT=$TB/lib/components.sh
# every check prints nothing if all is well
processes() { # which components of $1 (a pattern) do not run
  local n; for n in $("$COMPONENT" list | grep -E "$1"); do "$COMPONENT" alive "$n" 2>/dev/null || echo -n "${n#*/} does not run; "; done; }
cloud() {
  cloud_vars "$1"; local s p code ca=()
  [ $SCHEME = http ] || ca=(--cacert "$STATE/ca.pem")
  processes "^site-$C/(haproxy|keystone|placement|glance|neutron|cinder|nova)"
  for s in keystone:5000/v3 nova:8774 cinder:8776 placement:8778 glance:9292/versions neutron:9696; do
    code=$(curl -s -m 10 "${ca[@]}" -o /dev/null -w '%{http_code}' "$SCHEME://$IP:${s#*:}")
    case $code in 200 | 300) ;; *) echo -n "${s%:*} answers $code; " ;; esac
  done
  [ -s "$STATE/site-$C.json" ] || echo -n "no tenant; "
  # shellcheck disable=SC2086
  p=$(/usr/bin/python3 "$TB/openstack/waitup.py" $BE $REGION $SVCPW 0 $NETWORK_AGENTS 2>&1 >/dev/null) || echo -n "$p"
}
cluster() {
  local c k; c=$(site_letter "$1"); k=(kubectl --kubeconfig "$K8S/$c/admin.conf" --request-timeout 5s)
  processes "^site-$c/(etcd|apiserver|controller-manager|scheduler|containerd|kubelet|proxy|csi)"
  "${k[@]}" get --raw /readyz >/dev/null 2>"$t/e$c" || { echo -n "API server: $(tail -n1 "$t/e$c")"; return; }
  [ "$("${k[@]}" get node "node-$c" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>&1)" = True ] || echo -n "node not Ready; "
  "${k[@]}" -n default get serviceaccount default >/dev/null 2>&1 || echo -n "no default service account; "
}
store() {
  live_f "$STORE/pid" || { echo -n "does not run"; return; }
  local code; code=$(curl -s -m 5 --cacert "$STATE/ca.pem" --aws-sigv4 aws:amz:us-east-1:s3 --user "$S3_ACCESS_KEY:$S3_SECRET_KEY" -o /dev/null -w '%{http_code}' -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" "https://$STORE_ADDR/$S3_BUCKET")
  [ "$code" = 200 ] || echo -n "bucket $S3_BUCKET answers $code"
}
shared() { processes '^(mariadb|rabbitmq|libvirtd|openvswitch)$'; tcp_open $INFRA_IP 5672 || echo -n "RabbitMQ does not answer; "; }
check() { local n=$1; "${@:2}" >"$t/$n" 2>&1; }
L="infrastructure cloud-site-a cloud-site-b cluster-site-a cluster-site-b store"
check infrastructure shared & check cloud-site-a cloud a & check cloud-site-b cloud b &
check cluster-site-a cluster a & check cluster-site-b cluster b & check store store & wait
rc=0
for n in $L; do
  if [ -s "$t/$n" ]; then printf '%-16s NOT READY: %s\n' "$n" "$(tr '\n' ' ' <"$t/$n")"; rc=1; else printf '%-16s ready\n' "$n"; fi
done
exit $rc
