#!/usr/bin/env bash
# openstack_sdk (Rust) hands out the text of a 404 as the bytes of the image.
#
# What surprises: `api::download(endpoint).query_async(&cloud)` does not look at the status of the answer, and does not
#   return it. The download of an image that was deleted is Ok, and its body is Glance's error message. For the image's
#   record, asked for by the same library a moment before, the same 404 is an error, as one expects.
# Whom it bites: whoever writes to a file what comes: without a look at size and checksum a few bytes with an error
#   message in them pass for a backup.
# Versions: openstack_sdk 0.22.8 with openstack-sdk-auth-password 0.22.7. Builds about 250 crates.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/client/src"

cat > "$tmp/client/Cargo.toml" <<'EOF'
[package]
name = "client"
edition = "2024"

[dependencies]
futures = "0.3"
openstack_sdk = { version = "=0.22.8", default-features = false, features = ["async", "image"] }
openstack-sdk-auth-password = "=0.22.7"
serde_json = "1"
tokio = { version = "1", features = ["macros", "rt-multi-thread"] }

[profile.dev]
debug = false
EOF
cat > "$tmp/client/src/main.rs" <<'EOF'
//! Asks for an image that is not there, then for its bytes.
use futures::AsyncReadExt;
use openstack_sdk::{
    AsyncOpenStack,
    api::{QueryAsync, download, image::v2::image},
    config::ConfigFile,
    types::ServiceType,
};
use openstack_sdk_auth_password as _;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keystone = std::env::args().nth(1).ok_or("the address of Keystone is missing")?;
    let auth = json!({
        "auth_url": keystone, "username": "u", "password": "p", "project_name": "p",
        "user_domain_name": "Default", "project_domain_name": "Default",
    });
    let clouds = json!({"clouds": {"site": {"auth": auth, "region_name": "R"}}});
    let config = serde_json::from_value::<ConfigFile>(clouds)?;
    let config = config.get_cloud_config("site")?.ok_or("no such cloud")?;
    let cloud = AsyncOpenStack::builder(&config).disable_auth_cache(true).connect().await?;
    cloud.discover_service_endpoint(&ServiceType::Image).await?;

    let record: Result<Value, _> = image::get::Request::builder().id("gone").build()?.query_async(&cloud).await;
    println!("get: {}", if record.is_ok() { "Ok" } else { "an error" });
    let file = image::file::download::Request::builder().image_id("gone").build()?;
    match download(file).query_async(&cloud).await {
        Ok((_headers, mut body)) => {
            let mut disk = Vec::new();
            body.read_to_end(&mut disk).await?;
            println!("download: Ok, {} bytes: {}", disk.len(), String::from_utf8_lossy(&disk));
        }
        Err(error) => println!("download: an error: {error}"),
    }
    Ok(())
}
EOF
cat > "$tmp/show.py" <<'EOF'
"""A Keystone and a Glance without images on loopback."""
import http.server
import json
import subprocess
import sys
import threading

requests = []


class Cloud(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, value, headers=()):
        requests.append((self.command, self.path, status))
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in [("Content-Type", "application/json"), *headers]:
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.rstrip("/")
        if path == "/identity/v3":
            version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": url + "/identity/v3/"}]}
            return self.answer(200, {"version": version})
        if path in ("/image", "/image/v2"):
            version = {"id": "v2.15", "status": "CURRENT", "links": [{"rel": "self", "href": url + "/image/v2/"}]}
            return self.answer(200, {"versions": [version]})
        self.answer(404, {"code": 404, "title": "Not Found", "message": "No image found with ID gone"})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.path.endswith("/auth/tokens"):
            return self.answer(404, {})
        domain = {"id": "default", "name": "Default"}

        def service(kind, path):
            endpoint = {"id": kind, "interface": "public", "region": "R", "region_id": "R", "url": url + path}
            return {"id": kind, "type": kind, "name": kind, "endpoints": [endpoint]}

        token = {
            "methods": ["password"], "user": {"id": "u", "name": "u", "domain": domain},
            "project": {"id": "p", "name": "p", "domain": domain}, "roles": [{"id": "r", "name": "member"}],
            "issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": "2099-01-01T00:00:00.000000Z",
            "catalog": [service("identity", "/identity/v3"), service("image", "/image")],
        }
        self.answer(201, {"token": token}, [("X-Subject-Token", "t")])


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
url = f"http://127.0.0.1:{server.server_port}"
threading.Thread(target=server.serve_forever, daemon=True).start()

client = subprocess.run([sys.argv[1], url + "/identity/v3"], text=True, timeout=120,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
print(client.stdout.strip())
print("answers of Glance:", *(request for request in requests if "gone" in request[1]))
expected = ["get: an error", "download: Ok, "]
lines = client.stdout.splitlines()
if len(lines) != 2 or not all(map(str.startswith, lines, expected)) or "No image found" not in lines[1]:
    sys.exit("CHANGED: this is not what this version did when this script was written")
EOF

export CARGO_TARGET_DIR="$tmp/target"
cargo build --quiet --manifest-path "$tmp/client/Cargo.toml"
cargo tree --manifest-path "$tmp/client/Cargo.toml" --depth 1 --prefix none | grep -E '^openstack'
python3 "$tmp/show.py" "$tmp/target/debug/client"
