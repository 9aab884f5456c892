//! Disks that a cloud refuses for what they begin with, and what Ceph and encryption make of images: against the model of
//! both clouds.

use super::tests::{World, ask, settle};
use crate::{contract::FailureReason, crd::v1alpha1::*, migration::names::Side};
use serde_json::json;

/// The backup of the second disk finds that the destination does not take it.
fn refused() -> World {
    let mut w = World::new();
    w.judging = [Some(false), Some(true)];
    (w.failing, w.failing_for) = (Some(("backup-1", false)), "DiskRefused");
    w
}

fn failure(w: &World) -> Failure {
    w.status.failure.clone().unwrap_or_default()
}

fn backups(w: &World) -> Vec<String> {
    w.asked.keys().filter(|name| name.contains("-backup-1-")).cloned().collect()
}

#[test]
fn the_source_is_given_back_at_once_with_the_ways_out() {
    let mut w = refused();
    w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    let failure = failure(&w);
    assert_eq!(failure.reason, FailureReason::DiskRefused.to_string());
    for part in ["site-b: Job ", "transfer.mode Volume of OpenStackCloud site-b", "transfer.takesAnyDisk"] {
        assert!(failure.message.contains(part), "{part}: {}", failure.message);
    }
    assert_eq!(backups(&w).len(), 1, "it is not tried again");
    w.assert_given_back();
    w.assert_nothing_left();
}

#[test]
fn while_passes_are_made_it_is_known_before_the_source_is_touched() {
    let mut w = refused();
    ask(&mut w, json!({"strategy": "Warm"}));
    w.run(400, |w| w.status.failure.is_some(), || false);
    assert_eq!(failure(&w).reason, "DiskRefused");
    assert!(
        w.status.source.as_ref().is_some_and(|s| s.claimed_at.is_none() && s.stop_requested_at.is_none())
    );
    w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    assert_eq!((backups(&w).len(), w.actions.len()), (1, 0), "no pass carries it, and nothing was done to A");
    w.assert_given_back();
    w.assert_nothing_left();
}

#[test]
fn the_plan_says_what_is_known_only_after_the_stop() {
    for (strategy, judging, by_volume, wanted) in [
        ("Cold", Some(true), false, 2),
        ("Cold", Some(true), true, 0),
        ("Cold", None, false, 0),
        ("Warm", Some(true), false, 0),
    ] {
        let mut w = World::new().by_volume(by_volume, by_volume);
        w.judging = [judging; 2];
        ask(&mut w, json!({"strategy": strategy, "cutover": {"mode": "Manual"}}));
        w.run(200, |w| w.phase() == Some(Phase::AwaitingCutover), || false);
        let told = w.status.preflight.iter().filter(|f| f.id.ends_with("-image-checks")).count();
        assert_eq!(told, wanted, "{strategy} {judging:?} {by_volume}");
    }
}

#[test]
fn a_backup_is_told_what_is_known_of_the_image_service() {
    for (judging, takes_any, wanted) in [
        (Some(true), false, "checked"),
        (Some(false), false, "unchecked"),
        (None, false, "unknown"),
        (Some(true), true, "unchecked"),
    ] {
        for by_volume in [false, true] {
            let mut w = World::new().by_volume(by_volume, by_volume);
            w.local_root = true;
            (w.judging, w.takes_any_disk) = ([None, judging], takes_any);
            // Only then there is something that the OpenStackCloud asks for.
            w.modes.entry(Side::Destination).or_insert(TransferMode::Image);
            settle(&mut w, Phase::Succeeded);
            let told = |disk: &str| {
                let args = w.asked.iter().find(|(name, _)| name.contains(disk)).map(|(_, args)| args.clone());
                let args = args.unwrap_or_default();
                args.iter().position(|a| a == "--images").map(|at| args[at + 1].clone())
            };
            assert_eq!(
                told("-backup-0-").as_deref(),
                Some(wanted),
                "a local root disk is an image in any mode"
            );
            assert_eq!(told("-backup-1-").as_deref(), Some(wanted).filter(|_| !by_volume), "{by_volume}");
        }
    }
}

/// Nova makes a qcow2 file of a local disk where its own are such files, and the destination's image is one, too.
#[test]
fn an_image_that_is_no_raw_disk_is_not_judged_as_one() {
    for (format, told) in [(None, true), (Some("raw"), true), (Some("qcow2"), false)] {
        let mut w = World::new();
        (w.local_root, w.root_format, w.judging) = (true, format, [None, Some(true)]);
        settle(&mut w, Phase::Succeeded);
        let of_the_root = w.asked.iter().find(|(name, _)| name.contains("-backup-0-"));
        let args = of_the_root.map(|(_, args)| args.clone()).unwrap_or_default();
        assert_eq!(args.contains(&"--images".to_string()), told, "{format:?}");
    }
}

/// As block storage says it, whatever ended the upload.
const SAID: &str = "copy volume to image:Failed to upload volume to image at backend. (req-9)";

#[test]
fn an_upload_that_the_sources_image_service_refuses_is_asked_for_once() {
    for (judging, times, reason) in [
        (Some(true), 1, "DiskRefused"),
        (Some(false), 3, "UnrecoverableError"),
        (None, 3, "UnrecoverableError"),
    ] {
        let mut w = World::new();
        w.judging = [judging, None];
        (w.vanishing, w.lost_because) = (("-export-image-1", u32::MAX), SAID);
        w.run(200, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
        let failure = failure(&w);
        assert_eq!(failure.reason, reason, "{judging:?}");
        assert!(failure.message.contains(SAID), "{}", failure.message);
        // The other disk's is one, too.
        assert_eq!(w.uploads.get("export-image").copied(), Some(times + 1), "{judging:?}");
        let told = failure.message.contains("transfer.mode Volume of OpenStackCloud site-a");
        assert_eq!(told, judging != Some(false), "{}", failure.message);
        w.assert_given_back();
    }
}

/// An upload that ends for another reason is asked for again there, too.
#[test]
fn not_everything_that_is_lost_was_refused() {
    let mut w = World::new();
    w.judging = [Some(true), Some(true)];
    w.vanishing = ("-export-image-1", 1);
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn an_objection_that_may_not_hold_is_told_and_nothing_more() {
    let mut w = World::new();
    w.objection = Some("LUKS version 2 on the whole disk: …");
    settle(&mut w, Phase::Succeeded);
    let told =
        w.status.timeline.iter().any(|row| row.message.contains("disk 1 may not be taken as an image"));
    assert!(told, "{:#?}", w.status.timeline);
}

/// Ceph makes a server's image without a hash: the mover's digests are the proof.
#[test]
fn images_without_a_hash_are_proven_by_the_movers_digests() {
    let mut w = World::new();
    (w.local_root, w.hashless) = (true, true);
    settle(&mut w, Phase::Succeeded);
    for disk in &w.status.disks {
        let proof = disk.proof.as_ref().unwrap();
        assert_eq!(proof.algorithm, "sha256-of-segments", "{proof:?}");
    }
}

#[test]
fn encrypted_volumes_are_named() {
    let mut w = World::new();
    w.encrypts_in_b = true;
    w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    let said = failure(&w).message;
    assert!(said.contains("is encrypted by its volume type") && said.contains("volumeTypes"), "{said}");
    w.assert_given_back();

    let mut w = World::new();
    w.image_bytes = 1_075_810_304;
    w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    let said = failure(&w).message;
    assert!(said.contains("1075810304 bytes, more than the volume's 1 GiB"), "{said}");
    assert!(w.asked.keys().all(|job| !job.contains("-backup-")), "it is not read");
    w.assert_given_back();
}

/// Glance calls an image queued again whose content it has refused, and answers 500 to a second upload into it.
#[test]
fn a_refused_image_is_never_written_to_again() {
    let mut w = World::new();
    w.slow = 100;
    let restore = |w: &World| w.jobs.keys().find(|name| name.contains("-restore-0-1")).cloned();
    w.run(200, |w| restore(w).is_some(), || false);
    let job = restore(&w).unwrap();
    w.jobs.remove(&job);
    let queued =
        w.images.iter_mut().find(|(side, i)| *side == Side::Destination && i.name.contains("import-image-0"));
    queued.unwrap().1.os_hash_value = Some("of what was refused".into());
    w.slow = 0;
    w.run(200, |w| w.jobs.keys().any(|name| name.contains("-restore-0-2")), || false);
    let into = |attempt: &str| {
        let job =
            w.asked.iter().find(|(name, _)| name.contains(attempt)).map(|(_, args)| args.clone()).unwrap();
        job[job.iter().position(|a| a == "--image").unwrap() + 1].clone()
    };
    assert_ne!(into("-restore-0-1"), into("-restore-0-2"));
}
