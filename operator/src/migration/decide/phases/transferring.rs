//! `Transferring`: disks leave A and arrive in B, side by side.

use crate::{
    crd::v1alpha1::*,
    migration::decide::{
        Draft, disks,
        next::{Next, Stop},
        source,
    },
};

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    if d.left_clouds_alone() {
        return Err(disks::follow(d));
    }
    source::untouched(d)?;
    let travelled = disks::all(d);
    d.is_through(travelled);
    if d.status.failure.is_none() && d.status.disks.iter().all(|k| k.restore.is_some()) {
        return Ok(Next::enter(Phase::Creating, "all disks are in the destination"));
    }
    Err(Stop::as_said())
}
