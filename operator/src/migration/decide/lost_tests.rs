//! What a cloud was asked for and what is gone all the same, against the model of both clouds: the cloud is asked why
//! and for another one, but not for ever while the source is down.

use super::tests::{World, ask, dice, settle};
use crate::crd::v1alpha1::*;
use serde_json::json;

/// Where an image can be lost, by its name, and in which world.
fn places() -> [(&'static str, World); 3] {
    let mut local = World::new();
    local.local_root = true;
    [("-export-image-1", World::new()), ("-readback-image-0", World::new()), ("-export-image-0", local)]
}

fn asked(w: &World, role: &str) -> u32 {
    w.uploads.get(role).copied().unwrap_or_default()
}

#[test]
fn an_upload_that_never_comes_to_anything_ends_with_the_clouds_reason_and_the_source_is_given_back() {
    for (name, mut w) in places() {
        w.vanishing = (name, u32::MAX);
        w.run(200, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
        let failure = w.status.failure.clone().unwrap();
        assert_eq!(failure.reason, "UnrecoverableError", "{name}");
        let wanted = "asked for 3 times, it came to nothing: no space left on device (req-9)";
        assert!(failure.message.contains(wanted), "{name}: {}", failure.message);
        assert!(w.uploads.values().all(|n| *n <= 4), "{name}: {:?}", w.uploads);
        let told = w.status.timeline.iter().filter(|r| r.message.contains("no space left on device")).count();
        assert!(told >= 3, "{name}: {:#?}", w.status.timeline);
        w.assert_given_back();
        w.assert_nothing_left();
    }
}

#[test]
fn an_image_that_is_lost_once_is_asked_for_again() {
    for seed in 0..20 {
        for (name, mut w) in places() {
            w.vanishing = (name, 1);
            w.run(2000, World::clean, dice(seed, 4));
            assert_eq!(w.phase(), Some(Phase::Succeeded), "{name} {seed}: {:?}", w.status.failure);
            assert!(w.status.disks.iter().all(DiskStatus::proven), "{name} {seed}");
        }
    }
}

#[test]
fn the_next_one_is_asked_for_after_a_pause() {
    let mut w = World::new();
    w.vanishing = ("-readback-image-0", 1);
    w.run(200, |w| w.vanishing.1 == 0, || false);
    let lost_at = w.now;
    w.run(60, |w| asked(w, "readback-image") == 3, || false);
    let waited = w.now.duration_since(lost_at).as_secs();
    assert!((15..=25).contains(&waited), "{waited}");
    let lost = |row: &AskedRow| row.role == "readback-image" && row.lost == 1 && row.id.is_some();
    assert!(w.status.disks[0].import.asked.iter().any(lost), "{:?}", w.status.disks[0].import);
}

#[test]
fn while_passes_are_made_a_lost_image_ends_only_the_pass() {
    let mut w = World::new();
    ask(&mut w, json!({"strategy": "Warm"}));
    w.vanishing = ("-export-image-1", 3);
    w.run(400, |w| w.status.copying.as_ref().is_some_and(|c| c.failures == 1), || false);
    assert_eq!((w.source.status.as_str(), w.phase()), ("ACTIVE", Some(Phase::Copying)));
    settle(&mut w, Phase::Succeeded);
}
