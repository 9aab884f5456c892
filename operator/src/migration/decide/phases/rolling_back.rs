//! `RollingBack`: the source is given back; then the migration has failed, or is cancelled, or rolled back.

use crate::{
    crd::v1alpha1::*,
    migration::decide::{
        Draft, ROLLED_BACK, cleanup, hooks,
        next::{Next, Stop},
        recheck, way_back,
    },
};

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    hooks::abandon(d, "ended: the migration is given up");
    cleanup::stop_jobs(d, &[recheck::OF_SOURCE]);
    hooks::gate(d, HookPhase::OnFailure)?;
    way_back::go(d)?;
    let failure = d.status.failure.clone().unwrap_or_default();
    let end = match &failure {
        f if f.cancelled => Phase::Cancelled,
        f if f.reason == ROLLED_BACK => Phase::RolledBack,
        _ => Phase::Failed,
    };
    let now = d.now();
    d.status.finished_at = Some(now);
    d.status.clean_looks = 0;
    d.status.trouble = None;
    let text = format!("{}; {}", failure.message, way_back::source_now(d));
    d.say(text);
    Ok(Next::enter(end, failure.message))
}
