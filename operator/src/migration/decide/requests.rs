//! `spec.requests` and `spec.suspend`: what somebody wants in the middle. A token is answered once, in any phase.

use super::{AT_ONCE, Draft, LATER, ROLLED_BACK, hooks, lock, next::Stop, retry};
use crate::{
    crd::{conditions::reason, v1alpha1::*},
    migration::step::Step,
};

type Answer = (RequestResult, String);

/// Verbs by precedence: of those that are asked for in the same look, the first that can be carried out is.
const VERBS: [RequestName; 5] = [
    RequestName::StartSource,
    RequestName::Cancel,
    RequestName::Rollback,
    RequestName::Retry,
    RequestName::Retire,
];

/// Answers the tokens that were not answered before.
pub(super) fn answer(d: &mut Draft<'_>, first_seen: bool) {
    let Some(wanted) = d.input.spec.requests.clone() else { return };
    let mut carried_out: Option<RequestName> = None;
    for name in VERBS {
        let token = match name {
            RequestName::Cancel => &wanted.cancel,
            RequestName::Rollback => &wanted.rollback,
            RequestName::Retry => &wanted.retry,
            RequestName::Retire => &wanted.retire,
            RequestName::StartSource => &wanted.start_source,
        };
        let Some(token) = token else { continue };
        if d.status.requests.iter().any(|r| r.name == name && r.token == *token) {
            continue;
        }
        let (result, message) = match carried_out {
            _ if first_seen => baseline(),
            Some(other) => (
                RequestResult::Superseded,
                format!("{} was asked for at the same time and comes first", other.verb()),
            ),
            None => carry_out(d, name, token),
        };
        if result == RequestResult::Done {
            carried_out = Some(name);
        }
        let row = RequestRow { name, token: token.clone(), result, message, at: Some(d.now()) };
        d.status.requests.retain(|r| r.name != name);
        d.status.requests.push(row);
    }
}

/// The command that asks for something.
pub(super) fn command(d: &Draft<'_>, name: RequestName) -> String {
    let (me, verb) = (d.input.me, name.verb());
    // A token that was answered is not heard again; the generation is a new one with every change of the spec.
    let token = d.input.generation.unwrap_or_default();
    format!(
        "kubectl patch vmm {} -n {} --type merge -p '{{\"spec\":{{\"requests\":{{\"{verb}\":\"{token}\"}}}}}}'",
        me.name, me.namespace
    )
}

/// What was promised turns out to be impossible once the clouds were looked at.
pub(super) fn refuse_later(d: &mut Draft<'_>, name: RequestName, why: &str) {
    let now = d.now();
    if let Some(row) = d.status.requests.iter_mut().find(|r| r.name == name) {
        (row.result, row.message, row.at) = (RequestResult::Refused, why.into(), Some(now));
    }
}

/// An object that is applied again under a new UID must not repeat what was asked of its predecessor.
fn baseline() -> Answer {
    (
        RequestResult::Superseded,
        "it was there when the object was first seen; a new value is a request".into(),
    )
}

fn carry_out(d: &mut Draft<'_>, name: RequestName, token: &str) -> Answer {
    match name {
        RequestName::Cancel => cancel(d, token),
        RequestName::Rollback => rollback(d, token),
        RequestName::Retry => again(d),
        RequestName::Retire => retire(d),
        RequestName::StartSource => start_source(d, token),
    }
}

fn done(message: impl Into<String>) -> Answer {
    (RequestResult::Done, message.into())
}

fn refused(message: impl Into<String>) -> Answer {
    (RequestResult::Refused, message.into())
}

fn cancel(d: &mut Draft<'_>, token: &str) -> Answer {
    let phase = d.phase();
    if phase.succeeded() {
        let name = &d.input.spec.source.server;
        let instead = match phase {
            Phase::Retired => "there is no way back: the source is gone".to_string(),
            _ => format!("to go back: {}", command(d, RequestName::Rollback)),
        };
        return refused(format!("it has succeeded: {name} runs in the destination; {instead}"));
    }
    if d.status.retry_requested_at.take().is_some() {
        if let Some(failure) = d.status.failure.as_mut().filter(|_| !phase.gave_up()) {
            failure.cancelled = true;
        }
        return done("no new try is begun");
    }
    if phase.gave_up() {
        return refused("it has ended already, and the source was given back");
    }
    if d.status.failure.is_some() {
        return (RequestResult::Superseded, "the source is being given back already".into());
    }
    d.fail(reason::CANCELLED, format!("cancelled by spec.requests.cancel {token:?}"));
    if let Some(failure) = &mut d.status.failure {
        failure.cancelled = true;
    }
    done("the source is given back, and what was made is removed")
}

fn rollback(d: &mut Draft<'_>, token: &str) -> Answer {
    let deleted = d.status.retirement.as_ref().is_some_and(|r| r.deletion_requested_at.is_some());
    match d.phase() {
        Phase::Retired => refused("the source was retired: its server and volumes are gone"),
        Phase::Retiring if deleted => refused("the source is being deleted: there is no way back"),
        Phase::Succeeded | Phase::Retiring => {
            go_back(d);
            done("the destination is stopped and kept, then the source is started again")
        }
        phase if phase.gave_up() => refused("it has ended already, and the source was given back"),
        _ if d.status.failure.is_some() => {
            (RequestResult::Superseded, "the source is being given back already".into())
        }
        _ => {
            d.fail(ROLLED_BACK, format!("rolled back by spec.requests.rollback {token:?}"));
            done("the source is given back; what never ran in the destination is removed")
        }
    }
}

/// After success: the way back is looked for.
fn go_back(d: &mut Draft<'_>) {
    d.status.retirement = None;
    d.status.rollback = Some(RollbackStatus { requested_at: Some(d.now()), ..Default::default() });
    look_again(d);
}

/// The one exception to "never two": a person, who types the server's id, says that the destination's cloud is gone. It
/// counts only while that cloud cannot be seen, and what runs there is stopped as soon as it can.
fn start_source(d: &mut Draft<'_>, token: &str) -> Answer {
    let s = d.status.source.clone().unwrap_or_default();
    let deleted = d.status.retirement.as_ref().is_some_and(|r| r.deletion_requested_at.is_some());
    let phase = d.phase();
    if s.claimed_at.is_none() {
        return refused("the source was not touched");
    }
    if phase == Phase::Retired || phase == Phase::Retiring && deleted {
        return refused("the source was retired, or is being deleted");
    }
    if phase.gave_up() {
        return refused("it has ended already, and the source was given back");
    }
    if phase == Phase::Held {
        return refused("somebody has the source: it stays as they want it");
    }
    if token.split(' ').next() != Some(s.server_id.as_str()) {
        let name = s.server_name;
        return refused(format!(
            "the value is not the id of server {name}, which status.source.serverId has"
        ));
    }
    let now = d.now();
    d.source().start_anyway_at = Some(now);
    d.note("spec.requests.startSource: the source is started also while the destination cannot be seen");
    if phase.succeeded() {
        go_back(d);
    } else {
        d.fail(ROLLED_BACK, "rolled back by spec.requests.startSource");
        if d.input.seen.report_exists {
            d.step(Step::FinishReport);
        }
    }
    done(
        "the source is started also while the destination cannot be seen; what runs there is stopped when it is seen",
    )
}

fn again(d: &mut Draft<'_>) -> Answer {
    let phase = d.phase();
    if phase.succeeded() {
        return refused("it has succeeded: there is nothing to try again");
    }
    let cancelled = d.status.failure.as_ref().is_some_and(|f| f.cancelled);
    if phase == Phase::Cancelled || cancelled {
        return refused("it was cancelled; delete this VmMigration and create it again");
    }
    if d.status.trouble.take_if(|t| t.stalled).is_some() {
        d.recheck = Some(AT_ONCE);
        return done("what is in the way is tried again; the server in the destination stays as it is");
    }
    if let Some(why) = retry::kept_server(d) {
        return refused(why);
    }
    if phase != Phase::Held && d.status.failure.is_none() {
        return refused("it is under way: nothing has failed");
    }
    if phase == Phase::Held {
        d.fail("Held", "ended by spec.requests.retry, for a new try");
    }
    d.status.retry_requested_at = Some(d.now());
    look_again(d);
    done("a new try begins when everything that this one made is gone; it may stop the source again")
}

fn retire(d: &mut Draft<'_>) -> Answer {
    match d.phase() {
        Phase::Retired => refused("it was retired already"),
        Phase::Retiring => (RequestResult::Superseded, "it is being retired already".into()),
        Phase::Succeeded if d.status.rollback.is_some() => refused("it is being rolled back"),
        Phase::Succeeded => {
            d.status.retirement =
                Some(RetirementStatus { requested_at: Some(d.now()), ..Default::default() });
            d.recheck = Some(AT_ONCE);
            done("the source's server is deleted, then its volumes, if the destination still serves")
        }
        _ => refused("only after success: the source is all there is"),
    }
}

/// What follows needs a fresh look at both clouds, and another clean-up.
pub(super) fn look_again(d: &mut Draft<'_>) {
    d.status.cleaned_up_at = None;
    d.status.clean_looks = 0;
    d.recheck = Some(AT_ONCE);
}

/// Is the way forward closed? The way back never is.
pub(super) fn suspended(d: &mut Draft<'_>) -> bool {
    let wanted = d.input.spec.suspend == Some(true);
    let ended = d.phase().succeeded() || d.phase().gave_up();
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
pub(super) fn hold(d: &mut Draft<'_>) -> Stop {
    // Nobody knows for how long.
    if !d.claimed() {
        lock::put_back(d);
    }
    let (me, phase) = (d.input.me, d.phase());
    Stop::waiting(format!(
        "Suspended in {phase:?}; nothing new is begun{}. To go on: kubectl patch vmm {} -n {} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'",
        d.where_source_is(), me.name, me.namespace
    ))
    .again(LATER)
}
