//! The repository of a migration: made before anything is read, and removed in the end.

use super::{
    AT_ONCE, Draft, LATER, cleanup, disks,
    jobs::{Progress, Wanted},
    next::Stop,
};
use crate::{
    contract::{Answer, Init, Purge, PurgeResult, Task},
    crd::v1alpha1::*,
    migration::names::Side,
};
use std::time::Duration;

/// Makes the repository, once.
pub(super) fn init(d: &mut Draft<'_>) -> Result<(), Stop> {
    let Some(store) = d.status.store.clone() else { return Err(Stop::as_said()) };
    if store.initialized_at.is_some() {
        return Ok(());
    }
    let me = d.input.me;
    let wanted = Wanted {
        side: Side::Source,
        purpose: "init".into(),
        task: Task::Init(Init {
            repository: store.repository.clone(),
            migration_uid: me.uid.clone(),
            object: format!("{}/{}", me.namespace, me.name),
        }),
        credentials: true,
        deadline_seconds: 300,
        attempts: d.input.limits.job_attempts,
    };
    match d.job(wanted) {
        Progress::Succeeded(_) => {
            let now = d.now();
            d.status.store.get_or_insert_default().initialized_at = Some(now);
            Ok(())
        }
        Progress::Running(why) => Err(Stop::waiting(format!("Making the repository: {why}"))),
        Progress::Again => Err(Stop::as_said()),
        Progress::Failed(why) => Err(disks::copy_failed(d, None, Side::Source, "init", why)),
    }
}

/// A Job removes the repository, by its exact prefix and our marker in it.
pub(super) fn purge(d: &mut Draft<'_>) -> Result<(), Stop> {
    let Some(store) = d.status.store.clone() else { return Ok(()) };
    // The Job that makes it may have been begun by one of us who was killed before anything was recorded of it.
    if !(store.initialized_at.is_some() || cleanup::begun(d)) || store.purged_at.is_some() {
        return Ok(());
    }
    let uid = d.input.me.uid.clone();
    let wanted = Wanted {
        side: Side::Source,
        purpose: "purge".into(),
        task: Task::Purge(Purge { repository: store.repository.clone(), migration_uid: uid }),
        credentials: true,
        deadline_seconds: 1800,
        attempts: d.input.limits.job_attempts,
    };
    match d.job(wanted) {
        Progress::Succeeded(result) => {
            let now = d.now();
            let kept = what_is_kept(&store.repository, &result);
            let store = d.status.store.get_or_insert_default();
            (store.purged_at, store.kept) = (Some(now), kept);
            d.recheck = Some(AT_ONCE);
            Ok(())
        }
        Progress::Failed(why) => {
            // Not given up: what rests in the store is encrypted, but it is somebody's disk.
            d.stopped(Stop::trouble("purge", &why));
            d.next_attempt("purge", Some(why));
            let record = d.job_record("purge");
            let tries = record.tries().unsigned_abs();
            Err(Stop::as_said().again((LATER * tries).min(Duration::from_secs(300))))
        }
        Progress::Running(_) | Progress::Again => Err(Stop::as_said()),
    }
}

/// What a purge could not remove, since the store holds it.
fn what_is_kept(repository: &str, answer: &Answer) -> Option<RetainedRow> {
    let kept = answer.read::<PurgeResult>().ok()?.kept?;
    let what = format!("{} objects or versions of what was repository {repository}", kept.objects);
    Some(RetainedRow { what, why: kept.message })
}
