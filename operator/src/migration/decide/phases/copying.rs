//! `Copying`: passes over the source's volumes while its server runs, until one more would be of no use.

use crate::{
    crd::v1alpha1::*,
    migration::decide::{
        Draft, clock, cutover,
        next::{Next, Stop},
        repository, warm,
    },
};

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    repository::init(d)?;
    warm::pass(d)?;
    let by_itself = d.status.copying.as_ref().is_some_and(|c| c.by_itself);
    // A go that was given before the first pass means: as soon as passes have done what they can.
    if cutover::granted(d) && !by_itself {
        return Ok(cutover::grant(d));
    }
    if let Some(why) = warm::enough(d) {
        return Ok(Next::enter_and_go_on(Phase::AwaitingCutover, why));
    }
    match warm::after_a_failure(d) {
        Some(next) if next > d.input.now => {
            Err(Stop::waiting(format!("The last pass failed; the next one begins at {}", clock(next))))
        }
        _ => {
            warm::begin(d);
            Err(Stop::written_first())
        }
    }
}
