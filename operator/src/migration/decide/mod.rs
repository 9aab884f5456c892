//! The decision: spec + status + observed + now -> the next steps and the new status. Pure and total.
//!
//! A phase is left only on what was observed. At most one step per disk is named in a pass; every id that a
//! step brings back is in status, or found again by its mark, before anything that builds on it is named.

mod checks;
mod cleanup;
mod cutover;
mod deletions;
mod disks;
mod downtime;
mod forward;
mod gone;
mod hooks;
mod jobs;
mod ran;
mod recheck;
mod requests;
mod retire;
mod retry;
mod undo;
mod warm;

#[cfg(test)]
mod built_tests;

#[cfg(test)]
mod cutover_tests;

#[cfg(test)]
mod deletions_tests;

#[cfg(test)]
mod explore;

#[cfg(test)]
mod gone_tests;

#[cfg(test)]
mod history_tests;

#[cfg(test)]
mod host_key_tests;
#[cfg(test)]
mod lock_tests;

#[cfg(test)]
mod looks_tests;

#[cfg(test)]
mod lost_tests;

#[cfg(test)]
mod proof_tests;

#[cfg(test)]
mod refused_disk_tests;

#[cfg(test)]
mod refused_tests;

#[cfg(test)]
mod store_tests;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod theirs_tests;

#[cfg(test)]
mod trace;

#[cfg(test)]
mod traced_tests;

#[cfg(test)]
mod warm_tests;

#[cfg(test)]
mod way_back_tests;

pub use hooks::side_of;
pub use ran::{Ran, ran_since_our_stop};

use super::{
    looks,
    names::{Identity, Side},
    observed::{JobView, Observed, Seen},
    place,
    step::{Effect, Step, StepFailure},
};
use crate::crd::v1alpha1::*;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

/// Bounds on waiting and trying.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long an error that may pass is borne once the source is claimed, in seconds.
    pub trouble_seconds: i64,
    /// How long one wait for a cloud may take, in seconds.
    pub step_seconds: i64,
    /// How often a Job is tried.
    pub job_attempts: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { trouble_seconds: 600, step_seconds: 3600, job_attempts: 4 }
    }
}

/// All that a decision may depend on.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Who the migration is.
    pub me: &'a Identity,
    /// What is wanted.
    pub spec: &'a VmMigrationSpec,
    /// The object's generation.
    pub generation: Option<i64>,
    /// The object is being deleted.
    pub deleting: bool,
    /// Somebody gave up on clean-up.
    pub abandoned: bool,
    /// The object's annotations: clients answer hooks in them.
    pub annotations: &'a BTreeMap<String, String>,
    /// What is recorded.
    pub status: &'a VmMigrationStatus,
    /// What was seen.
    pub seen: &'a Observed,
    /// Bounds.
    pub limits: &'a Limits,
    /// The time.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to record.
    pub status: VmMigrationStatus,
    /// What to do; independent of each other.
    pub steps: Vec<Step>,
    /// When to look again; `None`: when something changes.
    pub recheck: Option<Duration>,
    /// Nothing is left to do for an object that is being deleted.
    pub release: bool,
}

/// The next steps.
pub fn decide(input: Input<'_>) -> Decision {
    let mut d = Draft::new(input);
    d.status.observed_generation = input.generation;
    let first_seen = d.status.started_at.is_none();
    if first_seen {
        d.status.started_at = Some(Time(input.now));
    }
    for side in SIDES {
        input.seen.place(side).into_iter().for_each(|found| place::complete(&mut d.status, side, found));
    }
    if input.deleting {
        return cleanup::delete(d);
    }
    hooks::rows(&mut d);
    cutover::remember(&mut d);
    requests::answer(&mut d, first_seen);
    downtime::limit(&mut d);
    if requests::suspended(&mut d) {
        return requests::hold(d);
    }
    match d.phase() {
        Phase::Succeeded if d.status.rollback.is_some() => undo::begin(d),
        Phase::Succeeded | Phase::Retired => cleanup::after_success(d),
        Phase::Retiring => retire::retire(d),
        Phase::Failed | Phase::Cancelled | Phase::RolledBack => cleanup::after_failure(d),
        _ if d.status.failure.is_some() => undo::roll_back(d),
        Phase::Held => undo::held(d),
        Phase::Pending | Phase::Preflight | Phase::Blocked => forward::preflight(d),
        Phase::Copying => warm::copy(d),
        Phase::AwaitingCutover => forward::await_cutover(d),
        Phase::Stopping => forward::stop(d),
        Phase::Transferring => forward::transfer(d),
        Phase::Creating => forward::create(d),
        Phase::Verifying => forward::verify(d),
        Phase::RollingBack | Phase::Deleting => undo::roll_back(d),
    }
}

/// The reason of a failure that was asked for by `requests.rollback`.
pub(super) const ROLLED_BACK: &str = crate::crd::conditions::reason::ROLLED_BACK;

/// What decides whether the word goes on or waits.
pub(super) enum Flow {
    /// Go on to the next question.
    On,
    /// Nothing more can be decided in this pass.
    Wait,
}

/// A decision in the making.
pub(super) struct Draft<'a> {
    pub input: Input<'a>,
    pub status: VmMigrationStatus,
    pub steps: Vec<Step>,
    pub recheck: Option<Duration>,
    /// Something could not be seen or done in this pass.
    troubled: bool,
    /// How soon to look again when all that is waited for takes its time.
    calm: Option<Duration>,
    /// A Job runs: its progress is read at each look.
    job_runs: bool,
    /// What is being deleted in a cloud is waited for.
    removing: bool,
}

/// How much longer a cloud may take for each GiB of a disk, in seconds: 34 MiB a second.
const SECONDS_PER_GIB: i64 = 30;
/// How soon to look again while a cloud works.
const SOON: Duration = Duration::from_secs(2);
/// How soon to look again at the latest while a Job runs.
const PROGRESS: Duration = Duration::from_secs(4);
/// How soon to look again while nothing but a change of ours is expected.
const AT_ONCE: Duration = Duration::from_millis(20);
/// How soon to look again while something outside has to change.
const LATER: Duration = Duration::from_secs(15);
/// How soon to look again while a cloud works on one thing, in seconds.
const CALM: RangeInclusive<i64> = 2..=15;

impl<'a> Draft<'a> {
    fn new(input: Input<'a>) -> Self {
        Draft {
            input,
            status: input.status.clone(),
            steps: vec![],
            recheck: Some(SOON),
            troubled: false,
            calm: None,
            job_runs: false,
            removing: false,
        }
    }

    /// The name of one side's cloud.
    fn cloud(&self, side: Side) -> &'a str {
        match side {
            Side::Source => &self.input.spec.source.cloud,
            Side::Destination => &self.input.spec.destination.cloud,
        }
    }

    /// A Job in its present attempt, as it was seen.
    fn job_seen(&self, side: Side, purpose: &str) -> Option<&'a JobView> {
        self.input.seen.job(self.input.me, &self.status, side, purpose)
    }

    fn now(&self) -> Time {
        Time(self.input.now)
    }

    fn phase(&self) -> Phase {
        self.status.phase.unwrap_or_default()
    }

    fn source(&mut self) -> &mut SourceStatus {
        self.status.source.get_or_insert_default()
    }

    fn destination(&mut self) -> &mut DestinationStatus {
        self.status.destination.get_or_insert_default()
    }

    fn claimed(&self) -> bool {
        self.status.source.as_ref().is_some_and(|s| s.claimed_at.is_some())
    }

    /// Enters a phase; a change is a row in the timeline.
    fn enter(&mut self, phase: Phase, why: impl Into<String>) {
        if self.status.phase != Some(phase) {
            self.status.phase = Some(phase);
            self.status.phase_since = Some(self.now());
            self.note(why);
        }
    }

    /// A row in the timeline.
    fn note(&mut self, message: impl Into<String>) {
        note(&mut self.status, self.input.now, message.into());
    }

    fn say(&mut self, message: impl Into<String>) {
        self.status.message = Some(message.into());
    }

    /// Names a step for this pass; the look after it comes at once.
    fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// The end without success: the source is given back.
    fn fail(&mut self, reason: &str, message: impl Into<String>) {
        if self.status.failure.is_some() {
            return;
        }
        let message = message.into();
        self.note(format!("{reason}: {message}"));
        self.status.failure =
            Some(Failure { reason: reason.into(), message, at: Some(self.now()), cancelled: false });
        self.steps.clear();
        self.recheck = Some(AT_ONCE);
    }

    /// Records that something cannot be seen or done now, and gives up when that lasts too long.
    fn trouble(&mut self, what: &str, message: &str) {
        if std::mem::replace(&mut self.troubled, true) {
            // The first of a pass counts: two that take turns would never last long enough.
            return;
        }
        let now = self.now();
        let t = self.status.trouble.get_or_insert_default();
        if t.what != what {
            *t = Trouble { what: what.into(), ..Default::default() };
        }
        t.message = message.into();
        let since = t.since.get_or_insert(now).0;
        let lasted = self.input.now.duration_since(since).as_secs();
        let bound = self.input.limits.trouble_seconds;
        if self.may_give_up() && lasted > bound {
            self.fail("UnrecoverableError", format!("{message} (for {lasted} s, bound {bound} s)"));
        } else {
            self.say(format!("{message}; trying again since {}{}", clock(since), self.where_source_is()));
            self.recheck = Some(SOON);
            self.stall_when_overdue();
        }
    }

    /// The new server serves, and what is in the way of success has lasted too long: a person decides. It goes on by
    /// itself when it passes.
    fn stall_when_overdue(&mut self) {
        let bound = self.input.limits.trouble_seconds;
        let verifying = self.phase() == Phase::Verifying && self.status.failure.is_none();
        let Some(t) = self.status.trouble.clone().filter(|t| self.past(&t.since, bound)) else { return };
        if !verifying || !serves(&self.status) {
            return;
        }
        self.status.trouble.iter_mut().for_each(|t| t.stalled = true);
        let [retry, rollback] =
            [RequestName::Retry, RequestName::Rollback].map(|verb| requests::command(self, verb));
        self.say(format!(
            "Stalled: {} (for more than {bound} s). The server runs in the destination, has passed its checks, and stays; \
             it is tried on. Mend it, or to try at once: {retry}; to go back: {rollback}",
            t.message
        ));
        self.recheck = Some(LATER);
    }

    /// Can trouble end the move? Not before the claim, not on the way back, not after success, not while somebody has
    /// the source, and not when the new server serves and has passed its checks.
    fn may_give_up(&self) -> bool {
        let phase = self.phase();
        self.claimed()
            && !serves(&self.status)
            && self.status.failure.is_none()
            && !self.input.deleting
            && !phase.succeeded()
            && phase != Phase::Held
    }

    /// Half a sentence about the source, for messages.
    fn where_source_is(&self) -> &'static str {
        let Some(s) = &self.status.source else { return "" };
        match (s.claimed_at.is_some(), s.stopped_at.is_some(), s.give_back_at.is_some()) {
            (_, true, false) => "; A is stopped and intact",
            (false, ..) => "; nothing was touched",
            _ => "",
        }
    }

    /// A cloud has worked on something since then: whole lists are asked for at each look, so looks get rarer.
    fn wait_calmly(&mut self, since: Timestamp) {
        let pause = pause(self.input.now.duration_since(since).as_secs(), CALM);
        self.calm = Some(self.calm.map_or(pause, |c| c.min(pause)));
    }

    /// Both clouds were left alone in this look, since only Jobs copy: there is nothing to decide.
    fn left_clouds_alone(&self) -> bool {
        let seen = self.input.seen;
        matches!((&seen.source, &seen.destination), (Seen::NotLooked, Seen::NotLooked))
            && looks::only_copies_run(self.input.me, &self.status, seen)
    }

    /// After a look that led to nothing while only Jobs copy the clouds are left alone for a while.
    fn remember_look(&mut self) {
        if matches!(self.input.seen.source, Seen::NotLooked) {
            return;
        }
        let to_no_effect = self.steps.is_empty()
            && self.recheck == Some(SOON)
            && !(self.troubled || self.removing || self.calm.is_some());
        let idle = to_no_effect && looks::only_copies_run(self.input.me, &self.status, self.input.seen);
        self.status.clouds_looked_at = idle.then(|| self.now());
        if idle {
            self.recheck = Some(PROGRESS);
        }
    }

    fn decided(mut self) -> Decision {
        self.bound_trouble();
        self.remember_look();
        if let (Some(SOON), Some(calm), false) = (self.recheck, self.calm, self.troubled) {
            self.recheck = Some(if self.job_runs { calm.min(PROGRESS) } else { calm });
        }
        if !self.steps.is_empty() && self.recheck.is_none_or(|r| r > AT_ONCE) {
            self.recheck = Some(AT_ONCE);
        }
        Decision { status: self.status, steps: self.steps, recheck: self.recheck, release: false }
    }

    /// A step that keeps failing is given up after a while; trouble that is over is forgotten.
    fn bound_trouble(&mut self) {
        let Some(t) = self.status.trouble.clone() else { return };
        if self.steps.iter().any(|s| s.name() == t.what) {
            // A hook has a deadline of its own.
            let bounded = self.steps.iter().any(|s| matches!(s, Step::RunHook(_)) && s.name() == t.what);
            if self.may_give_up() && !bounded && self.past(&t.since, self.input.limits.trouble_seconds) {
                self.fail("UnrecoverableError", format!("{} (tried {} times)", t.message, t.count));
            }
            if !bounded {
                self.stall_when_overdue();
            }
        } else if !self.troubled {
            self.status.trouble = None;
        }
    }

    /// How long one wait for a cloud may take that handles a disk of this size, in seconds.
    fn step_bound(&self, size_gib: i64) -> i64 {
        self.input.limits.step_seconds + size_gib.max(0) * SECONDS_PER_GIB
    }

    /// Has something that is waited for since then taken too long?
    fn overdue(&self, since: Timestamp, bound: i64) -> bool {
        self.input.now.duration_since(since).as_secs() > bound
    }

    fn past(&self, since: &Option<Time>, seconds: i64) -> bool {
        since.as_ref().is_some_and(|t| self.input.now.duration_since(t.0).as_secs() > seconds)
    }
}

/// A row in the timeline.
fn note(status: &mut VmMigrationStatus, now: Timestamp, message: String) {
    let phase = status.phase.unwrap_or_default();
    status.timeline.push(TimelineRow { at: Time(now), phase, message });
    let extra = status.timeline.len().saturating_sub(64);
    status.timeline.drain(..extra);
}

/// How soon to look again at what was waited for so many seconds: the end is seen at most a fifth too late, within these
/// bounds in seconds.
fn pause(waited: i64, bounds: RangeInclusive<i64>) -> Duration {
    Duration::from_secs((waited / 5).clamp(*bounds.start(), *bounds.end()).unsigned_abs())
}

/// Hours and minutes, for messages.
pub(super) fn clock(t: Timestamp) -> String {
    t.strftime("%H:%M:%SZ").to_string()
}

/// A time as the clouds write it: with or without `Z`, with or without fractions; always UTC.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse().ok().or_else(|| format!("{text}Z").parse().ok())
}

/// Records what a step brought back. Also pure.
pub fn record(
    status: &mut VmMigrationStatus,
    step: &Step,
    result: Result<Effect, StepFailure>,
    now: Timestamp,
) {
    deletions::record(status, step, result.as_ref().err(), now);
    match result {
        Ok(effect) => record_effect(status, step, &effect, now),
        Err(failure) => record_failure(status, step, failure, now),
    }
}

fn record_effect(status: &mut VmMigrationStatus, step: &Step, effect: &Effect, now: Timestamp) {
    match effect {
        Effect::Created { id } | Effect::Asked { id, .. } => disks::record_asked(status, step, id),
        Effect::Lost { why } => {
            if let Some(message) = disks::record_lost(status, step, why) {
                note(status, now, message);
            }
        }
        _ => {}
    }
    if status.trouble.as_ref().is_some_and(|t| t.what == step.name()) {
        status.trouble = None;
    }
    let disk = |status: &mut VmMigrationStatus, n: i32| status.disks.iter().position(|d| d.index == n);
    match (step, effect) {
        (Step::StopSource, Effect::Accepted { request_id }) => {
            status.source.get_or_insert_default().stop_request_id = request_id.clone();
        }
        (Step::LockSource, Effect::Accepted { request_id }) => {
            status.source.get_or_insert_default().lock_request_id = request_id.clone();
        }
        (Step::CreateServerImage { .. }, Effect::Asked { request_id, .. }) => {
            status.source.get_or_insert_default().image_request_id = request_id.clone();
        }
        (Step::CreateServer, Effect::Created { id }) => {
            status.destination.get_or_insert_default().server_id = Some(id.clone());
        }
        (Step::CreatePort { index }, Effect::Created { id }) => {
            set_at(&mut status.destination.get_or_insert_default().port_ids, *index, id.clone());
        }
        (Step::CreateSnapshot { disk: n, .. }, Effect::Created { id }) => {
            if let Some(i) = disk(status, *n) {
                status.disks[i].export.snapshot_id = Some(id.clone());
            }
        }
        (Step::CreateExportVolume { disk: n, .. }, Effect::Created { id }) => {
            if let Some(i) = disk(status, *n) {
                status.disks[i].export.volume_id = Some(id.clone());
            }
        }
        (Step::CreateVolume { disk: n, .. }, Effect::Created { id }) => {
            if let Some(i) = disk(status, *n) {
                status.disks[i].import.volume_id = Some(id.clone());
            }
        }
        (Step::DressVolume { disk: n, .. }, _) => {
            if let Some(i) = disk(status, *n) {
                status.disks[i].import.dressed = true;
            }
        }
        _ => {}
    }
}

/// Puts an id at a place of a list that may be shorter.
pub(super) fn set_at(list: &mut Vec<String>, index: i32, id: String) {
    let index = usize::try_from(index).unwrap_or(0);
    if list.len() <= index {
        list.resize(index + 1, String::new());
    }
    list[index] = id;
}

fn record_failure(status: &mut VmMigrationStatus, step: &Step, failure: StepFailure, now: Timestamp) {
    if failure.conflict {
        return;
    }
    if let Step::RunHook(request) = step
        && !failure.transient
    {
        hooks::refused(status, request, &failure.message, now);
        return;
    }
    let phase = status.phase.unwrap_or_default();
    let going_back = status.failure.is_some()
        || serves(status)
        || phase.succeeded()
        || phase.gave_up()
        || matches!(phase, Phase::Deleting | Phase::RollingBack | Phase::Held);
    if !going_back && deletions::is_of_no_matter(step) {
        return;
    }
    if failure.transient || going_back || undecided(status) {
        let t = status.trouble.get_or_insert_default();
        if t.what != step.name() {
            *t = Trouble { what: step.name().into(), ..Default::default() };
        }
        t.message = failure.message;
        t.since.get_or_insert(Time(now));
        t.count += 1;
        return;
    }
    status.failure.get_or_insert(Failure {
        reason: "UnrecoverableError".into(),
        message: failure.message,
        at: Some(Time(now)),
        cancelled: false,
    });
}

/// The new server has passed all its checks: it serves, and holds what was written since.
fn serves(status: &VmMigrationStatus) -> bool {
    status.destination.as_ref().is_some_and(|x| x.ready_at.is_some())
}

/// Nothing was touched yet: whatever fails is a reason to wait, not to give up.
fn undecided(status: &VmMigrationStatus) -> bool {
    status.source.as_ref().is_none_or(|s| s.claimed_at.is_none())
}

/// Both sides.
pub(super) const SIDES: [Side; 2] = [Side::Source, Side::Destination];
