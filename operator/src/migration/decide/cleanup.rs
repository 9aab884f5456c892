//! Clean-up: Jobs, temporary objects by mark, the repository, the Secrets. It looks twice before it says that it is done.

use super::{
    AT_ONCE, Decision, Draft, Flow, LATER, SIDES, SOON,
    deletions::{self, Ours, remove},
    disks, gone, hooks,
    jobs::{Progress, Wanted},
    pause, requests, retire, retry, undo,
};
use crate::{
    cloud::{Snapshot, Volume},
    crd::v1alpha1::*,
    migration::{
        looks,
        names::{Role, Side, Tagged},
        observed::{ClusterView, DestinationView, Seen, SourceView, find},
        step::{ObjectKind, Step},
    },
    mover::result::PurgeResult,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};

/// What clean-up removes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// What was only on the way; server, disks and ports in the destination stay.
    Temporary,
    /// All that we made, but what a server that is kept uses.
    All,
}

/// Looks that find nothing before clean-up is done.
const LOOKS: i32 = 2;

/// The object is being deleted.
pub(super) fn delete(mut d: Draft<'_>) -> Decision {
    if undo::is_stranded(&d) && !d.input.abandoned {
        return undo::reopen(d);
    }
    // Without our Secrets a namespace that is going away leaves no way to look; they go last, so all is done.
    if d.input.abandoned || nothing_made(&d) || secrets_gone(&d) {
        return release(d);
    }
    let scope = if d.phase().succeeded() { Scope::Temporary } else { Scope::All };
    // What was given back is not ours to stop or start any more.
    let given_back = d.status.failure.is_some() && d.status.finished_at.is_some();
    if scope == Scope::All {
        let now = d.now();
        let message = "the VmMigration was deleted".to_string();
        d.status.failure.get_or_insert(Failure {
            reason: "Cancelled".into(),
            message,
            at: Some(now),
            cancelled: true,
        });
        // What had to stay because the source did not run can go if it runs by now.
        if d.phase() != Phase::Deleting && !d.status.retained.is_empty() {
            d.status.clean_looks = 0;
        }
        d.enter(Phase::Deleting, "deleted");
        hooks::abandon(&mut d, "ended: the VmMigration was deleted");
        stop_jobs(&mut d, &[]);
        let flow = if given_back { undo::settle_later(&mut d) } else { undo::way_back(&mut d) };
        if let Flow::Wait = flow {
            return d.decided();
        }
    }
    match sweep(&mut d, scope) {
        Flow::Wait => d.decided(),
        Flow::On => release(d),
    }
}

/// Neither a Secret nor a Job nor a claim: there is nothing to clean up.
fn nothing_made(d: &Draft<'_>) -> bool {
    let claim_seen = d
        .input
        .seen
        .source
        .view()
        .and_then(SourceView::found)
        .is_some_and(|s| s.metadata.get(crate::migration::names::MARK_CLAIM) == Some(&d.input.me.uid));
    let jobs = !d.status.jobs.is_empty() || hooks::any_job(&d.status);
    !d.input.seen.vault_exists && !jobs && !d.claimed() && !claim_seen
}

fn release(d: Draft<'_>) -> Decision {
    let mut decision = d.decided();
    decision.steps.clear();
    decision.release = true;
    decision
}

/// Only what was on the way goes; the servers stay, until the source is retired.
pub(super) fn after_success(mut d: Draft<'_>) -> Decision {
    if done(&d) {
        d.recheck = None;
        if d.phase() == Phase::Succeeded && retire::wanted(&mut d) {
            return retire::begin(d);
        }
    } else if let Flow::Wait = hooks::gate(&mut d, HookPhase::Finally) {
        let waits = d.status.message.clone().unwrap_or_default();
        success_message(&mut d);
        let runs = d.status.message.clone().unwrap_or_default();
        d.say(format!("{runs}; {waits}"));
        return d.decided();
    } else if let Flow::On = sweep(&mut d, Scope::Temporary) {
        finish(&mut d);
    }
    success_message(&mut d);
    d.decided()
}

/// The last word goes into the report, where there is one.
fn finish(d: &mut Draft<'_>) {
    if !d.input.seen.report_finished && d.input.seen.report_exists {
        d.step(Step::FinishReport);
    } else {
        d.status.cleaned_up_at = Some(d.now());
        d.recheck = Some(AT_ONCE);
    }
}

fn success_message(d: &mut Draft<'_>) {
    let x = d.status.destination.clone().unwrap_or_default();
    let (from, to) = (&d.input.spec.source, &d.input.spec.destination.cloud);
    let address = x.addresses.first().map(|a| format!(" at {a}")).unwrap_or_default();
    let kept = old_server(d);
    let server = x.server_id.unwrap_or_default();
    let trouble =
        d.status.trouble.as_ref().map(|t| format!("; clean-up waits: {}", t.message)).unwrap_or_default();
    d.say(format!("{} runs in {to}{address} as {server}, proven; {kept}{trouble}", from.server));
}

/// Half a sentence about the source after success, and what can be asked for.
fn old_server(d: &Draft<'_>) -> String {
    let cloud = &d.input.spec.source.cloud;
    let r = d.status.retirement.clone().unwrap_or_default();
    if let Some(at) = r.retired_at {
        return format!("the old server and its volumes in {cloud} are gone since {}", at.0);
    }
    let rollback = requests::command(d, RequestName::Rollback);
    let kept = format!("the old server is kept, stopped and locked, in {cloud}");
    let until = match (r.refused, retire::due(d)) {
        (Some(why), _) => format!("; it was not retired: {why}"),
        (None, Some(due)) => format!(" until {}", due.0),
        (None, None) => String::new(),
    };
    format!("{kept}{until}; to go back to it: {rollback}")
}

fn done(d: &Draft<'_>) -> bool {
    d.status.cleaned_up_at.is_some()
}

/// The source is given back; what we made goes, but for the data that are kept for a new try.
pub(super) fn after_failure(mut d: Draft<'_>) -> Decision {
    if undo::is_stranded(&d) {
        return undo::reopen(d);
    }
    if done(&d) {
        d.recheck = may_return(&d);
        return d.decided();
    }
    stop_jobs(&mut d, &[]);
    if let Flow::Wait = undo::settle_later(&mut d) {
        return d.decided();
    }
    if let Flow::Wait = hooks::gate(&mut d, HookPhase::Finally) {
        let waits = d.status.message.clone().unwrap_or_default();
        failure_message(&mut d, &format!("; {waits}"));
        return d.decided();
    }
    let again = d.status.retry_requested_at.is_some();
    let mut kept = String::new();
    if nothing_made(&d) || matches!(sweep_clouds(&mut d, Scope::All), Flow::On) {
        if again && !retry::purge_begun(&d) {
            match d.input.seen.source_cluster.problem().cloned() {
                None => return retry::begin(d),
                // Only there it is seen that what was read is not being removed.
                Some(p) => d.trouble(&p.id, &p.message),
            }
        } else if let Some(until) = retry::kept_until(&d) {
            kept = keep_data(&mut d, until);
        } else if nothing_made(&d) || matches!(drop_data(&mut d), Flow::On) {
            if again {
                return retry::begin(d);
            }
            finish(&mut d);
        }
    }
    failure_message(&mut d, &kept);
    d.decided()
}

/// How soon to look again for a source that was believed to be gone: less often with time, each hour in the end.
fn may_return(d: &Draft<'_>) -> Option<Duration> {
    let since = d.status.finished_at.as_ref()?.0;
    let waited = d.input.now.duration_since(since).as_secs();
    looks::source_may_return(&d.status, d.input.now).then(|| pause(waited, 60..=3600))
}

fn failure_message(d: &mut Draft<'_>, kept: &str) {
    let failure = d.status.failure.clone().unwrap_or_default();
    let trouble =
        d.status.trouble.as_ref().map(|t| format!("; clean-up waits: {}", t.message)).unwrap_or_default();
    let next = if failure.cancelled { String::new() } else { format!("; {}", retry::next_command(d)) };
    d.say(format!("{}; {}{kept}{trouble}{next}", failure.message, undo::source_now(d)));
}

/// The repository stays until a new try uses it, or its time is over.
fn keep_data(d: &mut Draft<'_>, until: Timestamp) -> String {
    let repository = d.status.store.as_ref().map(|s| s.repository.clone()).unwrap_or_default();
    let row = RetainedRow {
        what: format!("repository {repository}, encrypted"),
        why: format!("kept for a new try until {until}, by spec.onFailure.keepData"),
    };
    d.status.retained.retain(|r| r.what != row.what);
    d.status.retained.push(row);
    let left = until.duration_since(d.input.now).as_secs().clamp(1, 600);
    d.recheck = Some(Duration::from_secs(left.unsigned_abs()));
    format!("; what was read is kept in the repository until {until}")
}

/// Ends all Jobs but the purge and those with these purposes. A cluster that cannot be reached holds nothing up here.
pub(super) fn stop_jobs(d: &mut Draft<'_>, but: &[&str]) {
    let seen = d.input.seen;
    let kept: Vec<_> = ["purge"].iter().chain(but).map(|p| d.input.me.attempts(p)).collect();
    for side in SIDES {
        let Some(cluster) = seen.cluster(side).view() else { continue };
        for (name, job) in &cluster.jobs {
            if !kept.iter().any(|k| name.starts_with(k)) && !job.deleting && !hooks::keeps(d, name) {
                d.step(Step::DeleteJob { side, name: name.clone() });
            }
        }
    }
}

/// Removes what is in scope. `On`: nothing is left but what is retained on purpose.
fn sweep(d: &mut Draft<'_>, scope: Scope) -> Flow {
    match sweep_clouds(d, scope) {
        Flow::On => drop_data(d),
        Flow::Wait => Flow::Wait,
    }
}

/// Both clouds and both clusters. `On`: twice nothing was found.
fn sweep_clouds(d: &mut Draft<'_>, scope: Scope) -> Flow {
    if secrets_gone(d) || d.status.clean_looks >= LOOKS { Flow::On } else { look(d, scope) }
}

/// The repository, and then the Secrets.
fn drop_data(d: &mut Draft<'_>) -> Flow {
    if secrets_gone(d) {
        return Flow::On;
    }
    d.status.retained.retain(|r| !r.what.starts_with("repository "));
    if let Flow::Wait = purge(d) {
        return Flow::Wait;
    }
    if let Some(kept) = d.status.store.as_ref().and_then(|s| s.kept.clone()) {
        d.status.retained.retain(|r| r.what != kept.what);
        d.status.retained.push(kept);
    }
    drop_secrets(d)
}

/// The last thing that goes is the operator's own Secret; without it everything else is gone, too.
fn secrets_gone(d: &Draft<'_>) -> bool {
    let anchors = SIDES.iter().any(|s| d.input.seen.cluster(*s).view().is_some_and(|c| c.anchor));
    !d.input.seen.vault_exists && !anchors && d.status.clean_looks >= LOOKS
}

fn look(d: &mut Draft<'_>, scope: Scope) -> Flow {
    stop_jobs(d, &[]);
    // Before the go nothing was ever made in a cloud: it need not be seen.
    let untouched = !d.claimed() && !begun(d);
    let mut quiet = d.steps.is_empty();
    d.status.retained.clear();
    for side in SIDES {
        quiet &= match d.input.seen.cluster(side) {
            Seen::View(c) if c.pods > 0 => {
                let lost = c.lost.iter().map(|l| format!("; {l}")).collect::<String>();
                d.say(format!("Waiting for {} pods near the {side} cloud to end{lost}", c.pods));
                false
            }
            Seen::View(c) if !c.devices.is_empty() => {
                take_devices_away(d, side, c);
                false
            }
            Seen::View(_) if untouched => true,
            Seen::View(_) => objects(d, side, scope),
            Seen::Unseen(p) => {
                let p = p.clone();
                d.trouble(&p.id, &p.message);
                false
            }
            Seen::NotLooked => false,
        };
    }
    if quiet {
        d.status.clean_looks += 1;
        d.recheck = Some(SOON);
    } else {
        d.status.clean_looks = 0;
    }
    Flow::Wait
}

/// No volume is deleted while a cluster may still have it.
fn take_devices_away(d: &mut Draft<'_>, side: Side, cluster: &ClusterView) {
    d.say(format!(
        "Waiting for the cluster near the {side} cloud to let go of {} volumes",
        cluster.devices.len()
    ));
    for (name, device) in &cluster.devices {
        disks::take_away(d, side, name, device);
    }
}

/// Names the deletes of one cloud. True: nothing is left there.
fn objects(d: &mut Draft<'_>, side: Side, scope: Scope) -> bool {
    let before = d.steps.len();
    let seen = d.input.seen;
    let waiting = match (side, &seen.source, &seen.destination) {
        (Side::Source, Seen::View(v), _) => {
            retire::left(d, v);
            source_objects(d, v, &|_| true)
        }
        (Side::Destination, _, Seen::View(v)) => destination_objects(d, v, scope),
        (Side::Source, Seen::Unseen(p), _) | (Side::Destination, _, Seen::Unseen(p)) => {
            let p = p.clone();
            d.trouble(&p.id, &p.message);
            true
        }
        _ => true,
    };
    d.steps.len() == before && !waiting
}

/// A volume in these states cannot be deleted yet.
fn busy(status: &str) -> bool {
    ["creating", "downloading", "uploading", "deleting", "attaching", "detaching"].contains(&status)
}

/// Something may have been made in the source cloud or in the repository.
fn begun(d: &Draft<'_>) -> bool {
    let granted = d.status.cutover.as_ref().is_some_and(|c| c.granted_at.is_some());
    granted || d.status.copying.is_some()
}

/// Removes what `goes` says. True: something has to be waited for.
pub(super) fn source_objects(d: &mut Draft<'_>, view: &SourceView, goes: &dyn Fn(&Tagged) -> bool) -> bool {
    let goes = |t: &Tagged| t.role.is_temporary() && goes(t);
    let (side, mut waiting) = (Side::Source, false);
    let (images, volumes) = (view.images.iter().map(|(_, i)| &i.id), view.volumes.iter().map(|(_, v)| &v.id));
    let there = images.chain(volumes).chain(view.snapshots.iter().map(|(_, s)| &s.id));
    deletions::forget_gone(d, side, there.map(String::as_str));
    for (tagged, image) in view.images.iter().filter(|(t, _)| goes(t)) {
        waiting |= remove(d, &Ours { side, kind: ObjectKind::Image, role: tagged.role, id: &image.id }, "");
    }
    for (tagged, volume) in view.volumes.iter().filter(|(t, _)| goes(t)) {
        let ours = Ours { side, kind: ObjectKind::Volume, role: tagged.role, id: &volume.id };
        waiting |= busy(&volume.status) || remove(d, &ours, "");
    }
    // Volumes that were made of a snapshot go before it.
    waiting || source_snapshots(d, view, &goes)
}

/// Removes those snapshots of ours that `goes` says. True: something has to be waited for.
fn source_snapshots(d: &mut Draft<'_>, view: &SourceView, goes: &dyn Fn(&Tagged) -> bool) -> bool {
    let (side, mut waiting) = (Side::Source, false);
    let keeps = d.source().keeps_snapshots;
    let runs = view.found().is_none_or(|s| s.status == "ACTIVE" && s.task_state.is_none());
    let cloud = d.input.spec.source.cloud.clone();
    // On file storage qemu itself removes a running server's snapshots: of two at the same time it died, and the server
    // with it (tried with qemu 7.2).
    let lane = |s: &Snapshot| if keeps { String::new() } else { s.volume_id.clone() };
    let under_way = view.snapshots.iter().map(|(_, s)| s).filter(|s| busy(&s.status));
    let mut taken: BTreeSet<_> = under_way.map(lane).collect();
    for (tagged, snapshot) in view.snapshots.iter().filter(|(t, _)| goes(t)) {
        let stays = if snapshot.status == "error_deleting" {
            Some("the cloud failed to delete it; only its operator can repair that")
        } else if keeps && !runs {
            Some("on this storage a snapshot can be deleted only while the server runs or after it is gone")
        } else {
            None
        };
        if let Some(why) = stays {
            let what = format!("snapshot {} of volume {} in {cloud}", snapshot.id, snapshot.volume_id);
            d.status.retained.push(RetainedRow { what, why: why.into() });
        } else {
            let ours = Ours { side, kind: ObjectKind::Snapshot, role: tagged.role, id: &snapshot.id };
            let turn = deletions::rests(d, &ours) || taken.insert(lane(snapshot));
            waiting |= !turn || remove(d, &ours, "");
        }
    }
    waiting
}

/// True: something has to be waited for.
fn destination_objects(d: &mut Draft<'_>, view: &DestinationView, scope: Scope) -> bool {
    let asked = d.destination().server_requested_at.is_some();
    if asked && scope == Scope::All && matches!(gone::destination(d, view), gone::Destination::Wait) {
        return true;
    }
    // A server that is still there was ACTIVE once and is kept, with all that it uses.
    let keep_final = scope == Scope::Temporary || !view.servers.is_empty();
    let goes = |role: Role| role.is_temporary() || !keep_final;
    let (side, mut waiting) = (Side::Destination, false);
    let (images, volumes) = (view.images.iter().map(|(_, i)| &i.id), view.volumes.iter().map(|(_, v)| &v.id));
    let there = images.chain(volumes).chain(view.ports.iter().map(|(_, p)| &p.id));
    deletions::forget_gone(d, side, there.map(String::as_str));
    for (tagged, image) in view.images.iter().filter(|(t, _)| goes(t.role)) {
        let volume = find(&view.volumes, Role::Volume, tagged.index);
        let ours = Ours { side, kind: ObjectKind::Image, role: tagged.role, id: &image.id };
        waiting |= remove(d, &ours, &parent(volume));
    }
    for (tagged, volume) in view.volumes.iter().filter(|(t, _)| goes(t.role)) {
        let ours = Ours { side, kind: ObjectKind::Volume, role: tagged.role, id: &volume.id };
        waiting |= busy(&volume.status) || remove(d, &ours, "");
    }
    for (tagged, port) in view.ports.iter().filter(|(t, _)| goes(t.role)) {
        waiting |= remove(d, &Ours { side, kind: ObjectKind::Port, role: tagged.role, id: &port.id }, "");
    }
    if scope == Scope::All && !view.servers.is_empty() {
        let cloud = d.input.spec.destination.cloud.clone();
        for server in &view.servers {
            d.status.retained.push(RetainedRow {
                what: format!("server {} with its volumes and ports in {cloud}", server.id),
                why: "it was ACTIVE and may hold new writes; delete it yourself when they are not needed"
                    .into(),
            });
        }
    }
    waiting
}

/// Why an image may have to stay: on Ceph a volume that was made of it is its clone.
fn parent(volume: Option<&Volume>) -> String {
    let lives_on_it = |v: &Volume| {
        format!(
            "; volume {} was made of it and may live on it: delete the image when that volume is gone",
            v.id
        )
    };
    volume.map(lives_on_it).unwrap_or_default()
}

/// A Job removes the repository, by its exact prefix and our marker in it.
fn purge(d: &mut Draft<'_>) -> Flow {
    let Some(store) = d.status.store.clone() else { return Flow::On };
    // The Job that makes it may have been begun by one of us who was killed before anything was recorded of it.
    if !(store.initialized_at.is_some() || begun(d)) || store.purged_at.is_some() {
        return Flow::On;
    }
    let uid = d.input.me.uid.clone();
    let wanted = Wanted {
        side: Side::Source,
        purpose: "purge".into(),
        args: ["purge", "--repository", &store.repository, "--migration-uid", &uid]
            .map(String::from)
            .to_vec(),
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
            Flow::On
        }
        Progress::Failed(why) => {
            // Not given up: what rests in the store is encrypted, but it is somebody's disk.
            d.trouble("purge", &why);
            d.next_attempt("purge", Some(why));
            let record = d.job_record("purge");
            let tries = record.tries().unsigned_abs();
            d.recheck = Some((LATER * tries).min(Duration::from_secs(300)));
            Flow::Wait
        }
        Progress::Running(_) | Progress::Again => Flow::Wait,
    }
}

/// What a purge could not remove, since the store holds it.
fn what_is_kept(repository: &str, result: &Value) -> Option<RetainedRow> {
    let kept = serde_json::from_value::<PurgeResult>(result.clone()).ok()?.kept?;
    let what = format!("{} objects or versions of what was repository {repository}", kept.objects);
    Some(RetainedRow { what, why: kept.message })
}

fn drop_secrets(d: &mut Draft<'_>) -> Flow {
    for side in SIDES {
        match d.input.seen.cluster(side) {
            Seen::View(c) => {
                for name in c.jobs.iter().filter(|(_, j)| !j.deleting).map(|(n, _)| n) {
                    d.step(Step::DeleteJob { side, name: name.clone() });
                }
                if !c.devices.is_empty() {
                    take_devices_away(d, side, c);
                } else if c.anchor && c.jobs.is_empty() && c.purge_pods == 0 {
                    d.step(Step::DeleteAnchor(side));
                }
            }
            Seen::Unseen(p) => {
                let p = p.clone();
                d.trouble(&p.id, &p.message);
                return Flow::Wait;
            }
            Seen::NotLooked => return Flow::Wait,
        }
    }
    let anchors = SIDES.iter().any(|s| d.input.seen.cluster(*s).view().is_some_and(|c| c.anchor));
    if !anchors && d.input.seen.vault_exists {
        d.step(Step::DeleteVault);
    }
    Flow::Wait
}
