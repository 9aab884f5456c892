//! Whether the source ran since its stop is told by its history, also where a proxy rewrites request ids; where that
//! cannot be told nothing is built on it.

use super::tests::{World, dice, settle};
use crate::crd::v1alpha1::*;

fn rewriting() -> World {
    let mut w = World::new();
    w.rewrites = true;
    w
}

#[test]
fn a_proxy_that_rewrites_request_ids_is_told_and_the_move_goes_on() {
    for seed in 0..20 {
        let mut w = rewriting();
        w.run(3000, World::clean, dice(seed, 3));
        assert_eq!(w.phase(), Some(Phase::Succeeded), "seed {seed}: {:?}", w.status.failure);
    }
    let mut w = rewriting();
    settle(&mut w, Phase::Succeeded);
    let told = w.status.timeline.iter().filter(|r| r.message.contains("a proxy rewrites them")).count();
    assert_eq!(told, 1, "{:#?}", w.status.timeline);
}

#[test]
fn somebodys_start_is_seen_through_such_a_proxy() {
    for stopped_again in [true, false] {
        let mut w = rewriting();
        w.slow = 5;
        w.run(300, |w| w.phase() == Some(Phase::Transferring), || false);
        (w.humans, w.source.locked) = (true, false);
        w.act("unlock");
        w.act("start");
        if stopped_again {
            w.version += 1;
            w.act("stop");
        } else {
            w.source.status = "ACTIVE".into();
        }
        w.run(60, |w| w.phase() == Some(Phase::Held), || false);
        assert!(w.servers.is_empty());
    }
}

#[test]
fn a_history_that_does_not_show_our_stop_proves_nothing_and_accuses_nobody() {
    let mut w = World::new();
    w.run(300, |w| w.phase() == Some(Phase::Transferring), || false);
    let history = std::mem::take(&mut w.actions);
    (0..20).for_each(|_| w.pass(false));
    assert_eq!(w.phase(), Some(Phase::Transferring));
    let told = w.status.trouble.clone().unwrap_or_default();
    assert!(told.what == "source-history" && told.message.contains("cannot be told"), "{told:?}");
    w.actions = history;
    settle(&mut w, Phase::Succeeded);

    // For good: it ends, and the source is given back.
    let mut w = World::new();
    w.run(300, |w| w.phase() == Some(Phase::Transferring), || false);
    w.actions.clear();
    settle(&mut w, Phase::Failed);
    w.assert_given_back();
}
