//! Clouds that do not delete what they are asked to, against the model: nothing proven fails for that, clean-up ends,
//! and what stays is told.

use super::{
    Side,
    tests::{World, ask, dice, settle},
};
use crate::{crd::v1alpha1::*, migration::step::ObjectKind};
use k8s_openapi::jiff::ToSpan;
use serde_json::json;

/// The volumes of the destination are clones of the images that they were made of.
fn on_ceph() -> World {
    let mut w = World::new();
    w.ceph = true;
    w
}

fn minutes(w: &World, since: k8s_openapi::jiff::Timestamp) -> i64 {
    w.now.duration_since(since).as_secs() / 60
}

/// Rows of images that stay, with the reason, and a date.
fn told(w: &World) -> Vec<&RetainedRow> {
    let image = |r: &&RetainedRow| r.what.starts_with("image ") && r.what.ends_with(" in site-b");
    w.status.retained.iter().filter(image).collect()
}

#[test]
fn an_image_that_a_volume_lives_on_is_left_and_told() {
    for seed in [0, 3, 5] {
        let mut w = on_ceph();
        let began = w.now;
        w.run(3000, World::clean, if seed == 0 { dice(1, u64::MAX) } else { dice(seed, 5) });
        assert_eq!(w.phase(), Some(Phase::Succeeded), "{:?}", w.status.failure);
        assert!(minutes(&w, began) < 30, "{}", minutes(&w, began));
        assert_eq!((w.images.len(), w.made.len(), w.vault, w.repository), (2, 2, false, false));
        let rows = told(&w);
        assert_eq!(rows.len(), 2, "{:?}", w.status.retained);
        for (row, volume) in rows.iter().zip(&w.made) {
            assert!(row.why.contains("409 it is in use (req-5)") && row.why.contains("since 20"), "{row:?}");
            assert!(row.why.contains(&format!("volume {} was made of it", volume.id)), "{row:?}");
        }
        let report = w.told.as_ref().map(|t| t.retained.len());
        assert_eq!(report, Some(w.status.retained.len()), "the report tells it, too");
    }
}

#[test]
fn the_source_is_retired_all_the_same() {
    let mut w = on_ceph();
    ask(&mut w, json!({"sourcePolicy": {"action": "Delete", "after": "10m"}}));
    w.run(3000, |w| w.phase() == Some(Phase::Retired) && w.clean(), || false);
    assert_eq!((w.images.len(), told(&w).len(), w.own.len(), w.vault), (2, 2, 0, false));
}

#[test]
fn a_deletion_that_is_refused_on_the_way_fails_nothing() {
    let mut w = on_ceph();
    w.vanishing = ("-readback-image-1", 2);
    w.run(300, |w| w.status.deletions.iter().any(|r| r.refused.is_some()), || false);
    assert_eq!(w.phase(), Some(Phase::Creating));
    // One disk is proven; the other one takes longer than trouble is borne.
    for _ in 0..3 {
        w.now = w.now.checked_add(400.seconds()).unwrap();
        w.pass(false);
        assert_eq!(w.status.failure, None);
    }
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn after_a_failure_an_image_goes_with_its_volume_or_stays_with_the_server_that_ran() {
    let mut w = on_ceph();
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    w.assert_given_back();
    w.assert_nothing_left();

    let mut w = on_ceph();
    w.run(300, |w| w.phase() == Some(Phase::Verifying), || false);
    ask(&mut w, json!({"requests": {"rollback": "1"}}));
    w.run(900, |w| w.phase() == Some(Phase::RolledBack) && w.clean(), || false);
    assert_eq!((w.servers.len(), w.images.len(), told(&w).len(), w.vault), (1, 2, 2, false));
}

#[test]
fn a_pass_ends_although_the_cloud_keeps_what_it_made() {
    for (kind, says) in [
        (ObjectKind::Volume, true),
        (ObjectKind::Volume, false),
        (ObjectKind::Image, true),
        (ObjectKind::Snapshot, true),
    ] {
        let mut w = World::new();
        ask(&mut w, json!({"strategy": "Warm"}));
        w.keeping = Some((Side::Source, kind, says));
        let began = w.now;
        w.run(9000, |w| w.status.copying.as_ref().is_some_and(|c| c.passes == 1), || false);
        assert!(minutes(&w, began) < if says { 15 } else { 70 }, "{kind}: {}", minutes(&w, began));
        assert_eq!(w.source.status, "ACTIVE");
        w.run(30_000, |w| w.phase() == Some(Phase::Succeeded) && w.clean(), || false);
        assert!(!w.vault && !w.repository && !w.status.retained.is_empty(), "{kind} {says}");
    }
}

#[test]
fn a_new_try_never_begins_beside_what_an_earlier_one_left() {
    let mut w = World::new();
    (w.keeping, w.failing) = (Some((Side::Source, ObjectKind::Image, true)), Some(("restore-0", false)));
    ask(&mut w, json!({"onFailure": {"keepData": "24h"}}));
    w.run(300, |w| w.phase() == Some(Phase::Failed), || false);
    w.assert_given_back();
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    w.failing = None;
    for _ in 0..1000 {
        w.pass(false);
    }
    assert_eq!((w.phase(), w.images.len()), (Some(Phase::Failed), 2), "{:?}", w.status.message);
    assert!(
        w.status.message.as_ref().is_some_and(|m| m.contains("409 it is in use")),
        "{:?}",
        w.status.message
    );
    w.keeping = None;
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn a_deleted_migration_is_released_although_images_stay() {
    let mut w = World::new();
    w.keeping = Some((Side::Destination, ObjectKind::Image, true));
    w.run(300, |w| w.phase() == Some(Phase::Creating), || false);
    w.deleting = true;
    w.run(1000, |w| w.released, || false);
    w.assert_given_back();
    assert!(!w.vault && !w.images.is_empty() && w.made.is_empty());
}
