//! Clean-up: Jobs, temporary objects by mark, the repository, the Secrets. It looks twice before it says that it is done.

use super::{
    AT_ONCE, Decision, Draft, Flow, LATER, SIDES, SOON, hooks,
    jobs::{Progress, Wanted},
    undo,
};
use crate::{
    crd::v1alpha1::*,
    migration::{
        names::{Role, Side},
        observed::{DestinationView, Seen, SourceView},
        step::{ObjectKind, Step},
    },
};
use std::time::Duration;

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
    // Without our Secrets a namespace that is going away leaves no way to look; they go last, so all is done.
    if d.input.abandoned || nothing_made(&d) || secrets_gone(&d) {
        return release(d);
    }
    let scope = if d.phase() == Phase::Succeeded { Scope::Temporary } else { Scope::All };
    if scope == Scope::All {
        let now = d.now();
        let message = "the VmMigration was deleted".to_string();
        d.status.failure.get_or_insert(Failure {
            reason: "Cancelled".into(),
            message,
            at: Some(now),
            cancelled: true,
        });
        d.enter(Phase::Deleting, "deleted");
        hooks::abandon(&mut d, "ended: the VmMigration was deleted");
        stop_jobs(&mut d);
        if let Flow::Wait = undo::settle_destination(&mut d) {
            return d.decided();
        }
        if let Flow::Wait = undo::give_back(&mut d) {
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
        .and_then(|v| v.server.as_ref())
        .is_some_and(|s| s.metadata.get(crate::migration::names::MARK_CLAIM) == Some(&d.input.me.uid));
    let jobs = !d.status.jobs.is_empty() || hooks::any_begun(&d.status);
    !d.input.seen.vault_exists && !jobs && !d.claimed() && !claim_seen
}

fn release(d: Draft<'_>) -> Decision {
    let mut decision = d.decided();
    decision.steps.clear();
    decision.release = true;
    decision
}

/// Both servers stay; only what was on the way goes.
pub(super) fn after_success(mut d: Draft<'_>) -> Decision {
    if done(&d) {
        d.recheck = None;
        return d.decided();
    }
    if let Flow::Wait = hooks::gate(&mut d, HookPhase::Finally) {
        let waits = d.status.message.clone().unwrap_or_default();
        success_message(&mut d);
        let runs = d.status.message.clone().unwrap_or_default();
        d.say(format!("{runs}; {waits}"));
        return d.decided();
    }
    if let Flow::On = sweep(&mut d, Scope::Temporary) {
        if !d.input.seen.report_finished && d.input.seen.report_exists {
            d.step(Step::FinishReport);
        } else {
            d.status.cleaned_up_at = Some(d.now());
        }
    }
    success_message(&mut d);
    d.decided()
}

fn success_message(d: &mut Draft<'_>) {
    let x = d.status.destination.clone().unwrap_or_default();
    let (from, to) = (&d.input.spec.source, &d.input.spec.destination.cloud);
    let address = x.addresses.first().map(|a| format!(" at {a}")).unwrap_or_default();
    let kept = format!("the old server is kept, stopped and locked, in {}", from.cloud);
    let server = x.server_id.unwrap_or_default();
    let trouble =
        d.status.trouble.as_ref().map(|t| format!("; clean-up waits: {}", t.message)).unwrap_or_default();
    d.say(format!("{} runs in {to}{address} as {server}, proven; {kept}{trouble}", from.server));
}

fn done(d: &Draft<'_>) -> bool {
    d.status.cleaned_up_at.is_some()
}

/// The source is given back; what we made goes.
pub(super) fn after_failure(mut d: Draft<'_>) -> Decision {
    if done(&d) {
        d.recheck = None;
        return d.decided();
    }
    let text = format!(
        "{}; {}",
        d.status.failure.as_ref().map(|f| f.message.clone()).unwrap_or_default(),
        undo::source_now(&d)
    );
    stop_jobs(&mut d);
    if let Flow::Wait = hooks::gate(&mut d, HookPhase::Finally) {
        let waits = d.status.message.clone().unwrap_or_default();
        d.say(format!("{text}; {waits}"));
        return d.decided();
    }
    if nothing_made(&d) || matches!(sweep(&mut d, Scope::All), Flow::On) {
        d.status.cleaned_up_at = Some(d.now());
    }
    let trouble =
        d.status.trouble.as_ref().map(|t| format!("; clean-up waits: {}", t.message)).unwrap_or_default();
    d.say(format!("{text}{trouble}"));
    d.decided()
}

/// Ends all Jobs but the purge. A cluster that cannot be reached holds nothing up here.
pub(super) fn stop_jobs(d: &mut Draft<'_>) {
    let seen = d.input.seen;
    for side in SIDES {
        let Some(cluster) = seen.cluster(side).view() else { continue };
        let purge = d.input.me.job("purge", 1);
        let prefix = purge.trim_end_matches('1').to_string();
        for (name, job) in &cluster.jobs {
            if !name.starts_with(&prefix) && !job.deleting && !hooks::keeps(d, name) {
                d.step(Step::DeleteJob { side, name: name.clone() });
            }
        }
    }
}

/// Removes what is in scope. `On`: nothing is left but what is retained on purpose.
fn sweep(d: &mut Draft<'_>, scope: Scope) -> Flow {
    if secrets_gone(d) {
        return Flow::On;
    }
    if d.status.clean_looks < LOOKS {
        return look(d, scope);
    }
    if let Flow::Wait = purge(d) {
        return Flow::Wait;
    }
    drop_secrets(d)
}

/// The last thing that goes is the operator's own Secret; without it everything else is gone, too.
fn secrets_gone(d: &Draft<'_>) -> bool {
    let anchors = SIDES.iter().any(|s| d.input.seen.cluster(*s).view().is_some_and(|c| c.anchor));
    !d.input.seen.vault_exists && !anchors && d.status.clean_looks >= LOOKS
}

fn look(d: &mut Draft<'_>, scope: Scope) -> Flow {
    stop_jobs(d);
    // Before the go nothing was ever made in a cloud: it need not be seen.
    let untouched = !d.claimed() && d.status.cutover.as_ref().is_none_or(|c| c.granted_at.is_none());
    let mut quiet = d.steps.is_empty();
    d.status.retained.clear();
    for side in SIDES {
        quiet &= match d.input.seen.cluster(side) {
            Seen::View(c) if c.pods > 0 => {
                d.say(format!("Waiting for {} pods near the {side} cloud to end", c.pods));
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

/// Names the deletes of one cloud. True: nothing is left there.
fn objects(d: &mut Draft<'_>, side: Side, scope: Scope) -> bool {
    let before = d.steps.len();
    let seen = d.input.seen;
    let waiting = match (side, &seen.source, &seen.destination) {
        (Side::Source, Seen::View(v), _) => source_objects(d, v),
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

fn remove(d: &mut Draft<'_>, side: Side, kind: ObjectKind, id: &str) {
    d.step(Step::Delete { side, kind, id: id.into() });
}

/// True: something has to be waited for.
fn source_objects(d: &mut Draft<'_>, view: &SourceView) -> bool {
    let mut waiting = false;
    for (_, image) in view.images.iter().filter(|(t, _)| t.role.is_temporary()) {
        remove(d, Side::Source, ObjectKind::Image, &image.id);
    }
    for (_, volume) in view.volumes.iter().filter(|(t, _)| t.role.is_temporary()) {
        waiting = true;
        if !busy(&volume.status) {
            remove(d, Side::Source, ObjectKind::Volume, &volume.id);
        }
    }
    if waiting {
        return true;
    }
    let keeps = d.source().keeps_snapshots;
    let runs = view.server.as_ref().is_none_or(|s| s.status == "ACTIVE" && s.task_state.is_none());
    let cloud = d.input.spec.source.cloud.clone();
    let mut one_at_a_time = std::collections::BTreeSet::new();
    for (_, snapshot) in &view.snapshots {
        if snapshot.status == "error_deleting" {
            d.status.retained.push(RetainedRow {
                what: format!("snapshot {} of volume {} in {cloud}", snapshot.id, snapshot.volume_id),
                why: "the cloud failed to delete it; only its operator can repair that".into(),
            });
        } else if keeps && !runs {
            d.status.retained.push(RetainedRow {
                what: format!("snapshot {} of volume {} in {cloud}", snapshot.id, snapshot.volume_id),
                why:
                    "on this storage a snapshot can be deleted only while the server runs or after it is gone"
                        .into(),
            });
        } else if busy(&snapshot.status) {
            waiting = true;
            one_at_a_time.insert(snapshot.volume_id.clone());
        } else if one_at_a_time.insert(snapshot.volume_id.clone()) {
            waiting = true;
            remove(d, Side::Source, ObjectKind::Snapshot, &snapshot.id);
        }
    }
    waiting
}

/// True: something has to be waited for.
fn destination_objects(d: &mut Draft<'_>, view: &DestinationView, scope: Scope) -> bool {
    // A server that is still there was ACTIVE once and is kept, with all that it uses.
    let keep_final = scope == Scope::Temporary || !view.servers.is_empty();
    let goes = |role: Role| role.is_temporary() || !keep_final;
    let mut waiting = false;
    for (_, image) in view.images.iter().filter(|(t, _)| goes(t.role)) {
        remove(d, Side::Destination, ObjectKind::Image, &image.id);
    }
    for (_, volume) in view.volumes.iter().filter(|(t, _)| goes(t.role)) {
        waiting = true;
        if !busy(&volume.status) {
            remove(d, Side::Destination, ObjectKind::Volume, &volume.id);
        }
    }
    for (_, port) in view.ports.iter().filter(|(t, _)| goes(t.role)) {
        remove(d, Side::Destination, ObjectKind::Port, &port.id);
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

/// A Job removes the repository, by its exact prefix and our marker in it.
fn purge(d: &mut Draft<'_>) -> Flow {
    let Some(store) = d.status.store.clone() else { return Flow::On };
    let begun = store.initialized_at.is_some() || d.status.jobs.iter().any(|j| j.name == "init");
    if !begun || store.purged_at.is_some() {
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
        Progress::Succeeded(_) => {
            let now = d.now();
            d.status.store.get_or_insert_default().purged_at = Some(now);
            d.recheck = Some(AT_ONCE);
            Flow::On
        }
        Progress::Failed(why) => {
            // Not given up: what rests in the store is encrypted, but it is somebody's disk.
            d.trouble("purge", &why);
            d.next_attempt("purge", Some(why));
            let tries = d.job_record("purge").attempt.unsigned_abs();
            d.recheck = Some((LATER * tries).min(Duration::from_secs(300)));
            Flow::Wait
        }
        Progress::Running(_) | Progress::Again => Flow::Wait,
    }
}

fn drop_secrets(d: &mut Draft<'_>) -> Flow {
    for side in SIDES {
        match d.input.seen.cluster(side) {
            Seen::View(c) => {
                for name in c.jobs.iter().filter(|(_, j)| !j.deleting).map(|(n, _)| n) {
                    d.step(Step::DeleteJob { side, name: name.clone() });
                }
                if c.anchor && c.jobs.is_empty() && c.purge_pods == 0 {
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
