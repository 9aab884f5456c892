#!/usr/bin/env bash
# Kubernetes takes dates that kube-rs cannot read, and one of them makes a list of all objects fail.
#
# What surprises: the last day of the year 9999, in which "never" is often written (X.509 does), is a good date for
#   Kubernetes, in its own kinds and in a CRD's `format: date-time`. k8s-openapi keeps times in jiff, whose last moment
#   is 9999-12-30T22:00:00Z, and refuses it; and where it is in one object, the typed list with all the others is
#   refused. `format: date-time` also lets through 2030-01-01T00:00:00x5Z and the offset +99:99, which neither jiff
#   nor Kubernetes' own type for times can read.
# Whom it bites: controllers in Rust that list or watch typed objects: whoever may write one object stops them for all.
# Versions: Kubernetes 1.35.4 (k8s.io/api and k8s.io/apimachinery v0.35.4, k8s.io/kube-openapi of 2025-09-10),
#   k8s-openapi 0.29.0 with jiff 0.2.46.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/server" "$tmp/client/src"

# The server's side: what the API server uses to check a CRD's string, and to read a Lease.
cat > "$tmp/server/main.go" <<'EOF'
// For each argument: does format date-time take it, does the type for times read it, does a Lease?
package main

import (
	"encoding/json"
	"fmt"
	"os"

	coordination "k8s.io/api/coordination/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
)

func main() {
	schema := spec.StringProperty()
	schema.Format = "date-time"
	format := validate.NewSchemaValidator(schema, nil, "", strfmt.Default)
	for _, text := range os.Args[1:] {
		var time meta.Time
		quoted, _ := json.Marshal(text)
		read := json.Unmarshal(quoted, &time) == nil
		fmt.Printf("%s format: date-time %t, metav1.Time %t\n", text, format.Validate(text).IsValid(), read)
	}
	list := coordination.LeaseList{}
	text, _ := os.ReadFile("leases.json")
	err := json.Unmarshal(text, &list)
	fmt.Printf("LeaseList: %d leases, error: %v\n", len(list.Items), err)
}
EOF
cat > "$tmp/client/Cargo.toml" <<'EOF'
[package]
name = "client"
edition = "2024"

[dependencies]
jiff = "=0.2.46"
k8s-openapi = { version = "=0.29.0", default-features = false, features = ["v1_35"] }
serde_json = "1"

[profile.dev]
debug = false
EOF
cat > "$tmp/client/src/main.rs" <<'EOF'
//! For each argument: does k8s-openapi's type for times read it? And the same list of Leases.
use k8s_openapi::{List, api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::Time};

fn main() {
    for text in std::env::args().skip(1) {
        println!("{text} Time {}", serde_json::from_value::<Time>(text.as_str().into()).is_ok());
    }
    let list = std::fs::read("leases.json").unwrap();
    match serde_json::from_slice::<List<Lease>>(&list) {
        Ok(list) => println!("List<Lease>: {} leases", list.items.len()),
        Err(error) => println!("List<Lease>: error: {error}"),
    }
}
EOF
cat > "$tmp/leases.json" <<'EOF'
{"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList", "metadata": {"resourceVersion": "1"}, "items": [
  {"metadata": {"name": "one"}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}},
  {"metadata": {"name": "two"}, "spec": {"renewTime": "9999-12-31T23:59:59.000000Z"}}]}
EOF

(
    export GOPATH="$tmp/go" GOCACHE="$tmp/cache" GOFLAGS=-modcacherw CGO_ENABLED=0
    cd "$tmp/server"
    {
        go mod init server
        go get k8s.io/api@v0.35.4 k8s.io/apimachinery@v0.35.4 k8s.io/kube-openapi@v0.0.0-20250910181357-589584f1c912
        go mod tidy
        go build -o server .
    } > build.log 2>&1 || { cat build.log; exit 1; }
    go list -m k8s.io/api k8s.io/apimachinery k8s.io/kube-openapi
)
export CARGO_TARGET_DIR="$tmp/target"
cargo build --quiet --manifest-path "$tmp/client/Cargo.toml"
cargo tree --manifest-path "$tmp/client/Cargo.toml" --depth 1 --prefix none | grep -E '^(jiff|k8s-openapi) '

cd "$tmp"
dates=(2030-01-01T00:00:00Z 9999-12-30T22:00:00Z 9999-12-31T00:00:00Z 2030-01-01T00:00:00x5Z 2030-01-01T00:00:00+99:99)
{
    echo "== Kubernetes"
    server/server "${dates[@]}"
    echo "== k8s-openapi"
    target/debug/client "${dates[@]}"
} | tee seen
cat > expected <<'EOF'
== Kubernetes
2030-01-01T00:00:00Z format: date-time true, metav1.Time true
9999-12-30T22:00:00Z format: date-time true, metav1.Time true
9999-12-31T00:00:00Z format: date-time true, metav1.Time true
2030-01-01T00:00:00x5Z format: date-time true, metav1.Time false
2030-01-01T00:00:00+99:99 format: date-time true, metav1.Time false
LeaseList: 2 leases, error: <nil>
== k8s-openapi
2030-01-01T00:00:00Z Time true
9999-12-30T22:00:00Z Time true
9999-12-31T00:00:00Z Time false
2030-01-01T00:00:00x5Z Time false
2030-01-01T00:00:00+99:99 Time false
EOF
grep -v '^List<Lease>' seen | diff expected - && grep -q '^List<Lease>: error: .*overflowed' seen ||
    { echo "CHANGED: this is not what these versions did when this script was written"; exit 1; }
