//! What people are told at the end: where the server runs, what became of the source, and what can be asked for.

use super::{Draft, requests, retirement, retry, way_back};
use crate::crd::v1alpha1::*;

/// After success.
pub(super) fn of_success(d: &mut Draft<'_>) {
    let x = d.status.destination.clone().unwrap_or_default();
    let (from, to) = (&d.input.spec.source, &d.input.spec.destination.cloud);
    let address = x.addresses.first().map(|a| format!(" at {a}")).unwrap_or_default();
    let kept = old_server(d);
    let server = x.server_id.unwrap_or_default();
    let trouble = clean_up_waits(d);
    d.say(format!("{} runs in {to}{address} as {server}, proven; {kept}{trouble}", from.server));
}

/// Half a sentence about what clean-up waits for.
fn clean_up_waits(d: &Draft<'_>) -> String {
    d.status.trouble.as_ref().map(|t| format!("; clean-up waits: {}", t.message)).unwrap_or_default()
}

/// Half a sentence about the source after success, and what can be asked for.
fn old_server(d: &Draft<'_>) -> String {
    let cloud = &d.input.spec.source.cloud;
    let r = d.status.retirement.clone().unwrap_or_default();
    if let Some(at) = r.retired_at {
        return format!("the old server and its volumes in {cloud} are gone since {}", at.0);
    }
    let rollback = requests::command(d, RequestName::Rollback);
    let kept = format!("the old server is kept, stopped and locked, in {cloud}");
    let until = match (r.refused, retirement::due(d)) {
        (Some(why), _) => format!("; it was not retired: {why}"),
        (None, Some(due)) => format!(" until {}", due.0),
        (None, None) => String::new(),
    };
    format!("{kept}{until}; to go back to it: {rollback}")
}

/// After the end without success.
pub(super) fn of_failure(d: &mut Draft<'_>, kept: &str) {
    let failure = d.status.failure.clone().unwrap_or_default();
    let trouble = clean_up_waits(d);
    let next = if failure.cancelled { String::new() } else { format!("; {}", retry::next_command(d)) };
    d.say(format!("{}; {}{kept}{trouble}{next}", failure.message, way_back::source_now(d)));
}
