//! The way back: the destination's server is settled, then the source is given back as it was.

use super::{
    AT_ONCE, Decision, Draft, Flow, LATER, ROLLED_BACK, SOON, cleanup, clock, hooks, recheck, requests,
};
use crate::{
    crd::v1alpha1::*,
    migration::{
        names::{MARK_CLAIM, Side},
        observed::Seen,
        step::{ObjectKind, Step},
    },
    openstack::Server,
};

/// After success a rollback was asked for: is there a way back? Only then the destination is stopped.
pub(super) fn begin(mut d: Draft<'_>) -> Decision {
    let server = match &d.input.seen.source {
        Seen::View(v) => v.server.clone(),
        Seen::Unseen(p) => {
            let p = p.clone();
            d.trouble(&p.id, &p.message);
            return d.decided();
        }
        Seen::NotLooked => return d.decided(),
    };
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
    if let Flow::Wait = settle_destination(&mut d) {
        return d.decided();
    }
    if let Flow::Wait = give_back(&mut d) {
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

/// Where the source is after it was given back.
pub(super) fn source_now(d: &Draft<'_>) -> String {
    let s = d.status.source.clone().unwrap_or_default();
    let (name, status) = (&s.server_name, s.server_status.as_str());
    if s.claimed_at.is_none() {
        return "nothing was touched in A".into();
    }
    let text = match (s.taken_back, s.was_running, status) {
        (_, _, "DELETED") => format!("{name} is gone from A"),
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
    let server = d.input.seen.source.view().and_then(|v| v.server.clone());
    if let Some(s) = server {
        d.status.running_in = Some(if s.status == "ACTIVE" { RunningIn::A } else { RunningIn::None });
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
        Seen::Unseen(p) => {
            let text = format!(
                "DestinationUnreachable: the source waits until the server in the destination is seen gone or stopped: {}",
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
    if view.servers.is_empty() {
        d.destination().server_status = None;
    }
    flow
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
    let server = match &d.input.seen.source {
        Seen::View(v) => v.server.clone(),
        Seen::Unseen(p) if d.claimed() => {
            let p = p.clone();
            d.trouble(&p.id, &p.message);
            return Flow::Wait;
        }
        // Never claimed: nothing was touched.
        Seen::Unseen(_) => return Flow::On,
        Seen::NotLooked => return if d.claimed() { Flow::Wait } else { Flow::On },
    };
    let Some(server) = server else {
        d.source().server_status = "DELETED".into();
        return Flow::On;
    };
    d.source().server_status = server.status.clone();
    let s = d.source().clone();
    if server.metadata.get(MARK_CLAIM) != Some(&uid) {
        return relock(d, &s, &server);
    }
    if s.give_back_at.is_none() {
        let now = d.now();
        d.source().give_back_at = Some(now);
        d.recheck = Some(AT_ONCE);
        return Flow::Wait;
    }
    if server.locked && s.lock_requested_at.is_some() {
        d.say("Unlocking the source");
        d.step(Step::UnlockSource);
        return Flow::Wait;
    }
    if s.was_running && !s.taken_back && server.status != "ACTIVE" {
        return start(d, &s, &server);
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
        && let Flow::Wait = recheck::of_source(d, &server)
    {
        return Flow::Wait;
    }
    d.say("Releasing the claim on the source");
    d.step(Step::ReleaseClaim);
    Flow::Wait
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
    if s.was_locked && s.give_back_at.is_some() && !server.locked && !s.taken_back {
        d.say("Putting back the lock that the source had");
        d.step(Step::RelockSource);
        return Flow::Wait;
    }
    Flow::On
}
