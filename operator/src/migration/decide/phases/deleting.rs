//! `Deleting`, and every other phase of an object that is being deleted: before success the source is given back and all
//! that was made goes; after it only what was on the way.

use crate::{
    crd::{conditions::reason, v1alpha1::*},
    migration::decide::{
        Draft,
        cleanup::{self, Scope},
        hooks,
        next::{Next, Stop},
        way_back,
    },
};

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    if way_back::is_stranded(d) && !d.input.abandoned {
        return Ok(way_back::reopen(d));
    }
    // Without our Secrets a namespace that is going away leaves no way to look; they go last, so all is done.
    if d.input.abandoned || cleanup::nothing_made(d) || cleanup::secrets_gone(d) {
        return Ok(Next::Release);
    }
    if d.phase().succeeded() {
        cleanup::sweep(d, Scope::Temporary)?;
        return Ok(Next::Release);
    }
    if d.phase() != Phase::Deleting {
        return Ok(begin(d));
    }
    hooks::abandon(d, "ended: the VmMigration was deleted");
    cleanup::stop_jobs(d, &[]);
    // What was given back is not ours to stop or start any more.
    if d.status.finished_at.is_some() {
        way_back::settle_later(d)?
    } else {
        way_back::go(d)?
    };
    cleanup::sweep(d, Scope::All)?;
    Ok(Next::Release)
}

fn begin(d: &mut Draft<'_>) -> Next {
    let (reason, message, at) =
        (reason::CANCELLED.into(), "the VmMigration was deleted".into(), Some(d.now()));
    d.status.failure.get_or_insert(Failure { reason, message, at, cancelled: true });
    // What had to stay because the source did not run can go if it runs by now.
    if !d.status.retained.is_empty() {
        d.status.clean_looks = 0;
    }
    Next::enter_and_go_on(Phase::Deleting, "deleted")
}
