//! What passes leave on both sides: everything of the past goes while the server runs.

use super::{
    super::{AT_ONCE, Draft, cleanup, disks, next::seen},
    is_volume,
};
use crate::{
    crd::v1alpha1::*,
    migration::{block_storage::fills_while_copying, names::Side, observed::SourceView, step::Step},
};
use std::collections::{BTreeMap, BTreeSet};

/// Is all that belongs to the past recorded as that? A Job alone knows its result until it is in status.
pub(super) fn past_is_written(d: &mut Draft<'_>) -> bool {
    let past = |s: &VmMigrationStatus| {
        let disks = s.disks.iter().map(|k| k.export.earlier);
        disks.chain(s.jobs.iter().map(|j| j.earlier)).filter(|n| *n > 0).collect::<Vec<_>>()
    };
    let written = past(&d.status) == past(d.input.status);
    if !written {
        d.recheck = Some(AT_ONCE);
    }
    written
}

/// Removes what passes made and do not need any more. `true`: something has to be waited for.
pub(super) fn remove(d: &mut Draft<'_>, view: &SourceView) -> bool {
    let earlier: BTreeMap<i32, i32> = d.status.disks.iter().map(|k| (k.index, k.export.earlier)).collect();
    let held = let_go(d);
    d.status.retained.clear();
    let goes = |n: i32, attempt: i32| !held.contains(&n) && earlier.get(&n).is_some_and(|e| attempt <= *e);
    let objects = cleanup::source_objects(d, view, &|t| goes(t.index, t.attempt));
    let mut jobs = remove_jobs(d, Side::Source);
    if fills_while_copying(&d.status) {
        jobs |= remove_jobs(d, Side::Destination);
    }
    objects || jobs || !held.is_empty()
}

/// Takes temporary volumes that were read out of the source's cluster. Returns the disks whose it still has.
fn let_go(d: &mut Draft<'_>) -> BTreeSet<i32> {
    let mut held = BTreeSet::new();
    for i in 0..d.status.disks.len() {
        if d.status.disks[i].copied
            && disks::travels(d, i, Side::Source)
            && disks::release(d, i, Side::Source).is_err()
        {
            held.insert(d.status.disks[i].index);
        }
    }
    held
}

/// Jobs of passes on one side.
pub(super) fn purposes(d: &Draft<'_>, side: Side) -> Vec<String> {
    let what = match side {
        Side::Source => "backup",
        Side::Destination => "restore",
    };
    d.status.disks.iter().filter(|k| is_volume(k)).map(|k| format!("{what}-{}", k.index)).collect()
}

/// Removes the Jobs of attempts that count no more. `true`: there are some.
fn remove_jobs(d: &mut Draft<'_>, side: Side) -> bool {
    let cluster = match seen(d.input.seen.cluster(side)) {
        Ok(cluster) => cluster,
        Err(stop) => {
            d.stopped(stop);
            return true;
        }
    };
    let mut waiting = false;
    for purpose in purposes(d, side) {
        let counts = d.status.jobs.iter().find(|j| j.name == purpose).map_or(0, |j| j.earlier);
        for name in (1..=counts).map(|attempt| d.input.me.job(&purpose, attempt)) {
            let Some(job) = cluster.jobs.get(&name) else { continue };
            waiting = true;
            let step = Step::DeleteJob { side, name };
            if !job.deleting && !d.steps.contains(&step) {
                d.step(step);
            }
        }
    }
    waiting
}
