//! The phases. Each is a module with one entry, which says what is next or why nothing is. No phase calls another, and
//! none enters one: the driver does, by the table in `edges.rs`.

mod awaiting_cutover;
mod copying;
mod creating;
mod deleting;
mod gave_up;
mod held;
mod preflight;
mod retired;
mod retiring;
mod rolling_back;
mod stopping;
mod succeeded;
mod transferring;
mod verifying;

use super::{
    Draft,
    next::{Next, Stop},
};
use crate::crd::v1alpha1::Phase;

/// What is next in the phase that it is in.
pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    if d.input.deleting {
        return deleting::next(d);
    }
    match d.phase() {
        Phase::Succeeded => succeeded::next(d),
        Phase::Retiring => retiring::next(d),
        Phase::Retired => retired::next(d),
        Phase::RollingBack => rolling_back::next(d),
        Phase::Failed | Phase::Cancelled | Phase::RolledBack => gave_up::next(d),
        // Whatever has failed or was given up in a phase ends it.
        _ if d.status.failure.is_some() => give_back(),
        Phase::Deleting => give_back(),
        Phase::Pending => Ok(Next::enter_and_go_on(Phase::Preflight, "first seen")),
        Phase::Preflight | Phase::Blocked => preflight::next(d),
        Phase::Copying => copying::next(d),
        Phase::AwaitingCutover => awaiting_cutover::next(d),
        Phase::Stopping => stopping::next(d),
        Phase::Transferring => transferring::next(d),
        Phase::Creating => creating::next(d),
        Phase::Verifying => verifying::next(d),
        Phase::Held => held::next(d),
    }
}

fn give_back() -> Result<Next, Stop> {
    Ok(Next::enter_and_go_on(Phase::RollingBack, "giving the source back"))
}
