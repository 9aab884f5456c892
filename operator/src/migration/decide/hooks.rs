//! Hooks: at each of the eight phases a gate. The hooks of a phase run one after the other, each attempt with a
//! deadline; the way goes on when all have ended well, or were allowed to fail.
//!
//! An attempt is in status, with its nonce, before its Job is made or a client is waited for; so one that was begun is
//! found again after a crash, and never run twice.

use super::{
    AT_ONCE, Draft, SOON, clock,
    next::{Stop, seen},
};
use crate::{
    contract::Outcome,
    crd::v1alpha1::*,
    migration::{
        names::Side,
        observed::{ClusterView, JobState, JobView, Seen},
        step::{HookRequest, Step},
    },
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use sha2::{Digest as _, Sha256};

/// Kubernetes ends a Job at its deadline; an end that is not seen so many seconds later is not waited for.
const SLACK_SECONDS: i64 = 120;
/// Seconds between an attempt that failed and the next one.
const PAUSE_SECONDS: i64 = 5;
/// On the way back, and at the end, a cluster that cannot be seen is not waited for longer, in seconds.
const UNSEEN_SECONDS: i64 = 60;

/// Runs the hooks of a phase, until all have ended and none stands in the way.
pub(super) fn gate(d: &mut Draft<'_>, phase: HookPhase) -> Result<(), Stop> {
    let spec = d.input.spec;
    for hook in spec.hooks.iter().filter(|h| h.phase == phase) {
        if row(d, hook).state.is_final() {
            continue;
        }
        let ended = attempt(d, hook);
        // At the end Jobs are removed: not before it is written down what became of this one.
        if at_the_end(phase) && row(d, hook).state.is_final() {
            return Err(Stop::written_first());
        }
        ended?;
    }
    Ok(())
}

/// A row for each hook, in the order of the spec.
pub(super) fn rows(d: &mut Draft<'_>) {
    for hook in &d.input.spec.hooks {
        row(d, hook);
    }
}

fn row<'d>(d: &'d mut Draft<'_>, hook: &Hook) -> &'d mut HookRow {
    let found = d.status.hooks.iter().position(|r| r.name == hook.name);
    let i = found.unwrap_or_else(|| {
        let row = HookRow { name: hook.name.clone(), phase: hook.phase, ..Default::default() };
        d.status.hooks.push(row);
        d.status.hooks.len() - 1
    });
    &mut d.status.hooks[i]
}

/// Was a hook of this phase begun?
pub(super) fn begun(status: &VmMigrationStatus, phase: HookPhase) -> bool {
    status.hooks.iter().any(|r| r.phase == phase && r.attempts > 0)
}

/// Was anything begun that may have left a Job? A client's hook, which has a deadline, leaves none.
pub(super) fn any_job(status: &VmMigrationStatus) -> bool {
    status.hooks.iter().any(|r| r.attempts > 0 && r.deadline.is_none())
}

/// When the last hook of this phase ended.
pub(super) fn last_end(status: &VmMigrationStatus, phase: HookPhase) -> Option<Time> {
    let ends = status.hooks.iter().filter(|r| r.phase == phase).filter_map(|r| r.finished_at.clone());
    ends.max_by_key(|t| t.0)
}

/// The way forward is left: its hooks that have not ended are over.
pub(super) fn abandon(d: &mut Draft<'_>, why: &str) {
    let (now, deleting) = (d.now(), d.input.deleting);
    let over = |r: &&mut HookRow| {
        matches!(r.state, HookState::Waiting | HookState::Running) && (deleting || !at_the_end(r.phase))
    };
    for row in d.status.hooks.iter_mut().filter(over) {
        row.state = HookState::Failed;
        row.finished_at.get_or_insert(now.clone());
        row.message = Some(why.into());
    }
}

/// The Job of a hook that runs because the migration ends: it is not stopped with the others.
pub(super) fn keeps(d: &Draft<'_>, job: &str) -> bool {
    let runs = |r: &&HookRow| r.state == HookState::Running && at_the_end(r.phase);
    !d.input.deleting && d.status.hooks.iter().filter(runs).any(|r| d.input.me.hook_job(r) == job)
}

/// What was suspended does not count as waiting for a client.
pub(super) fn wait_anew(d: &mut Draft<'_>, suspended_since: &Time) {
    let pause = d.input.now.duration_since(suspended_since.0);
    for row in d.status.hooks.iter_mut().filter(|r| !r.state.is_final()) {
        if let Some(deadline) = &mut row.deadline {
            deadline.0 = deadline.0.checked_add(pause).unwrap_or(deadline.0);
        }
    }
}

/// Near which side's cloud a hook runs.
pub fn side_of(hook: &Hook, status: &VmMigrationStatus) -> Side {
    let given = hook.job.as_ref().and_then(|j| j.side).or(hook.ssh.as_ref().and_then(|s| s.side));
    let moved = match hook.phase {
        HookPhase::AfterStart | HookPhase::AfterVerification => true,
        HookPhase::Finally => {
            matches!(status.phase, Some(Phase::Succeeded | Phase::Retiring | Phase::Retired))
        }
        _ => false,
    };
    given.map_or(if moved { Side::Destination } else { Side::Source }, Side::from)
}

/// A failure in these phases changes nothing any more.
fn at_the_end(phase: HookPhase) -> bool {
    matches!(phase, HookPhase::OnFailure | HookPhase::Finally)
}

fn attempt(d: &mut Draft<'_>, hook: &Hook) -> Result<(), Stop> {
    let row = row(d, hook).clone();
    match (row.state, &row.finished_at, &hook.client) {
        (HookState::Pending, ..) => begin(d, hook, 1),
        (_, Some(_), _) => judge(d, hook),
        (_, None, Some(_)) => client(d, hook, &row),
        (_, None, None) => job(d, hook, &row),
    }
}

/// The attempt is recorded before anything of it exists.
fn begin(d: &mut Draft<'_>, hook: &Hook, attempt: i32) -> Result<(), Stop> {
    let now = d.now();
    let nonce = nonce(&d.input.me.uid, &hook.name, attempt, now.0);
    let waits = hook.client.is_some();
    *row(d, hook) = HookRow {
        name: hook.name.clone(),
        phase: hook.phase,
        state: if waits { HookState::Waiting } else { HookState::Running },
        attempts: attempt,
        deadline: waits.then(|| Time(after(now.0, hook.timeout_seconds()))),
        started_at: Some(now),
        nonce: Some(nonce),
        ..Default::default()
    };
    if attempt == 1 {
        d.note(format!("hook {} begins", described(hook)));
    }
    let row = row(d, hook).clone();
    Err(told(d, hook, &row, "starting").again(AT_ONCE))
}

/// Without randomness, and yet of this attempt only.
fn nonce(uid: &str, hook: &str, attempt: i32, started_at: Timestamp) -> String {
    let hash = Sha256::digest(format!("{uid}/{hook}/{attempt}/{started_at}"));
    hex::encode(&hash[..6])
}

fn after(t: Timestamp, seconds: i64) -> Timestamp {
    t.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

fn described(hook: &Hook) -> String {
    format!("{} ({})", hook.name, hook.phase)
}

fn job(d: &mut Draft<'_>, hook: &Hook, now: &HookRow) -> Result<(), Stop> {
    let side = side_of(hook, &d.status);
    let overdue = d.past(&now.started_at, hook.timeout_seconds() + SLACK_SECONDS);
    let cluster = match d.input.seen.cluster(side) {
        Seen::View(c) => c,
        Seen::Unseen(p) if at_the_end(hook.phase) && d.past(&now.started_at, UNSEEN_SECONDS) => {
            return last(d, hook, None, &p.message);
        }
        Seen::Unseen(p) if overdue => return failed(d, hook, None, &p.message),
        other => seen(other)?,
    };
    let name = d.input.me.hook_job(now);
    match cluster.jobs.get(&name) {
        Some(job) if job.state == JobState::Active => {
            let why = job.reason.clone().unwrap_or_else(|| "running".into());
            row(d, hook).message = Some(why.clone());
            if overdue {
                d.step(Step::DeleteJob { side, name });
                return failed(d, hook, None, format!("its end is not seen: {why}"));
            }
            d.recheck = d.recheck.map(|r| r.min(SOON));
            Err(told(d, hook, now, &why))
        }
        Some(job) => ended(d, hook, now, job),
        // It was there before: what it did cannot be told, and it is not run twice.
        None if now.message.is_some() => failed(d, hook, None, "its Job was deleted by somebody"),
        None if d.past(&now.started_at, hook.timeout_seconds()) => {
            let trouble = d.status.trouble.as_ref().map(|t| format!(": {}", t.message)).unwrap_or_default();
            failed(d, hook, None, format!("its Job could not be made{trouble}"))
        }
        None => start(d, hook, now, side, cluster),
    }
}

fn start(
    d: &mut Draft<'_>,
    hook: &Hook,
    now: &HookRow,
    side: Side,
    cluster: &ClusterView,
) -> Result<(), Stop> {
    if cluster.own || (cluster.anchor && d.input.seen.vault_exists) {
        let job = d.input.me.hook_job(now);
        d.step(Step::RunHook(HookRequest { side, hook: hook.name.clone(), job }));
    } else if !d.steps.contains(&Step::PrepareSecrets) {
        d.step(Step::PrepareSecrets);
    }
    // The reason why it could not be made before tells more.
    let waits_for = d.status.trouble.as_ref().map_or("starting".to_string(), |t| t.message.clone());
    Err(told(d, hook, now, &waits_for))
}

fn ended(d: &mut Draft<'_>, hook: &Hook, now: &HookRow, job: &JobView) -> Result<(), Stop> {
    row(d, hook).output = job.output.clone().filter(|_| hook.captures());
    if job.state == JobState::Succeeded {
        return succeeded(d, hook);
    }
    let timed_out = job.reason.as_deref() == Some("DeadlineExceeded");
    // Of a script that was killed the exit code says nothing.
    let code = job.exit_code.filter(|c| *c != 0 && !timed_out);
    let why = match code {
        _ if timed_out => {
            let seen = now.message.as_ref().filter(|m| *m != "running");
            let seen = seen.map(|m| format!("; last seen: {m}")).unwrap_or_default();
            format!("it took longer than {} s{seen}", hook.timeout_seconds())
        }
        Some(code) if hook.ssh.is_some() => format!("exit code {code}{}", said(job)),
        Some(code) => format!("exit code {code}"),
        None => job.reason.clone().unwrap_or_else(|| "its pod ended without an exit code".into()),
    };
    failed(d, hook, code, why)
}

/// What our own program says in the termination message when it is not the script that failed.
fn said(job: &JobView) -> String {
    let outcome = job.outcome();
    let said = outcome.as_ref().and_then(Outcome::failure).map(|f| f.message.as_str()).unwrap_or_default();
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// A client's answer is an annotation; one to another attempt is not heard.
fn client(d: &mut Draft<'_>, hook: &Hook, now: &HookRow) -> Result<(), Stop> {
    let note = d
        .input
        .annotations
        .get(&format!("{ANNOTATION_CLIENT_HOOK}{}", hook.name))
        .and_then(|text| serde_json::from_str::<ClientHookNote>(text).ok())
        .filter(|note| Some(&note.nonce) == now.nonce.as_ref());
    let who = note.as_ref().map(|n| output_tail(n.client.as_bytes()).chars().take(128).collect::<String>());
    if let Some((note, code)) = note.as_ref().and_then(|n| Some((n, n.exit_code?))) {
        let r = row(d, hook);
        r.client = who;
        r.output = note.output.as_ref().map(|o| output_tail(o.as_bytes())).filter(|_| hook.captures());
        return if code == 0 {
            succeeded(d, hook)
        } else {
            failed(d, hook, Some(code), format!("exit code {code}"))
        };
    }
    if now.deadline.as_ref().is_some_and(|t| t.0 <= d.input.now) {
        let why = who.map_or("no client came".to_string(), |w| format!("client {w} did not answer"));
        return failed(d, hook, None, format!("{why} within {} s", hook.timeout_seconds()));
    }
    let seen_at = note.and_then(|n| n.seen_at);
    let fresh = seen_at.is_some() && !d.past(&seen_at, CLIENT_CLAIM_SECONDS);
    let r = row(d, hook);
    (r.state, r.client, r.message) = match who {
        Some(who) if fresh => (HookState::Running, Some(who), None),
        Some(who) => (HookState::Waiting, None, Some(format!("client {who} is not seen any more"))),
        None => (HookState::Waiting, None, None),
    };
    let r = r.clone();
    Err(told(d, hook, &r, "running"))
}

fn succeeded(d: &mut Draft<'_>, hook: &Hook) -> Result<(), Stop> {
    finish(d, hook, Some(0), None);
    let row = row(d, hook);
    row.state = HookState::Succeeded;
    let seconds = row.seconds.unwrap_or_default();
    d.note(format!("hook {} succeeded in {seconds} s", described(hook)));
    Ok(())
}

/// Records the end of an attempt.
fn finish(d: &mut Draft<'_>, hook: &Hook, exit_code: Option<i32>, message: Option<String>) {
    let now = d.now();
    let row = row(d, hook);
    row.seconds = row.started_at.as_ref().map(|t| now.0.duration_since(t.0).as_secs());
    row.finished_at = Some(now);
    (row.exit_code, row.message) = (exit_code, message);
}

fn failed(
    d: &mut Draft<'_>,
    hook: &Hook,
    exit_code: Option<i32>,
    why: impl Into<String>,
) -> Result<(), Stop> {
    finish(d, hook, exit_code, Some(why.into()));
    judge(d, hook)
}

/// An attempt that failed: another one, if there is one left.
fn judge(d: &mut Draft<'_>, hook: &Hook) -> Result<(), Stop> {
    let now = row(d, hook).clone();
    let why = now.message.clone().unwrap_or_default();
    if now.attempts >= hook.attempts() {
        return last(d, hook, now.exit_code, why);
    }
    let text =
        format!("hook {} failed in attempt {} of {}: {why}", described(hook), now.attempts, hook.attempts());
    if d.past(&now.finished_at, PAUSE_SECONDS) {
        d.note(format!("{text}; trying again"));
        return begin(d, hook, now.attempts + 1);
    }
    Err(Stop::waiting(format!("{text}; it is tried again{}", d.where_source_is())))
}

/// The last attempt failed: `onError` decides. At the end nothing is decided by it any more.
fn last(d: &mut Draft<'_>, hook: &Hook, exit_code: Option<i32>, why: impl Into<String>) -> Result<(), Stop> {
    let why = why.into();
    finish(d, hook, exit_code, Some(why.clone()));
    let ignored = hook.on_error == Some(OnError::Continue);
    let row = row(d, hook);
    row.state = if ignored { HookState::Ignored } else { HookState::Failed };
    let (attempt, all) = (row.attempts, hook.attempts());
    let text = format!("hook {} failed in attempt {attempt} of {all}: {why}", described(hook));
    if ignored || at_the_end(hook.phase) {
        d.note(text);
        return Ok(());
    }
    let output = match hook.captures() {
        true => "the end of its output is in status.hooks",
        false => "captureOutput: true keeps the end of its output",
    };
    Err(Stop::failed("HookFailed", format!("{text}; correct what it found and migrate again; {output}")))
}

/// Who is waited for, since when, until when, and what to do.
fn told(d: &Draft<'_>, hook: &Hook, now: &HookRow, why: &str) -> Stop {
    let since = now.started_at.as_ref().map_or(d.input.now, |t| t.0);
    let until = now.deadline.as_ref().map_or(after(since, hook.timeout_seconds()), |t| t.0);
    let (me, name, place) = (d.input.me, described(hook), d.where_source_is());
    let times = format!("since {} (gives up {})", clock(since), clock(until));
    let text = match (now.state, &now.client) {
        (HookState::Waiting, _) => {
            let lost = now.message.as_ref().map(|m| format!("; {m}")).unwrap_or_default();
            format!(
                "Waiting for a client to run hook {name} {times}{lost}{place}: kubectl vmmigration attach {} -n {} --hook {}=./script.sh",
                me.name, me.namespace, hook.phase
            )
        }
        (_, Some(client)) => format!("Hook {name} is run by client {client} {times}{place}"),
        _ => format!(
            "Hook {name}, attempt {} of {}, runs {times}: {why}{place}",
            now.attempts,
            hook.attempts()
        ),
    };
    Stop::waiting(text)
}

/// The Job of a hook cannot be made, and that will not pass: the attempt has failed. Also pure.
pub(super) fn refused(status: &mut VmMigrationStatus, request: &HookRequest, message: &str, now: Timestamp) {
    if let Some(row) = status.hooks.iter_mut().find(|r| r.name == request.hook) {
        row.finished_at = Some(Time(now));
        row.seconds = row.started_at.as_ref().map(|t| now.duration_since(t.0).as_secs());
        row.message = Some(message.into());
    }
}
