//! The controllers against a small Kubernetes API in which one object of each kind cannot be read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

mod openstack_support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use kube::Client;
use openstack_support::settings;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vmmigration::controller::{self, context::Context};

const API: &str = "/apis/vmmigration.io/v1alpha1";

/// Objects by path, and what was written where.
#[derive(Clone)]
struct Cluster {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    written: Arc<watch::Sender<Vec<(String, Value)>>>,
}

impl Cluster {
    fn with(objects: &[(&str, Value)]) -> Self {
        let objects = objects.iter().map(|(plural, object)| {
            let name = object["metadata"]["name"].as_str().unwrap();
            (format!("{API}/namespaces/team/{plural}/{name}"), object.clone())
        });
        Cluster {
            objects: Arc::new(Mutex::new(objects.collect())),
            written: Arc::new(watch::channel(vec![]).0),
        }
    }

    fn client(&self) -> Client {
        let cluster = self.clone();
        let answer = move |request: Request| {
            let cluster = cluster.clone();
            async move { cluster.answer(request).await }
        };
        Client::new(Router::new().fallback(answer), "team")
    }

    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_string();
        if parts.uri.query().is_some_and(|q| q.contains("watch=true")) {
            return Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>())
                .into_response();
        }
        if parts.method != "GET" {
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let patch: Value = serde_json::from_slice(&body).unwrap_or_default();
            self.written.send_modify(|all| all.push((path.clone(), patch)));
        }
        let of = path.trim_end_matches("/status").to_string();
        let objects = self.objects.lock().unwrap();
        if let Some(object) = objects.get(&of) {
            return json_answer(StatusCode::OK, object);
        }
        let kind = path.rsplit('/').next().unwrap_or_default();
        let items: Vec<_> = objects
            .iter()
            .filter(|(p, _)| p.contains(&format!("/{kind}/")))
            .map(|(_, o)| o.clone())
            .collect();
        let list =
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
        let gone = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "gone"});
        match ["vmmigrations", "openstackclouds", "objectstores", "jobs"].contains(&kind) {
            true => json_answer(StatusCode::OK, &list),
            false => json_answer(StatusCode::NOT_FOUND, &gone),
        }
    }

    /// What was written to an object, once something was.
    async fn written_to(&self, path: &str) -> Value {
        let mut seen = self.written.subscribe();
        let path = format!("{API}/namespaces/team/{path}");
        let found = seen.wait_for(|all| all.iter().any(|(p, _)| *p == path));
        let all =
            tokio::time::timeout(Duration::from_secs(60), found).await.expect("nothing was written").unwrap();
        all.iter().find(|(p, _)| *p == path).unwrap().1.clone()
    }
}

fn json_answer(code: StatusCode, value: &Value) -> Response {
    (code, [(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "vmmigration.io/v1alpha1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": "team", "uid": name, "resourceVersion": "1", "generation": 2}})
}

fn migration(name: &str, at: &str) -> Value {
    let cutover = json!({"mode": "At", "at": at});
    let spec =
        json!({"source": {"cloud": "a", "server": "s"}, "destination": {"cloud": "b"}, "cutover": cutover});
    object("VmMigration", name, spec)
}

fn condition(told: &Value, kind: &str) -> Value {
    let all = told["status"]["conditions"].as_array().unwrap();
    all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default()
}

#[tokio::test]
async fn one_object_that_cannot_be_read_blinds_nobody_and_is_told() {
    let without_secret =
        json!({"location": "s3:https://s3.example.com/b", "credentialsSecretRef": {"name": "s"}});
    let cluster = Cluster::with(&[
        ("vmmigrations", migration("bad", "9999-12-31T00:00:00Z")),
        ("vmmigrations", migration("good", "2030-01-01T00:00:00Z")),
        ("openstackclouds", object("OpenStackCloud", "bad", json!({"credentialsRef": 7}))),
        ("openstackclouds", object("OpenStackCloud", "good", json!({"credentialsRef": {"secretName": "s"}}))),
        ("objectstores", object("ObjectStore", "bad", json!({"location": 7}))),
        ("objectstores", object("ObjectStore", "good", without_secret)),
    ]);
    let ctx = Arc::new(Context::new(cluster.client(), settings(), Arc::default()));
    let stop = CancellationToken::new();
    let running = tokio::spawn(controller::run(ctx.clone(), stop.clone()));

    let told = cluster.written_to("vmmigrations/bad/status").await;
    let stalled = |told: &Value| condition(told, "Stalled");
    assert_eq!(
        (stalled(&told)["status"].as_str(), &told["status"]["observedGeneration"]),
        (Some("True"), &json!(2))
    );
    let message = told["status"]["message"].as_str().unwrap();
    assert!(message.contains("9999-12-31") && message.contains("kubectl edit"), "{message}");
    for (kind, path) in [("cloud", "openstackclouds/bad/status"), ("store", "objectstores/bad/status")] {
        let told = cluster.written_to(path).await;
        assert_eq!(stalled(&told)["reason"], "InvalidConfiguration", "{kind}");
        assert!(told["status"]["message"].is_null(), "a {kind} has no such field");
    }
    // The others are worked on: its finalizer comes first, and the cloud's Secret is missing.
    let begun = cluster.written_to("vmmigrations/good").await;
    assert!(begun["metadata"]["finalizers"].is_array(), "{begun}");
    for path in ["openstackclouds/good/status", "objectstores/good/status"] {
        let looked = cluster.written_to(path).await;
        assert!(looked.to_string().contains("there is no Secret"), "{looked}");
        // It may come seconds later, and nobody has to do anything then.
        let told = ["Ready", "Reconciling", "Stalled"].map(|kind| condition(&looked, kind)["status"].clone());
        assert_eq!(told, ["False", "True", "False"], "{looked}");
        assert_eq!(condition(&looked, "Ready")["reason"], "ReferenceNotFound");
    }
    let sees = async {
        while ctx.watches.blind(Instant::now()).is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sees).await.expect("it is not ready");

    stop.cancel();
    running.await.unwrap();
}

/// Whoever waits for the end of a migration that is deleted is told before the object goes.
#[tokio::test]
async fn an_object_that_is_deleted_has_finished_before_it_goes() {
    let deleted = |name: &str, status: Value| {
        let mut object = migration(name, "2030-01-01T00:00:00Z");
        object["metadata"]["finalizers"] = json!(["vmmigration.io/cleanup"]);
        object["metadata"]["deletionTimestamp"] = json!("2026-11-30T20:00:00Z");
        object["status"] = status;
        ("vmmigrations", object)
    };
    let cluster = Cluster::with(&[
        deleted("going", json!({"phase": "AwaitingCutover"})),
        deleted("told", json!({"phase": "Deleting", "finishedAt": "2026-11-30T20:00:01Z"})),
        deleted("failed", json!({"phase": "Failed", "finishedAt": "2026-11-30T20:00:01Z"})),
    ]);
    let ctx = Arc::new(Context::new(cluster.client(), settings(), Arc::default()));
    let stop = CancellationToken::new();
    let running = tokio::spawn(controller::run(ctx.clone(), stop.clone()));
    let last = cluster.written_to("vmmigrations/going/status").await;
    let finished = condition(&last, "Finished");
    assert_eq!((&finished["status"], &finished["reason"]), (&json!("True"), &json!("Deleting")), "{last}");
    for name in ["told", "failed"] {
        let let_go = cluster.written_to(&format!("vmmigrations/{name}")).await;
        assert_eq!(let_go["metadata"]["finalizers"], json!([]), "{let_go}");
    }
    stop.cancel();
    running.await.unwrap();
}
