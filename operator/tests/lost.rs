//! Why something that a cloud was asked for is gone, as the services tell it, against a loopback server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod openstack_support;

use openstack_support::{Fake, PROJECT, connected};
use serde_json::{Value, json};
use vmmigration::{
    controller::lost,
    crd::v1alpha1::VmMigrationStatus,
    migration::{names::Role, step::Effect},
};

fn status() -> VmMigrationStatus {
    serde_json::from_value(json!({"source": {"serverId": "src", "imageRequestId": "req-image"}})).unwrap()
}

fn messages(fake: &Fake, of: &str, list: Value) {
    let line = format!("GET /volume/v3/{PROJECT}/messages?resource_uuid={of}");
    fake.on(&line, 200, json!({"messages": list}));
}

fn message(of: &str, text: &str, at: &str) -> Value {
    json!({"id": text, "resource_uuid": of, "request_id": "req-up", "user_message": text, "created_at": at,
        "message_level": "ERROR", "event_id": "VOLUME_VOLUME_006_007"})
}

#[tokio::test]
async fn cinder_tells_why_an_upload_failed() {
    let (fake, cloud) = connected().await;
    let volume = Some("v1");
    let find = async || lost::find(&cloud, &status(), Role::ReadbackImage, "i1", volume).await;
    let Ok(Effect::Lost { why }) = find().await else { panic!("the image is gone") };
    assert!(why.starts_with("no reason could be read: site-a: list messages failed"), "{why}");

    messages(&fake, "v1", json!([]));
    let gives_none = "the cloud gives no reason; somebody may have deleted it".to_string();
    assert_eq!(find().await, Ok(Effect::Lost { why: gives_none.clone() }));

    let (old, new) = ("2026-01-01T00:00:00.000000", "2026-01-01T00:05:00.000000");
    let list = json!([
        message("v1", "copy volume to image:Driver is busy.", old),
        message("v1", "copy volume to image:Image is too large.", new),
        message("v2", "of another one", "2026-01-01T00:09:00.000000"),
    ]);
    messages(&fake, "v1", list);
    let why = "copy volume to image:Image is too large. (req-up)".to_string();
    assert_eq!(find().await, Ok(Effect::Lost { why }));
    assert_eq!(fake.last("GET /volume").header("openstack-api-version"), "volume 3.5");

    // Nobody tells of an image that we filled ourselves.
    let own = lost::find(&cloud, &status(), Role::ImportImage, "i1", None).await;
    assert_eq!(own, Ok(Effect::Lost { why: gives_none }));
}

#[tokio::test]
async fn what_is_there_after_all_is_looked_at_again() {
    let (fake, cloud) = connected().await;
    let volume = format!("GET /volume/v3/{PROJECT}");
    fake.on("GET /image/v2/images/x", 200, json!({"id": "x", "status": "saving"}));
    fake.on(&format!("{volume}/volumes/x"), 200, json!({"volume": {"id": "x", "status": "creating"}}));
    fake.on(&format!("{volume}/snapshots/x"), 200, json!({"snapshot": {"id": "x", "status": "creating"}}));
    for role in [Role::ExportImage, Role::RootImage, Role::Volume, Role::ExportVolume, Role::Snapshot] {
        let there = lost::find(&cloud, &status(), role, "x", Some("v1")).await.unwrap_err();
        assert!(there.conflict && there.transient, "{role}: {there:?}");
    }
    // A cloud that cannot be asked has not said that it is gone.
    fake.on("GET /image/v2/images/x", 503, Value::Null);
    let unknown = lost::find(&cloud, &status(), Role::ExportImage, "x", Some("v1")).await.unwrap_err();
    assert!(unknown.transient && !unknown.conflict, "{unknown:?}");
}

#[tokio::test]
async fn nova_tells_why_a_servers_image_failed() {
    let (fake, cloud) = connected().await;
    let action = "GET /compute/v2.1/servers/src/os-instance-actions/req-image";
    let server =
        |fault: Value| json!({"server": {"id": "src", "status": "SHUTOFF", "metadata": {}, "fault": fault}});
    fake.on("GET /compute/v2.1/servers/src", 200, server(Value::Null));
    for (events, message, wanted) in [
        (
            json!([{"event": "compute_snapshot_instance", "result": "Error", "details": "HTTP 413 too large"}]),
            json!("Error"),
            "compute_snapshot_instance: HTTP 413 too large (req-image)",
        ),
        (
            json!([{"event": "compute_snapshot_instance", "result": "Error", "details": null}]),
            json!("Error"),
            "compute_snapshot_instance failed (req-image)",
        ),
        (json!([]), json!("Error"), "Error (req-image)"),
        (
            json!([{"event": "compute_snapshot_instance", "result": "Success"}]),
            Value::Null,
            "the cloud gives no reason; somebody may have deleted it",
        ),
    ] {
        fake.on(
            action,
            200,
            json!({"instanceAction": {"action": "createImage", "message": message, "events": events}}),
        );
        let found = lost::find(&cloud, &status(), Role::ExportImage, "i1", None).await;
        assert_eq!(found, Ok(Effect::Lost { why: wanted.into() }));
        assert_eq!(fake.last(action).header("openstack-api-version"), "compute 2.84");
    }
    fake.on("GET /compute/v2.1/servers/src", 200, server(json!({"message": "No space left"})));
    let found = lost::find(&cloud, &status(), Role::ExportImage, "i1", None).await;
    assert_eq!(found, Ok(Effect::Lost { why: "No space left (req-image)".into() }));
}
