//! `Failed`, `Cancelled` and `RolledBack`: the source was given back; what we made goes, but for the data that are kept
//! for a new try.

use crate::{
    crd::v1alpha1::*,
    migration::{
        decide::{
            Draft, cleanup, hooks,
            next::{Next, Stop},
            pause, retry, way_back, words,
        },
        looks,
    },
};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    if way_back::is_stranded(d) {
        return Ok(way_back::reopen(d));
    }
    if d.status.cleaned_up_at.is_some() {
        d.recheck = may_return(d);
        return Ok(Next::Stay);
    }
    cleanup::stop_jobs(d, &[]);
    way_back::settle_later(d)?;
    if let Err(stop) = hooks::gate(d, HookPhase::Finally) {
        d.stopped(stop);
        let waits = d.status.message.clone().unwrap_or_default();
        words::of_failure(d, &format!("; {waits}"));
        return Ok(Next::Stay);
    }
    let mut kept = String::new();
    if cleanup::nothing_made(d) || cleanup::clouds_are_clean(d) {
        match what_now(d) {
            Then::TryAgain => return Ok(retry::begin(d)),
            Then::Wait(stop) => d.stopped(stop),
            Then::Keep(until) => kept = keep_data(d, until),
            Then::Finish => cleanup::finish(d),
        }
    }
    words::of_failure(d, &kept);
    Ok(Next::Stay)
}

/// What follows when nothing is left in either cloud.
enum Then {
    TryAgain,
    Keep(Timestamp),
    Finish,
    Wait(Stop),
}

fn what_now(d: &mut Draft<'_>) -> Then {
    let again = d.status.retry_requested_at.is_some();
    if again && !retry::purge_begun(d) {
        // Only there it is seen that what was read is not being removed.
        return d.input.seen.source_cluster.problem().map_or(Then::TryAgain, |p| Then::Wait(p.into()));
    }
    if let Some(until) = retry::kept_until(d) {
        return Then::Keep(until);
    }
    if !cleanup::nothing_made(d)
        && let Err(stop) = cleanup::drop_data(d)
    {
        return Then::Wait(stop);
    }
    if again { Then::TryAgain } else { Then::Finish }
}

/// How soon to look again for a source that was believed to be gone: less often with time, each hour in the end.
fn may_return(d: &Draft<'_>) -> Option<Duration> {
    let since = d.status.finished_at.as_ref()?.0;
    let waited = d.input.now.duration_since(since).as_secs();
    looks::source_may_return(&d.status, d.input.now).then(|| pause(waited, 60..=3600))
}

/// The repository stays until a new try uses it, or its time is over.
fn keep_data(d: &mut Draft<'_>, until: Timestamp) -> String {
    let repository = d.status.store.as_ref().map(|s| s.repository.clone()).unwrap_or_default();
    let why = format!("kept for a new try until {until}, by spec.onFailure.keepData");
    d.status.retained.retain(|r| !r.is_repository(&repository));
    d.status.retained.push(RetainedRow::repository(&repository, why));
    let left = until.duration_since(d.input.now).as_secs().clamp(1, 600);
    d.recheck = Some(Duration::from_secs(left.unsigned_abs()));
    format!("; what was read is kept in the repository until {until}")
}
