#!/bin/bash
# load-operator.sh BINARY [NAME]: the operator's image (base layer + one small layer with the binary, and the client if it is beside it)
# into both clusters, no registry needed.
set -euo pipefail
. "$(dirname "$0")/../lib/settings.sh"
bin=${1:-}; name=${2:-$DEFAULT_IMAGE}
[ -x "$bin" ] || die "load-operator BINARY [NAME]: no program '$bin'"
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
mkdir -p "$t/root/usr/local/bin"
put() {
  cp "$1" "$2"; chmod 755 "$2"
  # debug information of an unoptimised build is hundreds of MB that every cluster would unpack
  [ "$(stat -c %s "$1")" -lt 60000000 ] || strip --strip-debug "$2" 2>/dev/null || true
  "$TB/images/libs.sh" "$t/root" "$1"
}
put "$bin" "$t/root/usr/local/bin/vmmigration"
client=$(dirname "$bin")/kubectl-vmmigration
[ ! -x "$client" ] || put "$client" "$t/root/usr/local/bin/kubectl-vmmigration"
"$TB/images/layer.sh" "$t/root" "$t/layer.tar"
"$TB/images/oci-image.sh" "$name" "$t/image.tar" '{"User":"65532:65532","Entrypoint":["/usr/local/bin/vmmigration"],"WorkingDir":"/tmp"}' \
  "$CACHE/images/base.tar" "$t/layer.tar"
jobs=()
for c in a b; do
  nsenter -t "$(cat "$K8S/$c/pid/node")" -m -n -u -- ctr -n k8s.io images import "$t/image.tar" >"$t/log-$c" 2>&1 & jobs+=($!)
done
rc=0; for j in "${jobs[@]}"; do wait "$j" || rc=1; done
[ $rc = 0 ] || { cat "$t"/log-*; die "import failed"; }
say "$name ($(sha256sum <"$bin" | cut -c1-12), layer of $(($(stat -c %s "$t/layer.tar") / 1048576)) MiB) is in both clusters"
