//! `spec.requests` and `spec.suspend`: what somebody wants in the middle. A token is answered once, in any phase.

use super::{Decision, Draft, LATER, hooks};
use crate::crd::v1alpha1::*;

/// Answers the token of `requests.cancel`, unless it was answered before.
pub(super) fn answer(d: &mut Draft<'_>, first_seen: bool) {
    let Some(token) = d.input.spec.requests.as_ref().and_then(|r| r.cancel.clone()) else { return };
    let name = RequestName::Cancel;
    if d.status.requests.iter().any(|r| r.name == name && r.token == token) {
        return;
    }
    let (result, message) = if first_seen { baseline() } else { cancel(d, &token) };
    let at = Some(d.now());
    d.status.requests.retain(|r| r.name != name);
    d.status.requests.push(RequestRow { name, token, result, message, at });
}

/// An object that is applied again under a new UID must not repeat what was asked of its predecessor.
fn baseline() -> (RequestResult, String) {
    (
        RequestResult::Superseded,
        "it was there when the object was first seen; a new value is a request".into(),
    )
}

fn cancel(d: &mut Draft<'_>, token: &str) -> (RequestResult, String) {
    match d.phase() {
        Phase::Succeeded => {
            let name = &d.input.spec.source.server;
            (RequestResult::Refused, format!("it has succeeded: {name} runs in the destination"))
        }
        Phase::Failed | Phase::Cancelled => (RequestResult::Refused, "it has ended already".into()),
        _ if d.status.failure.is_some() => {
            (RequestResult::Superseded, "the source is being given back already".into())
        }
        _ => {
            d.fail("Cancelled", format!("cancelled by spec.requests.cancel {token:?}"));
            if let Some(failure) = &mut d.status.failure {
                failure.cancelled = true;
            }
            (RequestResult::Done, "the source is given back, and what was made is removed".into())
        }
    }
}

/// Is the way forward closed? The way back never is.
pub(super) fn suspended(d: &mut Draft<'_>) -> bool {
    let wanted = d.input.spec.suspend == Some(true);
    let ended = matches!(d.phase(), Phase::Succeeded | Phase::Failed | Phase::Cancelled);
    let holds = wanted && !ended && d.status.failure.is_none();
    match (holds, &d.status.suspended_since) {
        (true, None) => {
            d.status.suspended_since = Some(d.now());
            d.note("suspended");
        }
        (false, Some(since)) => {
            let since = since.clone();
            hooks::wait_anew(d, &since);
            d.status.suspended_since = None;
            d.note("not suspended any more");
        }
        _ => {}
    }
    holds
}

/// Nothing new is begun. What was asked of a cloud or a Job before goes on.
pub(super) fn hold(mut d: Draft<'_>) -> Decision {
    if d.status.phase.is_none() {
        d.enter(Phase::Pending, "first seen");
    }
    let (me, phase) = (d.input.me, d.phase());
    d.say(format!(
        "Suspended in {phase:?}; nothing new is begun{}. To go on: kubectl patch vmm {} -n {} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'",
        d.where_source_is(), me.name, me.namespace
    ));
    d.recheck = Some(LATER);
    d.decided()
}
