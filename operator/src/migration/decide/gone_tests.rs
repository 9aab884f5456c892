//! Absence is proven or waited for: whatever a look at a cloud does not show, nothing is stranded, doubled or given up.

use super::{
    gone::{AGAIN_SECONDS, EMPTY_SECONDS},
    tests::{HALF, Mirage, World, ask, settle},
};
use crate::{cloud::Proof, crd::v1alpha1::*};
use k8s_openapi::jiff::ToSpan;
use serde_json::json;

/// Proofs that one look can give.
const PROOFS: [Proof; 3] = [Proof::Deleted, Proof::NotListed { others: 3 }, Proof::NotListed { others: 0 }];

/// The model's time goes on by two seconds with each pass.
fn pass_for(w: &mut World, seconds: i64) {
    (0..seconds / 2).for_each(|_| w.pass(false));
}

/// A migration at the beginning of a phase, after the claim.
fn at(phase: Phase) -> World {
    let mut w = World::new();
    let claimed = |w: &World| w.status.source.as_ref().is_some_and(|s| s.claimed_at.is_some());
    w.run(400, |w| w.phase() == Some(phase) && claimed(w), || false);
    w
}

const AFTER_THE_CLAIM: [Phase; 4] = [Phase::Stopping, Phase::Transferring, Phase::Creating, Phase::Verifying];

#[test]
fn what_one_look_at_the_source_does_not_show_ends_nothing() {
    let mirages = PROOFS.map(Mirage::Gone).into_iter().chain([Mirage::Half]);
    for mirage in mirages {
        for phase in AFTER_THE_CLAIM {
            let mut w = at(phase);
            w.mirage_in_a = Some(mirage);
            pass_for(&mut w, AGAIN_SECONDS - 2);
            assert!(w.status.failure.is_none(), "{phase}: {:?}", w.status.failure);
            w.mirage_in_a = None;
            settle(&mut w, Phase::Succeeded);
        }
    }
}

#[test]
fn a_source_that_is_proven_to_be_gone_ends_it() {
    for (proof, seconds) in
        [(PROOFS[0], AGAIN_SECONDS), (PROOFS[1], AGAIN_SECONDS), (PROOFS[2], EMPTY_SECONDS)]
    {
        let mut w = at(Phase::Transferring);
        w.mirage_in_a = Some(Mirage::Gone(proof));
        pass_for(&mut w, seconds - 4);
        assert!(w.status.failure.is_none(), "{proof:?}");
        let told = w.status.message.clone().unwrap_or_default();
        assert!(told.contains("looking again before that is believed"), "{told}");
        w.run(200, |w| w.phase() == Some(Phase::Failed), || false);
        assert!(
            w.status.message.as_ref().is_some_and(|m| m.contains("is gone from A")),
            "{:?}",
            w.status.message
        );
    }
}

#[test]
fn a_source_that_is_seen_with_our_claim_is_given_back_even_after_the_end() {
    for deleted in [false, true] {
        let mut w = at(Phase::Transferring);
        w.mirage_in_a = Some(Mirage::Gone(Proof::Deleted));
        w.run(200, |w| w.phase() == Some(Phase::Failed), || false);
        if deleted {
            w.run(200, World::clean, || false);
        }
        assert_eq!((w.source.status.as_str(), w.source.locked), ("SHUTOFF", true));
        w.mirage_in_a = None;
        w.deleting = deleted;
        w.run(
            400,
            |w| if deleted { w.released } else { w.phase() == Some(Phase::Failed) && w.clean() },
            || false,
        );
        w.assert_given_back();
        w.assert_nothing_left();
    }
}

/// Asleep until the operator looks again.
fn sleep(w: &mut World) {
    let pause = w.recheck.expect("it is not looked for any more");
    w.now = w.now.checked_add(k8s_openapi::jiff::SignedDuration::try_from(pause).unwrap()).unwrap();
    w.pass(false);
}

/// All that was made is gone, and nothing is due any more.
fn ended_without_its_source() -> World {
    let mut w = at(Phase::Transferring);
    w.mirage_in_a = Some(Mirage::Gone(Proof::Deleted));
    settle(&mut w, Phase::Failed);
    w.pass(false);
    w
}

#[test]
fn a_source_that_comes_back_when_all_is_over_is_given_back() {
    // As a cloud does that restores a server which somebody had deleted.
    let mut w = ended_without_its_source();
    let told = w.status.message.clone().unwrap_or_default();
    assert!(told.contains("is gone from A; if it comes back until"), "{told}");
    let (since, before) = (w.now, w.cloud_looks);
    while w.now.duration_since(since).as_hours() < 72 {
        let quiet = w.status.clone();
        sleep(&mut w);
        assert_eq!(w.status, quiet, "a look to no effect writes nothing");
    }
    let looks = w.cloud_looks - before;
    assert!((72..100).contains(&looks), "{looks} looks in three days");
    w.mirage_in_a = None;
    sleep(&mut w);
    assert_eq!(w.phase(), Some(Phase::RollingBack));
    settle(&mut w, Phase::Failed);
    w.assert_given_back();
    w.assert_nothing_left();
    w.pass(false);
    assert_eq!(w.recheck, None, "released: nobody looks any more");
}

#[test]
fn what_does_not_come_back_is_looked_for_for_a_week() {
    let mut w = ended_without_its_source();
    let since = w.now;
    while w.recheck.is_some() {
        sleep(&mut w);
    }
    let hours = w.now.duration_since(since).as_hours();
    assert!((167..171).contains(&hours), "{hours} h");
    // One that was not asleep, since it ended otherwise, never looks.
    let mut w = at(Phase::Transferring);
    ask(&mut w, json!({"requests": {"cancel": "1"}}));
    settle(&mut w, Phase::Cancelled);
    w.pass(false);
    assert_eq!(w.recheck, None);
}

#[test]
fn the_way_back_waits_for_a_source_that_is_not_seen() {
    for mirage in [Mirage::Half, Mirage::Gone(PROOFS[2])] {
        let mut w = at(Phase::Transferring);
        ask(&mut w, json!({"requests": {"cancel": "1"}}));
        w.mirage_in_a = Some(mirage);
        pass_for(&mut w, EMPTY_SECONDS - 4);
        assert_eq!(w.phase(), Some(Phase::RollingBack), "{:?}", w.status.message);
        w.mirage_in_a = None;
        settle(&mut w, Phase::Cancelled);
        w.assert_given_back();
    }
}

#[test]
fn a_destination_that_is_not_seen_may_be_running() {
    // The model refuses to start A while B runs.
    let mirages = PROOFS.map(|p| (Mirage::Gone(p), AGAIN_SECONDS)).into_iter().chain([(Mirage::Half, 300)]);
    for (mirage, seconds) in mirages {
        let mut w = at(Phase::Verifying);
        w.checked = json!(null);
        w.mirage_in_b = Some(mirage);
        pass_for(&mut w, seconds - 4);
        assert_eq!(w.phase(), Some(Phase::Verifying), "{:?}", w.status.message);
        (w.mirage_in_b, w.checked) = (None, World::new().checked);
        settle(&mut w, Phase::Succeeded);

        let mut w = at(Phase::Verifying);
        ask(&mut w, json!({"requests": {"cancel": "1"}}));
        w.mirage_in_b = Some(mirage);
        pass_for(&mut w, seconds - 4);
        assert_eq!((w.phase(), w.source.status.as_str()), (Some(Phase::RollingBack), "SHUTOFF"));
        w.mirage_in_b = None;
        settle(&mut w, Phase::Cancelled);
        assert_eq!(w.servers[0].status, "SHUTOFF");
        w.assert_given_back();
    }
}

#[test]
fn a_server_whose_answer_was_lost_is_not_asked_for_again_until_none_is_proven() {
    // The model refuses to make a second one.
    for (mirage, seconds) in [(Mirage::Half, 300), (Mirage::Gone(PROOFS[2]), EMPTY_SECONDS)] {
        let mut w = World::new();
        let asked =
            |w: &World| w.status.destination.as_ref().is_some_and(|x| x.server_requested_at.is_some());
        w.run(400, asked, || false);
        w.pass(true);
        assert!(w.servers.len() == 1 && w.status.destination.as_ref().unwrap().server_id.is_none());
        w.now = w.now.checked_add(20.seconds()).unwrap();
        w.mirage_in_b = Some(mirage);
        pass_for(&mut w, seconds - 4);
        w.mirage_in_b = None;
        settle(&mut w, Phase::Succeeded);
    }
    // One that was really not made is asked for again.
    let mut w = World::new();
    w.others = 0;
    w.lost = Some("create-server");
    w.run(400, |w| w.status.trouble.as_ref().is_some_and(|t| t.what == "create-server"), || false);
    w.lost = None;
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn nothing_is_retired_or_refused_for_what_is_not_seen() {
    for mirage in [Mirage::Half, Mirage::Gone(PROOFS[1])] {
        let mut w = World::new();
        settle(&mut w, Phase::Succeeded);
        ask(&mut w, json!({"requests": {"retire": "1"}}));
        w.mirage_in_a = Some(mirage);
        w.mirage_in_b = Some(mirage);
        pass_for(&mut w, AGAIN_SECONDS - 2);
        assert!(!w.source_gone && w.own.len() == 2 && w.phase() == Some(Phase::Retiring));
        (w.mirage_in_a, w.mirage_in_b) = (None, None);
        settle(&mut w, Phase::Retired);
    }
    for mirage in [Mirage::Half, Mirage::Gone(PROOFS[1])] {
        let mut w = World::new();
        settle(&mut w, Phase::Succeeded);
        ask(&mut w, json!({"requests": {"rollback": "1"}}));
        w.mirage_in_a = Some(mirage);
        pass_for(&mut w, AGAIN_SECONDS - 2);
        assert_eq!((w.phase(), w.servers[0].status.as_str()), (Some(Phase::Succeeded), "ACTIVE"));
        w.mirage_in_a = None;
        settle(&mut w, Phase::RolledBack);
    }
}

#[test]
fn what_stays_unseen_on_the_way_back_is_stalled_and_goes_on_when_it_is_seen() {
    let stalled = |w: &mut World| {
        crate::migration::present::present(&mut w.status, Some(1), w.now);
        crate::crd::conditions::status(&w.status.conditions, crate::crd::conditions::kind::STALLED)
    };
    let mut w = at(Phase::Transferring);
    ask(&mut w, json!({"requests": {"cancel": "1"}}));
    w.mirage_in_a = Some(Mirage::Half);
    pass_for(&mut w, 590);
    assert_eq!(stalled(&mut w), Some(false), "not yet");
    pass_for(&mut w, 60);
    assert_eq!(stalled(&mut w), Some(true), "{:?}", w.status.message);
    assert!(w.status.message.as_ref().is_some_and(|m| m.contains(HALF)), "{:?}", w.status.message);
    w.mirage_in_a = None;
    settle(&mut w, Phase::Cancelled);
    w.assert_given_back();
    assert_eq!(w.status.way_back, None);
}
