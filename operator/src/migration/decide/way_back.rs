//! The way back: the destination's server is settled, then the source is given back as it was.

use super::{
    Draft, clock, gone,
    next::{Next, Stop, seen},
    ran, recheck, requests, source,
};
use crate::{
    cloud::{InstanceAction, Server},
    crd::v1alpha1::*,
    migration::{
        looks,
        names::{MARK_CLAIM, Side},
        observed::{Seen, SourceView},
        step::{ObjectKind, Step},
    },
};

/// Goes it. What takes too long is stalled, and goes on being tried.
pub(super) fn go(d: &mut Draft<'_>) -> Result<(), Stop> {
    d.back_waits = Some(WayBackStage::Destination);
    settle_destination(d)?;
    d.back_waits = Some(WayBackStage::Source);
    give_back(d)?;
    d.back_waits = None;
    d.status.way_back = None;
    Ok(())
}

/// It has ended, and the source is seen with our claim all the same: it was not seen when it should have been given back.
pub(super) fn is_stranded(d: &Draft<'_>) -> bool {
    let ended = d.phase().gave_up() || d.phase() == Phase::Deleting && d.status.finished_at.is_some();
    let server = d.input.seen.source.view().and_then(SourceView::found);
    ended && server.is_some_and(|s| s.metadata.get(MARK_CLAIM) == Some(&d.input.me.uid))
}

/// Goes back to where it is given back.
pub(super) fn reopen(d: &mut Draft<'_>) -> Next {
    d.status.finished_at = None;
    requests::look_again(d);
    if d.phase() == Phase::Deleting {
        return Next::Stay;
    }
    Next::enter(Phase::RollingBack, "the source is seen with this migration's claim: it is given back")
}

/// Where the source is after it was given back.
pub(super) fn source_now(d: &Draft<'_>) -> String {
    let s = d.status.source.clone().unwrap_or_default();
    let (name, status) = (&s.server_name, s.server_status.as_str());
    if s.claimed_at.is_none() {
        return "nothing was touched in A".into();
    }
    let text = match (s.taken_back, s.was_running, status) {
        (_, _, looks::GONE) => match looks::source_may_return_until(&d.status) {
            None => format!("{name} is gone from A"),
            Some(until) => format!(
                "{name} is gone from A; if it comes back until {} with this migration's mark, it is given back",
                until.strftime("%F %H:%MZ")
            ),
        },
        (true, ..) => format!("{name} in A is as somebody wanted it in the middle"),
        (_, true, "ACTIVE") => format!("{name} runs in A as before"),
        (_, true, other) => {
            format!("{name} in A is {other}; this migration's mark on it was taken away, so it is left so")
        }
        (_, false, _) => format!("{name} in A is stopped as before"),
    };
    let checks = d.status.rollback.as_ref().map(|r| r.checks.as_slice()).unwrap_or_default();
    match checks.iter().find(|c| !c.passed) {
        Some(c) => format!("{text}; its check {} did not pass: {}", c.name, c.message),
        None if checks.is_empty() => text,
        None => format!("{text} and passed its checks"),
    }
}

/// A server in the destination that was once ACTIVE is stopped and kept; one that never was is removed.
pub(super) fn settle_destination(d: &mut Draft<'_>) -> Result<(), Stop> {
    let Some(x) = d.status.destination.clone() else { return Ok(()) };
    if x.server_requested_at.is_none() {
        return Ok(());
    }
    let view = match &d.input.seen.destination {
        Seen::Unseen(_) if starts_anyway(d) => return Ok(()),
        Seen::Unseen(p) => {
            let text = format!(
                "DestinationUnreachable: the source waits until the server in the destination is seen gone or stopped \
                 (if that cloud is gone for good: spec.requests.startSource): {}",
                p.message
            );
            d.stopped(Stop::trouble("destination-unreachable", &text));
            return Err(Stop::waiting(text));
        }
        other => seen(other)?,
    };
    let mut settled = Ok(());
    for server in &view.servers {
        let this = settle(d, server, x.active_at.is_some());
        settled = if d.is_through(this) { settled } else { Err(Stop::as_said()) };
    }
    if !view.servers.is_empty() {
        d.destination().gone_since = None;
        return settled;
    }
    match gone::destination(d, view) {
        Ok(gone::Destination::Gone) => {
            d.destination().server_status = None;
            Ok(())
        }
        Ok(gone::Destination::Found(_)) => Ok(()),
        Err(stop) if starts_anyway(d) => {
            d.stopped(stop);
            Ok(())
        }
        Err(stop) => Err(stop),
    }
}

/// Somebody who typed the server's id says that the destination's cloud is gone.
pub(super) fn starts_anyway(d: &Draft<'_>) -> bool {
    d.status.source.as_ref().is_some_and(|s| s.start_anyway_at.is_some())
}

/// After the source was started anyway the destination is settled when it is seen.
pub(super) fn settle_later(d: &mut Draft<'_>) -> Result<(), Stop> {
    if starts_anyway(d) && d.input.seen.destination.view().is_some() { settle_destination(d) } else { Ok(()) }
}

fn settle(d: &mut Draft<'_>, server: &Server, recorded_active: bool) -> Result<(), Stop> {
    let was_active = recorded_active || server.status == "ACTIVE" || server.launched_at.is_some();
    d.destination().server_status = Some(server.status.clone());
    if !was_active {
        if server.task_state.as_deref() != Some("deleting") {
            d.step(Step::Delete { side: Side::Destination, kind: ObjectKind::Server, id: server.id.clone() });
        }
        let what = format!("Removing server {} from the destination; it never ran", server.id);
        return Err(Stop::waiting(what));
    }
    let now = d.now();
    d.destination().active_at.get_or_insert(now);
    // 1 is RUNNING: a server in ERROR may still have a running guest.
    let runs = server.status == "ACTIVE" || (server.status != "SHUTOFF" && server.power_state == 1);
    if !runs {
        return Ok(());
    }
    if server.task_state.is_none() {
        d.step(Step::StopDestination { server_id: server.id.clone() });
    }
    Err(Stop::waiting(format!(
        "Stopping server {} in the destination; it is kept, since it may hold new writes",
        server.id
    )))
}

/// The source is unlocked and started again, if it ran; then its claim is released, and its owner's lock put back.
fn give_back(d: &mut Draft<'_>) -> Result<(), Stop> {
    let uid = d.input.me.uid.clone();
    let touched = d.claimed() || d.status.source.as_ref().is_some_and(|s| s.unlock_requested_at.is_some());
    // Never claimed, and its owner's lock was not opened: nothing was touched.
    match &d.input.seen.source {
        Seen::View(v) if v.server.is_none() && !touched => return Ok(()),
        Seen::Unseen(_) | Seen::NotLooked if !touched => return Ok(()),
        _ => {}
    }
    let (view, server) = match gone::source(d)? {
        gone::Source::Found(view, server) => (view, server),
        gone::Source::Gone => {
            d.source().server_status = looks::GONE.into();
            return Ok(());
        }
    };
    d.source().server_status = server.status.clone();
    let s = d.source().clone();
    if server.metadata.get(MARK_CLAIM) != Some(&uid) {
        return relock(d, &s, server);
    }
    if s.give_back_at.is_none() {
        let now = d.now();
        d.source().give_back_at = Some(now);
        return Err(Stop::written_first());
    }
    if server.locked {
        return Err(open(d, server, &view.actions));
    }
    if s.was_running && !s.taken_back && server.status != "ACTIVE" {
        return Err(start(d, &s, server));
    }
    if let Some(task) = server.task_state.as_ref().filter(|_| s.was_running && server.status == "ACTIVE") {
        // Our stop may still be under way.
        return Err(Stop::waiting(format!("Waiting for server {} to settle: {task}", server.name)));
    }
    d.status.running_in = Some(if server.status == "ACTIVE" { RunningIn::A } else { RunningIn::None });
    if s.was_running {
        recheck::of_source(d, server)?;
    }
    d.step(Step::ReleaseClaim);
    Err(Stop::waiting("Releasing the claim on the source"))
}

/// A locked server is neither started nor released. A lock that is not ours is remembered, and put back at the end.
fn open(d: &mut Draft<'_>, server: &Server, actions: &[InstanceAction]) -> Stop {
    source::adopt_request_ids(d, server, actions);
    let ours = ran::lock_is_ours(d.source(), actions);
    if !ours && !d.source().was_locked {
        // Written before it is opened, so that a crash in between does not lose it.
        d.source().was_locked = true;
        return Stop::written_first();
    }
    d.step(Step::UnlockSource);
    Stop::waiting("Unlocking the source")
}

fn start(d: &mut Draft<'_>, s: &SourceStatus, server: &Server) -> Stop {
    let since = s.give_back_at.as_ref().map(|t| clock(t.0)).unwrap_or_default();
    match (server.status.as_str(), server.task_state.as_deref()) {
        ("SHUTOFF", None) => {
            d.step(Step::StartSource);
            Stop::waiting("Starting the source again")
        }
        (status, task) => Stop::looking(format!(
            "Waiting for server {} to run again in A since {since}: {status} {}",
            server.name,
            task.unwrap_or_default()
        )),
    }
}

fn relock(d: &mut Draft<'_>, s: &SourceStatus, server: &Server) -> Result<(), Stop> {
    let opened = s.give_back_at.is_some() || s.unlock_requested_at.is_some();
    if s.was_locked && opened && !server.locked {
        d.step(Step::RelockSource);
        return Err(Stop::waiting("Putting back the lock that the source had"));
    }
    Ok(())
}
