//! The way back: what sticks is told, `requests.startSource` opens it, lost nodes are named, an owner's lock survives.

use super::{
    Side,
    tests::{World, answer, ask, settle},
};
use crate::{
    crd::{conditions, v1alpha1::*},
    migration::{observed::JobState, present::present},
};
use serde_json::json;

fn stalled(w: &mut World) -> (Option<bool>, String) {
    present(&mut w.status, Some(1), w.now);
    let c = w.status.conditions.iter().find(|c| c.type_ == conditions::kind::STALLED).unwrap();
    (conditions::status(&w.status.conditions, conditions::kind::STALLED), c.reason.clone())
}

fn until(phase: Phase) -> World {
    let mut w = World::new();
    w.run(400, |w| w.phase() == Some(phase), || false);
    w
}

/// B runs, the way back was asked for, and B's cloud does not answer any more.
fn stuck(after_success: bool) -> World {
    let mut w = until(Phase::Verifying);
    if after_success {
        settle(&mut w, Phase::Succeeded);
    }
    w.unreachable = true;
    ask(&mut w, json!({"requests": {"rollback": "1"}}));
    (0..320).for_each(|_| w.pass(false));
    assert_eq!((w.phase(), w.source.status.as_str()), (Some(Phase::RollingBack), "SHUTOFF"));
    w
}

#[test]
fn a_way_back_that_waits_for_the_destination_is_stalled() {
    let mut w = stuck(false);
    assert_eq!(stalled(&mut w), (Some(true), "DestinationUnreachable".into()));
    w.unreachable = false;
    settle(&mut w, Phase::RolledBack);
    w.assert_given_back();
}

#[test]
fn a_source_that_does_not_start_is_stalled() {
    let mut w = until(Phase::Transferring);
    ask(&mut w, json!({"requests": {"cancel": "1"}}));
    w.broken = Some("start-source");
    (0..300).for_each(|_| w.pass(false));
    assert_eq!(stalled(&mut w).0, Some(false));
    (0..20).for_each(|_| w.pass(false));
    assert_eq!(stalled(&mut w), (Some(true), "Stuck".into()), "{:?}", w.status.message);
    assert!(w.status.timeline.iter().any(|r| r.message.contains("the way back is stuck")));
    w.broken = None;
    settle(&mut w, Phase::Cancelled);
    w.assert_given_back();
}

#[test]
fn whoever_types_the_servers_id_starts_the_source_without_the_destination() {
    for after_success in [false, true] {
        let mut w = stuck(after_success);
        ask(&mut w, json!({"requests": {"rollback": "1", "startSource": "web-1"}}));
        w.pass(false);
        let row = answer(&w, RequestName::StartSource);
        assert_eq!(row.result, RequestResult::Refused, "a name is no id: {row:?}");
        ask(&mut w, json!({"requests": {"rollback": "1", "startSource": "src"}}));
        w.run(50, |w| w.phase() == Some(Phase::RolledBack), || false);
        assert_eq!(answer(&w, RequestName::StartSource).result, RequestResult::Done);
        w.assert_given_back();
        if after_success {
            let told = w.told.clone().unwrap();
            assert!(told.start_anyway_at.is_some(), "it is in the report before the source is started");
        }
        // B's cloud was not gone after all: the exception ends.
        w.unreachable = false;
        w.humans = true;
        settle(&mut w, Phase::RolledBack);
        assert_eq!(w.servers[0].status, "SHUTOFF");
        assert_eq!(w.source.status, "ACTIVE");
        assert!(!after_success || w.told.as_ref().is_some_and(|t| t.cleaned_up_at.is_some()));
    }
}

#[test]
fn a_destination_that_is_seen_is_stopped_first_whatever_is_asked_for() {
    // The model refuses to start A while B runs.
    let mut w = until(Phase::Verifying);
    ask(&mut w, json!({"requests": {"startSource": "src"}}));
    settle(&mut w, Phase::RolledBack);
    assert_eq!(w.servers[0].status, "SHUTOFF");
    w.assert_given_back();
    for phase in [Phase::AwaitingCutover, Phase::RolledBack] {
        let mut w = World::new();
        ask(&mut w, json!({"cutover": {"mode": "Manual"}}));
        w.run(200, |w| w.phase() == Some(Phase::AwaitingCutover), || false);
        if phase == Phase::RolledBack {
            ask(&mut w, json!({"requests": {"rollback": "1"}}));
            settle(&mut w, phase);
        }
        ask(&mut w, json!({"requests": {"startSource": "src"}}));
        w.pass(false);
        assert_eq!(answer(&w, RequestName::StartSource).result, RequestResult::Refused, "{phase}");
    }
}

/// The node of this Job's pod is lost.
fn lose(w: &mut World, job: &str) {
    let found = w.jobs.iter_mut().find(|(name, _)| name.contains(job));
    let (_, (_, job)) = found.unwrap();
    assert_eq!(job.state, JobState::Active);
    job.lost = Some("pod p on node worker-3 should have ended".into());
}

#[test]
fn a_lost_node_is_named_and_only_what_has_a_place_of_its_own_begins_anew() {
    for (volume, job) in
        [(false, "-backup-0-1"), (false, "-restore-0-1"), (true, "-backup-0-1"), (true, "-restore-0-1")]
    {
        let mut w = World::new();
        if volume {
            w.modes = super::SIDES.map(|side: Side| (side, TransferMode::Volume)).into();
        }
        w.slow = 30;
        w.run(300, |w| w.jobs.keys().any(|n| n.contains(job)), || false);
        lose(&mut w, job);
        w.run(
            60,
            |w| {
                w.status.timeline.iter().any(|r| r.message.contains("worker-3"))
                    || w.status.trouble.as_ref().is_some_and(|t| t.message.contains("worker-3"))
            },
            || false,
        );
        let next = job.replace("-0-1", "-0-2");
        (0..5).for_each(|_| w.pass(false));
        assert_eq!(w.jobs.keys().any(|n| n.contains(&next)), !volume, "{volume} {job}: {:?}", w.jobs.keys());
        // The node is gone, and its pods with it.
        w.jobs.values_mut().for_each(|(_, j)| j.lost = None);
        settle(&mut w, Phase::Succeeded);
    }
}

#[test]
fn an_owners_lock_survives_what_comes_in_the_way_after_it_was_opened() {
    let opened = || {
        let mut w = World::new();
        w.source.locked = true;
        w.run(200, |w| !w.source.locked, || false);
        assert!(w.source.metadata.is_empty(), "not claimed yet");
        w
    };
    // Cancelled, deleted, or blocked before the claim.
    let mut w = opened();
    ask(&mut w, json!({"requests": {"cancel": "1"}}));
    settle(&mut w, Phase::Cancelled);
    assert!(w.source.locked && w.source.status == "ACTIVE");

    let mut w = opened();
    w.deleting = true;
    w.run(200, |w| w.released, || false);
    assert!(w.source.locked && w.source.status == "ACTIVE");

    let mut w = opened();
    w.source.status = "PAUSED".into();
    w.run(60, |w| w.phase() == Some(Phase::Blocked) && w.source.locked, || false);
    w.source.status = "ACTIVE".into();
    w.run(400, |w| w.phase() == Some(Phase::Transferring), || false);
    assert!(w.status.source.as_ref().unwrap().was_locked);
    ask(&mut w, json!({"requests": {"cancel": "1"}}));
    settle(&mut w, Phase::Cancelled);
    assert!(w.source.locked && w.source.status == "ACTIVE" && w.source.metadata.is_empty());
}

#[test]
fn a_lock_that_came_between_two_looks_survives_a_crash() {
    let mut w = World::new();
    ask(&mut w, json!({"cutover": {"mode": "Manual"}}));
    w.run(200, |w| w.phase() == Some(Phase::AwaitingCutover), || false);
    w.source.locked = true;
    ask(&mut w, json!({"cutover": {"mode": "Now"}}));
    // Killed in the very pass that opens it, each time.
    for _ in 0..200 {
        let before = w.status.clone();
        let was = w.source.locked;
        w.pass(false);
        if was && !w.source.locked {
            w.status = before;
            break;
        }
    }
    w.run(400, |w| w.phase() == Some(Phase::Transferring), || false);
    ask(&mut w, json!({"cutover": {"mode": "Now"}, "requests": {"cancel": "1"}}));
    settle(&mut w, Phase::Cancelled);
    assert!(w.source.locked, "the owner's lock is lost");
}
