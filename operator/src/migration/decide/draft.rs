//! A decision in the making: what will be recorded and done, when to look again, and what is borne meanwhile.

use super::{AT_ONCE, CALM, Decision, Input, LATER, PROGRESS, SOON, clock, pause, record, requests};
use crate::{
    crd::{conditions::reason, v1alpha1::*},
    migration::{
        looks,
        names::Side,
        observed::{JobView, Seen},
        step::Step,
    },
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use std::time::Duration;

/// A decision in the making.
pub(super) struct Draft<'a> {
    pub input: Input<'a>,
    pub status: VmMigrationStatus,
    pub steps: Vec<Step>,
    pub recheck: Option<Duration>,
    /// Something could not be seen or done in this pass.
    pub troubled: bool,
    /// How soon to look again when all that is waited for takes its time.
    pub calm: Option<Duration>,
    /// A Job runs: its progress is read at each look.
    pub job_runs: bool,
    /// What is being deleted in a cloud is waited for.
    pub removing: bool,
    /// What of the way back is waited for.
    pub back_waits: Option<WayBackStage>,
}

/// How much longer a cloud may take for each GiB of a disk, in seconds: 34 MiB a second.
const SECONDS_PER_GIB: i64 = 30;

impl<'a> Draft<'a> {
    pub(super) fn new(input: Input<'a>) -> Self {
        Draft {
            input,
            status: input.status.clone(),
            steps: vec![],
            recheck: Some(SOON),
            troubled: false,
            calm: None,
            job_runs: false,
            removing: false,
            back_waits: None,
        }
    }

    /// The name of one side's cloud.
    pub(super) fn cloud(&self, side: Side) -> &'a str {
        match side {
            Side::Source => &self.input.spec.source.cloud,
            Side::Destination => &self.input.spec.destination.cloud,
        }
    }

    /// A Job in its present attempt, as it was seen.
    pub(super) fn job_seen(&self, side: Side, purpose: &str) -> Option<&'a JobView> {
        self.input.seen.job(self.input.me, &self.status, side, purpose)
    }

    pub(super) fn now(&self) -> Time {
        Time(self.input.now)
    }

    pub(super) fn phase(&self) -> Phase {
        self.status.phase.unwrap_or_default()
    }

    pub(super) fn source(&mut self) -> &mut SourceStatus {
        self.status.source.get_or_insert_default()
    }

    pub(super) fn destination(&mut self) -> &mut DestinationStatus {
        self.status.destination.get_or_insert_default()
    }

    pub(super) fn claimed(&self) -> bool {
        self.status.source.as_ref().is_some_and(|s| s.claimed_at.is_some())
    }

    /// A row in the timeline.
    pub(super) fn note(&mut self, message: impl Into<String>) {
        record::note(&mut self.status, self.input.now, message.into());
    }

    pub(super) fn say(&mut self, message: impl Into<String>) {
        self.status.message = Some(message.into());
    }

    /// Names a step for this pass; the look after it comes at once.
    pub(super) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// The end without success: the source is given back.
    pub(super) fn fail(&mut self, reason: &str, message: impl Into<String>) {
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
    pub(super) fn trouble(&mut self, what: &str, message: &str) {
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
            self.fail(reason::UNRECOVERABLE_ERROR, format!("{message} (for {lasted} s, bound {bound} s)"));
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
        if !verifying || !record::serves(&self.status) {
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
            && !record::serves(&self.status)
            && self.status.failure.is_none()
            && !self.input.deleting
            && !phase.succeeded()
            && phase != Phase::Held
    }

    /// Half a sentence about the source, for messages.
    pub(super) fn where_source_is(&self) -> &'static str {
        let Some(s) = &self.status.source else { return "" };
        match (s.claimed_at.is_some(), s.stopped_at.is_some(), s.give_back_at.is_some()) {
            (_, true, false) => "; A is stopped and intact",
            (false, ..) => "; nothing was touched",
            _ => "",
        }
    }

    /// A cloud has worked on something since then: whole lists are asked for at each look, so looks get rarer.
    pub(super) fn wait_calmly(&mut self, since: Timestamp) {
        let pause = pause(self.input.now.duration_since(since).as_secs(), CALM);
        self.calm = Some(self.calm.map_or(pause, |c| c.min(pause)));
    }

    /// Both clouds were left alone in this look, since only Jobs copy: there is nothing to decide.
    pub(super) fn left_clouds_alone(&self) -> bool {
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

    pub(super) fn decided(mut self) -> Decision {
        self.bound_way_back();
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

    /// Nothing is left to do for an object that is being deleted.
    pub(super) fn released(self) -> Decision {
        Decision { steps: vec![], release: true, ..self.decided() }
    }

    /// A way back that takes too long is stalled, and goes on being tried.
    fn bound_way_back(&mut self) {
        let Some(stage) = self.back_waits else { return };
        let (now, bound) = (self.now(), self.input.limits.trouble_seconds);
        let served = self.status.running_in == Some(RunningIn::A) && !self.troubled;
        let at = self.status.way_back.get_or_insert_default();
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
            let waits = self.status.message.clone().unwrap_or_default();
            self.note(format!("the way back is stuck since {}: {waits}", clock(since)));
        }
        self.recheck = self.recheck.map(|r| r.max(if self.steps.is_empty() { LATER } else { SOON }));
    }

    /// A step that keeps failing is given up after a while; trouble that is over is forgotten.
    fn bound_trouble(&mut self) {
        let Some(t) = self.status.trouble.clone() else { return };
        if self.steps.iter().any(|s| s.name() == t.what) {
            // A hook has a deadline of its own.
            let bounded = self.steps.iter().any(|s| matches!(s, Step::RunHook(_)) && s.name() == t.what);
            if self.may_give_up() && !bounded && self.past(&t.since, self.input.limits.trouble_seconds) {
                self.fail(reason::UNRECOVERABLE_ERROR, format!("{} (tried {} times)", t.message, t.count));
            }
            if !bounded {
                self.stall_when_overdue();
            }
        } else if !self.troubled {
            self.status.trouble = None;
        }
    }

    /// How long one wait for a cloud may take that handles a disk of this size, in seconds.
    pub(super) fn step_bound(&self, size_gib: i64) -> i64 {
        self.input.limits.step_seconds + size_gib.max(0) * SECONDS_PER_GIB
    }

    /// Has something that is waited for since then taken too long?
    pub(super) fn overdue(&self, since: Timestamp, bound: i64) -> bool {
        self.input.now.duration_since(since).as_secs() > bound
    }

    pub(super) fn past(&self, since: &Option<Time>, seconds: i64) -> bool {
        since.as_ref().is_some_and(|t| self.overdue(t.0, seconds))
    }
}
