//! The lock that a person has set on the source survives every path: it is there again when the migration has let go.

use super::tests::{World, answer, ask, settle};
use crate::crd::v1alpha1::*;
use serde_json::json;

/// A person does this to the source, as its history tells.
fn person(w: &mut World, action: &str) {
    match action {
        "lock" => w.source.locked = true,
        "unlock" => w.source.locked = false,
        "start" => w.source.status = "ACTIVE".into(),
        _ => {}
    }
    w.act(action);
}

/// One whose source its owner has locked, in the middle of a phase.
fn locked_at(phase: Phase) -> World {
    let mut w = World::new();
    w.source.locked = true;
    let claimed = |w: &World| w.status.source.as_ref().is_some_and(|s| s.claimed_at.is_some());
    w.run(400, |w| w.phase() == Some(phase) && claimed(w), || false);
    w
}

/// The ways in which a migration lets go before success.
const ENDS: [&str; 3] = ["cancel", "rollback", "delete"];

/// Until it has let go.
fn end(w: &mut World, how: &str) {
    if how == "delete" {
        w.deleting = true;
        w.run(600, |w| w.released, || false);
        return;
    }
    ask(w, json!({"requests": {how: how}}));
    settle(w, if how == "cancel" { Phase::Cancelled } else { Phase::RolledBack });
}

/// Nothing of ours is on the source, and it is locked.
fn assert_locked_as_before(w: &World, what: &str) {
    assert!(w.source.metadata.is_empty(), "{what}: {:?}", w.source.metadata);
    assert!(w.source.locked, "{what}: the owner's lock is lost");
    assert_eq!(w.source.status, "ACTIVE", "{what}");
}

/// Somebody opens our lock and starts the source.
fn take_back(w: &mut World) {
    w.humans = true;
    person(w, "unlock");
    person(w, "start");
    w.run(60, |w| w.phase() == Some(Phase::Held), || false);
}

const AFTER_THE_CLAIM: [Phase; 4] = [Phase::Stopping, Phase::Transferring, Phase::Creating, Phase::Verifying];

#[test]
fn in_every_phase_and_at_every_end() {
    for phase in AFTER_THE_CLAIM {
        for how in ENDS {
            let mut w = locked_at(phase);
            end(&mut w, how);
            assert_locked_as_before(&w, &format!("{how} in {phase}"));
        }
    }
    let mut w = locked_at(Phase::Verifying);
    settle(&mut w, Phase::Succeeded);
    end(&mut w, "rollback");
    assert_locked_as_before(&w, "rollback after success");
}

#[test]
fn of_a_source_that_was_taken_back() {
    for phase in [Phase::Transferring, Phase::Creating, Phase::Verifying] {
        for how in ENDS {
            let mut w = locked_at(phase);
            take_back(&mut w);
            (0..20).for_each(|_| w.pass(false));
            assert!(!w.source.locked, "{phase}: as somebody wants it, for as long as it is Held");
            end(&mut w, how);
            assert_locked_as_before(&w, &format!("{how} from Held in {phase}"));
        }
    }
}

#[test]
fn that_is_set_on_a_source_that_was_taken_back() {
    for phase in [Phase::Transferring, Phase::Creating] {
        for how in ENDS {
            let mut w = World::new();
            w.run(400, |w| w.phase() == Some(phase), || false);
            take_back(&mut w);
            person(&mut w, "lock");
            (0..20).for_each(|_| w.pass(false));
            assert!(w.source.locked, "nothing is undone in Held");
            end(&mut w, how);
            assert_locked_as_before(&w, &format!("{how} from Held in {phase}"));
        }
    }
}

/// Started after our stop and before our lock: nobody but us has opened the owner's.
#[test]
fn that_only_we_have_opened_is_put_back_in_held_once() {
    let mut w = World::new();
    w.source.locked = true;
    w.humans = true;
    w.run(400, |w| w.status.source.as_ref().is_some_and(|s| s.stopped_at.is_some()), || false);
    assert!(!w.source.locked);
    person(&mut w, "start");
    w.run(10, |w| w.phase() == Some(Phase::Held), || false);
    w.run(10, |w| w.source.locked, || false);
    w.pass(false);
    person(&mut w, "unlock");
    (0..20).for_each(|_| w.pass(false));
    assert!(!w.source.locked, "who opens it then wants it so");
    end(&mut w, "cancel");
    assert_locked_as_before(&w, "started between our stop and our lock");
}

/// A locked server refuses the stop: that must not hold the way back up, and the lock is theirs.
#[test]
fn that_is_set_between_our_claim_and_our_stop() {
    for how in ENDS {
        let mut w = World::new();
        w.run(400, |w| w.status.source.as_ref().is_some_and(|s| s.claimed_at.is_some()), || false);
        person(&mut w, "lock");
        (0..10).for_each(|_| w.pass(false));
        end(&mut w, how);
        assert_locked_as_before(&w, how);
    }
}

#[test]
fn of_a_new_try_from_held() {
    let mut w = locked_at(Phase::Transferring);
    take_back(&mut w);
    person(&mut w, "lock");
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    w.run(600, |w| w.status.attempts == 2 && w.phase() == Some(Phase::Transferring), || false);
    assert_eq!(answer(&w, RequestName::Retry).result, RequestResult::Done);
    assert!(w.status.source.as_ref().unwrap().was_locked);
    w.humans = false;
    end(&mut w, "cancel");
    assert_locked_as_before(&w, "the second try");
}

#[test]
fn while_it_is_suspended_before_the_claim() {
    let mut w = World::new();
    w.source.locked = true;
    w.run(200, |w| !w.source.locked, || false);
    assert!(w.source.metadata.is_empty(), "not claimed yet");
    ask(&mut w, json!({"suspend": true}));
    (0..5).for_each(|_| w.pass(false));
    assert_locked_as_before(&w, "suspended");
    ask(&mut w, json!({"suspend": false}));
    w.run(400, |w| w.phase() == Some(Phase::Transferring), || false);
    end(&mut w, "cancel");
    assert_locked_as_before(&w, "cancelled afterwards");
}

/// Killed in any pass of the way back, before the status was written.
#[test]
fn a_crash_anywhere_on_the_way_back() {
    for at in 0..25 {
        let mut w = locked_at(Phase::Transferring);
        take_back(&mut w);
        person(&mut w, "lock");
        ask(&mut w, json!({"requests": {"cancel": "cancel"}}));
        let mut n = 0;
        let crash = || {
            n += 1;
            n == at
        };
        w.run(600, |w| w.phase() == Some(Phase::Cancelled) && w.clean(), crash);
        assert_locked_as_before(&w, &format!("killed in pass {at}"));
    }
}
