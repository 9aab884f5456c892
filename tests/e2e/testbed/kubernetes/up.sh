#!/bin/bash
# Brings the clusters up inside the lab: kubernetes/up.sh a|b...; what runs already is left alone.
# Each is etcd, a control plane in the lab's own network, and one node in a nested namespace.
set -euo pipefail
. "$(dirname "$0")/../lib/settings.sh"
export PATH=$BIN:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY SSL_CERT_FILE SSL_CERT_DIR KUBECONFIG
innode() { nsenter -t "$(cat "$K8S/$1/pid/node")" -m -n -u -- "${@:2}"; }

alive() { [ -s "$D/pid/$1" ] && [ -d "/proc/$(cat "$D/pid/$1")/fd" ]; }
start() { # NAME CMD...: in the background with a pid file and a log
  alive "$1" && return
  setsid "${@:2}" </dev/null >>"$D/log/$1.log" 2>&1 & echo $! >"$D/pid/$1"
}
certs() { # one CA, one key per component; all made once
  mkdir -p "$D/pki"; cd "$D/pki"; [ -e done ] && return
  openssl ecparam -name prime256v1 -genkey -noout -out ca.key
  openssl req -x509 -new -key ca.key -days 3650 -subj "/CN=kubernetes-ca-$C" -out ca.crt \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
  openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  cert() { # FILE SUBJECT [SUBJECT-ALT-NAMES]
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -subj "$2" 2>/dev/null |
      openssl x509 -req -CA ca.crt -CAkey ca.key -days 3650 -out "$1.crt" 2>/dev/null -extfile <(
        echo "extendedKeyUsage=serverAuth,clientAuth"; [ -z "${3:-}" ] || echo "subjectAltName=$3")
  }
  cert apiserver /CN=kube-apiserver "IP:$API,IP:$SVC,IP:127.0.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  cert apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
  cert kubelet-server "/CN=node-$C" "IP:$NODE,DNS:node-$C"
  cert admin /O=system:masters/CN=admin
  cert controller-manager /CN=system:kube-controller-manager
  cert scheduler /CN=system:kube-scheduler
  cert kubelet "/O=system:nodes/CN=system:node:node-$C"
  cert proxy /CN=system:kube-proxy
  local u; for u in admin controller-manager scheduler kubelet proxy; do
    cat >"$D/$u.conf" <<Y
apiVersion: v1
kind: Config
clusters: [{name: site-$C, cluster: {server: "https://$API:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: site-$C-$u, user: {client-certificate-data: $(base64 -w0 $u.crt), client-key-data: $(base64 -w0 $u.key)}}]
contexts: [{name: site-$C, context: {cluster: site-$C, user: site-$C-$u}}]
current-context: site-$C
Y
  done
  touch done
}

control_plane() {
  start etcd etcd --name "$C" --data-dir "$D/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://$LO:2379" --advertise-client-urls "http://$LO:2379" \
    --listen-peer-urls "http://$LO:2380" --initial-advertise-peer-urls "http://$LO:2380" --initial-cluster "$C=http://$LO:2380"
  start apiserver kube-apiserver --bind-address "$API" --advertise-address "$API" --secure-port 6443 --etcd-servers "http://$LO:2379" \
    --service-cluster-ip-range "$SERVICES" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --client-ca-file "$D/pki/ca.crt" --tls-cert-file "$D/pki/apiserver.crt" --tls-private-key-file "$D/pki/apiserver.key" \
    --kubelet-client-certificate "$D/pki/apiserver-kubelet.crt" --kubelet-client-key "$D/pki/apiserver-kubelet.key" \
    --kubelet-certificate-authority "$D/pki/ca.crt" --kubelet-preferred-address-types InternalIP \
    --service-account-key-file "$D/pki/sa.pub" --service-account-signing-key-file "$D/pki/sa.key" \
    --service-account-issuer https://kubernetes.default.svc --enable-aggregator-routing --allow-privileged
  start controller-manager kube-controller-manager --kubeconfig "$D/controller-manager.conf" --bind-address "$LO" --leader-elect=false \
    --pvclaimbinder-sync-period 1s --flex-volume-plugin-dir /run/volume-plugins --use-service-account-credentials --service-account-private-key-file "$D/pki/sa.key" --root-ca-file "$D/pki/ca.crt" \
    --cluster-signing-cert-file "$D/pki/ca.crt" --cluster-signing-key-file "$D/pki/ca.key"
  start scheduler kube-scheduler --kubeconfig "$D/scheduler.conf" --bind-address "$LO" --leader-elect=false
}

# A node is a mount, network and uts namespace inside the lab: default paths and ports everywhere, and two kube-proxies do not meet.
node() {
  local n="$D/node" d c
  if ! alive node; then
    rm -f "$D/node.ready"
    start node unshare --mount --propagation slave --net --uts bash -ec "
      hostname node-$C; ip link set lo up; sysctl -qw net.ipv4.ip_forward=1
      mount -t tmpfs -o mode=755 tmpfs /run
      for d in /var/lib/kubelet /var/lib/containerd /var/lib/cni /etc/cni/net.d /var/log/pods /var/log/containers; do
        mkdir -p \$d $n\$d; mount --bind $n\$d \$d; done
      mount --make-rshared /; touch $D/node.ready; exec sleep infinity"
    wait_for $PATIENCE test -e "$D/node.ready"
    ip link add "site-$C" type veth peer name up0 netns "$(cat "$D/pid/node")" # the site's only link: shape it here
    ip addr add "$LINK/30" dev "site-$C"; ip link set "site-$C" up
    innode "$C" bash -ec "ip addr add $NODE/30 dev up0; ip link set up0 up; ip route add default via $LINK"
    ip route add "$PODS" via "$NODE" # pods are routed, not translated
  fi
  for c in cpu cpuacct cpuset memory devices freezer blkio pids systemd; do
    d=/sys/fs/cgroup/$c/$CGROUP-$C; [ -d "$d" ] || mkdir "$d"
    [ $c != cpuset ] || for f in cpus mems; do cat "/sys/fs/cgroup/cpuset/cpuset.$f" >"$d/cpuset.$f"; done
  done

  cat >"$n/etc/cni/net.d/10-pods.conflist" <<Y
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "$PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
  cat >"$D/containerd.toml" <<Y
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  device_ownership_from_security_context = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    options = {SystemdCgroup = false}
Y
  : >"$D/resolv.conf"
  cat >"$D/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP-$C
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {x509: {clientCAFile: $D/pki/ca.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
tlsCertFile: $D/pki/kubelet-server.crt
tlsPrivateKeyFile: $D/pki/kubelet-server.key
resolvConf: $D/resolv.conf
volumePluginDir: /run/volume-plugins
failSwapOn: false
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi} # never for disk: what is evicted first are images, which no registry here can give again
Y
  cat >"$D/proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: node-$C
clusterCIDR: $PODS
clientConnection: {kubeconfig: $D/proxy.conf}
conntrack: {maxPerCore: 0, min: 0}
Y
  local in=(nsenter -t "$(cat "$D/pid/node")" -m -n -u --)
  start containerd "${in[@]}" containerd --config "$D/containerd.toml"
  wait_for $PATIENCE innode "$C" ctr version
  local i; for i in pause tools; do
    innode "$C" ctr -n k8s.io images ls -q | grep -qx "localhost/$i:1" || innode "$C" ctr -n k8s.io images import "$CACHE/images/$i.tar" >/dev/null
  done
  start kubelet "${in[@]}" kubelet --config "$D/kubelet.yaml" --kubeconfig "$D/kubelet.conf" --hostname-override "node-$C" --node-ip "$NODE"
  start proxy "${in[@]}" kube-proxy --config "$D/proxy.yaml"
  # The share of this site's Cinder; the lab's mounts are seen in the node.
  mkdir -p "$CLOUDS/$C/share"
  start csi "${in[@]}" csi-cinder --node "node-$C" --volumes "$CLOUDS/$C/share"
}

up() {
  cluster_vars "$1"; mkdir -p "$D"/{pid,log,node}
  certs; control_plane; node
  local k=(kubectl --kubeconfig "$D/admin.conf")
  wait_for $PATIENCE "${k[@]}" get --raw /readyz
  wait_for $PATIENCE "${k[@]}" wait --for=condition=Ready "node/node-$C" --timeout=1s
  wait_for $PATIENCE "${k[@]}" -n default get serviceaccount default
  printf '%s\n' 'apiVersion: storage.k8s.io/v1' 'kind: CSIDriver' 'metadata: {name: cinder.csi.openstack.org}' \
    'spec: {attachRequired: false, podInfoOnMount: false, volumeLifecycleModes: [Persistent]}' | "${k[@]}" apply -f - >/dev/null
  say "cluster site-$C: ready"
}
mkdir -p "$K8S"
jobs=(); for s in "$@"; do up "$s" & jobs+=($!); done
rc=0; for j in "${jobs[@]}"; do wait "$j" || rc=1; done
[ $rc = 0 ] || exit 1
# one kubeconfig with both administrators
KUBECONFIG=$K8S/a/admin.conf:$K8S/b/admin.conf kubectl config view --flatten >"$STATE/kubeconfig.new"
chmod 600 "$STATE/kubeconfig.new"; mv "$STATE/kubeconfig.new" "$STATE/kubeconfig"
