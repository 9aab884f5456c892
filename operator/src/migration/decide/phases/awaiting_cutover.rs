//! `AwaitingCutover`: ready, and waiting for the go; with passes now and then, where there are any.

use crate::migration::decide::{
    Draft, LATER,
    cutover::{self, Word},
    next::{Next, Stop},
    warm,
};
use std::time::Duration;

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    // A pass that is under way ends first: what it made is removed while the server runs.
    warm::pass(d)?;
    let (go, passes) = (cutover::go(d), warm::told(d));
    let (what, again) = match cutover::word(d) {
        Word::Go => return Ok(cutover::grant(d)),
        Word::At(at) => {
            let left = at.duration_since(d.input.now).as_secs().clamp(1, 60);
            (
                format!("Ready{passes}; the source is stopped at {at}"),
                Duration::from_secs(left.unsigned_abs()),
            )
        }
        Word::Waits(Some(why)) => (format!("Ready{passes}; {why}, so it waits for you: {go}"), LATER),
        Word::Waits(None) => (format!("Ready{passes}; waiting for your go: {go}"), LATER),
    };
    let pass = warm::next(d);
    Err(Stop::waiting(what).again(pass.map_or(again, |pass| pass.min(again))))
}
