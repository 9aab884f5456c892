//! Checks that are asked once more: of the destination before the source is deleted, of the source after a rollback.

use super::{
    Draft, checks as asking,
    jobs::{Progress, Wanted},
    next::Stop,
};
use crate::{cloud::Server, crd::v1alpha1::*, migration::names::Side};

/// Purpose of the Job that asks the source after a rollback.
pub(super) const OF_SOURCE: &str = "check-source";
/// Purpose of the Job that asks the destination before the source is deleted.
pub(super) const OF_DESTINATION: &str = "check-again";
/// How long a Job gets beyond the checks' own time, in seconds.
const SPARE_SECONDS: i64 = 300;

/// The checks that a pod without any rights can ask.
pub(super) fn asked_from_outside(spec: &VmMigrationSpec) -> Vec<Check> {
    let all = spec.verification.iter().flat_map(|v| &v.checks);
    all.filter(|c| c.tcp.is_some() || c.http.is_some()).cloned().collect()
}

/// Those of them that speak to the server itself, wherever it runs.
fn asked_of_the_server(spec: &VmMigrationSpec) -> Vec<Check> {
    let elsewhere = |c: &Check| {
        c.tcp.as_ref().is_some_and(|t| t.address.is_some())
            || c.http.as_ref().is_some_and(|h| h.address.is_some())
    };
    asked_from_outside(spec).into_iter().filter(|c| !elsewhere(c)).collect()
}

fn longest(checks: &[Check]) -> i64 {
    checks.iter().map(|c| i64::from(c.timeout_seconds.unwrap_or(300))).max().unwrap_or(0)
}

/// A Job near one side asks.
pub(super) fn ask(d: &mut Draft<'_>, side: Side, purpose: &str, checks: &[Check], address: &str) -> Progress {
    let seconds = longest(checks);
    d.job(Wanted {
        side,
        purpose: purpose.into(),
        task: asking::task(checks, address, &[], seconds),
        credentials: false,
        deadline_seconds: seconds + 120,
        attempts: 2,
    })
}

/// A server's first fixed address.
pub(super) fn address(server: &Server) -> Option<String> {
    server.addresses.iter().find(|a| a.fixed).map(|a| a.address.clone())
}

/// The source runs again after a rollback: does it serve? Its answers are recorded; none of them holds it up.
pub(super) fn of_source(d: &mut Draft<'_>, server: &Server) -> Result<(), Stop> {
    let checks = asked_of_the_server(d.input.spec);
    let now = d.now();
    let Some(rollback) = &mut d.status.rollback else { return Ok(()) };
    let since = Some(rollback.running_at.get_or_insert(now).clone());
    if !rollback.checks.is_empty() || checks.is_empty() {
        return Ok(());
    }
    let answer = match address(server) {
        None => Err("it has no fixed address".to_string()),
        _ if d.input.seen.source_cluster.view().is_none() => Err("its cluster does not answer".into()),
        _ if d.past(&since, longest(&checks) + SPARE_SECONDS) => Err("no answer in time".into()),
        Some(address) => match ask(d, Side::Source, OF_SOURCE, &checks, &address) {
            Progress::Succeeded(result) => Ok(asking::rows(&result)),
            Progress::Failed(why) => Err(why),
            Progress::Running(why) => {
                let what = format!("{} runs in A again; asking its checks at {address}: {why}", server.name);
                return Err(Stop::waiting(what));
            }
            Progress::Again => return Err(Stop::as_said()),
        },
    };
    let not_asked = |why: String| {
        let row = |c: &Check| CheckRow { name: c.name.clone(), passed: false, message: why.clone() };
        checks.iter().map(row).collect()
    };
    let rows = answer.unwrap_or_else(not_asked);
    // In status before the claim is released: without a claim nothing is asked any more.
    d.status.rollback.get_or_insert_default().checks = rows;
    Err(Stop::written_first())
}
