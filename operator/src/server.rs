//! `/livez`, `/readyz`, `/metrics`.

use crate::{metrics::Metrics, watches::Watches};
use axum::{Router, extract::State, http::StatusCode, routing::get};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the endpoints tell.
#[derive(Clone, Default)]
pub struct Health {
    /// The custom resources are served and the controllers run.
    pub ready: Arc<AtomicBool>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The watches of our kinds.
    pub watches: Arc<Watches>,
}

/// Serves until the token is cancelled.
pub async fn serve(listen: SocketAddr, health: Health, stop: CancellationToken) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    answer(listener, health, stop).await
}

async fn answer(listener: TcpListener, health: Health, stop: CancellationToken) -> std::io::Result<()> {
    let app = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(|State(h): State<Health>| async move { h.metrics.encode() }))
        .with_state(health);
    axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

/// A watch that has not worked for so long may work again in a new process.
async fn livez(State(health): State<Health>) -> (StatusCode, String) {
    told(health.watches.dead(Instant::now()))
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    let served = health.ready.load(Ordering::Relaxed);
    let unserved = (!served).then(|| "the custom resources are not served yet".to_string());
    told(unserved.or_else(|| health.watches.blind(Instant::now())))
}

fn told(wrong: Option<String>) -> (StatusCode, String) {
    match wrong {
        None => (StatusCode::OK, "ok".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    /// Status and body.
    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.into())
    }

    #[tokio::test]
    async fn alive_at_once_ready_when_the_resources_are_served_and_measured() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, health, stop) =
            (listener.local_addr().unwrap(), Health::default(), CancellationToken::new());
        let served = tokio::spawn(answer(listener, health.clone(), stop.clone()));

        assert_eq!(get(address, "/livez").await, (200, "ok".into()));
        let (status, why) = get(address, "/readyz").await;
        assert_eq!((status, why.as_str()), (503, "the custom resources are not served yet"));
        health.ready.store(true, Ordering::Relaxed);
        assert_eq!(get(address, "/readyz").await, (200, "ok".into()));
        health.watches.begins("VmMigration", Instant::now());
        assert_eq!(get(address, "/readyz").await.0, 503, "nothing was listed yet");
        assert_eq!(get(address, "/livez").await.0, 200);
        health.watches.works("VmMigration");
        assert_eq!(get(address, "/readyz").await, (200, "ok".into()));

        health.metrics.watch_error("VmMigration");
        drop(health.metrics.time());
        health.metrics.reconcile_errors.inc();
        health.metrics.step("create-server", true);
        health.metrics.step("create-server", false);
        let (status, text) = get(address, "/metrics").await;
        assert_eq!(status, 200);
        for line in [
            "vmmigration_reconcile_seconds_count 1",
            "vmmigration_reconcile_errors_total 1",
            "vmmigration_watch_errors_total{kind=\"VmMigration\"} 1",
            "vmmigration_steps_total{step=\"create-server\",result=\"done\"} 1",
            "vmmigration_steps_total{step=\"create-server\",result=\"failed\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert_eq!(get(address, "/elsewhere").await.0, 404);

        stop.cancel();
        served.await.unwrap().unwrap();
    }

    #[test]
    fn the_documented_metrics_are_there() {
        let metrics = Metrics::default();
        metrics.step("create-server", true);
        metrics.watch_error("VmMigration");
        let (text, docs) = (metrics.encode(), include_str!("../../docs/operations.md"));
        let named: Vec<&str> = docs.split('`').filter(|w| w.starts_with("vmmigration_")).collect();
        assert_eq!(named.len(), 4, "{named:?}");
        for name in named {
            assert!(text.contains(name), "no {name} in\n{text}");
        }
    }
}
