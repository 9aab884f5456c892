//! Nothing is tried or waited for without end.

use super::*;

#[test]
fn a_cluster_that_is_away_after_success_is_no_failure() {
    let mut w = World::new();
    w.run(300, |w| w.phase() == Some(Phase::Succeeded), || false);
    w.unreachable = true;
    w.now = w.now.checked_add(10.seconds()).unwrap();
    (0..5).for_each(|_| w.pass(false));
    w.now = w.now.checked_add(7200.seconds()).unwrap();
    (0..5).for_each(|_| w.pass(false));
    assert!(w.status.failure.is_none() && w.phase() == Some(Phase::Succeeded), "{:?}", w.status.failure);
    w.unreachable = false;
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn a_job_is_tried_within_bounds_and_once_when_another_try_is_no_use() {
    for (purpose, retryable, attempts) in
        [("backup-0", true, 4), ("backup-0", false, 1), ("restore-1", true, 4), ("init", false, 1)]
    {
        let mut w = World::new();
        w.failing = Some((purpose, retryable));
        let mut most = 0;
        for _ in 0..600 {
            w.pass(false);
            most = most.max(w.status.jobs.iter().find(|j| j.name == purpose).map_or(0, |j| j.attempt));
        }
        assert_eq!((w.phase(), most), (Some(Phase::Failed), attempts), "{purpose} {retryable}");
        assert!(w.status.failure.as_ref().unwrap().message.contains(purpose), "{:?}", w.status.failure);
        w.assert_given_back();
    }
}

#[test]
fn a_full_store_ends_it_with_its_own_reason_and_name() {
    for purpose in ["backup-0", "restore-1"] {
        let mut w = World::new();
        (w.failing, w.failing_for) = (Some((purpose, true)), "StoreFull");
        w.run(600, |w| w.phase() == Some(Phase::Failed), || false);
        let failure = w.status.failure.clone().unwrap();
        let store = &w.status.store.as_ref().unwrap().name;
        assert_eq!(failure.reason, "StoreFull", "{failure:?}");
        assert!(failure.message.starts_with(&format!("ObjectStore {store}: Job ")), "{failure:?}");
        w.assert_given_back();
    }
}

#[test]
fn a_store_that_holds_a_copy_up_is_named() {
    let mut w = World::new();
    let running = |w: &World| w.jobs.iter().any(|(name, _)| name.contains("-backup-1-"));
    w.run(200, running, || false);
    w.stuck = true;
    let said = "Save(<data/ab>) returned error, retrying after 1s: connection refused";
    for (name, (_, job)) in &mut w.jobs {
        (job.state, job.termination) = (JobState::Active, None);
        job.progress = Some((30, 100, 0));
        job.held_up = name.contains("-backup-1-").then(|| said.to_string());
    }
    w.pass(false);
    let message = w.status.message.clone().unwrap();
    let store = &w.status.store.as_ref().unwrap().name;
    assert!(message.contains(&format!("30%, held up by ObjectStore {store}: {said}")), "{message}");
}

#[test]
fn a_segment_that_is_wrong_in_the_store_is_sent_again_within_bounds() {
    let mut w = World::new();
    w.wrong_segment = true;
    w.run(400, |w| w.phase() == Some(Phase::Succeeded), || false);
    let attempts = |w: &World, job: &str| w.status.jobs.iter().find(|j| j.name == job).map(|j| j.attempt);
    let disk = w.status.timeline.iter().find(|r| r.message.contains("sending it again"));
    let n = if disk.expect("it is told").message.starts_with("disk 0") { 0 } else { 1 };
    assert_eq!(attempts(&w, &format!("backup-{n}")), Some(2));
    assert_eq!(attempts(&w, &format!("restore-{n}")), Some(2));

    let mut w = World::new();
    for _ in 0..600 {
        w.wrong_segment = true;
        w.pass(false);
    }
    assert_eq!(w.phase(), Some(Phase::Failed));
    assert_eq!(attempts(&w, "backup-0"), Some(4));
    w.assert_given_back();
}

#[test]
fn what_a_cloud_never_finishes_is_given_up() {
    let snapshot: fn(&World) -> bool = |w| !w.snapshots.is_empty();
    let server: fn(&World) -> bool = |w| !w.servers.is_empty();
    let cases = [("temporary volume vol-", snapshot), ("is still BUILD", server)];
    for ((what, begun), timeless) in cases.into_iter().flat_map(|c| [(c, false), (c, true)]) {
        let mut w = World::new();
        w.timeless = timeless;
        w.run(400, begun, || false);
        let since = w.now;
        w.stuck = true;
        for server in &mut w.servers {
            (server.status, server.launched_at) = ("BUILD".into(), None);
        }
        w.run(4000, |w| w.status.failure.is_some(), || false);
        let failure = w.status.failure.clone().unwrap();
        assert!(failure.message.contains(what), "{failure:?}");
        let waited = w.now.duration_since(since).as_secs();
        // A disk of 1 GiB has half a minute more.
        assert!((3600..3650).contains(&waited), "{what}, timeless {timeless}: given up after {waited} s");
        w.stuck = false;
        w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
        w.assert_given_back();
    }
}

#[test]
fn what_has_no_time_of_its_own_is_given_up_too() {
    let cases: [(_, fn(&mut World)); 2] = [
        ("after it was filled is still queued", a_filled_image_stays_queued),
        ("after it was read back is still uploading", a_volume_stays_uploading),
    ];
    for (what, prepare) in cases {
        let mut w = World::new();
        prepare(&mut w);
        w.run(4000, |w| w.status.failure.is_some(), || false);
        let failure = w.status.failure.clone().unwrap();
        assert!(failure.message.contains(what), "{failure:?}");
        w.stuck = false;
        w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
        w.assert_given_back();
    }
}

#[test]
fn a_guest_that_never_stops_is_left_running() {
    for task in [Some("powering-off"), None] {
        let mut w = World::new();
        w.run(200, |w| w.source.status == "SHUTOFF", || false);
        // The stop was taken, and the guest does not heed it.
        (w.source.status, w.source.task_state) = ("ACTIVE".into(), task.map(String::from));
        w.run(400, |w| w.status.failure.is_some(), || false);
        let failure = w.status.failure.clone().unwrap();
        assert!(failure.message.contains("is still ACTIVE 600 s after the stop of"), "{failure:?}");
        let asked = w.status.source.as_ref().and_then(|s| s.stop_requested_at.clone()).unwrap();
        let waited = failure.at.unwrap().0.duration_since(asked.0).as_secs();
        assert!((600..620).contains(&waited), "{task:?}: given up after {waited} s");
        assert_eq!(w.actions.iter().filter(|a| a.action == "stop").count(), 1, "{:?}", w.actions);
        w.source.task_state = None;
        w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
        w.assert_given_back();
        assert!(w.snapshots.is_empty() && w.actions.iter().all(|a| a.action != "start"), "{:?}", w.actions);
    }
}

#[test]
fn a_server_that_cannot_be_built_goes_and_the_source_runs_again() {
    let mut w = World::new();
    w.run(400, |w| !w.servers.is_empty(), || false);
    (w.servers[0].status, w.servers[0].fault) = ("ERROR".into(), Some("No valid host was found".into()));
    w.servers[0].launched_at = None;
    w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    assert!(w.status.failure.as_ref().unwrap().message.contains("No valid host"), "{:?}", w.status.failure);
    w.assert_given_back();
    w.assert_nothing_left();
}

#[test]
fn an_owners_lock_is_remembered_and_put_back() {
    for crashes in [0, 3] {
        let mut w = World::new();
        w.source.locked = true;
        let mut dice = dice(crashes, 3);
        let crash = move || crashes > 0 && dice();
        w.run(600, |w| w.phase() == Some(Phase::Transferring), crash);
        assert!(w.source.locked);
        w.deleting = true;
        w.run(400, |w| w.released, || false);
        assert_eq!((w.source.status.as_str(), w.source.locked), ("ACTIVE", true), "{:?}", w.actions);
        assert!(w.source.metadata.is_empty());
    }
}

#[test]
fn a_claim_that_somebody_took_ends_the_migration_before_the_stop() {
    let mut w = World::new();
    w.run(200, |w| w.status.source.as_ref().is_some_and(|s| s.claimed_at.is_some()), || false);
    w.source.metadata.insert(MARK_CLAIM.into(), "another".into());
    w.run(400, |w| w.phase() == Some(Phase::Failed), || false);
    assert!(w.status.failure.as_ref().unwrap().message.contains("claim"), "{:?}", w.status.failure);
    assert_eq!(w.source.status, "ACTIVE");
    assert!(w.actions.iter().all(|a| a.action != "stop"), "it was not stopped: {:?}", w.actions);
}

#[test]
fn whoever_gives_up_on_clean_up_is_let_go() {
    let mut w = World::new();
    w.run(400, |w| w.phase() == Some(Phase::Creating), || false);
    w.unreachable = true;
    w.deleting = true;
    for _ in 0..50 {
        w.pass(false);
    }
    assert!(!w.released);
    w.abandoned = true;
    w.run(5, |w| w.released, || false);
}

#[test]
fn the_restore_runs_beside_its_backup_and_takes_only_segments_of_its_image() {
    let mut w = World::new();
    // The backups never get anywhere: the restores are there all the same.
    w.failing = Some(("-backup-", true));
    w.run(400, |w| w.jobs.keys().any(|n| n.contains("-restore-0-")), || false);
    assert!(w.status.disks[0].backup.is_none());
    let (name, args) = w.asked.iter().find(|(n, _)| n.contains("-restore-0-")).unwrap();
    let origin = args.iter().position(|a| a == "--origin").map(|at| args[at + 1].clone());
    assert_eq!(origin, w.status.disks[0].export.image_id, "{name}: {args:?}");
    assert!(!args.contains(&"--snapshot".to_string()), "{args:?}");
    // A backup that fails for the last time takes the restore and its image with it.
    w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    w.assert_given_back();
}

#[test]
fn a_failed_attempt_of_a_backup_does_not_fail_its_restore() {
    let mut w = World::new();
    w.failing = Some(("-backup-", true));
    w.run(400, |w| w.jobs.keys().any(|n| n.contains("-restore-0-")), || false);
    w.failing = None;
    w.run(400, |w| w.phase() == Some(Phase::Succeeded), || false);
    let attempt = |what: &str| w.status.jobs.iter().find(|j| j.name == what).map(|j| j.attempt);
    assert!(attempt("backup-0") > Some(1), "{:?}", w.status.jobs);
    assert_eq!(attempt("restore-0"), Some(1));
}

#[test]
fn looks_at_a_cloud_get_rarer_with_the_wait() {
    for (waited, pause) in [(-3, 2), (0, 2), (10, 2), (15, 3), (40, 8), (75, 15), (3000, 15)] {
        assert_eq!(super::pause(waited, super::CALM).as_secs(), pause, "after {waited} s");
    }
}
