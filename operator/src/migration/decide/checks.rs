//! Checks of the application: each is asked again until it passes or its time is over. A Job near the server asks
//! those that need a network; the console is read by the operator, since the Job has no cloud's credentials.

use super::{
    Draft, clock, downtime,
    jobs::{Progress, Wanted},
    next::{Stop, VERIFICATION_FAILED},
    parse_time,
};
use crate::{
    cloud::Server,
    contract::{
        self, CheckKind, Checks, ChecksResult, Task, host_key, host_keys_from_console, paths, pattern,
    },
    crd::v1alpha1::*,
    migration::{names::Side, observed::JobState},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use std::{collections::BTreeMap, path::Path};

/// How long a check is asked when it does not say so, in seconds.
const TIMEOUT_SECONDS: i32 = 300;

/// Whom to ask.
pub(super) struct Asked {
    /// Near which cloud the Job runs.
    pub side: Side,
    /// What the Job is called.
    pub purpose: &'static str,
    /// The server's address, for checks that name none.
    pub address: String,
    /// The guest's console, or why it cannot be read.
    pub console: Result<String, String>,
    /// Since when it has been asked.
    pub since: Time,
}

/// What a check answered.
pub(super) struct Answer {
    /// The last answer.
    pub row: CheckRow,
    /// It is not asked any more: it passed, or its time is over.
    pub over: bool,
}

/// All checks of the new server, until all have passed and are in status.
pub(super) fn of_destination(d: &mut Draft<'_>, server: &Server) -> Result<(), Stop> {
    if server.status != "ACTIVE" {
        let why = format!("server {} is {}, not ACTIVE", server.id, server.status);
        return Err(Stop::failed(VERIFICATION_FAILED, why));
    }
    let wanted = d.input.spec.verification.as_ref().map(|v| v.checks.as_slice()).unwrap_or_default();
    let mut rows = vec![row("active", true, "ACTIVE")];
    if wanted.is_empty() {
        d.status.checks = rows;
        downtime::ends(d, server.launched_at.as_deref().and_then(parse_time));
        return Ok(());
    }
    let Some(address) = server.addresses.iter().find(|a| a.fixed).map(|a| a.address.clone()) else {
        return Err(Stop::failed(
            VERIFICATION_FAILED,
            format!("server {} has no fixed address to check", server.id),
        ));
    };
    let not_read = || Err("the console was not read".to_string());
    let console = d.input.seen.destination.view().and_then(|v| v.console.clone()).unwrap_or_else(not_read);
    let (side, purpose, since) = (Side::Destination, "check", asked_since(d));
    let answers =
        ask(d, &Asked { side, purpose, address: address.clone(), console, since: since.clone() }, wanted);
    rows.extend(answers.iter().map(|a| a.row.clone()));
    d.status.checks = rows;
    if answers.iter().any(|a| a.row.passed) {
        let first = first_pass(d, side, purpose);
        downtime::ends(d, first);
    }
    judge(&answers, &format!("Checking the server at {address}"), &since, longest(wanted))
}

/// Remembered, so that a restart of the operator does not give a check more time.
fn asked_since(d: &mut Draft<'_>) -> Time {
    let now = d.now();
    // What was asked of a former server counts nothing.
    let active = d.destination().active_at.clone();
    let valid = d.status.checks_since.clone().filter(|t| active.is_none_or(|a| t.0 >= a.0));
    d.status.checks_since.insert(valid.unwrap_or(now)).clone()
}

fn judge(answers: &[Answer], what: &str, since: &Time, seconds: i32) -> Result<(), Stop> {
    let list = |rows: Vec<&CheckRow>| {
        rows.into_iter().map(|r| format!("{}: {}", r.name, r.message)).collect::<Vec<_>>().join("; ")
    };
    let failed: Vec<_> = answers.iter().filter(|a| a.over && !a.row.passed).map(|a| &a.row).collect();
    if !failed.is_empty() {
        let text = format!("{} of {} checks did not pass: {}", failed.len(), answers.len(), list(failed));
        return Err(Stop::failed(VERIFICATION_FAILED, text));
    }
    let open: Vec<_> = answers.iter().filter(|a| !a.over).map(|a| &a.row).collect();
    if open.is_empty() {
        return Ok(());
    }
    let until = after(since, seconds).map_or(String::new(), |t| format!(" (gives up {})", clock(t.0)));
    Err(Stop::waiting(format!("{what}{until}: {}", list(open))))
}

/// Asks, and tells what each check has answered until now.
pub(super) fn ask(d: &mut Draft<'_>, of: &Asked, checks: &[Check]) -> Vec<Answer> {
    let outside: Vec<Check> = checks.iter().filter(|c| c.console.is_none()).cloned().collect();
    let from_job = if outside.is_empty() { BTreeMap::new() } else { ask_by_job(d, of, &outside) };
    let one = |c: &Check| match &c.console {
        Some(console) => read_console(d, of, c, console),
        None => {
            let (row, over) =
                from_job.get(&c.name).cloned().unwrap_or_else(|| (row(&c.name, false, "no answer"), true));
            Answer { row, over }
        }
    };
    checks.iter().map(one).collect()
}

fn read_console(d: &Draft<'_>, of: &Asked, check: &Check, console: &ConsoleCheck) -> Answer {
    // It may have scrolled away since.
    let passed = d.input.status.checks.iter().find(|r| r.name == check.name && r.passed);
    if let Some(row) = passed.filter(|_| d.input.status.checks_since.as_ref() == Some(&of.since)) {
        return Answer { row: row.clone(), over: true };
    }
    let (passed, message) = match (&of.console, pattern(&console.pattern)) {
        (_, Err(why)) => (false, format!("the pattern cannot be read: {why}")),
        (Err(why), _) => (false, why.clone()),
        (Ok(text), Ok(pattern)) if pattern.is_match(text) => {
            (true, "the console shows the pattern".to_string())
        }
        (Ok(text), _) => (
            false,
            format!("the pattern is not among the last {} lines of the console", text.lines().count()),
        ),
    };
    Answer {
        over: passed || d.past(&Some(of.since.clone()), timeout(check).into()),
        row: row(&check.name, passed, message),
    }
}

/// Row and whether it is the last, by name.
type ByName = BTreeMap<String, (CheckRow, bool)>;

fn ask_by_job(d: &mut Draft<'_>, of: &Asked, checks: &[Check]) -> ByName {
    let printed = of.console.as_deref().map(host_keys_from_console).unwrap_or_default();
    let mut found = ask_job_that_trusts(d, of, checks, &printed);
    for check in checks.iter().filter(|c| has_another_key(c, &printed)) {
        if let Some((row, _)) = found.get_mut(&check.name).filter(|(row, _)| !row.passed) {
            row.message = format!("{} ({ANOTHER_KEY})", row.message);
        }
    }
    found
}

fn ask_job_that_trusts(d: &mut Draft<'_>, of: &Asked, checks: &[Check], printed: &[String]) -> ByName {
    let all = |message: &str, over: bool| -> ByName {
        checks.iter().map(|c| (c.name.clone(), (row(&c.name, false, message), over))).collect()
    };
    let unknown =
        printed.is_empty() && checks.iter().any(|c| c.ssh.as_ref().is_some_and(|s| s.host_key.is_none()));
    let purpose = purpose(d, of, checks, printed);
    if unknown && d.job_seen(of.side, &purpose).is_none() {
        let late = d.past(&Some(of.since.clone()), longest(checks).into());
        return all(
            "waits for the guest's SSH host keys, which the console does not show; give ssh.hostKey, or let the guest \
             print its keys on the console as cloud-init does",
            late,
        );
    }
    let seconds = longest(checks);
    let wanted = Wanted {
        side: of.side,
        purpose: purpose.clone(),
        task: task(checks, &of.address, printed, seconds.into()),
        credentials: false,
        deadline_seconds: i64::from(seconds) + 120,
        attempts: 2,
    };
    match d.job_with_keys(wanted, keys(checks)) {
        Progress::Succeeded(result) => {
            rows(&result).into_iter().map(|r| (r.name.clone(), (r, true))).collect()
        }
        Progress::Running(why) => all(&why, false),
        Progress::Again => all("asked once more", false),
        Progress::Failed(why) => {
            let mut found = all(&why, true);
            let last = told(d, of.side, &purpose).map_or(vec![], rows_of);
            found.extend(last.into_iter().map(|r| (r.name.clone(), (r, true))));
            found
        }
    }
}

/// Why a key that was good in the source is not the guest's in the destination.
const ANOTHER_KEY: &str =
    "the guest printed another key than hostKey: cloud-init makes new ones for a new instance";

fn has_another_key(check: &Check, printed: &[String]) -> bool {
    let given = check.ssh.as_ref().and_then(|s| s.host_key.as_ref());
    let same = |key: &String| host_key(key).is_ok_and(|key| printed.contains(&key));
    !printed.is_empty() && given.is_some_and(|key| !same(key))
}

/// A Job cannot learn another key once it runs. So one that trusts `hostKey` alone, because the console shows nothing yet, has
/// a purpose of its own, and another one follows when the guest has printed other keys.
fn purpose(d: &Draft<'_>, of: &Asked, checks: &[Check], printed: &[String]) -> String {
    let given_only = of_given(of.purpose);
    let given = checks.iter().any(|c| c.ssh.as_ref().is_some_and(|s| s.host_key.is_some()));
    if !given || d.job_seen(of.side, of.purpose).is_some() {
        return of.purpose.into();
    }
    let stays = match d.job_seen(of.side, &given_only) {
        Some(job) => job.state == JobState::Succeeded || !checks.iter().any(|c| has_another_key(c, printed)),
        None => printed.is_empty(),
    };
    if stays { given_only } else { of.purpose.into() }
}

/// The purpose of the Job that trusts `hostKey` alone.
fn of_given(purpose: &str) -> String {
    format!("{purpose}-given")
}

/// When the first check passed, by the Job that was asked first.
fn first_pass(d: &Draft<'_>, side: Side, purpose: &str) -> Option<Timestamp> {
    let first = |purpose: &str| told(d, side, purpose)?.first_passed_at;
    [of_given(purpose), purpose.to_string()].iter().filter_map(|purpose| first(purpose)).min()
}

/// What a Job has told in the end, whichever it was.
fn told(d: &Draft<'_>, side: Side, purpose: &str) -> Option<ChecksResult> {
    d.job_seen(side, purpose)?.outcome()?.answer()?.read().ok()
}

/// The private keys that the Job needs, by the name of the file.
fn keys(checks: &[Check]) -> BTreeMap<String, KeyRef> {
    let key = |(n, c): (usize, &Check)| Some((n.to_string(), c.ssh.as_ref()?.private_key_secret_ref.clone()));
    checks.iter().enumerate().filter_map(key).collect()
}

/// The checks as a mover is asked for them; all but console checks. `address` is the server's, and `host_keys` are those
/// that it printed on its console; what a check gives is trusted besides.
pub(super) fn task(checks: &[Check], address: &str, host_keys: &[String], seconds: i64) -> Task {
    let of_job = checks.iter().enumerate().filter_map(|(n, c)| {
        let kind = kind(n, c, address, host_keys)?;
        let timeout_seconds = u64::try_from(timeout(c)).ok();
        Some(contract::Check { name: c.name.clone(), timeout_seconds, kind })
    });
    let asked: Vec<contract::Check> = of_job.collect();
    Task::Check(Checks::new(&asked, u64::try_from(seconds).unwrap_or_default()))
}

fn kind(n: usize, check: &Check, address: &str, host_keys: &[String]) -> Option<CheckKind> {
    let at = |given: &Option<String>| given.clone().unwrap_or_else(|| address.to_string());
    if let Some(tcp) = &check.tcp {
        return Some(CheckKind::Tcp { address: at(&tcp.address), port: port(tcp.port) });
    }
    if let Some(http) = &check.http {
        return Some(of_http(http, &at(&http.address)));
    }
    let ssh = check.ssh.as_ref()?;
    Some(CheckKind::Ssh {
        user: ssh.user.clone(),
        address: at(&ssh.address),
        port: ssh.port.map_or(22, port),
        key_file: Path::new(paths::CHECK_KEYS).join(n.to_string()),
        host_keys: host_keys.iter().chain(&ssh.host_key).cloned().collect(),
        command: ssh.command.clone(),
    })
}

fn of_http(h: &HttpCheck, host: &str) -> CheckKind {
    let (scheme, usual) = match h.scheme {
        Some(HttpScheme::Https) => ("https", 443),
        _ => ("http", 80),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let (at, path) = (h.port.unwrap_or(usual), h.path.as_deref().unwrap_or("/"));
    let header = |h: &HeaderCheck| contract::Header { name: h.name.clone(), pattern: h.pattern.clone() };
    CheckKind::Http {
        url: format!("{scheme}://{host}:{at}{path}"),
        status: h.status.and_then(|status| u16::try_from(status).ok()).unwrap_or(200),
        contains: h.contains.clone(),
        pattern: h.pattern.clone(),
        header: h.header.as_ref().map(header),
    }
}

/// The API server lets no other numbers in.
fn port(number: i32) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

/// What a Job of checks has answered.
pub(super) fn rows(answer: &contract::Answer) -> Vec<CheckRow> {
    answer.read().map_or(vec![], rows_of)
}

fn rows_of(told: ChecksResult) -> Vec<CheckRow> {
    told.checks.into_iter().map(|c| row(&c.name, c.ok, c.message)).collect()
}

fn row(name: &str, passed: bool, message: impl Into<String>) -> CheckRow {
    CheckRow { name: name.into(), passed, message: message.into() }
}

fn timeout(check: &Check) -> i32 {
    check.timeout_seconds.unwrap_or(TIMEOUT_SECONDS)
}

fn longest(checks: &[Check]) -> i32 {
    checks.iter().map(timeout).max().unwrap_or(TIMEOUT_SECONDS)
}

fn after(since: &Time, seconds: i32) -> Option<Time> {
    since.0.checked_add(SignedDuration::from_secs(seconds.into())).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn given(checks: Value) -> Value {
        let checks: Vec<Check> = serde_json::from_value(checks).unwrap();
        let Task::Check(asked) = task(&checks, "10.0.0.5", &["ssh-ed25519 CONSOLE".into()], 300) else {
            panic!("another task")
        };
        assert!(crate::mover::check::read(&asked).is_ok(), "the mover reads it: {asked:?}");
        serde_json::from_str(&asked.checks).unwrap()
    }

    #[test]
    fn arguments_of_every_kind() {
        let key = json!({"name": "s", "key": "k"});
        let cases = [
            (json!({"tcp": {"port": 22}}), json!({"tcp": {"address": "10.0.0.5", "port": 22}})),
            (json!({"tcp": {"port": 22, "address": "x"}}), json!({"tcp": {"address": "x", "port": 22}})),
            (json!({"http": {}}), json!({"http": {"url": "http://10.0.0.5:80/", "status": 200}})),
            (
                json!({"http": {"scheme": "https", "address": "2001:db8::1", "path": "/x?y", "status": 204}}),
                json!({"http": {"url": "https://[2001:db8::1]:443/x?y", "status": 204}}),
            ),
            (
                json!({"http": {"port": 8080, "contains": "a", "pattern": "b", "header": {"name": "c", "pattern": "d"}}}),
                json!({"http": {"url": "http://10.0.0.5:8080/", "status": 200, "contains": "a", "pattern": "b",
                    "header": {"name": "c", "pattern": "d"}}}),
            ),
            (
                json!({"ssh": {"user": "u", "privateKeySecretRef": key, "command": "true"}}),
                json!({"ssh": {"user": "u", "address": "10.0.0.5", "port": 22, "keyFile": "/etc/vmmigration-check/1",
                    "hostKeys": ["ssh-ed25519 CONSOLE"], "command": "true"}}),
            ),
            (
                json!({"ssh": {"user": "u", "privateKeySecretRef": key, "command": "true", "address": "x", "port": 2,
                    "hostKey": "ssh-ed25519 GIVEN"}}),
                json!({"ssh": {"user": "u", "address": "x", "port": 2, "keyFile": "/etc/vmmigration-check/1",
                    "hostKeys": ["ssh-ed25519 CONSOLE", "ssh-ed25519 GIVEN"], "command": "true"}}),
            ),
        ];
        for (mut check, mut expected) in cases {
            check["name"] = json!("c");
            (expected["name"], expected["timeoutSeconds"]) = (json!("c"), json!(300));
            let console = json!({"name": "boot", "console": {"pattern": "x"}});
            let text = given(json!([console, check]));
            assert_eq!(text, json!([expected]));
        }
    }
}
