//! For how long neither side serves.

use super::*;

#[test]
fn a_move_that_takes_too_long_is_given_up_before_b_runs() {
    let mut w = World::new();
    ask(&mut w, json!({"maxDowntime": "5m"}));
    w.run(200, |w| w.phase() == Some(Phase::Transferring), || false);
    w.now = w.now.checked_add(301.seconds()).unwrap();
    settle(&mut w, Phase::Failed);
    w.assert_given_back();
    w.assert_nothing_left();
    assert!(w.status.message.as_ref().is_some_and(|m| m.contains("spec.maxDowntime is 5m00s")));
    // Once B was seen ACTIVE nothing is undone for being late.
    let mut w = World::new();
    ask(&mut w, json!({"maxDowntime": "5m"}));
    w.run(200, |w| w.phase() == Some(Phase::Verifying), || false);
    w.now = w.now.checked_add(301.seconds()).unwrap();
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn the_downtime_is_what_the_cloud_and_the_check_tell_within_what_was_seen() {
    let time = |t: &Option<MicroTime>| t.as_ref().unwrap().0;
    // When the check passed, in milliseconds before its Job has ended, and in which bounds that is believed.
    for (before, believed) in [(1250, true), (-90_000, false), (900_000, false)] {
        let mut w = World::new();
        w.run(200, |w| w.phase() == Some(Phase::Verifying), || false);
        let told = w.now.checked_sub(before.milliseconds()).unwrap();
        w.checked["result"]["firstPassedAt"] = json!(told.to_string());
        w.run(20, |w| w.status.checks.iter().any(|c| c.name == "page" && c.passed), || false);
        let stop = w.actions.iter().find(|a| a.action == "stop").unwrap();
        let (s, x) = (w.status.source.clone().unwrap(), w.status.destination.clone().unwrap());
        assert_eq!(time(&s.served_until).to_string(), stop.start_time);
        assert!(s.served_until.unwrap().0 < s.stopped_at.unwrap().0);
        let from = time(&x.served_from);
        assert_eq!(from == told, believed, "{before}");
        assert!((x.server_requested_at.unwrap().0..=w.now).contains(&from), "{before}");
        let down = from.duration_since(stop.start_time.parse().unwrap()).as_millis();
        assert_eq!(present::down(&w.status, w.now).map(i128::from), Some((down + 500) / 1000));
    }
    // Nothing is checked: the cloud tells when the server was up.
    let mut w = World::new();
    w.spec.verification = None;
    w.run(200, |w| w.phase() == Some(Phase::Succeeded), || false);
    let launched = w.servers[0].launched_at.clone().unwrap();
    assert_eq!(time(&w.status.destination.as_ref().unwrap().served_from).to_string(), launched);
}

#[test]
fn a_destination_that_is_given_up_did_not_serve() {
    let mut w = checked(
        json!([{"name": "page", "http": {}}, {"name": "boot", "timeoutSeconds": 60, "console": {"pattern": "^login:"}}]),
    );
    settle(&mut w, Phase::Failed);
    let x = w.status.destination.clone().unwrap();
    assert!(x.served_from.is_some() && x.ready_at.is_none());
    let (s, back) = (w.status.source.clone().unwrap(), w.status.finished_at.clone().unwrap());
    let down = back.0.duration_since(s.served_until.unwrap().0).as_secs();
    assert_eq!(present::down(&w.status, w.now), Some(down));
}
