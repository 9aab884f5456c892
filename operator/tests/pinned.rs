//! Credentials that open another project, region or cloud than the recorded one hold the migration: nothing is seen with
//! them, and nothing is done with them. Against a loopback cloud, and a Kubernetes API that has nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod openstack_support;

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, http::header::CONTENT_TYPE};
use http::StatusCode;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::Client;
use openstack_support::{Fake, PROJECT, SECRET, by_credential, loopback, me, settings};
use serde_json::{Value, json};
use vmmigration::{
    controller::{
        context::Context,
        execute::Hands,
        observe::{Look, observe},
        references::{References, SideRef},
    },
    crd::v1alpha1::{VmMigration, VmMigrationStatus},
    migration::{
        decide::{Decision, Input, Limits, decide},
        names::{Role, Side},
        observed::{Seen, StoreView},
        step::{ObjectKind, Step},
    },
    openstack::Cloud,
};

const ANOTHER: &str = "fedcba9876543210fedcba9876543210";

/// Everything that a reconcile has.
struct Bed {
    fake: Arc<Fake>,
    ctx: Context,
    refs: References,
    object: VmMigration,
    status: VmMigrationStatus,
}

impl Bed {
    /// A claimed source, and what is recorded of the two places besides their project.
    async fn new(source: Value, destination: Value) -> Self {
        let fake = Fake::start().await;
        let server = json!({"server": {"id": "src", "name": "web", "status": "SHUTOFF", "metadata": {}}});
        fake.on("GET /compute/v2.1/servers/src", 200, server);
        fake.on("GET /compute/v2.1/servers/src/os-instance-actions", 200, json!({"instanceActions": []}));
        let nothing = || async {
            let gone = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "gone"});
            (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "application/json")], gone.to_string())
        };
        let client = Client::new(Router::new().fallback(nothing), "team");
        let ctx = Context::new(client, settings(), Default::default());
        let credentials = by_credential(&fake, SECRET);
        for name in ["site-a", "site-b"] {
            // The sessions are there already: only a test may have clouds on loopback.
            ctx.clouds.session(&credentials, &loopback(), name).await.unwrap();
        }
        let side = |name: &str| {
            let credentials = credentials.clone();
            Ok(SideRef { name: name.into(), cluster: None, credentials, transfer: None })
        };
        let store = StoreView {
            name: "s".into(),
            repository: "s3:https://x/b/team/uid".into(),
            ..StoreView::default()
        };
        let refs = References {
            source: side("site-a"),
            destination: side("site-b"),
            store: Ok((store, BTreeMap::new())),
            vault: None,
        };
        let spec = json!({"source": {"cloud": "site-a", "server": "web"}, "destination": {"cloud": "site-b"},
            "cutover": {"mode": "Now"}});
        let mut object = VmMigration::new("web-1", serde_json::from_value(spec).unwrap());
        object.metadata.namespace = Some("team".into());
        object.metadata.uid = Some(me().uid);
        let mut status = json!({"phase": "Stopping",
            "source": {"projectId": PROJECT, "serverId": "src", "claimedAt": "2026-01-01T00:00:00Z"},
            "destination": {"projectId": PROJECT}});
        for (side, place) in [("source", source), ("destination", destination)] {
            status[side].as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        }
        let status = serde_json::from_value(status).unwrap();
        Bed { fake, ctx, refs, object, status }
    }

    async fn look(&self) -> Look {
        observe(&self.ctx, &me(), &self.object, &self.status, &self.refs, Timestamp::now()).await.unwrap()
    }

    fn decide(&self, look: &Look) -> Decision {
        decide(Input {
            me: &me(),
            spec: &self.object.spec,
            generation: Some(1),
            deleting: self.object.metadata.deletion_timestamp.is_some(),
            abandoned: false,
            annotations: &BTreeMap::new(),
            status: &self.status,
            seen: &look.seen,
            limits: &Limits::default(),
            now: Timestamp::now(),
        })
    }

    /// Tries to delete a volume that carries our mark, and tells whether the cloud was asked to.
    async fn deletes(&self, look: &Look, side: Side) -> (bool, String) {
        let path = format!("/volume/v3/{PROJECT}/volumes/x");
        let volume = json!({"volume": {"id": "x", "name": me().object_name(Role::Volume, 0, 1), "metadata": me().marks(Role::Volume, 0)}});
        self.fake.on(&format!("GET {path}"), 200, volume);
        self.fake.on(&format!("DELETE {path}"), 202, Value::Null);
        let (ctx, object, status, refs) = (&self.ctx, &self.object, &self.status, &self.refs);
        let hands = Hands { ctx, me: &me(), object, status, refs, look };
        let step = Step::Delete { side, kind: ObjectKind::Volume, id: "x".into() };
        let done = hands.execute(&step).await;
        (!self.fake.seen("DELETE").is_empty(), done.err().map(|e| e.0.message).unwrap_or_default())
    }
}

fn of(look: &Look, side: Side) -> (Option<&Cloud>, Option<&str>) {
    match side {
        Side::Source => (look.source.as_ref(), look.seen.source.problem().map(|p| p.message.as_str())),
        Side::Destination => {
            (look.destination.as_ref(), look.seen.destination.problem().map(|p| p.message.as_str()))
        }
    }
}

#[tokio::test]
async fn the_recorded_place_is_worked_in() {
    for side in [Side::Source, Side::Destination] {
        let bed = Bed::new(json!({}), json!({"region": "R"})).await;
        let look = bed.look().await;
        assert!(of(&look, side).0.is_some(), "{side}: {:?}", of(&look, side).1);
        assert_eq!(bed.deletes(&look, side).await, (true, String::new()), "{side}");
    }
}

#[tokio::test]
async fn another_project_region_or_cloud_holds_and_is_not_touched() {
    let elsewhere = "https://elsewhere.example/v3/";
    for (side, place, told) in [
        (Side::Source, json!({"projectId": ANOTHER}), [PROJECT, ANOTHER]),
        (Side::Destination, json!({"projectId": ANOTHER}), [PROJECT, ANOTHER]),
        (Side::Source, json!({"region": "R2"}), ["region R,", "R2"]),
        (Side::Destination, json!({"region": "R2"}), ["region R,", "R2"]),
        (Side::Source, json!({"region": "R", "identity": elsewhere}), ["/identity/v3/", elsewhere]),
        (Side::Destination, json!({"region": "R", "identity": elsewhere}), ["/identity/v3/", elsewhere]),
    ] {
        let bed = match side {
            Side::Source => Bed::new(place, json!({})).await,
            Side::Destination => Bed::new(json!({}), place).await,
        };
        let look = bed.look().await;
        let (cloud, problem) = of(&look, side);
        assert!(cloud.is_none(), "{side}: a session with another place is handed on");
        let problem = problem.unwrap();
        for part in ["InvalidConfiguration"].into_iter().chain(told) {
            assert!(problem.contains(part), "{side}: {problem}");
        }
        let (deleted, why) = bed.deletes(&look, side).await;
        assert!(!deleted && why.contains("was not seen"), "{side}: {why}");
    }
}

#[tokio::test]
async fn what_an_older_release_did_not_record_is_recorded_at_the_next_look() {
    let bed = Bed::new(json!({}), json!({})).await;
    let status = bed.decide(&bed.look().await).status;
    let (source, destination) = (status.source.unwrap(), status.destination.unwrap());
    let identity = bed.fake.url("/identity/v3/");
    let found = [(source.region, source.identity), (destination.region, destination.identity)];
    assert_eq!(found, [(); 2].map(|()| (Some("R".into()), Some(identity.clone()))));
}

#[tokio::test]
async fn a_migration_on_its_way_waits_and_a_deletion_is_not_redirected() {
    let mut bed = Bed::new(json!({"projectId": ANOTHER}), json!({})).await;
    let look = bed.look().await;
    let decision = bed.decide(&look);
    let said = decision.status.message.clone().unwrap_or_default();
    assert!(said.contains("InvalidConfiguration") && decision.steps.is_empty(), "{decision:?}");
    assert_eq!(decision.status.failure, None, "it holds");

    bed.object.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    let look = bed.look().await;
    assert!(
        matches!(&look.seen.source, Seen::Unseen(p) if p.id == "project-changed"),
        "{:?}",
        look.seen.source
    );
    let decision = bed.decide(&look);
    let touched = |s: &Step| matches!(s.side(), Some(Side::Source)) && !matches!(s, Step::CreateJob(_));
    assert!(!decision.release && !decision.steps.iter().any(touched), "{decision:?}");
    assert!(!bed.deletes(&look, Side::Source).await.0);
}
