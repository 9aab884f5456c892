//! When the source may be stopped: `spec.cutover`. A time counts only if it was seen while it was still to come, and
//! only until `notAfter`; every other time waits for a person.

use super::{
    Draft, LATER,
    next::{Next, Stop},
};
use crate::crd::v1alpha1::*;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

/// How long after its time a cutover may begin when `notAfter` says nothing, in seconds.
const LATEST_SECONDS: i64 = 3600;

/// What `spec.cutover` says now.
pub(super) enum Word {
    /// The source may be stopped.
    Go,
    /// At this time.
    At(Timestamp),
    /// When somebody says so; why a time that was given does not count.
    Waits(Option<String>),
}

/// Records a time while it is still to come: whoever first sees it later does not know what has become of it.
pub(super) fn remember(d: &mut Draft<'_>) {
    let cutover = &d.input.spec.cutover;
    let at = cutover.at.as_ref().filter(|_| cutover.mode == CutoverMode::At);
    let recorded = d.status.cutover.as_ref().and_then(|c| c.awaits.clone());
    let awaits = match at {
        None => None,
        // Status holds whole seconds.
        Some(at) if at.0 > d.input.now => Timestamp::from_second(at.0.as_second()).ok().map(Time),
        Some(_) => recorded.clone(),
    };
    if awaits != recorded {
        d.status.cutover.get_or_insert_default().awaits = awaits;
    }
    // A stop that was asked for is not taken back.
    let asked =
        d.status.source.as_ref().is_some_and(|s| s.stop_requested_at.is_some() || s.stopped_at.is_some());
    let missed = !asked && matches!(word(d), Word::Waits(Some(_)));
    if missed || d.status.cutover.is_some() {
        d.status.cutover.get_or_insert_default().missed = missed;
    }
}

/// What `spec.cutover` says now.
pub(super) fn word(d: &Draft<'_>) -> Word {
    let (cutover, now) = (&d.input.spec.cutover, d.input.now);
    let at = match (cutover.mode, &cutover.at) {
        (CutoverMode::Now, _) => return Word::Go,
        (CutoverMode::At, Some(at)) => at.0,
        _ => return Word::Waits(None),
    };
    if at > now {
        return Word::At(at);
    }
    let awaited = d.status.cutover.as_ref().and_then(|c| c.awaits.as_ref()).map(|t| t.0.as_second());
    if awaited != Some(at.as_second()) {
        return Word::Waits(Some(format!("cutover.at {at} was past when first seen")));
    }
    let latest = latest(cutover, at);
    if now > latest {
        return Word::Waits(Some(format!("cutover.at {at} has passed, and at {latest} it was too late")));
    }
    Word::Go
}

/// Until when it may begin.
fn latest(cutover: &Cutover, at: Timestamp) -> Timestamp {
    let otherwise = at.checked_add(SignedDuration::from_secs(LATEST_SECONDS)).unwrap_or(Timestamp::MAX);
    cutover.not_after.as_ref().map_or(otherwise, |t| t.0)
}

/// May the source be stopped?
pub(super) fn granted(d: &Draft<'_>) -> bool {
    matches!(word(d), Word::Go)
}

/// The source may be stopped.
pub(super) fn grant(d: &mut Draft<'_>) -> Next {
    let now = d.now();
    d.status.cutover.get_or_insert_default().granted_at = Some(now);
    d.say("Cutover granted; looking at everything again before the stop");
    Next::enter(Phase::Stopping, "cutover granted")
}

/// Why a source that was to be stopped at a time may not be stopped any more, or not yet: it took too long to get here.
pub(super) fn taken_back(d: &Draft<'_>) -> Option<String> {
    match word(d) {
        Word::At(at) => Some(format!("cutover.at is {at} now")),
        Word::Waits(why) => why,
        Word::Go => None,
    }
}

/// Right before something is done to the source: with the go taken back, it waits for a person.
pub(super) fn still_granted(d: &Draft<'_>, done: &str) -> Result<(), Stop> {
    let Some(why) = taken_back(d) else { return Ok(()) };
    let what = format!("{done}, and A is not stopped: {why}; it waits for you: {}", go(d));
    Err(Stop::waiting(what).again(LATER))
}

/// The command that gives the go.
pub(super) fn go(d: &Draft<'_>) -> String {
    let (name, namespace) = (&d.input.me.name, &d.input.me.namespace);
    // What belongs to a time would not go with the mode Now.
    let latest = if d.input.spec.cutover.not_after.is_some() { r#","notAfter":null"# } else { "" };
    let patch = format!(r#"{{"spec":{{"cutover":{{"mode":"Now","at":null{latest}}}}}}}"#);
    format!("kubectl patch vmm {name} -n {namespace} --type merge -p '{patch}'")
}
