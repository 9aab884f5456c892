//! Warm migrations against the model of both clouds: passes while the source runs, then the way of a cold one.

use super::tests::{World, ask, dice, settle};
use crate::crd::v1alpha1::*;
use k8s_openapi::jiff::ToSpan;
use serde_json::json;

fn warm(mode: &str) -> World {
    warm_by(false, false, mode)
}

/// As images, as block devices, and mixed.
const WAYS: [(bool, bool); 4] = [(false, false), (true, true), (true, false), (false, true)];

fn warm_by(a: bool, b: bool, mode: &str) -> World {
    let mut w = World::new().by_volume(a, b);
    ask(&mut w, json!({"strategy": "Warm", "cutover": {"mode": mode}}));
    w
}

/// Passes over a disk that the model's Jobs were asked for, and how many of them there were.
fn passes(w: &World, disk: &str) -> Vec<i32> {
    let mut all: Vec<_> =
        w.manifests.values().filter(|(d, ..)| d == disk).map(|(_, pass, _)| *pass).collect();
    all.sort_unstable();
    all
}

fn made(w: &World) -> i32 {
    w.status.copying.as_ref().map_or(0, |c| c.passes)
}

fn untouched(w: &World) {
    a_untouched(w);
    assert!(w.made.is_empty() && w.servers.is_empty() && w.ports.is_empty());
}

fn a_untouched(w: &World) {
    assert_eq!((w.source.status.as_str(), w.source.locked), ("ACTIVE", false));
    assert!(w.source.metadata.is_empty());
}

#[test]
fn passes_come_first_and_leave_nothing_but_the_repository() {
    let mut w = warm("Now");
    w.run(400, |w| w.phase() == Some(Phase::Stopping), || false);
    untouched(&w);
    assert!(w.snapshots.is_empty() && w.volumes.is_empty() && w.images.is_empty(), "{:?}", w.snapshots);
    assert!(!w.jobs.keys().any(|n| n.contains("backup")), "{:?}", w.jobs.keys());
    assert_eq!((made(&w), passes(&w, "0"), passes(&w, "1")), (2, vec![0, 1], vec![0, 1]));
    let rows = &w.status.disks[1].passes;
    assert!(
        rows.iter().all(|r| r.bytes_read == 100 && r.changed_bytes == 10 && r.sent_bytes == 5),
        "{rows:?}"
    );
    assert!(rows.iter().all(|r| r.seconds > 0 && r.forecast_downtime_seconds > Some(90)), "{rows:?}");
    settle(&mut w, Phase::Succeeded);
    assert_eq!((w.source.status.as_str(), w.servers.len(), w.made.len()), ("SHUTOFF", 1, 2));
    assert_eq!(w.status.retained.len(), 2, "snapshots of the last pass stay while A is stopped");
    assert!(w.status.disks.iter().all(|d| d.pass == 2 && d.readback.is_some() && d.passes.len() == 3));
}

#[test]
fn volumes_in_the_destination_follow_the_passes() {
    for (a, b) in WAYS {
        let mut w = warm_by(a, b, "Now");
        w.run(400, |w| made(w) == 1, || false);
        let held: Vec<_> = w.status.disks.iter().filter_map(|d| d.import.holds.clone()).collect();
        let last = |w: &World| {
            w.status
                .disks
                .iter()
                .filter_map(|d| d.passes.last()?.snapshot_id.clone().into())
                .collect::<Vec<String>>()
        };
        assert_eq!(held, if b { last(&w) } else { vec![] }, "{a} {b}");
        w.run(400, |w| w.phase() == Some(Phase::Stopping), || false);
        a_untouched(&w);
        assert!(w.snapshots.is_empty() && w.volumes.is_empty() && w.images.is_empty(), "{a} {b}");
        assert_eq!((w.made.len(), w.devices.len()), if b { (2, 2) } else { (0, 0) }, "{a} {b}: only in B");
        assert!(!w.jobs.keys().any(|n| n.contains("backup") || n.contains("restore")), "{:?}", w.jobs.keys());
        let volumes: Vec<_> = w.made.iter().map(|v| v.id.clone()).collect();
        w.run(
            400,
            |w| w.asked.keys().filter(|n| n.contains("restore-")).count() >= if b { 6 } else { 2 },
            || false,
        );
        let holds = w.asked.values().filter(|args| args.iter().any(|a| a == "--holds")).count();
        assert_eq!(
            holds,
            if b { 4 } else { 0 },
            "{a} {b}: the second pass and the last one are patches only"
        );
        settle(&mut w, Phase::Succeeded);
        assert!(!b || w.made.iter().all(|v| volumes.contains(&v.id)), "{a} {b}: another volume");
        assert!(w.status.disks.iter().all(|d| d.pass == 2 && d.proven()), "{a} {b}");
    }
}

#[test]
fn the_forecast_knows_how_disks_enter_the_destination() {
    let forecast = |b| {
        let mut w = warm_by(true, b, "Manual");
        w.run(400, |w| w.phase() == Some(Phase::AwaitingCutover), || false);
        let found = w.status.preflight.iter().find(|f| f.id == "warm-destination").unwrap();
        (w.status.disks[0].passes[0].clone(), w.status.message.clone().unwrap(), found.message.clone())
    };
    let ((image, told, plan), (volume, told_of_volume, plan_of_volume)) = (forecast(false), forecast(true));
    assert!(volume.forecast_downtime_seconds < image.forecast_downtime_seconds, "{volume:?} {image:?}");
    assert!(told.contains("put the disks together") && plan.contains("no pass shortens"), "{told} {plan}");
    assert!(told_of_volume.contains("once in A and once in B"), "{told_of_volume}");
    assert!(plan_of_volume.contains("follow each pass"), "{plan_of_volume}");
}

#[test]
fn disks_that_have_begun_to_travel_keep_their_mode() {
    for (a, b) in WAYS {
        let mut w = warm_by(a, b, "Manual");
        w.run(400, |w| made(w) == 1, || false);
        let changed = World::new().by_volume(!a, !b).modes;
        w.modes = changed;
        ask(&mut w, json!({"cutover": {"mode": "Now"}}));
        // A cluster that lost its driver is a blocker; here those that have it are others.
        if a || b {
            let told = |w: &World| w.status.message.clone().unwrap_or_default().contains("not possible");
            w.run(400, told, || false);
            // While it is Blocked the spec's destination may be changed; not once volumes are there.
            assert_eq!(w.phase(), Some(if b { Phase::Stopping } else { Phase::Blocked }), "{a} {b}");
            a_untouched(&w);
            w.modes = World::new().by_volume(a, b).modes;
        }
        settle(&mut w, Phase::Succeeded);
        assert!(w.status.disks.iter().all(|d| d.export.image_id.is_none() == a), "{a} {b}");
    }
}

#[test]
fn a_wrong_segment_that_is_found_while_the_source_runs_is_read_again() {
    let mut w = warm_by(true, true, "Now");
    w.wrong_segment = true;
    w.run(800, |w| w.status.copying.as_ref().is_some_and(|c| c.failures == 1), || false);
    settle(&mut w, Phase::Succeeded);
    assert!(w.status.timeline.iter().any(|t| t.message.contains("given up")), "{:#?}", w.status.timeline);
}

#[test]
fn a_volume_that_somebody_deletes_between_passes_is_made_and_filled_again() {
    for n in [1, 2] {
        let mut w = warm_by(true, true, "Now");
        w.run(400, |w| made(w) == n, || false);
        w.made.remove(0);
        settle(&mut w, Phase::Succeeded);
    }
}

#[test]
fn a_restore_that_is_broken_off_begins_with_the_same() {
    for n in 0..120 {
        let mut w = warm_by(n % 2 == 0, true, "Now");
        (0..n).for_each(|_| w.pass(false));
        w.job_fails = true;
        settle(&mut w, Phase::Succeeded);
    }
}

#[test]
fn passes_go_on_until_the_forecast_is_within_what_is_allowed() {
    let mut w = warm("Now");
    ask(&mut w, json!({"maxDowntime": "1h"}));
    w.run(400, |w| w.phase() == Some(Phase::Stopping), || false);
    assert_eq!(made(&w), 1, "{:?}", w.status.timeline);
}

#[test]
fn a_crash_at_any_point_of_a_warm_move_loses_leaks_or_doubles_nothing() {
    for seed in 0..160 {
        let (a, b) = WAYS[usize::try_from(seed % 4).unwrap()];
        let mut w = warm_by(a, b, "Now");
        w.run(3000, World::clean, dice(seed, 3));
        assert_eq!(w.phase(), Some(Phase::Succeeded), "seed {seed}: {:?}", w.status.failure);
        assert_eq!((w.servers.len(), w.made.len(), w.snapshots.len()), (1, 2, 2), "seed {seed}");
        assert!(w.images.is_empty() && w.volumes.is_empty() && !w.repository, "seed {seed}");
        assert!(w.devices.is_empty(), "seed {seed}");
    }
}

#[test]
fn cancel_and_deletion_amid_passes_leave_the_source_as_it_was() {
    for (n, (a, b)) in (0..80).flat_map(|n| WAYS.map(|way| (n, way))) {
        let mut w = warm_by(a, b, "Manual");
        (0..n).for_each(|_| w.pass(false));
        if n % 2 == 0 {
            w.deleting = true;
            w.run(1000, |w| w.released, dice(n, 4));
        } else {
            ask(&mut w, json!({"requests": {"cancel": "c"}}));
            // A token that was there when the object was first seen does nothing.
            if n > 0 {
                w.run(1000, |w| w.phase() == Some(Phase::Cancelled) && w.clean(), dice(n, 4));
            }
        }
        untouched(&w);
        w.assert_nothing_left();
        assert!(w.snapshots.is_empty(), "after {n} passes: {:?}", w.snapshots);
    }
}

#[test]
fn while_the_go_is_waited_for_passes_go_on_calmly_and_nothing_expires() {
    let mut w = warm("Manual");
    w.run(400, |w| w.phase() == Some(Phase::AwaitingCutover), || false);
    let message = w.status.message.clone().unwrap();
    for part in
        ["pass 2 ended", "changed", "forecast downtime", "the next one begins at", "kubectl patch vmm web-1"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    let began = w.now;
    let mut at = vec![];
    while at.len() < 4 {
        let before = made(&w);
        w.pass(false);
        if made(&w) > before {
            at.push(w.now.duration_since(began).as_secs());
        }
        assert!(w.status.failure.is_none() && w.phase() == Some(Phase::AwaitingCutover));
        let idle = w.recheck.filter(|r| r.as_secs() > 2);
        w.now = w.now.checked_add(i64::try_from(idle.map_or(0, |r| r.as_secs())).unwrap().seconds()).unwrap();
    }
    assert!((900..960).contains(&at[0]) && at[3] - at[2] > 7200, "{at:?}");
    untouched(&w);
    assert!(w.snapshots.is_empty());
    ask(&mut w, json!({"cutover": {"mode": "Now"}}));
    settle(&mut w, Phase::Succeeded);
    assert_eq!(passes(&w, "0").len(), 0, "the repository is gone");
    assert_eq!(w.status.disks[0].pass, 6);
}

#[test]
fn a_go_amid_a_pass_lets_it_end() {
    for (n, (a, b)) in (0..60).flat_map(|n| WAYS.map(|way| (n, way))) {
        let mut w = warm_by(a, b, "Manual");
        (0..n).for_each(|_| w.pass(false));
        ask(&mut w, json!({"cutover": {"mode": "Now"}}));
        w.run(400, |w| w.phase() == Some(Phase::Transferring), || false);
        assert!(w.snapshots.is_empty(), "what passes made is gone: {:?}", w.snapshots);
        settle(&mut w, Phase::Succeeded);
        assert_eq!(w.snapshots.len(), 2, "of the last pass only");
    }
}

#[test]
fn a_pass_ends_shortly_before_a_known_time() {
    let mut w = warm("Manual");
    let at = w.now.checked_add(3.hours()).unwrap();
    ask(&mut w, json!({"cutover": {"mode": "At", "at": at.to_string()}}));
    while w.phase() != Some(Phase::Stopping) {
        w.pass(false);
        let idle = w.recheck.filter(|r| r.as_secs() > 2);
        w.now = w.now.checked_add(i64::try_from(idle.map_or(0, |r| r.as_secs())).unwrap().seconds()).unwrap();
    }
    let ended = w.status.copying.as_ref().unwrap().ended_at.clone().unwrap().0;
    let before = at.duration_since(ended).as_secs();
    assert!((1..120).contains(&before), "the last pass ended {before} s before");
    assert!(w.now.duration_since(at).as_secs() < 10, "stopped late");
}

#[test]
fn a_source_that_ran_after_the_last_pass_holds_and_a_retry_builds_on_what_is_there() {
    let phases = [(Phase::Transferring, 1), (Phase::Creating, 2)];
    for ((phase, kept), (a, b)) in phases.into_iter().flat_map(|p| WAYS.map(|way| (p, way))) {
        let mut w = warm_by(a, b, "Now");
        w.run(400, |w| w.phase() == Some(phase), || false);
        (w.source.locked, w.source.status) = (false, "ACTIVE".into());
        w.act("unlock");
        w.act("start");
        w.run(50, |w| w.phase() == Some(Phase::Held), || false);
        assert!(w.servers.is_empty(), "B has no server");
        ask(&mut w, json!({"requests": {"retry": "1"}}));
        w.run(400, |w| w.status.attempts == 2 && made(w) == 1, || false);
        assert_eq!(w.status.disks[0].passes.last().map(|r| r.pass), Some(kept + 1), "{phase}");
        settle(&mut w, Phase::Succeeded);
        assert_eq!((w.source.status.as_str(), w.servers[0].status.as_str()), ("SHUTOFF", "ACTIVE"));
        assert!(w.status.disks.iter().all(|d| d.pass > kept + 1));
    }
}

#[test]
fn a_pass_that_cannot_be_made_ends_the_migration_within_bounds() {
    let table = [
        (Some(("backup-1", true)), None),
        (Some(("backup-1", false)), None),
        (None, Some("create-snapshot")),
        // What the destination cannot take is known before the source is stopped.
        (Some(("restore-1", true)), None),
        (None, Some("create-volume")),
        (None, Some("create-persistent-volume")),
    ];
    for (job, step) in table {
        let mut w = warm_by(true, true, "Now");
        (w.failing, w.broken) = (job, step);
        w.run(4000, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
        let failure = w.status.failure.clone().unwrap();
        assert!(failure.message.contains("3 passes failed"), "{failure:?}");
        untouched(&w);
        w.assert_nothing_left();
        assert!(w.snapshots.is_empty());
    }
}

#[test]
fn a_pass_that_fails_while_the_go_is_waited_for_is_told_and_the_next_one_comes() {
    let mut w = warm("Manual");
    w.run(400, |w| w.phase() == Some(Phase::AwaitingCutover), || false);
    let before = made(&w);
    w.failing = Some(("backup-0", false));
    w.now = w.now.checked_add(1000.seconds()).unwrap();
    w.run(100, |w| w.status.copying.as_ref().is_some_and(|c| c.failures == 1), || false);
    assert_eq!((w.phase(), made(&w)), (Some(Phase::AwaitingCutover), before));
    assert!(w.snapshots.is_empty() && w.volumes.is_empty() && w.images.is_empty());
    w.failing = None;
    w.now = w.now.checked_add(2000.seconds()).unwrap();
    w.run(100, |w| made(w) == before + 1, || false);
    ask(&mut w, json!({"cutover": {"mode": "Now"}}));
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn a_stopped_source_is_copied_as_a_cold_one() {
    let mut w = warm("Now");
    w.source.status = "SHUTOFF".into();
    settle(&mut w, Phase::Succeeded);
    assert!(w.status.copying.is_none() && w.status.disks.iter().all(|d| d.pass == 0));
}

#[test]
fn a_source_that_somebody_stops_gets_no_new_pass() {
    let mut w = warm("Manual");
    w.run(400, |w| w.phase() == Some(Phase::AwaitingCutover), || false);
    w.source.status = "SHUTOFF".into();
    let before = made(&w);
    w.now = w.now.checked_add(1000.seconds()).unwrap();
    (0..30).for_each(|_| w.pass(false));
    assert!(made(&w) == before && w.snapshots.is_empty());
    ask(&mut w, json!({"cutover": {"mode": "Now"}}));
    settle(&mut w, Phase::Succeeded);
}
