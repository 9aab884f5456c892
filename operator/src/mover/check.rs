//! `mover check`: polls the destination's checks side by side until they pass or time is up.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::future::join_all;
use reqwest::{Client, redirect};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    error::MoverError,
    result::{CheckResult, ChecksResult, Failure, FailureReason, shorten},
};
use crate::store::{AddressCheck, policy_resolver};

/// Between two tries of one check.
const INTERVAL: Duration = Duration::from_secs(2);
/// For one try.
const TRY: Duration = Duration::from_secs(5);
/// As much of an answer is searched.
const MAX_BODY: usize = 256 << 10;
/// With more, the results would not fit into a termination message.
const MAX_CHECKS: usize = 32;
const MAX_NAME: usize = 63;
const MAX_MESSAGE: usize = 200;

/// One check, as the operator passes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Unique within the list.
    pub name: String,
    /// What is tried.
    #[serde(flatten)]
    pub kind: CheckKind,
}

/// What a check tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckKind {
    /// A connection is accepted.
    Tcp {
        /// Name or address.
        address: String,
        /// Port.
        port: u16,
    },
    /// A GET is answered. Redirects are answers, and are not followed.
    Http {
        /// http or https; certificates are verified.
        url: String,
        /// The status that must come.
        #[serde(default = "status_ok")]
        status: u16,
        /// A text that must be in the first 256 KiB of the body.
        #[serde(default)]
        contains: Option<String>,
    },
}

fn status_ok() -> u16 {
    200
}

/// Reads the list of checks.
pub fn parse(text: &str) -> Result<Vec<Check>, MoverError> {
    let invalid =
        |why: String| MoverError::terminal(FailureReason::InvalidArguments, format!("--checks: {why}"));
    let checks: Vec<Check> = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
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
    }
    Ok(checks)
}

/// Runs all checks; a failure holds every result, too.
pub async fn run(
    checks: &[Check],
    deadline: Duration,
    policy: AddressCheck,
) -> Result<ChecksResult, Failure<ChecksResult>> {
    let client = client(&policy)?;
    let until = Instant::now() + deadline;
    let checks = join_all(checks.iter().map(|check| poll(check, &client, &policy, until))).await;
    let failed: Vec<&str> =
        checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
    if failed.is_empty() {
        return Ok(ChecksResult { checks });
    }
    let message = format!(
        "{} of {} checks did not pass within {} s: {}",
        failed.len(),
        checks.len(),
        deadline.as_secs(),
        failed.join(", ")
    );
    let message = shorten(&message, 400);
    Err(Failure {
        reason: FailureReason::CheckFailed,
        message,
        retryable: true,
        result: Some(ChecksResult { checks }),
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

async fn poll(check: &Check, client: &Client, policy: &AddressCheck, until: Instant) -> CheckResult {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let tried = match timeout(TRY, attempt(&check.kind, client, policy)).await {
            Ok(tried) => tried,
            Err(_) => Err(format!("no answer within {} s", TRY.as_secs())),
        };
        let ok = tried.is_ok();
        let message = tried.unwrap_or_else(|why| why);
        if ok || Instant::now() + INTERVAL > until {
            tracing::info!(check = check.name, ok, attempts, message, "check ended");
            let message = shorten(&message, MAX_MESSAGE);
            return CheckResult { name: check.name.clone(), ok, attempts, message };
        }
        sleep(INTERVAL).await;
    }
}

async fn attempt(kind: &CheckKind, client: &Client, policy: &AddressCheck) -> Result<String, String> {
    match kind {
        CheckKind::Tcp { address, port } => tcp(address, *port, policy).await,
        CheckKind::Http { url, status, contains } => {
            http(client, policy, url, *status, contains.as_deref()).await
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

/// The body is searched, never shown: what is behind the URL is not ours to publish.
async fn http(
    client: &Client,
    policy: &AddressCheck,
    url: &str,
    status: u16,
    contains: Option<&str>,
) -> Result<String, String> {
    let parsed = url::Url::parse(url).map_err(|error| format!("the URL cannot be parsed: {error}"))?;
    match parsed.host() {
        Some(url::Host::Ipv4(ip)) => policy(ip.into())?,
        Some(url::Host::Ipv6(ip)) => policy(ip.into())?,
        _ => {}
    }
    let response = client.get(parsed).send().await.map_err(cause)?;
    let got = response.status();
    if got.as_u16() != status {
        return Err(format!("answered {got}, expected {status}"));
    }
    match contains {
        Some(text) if !body_contains(response, text).await? => {
            Err(format!("answered {got}, but the expected text is not in the body"))
        }
        _ => Ok(format!("answered {got}")),
    }
}

async fn body_contains(mut response: reqwest::Response, text: &str) -> Result<bool, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(cause)? {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_BODY {
            body.truncate(MAX_BODY);
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).contains(text))
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
    use crate::{openstack::EndpointPolicy, store::address_check};

    fn policy(allow_loopback: bool) -> AddressCheck {
        address_check(EndpointPolicy { allow_loopback, denied: Vec::new() })
    }

    #[test]
    fn the_list_is_read() {
        let text = r#"[{"name":"ssh","tcp":{"address":"192.0.2.1","port":22}},
            {"name":"web","http":{"url":"https://x/","status":204,"contains":null}},{"name":"w2","http":{"url":"http://x/"}}]"#;
        let checks = parse(text).unwrap();
        assert_eq!(checks[0].kind, CheckKind::Tcp { address: "192.0.2.1".into(), port: 22 });
        assert_eq!(checks[1].kind, CheckKind::Http { url: "https://x/".into(), status: 204, contains: None });
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
            &format!("[{one},{one}]"),
            &many,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn results_of_both_kinds() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = axum::Router::new().route("/ok", axum::routing::get(|| async { "all is well" })).route(
            "/moved",
            axum::routing::get(|| async { (http::StatusCode::FOUND, [("location", "/ok")], "") }),
        );
        tokio::spawn(async move { axum::serve(listener, app).await });
        let http = |name: &str, path: &str, status: u16, contains: Option<&str>| Check {
            name: name.into(),
            kind: CheckKind::Http {
                url: format!("http://127.0.0.1:{port}{path}"),
                status,
                contains: contains.map(Into::into),
            },
        };
        let checks = [
            http("ok", "/ok", 200, Some("is well")),
            http("text", "/ok", 200, Some("is broken")),
            http("moved", "/moved", 302, None),
            http("not-followed", "/moved", 200, None),
            Check { name: "tcp".into(), kind: CheckKind::Tcp { address: "127.0.0.1".into(), port } },
            Check { name: "closed".into(), kind: CheckKind::Tcp { address: "127.0.0.1".into(), port: 1 } },
        ];
        let failure = run(&checks, Duration::from_secs(3), policy(true)).await.unwrap_err();
        let results = failure.result.unwrap().checks;
        let passed: Vec<bool> = results.iter().map(|check| check.ok).collect();
        assert_eq!(passed, [true, false, true, false, true, false], "{results:?}");
        assert!(results[1].attempts >= 2 && results[0].attempts == 1);
        let passing = [checks[0].clone(), checks[4].clone()];
        assert!(run(&passing, Duration::ZERO, policy(true)).await.is_ok());
        let refused = run(&passing, Duration::ZERO, policy(false)).await.unwrap_err();
        assert!(refused.result.unwrap().checks.iter().all(|check| check.message.contains("loopback")));
    }
}
