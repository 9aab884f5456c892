//! What is taken away in a cloud is looked at once more right before, against a loopback server: a foreign thing stays.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod openstack_support;

use openstack_support::{Fake, PROJECT, connected};
use serde_json::{Value, json};
use vmmigration::{
    controller::{execute::Done, remove},
    crd::v1alpha1::VmMigrationStatus,
    migration::{
        names::{Identity, MARK_CLAIM, MARK_MIGRATION, Role},
        step::{Effect, ObjectKind},
    },
    openstack::Cloud,
};

const OURS: &str = "11111111-2222-4333-8444-555555555555";
const FOREIGN: &str = "99999999-2222-4333-8444-555555555555";

fn identity(uid: &str) -> Identity {
    Identity { uid: uid.into(), namespace: "team".into(), name: "web-1".into() }
}

/// Where the cloud keeps object `x` of a kind.
fn path(kind: ObjectKind) -> String {
    match kind {
        ObjectKind::Server => "/compute/v2.1/servers/x".into(),
        ObjectKind::Volume => format!("/volume/v3/{PROJECT}/volumes/x"),
        ObjectKind::Snapshot => format!("/volume/v3/{PROJECT}/snapshots/x"),
        ObjectKind::Image => "/image/v2/images/x".into(),
        ObjectKind::Port => "/network/v2.0/ports/x".into(),
    }
}

/// Object `x` as the cloud shows it: with the name and the marks that a migration gives, or with none.
fn shown(kind: ObjectKind, whose: Option<&str>) -> Value {
    let who = whose.map(identity);
    let marks = |role| who.as_ref().map(|me| me.marks(role, 0)).unwrap_or_default();
    let named = |role| who.as_ref().map_or("x".into(), |me| me.object_name(role, 0, 1));
    match kind {
        ObjectKind::Server => {
            json!({"server": {"id": "x", "name": "web-1", "status": "ERROR", "metadata": marks(Role::Server)}})
        }
        ObjectKind::Volume => {
            json!({"volume": {"id": "x", "name": named(Role::Volume), "status": "available", "metadata": marks(Role::Volume)}})
        }
        ObjectKind::Snapshot => {
            json!({"snapshot": {"id": "x", "name": named(Role::Snapshot), "status": "available", "metadata": marks(Role::Snapshot)}})
        }
        ObjectKind::Image => json!({"id": "x", "name": named(Role::ImportImage), "status": "active"}),
        ObjectKind::Port => json!({"port": {"id": "x", "name": named(Role::Port)}}),
    }
}

fn deletions(fake: &Fake) -> Vec<String> {
    fake.seen("DELETE").into_iter().map(|s| s.line).collect()
}

fn status(value: Value) -> VmMigrationStatus {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn only_what_carries_our_mark_is_deleted() {
    use ObjectKind::*;
    for kind in [Server, Volume, Snapshot, Image, Port] {
        let (get, delete) = (format!("GET {}", path(kind)), format!("DELETE {}", path(kind)));
        for whose in [Some(FOREIGN), None] {
            let (fake, cloud) = connected().await;
            fake.on(&get, 200, shown(kind, whose));
            fake.on(&delete, 204, Value::Null);
            let refused =
                remove::object(&cloud, &identity(OURS), kind, "x", &status(json!({}))).await.unwrap_err();
            assert!(!refused.transient && refused.message.contains("does not carry our mark"), "{refused:?}");
            assert_eq!(deletions(&fake), Vec::<String>::new(), "{kind} of {whose:?}");
        }
        let (fake, cloud) = connected().await;
        assert_eq!(
            remove::object(&cloud, &identity(OURS), kind, "x", &status(json!({}))).await,
            Ok(Effect::Done)
        );
        assert_eq!(deletions(&fake), Vec::<String>::new(), "{kind} is gone");
        fake.on(&get, 200, shown(kind, Some(OURS)));
        fake.on(&delete, 204, Value::Null);
        assert_eq!(
            remove::object(&cloud, &identity(OURS), kind, "x", &status(json!({}))).await,
            Ok(Effect::Done)
        );
        assert_eq!(deletions(&fake), [delete], "{kind} of ours");
    }
}

#[tokio::test]
async fn a_port_with_its_final_name_is_ours_by_tag_and_record() {
    let (me, recorded) = (identity(OURS), ["x".to_string()]);
    let foreign = vec![format!("{MARK_MIGRATION}={FOREIGN}")];
    for (tags, ports, goes) in [
        (vec![me.tag()], &recorded[..], true),
        (vec![me.tag()], &[], false),
        (foreign, &recorded[..], false),
        (vec![], &recorded[..], false),
    ] {
        let (fake, cloud) = connected().await;
        fake.on("GET /network/v2.0/ports/x", 200, json!({"port": {"id": "x", "name": "eth0", "tags": tags}}));
        fake.on("DELETE /network/v2.0/ports/x", 204, Value::Null);
        let recorded = status(json!({"destination": {"portIds": ports}}));
        let done = remove::object(&cloud, &me, ObjectKind::Port, "x", &recorded).await;
        assert_eq!((done.is_ok(), deletions(&fake).len()), (goes, usize::from(goes)), "{tags:?} {ports:?}");
    }
}

#[tokio::test]
async fn what_inherited_our_marks_is_not_deleted() {
    let me = identity(OURS);
    let recorded = status(json!({"disks": [{"import": {"volumeId": "x"}, "export": {"snapshotId": "x"}}]}));
    let nothing = status(json!({"disks": [{"import": {"volumeId": "y"}}]}));
    let volume = json!({"volume": {"id": "x", "name": "data", "metadata": me.marks(Role::Volume, 0)}});
    let snapshot =
        json!({"snapshot": {"id": "x", "name": "nightly", "metadata": me.marks(Role::Snapshot, 0)}});
    let mut image = json!({"id": "x", "name": "web-1 before the upgrade", "status": "active"});
    for (key, value) in me.marks(Role::ImportImage, 0) {
        image[key] = json!(value);
    }
    for (kind, object, status, goes) in [
        (ObjectKind::Volume, &volume, &recorded, true),
        (ObjectKind::Volume, &volume, &nothing, false),
        (ObjectKind::Snapshot, &snapshot, &recorded, true),
        (ObjectKind::Snapshot, &snapshot, &nothing, false),
        (ObjectKind::Image, &image, &recorded, false),
    ] {
        let (fake, cloud) = connected().await;
        fake.on(&format!("GET {}", path(kind)), 200, object.clone());
        fake.on(&format!("DELETE {}", path(kind)), 204, Value::Null);
        let done = remove::object(&cloud, &me, kind, "x", status).await;
        assert_eq!((done.is_ok(), deletions(&fake).len()), (goes, usize::from(goes)), "{object}: {done:?}");
    }
}

/// The source's server as the cloud shows it.
fn source(fake: &Fake, status: &str, claimed_by: Option<&str>) {
    let mut metadata = json!({"app": "web"});
    if let Some(uid) = claimed_by {
        metadata[MARK_CLAIM] = json!(uid);
    }
    let server = json!({"server": {"id": "src", "name": "web-1", "status": status, "metadata": metadata}});
    fake.on("GET /compute/v2.1/servers/src", 200, server);
    fake.on("DELETE /compute/v2.1/servers/src", 204, Value::Null);
    fake.on(&format!("DELETE /compute/v2.1/servers/src/metadata/{MARK_CLAIM}"), 204, Value::Null);
}

#[tokio::test]
async fn only_our_own_claim_is_released() {
    for (claimed_by, released) in [(Some(OURS), 1), (Some(FOREIGN), 0), (None, 0)] {
        let (fake, cloud) = connected().await;
        source(&fake, "SHUTOFF", claimed_by);
        assert_eq!(remove::claim(&cloud, &identity(OURS), "src").await, Ok(Effect::Done));
        assert_eq!(deletions(&fake).len(), released, "claimed by {claimed_by:?}: {:?}", deletions(&fake));
    }
    let (fake, cloud) = connected().await;
    assert_eq!(remove::claim(&cloud, &identity(OURS), "src").await, Ok(Effect::Done));
    assert_eq!(deletions(&fake), Vec::<String>::new(), "the server is gone");
}

#[tokio::test]
async fn a_source_that_is_not_as_it_was_seen_is_not_deleted() {
    let wanted = status(json!({"retirement": {"deletionRequestedAt": "2026-01-01T00:00:00Z"}}));
    let unwanted = status(json!({"retirement": {"requestedAt": "2026-01-01T00:00:00Z"}}));
    for (recorded, state, claimed_by, goes) in [
        (&wanted, "SHUTOFF", Some(OURS), true),
        (&wanted, "SHUTOFF", Some(FOREIGN), false),
        (&wanted, "SHUTOFF", None, false),
        (&wanted, "ACTIVE", Some(OURS), false),
        (&unwanted, "SHUTOFF", Some(OURS), false),
    ] {
        let (fake, cloud) = connected().await;
        source(&fake, state, claimed_by);
        let done = remove::source_server(&cloud, &identity(OURS), recorded, "src").await;
        assert_eq!(deletions(&fake).len(), usize::from(goes), "{state} claimed by {claimed_by:?}");
        match goes {
            true => assert_eq!(done, Ok(Effect::Done)),
            false => assert!(looks_again(&done), "{done:?}"),
        }
    }
    let (fake, cloud) = connected().await;
    assert_eq!(remove::source_server(&cloud, &identity(OURS), &wanted, "src").await, Ok(Effect::Done));
    assert_eq!(deletions(&fake), Vec::<String>::new(), "the server is gone");
}

fn looks_again(done: &Done) -> bool {
    done.as_ref().is_err_and(|e| e.conflict && e.transient)
}

/// The source's server is gone, and its history says why.
fn deleted_by_its_history(fake: &Fake) {
    let actions = json!({"instanceActions": [{"action": "delete", "request_id": "r", "start_time": "t"}]});
    fake.on("GET /compute/v2.1/servers/src/os-instance-actions", 200, actions);
}

/// Deletes volume `x` with what is recorded; how it ended, and how often the cloud was asked to delete.
async fn volume_deleted(recorded: &Value, fake: &Fake, cloud: &Cloud) -> (Done, usize) {
    fake.on(&format!("DELETE {}", path(ObjectKind::Volume)), 202, Value::Null);
    let done = remove::source_volume(cloud, &status(recorded.clone()), "x").await;
    (done, deletions(fake).len())
}

#[tokio::test]
async fn a_volume_of_the_source_goes_only_when_it_is_recorded_and_free() {
    let get = format!("GET {}", path(ObjectKind::Volume));
    let volume = |attachments: Value| json!({"volume": {"id": "x", "attachments": attachments}});
    let recorded = |volume: &str| {
        json!({"source": {"serverId": "src"}, "disks": [{"sourceVolumeId": volume}],
            "retirement": {"serverGoneAt": "2026-01-01T00:00:00Z"}})
    };
    let mut too_early = recorded("x");
    too_early["retirement"] = json!({"deletionRequestedAt": "2026-01-01T00:00:00Z"});
    let mut whose = recorded("x");
    whose["source"] = json!({});

    for record in [recorded("y"), too_early, whose] {
        let (fake, cloud) = connected().await;
        fake.on(&get, 200, volume(json!([])));
        let (done, deleted) = volume_deleted(&record, &fake, &cloud).await;
        assert!(done.as_ref().is_err_and(|e| !e.transient) && deleted == 0, "{record}: {done:?}");
    }
    let (fake, cloud) = connected().await;
    deleted_by_its_history(&fake);
    fake.on(&get, 200, volume(json!([{"server_id": "other", "volume_id": "x", "device": "/dev/vdb"}])));
    let (done, deleted) = volume_deleted(&recorded("x"), &fake, &cloud).await;
    assert!(looks_again(&done) && deleted == 0, "attached: {done:?}");

    // Its server's absence must be more than a 404.
    let (fake, cloud) = connected().await;
    fake.on(&get, 200, volume(json!([])));
    let (done, deleted) = volume_deleted(&recorded("x"), &fake, &cloud).await;
    assert!(done.as_ref().is_err_and(|e| e.transient) && deleted == 0, "not proven: {done:?}");

    let (fake, cloud) = connected().await;
    deleted_by_its_history(&fake);
    assert_eq!(volume_deleted(&recorded("x"), &fake, &cloud).await, (Ok(Effect::Done), 0), "gone");
    fake.on(&get, 200, volume(json!([])));
    assert_eq!(volume_deleted(&recorded("x"), &fake, &cloud).await, (Ok(Effect::Done), 1), "ours");

    let (fake, cloud) = connected().await;
    fake.on(&get, 200, volume(json!([])));
    source(&fake, "SHUTOFF", Some(OURS));
    let (done, deleted) = volume_deleted(&recorded("x"), &fake, &cloud).await;
    assert!(looks_again(&done) && deleted == 0, "the server is there again: {done:?}");
}
