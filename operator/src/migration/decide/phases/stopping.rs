//! `Stopping`: everything is looked at a second time; then the source is claimed, stopped and locked.

use crate::{
    cloud::{InstanceAction, Server},
    crd::{conditions::reason, v1alpha1::*},
    migration::{
        block_storage,
        decide::{
            AT_ONCE, Draft, LATER, clock, cutover, downtime, hooks, look,
            next::{Next, Stop},
            repository, retry, source,
        },
        looks,
        names::MARK_CLAIM,
        step::Step,
    },
};

/// How long the source's guest gets to shut down, in seconds; Nova cuts its power before.
const STOP_SECONDS: i64 = 600;

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    if !d.claimed() {
        return before_the_claim(d);
    }
    let (view, server) = source::server(d)?;
    source::adopt_request_ids(d, server, &view.actions);
    d.source().server_status = server.status.clone();
    if server.metadata.get(MARK_CLAIM) != Some(&d.input.me.uid) {
        return Err(Stop::unrecoverable(format!("our claim on server {} was taken away", server.name)));
    }
    may_still_be_stopped(d, server)?;
    stop(d, server, &view.actions)?;
    lock(d, server)?;
    hooks::gate(d, HookPhase::AfterStop)?;
    retry::reuse(d, &view.actions);
    d.say("Source stopped and locked");
    Ok(Next::enter(Phase::Transferring, "source stopped and locked"))
}

/// The go was for a time, and that may have passed since, while it was suspended for instance.
fn may_still_be_stopped(d: &mut Draft<'_>, server: &Server) -> Result<(), Stop> {
    let asked = d.source().stop_requested_at.is_some();
    if asked || server.status == "SHUTOFF" { Ok(()) } else { cutover::still_granted(d, "Claimed") }
}

fn before_the_claim(d: &mut Draft<'_>) -> Result<Next, Stop> {
    // While hooks run, or the repository is made, there is no look: what they wait for must not be ended by a cloud that is slow to answer.
    let begun = hooks::begun(&d.status, HookPhase::BeforeStop);
    if !begun
        && !lock_was_opened(d)
        && let Some(why) = cutover::taken_back(d)
    {
        return Ok(Next::enter_and_go_on(Phase::AwaitingCutover, why));
    }
    let looked = begun || looks::init_runs(d.input.me, &d.status, d.input.seen);
    if !looked {
        second_look(d)?;
    }
    repository::init(d)?;
    hooks::gate(d, HookPhase::BeforeStop)?;
    if begun {
        look_after_hooks(d)?;
    }
    let Some(server) = d.input.seen.inventory.as_ref().and_then(|i| i.candidates.first()) else {
        return Err(Stop::as_said());
    };
    if begun {
        cutover::still_granted(d, "Hooks BeforeStop have run")?;
    }
    Err(claim(d, server))
}

/// The next step towards the claim. Metadata of a locked server cannot be changed: its owner's lock is opened, and comes
/// back when the server is given back.
fn claim(d: &mut Draft<'_>, server: &Server) -> Stop {
    let now = d.now();
    if server.metadata.get(MARK_CLAIM) == Some(&d.input.me.uid) {
        d.source().claimed_at = Some(now);
        d.note(format!("claimed server {}", server.name));
        return Stop::waiting("Claimed the source").again(AT_ONCE);
    }
    if server.locked && d.source().unlock_requested_at.is_none() {
        // Written before, so that a crash in between does not lose the owner's lock.
        let s = d.source();
        (s.unlock_requested_at, s.was_locked) = (Some(now), true);
        return Stop::written_first();
    }
    if server.locked {
        d.step(Step::UnlockSource);
        return Stop::waiting("Unlocking the source to claim it");
    }
    // An owner's lock that we have just opened is still remembered.
    d.step(Step::ClaimSource);
    Stop::waiting("Claiming the source")
}

/// Its owner's lock was opened to claim it, or that cannot be seen now: only this phase remembers that.
fn lock_was_opened(d: &Draft<'_>) -> bool {
    let was_locked = d.status.source.as_ref().is_some_and(|s| s.was_locked);
    let server = d.input.seen.inventory.as_ref().and_then(|i| i.candidates.first());
    was_locked && server.is_none_or(|s| !s.locked)
}

fn second_look(d: &mut Draft<'_>) -> Result<(), Stop> {
    match look::look(d) {
        // Volumes there were made for this source: in phase Blocked both ends of the move could be changed.
        Err(Stop::Blocked) if block_storage::fills_while_copying(&d.status) => {
            let (_, whole) = look::blockers(d);
            Err(Stop::waiting(format!("Before the stop, A runs: {whole}; looking again")).again(LATER))
        }
        other => other.map_err(before_the_stop),
    }
}

/// What a look waits for is waited for here before the stop.
fn before_the_stop(stop: Stop) -> Stop {
    match stop {
        Stop::Waiting { what: Some(what), again } => {
            Stop::Waiting { what: Some(format!("Before the stop: {what}")), again }
        }
        other => other,
    }
}

/// Hooks have changed something: what is in the way now is borne for a while, then the failure path undoes it.
fn look_after_hooks(d: &mut Draft<'_>) -> Result<(), Stop> {
    let looked = look::look(d);
    let Err(Stop::Blocked) = looked else { return looked.map_err(before_the_stop) };
    let blocked = d.status.preflight.first().map(|f| f.message.clone()).unwrap_or_default();
    let bound = d.input.limits.trouble_seconds;
    if d.past(&hooks::last_end(&d.status, HookPhase::BeforeStop), bound) {
        let text = format!("after the hooks, before the stop: {blocked} (for {bound} s)");
        return Err(Stop::failed(reason::INVALID_CONFIGURATION, text));
    }
    Err(Stop::waiting(format!("After the hooks, before the stop: {blocked}; looking again")))
}

fn stop(d: &mut Draft<'_>, server: &Server, actions: &[InstanceAction]) -> Result<(), Stop> {
    let s = d.source().clone();
    if s.stopped_at.is_some() {
        return Ok(());
    }
    let now = d.now();
    if server.status == "SHUTOFF" && server.task_state.is_none() {
        d.source().stopped_at = Some(now);
        downtime::begins(d, actions);
        d.status.running_in = Some(RunningIn::None);
        d.note(format!("server {} is SHUTOFF", server.name));
        return Ok(());
    }
    let Some(since) = s.stop_requested_at else {
        // Written before the POST, so that a crash in between is seen.
        d.source().stop_requested_at = Some(now);
        return Err(Stop::waiting("Stopping the source").again(AT_ONCE));
    };
    if s.stop_request_id.is_none() && server.status == "ACTIVE" && server.task_state.is_none() {
        d.step(Step::StopSource);
        return Err(Stop::waiting("Stopping the source"));
    }
    if d.overdue(since.0, STOP_SECONDS) {
        return Err(Stop::unrecoverable(format!(
            "server {} is still {} {STOP_SECONDS} s after the stop of {}",
            server.name, server.status, since.0
        )));
    }
    Err(Stop::waiting(format!(
        "Waiting for the guest of {} to shut down since {} (gives up after {STOP_SECONDS} s)",
        server.name,
        clock(since.0)
    )))
}

fn lock(d: &mut Draft<'_>, server: &Server) -> Result<(), Stop> {
    let s = d.source().clone();
    let now = d.now();
    if s.locked_at.is_some() {
        return Ok(());
    }
    if server.status != "SHUTOFF" {
        let why = format!("server {} is {} although it was seen SHUTOFF", server.name, server.status);
        return Err(Stop::Held(why));
    }
    if server.locked && s.lock_request_id.is_some() {
        d.source().locked_at = Some(now);
        d.note("locked");
        return Ok(());
    }
    let waiting = Stop::waiting("Locking the source");
    if s.lock_requested_at.is_none() {
        d.source().lock_requested_at = Some(now);
        return Err(waiting.again(AT_ONCE));
    }
    if !server.locked {
        d.step(Step::LockSource);
        return Err(waiting);
    }
    // Locked, by a request whose id we lost; the list of actions will tell it.
    Err(Stop::looking("Locking the source"))
}
