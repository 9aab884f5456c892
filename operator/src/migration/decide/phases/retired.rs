//! `Retired`: the source is gone, and what was only on the way goes.

use crate::migration::decide::{
    Draft, cleanup,
    next::{Next, Stop},
    words,
};

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    if d.status.cleaned_up_at.is_none() {
        return cleanup::after_success(d);
    }
    d.recheck = None;
    words::of_success(d);
    Ok(Next::Stay)
}
