//! The proof of each disk against the model of both clouds: recorded when it is proven, and never otherwise.

use super::tests::{World, settle};
use crate::{
    crd::{conditions, v1alpha1::*},
    migration::present::present,
};

/// The ways of a disk, and what proves it: the algorithm, who read it in the source and in the destination.
const WAYS: [((bool, bool), [&str; 3]); 4] = [
    ((false, false), ["sha512", "image-service", "image-service"]),
    ((true, true), [SEGMENTS, "mover", "mover"]),
    ((true, false), [SEGMENTS, "mover", "image-service"]),
    ((false, true), [SEGMENTS, "mover", "mover"]),
];

fn verified(w: &World) -> Option<bool> {
    let mut status = w.status.clone();
    present(&mut status, None, w.now);
    conditions::status(&status.conditions, conditions::kind::DATA_VERIFIED)
}

#[test]
fn a_disk_that_is_proven_says_so_in_every_mode() {
    for ((a, b), expected) in WAYS {
        let mut w = World::new().by_volume(a, b);
        w.run(400, |w| w.status.disks.iter().any(|d| d.restore.is_some()), || false);
        assert!(w.status.disks.iter().all(|d| d.proof.is_none()) && verified(&w) != Some(true), "{a} {b}");
        settle(&mut w, Phase::Succeeded);
        for disk in &w.status.disks {
            let proof = disk.proof.clone().unwrap();
            let told = [&proof.algorithm, &proof.source_read_by, &proof.destination_read_by];
            assert_eq!(told, expected, "{a} {b}");
            assert_eq!(proof.read_back_as.is_some(), (a, b) == (true, false), "{a} {b}: {proof}");
            assert_eq!(disk.verdict(), Verdict::Proven(proof), "{a} {b}");
        }
        assert_eq!(verified(&w), Some(true));
    }
}

#[test]
fn a_disk_that_differs_never_has_a_proof() {
    for ((a, b), _) in WAYS {
        let mut w = World::new().by_volume(a, b);
        w.corrupt = true;
        for _ in 0..600 {
            w.pass(false);
            let claimed: Vec<_> = w.status.disks.iter().filter(|d| d.proof.is_some()).collect();
            assert!(claimed.is_empty() && verified(&w) != Some(true), "{a} {b}: {claimed:?}");
        }
        assert_eq!(w.status.failure.as_ref().unwrap().reason, "DigestMismatch", "{a} {b}");
    }
}

#[test]
fn a_hash_that_nobody_else_has_proves_nothing_and_differs_from_nothing() {
    let mut w = World::new();
    let read_back = |w: &World| w.images.iter().any(|(_, i)| i.name.contains("readback"));
    w.run(400, read_back, || false);
    w.stuck = true;
    for (_, image) in w.images.iter_mut().filter(|(_, i)| i.name.contains("readback")) {
        (image.status, image.size) = ("active".into(), Some(100));
        (image.os_hash_algo, image.os_hash_value) = (Some("md5".into()), Some("ab".into()));
    }
    w.made.iter_mut().for_each(|v| v.status = "available".into());
    w.run(20, |w| w.status.failure.is_some(), || false);
    let failure = w.status.failure.clone().unwrap();
    assert_eq!(failure.reason, "VerificationFailed");
    assert!(failure.message.contains("100 bytes, md5 ab, which no digest"), "{}", failure.message);
    assert!(w.status.disks.iter().all(|d| d.proof.is_none()));
}

#[test]
fn what_a_release_before_has_read_back_is_proven_too() {
    let mut w = World::new();
    w.run(400, |w| w.phase() == Some(Phase::Verifying), || false);
    w.status.disks.iter_mut().for_each(|d| d.proof = None);
    assert_eq!(verified(&w), Some(true), "by what was read");
    settle(&mut w, Phase::Succeeded);
    assert!(w.status.disks.iter().all(|d| d.proof.is_some()));
}
