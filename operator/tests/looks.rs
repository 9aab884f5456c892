//! How often clouds and clusters are asked: against loopback clouds and a small Kubernetes API, which count.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod openstack_support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::Request, http::header::CONTENT_TYPE};
use http::StatusCode;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use openstack_support::{Fake, PROJECT, SECRET, by_credential, loopback, me, settings};
use serde_json::{Value, json};
use vmmigration::{
    controller::{
        context::Context,
        observe::{Look, observe},
        references::{References, SideRef},
    },
    crd::v1alpha1::{Transfer, TransferMode, VmMigration, VmMigrationStatus},
    migration::{
        decide::{Decision, Input, Limits, decide},
        names::{Role, Side},
        observed::{Seen, StoreView},
    },
    openstack::Proof,
};

/// A Kubernetes API: documents by path, and what was asked for.
#[derive(Clone, Default)]
struct Cluster {
    documents: Arc<Mutex<BTreeMap<String, Value>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    fn has(&self, path: &str, document: Value) {
        self.documents.lock().unwrap().insert(path.into(), document);
    }

    fn list(&self, path: &str, (kind, version): (&str, &str), items: Value) {
        self.has(path, json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": items}));
    }

    fn asked_for(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.ends_with(what)).count()
    }

    fn client(&self) -> Client {
        let cluster = self.clone();
        let answer = move |request: Request| {
            let path = request.uri().path().to_string();
            let found = cluster.documents.lock().unwrap().get(&path).cloned();
            cluster.asked.lock().unwrap().push(path);
            let gone = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "gone"});
            let status = if found.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
            let body = found.unwrap_or(gone).to_string();
            async move { (status, [(CONTENT_TYPE, "application/json")], body) }
        };
        Client::new(Router::new().fallback(answer), "team")
    }

    /// Anchors and Jobs of both sides, in the movers' namespace.
    fn movers(&self, condition: &str) {
        let job = |purpose: &str, side: Side| {
            json!({"metadata": {"name": me().job(purpose, 1), "ownerReferences": [
                {"apiVersion": "v1", "kind": "Secret", "uid": "u", "name": me().anchor(side)}]},
                "status": {"conditions": [{"type": condition, "status": "True"}]}})
        };
        let jobs = json!([job("backup-0", Side::Source), job("restore-0", Side::Destination)]);
        self.list("/apis/batch/v1/namespaces/movers/jobs", ("JobList", "batch/v1"), jobs);
        self.list("/api/v1/namespaces/movers/pods", ("PodList", "v1"), json!([]));
        self.list("/apis/batch/v1/namespaces/team/jobs", ("JobList", "batch/v1"), json!([]));
        self.list("/api/v1/namespaces/team/pods", ("PodList", "v1"), json!([]));
        for side in [Side::Source, Side::Destination] {
            let name = me().anchor(side);
            let anchor = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": name}});
            self.has(&format!("/api/v1/namespaces/movers/secrets/{name}"), anchor);
        }
    }
}

/// A cloud, as either side, in which everything is there that two Jobs work with.
fn cloud(fake: &Fake) {
    let volume = format!("GET /volume/v3/{PROJECT}");
    let made = |id: &str, role: Role| json!({"id": id, "name": me().object_name(role, 0, 1), "status": "available", "metadata": me().marks(role, 0)});
    let (copy, snapshot) = (made("copy", Role::ExportVolume), made("snap", Role::Snapshot));
    let image = |role: Role, status: &str| {
        let name = me().object_name(role, 0, 1);
        json!({"id": name, "name": name, "status": status, "tags": [me().tag()], "size": 1 << 30})
    };
    let images = json!([image(Role::ExportImage, "active"), image(Role::ImportImage, "queued")]);
    let actions =
        json!([{"action": "lock", "request_id": "req-lock"}, {"action": "stop", "request_id": "req-stop"}]);
    fake.on(&format!("{volume}/volumes/detail"), 200, json!({"volumes": [copy]}));
    fake.on(&format!("{volume}/snapshots/detail"), 200, json!({"snapshots": [snapshot]}));
    fake.on(&format!("GET /image/v2/images?owner={PROJECT}&limit=1000"), 200, json!({"images": images}));
    fake.on(
        "GET /compute/v2.1/servers/src",
        200,
        json!({"server": {"id": "src", "name": "web-1", "status": "SHUTOFF", "metadata": {}}}),
    );
    let actions = json!({"instanceActions": actions});
    fake.on("GET /compute/v2.1/servers/src/os-instance-actions", 200, actions);
}

/// Everything that a reconcile has.
struct Bed {
    clouds: [Arc<Fake>; 2],
    cluster: Cluster,
    ctx: Context,
    refs: References,
    object: VmMigration,
    status: VmMigrationStatus,
    now: Timestamp,
}

impl Bed {
    async fn new(status: Value, transfer: Option<TransferMode>) -> Self {
        let clouds = [Fake::start().await, Fake::start().await];
        clouds.iter().for_each(|fake| cloud(fake));
        let cluster = Cluster::default();
        cluster.movers("Suspended");
        let ctx = Context::new(cluster.client(), settings(), Default::default());
        let [a, b] = [("site-a", &clouds[0]), ("site-b", &clouds[1])];
        for (name, fake) in [a, b] {
            // The sessions are there already: only a test may have clouds on loopback.
            ctx.clouds.session(&by_credential(fake, SECRET), &loopback(), name).await.unwrap();
        }
        let transfer =
            transfer.map(|mode| Transfer { mode, assume_zero_target: false, takes_any_disk: false });
        let side = |(name, fake): (&str, &Arc<Fake>)| {
            let credentials = by_credential(fake, SECRET);
            Ok(SideRef { name: name.into(), cluster: None, credentials, transfer })
        };
        let store = StoreView {
            name: "s".into(),
            repository: "s3:https://x/b/team/uid".into(),
            ..Default::default()
        };
        let refs = References {
            source: side(a),
            destination: side(b),
            store: Ok((store, BTreeMap::new())),
            vault: Some(BTreeMap::new()),
        };
        let spec = json!({"source": {"cloud": "site-a", "server": "web"}, "destination": {"cloud": "site-b"},
            "cutover": {"mode": "Now"}});
        let mut object = VmMigration::new("web-1", serde_json::from_value(spec).unwrap());
        object.metadata.namespace = Some("team".into());
        object.metadata.uid = Some(me().uid);
        let status = serde_json::from_value(status).unwrap();
        Bed { clouds, cluster, ctx, refs, object, status, now: Timestamp::now() }
    }

    fn requests(&self) -> usize {
        self.clouds.iter().map(|fake| fake.seen("GET").len()).sum()
    }

    async fn look(&self) -> Look {
        observe(&self.ctx, &me(), &self.object, &self.status, &self.refs, self.now).await.unwrap()
    }

    /// One pass, and how many requests the clouds got for it. The time goes on until the next one is due.
    async fn pass(&mut self) -> (Decision, usize) {
        let before = self.requests();
        let look = self.look().await;
        let decision = decide(Input {
            me: &me(),
            spec: &self.object.spec,
            generation: Some(1),
            deleting: false,
            abandoned: false,
            annotations: &BTreeMap::new(),
            status: &self.status,
            seen: &look.seen,
            limits: &Limits::default(),
            now: self.now,
        });
        self.status = decision.status.clone();
        let pause = SignedDuration::try_from(decision.recheck.unwrap()).unwrap();
        self.now = self.now.checked_add(pause).unwrap();
        (decision, self.requests() - before)
    }
}

/// Two Jobs are at work on the only disk.
fn transferring() -> Value {
    let at = "2026-01-01T00:00:00Z";
    let job = |name: &str| json!({"name": name, "attempt": 1, "state": "Running"});
    json!({"phase": "Transferring", "phaseSince": at, "startedAt": at, "observedGeneration": 1,
        "source": {"projectId": PROJECT, "serverId": "src", "serverName": "web-1", "claimedAt": at, "stoppedAt": at,
            "lockedAt": at, "stopRequestId": "req-stop", "lockRequestId": "req-lock"},
        "destination": {"projectId": PROJECT},
        "store": {"name": "s", "repository": "s3:https://x/b/team/uid", "initializedAt": at},
        "jobs": [job("backup-0"), job("restore-0")],
        "disks": [{"index": 0, "sourceVolumeId": "v0", "sizeGib": 1, "export": {"snapshotId": "snap",
            "volumeId": "copy", "imageId": me().object_name(Role::ExportImage, 0, 1)}}]})
}

#[tokio::test]
async fn ten_minutes_of_copying_cost_the_clouds_a_few_requests() {
    let mut bed = Bed::new(transferring(), None).await;
    let (mut passes, mut requests, begun) = (0, 0, bed.now);
    while bed.now.duration_since(begun).as_secs() < 600 {
        let (decision, asked) = bed.pass().await;
        assert!(decision.steps.is_empty() && decision.status.trouble.is_none(), "{decision:?}");
        (passes, requests) = (passes + 1, requests + asked);
    }
    println!("{passes} passes in ten minutes, {requests} requests to the clouds");
    // A look is seven requests: server and history, three lists in the source, two in the destination.
    assert!((7..=7 * 11).contains(&requests), "{requests} requests in {passes} passes");
    // What a Job's end means is decided by a look that comes after it.
    bed.cluster.movers("Failed");
    let (decision, asked) = bed.pass().await;
    assert!(asked >= 7 && decision.status.jobs.iter().all(|j| j.attempt == 2), "{asked}: {decision:?}");
}

#[tokio::test]
async fn half_an_answer_is_no_look() {
    let volumes = format!("GET /volume/v3/{PROJECT}/volumes/detail");
    let half = json!({"id": "src", "status": "UNKNOWN", "tenant_id": PROJECT, "links": []});
    let foreign = json!([{"id": "f", "size": "large", "metadata": {}}]);
    let ours = json!([{"id": "f", "size": "large", "metadata": me().marks(Role::ExportVolume, 0)}]);
    let recorded = json!([{"id": "v0", "size": "large", "metadata": {}}]);
    let more = json!([{"rel": "next", "href": "http://elsewhere.invalid/"}]);
    let server = "GET /compute/v2.1/servers/src";
    let table = [
        (server, 200, json!({"server": half}), "does not reach the cell"),
        (server, 404, json!("default backend"), "a proxy or gateway answered"),
        (&volumes, 404, Value::Null, "a proxy or gateway answered"),
        (&volumes, 200, json!({"volumes": ours}), "the list is not whole"),
        (&volumes, 200, json!({"volumes": recorded}), "the list is not whole"),
        (&volumes, 200, json!({"volumes": [], "volumes_links": more}), "the list is not whole"),
        (&volumes, 200, json!({"volumes": foreign}), ""),
    ];
    for (line, status, body, why) in table {
        let bed = Bed::new(transferring(), None).await;
        bed.clouds[0].on(line, status, body.clone());
        let look = bed.look().await;
        match &look.seen.source {
            Seen::Unseen(p) => {
                assert!(!why.is_empty() && p.message.contains(why) && p.transient, "{body}: {p:?}")
            }
            other => assert!(why.is_empty() && other.view().is_some(), "{body}: {other:?}"),
        }
    }
}

/// A server was asked for in the destination.
fn creating(server_id: Option<&str>) -> Value {
    let mut status = transferring();
    status["phase"] = json!("Verifying");
    status["destination"] =
        json!({"projectId": PROJECT, "serverRequestedAt": "2026-01-01T00:00:00Z", "serverId": server_id});
    status
}

#[tokio::test]
async fn the_new_server_is_found_by_its_id_or_else_the_whole_list_must_be_seen() {
    let mut ours = json!({"id": "new", "name": "web-1", "status": "ACTIVE"});
    ours["metadata"] = json!(me().marks(Role::Server, 0));
    let half = json!({"id": "other", "status": "UNKNOWN", "tenant_id": PROJECT, "links": []});
    let other = json!({"id": "other", "name": "o", "status": "ACTIVE", "metadata": {}});
    let list = "GET /compute/v2.1/servers/detail";
    let deleted = json!({"instanceActions": [{"action": "delete", "request_id": "r", "start_time": "t"}]});
    let table = [
        // Its own cell answers: what another one hides is of no interest.
        (Some("new"), json!([ours, half]), Value::Null, Ok((1, None))),
        (None, json!([ours, half]), Value::Null, Ok((1, None))),
        (None, json!([other]), Value::Null, Ok((0, Some(Proof::NotListed { others: 1 })))),
        (None, json!([half]), Value::Null, Err("not whole")),
        (Some("new"), json!([other]), deleted, Ok((0, Some(Proof::Deleted)))),
        (Some("new"), json!([half]), Value::Null, Err("not whole")),
    ];
    for (id, servers, actions, wanted) in table {
        let bed = Bed::new(creating(id), None).await;
        let b = &bed.clouds[1];
        b.on(list, 200, json!({"servers": servers}));
        b.on("GET /network/v2.0/ports", 200, json!({"ports": []}));
        if !actions.is_null() {
            b.on("GET /compute/v2.1/servers/new/os-instance-actions", 200, actions);
        }
        let look = bed.look().await;
        match (&look.seen.destination, wanted) {
            (Seen::View(view), Ok(wanted)) => {
                assert_eq!((view.servers.len(), view.absent), wanted, "{id:?} {servers}");
            }
            (Seen::Unseen(p), Err(why)) => assert!(p.message.contains(why), "{p:?}"),
            (other, wanted) => panic!("{id:?} {servers}: {other:?} instead of {wanted:?}"),
        }
    }
}

#[tokio::test]
async fn a_cluster_is_asked_about_its_storage_only_where_that_decides_something() {
    let driver = json!([{"metadata": {"name": "cinder.csi.openstack.org"}}]);
    let none = json!([]);
    for (mode, drivers, asked) in [
        (Some(TransferMode::Image), &driver, (0, 0)),
        (None, &none, (2, 0)),
        (None, &driver, (2, 2)),
        (Some(TransferMode::Volume), &driver, (2, 2)),
    ] {
        let bed = Bed::new(json!({"phase": "Preflight"}), mode).await;
        let kinds = ("PartialObjectMetadataList", "meta.k8s.io/v1");
        bed.cluster.list("/apis/storage.k8s.io/v1/csidrivers", kinds, drivers.clone());
        bed.cluster.list("/api/v1/nodes", ("NodeList", "v1"), json!([]));
        let look = bed.look().await;
        for cluster in [&look.seen.source_cluster, &look.seen.destination_cluster] {
            let Seen::View(view) = cluster else { panic!("{cluster:?}") };
            let told = view.storage.as_ref().unwrap().cluster.as_ref().unwrap();
            assert_eq!(told.driver, asked.1 > 0, "{mode:?}");
        }
        let counted = (bed.cluster.asked_for("/csidrivers"), bed.cluster.asked_for("/nodes"));
        assert_eq!(counted, asked, "of both sides, {mode:?}");
    }
}
