//! The way forward: preflight, cutover, stop, transfer, create, verify.

use super::{
    AT_ONCE, Decision, Draft, Flow, LATER, SOON, checks, clock, cutover, disks, downtime, gone, hooks,
    jobs::{Progress, Wanted},
    pause,
    ran::{self, Ran},
    requests, retry, set_at, warm,
};
use crate::{
    cloud::{InstanceAction, Server},
    crd::v1alpha1::*,
    migration::{
        block_storage, checks as application, image_checks, looks,
        names::{MARK_CLAIM, Role, Side},
        observed::{DestinationView, Problem, Seen, SourceView},
        place, preflight,
        step::Step,
    },
};
use std::time::Duration;

/// For how long a passed probe of a side counts, in seconds.
const PROBE_SECONDS: i64 = 600;
/// After how many seconds a failed probe is tried again.
const PROBE_AGAIN_SECONDS: i64 = 30;
/// The step that asks for the server.
const CREATE_SERVER: &str = "create-server";
/// So many seconds after it was decided to ask for the server nobody can have asked before, unless that is told.
const FIRST_ASK_SECONDS: i64 = 15;
/// How long the source's guest gets to shut down, in seconds; Nova cuts its power before.
const STOP_SECONDS: i64 = 600;

/// Pending, Preflight, Blocked.
pub(super) fn preflight(mut d: Draft<'_>) -> Decision {
    if d.phase() == Phase::Pending {
        d.enter(Phase::Preflight, "first seen");
    }
    if let Flow::Wait = before_preflight(&mut d) {
        return d.decided();
    }
    match look(&mut d) {
        // In the same pass: who sees the phase reads how to give the go.
        Look::Passed if warm::applies(&d) => return warm::enter(d),
        Look::Passed => {
            d.enter(Phase::AwaitingCutover, "preflight passed");
            return await_cutover(d);
        }
        Look::Waiting(what) => d.say(what),
        Look::Blocked => block(&mut d),
    }
    d.decided()
}

/// Before anything is looked at, once; but what the spec refers to has to be there, or nothing could be run.
fn before_preflight(d: &mut Draft<'_>) -> Flow {
    if !hooks::begun(&d.status, HookPhase::BeforePreflight) {
        let wanted = d.input.spec.hooks.iter().any(|h| h.phase == HookPhase::BeforePreflight);
        let findings = if wanted { missing(d) } else { vec![] };
        if !findings.is_empty() {
            d.status.preflight = findings;
            block(d);
            return Flow::Wait;
        }
    }
    hooks::gate(d, HookPhase::BeforePreflight)
}

/// References that lead nowhere, of spec and hooks.
fn missing(d: &Draft<'_>) -> Vec<Finding> {
    let seen = d.input.seen;
    let clusters = [seen.source_cluster.problem(), seen.destination_cluster.problem()];
    let problems = seen.reference_problems.iter().chain(clusters.into_iter().flatten());
    let mut findings: Vec<_> = problems.map(Problem::blocker).chain(seen.hook_findings.clone()).collect();
    findings.dedup();
    findings
}

/// What is in the way: the first of it, and as a whole.
fn blocked(d: &Draft<'_>) -> (String, String) {
    let blockers: Vec<_> = d.status.preflight.iter().filter(|f| f.severity == Severity::Blocker).collect();
    let first = blockers.first().map_or(String::new(), |f| {
        let hint = f.suggestion.as_ref().map_or(String::new(), |s| format!(" ({s})"));
        format!("{}{hint}", f.message)
    });
    let more = match blockers.len() {
        0 | 1 => String::new(),
        n => format!(" [and {} more: see status.preflight]", n - 1),
    };
    let whole = format!("{first}{more}");
    (first, whole)
}

fn block(d: &mut Draft<'_>) {
    let (first, whole) = blocked(d);
    d.enter(Phase::Blocked, first);
    put_owners_lock_back(d);
    d.say(format!("Blocked, nothing was touched: {whole}"));
    // Each look reads all of both clouds; who corrects the spec is heard at once.
    let lasted = d.status.phase_since.as_ref().map_or(0, |t| d.input.now.duration_since(t.0).as_secs());
    d.recheck = Some(pause(lasted, 15..=60));
}

/// Something came in the way after the owner's lock was opened to claim the server.
pub(super) fn put_owners_lock_back(d: &mut Draft<'_>) {
    let server = d.input.seen.inventory.as_ref().and_then(|i| i.candidates.first());
    if let Some(server) = server.filter(|s| d.status.source.as_ref().is_some_and(|o| o.server_id == s.id)) {
        lock_again(d, server);
    }
}

/// Puts the lock back that was opened to claim the server, once: whoever opens it then wants it so.
pub(super) fn lock_again(d: &mut Draft<'_>, server: &Server) {
    match (d.source().unlock_requested_at.is_some(), server.locked) {
        (true, false) => d.step(Step::RelockSource),
        (true, true) => d.source().unlock_requested_at = None,
        (false, _) => {}
    }
}

enum Look {
    Passed,
    Blocked,
    Waiting(String),
}

/// One look at everything: references, both clouds, the server, and the store from inside a pod near each cloud.
fn look(d: &mut Draft<'_>) -> Look {
    let seen = d.input.seen;
    let mut problems: Vec<Problem> = seen.reference_problems.clone();
    problems.extend([seen.source.problem(), seen.destination.problem()].into_iter().flatten().cloned());
    problems.extend(
        [seen.source_cluster.problem(), seen.destination_cluster.problem()].into_iter().flatten().cloned(),
    );
    // What was found before the probes began stands until they have ended.
    if problems.is_empty()
        && seen.inventory.is_none()
        && looks::a_probe_runs(d.input.me, &d.status, seen)
        && let Some(what) = probe(d, &mut vec![])
    {
        return Look::Waiting(what);
    }
    let mut findings: Vec<Finding> = problems.iter().map(Problem::blocker).collect();
    findings.extend(seen.hook_findings.clone());
    findings.extend(application::findings(d.input.spec));
    let console = seen.inventory.as_ref().and_then(|i| i.source.console.as_ref());
    findings.extend(application::host_keys(d.input.spec, &d.status.hooks, console));
    if let Some(inventory) = &seen.inventory {
        let project = seen.destination_place.as_ref().map(|p| p.project_id.as_str()).unwrap_or_default();
        let found = preflight::preflight(d.input.me, d.input.spec, project, inventory);
        findings.extend(found.findings.clone());
        pin(d, found);
    }
    if let Some(store) = &seen.store {
        let pinned = d.status.store.get_or_insert_default();
        if pinned.initialized_at.is_none() {
            (pinned.name, pinned.repository) = (store.name.clone(), store.repository.clone());
        }
    }
    let waiting = if problems.is_empty() { probe(d, &mut findings) } else { None };
    findings.extend(transfer_modes(d));
    findings.extend(warm::plan(d));
    findings.extend(judged_late(d));
    findings.sort_by_key(|f| f.severity);
    // A reference that leads nowhere is met by the cloud and by its cluster.
    findings.dedup();
    d.status.preflight = findings;
    match (d.status.preflight.iter().any(|f| f.severity == Severity::Blocker), waiting) {
        (_, Some(what)) => Look::Waiting(what),
        (true, None) => Look::Blocked,
        (false, None) if seen.inventory.is_none() => {
            // They were left alone for something that has ended.
            d.recheck = Some(AT_ONCE);
            Look::Waiting("looking at both clouds".into())
        }
        (false, None) => Look::Passed,
    }
}

/// Records what was found. Until the claim nothing depends on it, and the spec may still change.
fn pin(d: &mut Draft<'_>, found: preflight::Preflight) {
    let seen = d.input.seen;
    let unlocked_by_us = d.source().unlock_requested_at.is_some();
    // A hook may have shut it down; it ran all the same.
    let ran = hooks::begun(&d.status, HookPhase::BeforeStop) && d.source().was_running;
    if let Some(server) = &found.server {
        seen.place(Side::Source).into_iter().for_each(|p| place::record(&mut d.status, Side::Source, p));
        let s = d.source();
        (s.server_id, s.server_name) = (server.id.clone(), server.name.clone());
        s.server_status = server.status.clone();
        s.addresses = addresses(server);
        s.was_running = ran || server.status != "SHUTOFF";
        s.was_locked = server.locked || unlocked_by_us;
        s.keeps_snapshots = found.keeps_snapshots;
        d.status.running_in = Some(if server.status == "SHUTOFF" { RunningIn::None } else { RunningIn::A });
    }
    seen.place(Side::Destination)
        .into_iter()
        .for_each(|p| place::record(&mut d.status, Side::Destination, p));
    d.status.plan = Some(found.plan);
    let mut disks = found.disks;
    disks.iter_mut().for_each(|disk| warm::carry(&d.status, d.input.spec, disk));
    d.status.disks = disks;
    d.status.fidelity = found.fidelity;
}

/// How disks leave A and enter B; what was asked for and cannot be is a blocker.
fn transfer_modes(d: &mut Draft<'_>) -> Vec<Finding> {
    let seen = d.input.seen;
    let disks = seen.inventory.iter().flat_map(|i| &i.source.volumes);
    let from: Vec<_> = disks.filter_map(|v| v.availability_zone.clone()).collect();
    let to: Vec<_> = d.input.spec.destination.availability_zone.clone().into_iter().collect();
    let mut findings = vec![];
    for (side, zones) in [(Side::Source, from), (Side::Destination, to)] {
        let Some(storage) = seen.cluster(side).view().and_then(|c| c.storage.as_ref()) else { continue };
        let cloud = d.cloud(side);
        let begun = block_storage::pinned(&d.status, side).filter(|_| d.status.copying.is_some()).cloned();
        let found = match &begun {
            Some(begun) => block_storage::resolve_again(storage, &zones, begun),
            None => block_storage::resolve(storage, &zones),
        };
        let transfer = match found {
            Ok(transfer) => Some(transfer),
            Err(why) => {
                findings.push(block_storage::blocker(side, cloud, &why));
                begun
            }
        };
        let takes_any = storage.asked.is_some_and(|t| t.takes_any_disk);
        let judges = if takes_any { Some(false) } else { seen.judges_images(side) };
        let transfer = transfer.map(|t| ResolvedTransfer { judges_images: judges, ..t });
        match side {
            Side::Source => d.source().transfer = transfer,
            Side::Destination => d.destination().transfer = transfer,
        }
    }
    findings
}

/// Image services that refuse some disks, where that is not known before the stop.
fn judged_late(d: &Draft<'_>) -> Vec<Finding> {
    let late = |side| {
        let judges = |t: &&ResolvedTransfer| t.judges_images == Some(true) && !t.is_volume();
        block_storage::pinned(&d.status, side).filter(judges).is_some() && !warm::applies(d)
    };
    let sides = super::SIDES.into_iter().filter(|side| late(*side));
    sides.map(|side| image_checks::late(side, d.cloud(side))).collect()
}

/// All addresses, fixed ones first.
fn addresses(server: &Server) -> Vec<String> {
    let (fixed, floating): (Vec<_>, Vec<_>) = server.addresses.iter().partition(|a| a.fixed);
    fixed.into_iter().chain(floating).map(|a| a.address.clone()).collect()
}

/// A Job on each side writes, reads and deletes in the store and speaks to its cloud. Returns what is waited for.
fn probe(d: &mut Draft<'_>, findings: &mut Vec<Finding>) -> Option<String> {
    let repository = d.status.store.as_ref()?.repository.clone();
    let mut waiting = None;
    for side in super::SIDES {
        let purpose = format!("probe-{side}");
        renew_probe(d, &purpose);
        let wanted = Wanted {
            side,
            purpose: purpose.clone(),
            args: vec!["probe".into(), "--repository".into(), repository.clone()],
            credentials: true,
            deadline_seconds: 120,
            attempts: 1,
        };
        // A failed probe is not made again at once: its record says when it is due.
        if d.job_record(&purpose).state == "Failed" {
            findings.push(probe_failed(side, d.job_record(&purpose).message.clone().unwrap_or_default()));
            continue;
        }
        if d.job_record(&purpose).state == "Succeeded" {
            continue;
        }
        match d.job(wanted) {
            Progress::Running(why) => {
                waiting = Some(format!("Probing the store from a pod near the {side} cloud: {why}"))
            }
            Progress::Failed(why) => findings.push(probe_failed(side, why)),
            Progress::Succeeded(_) | Progress::Again => {}
        }
    }
    waiting
}

fn renew_probe(d: &mut Draft<'_>, purpose: &str) {
    let now = d.input.now;
    let record = d.job_record(purpose);
    let age = record.finished_at.as_ref().map(|t| now.duration_since(t.0).as_secs());
    let due = match record.state.as_str() {
        "Succeeded" => age.is_some_and(|a| a > PROBE_SECONDS),
        "Failed" => age.is_none_or(|a| a > PROBE_AGAIN_SECONDS),
        _ => false,
    };
    if due {
        let side = if purpose.ends_with("source") { Side::Source } else { Side::Destination };
        let old = d.input.me.job(purpose, d.job_record(purpose).attempt);
        d.next_attempt(purpose, None);
        d.step(Step::DeleteJob { side, name: old });
        // Secrets may have been corrected since.
        d.step(Step::PrepareSecrets);
    }
}

fn probe_failed(side: Side, message: String) -> Finding {
    Finding {
        id: format!("probe-{side}"),
        severity: Severity::Blocker,
        message: format!("the store or the cloud cannot be used from a pod near the {side} cloud: {message}"),
        suggestion: Some("it is probed again every 30 s".into()),
    }
}

/// Waits for the go.
pub(super) fn await_cutover(mut d: Draft<'_>) -> Decision {
    // A pass that is under way ends first: what it made is removed while the server runs.
    if let Flow::Wait = warm::pass(&mut d) {
        return d.decided();
    }
    let (go, passes) = (cutover::go(&d), warm::told(&d));
    match cutover::word(&d) {
        cutover::Word::Go => return cutover::grant(d),
        cutover::Word::At(at) => {
            let left = at.duration_since(d.input.now).as_secs().clamp(1, 60);
            d.recheck = Some(Duration::from_secs(left.unsigned_abs()));
            d.say(format!("Ready{passes}; the source is stopped at {at}"));
        }
        cutover::Word::Waits(why) => {
            d.recheck = Some(LATER);
            d.say(match why {
                Some(why) => format!("Ready{passes}; {why}, so it waits for you: {go}"),
                None => format!("Ready{passes}; waiting for your go: {go}"),
            });
        }
    }
    warm::next(&mut d);
    d.decided()
}

/// Second preflight, repository, hooks, claim, stop, hooks, lock.
pub(super) fn stop(mut d: Draft<'_>) -> Decision {
    if !d.claimed() {
        return before_the_claim(d);
    }
    let Some((view, server)) = source_server(&mut d) else { return d.decided() };
    adopt_request_ids(&mut d, &server, &view.actions);
    d.source().server_status = server.status.clone();
    if server.metadata.get(MARK_CLAIM) != Some(&d.input.me.uid) {
        d.fail("UnrecoverableError", format!("our claim on server {} was taken away", server.name));
        return d.decided();
    }
    if may_not_be_stopped_any_more(&mut d, &server) {
        return d.decided();
    }
    if let Flow::Wait = stop_server(&mut d, &server, &view.actions) {
        return d.decided();
    }
    if let Flow::Wait = lock_server(&mut d, &server) {
        return d.decided();
    }
    if let Flow::Wait = hooks::gate(&mut d, HookPhase::AfterStop) {
        return d.decided();
    }
    retry::reuse(&mut d, &view.actions);
    d.enter(Phase::Transferring, "source stopped and locked");
    d.say("Source stopped and locked");
    d.recheck = Some(AT_ONCE);
    d.decided()
}

/// The go was for a time, and that has passed since, while it was suspended for instance.
fn may_not_be_stopped_any_more(d: &mut Draft<'_>, server: &Server) -> bool {
    let asked = d.source().stop_requested_at.is_some();
    let runs = server.status != "SHUTOFF";
    runs && !asked && matches!(cutover::still_granted(d, "Claimed"), Flow::Wait)
}

fn before_the_claim(mut d: Draft<'_>) -> Decision {
    // While hooks run, or the repository is made, there is no look: what they wait for must not be ended by a cloud that is slow to answer.
    let begun = hooks::begun(&d.status, HookPhase::BeforeStop);
    if !begun
        && !lock_was_opened(&d)
        && let Some(why) = cutover::taken_back(&d)
    {
        d.enter(Phase::AwaitingCutover, why);
        return await_cutover(d);
    }
    let looked = begun || looks::init_runs(d.input.me, &d.status, d.input.seen);
    if !looked && let Flow::Wait = second_look(&mut d) {
        return d.decided();
    }
    if let Flow::Wait = init_repository(&mut d) {
        return d.decided();
    }
    if let Flow::Wait = hooks::gate(&mut d, HookPhase::BeforeStop) {
        return d.decided();
    }
    if begun && let Flow::Wait = look_after_hooks(&mut d) {
        return d.decided();
    }
    let Some(server) = d.input.seen.inventory.as_ref().and_then(|i| i.candidates.first()).cloned() else {
        return d.decided();
    };
    if begun && let Flow::Wait = cutover::still_granted(&mut d, "Hooks BeforeStop have run") {
        return d.decided();
    }
    if server.metadata.get(MARK_CLAIM) == Some(&d.input.me.uid) {
        let now = d.now();
        d.source().claimed_at = Some(now);
        d.note(format!("claimed server {}", server.name));
        d.say("Claimed the source");
        d.recheck = Some(AT_ONCE);
    } else if server.locked && d.source().unlock_requested_at.is_none() {
        // Written before, so that a crash in between does not lose the owner's lock.
        let now = d.now();
        let s = d.source();
        (s.unlock_requested_at, s.was_locked) = (Some(now), true);
        d.recheck = Some(AT_ONCE);
    } else if server.locked {
        // Metadata of a locked server cannot be changed; the lock comes back when the server is given back.
        d.say("Unlocking the source to claim it");
        d.step(Step::UnlockSource);
    } else {
        // An owner's lock that we have just opened is still remembered.
        d.say("Claiming the source");
        d.step(Step::ClaimSource);
    }
    d.decided()
}

/// Its owner's lock was opened to claim it, or that cannot be seen now: only this phase remembers that.
fn lock_was_opened(d: &Draft<'_>) -> bool {
    let was_locked = d.status.source.as_ref().is_some_and(|s| s.was_locked);
    let server = d.input.seen.inventory.as_ref().and_then(|i| i.candidates.first());
    was_locked && server.is_none_or(|s| !s.locked)
}

fn second_look(d: &mut Draft<'_>) -> Flow {
    match look(d) {
        Look::Waiting(what) => d.say(format!("Before the stop: {what}")),
        // Volumes there were made for this source: in phase Blocked both ends of the move could be changed.
        Look::Blocked if block_storage::fills_while_copying(&d.status) => {
            let (_, whole) = blocked(d);
            d.say(format!("Before the stop, A runs: {whole}; looking again"));
            d.recheck = Some(LATER);
        }
        Look::Blocked => block(d),
        Look::Passed => return Flow::On,
    }
    Flow::Wait
}

/// Hooks have changed something: what is in the way now is borne for a while, then the failure path undoes it.
fn look_after_hooks(d: &mut Draft<'_>) -> Flow {
    let blocked = match look(d) {
        Look::Passed => return Flow::On,
        Look::Waiting(what) => {
            d.say(format!("Before the stop: {what}"));
            return Flow::Wait;
        }
        Look::Blocked => d.status.preflight.first().map(|f| f.message.clone()).unwrap_or_default(),
    };
    let bound = d.input.limits.trouble_seconds;
    if d.past(&hooks::last_end(&d.status, HookPhase::BeforeStop), bound) {
        d.fail(
            "InvalidConfiguration",
            format!("after the hooks, before the stop: {blocked} (for {bound} s)"),
        );
    } else {
        d.say(format!("After the hooks, before the stop: {blocked}; looking again"));
    }
    Flow::Wait
}

/// Makes the repository, once.
pub(super) fn init_repository(d: &mut Draft<'_>) -> Flow {
    let Some(store) = d.status.store.clone() else { return Flow::Wait };
    if store.initialized_at.is_some() {
        return Flow::On;
    }
    let me = d.input.me;
    let wanted = Wanted {
        side: Side::Source,
        purpose: "init".into(),
        args: [
            ["init", "--repository", &store.repository].map(String::from).to_vec(),
            ["--migration-uid", &me.uid, "--object", &format!("{}/{}", me.namespace, me.name)]
                .map(String::from)
                .to_vec(),
        ]
        .concat(),
        credentials: true,
        deadline_seconds: 300,
        attempts: d.input.limits.job_attempts,
    };
    match d.job(wanted) {
        Progress::Succeeded(_) => {
            let now = d.now();
            d.status.store.get_or_insert_default().initialized_at = Some(now);
            Flow::On
        }
        Progress::Running(why) => {
            d.say(format!("Making the repository: {why}"));
            Flow::Wait
        }
        Progress::Again => Flow::Wait,
        Progress::Failed(why) => {
            disks::copy_failed(d, None, Side::Source, "init", why);
            Flow::Wait
        }
    }
}

/// The source as seen; when it cannot be seen, or is gone, that is recorded.
fn source_server<'a>(d: &mut Draft<'a>) -> Option<(&'a SourceView, Server)> {
    match gone::source(d) {
        gone::Source::Found(view, server) => Some((view, server.clone())),
        gone::Source::Gone => {
            d.fail("UnrecoverableError", "the source server is gone");
            None
        }
        gone::Source::Wait => None,
    }
}

fn stop_server(d: &mut Draft<'_>, server: &Server, actions: &[InstanceAction]) -> Flow {
    let s = d.source().clone();
    if s.stopped_at.is_some() {
        return Flow::On;
    }
    let now = d.now();
    if server.status == "SHUTOFF" && server.task_state.is_none() {
        d.source().stopped_at = Some(now);
        downtime::begins(d, actions);
        d.status.running_in = Some(RunningIn::None);
        d.note(format!("server {} is SHUTOFF", server.name));
        return Flow::On;
    }
    match (&s.stop_requested_at, &s.stop_request_id, server.status.as_str()) {
        (None, ..) => {
            // Written before the POST, so that a crash in between is seen.
            d.source().stop_requested_at = Some(now);
            d.recheck = Some(AT_ONCE);
            d.say("Stopping the source");
        }
        (Some(_), None, "ACTIVE") if server.task_state.is_none() => {
            d.say("Stopping the source");
            d.step(Step::StopSource);
        }
        (Some(since), ..) if d.past(&s.stop_requested_at, STOP_SECONDS) => {
            let text = format!(
                "server {} is still {} {STOP_SECONDS} s after the stop of {}",
                server.name, server.status, since.0
            );
            d.fail("UnrecoverableError", text);
        }
        (Some(since), ..) => d.say(format!(
            "Waiting for the guest of {} to shut down since {} (gives up after {STOP_SECONDS} s)",
            server.name,
            clock(since.0)
        )),
    }
    Flow::Wait
}

fn lock_server(d: &mut Draft<'_>, server: &Server) -> Flow {
    let s = d.source().clone();
    let now = d.now();
    if s.locked_at.is_some() {
        return Flow::On;
    }
    if server.status != "SHUTOFF" {
        hold(d, &format!("server {} is {} although it was seen SHUTOFF", server.name, server.status));
        return Flow::Wait;
    }
    if server.locked && s.lock_request_id.is_some() {
        d.source().locked_at = Some(now);
        d.note("locked");
        return Flow::On;
    }
    if s.lock_requested_at.is_none() {
        d.source().lock_requested_at = Some(now);
        d.recheck = Some(AT_ONCE);
    } else if !server.locked {
        d.step(Step::LockSource);
    } else {
        // Locked, by a request whose id we lost; the list of actions will tell it.
        d.recheck = Some(SOON);
    }
    d.say("Locking the source");
    Flow::Wait
}

/// Somebody took the source back. Nothing of theirs is undone.
pub(super) fn hold(d: &mut Draft<'_>, why: &str) {
    d.enter(Phase::Held, why);
    let name = format!("{} -n {}", d.input.me.name, d.input.me.namespace);
    let retry = requests::command(d, RequestName::Retry);
    d.say(format!(
        "Held: {why}. The source stays as it is; kubectl delete vmm {name} removes what was made in B; to stop it again and go on: {retry}"
    ));
    d.source().taken_back = true;
    d.steps.clear();
    d.recheck = Some(AT_ONCE);
}

/// The source is still as we left it. Otherwise: hold.
fn source_untouched(d: &mut Draft<'_>) -> Option<Server> {
    let (view, server) = source_server(d)?;
    adopt_request_ids(d, &server, &view.actions);
    d.source().server_status = server.status.clone();
    match ran::ran_since_our_stop(d.source(), &server, &view.actions) {
        Ran::No => Some(server),
        Ran::Yes(why) => {
            hold(d, &why);
            None
        }
        Ran::CannotTell(why) => {
            d.trouble("source-history", &why);
            None
        }
    }
}

pub(super) fn adopt_request_ids(d: &mut Draft<'_>, server: &Server, actions: &[InstanceAction]) {
    let told = "the answers of the source cloud have other request ids than its history (a proxy rewrites them): what this \
                migration did is told by kind and time";
    if ran::adopt_request_ids(d.source(), server, actions)
        && !d.status.timeline.iter().any(|r| r.message == told)
    {
        d.note(told);
    }
}

/// Disks leave A and arrive in B, side by side.
pub(super) fn transfer(mut d: Draft<'_>) -> Decision {
    if d.left_clouds_alone() {
        disks::follow(&mut d);
        return d.decided();
    }
    if source_untouched(&mut d).is_none() {
        return d.decided();
    }
    disks::all(&mut d);
    if d.status.failure.is_none()
        && d.phase() == Phase::Transferring
        && d.status.disks.iter().all(|k| k.restore.is_some())
    {
        d.enter(Phase::Creating, "all disks are in the destination");
    }
    d.decided()
}

/// Read-back, ports, server.
pub(super) fn create(mut d: Draft<'_>) -> Decision {
    let requested = d.destination().server_requested_at.is_some();
    if requested
        && let Some(view) = d.input.seen.destination.view()
        && let Some(server) = view.server()
    {
        return built(d, server.clone());
    }
    let Some(source) = source_untouched(&mut d) else { return d.decided() };
    if !disks::all(&mut d) || d.status.failure.is_some() {
        return d.decided();
    }
    let view = match &d.input.seen.destination {
        Seen::View(v) => v,
        Seen::Unseen(p) => {
            let p = p.clone();
            d.trouble(&p.id, &p.message);
            return d.decided();
        }
        Seen::NotLooked => return d.decided(),
    };
    // What was not looked for must not be made.
    if !view.whole {
        d.say("All disks are in the destination; looking for ports and server there");
        d.recheck = Some(AT_ONCE);
        return d.decided();
    }
    if let Flow::Wait = hooks::gate(&mut d, HookPhase::BeforeCreate) {
        return d.decided();
    }
    if let Flow::Wait = ports(&mut d, view) {
        return d.decided();
    }
    if let Flow::Wait = asked_once(&mut d, view) {
        return d.decided();
    }
    // B is asked for only when A is seen SHUTOFF and was not run since: both were seen in this very pass.
    debug_assert_eq!(source.status, "SHUTOFF");
    let now = d.now();
    if d.destination().server_requested_at.is_none() {
        d.destination().server_requested_at = Some(now);
        d.note("asking for the server");
        d.recheck = Some(AT_ONCE);
    } else {
        d.destination().gone_since = None;
        d.step(Step::CreateServer);
    }
    d.say("Creating the server in the destination");
    d.decided()
}

/// The server is asked for once. Where an answer may have been lost it is asked for again only when it is proven that
/// none was made.
fn asked_once(d: &mut Draft<'_>, view: &DestinationView) -> Flow {
    let Some(asked) = d.destination().server_requested_at.clone() else { return Flow::On };
    let failed = d.status.trouble.clone().filter(|t| t.what == CREATE_SERVER);
    if failed.is_none() && !d.past(&Some(asked.clone()), FIRST_ASK_SECONDS) {
        return Flow::On;
    }
    match gone::destination(d, view) {
        gone::Destination::Gone => Flow::On,
        _ => {
            let lost = format!("the server was asked for at {}, and its answer is not known", clock(asked.0));
            d.trouble(CREATE_SERVER, &failed.map_or(lost, |t| t.message));
            Flow::Wait
        }
    }
}

fn ports(d: &mut Draft<'_>, view: &DestinationView) -> Flow {
    let count = d.status.plan.as_ref().map_or(0, |p| p.ports.len());
    let mut flow = Flow::On;
    for index in 0..i32::try_from(count).unwrap_or(i32::MAX) {
        let seen = crate::migration::observed::find(&view.ports, Role::Port, index).cloned();
        let recorded = d
            .input
            .status
            .destination
            .as_ref()
            .and_then(|x| x.port_ids.get(index.unsigned_abs() as usize))
            .cloned();
        match seen {
            None => {
                d.step(Step::CreatePort { index });
                flow = Flow::Wait;
            }
            Some(port) if recorded.as_ref() != Some(&port.id) => {
                set_at(&mut d.destination().port_ids, index, port.id);
                d.recheck = Some(AT_ONCE);
                flow = Flow::Wait;
            }
            Some(port) if d.input.me.parse_name(&port.name).is_some() => {
                // Its id is in status, so it may take its final name.
                d.step(Step::FinishPort { index, port_id: port.id });
                flow = Flow::Wait;
            }
            Some(_) => {}
        }
    }
    if let Flow::Wait = flow {
        d.say("Creating ports in the destination");
    }
    flow
}

/// The server was asked for and is seen.
fn built(mut d: Draft<'_>, server: Server) -> Decision {
    let now = d.now();
    // The root disk is made of its image while the server is built.
    let of_image = d.status.disks.iter().filter(|k| k.kind == DiskKind::Image).map(|k| k.size_gib);
    let bound = d.step_bound(of_image.max().unwrap_or(0));
    let x = d.destination();
    let asked = x.server_requested_at.as_ref().map_or(now.0, |t| t.0);
    let since = super::parse_time(&server.created).unwrap_or(asked);
    x.server_id = Some(server.id.clone());
    x.server_status = Some(server.status.clone());
    x.addresses = addresses(&server);
    match server.status.as_str() {
        "ACTIVE" => {
            x.active_at.get_or_insert(now);
            d.status.running_in = Some(RunningIn::B);
            d.enter(Phase::Verifying, format!("server {} is ACTIVE", server.name));
            d.say("The server is ACTIVE in the destination");
            d.recheck = Some(AT_ONCE);
        }
        "ERROR" => {
            let fault = server.fault.clone().unwrap_or_else(|| "the cloud gave no reason".into());
            let cloud = d.input.spec.destination.cloud.clone();
            d.fail("UnrecoverableError", format!("{cloud}: server {} went to ERROR: {fault}", server.id));
        }
        other if d.overdue(since, bound) => {
            let text = format!("server {} is still {other} since {since}", server.id);
            d.fail("UnrecoverableError", text);
        }
        other => {
            let cloud = &d.input.spec.destination.cloud;
            let text =
                format!("Waiting for {cloud} to build server {} since {}: {other}", server.id, clock(since));
            d.say(text);
        }
    }
    d.decided()
}

/// Checks in the destination; then the report; then success.
pub(super) fn verify(mut d: Draft<'_>) -> Decision {
    if let Some(v) = d.input.seen.source.view()
        && let Some(s) = v.found()
        && s.status == "ACTIVE"
    {
        let why = format!(
            "server {} was started in the source although the destination has been asked for",
            s.name
        );
        hold(&mut d, &why);
        return d.decided();
    }
    let view = match &d.input.seen.destination {
        Seen::View(v) => v,
        Seen::Unseen(p) => {
            let p = p.clone();
            d.trouble(&p.id, &p.message);
            return d.decided();
        }
        Seen::NotLooked => return d.decided(),
    };
    let server = match gone::destination(&mut d, view) {
        gone::Destination::Found(server) => server.clone(),
        gone::Destination::Gone => {
            d.fail("UnrecoverableError", "the server in the destination is gone");
            return d.decided();
        }
        gone::Destination::Wait => return d.decided(),
    };
    d.destination().server_status = Some(server.status.clone());
    d.destination().addresses = addresses(&server);
    if let Flow::Wait = hooks::gate(&mut d, HookPhase::AfterStart) {
        return d.decided();
    }
    let was_running = d.source().was_running;
    let flow = if was_running {
        checks::of_destination(&mut d, &server)
    } else {
        as_stopped_as_before(&mut d, &server)
    };
    if let Flow::Wait = flow {
        return d.decided();
    }
    let now = d.now();
    d.destination().ready_at.get_or_insert(now);
    if let Flow::Wait = hooks::gate(&mut d, HookPhase::AfterVerification) {
        return d.decided();
    }
    succeed(&mut d);
    d.decided()
}

/// A source that was stopped arrives stopped: Nova cannot create a stopped server, so its ports were down.
fn as_stopped_as_before(d: &mut Draft<'_>, server: &Server) -> Flow {
    let now = d.now();
    if d.destination().stop_requested_at.is_none() {
        d.destination().stop_requested_at = Some(now);
        d.recheck = Some(AT_ONCE);
        return Flow::Wait;
    }
    d.say("Stopping the server in the destination: its source was stopped, too");
    if server.status == "ACTIVE" {
        if server.task_state.is_none() {
            d.step(Step::StopDestination { server_id: server.id.clone() });
        }
        return Flow::Wait;
    }
    if server.status != "SHUTOFF" {
        return Flow::Wait;
    }
    d.status.running_in = Some(RunningIn::None);
    let ports = d.input.seen.destination.view().map(|v| v.ports.clone()).unwrap_or_default();
    let down: Vec<_> = ports.into_iter().filter(|(_, p)| !p.admin_state_up).map(|(_, p)| p.id).collect();
    for port_id in &down {
        d.step(Step::RaisePort { port_id: port_id.clone() });
    }
    if !down.is_empty() {
        return Flow::Wait;
    }
    let message = "was ACTIVE, then stopped as its source was; no check can be asked of a stopped server";
    d.status.checks = vec![CheckRow { name: "active".into(), passed: true, message: message.into() }];
    Flow::On
}

/// Never `Succeeded=True` without equal digests of every disk and all checks passed.
pub(super) fn proven(status: &VmMigrationStatus) -> Result<(), String> {
    if status.disks.is_empty() || status.checks.is_empty() {
        return Err("no disk or no check is recorded".into());
    }
    if let Some(c) = status.checks.iter().find(|c| !c.passed) {
        return Err(format!("check {} did not pass", c.name));
    }
    for disk in &status.disks {
        match disk.verdict() {
            Verdict::Proven(_) => {}
            Verdict::Differs(what) => return Err(format!("disk {}: {what}", disk.index)),
            Verdict::Open => return Err(format!("disk {} has no equal digests on both sides", disk.index)),
        }
    }
    Ok(())
}

/// What a release before this one has read back has no proof yet.
fn record_proofs(disks: &mut [DiskStatus]) {
    for disk in disks.iter_mut().filter(|disk| disk.proof.is_none()) {
        disk.proof = disk.verdict().proof();
    }
}

fn succeed(d: &mut Draft<'_>) {
    if let Err(why) = proven(&d.status) {
        d.fail("VerificationFailed", why);
        return;
    }
    record_proofs(&mut d.status.disks);
    let now = d.now();
    d.destination().ready_at.get_or_insert(now.clone());
    if !d.input.seen.report_exists {
        d.say("Writing the report");
        d.step(Step::CreateReport);
        return;
    }
    d.status.finished_at = Some(now);
    d.status.trouble = None;
    d.status.clean_looks = 0;
    d.enter(Phase::Succeeded, "every disk has equal digests and all checks passed");
    let server = d.destination().server_id.clone().unwrap_or_default();
    let to = d.input.spec.destination.cloud.clone();
    d.say(format!("{} runs in {to} as {server}; removing what was temporary", d.input.spec.source.server));
    d.recheck = Some(AT_ONCE);
}
