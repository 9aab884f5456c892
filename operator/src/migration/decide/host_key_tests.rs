//! A check over SSH meets host keys that cloud-init made anew: a move that is well is not rolled back for them.

use super::tests::{HOST_KEY, World, checked, over_ssh, settle};
use crate::{crd::v1alpha1::*, migration::step::JobRequest};
use serde_json::{Value, json};

const NEW_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9i";
const PASSED: &str = "the command ended with exit code 0";

fn printed(key: &str) -> Result<String, String> {
    Ok(format!("-----BEGIN SSH HOST KEY KEYS-----\n{key}\n-----END SSH HOST KEY KEYS-----\n"))
}

/// The new server is up, and a check over SSH gives the key that was read in the source.
fn with_the_sources_key() -> World {
    let mut w = checked(json!([over_ssh(Some(HOST_KEY))]));
    w.checked = Value::Null;
    w.run(400, |w| w.phase() == Some(Phase::Verifying), || false);
    w
}

fn trusted(job: &JobRequest) -> Value {
    let checks: Value = serde_json::from_str(&job.task.command_line(&[])[2]).unwrap();
    checks[0]["ssh"]["hostKeys"].clone()
}

fn passed(w: &mut World) {
    w.checked = json!({"ok": true, "result": {"checks": [{"name": "db", "ok": true, "message": PASSED}]}});
}

fn jobs(w: &World) -> Vec<String> {
    let of_checks = w.status.jobs.iter().filter(|j| j.name.starts_with("check"));
    of_checks.map(|j| j.name.clone()).collect()
}

#[test]
fn what_the_new_server_printed_is_trusted_besides_the_given_key() {
    let mut w = with_the_sources_key();
    w.console = printed(NEW_KEY);
    let job = w.check_job().unwrap();
    assert_eq!((job.purpose.as_str(), trusted(&job)), ("check", json!([NEW_KEY, HOST_KEY])));
}

/// With the release before, the key that was given was the only one that was ever trusted.
#[test]
fn a_guest_that_prints_another_key_later_is_asked_again_with_it() {
    let mut w = with_the_sources_key();
    let job = w.check_job().unwrap();
    assert_eq!((job.purpose.as_str(), trusted(&job)), ("check-given", json!([HOST_KEY])));
    w.run(20, |w| w.jobs.keys().any(|name| name.contains("-check-given-")), || false);
    assert!(w.check_job().is_none(), "it runs");
    w.console = printed(NEW_KEY);
    let job = w.check_job().unwrap();
    assert_eq!((job.purpose.as_str(), trusted(&job)), ("check", json!([NEW_KEY, HOST_KEY])));
    w.run(20, |w| w.jobs.keys().any(|name| name.contains("-check-1")), || false);
    (0..3).for_each(|_| w.pass(false));
    let told = &w.status.checks.iter().find(|c| c.name == "db").unwrap().message;
    assert!(told.contains("printed another key than hostKey: cloud-init makes new ones"), "{told}");
    // The console scrolls on; the Job that was asked last is the one that counts.
    w.console = Ok("login: ".into());
    passed(&mut w);
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn a_guest_that_prints_nothing_or_the_given_key_is_asked_once() {
    for console in [Ok("login: ".to_string()), Err("403: not allowed".to_string()), printed(HOST_KEY)] {
        let mut w = with_the_sources_key();
        w.run(20, |w| w.jobs.keys().any(|name| name.contains("-check-given-")), || false);
        w.console = console;
        (0..5).for_each(|_| w.pass(false));
        passed(&mut w);
        settle(&mut w, Phase::Succeeded);
        assert_eq!(jobs(&w), ["check-given"]);
        assert_eq!(w.status.checks.last().map(|c| c.message.as_str()), Some(PASSED));
    }
}

#[test]
fn a_plan_says_that_the_guest_is_a_new_instance_and_that_its_keys_may_be_new() {
    let mut w = checked(json!([over_ssh(Some(HOST_KEY))]));
    w.run(20, |w| !w.status.preflight.is_empty(), || false);
    for id in ["guest-is-a-new-instance", "host-key-may-be-new"] {
        let found = w.status.preflight.iter().find(|f| f.id == id);
        assert_eq!(found.map(|f| f.severity), Some(Severity::Warning), "{id}");
    }
}
