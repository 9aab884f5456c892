//! The way back: the destination's server is settled, then the source is given back as it was.

use super::{
    AT_ONCE, Decision, Draft, Flow, LATER, ROLLED_BACK, SOON, cleanup, clock, forward, gone, hooks, ran,
    recheck, requests,
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

/// After success a rollback was asked for: is there a way back? Only then the destination is stopped.
pub(super) fn begin(mut d: Draft<'_>) -> Decision {
    let server = match gone::source(&mut d) {
        gone::Source::Found(_, server) => Some(server.clone()),
        gone::Source::Gone => None,
        gone::Source::Wait => {
            stage(&mut d, WayBackStage::Source);
            return d.decided();
        }
    };
    d.status.way_back = None;
    let (from, to) = (d.input.spec.source.cloud.clone(), d.input.spec.destination.cloud.clone());
    let why = match server.map(|s| (s.metadata.get(MARK_CLAIM).cloned(), s)) {
        None => Some(format!("the old server is gone from {from}")),
        Some((Some(uid), _)) if uid == d.input.me.uid => None,
        Some((Some(uid), s)) => {
            Some(format!("server {} in {from} is claimed by another migration, {uid}", s.name))
        }
        Some((None, s)) => {
            Some(format!("server {} in {from} does not carry this migration's mark any more", s.name))
        }
    };
    d.recheck = Some(AT_ONCE);
    if let Some(why) = why {
        let text = format!("not rolled back, {} in {to} is left as it is: {why}", d.input.spec.source.server);
        requests::refuse_later(&mut d, RequestName::Rollback, &text);
        d.status.rollback = None;
        d.note(text.clone());
        d.say(text);
        return d.decided();
    }
    let x = d.destination().clone();
    let (since, id) = (x.active_at.or(x.ready_at).map(|t| t.0.to_string()), x.server_id.unwrap_or_default());
    d.status.finished_at = None;
    requests::look_again(&mut d);
    d.fail(
        ROLLED_BACK,
        format!(
            "rolled back by request: what was written in {to} since {} stays behind in server {id}, which is stopped and kept",
            since.unwrap_or_default()
        ),
    );
    d.enter(Phase::RollingBack, "going back to the source");
    if starts_anyway(&d) && d.input.seen.report_exists {
        d.step(Step::FinishReport);
    }
    d.decided()
}

/// Gives the source back; then the migration has failed, or is cancelled, or rolled back.
pub(super) fn roll_back(mut d: Draft<'_>) -> Decision {
    let why = d.status.failure.as_ref().map(|f| f.message.clone()).unwrap_or_default();
    d.enter(Phase::RollingBack, "giving the source back");
    hooks::abandon(&mut d, "ended: the migration is given up");
    cleanup::stop_jobs(&mut d, &[recheck::OF_SOURCE]);
    if let Flow::Wait = hooks::gate(&mut d, HookPhase::OnFailure) {
        return d.decided();
    }
    if let Flow::Wait = way_back(&mut d) {
        return d.decided();
    }
    let end = match d.status.failure.clone().unwrap_or_default() {
        f if f.cancelled => Phase::Cancelled,
        f if f.reason == ROLLED_BACK => Phase::RolledBack,
        _ => Phase::Failed,
    };
    let now = d.now();
    d.status.finished_at = Some(now);
    d.status.clean_looks = 0;
    d.status.trouble = None;
    d.enter(end, why.clone());
    let text = format!("{why}; {}", source_now(&d));
    d.say(text);
    d.recheck = Some(AT_ONCE);
    d.decided()
}

/// The destination is settled, then the source is given back. What takes too long is stalled, and goes on being tried.
pub(super) fn way_back(d: &mut Draft<'_>) -> Flow {
    if let Flow::Wait = settle_destination(d) {
        stage(d, WayBackStage::Destination);
        return Flow::Wait;
    }
    if let Flow::Wait = give_back(d) {
        stage(d, WayBackStage::Source);
        return Flow::Wait;
    }
    d.status.way_back = None;
    Flow::On
}

fn stage(d: &mut Draft<'_>, stage: WayBackStage) {
    let (now, bound) = (d.now(), d.input.limits.trouble_seconds);
    let served = d.status.running_in == Some(RunningIn::A) && !d.troubled;
    let at = d.status.way_back.get_or_insert_default();
    if at.stage != stage || at.since.is_none() || served {
        // While the source is asked its checks it runs: nobody waits for that.
        *at = WayBack { stage, since: Some(now), stalled_since: None };
        return;
    }
    let since = at.since.as_ref().map_or(now.0, |t| t.0);
    if now.0.duration_since(since).as_secs() <= bound {
        return;
    }
    if at.stalled_since.is_none() {
        at.stalled_since = Some(now);
        let waits = d.status.message.clone().unwrap_or_default();
        d.note(format!("the way back is stuck since {}: {waits}", clock(since)));
    }
    d.recheck = d.recheck.map(|r| r.max(if d.steps.is_empty() { LATER } else { SOON }));
}

/// It has ended, and the source is seen with our claim all the same: it was not seen when it should have been given back.
pub(super) fn is_stranded(d: &Draft<'_>) -> bool {
    let ended = d.phase().gave_up() || d.phase() == Phase::Deleting && d.status.finished_at.is_some();
    let server = d.input.seen.source.view().and_then(SourceView::found);
    ended && server.is_some_and(|s| s.metadata.get(MARK_CLAIM) == Some(&d.input.me.uid))
}

/// Goes back to where it is given back.
pub(super) fn reopen(mut d: Draft<'_>) -> Decision {
    d.status.finished_at = None;
    requests::look_again(&mut d);
    if d.phase() != Phase::Deleting {
        d.enter(Phase::RollingBack, "the source is seen with this migration's claim: it is given back");
    }
    d.decided()
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

/// Somebody has the source; until this object is deleted we only see to it that no copy runs beside it.
pub(super) fn held(mut d: Draft<'_>) -> Decision {
    d.source().taken_back = true;
    let server = d.input.seen.source.view().and_then(|v| v.found().cloned());
    if let Some(s) = server {
        d.status.running_in = Some(if s.status == "ACTIVE" { RunningIn::A } else { RunningIn::None });
        // Where our own lock is gone somebody has opened it. Before there was one, nobody but us has opened the owner's.
        if d.source().lock_request_id.is_none() && d.source().locked_at.is_none() {
            forward::lock_again(&mut d, &s);
        }
        d.source().server_status = s.status;
    }
    hooks::abandon(&mut d, "ended: somebody has the source");
    cleanup::stop_jobs(&mut d, &[]);
    d.recheck = Some(LATER);
    let _ = settle_destination(&mut d);
    if let Some(row) = d.input.status.timeline.iter().rev().find(|r| r.phase == Phase::Held) {
        let me = d.input.me;
        let text = format!(
            "Held: {}. A stays as it is. To give up and remove what was made in B: kubectl delete vmm {} -n {}; to stop A again and go on: {}",
            row.message,
            me.name,
            me.namespace,
            requests::command(&d, RequestName::Retry)
        );
        d.say(text);
    }
    d.decided()
}

/// A server in the destination that was once ACTIVE is stopped and kept; one that never was is removed.
pub(super) fn settle_destination(d: &mut Draft<'_>) -> Flow {
    let Some(x) = d.status.destination.clone() else { return Flow::On };
    if x.server_requested_at.is_none() {
        return Flow::On;
    }
    let view = match &d.input.seen.destination {
        Seen::View(v) => v,
        Seen::Unseen(_) if starts_anyway(d) => return Flow::On,
        Seen::Unseen(p) => {
            let text = format!(
                "DestinationUnreachable: the source waits until the server in the destination is seen gone or stopped \
                 (if that cloud is gone for good: spec.requests.startSource): {}",
                p.message
            );
            d.trouble("destination-unreachable", &text);
            d.say(text);
            return Flow::Wait;
        }
        Seen::NotLooked => return Flow::Wait,
    };
    let mut flow = Flow::On;
    for server in &view.servers {
        if let Flow::Wait = settle(d, server, x.active_at.is_some()) {
            flow = Flow::Wait;
        }
    }
    if !view.servers.is_empty() {
        d.destination().gone_since = None;
        return flow;
    }
    match gone::destination(d, view) {
        gone::Destination::Gone => {
            d.destination().server_status = None;
            Flow::On
        }
        _ if starts_anyway(d) => Flow::On,
        _ => Flow::Wait,
    }
}

/// Somebody who typed the server's id says that the destination's cloud is gone.
fn starts_anyway(d: &Draft<'_>) -> bool {
    d.status.source.as_ref().is_some_and(|s| s.start_anyway_at.is_some())
}

/// After the source was started anyway the destination is settled when it is seen.
pub(super) fn settle_later(d: &mut Draft<'_>) -> Flow {
    if starts_anyway(d) && d.input.seen.destination.view().is_some() {
        settle_destination(d)
    } else {
        Flow::On
    }
}

fn settle(d: &mut Draft<'_>, server: &Server, recorded_active: bool) -> Flow {
    let was_active = recorded_active || server.status == "ACTIVE" || server.launched_at.is_some();
    d.destination().server_status = Some(server.status.clone());
    if !was_active {
        d.say(format!("Removing server {} from the destination; it never ran", server.id));
        if server.task_state.as_deref() != Some("deleting") {
            d.step(Step::Delete { side: Side::Destination, kind: ObjectKind::Server, id: server.id.clone() });
        }
        return Flow::Wait;
    }
    let now = d.now();
    d.destination().active_at.get_or_insert(now);
    // 1 is RUNNING: a server in ERROR may still have a running guest.
    let runs = server.status == "ACTIVE" || (server.status != "SHUTOFF" && server.power_state == 1);
    if !runs {
        return Flow::On;
    }
    d.say(format!(
        "Stopping server {} in the destination; it is kept, since it may hold new writes",
        server.id
    ));
    if server.task_state.is_none() {
        d.step(Step::StopDestination { server_id: server.id.clone() });
    }
    Flow::Wait
}

/// The source is unlocked and started again, if it ran; then its claim is released, and its owner's lock put back.
pub(super) fn give_back(d: &mut Draft<'_>) -> Flow {
    let uid = d.input.me.uid.clone();
    let touched = d.claimed() || d.status.source.as_ref().is_some_and(|s| s.unlock_requested_at.is_some());
    // Never claimed, and its owner's lock was not opened: nothing was touched.
    match &d.input.seen.source {
        Seen::View(v) if v.server.is_none() && !touched => return Flow::On,
        Seen::Unseen(_) | Seen::NotLooked if !touched => return Flow::On,
        _ => {}
    }
    let (view, server) = match gone::source(d) {
        gone::Source::Found(view, server) => (view, server),
        gone::Source::Gone => {
            d.source().server_status = looks::GONE.into();
            return Flow::On;
        }
        gone::Source::Wait => return Flow::Wait,
    };
    d.source().server_status = server.status.clone();
    let s = d.source().clone();
    if server.metadata.get(MARK_CLAIM) != Some(&uid) {
        return relock(d, &s, server);
    }
    if s.give_back_at.is_none() {
        let now = d.now();
        d.source().give_back_at = Some(now);
        d.recheck = Some(AT_ONCE);
        return Flow::Wait;
    }
    if server.locked {
        open(d, server, &view.actions);
        return Flow::Wait;
    }
    if s.was_running && !s.taken_back && server.status != "ACTIVE" {
        return start(d, &s, server);
    }
    if s.was_running && server.task_state.is_some() && server.status == "ACTIVE" {
        // Our stop may still be under way.
        d.say(format!(
            "Waiting for server {} to settle: {}",
            server.name,
            server.task_state.clone().unwrap_or_default()
        ));
        return Flow::Wait;
    }
    d.status.running_in = Some(if server.status == "ACTIVE" { RunningIn::A } else { RunningIn::None });
    if s.was_running
        && let Flow::Wait = recheck::of_source(d, server)
    {
        return Flow::Wait;
    }
    d.say("Releasing the claim on the source");
    d.step(Step::ReleaseClaim);
    Flow::Wait
}

/// A locked server is neither started nor released. A lock that is not ours is remembered, and put back at the end.
fn open(d: &mut Draft<'_>, server: &Server, actions: &[InstanceAction]) {
    forward::adopt_request_ids(d, server, actions);
    let ours = ran::lock_is_ours(d.source(), actions);
    if !ours && !d.source().was_locked {
        // Written before it is opened, so that a crash in between does not lose it.
        d.source().was_locked = true;
        d.recheck = Some(AT_ONCE);
        return;
    }
    d.say("Unlocking the source");
    d.step(Step::UnlockSource);
}

fn start(d: &mut Draft<'_>, s: &SourceStatus, server: &Server) -> Flow {
    let since = s.give_back_at.as_ref().map(|t| clock(t.0)).unwrap_or_default();
    match (server.status.as_str(), &server.task_state) {
        ("SHUTOFF", None) => {
            d.say("Starting the source again");
            d.step(Step::StartSource);
        }
        (status, task) => {
            let text = format!(
                "Waiting for server {} to run again in A since {since}: {status} {}",
                server.name,
                task.clone().unwrap_or_default()
            );
            d.say(text);
            d.recheck = Some(SOON);
        }
    }
    Flow::Wait
}

fn relock(d: &mut Draft<'_>, s: &SourceStatus, server: &Server) -> Flow {
    let opened = s.give_back_at.is_some() || s.unlock_requested_at.is_some();
    if s.was_locked && opened && !server.locked {
        d.say("Putting back the lock that the source had");
        d.step(Step::RelockSource);
        return Flow::Wait;
    }
    Flow::On
}
