//! What somebody asks for in the middle.

use super::*;

#[test]
fn cancel_at_any_point_is_answered_once_and_ends_as_if_it_had_not_been_tried() {
    for passes in 1..60 {
        let mut w = World::new();
        for _ in 0..passes {
            w.pass(false);
        }
        let over = w.phase() == Some(Phase::Succeeded);
        w.spec.requests = Some(Requests { cancel: Some("one".into()), ..Default::default() });
        w.run(1000, World::clean, dice(passes, 4));
        let row = w.status.requests[0].clone();
        if over {
            assert_eq!((row.result, w.phase()), (RequestResult::Refused, Some(Phase::Succeeded)));
            assert_eq!(w.servers[0].status, "ACTIVE");
            return;
        }
        assert_eq!((row.result, w.phase()), (RequestResult::Done, Some(Phase::Cancelled)), "after {passes}");
        assert!(w.status.failure.as_ref().is_some_and(|f| f.cancelled));
        w.assert_given_back();
        match w.status.destination.as_ref().and_then(|x| x.active_at.as_ref()) {
            Some(_) => {
                assert_eq!(w.servers[0].status, "SHUTOFF", "a server that was ACTIVE is stopped and kept")
            }
            None => w.assert_nothing_left(),
        }
    }
    unreachable!("it never succeeded");
}

#[test]
fn a_token_that_was_there_first_does_nothing_and_a_new_one_does() {
    let mut w = World::new();
    w.spec.cutover = serde_json::from_value(json!({"mode": "Manual"})).unwrap();
    w.spec.requests = Some(Requests { cancel: Some("old".into()), ..Default::default() });
    w.run(50, |w| w.phase() == Some(Phase::AwaitingCutover), || false);
    assert_eq!(w.status.requests[0].result, RequestResult::Superseded);
    w.spec.requests = Some(Requests { cancel: Some("new".into()), ..Default::default() });
    w.run(200, World::clean, || false);
    assert_eq!((w.phase(), w.status.requests.len()), (Some(Phase::Cancelled), 1));
    assert_eq!(
        (w.status.requests[0].token.as_str(), w.status.requests[0].result),
        ("new", RequestResult::Done)
    );
}

#[test]
fn cancel_while_blocked_needs_no_cloud() {
    let mut w = World::new();
    w.source.status = "PAUSED".into();
    w.unreachable = true;
    (0..5).for_each(|_| w.pass(false));
    assert_eq!(w.phase(), Some(Phase::Blocked));
    w.spec.requests = Some(Requests { cancel: Some("x".into()), ..Default::default() });
    w.run(50, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Cancelled));
    w.assert_nothing_left();
}

#[test]
fn suspend_begins_nothing_and_then_it_goes_on() {
    for passes in (1..60).step_by(3) {
        let mut w = World::new();
        for _ in 0..passes {
            w.pass(false);
        }
        if w.status.finished_at.is_some() {
            return;
        }
        w.spec.suspend = Some(true);
        w.pass(false);
        let (phase, serial, jobs) = (w.phase(), w.serial, w.jobs.len());
        // Much longer than any bound.
        for _ in 0..2000 {
            w.pass(false);
        }
        assert_eq!((w.phase(), w.serial, w.jobs.len()), (phase, serial, jobs), "after {passes} passes");
        assert!(w.status.message.as_ref().is_some_and(|m| m.contains("Suspended")), "{:?}", w.status.message);
        w.spec.suspend = Some(false);
        w.run(500, World::clean, || false);
        assert_eq!(w.phase(), Some(Phase::Succeeded), "after {passes} passes: {:?}", w.status.failure);
    }
}

#[test]
fn suspend_does_not_hold_up_the_way_back() {
    let mut w = World::new();
    w.run(200, |w| w.phase() == Some(Phase::Transferring), || false);
    w.spec.suspend = Some(true);
    (0..5).for_each(|_| w.pass(false));
    w.spec.requests = Some(Requests { cancel: Some("x".into()), ..Default::default() });
    w.run(200, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Cancelled));
    w.assert_given_back();
}

#[test]
fn of_several_requests_the_first_in_order_wins() {
    let mut w = World::new();
    w.run(200, |w| w.phase() == Some(Phase::Transferring), || false);
    ask(&mut w, json!({"requests": {"retire": "1", "retry": "1", "rollback": "1", "cancel": "1"}}));
    w.pass(false);
    let results: Vec<_> = w.status.requests.iter().map(|r| (r.name, r.result)).collect();
    let late = RequestResult::Superseded;
    assert_eq!(
        results,
        [
            (RequestName::Cancel, RequestResult::Done),
            (RequestName::Rollback, late),
            (RequestName::Retry, late),
            (RequestName::Retire, late)
        ]
    );
    settle(&mut w, Phase::Cancelled);
    w.assert_given_back();
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_the_reason() {
    let table = [
        (Phase::Transferring, RequestName::Retry, "nothing has failed"),
        (Phase::Transferring, RequestName::Retire, "only after success"),
        (Phase::Succeeded, RequestName::Cancel, "rollback"),
        (Phase::Succeeded, RequestName::Retry, "nothing to try again"),
    ];
    for (phase, name, why) in table {
        let mut w = World::new();
        w.run(200, |w| w.phase() == Some(phase), || false);
        let verb = serde_json::to_value(name).unwrap();
        ask(&mut w, json!({"requests": {verb.as_str().unwrap(): "1"}}));
        w.pass(false);
        let row = answer(&w, name);
        assert_eq!(row.result, RequestResult::Refused, "{phase:?} {name:?}");
        assert!(row.message.contains(why), "{}", row.message);
        settle(&mut w, Phase::Succeeded);
    }
}

#[test]
fn rollback_before_success_ends_as_if_it_had_not_been_tried() {
    for passes in 1..60 {
        let mut w = World::new();
        (0..passes).for_each(|_| w.pass(false));
        if w.phase() == Some(Phase::Succeeded) {
            return;
        }
        ask(&mut w, json!({"requests": {"rollback": "1"}}));
        w.run(1000, |w| w.phase() == Some(Phase::RolledBack) && w.clean(), dice(passes, 4));
        w.assert_given_back();
        assert_eq!(answer(&w, RequestName::Rollback).result, RequestResult::Done);
    }
    unreachable!("it never succeeded");
}

#[test]
fn rollback_after_success_stops_and_keeps_b_and_starts_a() {
    for seed in 0..40 {
        let mut w = World::new();
        w.run(2000, |w| w.phase() == Some(Phase::Succeeded), dice(seed, 5));
        // Before, amid and after the clean-up.
        (0..seed % 20).for_each(|_| w.pass(false));
        ask(&mut w, json!({"requests": {"rollback": "back"}}));
        w.run(2000, |w| w.phase() == Some(Phase::RolledBack) && w.clean(), dice(seed + 1, 4));
        w.assert_given_back();
        assert_eq!(w.servers[0].status, "SHUTOFF");
        assert_eq!((w.made.len(), w.ports.len()), (2, 1), "B's disks are kept");
        assert!(!w.vault && !w.repository && w.jobs.is_empty());
        let message = w.status.message.clone().unwrap();
        for part in ["stays behind in server", "runs in A as before and passed its checks", "delete it"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(w.told.as_ref().is_some_and(|t| t.rolled_back_at.is_some() && !t.source_checks.is_empty()));
        // A copy that has run is in the way of a new try.
        ask(&mut w, json!({"requests": {"retry": "1"}}));
        w.pass(false);
        assert_eq!(answer(&w, RequestName::Retry).result, RequestResult::Refused);
    }
}

#[test]
fn rollback_after_success_is_refused_when_a_is_not_ours_and_b_is_left_alone() {
    for gone in [true, false] {
        let mut w = World::new();
        settle(&mut w, Phase::Succeeded);
        w.source_gone = gone;
        w.source.metadata.insert(MARK_CLAIM.into(), "another".into());
        ask(&mut w, json!({"requests": {"rollback": "back"}}));
        (0..5).for_each(|_| w.pass(false));
        settle(&mut w, Phase::Succeeded);
        let row = answer(&w, RequestName::Rollback);
        assert_eq!(row.result, RequestResult::Refused, "{row:?}");
        assert_eq!((w.servers[0].status.as_str(), w.source.status.as_str()), ("ACTIVE", "SHUTOFF"));
    }
}

#[test]
fn deletion_amid_a_rollback_finishes_it() {
    for passes in 1..12 {
        let mut w = World::new();
        settle(&mut w, Phase::Succeeded);
        ask(&mut w, json!({"requests": {"rollback": "back"}}));
        w.run(20, |w| w.phase() == Some(Phase::RollingBack), || false);
        (0..passes).for_each(|_| w.pass(false));
        w.deleting = true;
        w.run(600, |w| w.released, dice(passes, 4));
        w.assert_given_back();
        assert_eq!(w.servers[0].status, "SHUTOFF");
    }
}

#[test]
fn what_was_given_back_is_not_touched_by_the_deletion() {
    let mut w = World::new();
    settle(&mut w, Phase::Succeeded);
    ask(&mut w, json!({"requests": {"rollback": "back"}}));
    settle(&mut w, Phase::RolledBack);
    // Somebody looks for the writes that were left behind.
    w.humans = true;
    w.source.status = "SHUTOFF".into();
    w.servers[0].status = "ACTIVE".into();
    w.deleting = true;
    w.run(200, |w| w.released, || false);
    assert_eq!((w.source.status.as_str(), w.servers[0].status.as_str()), ("SHUTOFF", "ACTIVE"));
}
