#!/usr/bin/env bash
# A self-signed server certificate that is also given as the CA is good for OpenSSL, Python and curl, not for rustls.
#
# What surprises: `openssl req -x509` writes CA:TRUE into a certificate unless it is told otherwise. Given as the CA of
#   the server that presents it, such a certificate is accepted by what stands on OpenSSL. rustls refuses it with
#   CaUsedAsEndEntity, although it is byte for byte the one that it was told to trust; with CA:FALSE it takes it.
# Whom it bites: whoever gives the `cacert` of a small OpenStack or object store, right for the command-line clients, to
#   a client written in Rust: there it looks like a missing CA.
# Versions: rustls 0.23.46 with rustls-webpki 0.103.17; OpenSSL, Python and curl as installed (seen with OpenSSL 3.0).
set -euo pipefail
tmp=$(mktemp -d)
trap 'kill $servers 2> /dev/null || true; rm -rf "$tmp"' EXIT
servers=
mkdir -p "$tmp/client/src"

cat > "$tmp/client/Cargo.toml" <<'EOF'
[package]
name = "client"
edition = "2024"

[dependencies]
rustls = { version = "=0.23.46", default-features = false, features = ["ring", "std", "tls12"] }
rustls-webpki = { version = "=0.103.17", default-features = false }

[profile.dev]
debug = false
EOF
cat > "$tmp/client/src/main.rs" <<'EOF'
//! One GET over TLS; the only trusted certificate is in the file that is named.
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{io::{Read, Write}, net::TcpStream, sync::Arc};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&arguments[1])?)?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), "127.0.0.1".try_into()?)?;
    let mut socket = TcpStream::connect(format!("127.0.0.1:{}", arguments[2]))?;
    let mut tls = rustls::Stream::new(&mut connection, &mut socket);
    let mut answer = [0; 15];
    let done = tls
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .and_then(|()| tls.read_exact(&mut answer));
    match done {
        Ok(()) => println!("connected: {}", String::from_utf8_lossy(&answer)),
        Err(error) => println!("refused: {error}"),
    }
    Ok(())
}
EOF
cat > "$tmp/server.py" <<'EOF'
"""Serves with the certificate that is named; writes its port into a file."""
import http.server
import os
import ssl
import sys

folder = sys.argv[1]
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/cert.pem", folder + "/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(folder + "/port.new", "w") as file:
    file.write(str(server.server_port))
os.rename(folder + "/port.new", folder + "/port")
os.chdir(folder + "/www")
server.serve_forever()
EOF
cat > "$tmp/client.py" <<'EOF'
"""The same GET by Python, with the same one trusted certificate."""
import ssl
import sys
import urllib.request

context = ssl.create_default_context(cafile=sys.argv[1])
print("connected:", urllib.request.urlopen(f"https://127.0.0.1:{sys.argv[2]}/", context=context).status)
EOF

export CARGO_TARGET_DIR="$tmp/target"
cargo build --quiet --manifest-path "$tmp/client/Cargo.toml"
cargo tree --manifest-path "$tmp/client/Cargo.toml" --depth 1 --prefix none | grep -E '^rustls'
openssl version

changed=
expect() { # what was seen, what it has to begin with
    case $1 in "$2"*) ;; *) changed=1 ;; esac
}
ask() { # name, more options for openssl
    local folder="$tmp/$1" port seen
    mkdir -p "$folder/www"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
        "${@:2}" -keyout "$folder/key.pem" -out "$folder/cert.pem" 2> "$folder/openssl.log"
    python3 "$tmp/server.py" "$folder" 2> "$folder/server.log" &
    servers="$servers $!"
    for _ in $(seq 100); do [ -e "$folder/port" ] && break; sleep 0.1; done
    port=$(cat "$folder/port")
    echo "== $1: $(openssl x509 -in "$folder/cert.pem" -noout -ext basicConstraints | tail -1 | tr -d ' ')"
    seen=$(openssl verify -CAfile "$folder/cert.pem" "$folder/cert.pem")
    echo "openssl: ${seen#"$folder/"}"
    seen=$(python3 "$tmp/client.py" "$folder/cert.pem" "$port")
    echo "python:  $seen"
    expect "$seen" "connected: 200"
    seen=$(curl --silent --noproxy '*' --cacert "$folder/cert.pem" --output /dev/null --write-out '%{http_code}' \
        "https://127.0.0.1:$port/")
    echo "curl:    $seen"
    expect "$seen" 200
    rust=$("$tmp/target/debug/client" "$folder/cert.pem" "$port")
    echo "rustls:  $rust"
}
ask "openssl's default"
expect "$rust" "refused: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))"
ask "told CA:FALSE" -addext basicConstraints=critical,CA:FALSE
expect "$rust" "connected: HTTP/1.0 200"
[ -z "$changed" ] || { echo "CHANGED: this is not what these versions did when this script was written"; exit 1; }
