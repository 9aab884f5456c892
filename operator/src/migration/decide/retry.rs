//! A new try of the same object: what the last one left proven, and how the next one begins.

use super::{AT_ONCE, Draft, next::Next, ran, requests, warm};
use crate::{cloud::InstanceAction, crd::v1alpha1::*, migration::step::Step};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Why nothing can be tried again while the destination has a server that once ran.
pub(super) fn kept_server(d: &Draft<'_>) -> Option<String> {
    let x = d.status.destination.as_ref().filter(|x| x.active_at.is_some())?;
    let (server, cloud) = (x.server_id.clone().unwrap_or_default(), &d.input.spec.destination.cloud);
    Some(format!(
        "server {server} in {cloud} has run and is kept, since it may hold new writes; delete it with its volumes \
         and ports when they are not needed, then delete this VmMigration and create it again"
    ))
}

/// Was the removal of the repository begun? One of us may have been killed before that was recorded.
pub(super) fn purge_begun(d: &Draft<'_>) -> bool {
    let purge = d.input.me.attempts("purge");
    let job = |name: &String| name.starts_with(&purge);
    let seen = d.input.seen.source_cluster.view().is_some_and(|c| c.jobs.keys().any(job));
    seen || d.status.jobs.iter().any(|j| j.name == "purge" && j.state != JobRecord::WAITING)
}

/// Until when `onFailure.keepData` keeps what is in the repository.
pub(super) fn kept_until(d: &Draft<'_>) -> Option<Timestamp> {
    let period = d.input.spec.on_failure.as_ref()?.keep_data.as_ref()?.seconds();
    let proven = d.status.disks.iter().any(|k| k.backup.is_some() || !k.passes.is_empty())
        || d.status.kept.as_ref().is_some_and(|k| !k.volumes.is_empty());
    let of_use =
        proven && !d.status.failure.as_ref()?.cancelled && kept_server(d).is_none() && !purge_begun(d);
    let from = d.status.finished_at.as_ref().filter(|_| of_use)?.0;
    let until = from.checked_add(SignedDuration::from_secs(period)).ok()?;
    (until > d.input.now).then_some(until)
}

/// Half a sentence about what can be done after a failure.
pub(super) fn next_command(d: &Draft<'_>) -> String {
    if d.status.retry_requested_at.is_some() {
        return "a new try begins when everything of this one is gone".into();
    }
    match kept_server(d) {
        Some(why) => why,
        None => format!("to try again: {}", requests::command(d, RequestName::Retry)),
    }
}

/// Everything of the last try is gone but the repository, if that is kept: begins from the beginning.
pub(super) fn begin(d: &mut Draft<'_>) -> Next {
    d.status.retry_requested_at = None;
    if let Some(why) = kept_server(d) {
        requests::refuse_later(d, RequestName::Retry, &why);
        d.recheck = Some(AT_ONCE);
        return Next::Stay;
    }
    let repository =
        d.status.store.as_ref().is_some_and(|s| s.initialized_at.is_some() && s.purged_at.is_none());
    d.status.kept = Some(keep(d, repository));
    let number = d.status.attempts.max(1) + 1;
    let (old, status) = (d.status.source.take().unwrap_or_default(), &mut d.status);
    status.source = Some(SourceStatus {
        project_id: old.project_id,
        region: old.region,
        identity: old.identity,
        server_id: old.server_id,
        server_name: old.server_name,
        ..Default::default()
    });
    let old = status.destination.take().unwrap_or_default();
    status.destination = Some(DestinationStatus {
        project_id: old.project_id,
        region: old.region,
        identity: old.identity,
        ..Default::default()
    });
    if let Some(store) = status.store.as_mut().filter(|_| !repository) {
        (store.initialized_at, store.purged_at) = (None, None);
    }
    for job in &mut status.jobs {
        job.carry_over();
    }
    status.attempts = number;
    (status.failure, status.finished_at, status.trouble, status.cleaned_up_at) = (None, None, None, None);
    (status.rollback, status.cutover, status.copying) = (None, None, None);
    status.clean_looks = 0;
    status.retained.clear();
    status.deletions.clear();
    status.checks.clear();
    status.hooks.clear();
    status.disks.clear();
    if d.input.seen.vault_exists {
        // Secrets may have been corrected since.
        d.step(Step::PrepareSecrets);
    }
    d.say(format!("Try {number}: looking at everything again"));
    Next::enter(Phase::Preflight, format!("try {number}, by request"))
}

/// What is still proven, and what tells later whether the source ran meanwhile.
fn keep(d: &Draft<'_>, repository: bool) -> KeptData {
    let s = d.status.source.clone().unwrap_or_default();
    let mut kept = d.status.kept.clone().unwrap_or_default();
    kept.was_running |= s.was_running;
    let volumes = d.status.disks.iter().filter(|k| k.kind == DiskKind::Volume).filter_map(warm::kept);
    // A try that never stopped the source proves nothing new, and makes nothing stale.
    if let Some(base) = s.stop_request_id.or(s.lock_request_id) {
        kept.volumes = volumes.collect();
        kept.was_running = s.was_running;
        kept.stop_request_id = Some(base);
    } else {
        // But its passes, made while the source ran, are newer than what was there before.
        for volume in volumes.filter(|v| v.running) {
            kept.volumes.retain(|v| v.volume_id != volume.volume_id);
            kept.volumes.push(volume);
        }
    }
    if !repository {
        kept.volumes.clear();
    }
    let seen = d.input.seen.source.view().into_iter().flat_map(|v| &v.snapshots);
    kept.snapshot_ids.extend(seen.map(|(_, s)| s.id.clone()));
    kept.snapshot_ids.sort();
    kept.snapshot_ids.dedup();
    kept
}

/// The source is stopped and locked: what an earlier try read of it counts, if it did not run since.
pub(super) fn reuse(d: &mut Draft<'_>, actions: &[InstanceAction]) {
    let Some(kept) = d.status.kept.clone() else { return };
    let Some(base) = &kept.stop_request_id else { return };
    if ran::ran_since(base, actions) {
        if kept.volumes.iter().any(|v| !v.running) {
            d.note("the source was used since the last try: all its disks are read again");
        }
        return;
    }
    // It is stopped only because we stopped it.
    d.source().was_running |= kept.was_running;
    let mut count = 0;
    for disk in d.status.disks.iter_mut().filter(|k| k.kind == DiskKind::Volume && k.backup.is_none()) {
        let same = |v: &&KeptVolume| {
            let same = Some(&v.volume_id) == disk.source_volume_id.as_ref() && v.size_gib == disk.size_gib;
            same && !v.running
        };
        if let Some(volume) = kept.volumes.iter().find(same) {
            (disk.backup, disk.pass) = (Some(volume.backup.clone()), volume.pass);
            count += 1;
        }
    }
    d.note(format!("the source was not used since the last try: {count} disks need not be read again"));
}
