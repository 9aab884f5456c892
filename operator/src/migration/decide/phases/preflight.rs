//! `Preflight` and `Blocked`: everything is looked at, and nothing is touched, until nothing is in the way.

use crate::{
    crd::v1alpha1::*,
    migration::decide::{
        Draft, hooks, look,
        next::{Next, Stop},
        warm,
    },
};

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    before_anything(d)?;
    look::look(d)?;
    if warm::applies(d) {
        warm::prepare(d);
        return Ok(Next::enter(Phase::Copying, "preflight passed"));
    }
    // In the same pass: who sees the phase reads how to give the go.
    Ok(Next::enter_and_go_on(Phase::AwaitingCutover, "preflight passed"))
}

/// Before anything is looked at, once; but what the spec refers to has to be there, or nothing could be run.
fn before_anything(d: &mut Draft<'_>) -> Result<(), Stop> {
    let wanted = d.input.spec.hooks.iter().any(|h| h.phase == HookPhase::BeforePreflight);
    if wanted && !hooks::begun(&d.status, HookPhase::BeforePreflight) {
        let missing = look::missing(d);
        if !missing.is_empty() {
            d.status.preflight = missing;
            return Err(Stop::Blocked);
        }
    }
    hooks::gate(d, HookPhase::BeforePreflight)
}
