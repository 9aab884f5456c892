//! What a finished volume gets and loses, against a loopback server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod openstack_support;

use openstack_support::{Fake, PROJECT, connected};
use serde_json::{Value, json};
use vmmigration::{controller::dress, crd::v1alpha1::DiskAttributes, migration::step::Effect};

/// What was asked of volume `v`, in this order.
fn asked(fake: &Fake) -> Vec<Value> {
    let mut all = fake.seen("PUT");
    all.extend(fake.seen("POST /volume"));
    all.iter().map(|seen| seen.json()).collect()
}

fn wanted() -> DiskAttributes {
    let image_metadata = json!({"hw_machine_type": "q35", "image_id": "base", "image_name": "debian"});
    let wanted = json!({"name": "data", "bootable": true, "imageMetadata": image_metadata});
    serde_json::from_value(wanted).unwrap()
}

async fn dressed(shown: Value) -> Vec<Value> {
    let (fake, cloud) = connected().await;
    let volume = format!("/volume/v3/{PROJECT}/volumes/v");
    fake.on(&format!("GET {volume}"), 200, json!({"volume": shown}));
    fake.on(&format!("PUT {volume}"), 200, json!({"volume": {"id": "v"}}));
    fake.on(&format!("POST {volume}/action"), 200, json!({"metadata": {}}));
    assert_eq!(dress::volume(&cloud, &wanted(), "v").await, Ok(Effect::Done));
    asked(&fake)
}

#[tokio::test]
async fn a_finished_volume_has_its_own_name_and_nothing_of_our_image() {
    let of_the_image = json!({"image_id": "i", "image_name": "vmm-u-import-image-0", "checksum": "c", "size": "9",
        "disk_format": "raw", "container_format": "bare", "min_disk": "0", "vmmigration.io:migration": "u"});
    let set = json!({"os-set_image_metadata": {"metadata": {"hw_machine_type": "q35"}}});
    let unset = |key: &str| json!({"os-unset_image_metadata": {"key": key}});
    let shown = json!({"id": "v", "name": "vmm-u-volume-0", "bootable": "false", "volume_image_metadata": of_the_image});
    let all = [
        json!({"volume": {"name": "data"}}),
        json!({"os-set_bootable": {"bootable": true}}),
        unset("checksum"),
        unset("image_id"),
        unset("image_name"),
        unset("size"),
        unset("vmmigration.io:migration"),
        set.clone(),
    ];
    assert_eq!(dressed(shown).await, all);
    // Once more, after a crash: only what is still to be done.
    let shown = json!({"id": "v", "name": "data", "bootable": "true", "volume_image_metadata": {"disk_format": "raw"}});
    assert_eq!(dressed(shown).await, [set]);
}
