//! The source is deleted after success, and only then.

use super::*;

#[test]
fn retirement_deletes_the_server_and_then_its_volumes() {
    for seed in 0..40 {
        let mut w = World::new();
        w.run(2000, |w| w.phase() == Some(Phase::Succeeded), dice(seed, 5));
        (0..seed % 20).for_each(|_| w.pass(false));
        ask(&mut w, json!({"requests": {"retire": "now"}}));
        w.run(2000, |w| w.phase() == Some(Phase::Retired) && w.clean(), dice(seed + 1, 4));
        assert!(w.source_gone && w.own.is_empty() && w.snapshots.is_empty());
        assert_eq!(w.servers[0].status, "ACTIVE");
        assert_eq!((w.made.len(), w.ports.len()), (2, 1));
        assert!(!w.vault && w.jobs.is_empty() && w.status.retained.is_empty(), "{:?}", w.status.retained);
        assert!(w.told.as_ref().is_some_and(|t| t.retired_at.is_some()));
        ask(&mut w, json!({"requests": {"retire": "again", "rollback": "back"}}));
        (0..5).for_each(|_| w.pass(false));
        for name in [RequestName::Retire, RequestName::Rollback] {
            assert_eq!(answer(&w, name).result, RequestResult::Refused);
        }
    }
}

#[test]
fn retirement_is_refused_while_anything_is_not_as_it_was() {
    type Change = fn(&mut World);
    let table: [(&str, Change); 6] = [
        ("claimed by another", |w| drop(w.source.metadata.insert(MARK_CLAIM.into(), "x".into()))),
        ("does not carry", |w| drop(w.source.metadata.remove(MARK_CLAIM))),
        ("not ACTIVE", |w| w.servers[0].status = "SHUTOFF".into()),
        ("is not in site-b any more", |w| w.servers.clear()),
        ("somebody has started it", |w| (w.humans, w.source.status) = (true, "ACTIVE".into())),
        ("cannot be seen", |w| w.source_gone = true),
    ];
    for (why, change) in table {
        let mut w = World::new();
        settle(&mut w, Phase::Succeeded);
        change(&mut w);
        ask(&mut w, json!({"requests": {"retire": "now"}}));
        w.run(50, |w| answer(w, RequestName::Retire).result == RequestResult::Refused, || false);
        settle(&mut w, Phase::Succeeded);
        let row = answer(&w, RequestName::Retire);
        assert!(row.message.contains(why), "{why}: {}", row.message);
        assert!(
            w.status.message.as_ref().is_some_and(|m| m.contains("not retired")),
            "{:?}",
            w.status.message
        );
        assert_eq!(w.own.len(), 2);
    }
}

#[test]
fn source_policy_retires_after_its_time_and_only_then() {
    let mut w = World::new();
    settle(&mut w, Phase::Succeeded);
    ask(&mut w, json!({"sourcePolicy": {"action": "Delete", "after": "1h"}}));
    w.pass(false);
    assert!(w.recheck.is_some_and(|r| r <= Duration::from_secs(3600)), "it wakes by itself");
    assert!(w.status.message.as_ref().is_some_and(|m| m.contains(" until ")), "{:?}", w.status.message);
    // Another mind before the time.
    ask(&mut w, json!({"sourcePolicy": {"action": "Keep"}}));
    w.now = w.now.checked_add(7200.seconds()).unwrap();
    (0..10).for_each(|_| w.pass(false));
    assert!(!w.source_gone);
    ask(&mut w, json!({"sourcePolicy": {"action": "Delete", "after": "2h"}}));
    settle(&mut w, Phase::Retired);
    assert!(w.source_gone && w.own.is_empty());
}

#[test]
fn a_rollback_wins_until_the_source_is_being_deleted() {
    for passes in 0..12 {
        let mut w = World::new();
        settle(&mut w, Phase::Succeeded);
        ask(&mut w, json!({"requests": {"retire": "now"}}));
        (0..passes).for_each(|_| w.pass(false));
        ask(&mut w, json!({"requests": {"retire": "now", "rollback": "back"}}));
        w.pass(false);
        let late = w.status.retirement.as_ref().is_some_and(|r| r.deletion_requested_at.is_some());
        if late {
            assert_eq!(answer(&w, RequestName::Rollback).result, RequestResult::Refused);
            settle(&mut w, Phase::Retired);
        } else {
            settle(&mut w, Phase::RolledBack);
            w.assert_given_back();
        }
    }
}

#[test]
fn deletion_amid_retirement_deletes_nothing_more_of_the_source() {
    let mut w = World::new();
    settle(&mut w, Phase::Succeeded);
    ask(&mut w, json!({"requests": {"retire": "now"}}));
    w.run(50, |w| w.phase() == Some(Phase::Retiring), || false);
    w.deleting = true;
    w.run(200, |w| w.released, || false);
    assert!(!w.source_gone && w.own.len() == 2 && !w.vault);
    assert_eq!(w.servers[0].status, "ACTIVE");
}
