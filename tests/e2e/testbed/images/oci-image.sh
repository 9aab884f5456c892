#!/bin/bash
# oci-image.sh NAME OUT.tar CONFIG-JSON LAYER.tar...: an OCI image made of uncompressed layers, ready for "ctr images import".
# CONFIG-JSON is merged into the image's config, e.g. {"User":"65532","Entrypoint":["/bin/x"]}. Nothing is compressed: it never leaves the machine.
set -euo pipefail
name=$1 out=$2 config=$3; shift 3
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
mkdir -p "$t/blobs/sha256"
blob() { # moves or links file $1 into the blobs, prints its descriptor of media type $2
  local d s; d=$(sha256sum <"$1" | cut -c1-64) s=$(stat -Lc %s "$1"); ln -f "$1" "$t/blobs/sha256/$d" 2>/dev/null || cp "$1" "$t/blobs/sha256/$d"
  printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s}' "$2" "$d" "$s"
}
layers=; for l in "$@"; do layers+=$(blob "$l" layer.v1.tar); done
layers=$(jq -cs . <<<"$layers")
jq -cn --argjson c "$config" --argjson l "$layers" '{architecture:"amd64",os:"linux",
  config:({Env:["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]} + $c), rootfs:{type:"layers",diff_ids:[$l[].digest]}}' >"$t/config"
config=$(blob "$t/config" config.v1+json)
jq -cn --argjson c "$config" --argjson l "$layers" '{schemaVersion:2,mediaType:"application/vnd.oci.image.manifest.v1+json",config:$c,layers:$l}' >"$t/manifest"
manifest=$(blob "$t/manifest" manifest.v1+json)
jq -cn --argjson m "$manifest" --arg n "$name" '{schemaVersion:2,manifests:[$m + {annotations:{"io.containerd.image.name":$n}}]}' >"$t/index.json"
echo '{"imageLayoutVersion":"1.0.0"}' >"$t/oci-layout"
tar -C "$t" -cf "$out" oci-layout index.json blobs
