//! What a person or a platform may mend is waited for: quotas, policies, keys that were rotated, disks that are large.

use super::{
    Step,
    tests::{World, ask, me, settle},
};
use crate::{
    crd::{conditions, v1alpha1::*},
    migration::{names::Side, observed::JobState},
};
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

fn condition(w: &World, kind: &str) -> Option<bool> {
    let mut status = w.status.clone();
    crate::migration::present::present(&mut status, Some(1), w.now);
    conditions::status(&status.conditions, kind)
}

/// A step is refused from the time that it is first wanted; so many seconds of looks later.
fn refused(step: &'static str, seconds: usize) -> World {
    let mut w = World::new();
    (w.broken, w.may_pass) = (Some(step), true);
    w.run(400, |w| w.status.trouble.as_ref().is_some_and(|t| t.what == step), || false);
    (0..seconds / 2).for_each(|_| w.pass(false));
    w
}

#[test]
fn what_is_refused_after_the_claim_is_borne_for_the_bound() {
    for step in ["create-volume", "create-port", "create-server"] {
        let mut w = refused(step, 500);
        assert!(w.status.failure.is_none(), "{step}: {:?}", w.status.failure);
        w.broken = None;
        settle(&mut w, Phase::Succeeded);
        let mut w = refused(step, 700);
        w.run(1000, |w| w.phase() == Some(Phase::Failed), || false);
        w.assert_given_back();
    }
}

/// All checks have passed, and the report is refused: by a quota, by admission. Tried with the release before: the
/// server in B, which served, was stopped, and A started.
#[test]
fn a_server_that_is_proven_is_not_rolled_back_for_a_refusal() {
    for may_pass in [true, false] {
        let mut w = World::new();
        (w.broken, w.may_pass) = (Some(Step::CreateReport.name()), may_pass);
        w.run(400, |w| w.status.trouble.is_some(), || false);
        assert_eq!((w.phase(), condition(&w, "Stalled")), (Some(Phase::Verifying), Some(false)));
        (0..400).for_each(|_| w.pass(false));
        assert_eq!((w.phase(), w.status.failure.clone()), (Some(Phase::Verifying), None));
        assert_eq!((w.source.status.as_str(), w.servers[0].status.as_str()), ("SHUTOFF", "ACTIVE"));
        let message = w.status.message.clone().unwrap_or_default();
        assert!(message.starts_with("Stalled: ") && message.contains("\"rollback\""), "{message}");
        assert_eq!((condition(&w, "Stalled"), condition(&w, "Succeeded")), (Some(true), None));

        ask(&mut w, json!({"requests": {"retry": "1"}}));
        w.pass(false);
        assert_eq!(w.status.requests[0].result, RequestResult::Done);
        assert_eq!(
            (w.phase(), condition(&w, "Stalled")),
            (Some(Phase::Verifying), Some(false)),
            "its time begins anew"
        );
        w.broken = None;
        settle(&mut w, Phase::Succeeded);
    }
}

#[test]
fn a_server_that_is_stalled_is_given_back_by_request() {
    let mut w = World::new();
    (w.broken, w.may_pass) = (Some(Step::CreateReport.name()), true);
    w.run(400, |w| w.status.trouble.is_some(), || false);
    (0..400).for_each(|_| w.pass(false));
    ask(&mut w, json!({"requests": {"rollback": "1"}}));
    w.run(400, |w| w.phase() == Some(Phase::RolledBack), || false);
    w.assert_given_back();
}

/// The bound of a wait grows by half a minute for each GiB.
#[test]
fn a_large_disk_may_take_its_time() {
    for (size, seconds, fails) in
        [(1, 3600 + 60, true), (1, 3500, false), (1000, 3600 + 29_000, false), (1000, 34_000, true)]
    {
        let mut w = World::new();
        w.own.iter_mut().for_each(|v| v.size = size);
        w.run(200, |w| !w.volumes.is_empty(), || false);
        w.stuck = true;
        w.pass(false);
        w.now = w.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        w.pass(false);
        assert_eq!(w.status.failure.is_some(), fails, "{size} GiB for {seconds} s: {:?}", w.status.message);
    }
}

#[test]
fn keys_that_are_refused_end_an_attempt() {
    for reason in ["StoreUnauthorized", "CloudUnauthorized"] {
        let mut w = World::new();
        (w.failing, w.failing_for) = (Some(("backup-0", false)), reason);
        let tries = |w: &World| w.status.jobs.iter().find(|j| j.name == "backup-0").map_or(0, |j| j.attempt);
        w.run(300, |w| tries(w) == 2, || false);
        let refused_at = w.now;
        w.failing = None;
        // The next attempt waits for other keys, but not for ever.
        let second = |w: &World| w.jobs.contains_key(&me().job("backup-0", 2));
        w.run(60, second, || false);
        assert!(w.now.duration_since(refused_at).as_secs() >= 25, "{reason}");
        settle(&mut w, Phase::Succeeded);
    }
}

#[test]
fn other_keys_are_handed_on_before_the_next_job_and_to_those_that_run() {
    let mut w = World::new();
    (w.failing, w.failing_for) = (Some(("backup-0", false)), "StoreUnauthorized");
    w.run(300, |w| w.status.jobs.iter().any(|j| j.name == "backup-0" && j.attempt == 2), || false);
    (w.failing, w.stale) = (None, true);
    let before = w.now;
    w.run(60, |w| w.jobs.contains_key(&me().job("backup-0", 2)), || false);
    assert!(!w.stale, "a Job was made with keys that are refused");
    assert!(w.now.duration_since(before).as_secs() < 20, "it need not wait any more");
    settle(&mut w, Phase::Succeeded);

    let mut w = World::new();
    w.slow = 100;
    let runs = |w: &World| {
        let job = me().job("backup-0", 1);
        w.jobs.get(&job).is_some_and(|(side, j)| *side == Side::Source && j.state == JobState::Active)
    };
    w.run(300, runs, || false);
    w.stale = true;
    // While only Jobs copy the clouds are looked at once a minute.
    (0..40).for_each(|_| w.pass(false));
    assert!(!w.stale && runs(&w));
}
