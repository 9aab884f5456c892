//! While only Jobs copy the clouds are left alone, and nothing is missed by that.

use super::{
    Side,
    tests::{World, ask, hook_row, settle},
};
use crate::crd::v1alpha1::*;
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;
use std::time::Duration;

/// A move whose Jobs run for half an hour each.
fn long() -> World {
    let mut w = World::new();
    w.slow = 900;
    w
}

fn backups_run(w: &World) -> bool {
    w.jobs.keys().filter(|n| n.contains("-restore-")).count() == 2 && w.status.clouds_looked_at.is_some()
}

/// How often the clouds are looked at in so many passes; the model's time goes on by two seconds with each.
fn looks(w: &mut World, passes: u32) -> u32 {
    let before = w.cloud_looks;
    (0..passes).for_each(|_| w.pass(false));
    w.cloud_looks - before
}

#[test]
fn while_jobs_copy_the_clouds_are_looked_at_rarely() {
    for volume in [false, true] {
        let mut w = long();
        if volume {
            w.modes = super::SIDES.map(|side| (side, TransferMode::Volume)).into();
        }
        w.run(300, backups_run, || false);
        assert_eq!(looks(&mut w, 300), 10, "once a minute in ten minutes");
        w.slow = 0;
        settle(&mut w, Phase::Succeeded);
    }
}

#[test]
fn while_a_pass_is_read_the_source_is_looked_at_rarely() {
    let mut w = long();
    ask(&mut w, json!({"strategy": "Warm", "cutover": {"mode": "Manual"}}));
    w.run(300, |w| w.status.clouds_looked_at.is_some(), || false);
    assert_eq!(w.phase(), Some(Phase::Copying));
    assert_eq!(looks(&mut w, 300), 10, "once a minute in ten minutes");
    assert!(
        w.status.message.as_ref().is_some_and(|m| m.contains("Backing up disk 0")),
        "{:?}",
        w.status.message
    );
}

#[test]
fn while_the_store_is_probed_and_while_hooks_run_nothing_is_looked_up_in_the_clouds() {
    let mut w = World::new();
    w.slow_before = 30;
    ask(&mut w, json!({"hooks": [{"name": "c", "phase": "BeforeStop", "timeout": "1h", "client": {}}]}));
    w.run(300, |w| hook_row(w, "c").state == HookState::Waiting, || false);
    (0..30).for_each(|_| w.pass(false));
    assert!(w.inventories <= 6, "{}: before and after the probes, before and after init", w.inventories);
    w.answer("c", |note| note.exit_code = Some(0));
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn what_was_found_stands_while_the_store_is_probed() {
    let mut w = World::new();
    w.slow_before = 30;
    w.source.status = "PAUSED".into();
    w.run(5, |w| !w.status.preflight.is_empty(), || false);
    let found = w.status.preflight.clone();
    (0..10).for_each(|_| w.pass(false));
    assert_eq!(w.status.preflight, found);
    w.run(60, |w| w.phase() == Some(Phase::Blocked), || false);
}

#[test]
fn what_is_blocked_for_long_is_looked_at_less_often() {
    let mut w = World::new();
    w.source.status = "PAUSED".into();
    w.run(60, |w| w.phase() == Some(Phase::Blocked), || false);
    w.pass(false);
    assert_eq!(w.recheck, Some(Duration::from_secs(15)));
    w.now += SignedDuration::from_secs(250);
    w.pass(false);
    assert!(w.recheck.is_some_and(|r| (50..55).contains(&r.as_secs())), "{:?}", w.recheck);
}

#[test]
fn the_end_of_a_job_is_a_reason_to_look() {
    let mut w = long();
    w.run(300, backups_run, || false);
    assert_eq!(looks(&mut w, 3), 0);
    // One of four Jobs ends badly: its successor is made at once.
    w.job_fails = true;
    w.pass(false);
    let before = w.jobs.len();
    w.run(3, |w| w.jobs.len() > before, || false);
}

#[test]
fn a_source_that_runs_again_while_the_clouds_are_left_alone_is_seen_before_a_copy_is_trusted() {
    let mut w = long();
    w.run(300, backups_run, || false);
    assert_eq!(looks(&mut w, 3), 0);
    w.source.locked = false;
    w.act("unlock");
    w.source.status = "ACTIVE".into();
    w.act("start");
    // The Jobs end before the next look would be due.
    w.slow = 0;
    w.run(5, |w| w.phase() == Some(Phase::Held), || false);
    assert!(w.status.disks.iter().all(|d| d.backup.is_none()) && w.servers.is_empty());
    // Nobody's Job ends: it is seen within a minute.
    let mut w = long();
    w.run(300, backups_run, || false);
    w.act("start");
    w.run(35, |w| w.phase() == Some(Phase::Held), || false);
}

#[test]
fn what_is_wanted_in_the_middle_is_heard_at_once() {
    let mut w = long();
    w.run(300, backups_run, || false);
    ask(&mut w, json!({"requests": {"cancel": "1"}}));
    w.run(10, |w| w.phase() == Some(Phase::Cancelled), || false);
    w.assert_given_back();
    let mut w = long();
    w.run(300, backups_run, || false);
    w.deleting = true;
    w.run(60, |w| w.released, || false);
    w.assert_given_back();
    w.assert_nothing_left();
}

#[test]
fn a_cluster_that_does_not_answer_hides_its_jobs() {
    let mut w = long();
    w.run(300, backups_run, || false);
    let mut seen = w.observe();
    let wait =
        |seen: &_| crate::migration::looks::clouds_may_wait(&super::tests::me(), &w.status, seen, w.now);
    assert!(wait(&seen));
    assert!(seen.cluster(Side::Source).view().is_some());
    seen.source_cluster = Default::default();
    assert!(!wait(&seen));
}
