//! A new try, and what the last one left.

use super::*;

#[test]
fn a_retry_after_a_failure_reads_what_may_be_stale_again_and_arrives() {
    for seed in 0..40 {
        let mut w = World::new();
        ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
        w.broken = Some("create-server");
        w.run(1000, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, dice(seed, 5));
        (0..1 + seed % 9).for_each(|_| w.pass(false));
        w.assert_given_back();
        assert!(w.repository && w.vault, "the data are kept");
        assert!(w.made.is_empty() && w.servers.is_empty() && w.volumes.is_empty() && w.images.is_empty());
        let message = w.status.message.clone().unwrap();
        assert!(
            message.contains("kept in the repository until") && message.contains("\"retry\""),
            "{message}"
        );
        w.broken = None;
        ask(&mut w, json!({"requests": {"retry": "1"}}));
        w.run(1000, World::clean, dice(seed + 3, 5));
        assert_eq!((w.phase(), w.status.attempts), (Some(Phase::Succeeded), 2), "{:?}", w.status.failure);
        assert_eq!((w.servers.len(), w.made.len(), w.ports.len()), (1, 2, 1), "seed {seed}");
        assert!(w.asked.keys().any(|n| n.contains("backup-0-2")), "A ran meanwhile: it is read again");
    }
}

#[test]
fn kept_data_of_a_source_that_did_not_run_are_used_again() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    w.broken = None;
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    w.run(600, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    assert!(!w.asked.keys().any(|n| n.contains("backup-0-2")), "nothing is read again");
}

#[test]
fn a_deletion_looks_again_for_snapshots_that_had_to_stay() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    assert!(!w.snapshots.is_empty() && !w.status.retained.is_empty(), "{:?}", w.status.retained);
    w.broken = None;
    w.source.status = "ACTIVE".into();
    w.deleting = true;
    w.run(100, |w| w.released, || false);
    assert!(w.snapshots.is_empty(), "{:?}", w.snapshots);
}

#[test]
fn a_segment_of_kept_data_that_is_wrong_is_read_again_from_a_new_copy() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    (w.broken, w.wrong_segment) = (None, true);
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    settle(&mut w, Phase::Succeeded);
    let again = |n: &&String| n.contains("-backup-0-") && !n.ends_with("-1");
    assert_eq!(w.asked.keys().filter(again).count(), 1, "it is sent again");
    let origin =
        |args: &Vec<String>| args.iter().position(|a| a == "--origin").map(|at| args[at + 1].clone());
    assert!(!w.asked.values().any(|args| origin(args).is_some_and(|o| o.is_empty())), "of what is known");
}

#[test]
fn a_purge_that_was_begun_and_not_recorded_ends_before_a_new_try() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    w.run(20, |w| w.jobs.keys().any(|n| n.contains("-purge-")), || true);
    w.broken = None;
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn snapshots_that_had_to_stay_are_not_used_by_a_new_try() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    assert_eq!(w.snapshots.len(), 2, "this storage keeps them while A is stopped");
    // It was used in between.
    w.act("start");
    w.version += 1;
    w.act("stop");
    w.broken = None;
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    w.run(600, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    assert!(w.asked.keys().any(|n| n.contains("backup-0-2")));
}

#[test]
fn kept_data_go_when_their_time_is_over() {
    let mut w = World::new();
    ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    (0..20).for_each(|_| w.pass(false));
    assert!(w.repository && !w.clean());
    w.now = w.now.checked_add(3601.seconds()).unwrap();
    settle(&mut w, Phase::Failed);
    w.assert_nothing_left();
    // Even so it can be tried again, from the beginning.
    w.broken = None;
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn deletion_purges_kept_data_at_once() {
    let mut w = World::new();
    ask(&mut w, json!({"onFailure": {"keepData": "7d"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    w.deleting = true;
    w.run(100, |w| w.released, || false);
    w.assert_nothing_left();
}

#[test]
fn a_retry_from_held_stops_the_source_once_more() {
    for starts in [true, false] {
        let mut w = World::new();
        w.run(200, |w| w.phase() == Some(Phase::Creating), || false);
        w.source.locked = false;
        w.act("unlock");
        if starts {
            w.source.status = "ACTIVE".into();
            w.act("start");
        }
        w.run(50, |w| w.phase() == Some(Phase::Held), || false);
        assert!(w.status.message.as_ref().is_some_and(|m| m.contains("\"retry\"")), "{:?}", w.status.message);
        ask(&mut w, json!({"requests": {"retry": "go"}}));
        settle(&mut w, Phase::Succeeded);
        assert_eq!((w.source.status.as_str(), w.servers[0].status.as_str()), ("SHUTOFF", "ACTIVE"));
        assert_eq!(w.asked.keys().any(|n| n.contains("backup-0-2")), starts, "read again only if it ran");
    }
}
