#!/usr/bin/env bash
# kube-rs asks NO_PROXY about the proxy, not about the cluster, and a trailing comma in it is an error.
#
# What surprises: with HTTPS_PROXY and NO_PROXY set, `Config::from_kubeconfig` looks for the address of the *proxy* in
#   NO_PROXY. A cluster that NO_PROXY lists is spoken to through the proxy; and where NO_PROXY covers the proxy (a network of
#   the office) a cluster elsewhere is spoken to directly. It also applies NO_PROXY to `proxy-url` of the kubeconfig, which
#   kubectl does not, and refuses lists with an empty item ("a,b,"), which Go's clients skip. The types for this are not
#   public, and matchers of hosts without a port match no address that has one.
# Whom it bites: a tool built on kube-rs at a workstation where kubectl works: it hangs at the proxy, or at the firewall.
# Versions: kube 5.0.0; Go as installed (net/http, which client-go uses: ProxyFromEnvironment).
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/rust/src" "$tmp/go"

cat > "$tmp/rust/Cargo.toml" <<'END'
[package]
name = "rust"
edition = "2024"

[dependencies]
kube = { version = "=5.0.0", default-features = false, features = ["client", "http-proxy"] }
k8s-openapi = { version = "=0.29.0", default-features = false, features = ["v1_34"] }
tokio = { version = "1", features = ["macros", "rt"] }

[profile.dev]
debug = false
END
cat > "$tmp/rust/src/main.rs" <<'END'
//! The proxy that kube chooses for the cluster of KUBECONFIG.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    match kube::Config::from_kubeconfig(&Default::default()).await {
        Ok(config) => println!("{}", config.proxy_url.map_or("directly".into(), |proxy| format!("by {proxy}"))),
        Err(error) => println!("error: {error}"),
    }
}
END
cat > "$tmp/go/main.go" <<'END'
// The proxy that Go chooses for the address that is named.
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	request, _ := http.NewRequest("GET", os.Args[1], nil)
	proxy, err := http.ProxyFromEnvironment(request)
	switch {
	case err != nil:
		fmt.Println("error:", err)
	case proxy == nil:
		fmt.Println("directly")
	default:
		fmt.Println("by " + proxy.String() + "/")
	}
}
END
export CARGO_TARGET_DIR="$tmp/target" GOCACHE="$tmp/go-cache" GOFLAGS=-mod=mod
cargo build --quiet --manifest-path "$tmp/rust/Cargo.toml"
cargo tree --manifest-path "$tmp/rust/Cargo.toml" --depth 1 --prefix none | grep -E '^kube '
(cd "$tmp/go" && go mod init example.test/choose 2> /dev/null && go build -o "$tmp/choose" .)
go version
unset HTTPS_PROXY https_proxy NO_PROXY no_proxy HTTP_PROXY http_proxy ALL_PROXY all_proxy

changed=
case_of() { # cluster, proxy, NO_PROXY, what Go's clients do, what kube does
    cat > "$tmp/kubeconfig" <<END
apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
users: [{name: a, user: {}}]
clusters: [{name: a, cluster: {server: "$1"}}]
END
    go=$(HTTPS_PROXY=$2 NO_PROXY=$3 "$tmp/choose" "$1")
    kube=$(KUBECONFIG="$tmp/kubeconfig" HTTPS_PROXY=$2 NO_PROXY=$3 "$tmp/target/debug/rust")
    echo "== $1, HTTPS_PROXY=$2 NO_PROXY=$3"
    echo "Go:   $go"
    echo "kube: $kube"
    [[ $go == "$4" && $kube == "$5"* ]] || changed=1
}
squid=http://squid.example:3128
case_of https://kube.example:6443 $squid kube.example directly "by $squid/"
case_of https://192.0.2.7:6443 $squid 192.0.2.0/24 directly "by $squid/"
case_of https://198.51.100.7:6443 http://192.0.2.1:3128 192.0.2.0/24 "by http://192.0.2.1:3128/" directly
case_of https://kube.example:6443 $squid kube.example, directly "error: failed to parse NO_PROXY"
[ -z "$changed" ] || { echo "CHANGED: this is not what these versions did when this script was written"; exit 1; }
