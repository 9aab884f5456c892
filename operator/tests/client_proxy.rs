//! The client's real binary reaches a cluster through a proxy where kubectl does. The cluster's name cannot be resolved
//! here: only the proxy can have led to it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

use axum::{Router, http::header};
use serde_json::json;
use std::{
    net::SocketAddr,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
};

/// A cluster without migrations, and a proxy that leads every name to it and keeps what it was asked.
struct Bed {
    cluster: SocketAddr,
    proxy: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    home: tempfile::TempDir,
}

impl Bed {
    async fn new() -> Self {
        let nothing = json!({"apiVersion": "vmmigration.io/v1alpha1", "kind": "VmMigrationList",
            "metadata": {"resourceVersion": "1"}, "items": []});
        let answer =
            move || async move { ([(header::CONTENT_TYPE, "application/json")], nothing.to_string()) };
        let (api, cluster) = listener().await;
        tokio::spawn(async move { axum::serve(api, Router::new().fallback(answer)).await });
        let (door, proxy) = listener().await;
        let asked = Arc::new(Mutex::new(vec![]));
        let kept = asked.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = door.accept().await {
                tokio::spawn(tunnel(client, cluster, kept.clone()));
            }
        });
        Self { cluster, proxy, asked, home: tempfile::tempdir().unwrap() }
    }

    /// `kubectl vmmigration list` on that cluster.
    async fn list(&self, server: &str, proxy_url: Option<String>, environment: &[(&str, String)]) -> Output {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
            "clusters": [{"name": "c", "cluster": {"server": server, "proxy-url": proxy_url}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        });
        let path = self.home.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        let mut client = Command::new(env!("CARGO_BIN_EXE_kubectl-vmmigration"));
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
            client.env_remove(name);
        }
        client.envs(environment.iter().map(|(name, value)| (name, value))).env("KUBECONFIG", path);
        client.arg("list").stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn tunnel(mut client: TcpStream, to: SocketAddr, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    asked.lock().unwrap().push(head.lines().next().unwrap_or_default().to_string());
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let mut cluster = TcpStream::connect(to).await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut cluster).await;
}

#[tokio::test]
async fn the_cluster_is_reached_through_the_proxy_where_kubectl_reaches_it_so() {
    let bed = Bed::new().await;
    let proxy = format!("http://{}", bed.proxy);
    let there = "http://kube.invalid:8080";
    let by_environment = |no_proxy: &str| [("HTTP_PROXY", proxy.clone()), ("NO_PROXY", no_proxy.to_string())];
    for (proxy_url, environment) in [
        (Some(proxy.clone()), vec![]),
        // NO_PROXY is for proxies of the environment.
        (Some(proxy.clone()), vec![("NO_PROXY", "kube.invalid".to_string())]),
        (None, by_environment("").to_vec()),
        // The proxy's own address in NO_PROXY says nothing of the cluster's.
        (None, by_environment("127.0.0.0/8,.example").to_vec()),
    ] {
        let out = bed.list(there, proxy_url.clone(), &environment).await;
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{proxy_url:?} {environment:?}: {told}");
        let asked = bed.asked();
        assert!(
            !asked.is_empty() && asked.iter().all(|line| line.starts_with("CONNECT kube.invalid:8080 ")),
            "{asked:?}"
        );
    }
    // The cluster is excepted: by the list, or because it is on this machine.
    let out = bed.list(there, None, &by_environment("kube.invalid")).await;
    assert!(!out.status.success(), "nobody else knows this name");
    let out = bed.list(&format!("http://{}", bed.cluster), None, &by_environment("")).await;
    assert!(out.status.success());
    assert_eq!(bed.asked(), Vec::<String>::new());
    // A mistake is named.
    let out = bed.list(there, Some("ftp://squid.example".into()), &[]).await;
    assert!(String::from_utf8_lossy(&out.stderr).contains("proxy-url"), "{out:?}");
}
