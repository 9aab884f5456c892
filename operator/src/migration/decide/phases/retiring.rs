//! `Retiring`: after success the source's server is deleted, then the snapshots that we left, then its volumes.
//! One at a time, each after a fresh look, and nothing that is not recorded as the source's own.

use crate::{
    cloud::{Server, Volume},
    crd::v1alpha1::*,
    migration::{
        decide::{
            AT_ONCE, Draft, LATER, cleanup, gone,
            jobs::Progress,
            next::{Next, Stop, seen},
            recheck, requests, retirement,
        },
        looks,
        names::{MARK_CLAIM, Side},
        observed::SourceView,
        step::Step,
    },
};

/// For how long passed checks of the destination count, in seconds.
const CHECK_SECONDS: i64 = 600;

/// Why it does not go on.
enum Halt {
    /// It may later.
    Stop(Stop),
    /// It does not happen, for this reason.
    Refused(String),
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Self {
        Halt::Stop(stop)
    }
}

fn refused<T>(why: impl Into<String>) -> Result<T, Halt> {
    Err(Halt::Refused(why.into()))
}

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    if d.status.rollback.is_some() {
        return Ok(Next::enter_and_go_on(Phase::Succeeded, "the way back was asked for"));
    }
    let r = d.status.retirement.clone().unwrap_or_default();
    if r.server_gone_at.is_some() {
        return the_rest(d);
    }
    if r.deletion_requested_at.is_none() {
        if r.by_policy && retirement::due(d).is_none_or(|due| due.0 > d.input.now) {
            d.status.retirement = None;
            return Ok(back(d, "spec.sourcePolicy does not want it any more".into()));
        }
        if d.input.spec.suspend == Some(true) {
            let what = "Suspended before the source is deleted; set spec.suspend to false to go on";
            return Err(Stop::waiting(what).again(LATER));
        }
    }
    match the_server(d, r.deletion_requested_at.is_some()) {
        Err(Halt::Stop(stop)) => Err(stop),
        Err(Halt::Refused(why)) => Ok(refuse(d, why)),
        Ok(()) => Ok(Next::Stay),
    }
}

/// It does not happen, and the reason is told.
fn refuse(d: &mut Draft<'_>, why: String) -> Next {
    let now = d.now();
    let r = d.status.retirement.get_or_insert_default();
    (r.refused, r.refused_at, r.deletion_requested_at) = (Some(why.clone()), Some(now), None);
    if !r.by_policy {
        requests::refuse_later(d, RequestName::Retire, &why);
    }
    back(d, format!("the source was not retired: {why}"))
}

fn back(d: &mut Draft<'_>, why: String) -> Next {
    d.steps.clear();
    d.status.trouble = None;
    Next::enter(Phase::Succeeded, why)
}

fn the_server(d: &mut Draft<'_>, deletion_was_requested: bool) -> Result<(), Halt> {
    if !deletion_was_requested {
        destination_serves(d)?;
    }
    delete_server(d)
}

/// The destination is as it was proven, and answers its checks now.
fn destination_serves(d: &mut Draft<'_>) -> Result<(), Halt> {
    let view = seen(&d.input.seen.destination)?;
    let cloud = d.input.spec.destination.cloud.clone();
    let id = d.destination().server_id.clone().unwrap_or_default();
    let server = match view.servers.iter().find(|s| s.id == id) {
        Some(server) => server,
        None => match gone::destination(d, view)? {
            gone::Destination::Found(server) if server.id == id => server,
            _ => return refused(format!("server {id} is not in {cloud} any more")),
        },
    };
    let was_running = d.source().was_running;
    let wanted = if was_running { "ACTIVE" } else { "SHUTOFF" };
    if server.status != wanted {
        return refused(format!("server {id} in {cloud} is {}, not {wanted}", server.status));
    }
    let checks = recheck::asked_from_outside(d.input.spec);
    let checked = d.status.retirement.as_ref().and_then(|r| r.checked_at.clone());
    if checked.is_some() && !d.past(&checked, CHECK_SECONDS) {
        return Ok(());
    }
    if checked.is_some() {
        // Something has taken long since.
        d.status.retirement.get_or_insert_default().checked_at = None;
        d.renew_job(recheck::OF_DESTINATION);
    }
    if was_running && !checks.is_empty() {
        ask_destination(d, server, &checks)?;
    }
    d.status.retirement.get_or_insert_default().checked_at = Some(d.now());
    Ok(())
}

fn ask_destination(d: &mut Draft<'_>, server: &Server, checks: &[Check]) -> Result<(), Halt> {
    let Some(address) = recheck::address(server) else {
        return refused(format!("server {} has no fixed address to check", server.id));
    };
    match recheck::ask(d, Side::Destination, recheck::OF_DESTINATION, checks, &address) {
        Progress::Succeeded(_) => {
            d.note(format!("server {} still answers its checks", server.id));
            Ok(())
        }
        Progress::Failed(why) => refused(format!("the destination does not answer its checks: {why}")),
        Progress::Running(why) => Err(Stop::waiting(format!(
            "Before the source is deleted: checking the destination at {address}: {why}"
        ))
        .into()),
        Progress::Again => Err(Stop::as_said().into()),
    }
}

/// The next step towards the end of the server, decided from what is seen of it now.
fn delete_server(d: &mut Draft<'_>) -> Result<(), Halt> {
    let now = d.now();
    let cloud = d.input.spec.source.cloud.clone();
    let requested = d.status.retirement.as_ref().is_some_and(|r| r.deletion_requested_at.is_some());
    let server = match gone::source(d)? {
        gone::Source::Found(_, server) => server,
        gone::Source::Gone if !requested => {
            return refused(format!(
                "the old server is gone from {cloud}, so its mark cannot be seen; its volumes are left alone: {}",
                volume_ids(d).join(", ")
            ));
        }
        gone::Source::Gone => {
            d.status.retirement.get_or_insert_default().server_gone_at = Some(now);
            d.source().server_status = looks::GONE.into();
            d.note("the old server is gone");
            return Err(Stop::written_first().into());
        }
    };
    d.source().server_status = server.status.clone();
    let name = &server.name;
    if server.task_state.as_deref() == Some("deleting") || server.status.ends_with("DELETED") {
        let what = format!("Waiting for {cloud} to delete server {name}: {}", server.status);
        return Err(Stop::waiting(what).into());
    }
    match server.metadata.get(MARK_CLAIM) {
        Some(uid) if *uid == d.input.me.uid => {}
        Some(other) => {
            return refused(format!("server {name} in {cloud} is claimed by another migration, {other}"));
        }
        None => {
            return refused(format!(
                "server {name} in {cloud} does not carry this migration's mark any more"
            ));
        }
    }
    let stopped = server.status == "SHUTOFF" || requested && server.status == "ERROR";
    if !stopped {
        return refused(format!("server {name} in {cloud} is {}: somebody has started it", server.status));
    }
    let deleting = Stop::waiting(format!("Deleting server {name} in {cloud}"));
    if !requested {
        // Written before the DELETE, so that a server that is seen gone later is known to be our doing.
        d.status.retirement.get_or_insert_default().deletion_requested_at = Some(now);
        return Err(deleting.again(AT_ONCE).into());
    }
    d.step(if server.locked { Step::UnlockSource } else { Step::DeleteSource });
    Err(deleting.into())
}

fn volume_ids(d: &Draft<'_>) -> Vec<String> {
    d.status.disks.iter().filter_map(|k| k.source_volume_id.clone()).collect()
}

/// The server is gone: our snapshots, then the volumes.
fn the_rest(d: &mut Draft<'_>) -> Result<Next, Stop> {
    let view = seen(&d.input.seen.source)?;
    let cloud = d.input.spec.source.cloud.clone();
    d.status.retained.clear();
    if cleanup::source_objects(d, view, &|_| true) {
        return Err(Stop::waiting(format!("Deleting the snapshots that were left in {cloud}")));
    }
    let gave_up = gave_up(d);
    let next = view.volumes_of_source.iter().find(|v| fate(d, view, v) != Fate::Stays);
    if let Some(volume) = next.filter(|_| gave_up.is_none()) {
        let what = format!("Deleting volume {} of the old server in {cloud}: {}", volume.id, volume.status);
        return match fate(d, view, volume) {
            Fate::Goes => {
                d.step(Step::DeleteSourceVolume { volume_id: volume.id.clone() });
                Err(Stop::waiting(what))
            }
            _ => Err(Stop::looking(what)),
        };
    }
    let now = d.now();
    d.status.trouble = None;
    d.status.retirement.get_or_insert_default().retired_at = Some(now);
    requests::look_again(d);
    retirement::left(d, view);
    d.say("The old server and its volumes are gone; removing what was temporary");
    Ok(Next::enter(Phase::Retired, "the old server and its volumes are gone"))
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
