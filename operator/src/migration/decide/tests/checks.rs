//! Checks of the application.

use super::*;

#[test]
fn success_needs_every_check() {
    let mut w = checked(
        json!([{"name": "page", "http": {}}, {"name": "boot", "timeoutSeconds": 60, "console": {"pattern": "^login:"}}]),
    );
    w.run(400, |w| w.status.checks.iter().any(|c| c.name == "page" && c.passed), || false);
    w.run(
        20,
        |w| w.status.message.as_deref().unwrap_or_default().contains("boot: the pattern is not among"),
        || false,
    );
    assert_eq!(w.phase(), Some(Phase::Verifying));
    w.console = Ok("boot\r\nlogin: ".into());
    w.run(20, |w| w.status.checks.iter().all(|c| c.passed), || false);
    // It scrolls away; it was seen all the same.
    w.console = Err("no answer".into());
    w.run(100, |w| w.phase() == Some(Phase::Succeeded), || false);
    assert_eq!(answers(&w).iter().map(|a| a.0.as_str()).collect::<Vec<_>>(), ["active", "page", "boot"]);
}

#[test]
fn a_console_check_has_its_time_and_the_last_answer_is_told() {
    for (console, told) in
        [(Ok("one\ntwo\n".into()), "last 2 lines"), (Err("409: no console".into()), "409: no console")]
    {
        let mut w = checked(json!([{"name": "boot", "timeoutSeconds": 60, "console": {"pattern": "up$"}}]));
        w.console = console;
        w.run(600, |w| w.phase() == Some(Phase::Failed), || false);
        let failure = w.status.failure.clone().unwrap();
        assert_eq!(failure.reason, "VerificationFailed");
        assert!(failure.message.contains("1 of 1 checks did not pass: boot: "), "{}", failure.message);
        assert!(failure.message.contains(told), "{}", failure.message);
        assert!(w.jobs.keys().all(|name| !name.contains("-check-")), "no Job is needed for a console");
        w.assert_given_back();
    }
}

#[test]
fn a_failed_check_tells_what_was_answered() {
    let mut w = checked(json!([{"name": "page", "http": {}}, {"name": "port", "tcp": {"port": 1}}]));
    w.checked = json!({"ok": false, "reason": "CheckFailed", "message": "1 of 2", "retryable": false, "result": {"checks": [
        {"name": "page", "ok": true, "message": "answered 200"}, {"name": "port", "ok": false, "message": "refused"}]}});
    w.run(600, |w| w.phase() == Some(Phase::Failed), || false);
    let failure = w.status.failure.clone().unwrap();
    assert!(failure.message.ends_with("1 of 2 checks did not pass: port: refused"), "{}", failure.message);
    assert_eq!(
        answers(&w)[1..],
        [("page".into(), true, "answered 200".into()), ("port".into(), false, "refused".into())]
    );
}

#[test]
fn a_check_that_the_job_does_not_answer_has_not_passed() {
    let mut w = checked(json!([{"name": "page", "http": {}}, {"name": "forgotten", "tcp": {"port": 1}}]));
    w.run(600, |w| w.phase() == Some(Phase::Failed), || false);
    assert!(
        w.status.failure.clone().unwrap().message.ends_with("forgotten: no answer"),
        "{:?}",
        w.status.failure
    );
}

#[test]
fn an_ssh_check_gets_its_key_and_trusts_what_was_given_or_printed() {
    let args = |job: &JobRequest| -> serde_json::Value {
        serde_json::from_str(&job.task.command_line(&[])[2]).unwrap()
    };
    let to_the_job = |w: &mut World| w.run(400, |w| w.phase() == Some(Phase::Verifying), || false);
    let mut w = checked(json!([over_ssh(Some(HOST_KEY))]));
    to_the_job(&mut w);
    let job = w.check_job().unwrap();
    let key = KeyRef { name: "s".into(), key: "k".into() };
    assert_eq!((job.credentials, job.keys.clone()), (false, BTreeMap::from([("0".to_string(), key)])));
    let ssh = &args(&job)[0]["ssh"];
    assert_eq!((&ssh["hostKeys"], &ssh["keyFile"]), (&json!([HOST_KEY]), &json!("/etc/vmmigration-check/0")));
    // Not given: the console's, and until it shows one nothing is connected to.
    let mut w = checked(json!([over_ssh(None)]));
    to_the_job(&mut w);
    assert_eq!(w.check_job(), None);
    let block =
        |key: &str| format!("-----BEGIN SSH HOST KEY KEYS-----\n{key}\n-----END SSH HOST KEY KEYS-----\n");
    w.console = Ok(block(HOST_KEY));
    assert_eq!(args(&w.check_job().unwrap())[0]["ssh"]["hostKeys"], json!([HOST_KEY]));
    w.console = Ok(block("rubbish"));
    w.run(200, |w| w.phase() == Some(Phase::Failed), || false);
    assert!(w.status.failure.clone().unwrap().message.contains("hostKey"), "{:?}", w.status.failure);
}

#[test]
fn what_cannot_be_asked_blocks_before_anything_is_touched() {
    let mut w = checked(
        json!([{"name": "boot", "console": {"pattern": "("}}, over_ssh(Some("ssh-ed25519 AAAA no key"))]),
    );
    w.run(20, |w| w.phase() == Some(Phase::Blocked), || false);
    let ids: Vec<_> = w.status.preflight.iter().map(|f| f.id.as_str()).collect();
    assert!(ids.contains(&"check-pattern-invalid") && ids.contains(&"host-key-invalid"), "{ids:?}");
    assert_eq!((w.source.status.as_str(), w.source.metadata.len()), ("ACTIVE", 0), "nothing was touched");
}
