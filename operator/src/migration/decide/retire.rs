//! Retirement: after success the source's server is deleted, then the snapshots that we left, then its volumes.
//! One at a time, each after a fresh look, and nothing that is not recorded as the source's own.

use super::{AT_ONCE, Decision, Draft, Flow, LATER, SOON, cleanup, gone, jobs::Progress, recheck, requests};
use crate::{
    cloud::{Server, Volume},
    crd::v1alpha1::*,
    migration::{
        looks,
        names::{MARK_CLAIM, Side},
        observed::{Seen, SourceView},
        step::Step,
    },
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use std::time::Duration;

/// For how long passed checks of the destination count, in seconds.
const CHECK_SECONDS: i64 = 600;
/// How long after a refusal `sourcePolicy` is followed again, in seconds.
const AGAIN_SECONDS: i64 = 3600;

/// When `sourcePolicy` wants the source deleted.
pub(super) fn due(d: &Draft<'_>) -> Option<Time> {
    let policy = d.input.spec.source_policy.as_ref().filter(|p| p.action == SourceAction::Delete)?;
    let after = SignedDuration::from_secs(policy.after.as_ref()?.seconds());
    d.status.finished_at.as_ref()?.0.checked_add(after).ok().map(Time)
}

/// Is it time to begin? Otherwise: when to look again.
pub(super) fn wanted(d: &mut Draft<'_>) -> bool {
    if d.input.spec.suspend == Some(true) {
        return false;
    }
    let r = d.status.retirement.clone().unwrap_or_default();
    if r.requested_at.is_some() && r.refused.is_none() {
        return true;
    }
    let Some(due) = due(d) else { return false };
    let again = r.refused_at.and_then(|t| t.0.checked_add(SignedDuration::from_secs(AGAIN_SECONDS)).ok());
    let at = again.map_or(due.0, |again| again.max(due.0));
    let left = at.duration_since(d.input.now).as_secs();
    if left > 0 {
        d.recheck = Some(Duration::from_secs(left.min(3600).unsigned_abs()));
        return false;
    }
    let requested_at = Some(d.now());
    d.status.retirement = Some(RetirementStatus { requested_at, by_policy: true, ..Default::default() });
    true
}

/// Enters the phase.
pub(super) fn begin(mut d: Draft<'_>) -> Decision {
    requests::look_again(&mut d);
    d.renew_job(recheck::OF_DESTINATION);
    let by_policy = d.status.retirement.as_ref().is_some_and(|r| r.by_policy);
    d.enter(Phase::Retiring, if by_policy { "by spec.sourcePolicy" } else { "by spec.requests.retire" });
    d.say("Retiring the source: looking at both sides again");
    d.decided()
}

/// Retiring.
pub(super) fn retire(mut d: Draft<'_>) -> Decision {
    let r = d.status.retirement.clone().unwrap_or_default();
    if r.server_gone_at.is_some() {
        return the_rest(d);
    }
    if r.deletion_requested_at.is_none() {
        if r.by_policy && due(&d).is_none_or(|due| due.0 > d.input.now) {
            let why = "spec.sourcePolicy does not want it any more";
            d.status.retirement = None;
            return back(d, why);
        }
        if d.input.spec.suspend == Some(true) {
            d.say("Suspended before the source is deleted; set spec.suspend to false to go on");
            d.recheck = Some(LATER);
            return d.decided();
        }
        match destination_serves(&mut d) {
            Ok(Flow::On) => {}
            Ok(Flow::Wait) => return d.decided(),
            Err(why) => return refuse(d, why),
        }
    }
    match delete_server(&mut d) {
        Ok(()) => d.decided(),
        Err(why) => refuse(d, why),
    }
}

/// It does not happen, and the reason is told.
fn refuse(mut d: Draft<'_>, why: String) -> Decision {
    let now = d.now();
    let r = d.status.retirement.get_or_insert_default();
    (r.refused, r.refused_at, r.deletion_requested_at) = (Some(why.clone()), Some(now), None);
    if !r.by_policy {
        requests::refuse_later(&mut d, RequestName::Retire, &why);
    }
    back(d, &format!("the source was not retired: {why}"))
}

fn back(mut d: Draft<'_>, why: &str) -> Decision {
    d.steps.clear();
    d.enter(Phase::Succeeded, why);
    d.status.trouble = None;
    d.recheck = Some(AT_ONCE);
    d.decided()
}

/// The destination is as it was proven, and answers its checks now. The error says why not.
fn destination_serves(d: &mut Draft<'_>) -> Result<Flow, String> {
    let view = match &d.input.seen.destination {
        Seen::View(v) => v,
        Seen::Unseen(p) => {
            let p = p.clone();
            d.trouble(&p.id, &p.message);
            return Ok(Flow::Wait);
        }
        Seen::NotLooked => return Ok(Flow::Wait),
    };
    let cloud = d.input.spec.destination.cloud.clone();
    let id = d.destination().server_id.clone().unwrap_or_default();
    let seen = view.servers.iter().find(|s| s.id == id);
    let server = match seen.map_or_else(|| gone::destination(d, view), gone::Destination::Found) {
        gone::Destination::Found(server) if server.id == id => server,
        gone::Destination::Wait => return Ok(Flow::Wait),
        _ => return Err(format!("server {id} is not in {cloud} any more")),
    };
    let was_running = d.source().was_running;
    let wanted = if was_running { "ACTIVE" } else { "SHUTOFF" };
    if server.status != wanted {
        return Err(format!("server {id} in {cloud} is {}, not {wanted}", server.status));
    }
    let checks = recheck::asked_from_outside(d.input.spec);
    let checked = d.status.retirement.as_ref().and_then(|r| r.checked_at.clone());
    if checked.is_some() && !d.past(&checked, CHECK_SECONDS) {
        return Ok(Flow::On);
    }
    if checked.is_some() {
        // Something has taken long since.
        d.status.retirement.get_or_insert_default().checked_at = None;
        d.renew_job(recheck::OF_DESTINATION);
    }
    if !was_running || checks.is_empty() {
        d.status.retirement.get_or_insert_default().checked_at = Some(d.now());
        return Ok(Flow::On);
    }
    ask_destination(d, server, &checks)
}

fn ask_destination(d: &mut Draft<'_>, server: &Server, checks: &[Check]) -> Result<Flow, String> {
    let Some(address) = recheck::address(server) else {
        return Err(format!("server {} has no fixed address to check", server.id));
    };
    match recheck::ask(d, Side::Destination, recheck::OF_DESTINATION, checks, &address) {
        Progress::Succeeded(_) => {
            d.status.retirement.get_or_insert_default().checked_at = Some(d.now());
            d.note(format!("server {} still answers its checks", server.id));
            Ok(Flow::On)
        }
        Progress::Failed(why) => Err(format!("the destination does not answer its checks: {why}")),
        Progress::Running(why) => {
            d.say(format!("Before the source is deleted: checking the destination at {address}: {why}"));
            Ok(Flow::Wait)
        }
        Progress::Again => Ok(Flow::Wait),
    }
}

/// The next step towards the end of the server, decided from what is seen of it now.
fn delete_server(d: &mut Draft<'_>) -> Result<(), String> {
    let now = d.now();
    let cloud = d.input.spec.source.cloud.clone();
    let requested = d.status.retirement.as_ref().is_some_and(|r| r.deletion_requested_at.is_some());
    let server = match gone::source(d) {
        gone::Source::Found(_, server) => server,
        gone::Source::Wait => return Ok(()),
        gone::Source::Gone if !requested => {
            return Err(format!(
                "the old server is gone from {cloud}, so its mark cannot be seen; its volumes are left alone: {}",
                volume_ids(d).join(", ")
            ));
        }
        gone::Source::Gone => {
            d.status.retirement.get_or_insert_default().server_gone_at = Some(now);
            d.source().server_status = looks::GONE.into();
            d.note("the old server is gone");
            d.recheck = Some(AT_ONCE);
            return Ok(());
        }
    };
    d.source().server_status = server.status.clone();
    let name = &server.name;
    if server.task_state.as_deref() == Some("deleting") || server.status.ends_with("DELETED") {
        d.say(format!("Waiting for {cloud} to delete server {name}: {}", server.status));
        return Ok(());
    }
    match server.metadata.get(MARK_CLAIM) {
        Some(uid) if *uid == d.input.me.uid => {}
        Some(other) => {
            return Err(format!("server {name} in {cloud} is claimed by another migration, {other}"));
        }
        None => {
            return Err(format!("server {name} in {cloud} does not carry this migration's mark any more"));
        }
    }
    let stopped = server.status == "SHUTOFF" || requested && server.status == "ERROR";
    if !stopped {
        return Err(format!("server {name} in {cloud} is {}: somebody has started it", server.status));
    }
    d.say(format!("Deleting server {name} in {cloud}"));
    if !requested {
        // Written before the DELETE, so that a server that is seen gone later is known to be our doing.
        d.status.retirement.get_or_insert_default().deletion_requested_at = Some(now);
        d.recheck = Some(AT_ONCE);
    } else if server.locked {
        d.step(Step::UnlockSource);
    } else {
        d.step(Step::DeleteSource);
    }
    Ok(())
}

fn volume_ids(d: &Draft<'_>) -> Vec<String> {
    d.status.disks.iter().filter_map(|k| k.source_volume_id.clone()).collect()
}

/// The server is gone: our snapshots, then the volumes.
fn the_rest(mut d: Draft<'_>) -> Decision {
    let view = match &d.input.seen.source {
        Seen::View(v) => v,
        Seen::Unseen(p) => {
            let p = p.clone();
            d.trouble(&p.id, &p.message);
            return d.decided();
        }
        Seen::NotLooked => return d.decided(),
    };
    let cloud = d.input.spec.source.cloud.clone();
    d.status.retained.clear();
    if cleanup::source_objects(&mut d, view, &|_| true) {
        d.say(format!("Deleting the snapshots that were left in {cloud}"));
        return d.decided();
    }
    let gave_up = gave_up(&d);
    let next = view.volumes_of_source.iter().find(|v| fate(&d, view, v) != Fate::Stays);
    if let Some(volume) = next.filter(|_| gave_up.is_none()) {
        d.say(format!("Deleting volume {} of the old server in {cloud}: {}", volume.id, volume.status));
        match fate(&d, view, volume) {
            Fate::Goes => d.step(Step::DeleteSourceVolume { volume_id: volume.id.clone() }),
            _ => d.recheck = Some(SOON),
        }
        return d.decided();
    }
    let now = d.now();
    d.status.trouble = None;
    d.status.retirement.get_or_insert_default().retired_at = Some(now);
    requests::look_again(&mut d);
    left(&mut d, view);
    d.enter(Phase::Retired, "the old server and its volumes are gone");
    d.say("The old server and its volumes are gone; removing what was temporary");
    d.decided()
}

/// What a cloud refuses to delete for too long is left, and told.
fn gave_up(d: &Draft<'_>) -> Option<String> {
    let t = d.status.trouble.as_ref().filter(|t| t.what == "delete-source-volume")?;
    d.past(&t.since, d.input.limits.trouble_seconds).then(|| t.message.clone())
}

#[derive(PartialEq)]
enum Fate {
    Goes,
    Waits,
    Stays,
}

/// What becomes of a volume of the source.
fn fate(d: &Draft<'_>, view: &SourceView, volume: &Volume) -> Fate {
    let id = d.status.source.as_ref().map(|s| s.server_id.as_str()).unwrap_or_default();
    let others = volume.attachments.iter().any(|a| a.server_id != id);
    if others || view.foreign_snapshots.iter().any(|s| s.volume_id == volume.id) {
        return Fate::Stays;
    }
    match volume.status.as_str() {
        "available" | "error" if volume.attachments.is_empty() => Fate::Goes,
        "error_deleting" => Fate::Stays,
        _ => Fate::Waits,
    }
}

/// Rows for the volumes that retirement did not delete.
pub(super) fn left(d: &mut Draft<'_>, view: &SourceView) {
    if d.status.retirement.as_ref().is_none_or(|r| r.retired_at.is_none()) {
        return;
    }
    let cloud = d.input.spec.source.cloud.clone();
    for volume in &view.volumes_of_source {
        let why = if volume.attachments.is_empty() {
            "the cloud did not delete it, or it has snapshots that are not this migration's; delete it yourself"
        } else {
            "it is attached to another server"
        };
        let what = format!("volume {} of the old server in {cloud}, {}", volume.id, volume.status);
        d.status.retained.push(RetainedRow { what, why: why.into() });
    }
}
