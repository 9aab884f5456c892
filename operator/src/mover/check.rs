//! `mover check`: polls the destination's checks side by side until they pass or time is up.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use reqwest::{Client, Response, redirect};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{error::MoverError, ssh};
use crate::{
    contract::{
        Check, CheckKind, CheckResult, Checks, ChecksResult, Failure, FailureReason, Header, pattern, shorten,
    },
    net::{AddressCheck, policy_resolver},
};

/// Between two tries of one check: what it tells of the downtime is not off by more.
const INTERVAL: Duration = Duration::from_millis(500);
/// Between two tries over SSH: a guest may lock out whoever logs in more often.
const INTERVAL_SSH: Duration = Duration::from_secs(2);
/// For one try.
const TRY: Duration = Duration::from_secs(5);
/// For one try over SSH: a login and a command.
const TRY_SSH: Duration = Duration::from_secs(30);
/// As much of an answer is searched.
const MAX_BODY: usize = 256 << 10;
/// With more, the results would not fit into a termination message.
const MAX_CHECKS: usize = 32;
const MAX_NAME: usize = 63;
const MAX_MESSAGE: usize = 200;
const MAX_FAILURE: usize = 1000;

/// Reads the list of checks.
pub fn read(task: &Checks) -> Result<Vec<Check>, MoverError> {
    let invalid =
        |why: String| MoverError::terminal(FailureReason::InvalidArguments, format!("--checks: {why}"));
    let checks = task.read().map_err(|error| invalid(error.to_string()))?;
    if checks.is_empty() || checks.len() > MAX_CHECKS {
        return Err(invalid(format!("1 to {MAX_CHECKS} checks are needed, {} were given", checks.len())));
    }
    let mut names = HashSet::new();
    for check in &checks {
        if check.name.is_empty() || check.name.chars().count() > MAX_NAME || !names.insert(&check.name) {
            return Err(invalid(format!(
                "name {:?} is empty, too long or there twice",
                shorten(&check.name, MAX_NAME)
            )));
        }
        if let Some(why) = patterns(&check.kind).into_iter().find_map(|text| pattern(text).err()) {
            return Err(invalid(format!("{}: a pattern cannot be read: {why}", check.name)));
        }
    }
    Ok(checks)
}

fn patterns(kind: &CheckKind) -> Vec<&String> {
    match kind {
        CheckKind::Http { pattern, header, .. } => {
            pattern.iter().chain(header.iter().filter_map(|h| h.pattern.as_ref())).collect()
        }
        CheckKind::Tcp { .. } | CheckKind::Ssh { .. } => vec![],
    }
}

/// How long one try may take, and how long after it the next one is made.
fn pace(kind: &CheckKind) -> (Duration, Duration) {
    if matches!(kind, CheckKind::Ssh { .. }) { (TRY_SSH, INTERVAL_SSH) } else { (TRY, INTERVAL) }
}

/// Runs all checks; a failure holds every result, too.
pub async fn run(
    checks: &[Check],
    deadline: Duration,
    policy: AddressCheck,
) -> Result<ChecksResult, Failure<ChecksResult>> {
    let client = client(&policy)?;
    let begun = Instant::now();
    let until = |check: &Check| begun + check.timeout_seconds.map_or(deadline, Duration::from_secs);
    let ended = join_all(checks.iter().map(|check| poll(check, &client, &policy, until(check)))).await;
    let (checks, passed): (Vec<_>, Vec<_>) = ended.into_iter().unzip();
    let first_passed_at = passed.into_iter().flatten().min();
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| !check.ok)
        .map(|check| format!("{}: {}", check.name, check.message))
        .collect();
    if failed.is_empty() {
        return Ok(ChecksResult { checks, first_passed_at });
    }
    let message =
        format!("{} of {} checks did not pass in time: {}", failed.len(), checks.len(), failed.join("; "));
    Err(Failure {
        reason: FailureReason::CheckFailed,
        message: shorten(&message, MAX_FAILURE),
        // They were asked for as long as was wanted.
        retryable: false,
        result: Some(ChecksResult { checks, first_passed_at }),
    })
}

fn client(policy: &AddressCheck) -> Result<Client, MoverError> {
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(TRY)
        .timeout(TRY)
        // Every try is a new connection: an old one proves nothing about the server's port.
        .pool_max_idle_per_host(0)
        .dns_resolver(policy_resolver(Arc::clone(policy)))
        .build()
        .map_err(|error| MoverError::terminal(FailureReason::Internal, format!("no HTTP client: {error}")))
}

/// How it ended, and when it passed.
async fn poll(
    check: &Check,
    client: &Client,
    policy: &AddressCheck,
    until: Instant,
) -> (CheckResult, Option<Timestamp>) {
    let mut attempts = 0;
    let (limit, interval) = pace(&check.kind);
    loop {
        attempts += 1;
        let tried = match timeout(limit, attempt(&check.kind, client, policy)).await {
            Ok(tried) => tried,
            Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
        };
        let ok = tried.is_ok();
        let message = tried.unwrap_or_else(|why| why);
        if ok || Instant::now() + interval > until {
            tracing::info!(check = check.name, ok, attempts, message, "check ended");
            let message = shorten(&message, MAX_MESSAGE);
            let result = CheckResult { name: check.name.clone(), ok, attempts, message };
            return (result, ok.then(Timestamp::now));
        }
        sleep(interval).await;
    }
}

async fn attempt(kind: &CheckKind, client: &Client, policy: &AddressCheck) -> Result<String, String> {
    match kind {
        CheckKind::Tcp { address, port } => tcp(address, *port, policy).await,
        CheckKind::Http { url, status, contains, pattern, header } => {
            let response = get(client, policy, url).await?;
            expect_head(&response, *status, header.as_ref())?;
            expect_body(response, contains.as_deref(), pattern.as_deref()).await
        }
        CheckKind::Ssh { user, address, port, key_file, host_keys, command } => {
            let target = ssh::Target {
                user: user.clone(),
                host: address.clone(),
                port: *port,
                key_file: key_file.clone(),
                host_keys: host_keys.clone(),
            };
            over_ssh(&target, command, policy).await
        }
    }
}

async fn tcp(address: &str, port: u16, policy: &AddressCheck) -> Result<String, String> {
    let host = address.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| format!("{address}: {error}"))?;
    let mut last = format!("{address} has no address");
    for socket in found {
        policy(socket.ip())?;
        match TcpStream::connect(socket).await {
            Ok(_) => return Ok(format!("{socket} accepts connections")),
            Err(error) => last = format!("{socket}: {error}"),
        }
    }
    Err(last)
}

/// What the command prints is thrown away: what is in the guest is not ours to publish.
async fn over_ssh(target: &ssh::Target, command: &str, policy: &AddressCheck) -> Result<String, String> {
    let script = ssh::Script { text: command.to_owned(), ..Default::default() };
    // A little less than one try may take, so that ssh's own last answer is heard.
    let limit = TRY_SSH - Duration::from_secs(2);
    match ssh::run(target, &script, ssh::Output::Discarded, limit, policy).await {
        Ok(0) => Ok("the command ended with exit code 0".into()),
        Ok(code) => Err(format!("the command ended with exit code {code}")),
        Err(error) => Err(error.to_string()),
    }
}

async fn get(client: &Client, policy: &AddressCheck, url: &str) -> Result<Response, String> {
    let parsed = url::Url::parse(url).map_err(|error| format!("the URL cannot be parsed: {error}"))?;
    match parsed.host() {
        Some(url::Host::Ipv4(ip)) => policy(ip.into())?,
        Some(url::Host::Ipv6(ip)) => policy(ip.into())?,
        _ => {}
    }
    client.get(parsed).send().await.map_err(cause)
}

fn expect_head(response: &Response, status: u16, header: Option<&Header>) -> Result<(), String> {
    let got = response.status();
    if got.as_u16() != status {
        return Err(format!("answered {got}, expected {status}"));
    }
    let Some(Header { name, pattern: wanted }) = header else { return Ok(()) };
    let values: Vec<_> = response.headers().get_all(name).iter().collect();
    if values.is_empty() {
        return Err(format!("answered {got}, but without the header {name}"));
    }
    let Some(wanted) = wanted else { return Ok(()) };
    let wanted = pattern(wanted)?;
    if values.iter().any(|value| wanted.is_match(&String::from_utf8_lossy(value.as_bytes()))) {
        return Ok(());
    }
    Err(format!("answered {got}, but the header {name} does not match the pattern"))
}

/// The body is searched, never shown: what is behind the URL is not ours to publish.
async fn expect_body(
    response: Response,
    contains: Option<&str>,
    wanted: Option<&str>,
) -> Result<String, String> {
    let got = response.status();
    if contains.is_none() && wanted.is_none() {
        return Ok(format!("answered {got}"));
    }
    let body = beginning(response).await?;
    if contains.is_some_and(|text| !body.contains(text)) {
        return Err(format!("answered {got}, but the expected text is not in the body"));
    }
    match wanted.map(pattern).transpose()? {
        Some(wanted) if !wanted.is_match(&body) => {
            Err(format!("answered {got}, but the body does not match the pattern"))
        }
        _ => Ok(format!("answered {got}")),
    }
}

async fn beginning(mut response: Response) -> Result<String, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(cause)? {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_BODY {
            body.truncate(MAX_BODY);
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The innermost cause; the URL may hold a user's password.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut current: &dyn std::error::Error = &error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{EndpointPolicy, address_check};
    use serde_json::{Value, json};

    fn policy(allow_loopback: bool) -> AddressCheck {
        address_check(EndpointPolicy { allow_loopback, denied: Vec::new() })
    }

    fn parse(text: &str) -> Result<Vec<Check>, MoverError> {
        read(&Checks { checks: text.into(), deadline_seconds: 1 })
    }

    #[test]
    fn the_list_is_read() {
        let text = r#"[{"name":"ssh","tcp":{"address":"192.0.2.1","port":22}},
            {"name":"web","http":{"url":"https://x/","status":204,"contains":null}},{"name":"w2","http":{"url":"http://x/"}}]"#;
        let checks = parse(text).unwrap();
        assert_eq!(checks[0].kind, CheckKind::Tcp { address: "192.0.2.1".into(), port: 22 });
        let url = "https://x/".into();
        let plain = CheckKind::Http { url, status: 204, contains: None, pattern: None, header: None };
        assert_eq!(checks[1].kind, plain);
        assert!(matches!(checks[2].kind, CheckKind::Http { status: 200, .. }));
    }

    #[test]
    fn bad_lists_are_refused() {
        let one = r#"{"name":"a","tcp":{"address":"x","port":1}}"#;
        let many = format!(
            "[{}]",
            (0..33).map(|n| one.replace("\"a\"", &format!("\"a{n}\""))).collect::<Vec<_>>().join(",")
        );
        for text in [
            "",
            "[]",
            "{}",
            r#"[{"name":"a"}]"#,
            r#"[{"name":"","tcp":{"address":"x","port":1}}]"#,
            r#"[{"name":"a","http":{"url":"http://x/","pattern":"("}}]"#,
            r#"[{"name":"a","http":{"url":"http://x/","header":{"name":"x","pattern":"("}}}]"#,
            r#"[{"name":"a","ssh":{"user":"u","address":"x","port":22}}]"#,
            &format!("[{one},{one}]"),
            &many,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    /// A check as the operator passes it.
    fn check(name: &str, kind: Value) -> Check {
        let mut check = json!({"name": name});
        check.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        parse(&json!([check]).to_string()).unwrap().remove(0)
    }

    async fn application() -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        use axum::routing::get;
        let ok = get(|| async {
            ([("x-backend", "shop 2"), ("x-backend", "cache")], "all is well\nversion 2.7\n")
        });
        let moved = get(|| async { (http::StatusCode::FOUND, [("location", "/ok")], "") });
        let app = axum::Router::new().route("/ok", ok).route("/moved", moved);
        tokio::spawn(async move { axum::serve(listener, app).await });
        port
    }

    #[tokio::test]
    async fn what_http_must_answer() {
        let port = application().await;
        let cases = [
            ("/ok", json!({"contains": "is well"}), true, "answered 200"),
            ("/ok", json!({"contains": "is broken"}), false, "expected text is not in the body"),
            ("/ok", json!({"pattern": "^version 2\\.[0-9]+$"}), true, "answered 200"),
            ("/ok", json!({"pattern": "version 3", "contains": "well"}), false, "does not match the pattern"),
            ("/ok", json!({"header": {"name": "X-Backend"}}), true, "answered 200"),
            ("/ok", json!({"header": {"name": "x-backend", "pattern": "^cache$"}}), true, "answered 200"),
            (
                "/ok",
                json!({"header": {"name": "x-backend", "pattern": "^shop$"}}),
                false,
                "header x-backend does not match",
            ),
            ("/ok", json!({"header": {"name": "x-other"}}), false, "without the header x-other"),
            ("/ok", json!({"status": 204}), false, "answered 200 OK, expected 204"),
            ("/moved", json!({"status": 302}), true, "answered 302"),
            ("/moved", json!({}), false, "answered 302 Found, expected 200"),
            ("/none", json!({}), false, "answered 404"),
        ];
        for (path, options, passes, message) in cases {
            let mut http = json!({"url": format!("http://127.0.0.1:{port}{path}")});
            http.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            let ended = run(&[check("page", json!({"http": http}))], Duration::ZERO, policy(true)).await;
            let checks = ended.unwrap_or_else(|failure| failure.result.unwrap()).checks;
            assert!(checks[0].ok == passes && checks[0].message.contains(message), "{http}: {checks:?}");
            assert!(!checks[0].message.contains("version 2.7"), "the body is not shown");
        }
    }

    #[tokio::test]
    async fn a_check_is_asked_until_it_passes_or_its_own_time_is_over() {
        let port = application().await;
        let tcp = |name: &str, port: u16| check(name, json!({"tcp": {"address": "127.0.0.1", "port": port}}));
        let mut closed = tcp("closed", 1);
        closed.timeout_seconds = Some(3);
        let hour = Duration::from_secs(3600);
        let failure = run(&[tcp("open", port), closed], hour, policy(true)).await.unwrap_err();
        assert!(!failure.retryable);
        assert!(
            failure.message.starts_with("1 of 2 checks did not pass in time: closed: "),
            "{}",
            failure.message
        );
        assert!(failure.message.contains("refused"), "the last answer: {}", failure.message);
        let failure = failure.result.unwrap();
        let results = failure.checks;
        assert!(results[0].ok && results[0].attempts == 1 && !results[1].ok && results[1].attempts >= 2);
        assert!(failure.first_passed_at.is_some(), "one of them has passed");
        let passing = [tcp("open", port)];
        assert!(run(&passing, Duration::ZERO, policy(true)).await.is_ok());
        let refused = run(&passing, Duration::ZERO, policy(false)).await.unwrap_err();
        assert!(refused.result.unwrap().checks.iter().all(|check| check.message.contains("loopback")));
    }
}
