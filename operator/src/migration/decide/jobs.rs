//! Jobs: one attempt each, tried again within bounds.

use super::{AT_ONCE, Draft, SOON, clock, next::Stop};
use crate::{
    contract::{Answer, Failure, FailureReason, Outcome, Task},
    crd::v1alpha1::{JobRecord, KeyRef},
    migration::{
        names::Side,
        observed::{JobState, JobView, Seen},
        step::{JobRequest, Step},
    },
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use std::collections::BTreeMap;

/// How far a Job is.
pub(super) enum Progress {
    /// Not ended; the sentence says what it waits for.
    Running(String),
    /// Ended well, with this result.
    Succeeded(Answer),
    /// Ended badly for the last time.
    Failed(String),
    /// This attempt ended badly; the next one is due.
    Again,
}

/// A Job that is wanted.
pub(super) struct Wanted {
    pub side: Side,
    pub purpose: String,
    pub task: Task,
    pub credentials: bool,
    pub deadline_seconds: i64,
    /// How often it is tried.
    pub attempts: i32,
}

/// Keys that were refused wait for others: so long before the second attempt, in seconds, and twice as long each time.
const KEYS_SECONDS: i64 = 15;

/// The cloud or the store did not take the keys. They may have been rotated a moment ago: that ends an attempt, no more.
fn keys_refused(failure: &Failure<Answer>) -> bool {
    matches!(failure.reason, FailureReason::StoreUnauthorized | FailureReason::CloudUnauthorized)
}

impl Draft<'_> {
    /// The record of a Job, made if there is none.
    pub(super) fn job_record(&mut self, purpose: &str) -> &mut JobRecord {
        let found = self.status.jobs.iter().position(|j| j.name == purpose);
        let i = found.unwrap_or_else(|| {
            let record =
                JobRecord { name: purpose.into(), attempt: 1, state: "Running".into(), ..Default::default() };
            self.status.jobs.push(record);
            self.status.jobs.len() - 1
        });
        &mut self.status.jobs[i]
    }

    /// The next attempt is the first of a new count.
    pub(super) fn renew_job(&mut self, purpose: &str) {
        if let Some(record) = self.status.jobs.iter_mut().find(|j| j.name == purpose) {
            record.carry_over();
        }
    }

    /// Begins the next attempt.
    pub(super) fn next_attempt(&mut self, purpose: &str, message: Option<String>) {
        let record = self.job_record(purpose);
        record.attempt += 1;
        record.state = "Running".into();
        record.finished_at = None;
        if message.is_some() {
            record.message = message;
        }
        self.recheck = Some(AT_ONCE);
    }

    /// Creates the Job if it is not there, and tells how far it is.
    pub(super) fn job(&mut self, wanted: Wanted) -> Progress {
        self.job_with_keys(wanted, BTreeMap::new())
    }

    /// The same for a Job that gets private keys of the tenant.
    pub(super) fn job_with_keys(&mut self, wanted: Wanted, keys: BTreeMap<String, KeyRef>) -> Progress {
        self.job_with(wanted, keys, None)
    }

    /// The same for a Job that gets a block device, by its claim.
    pub(super) fn job_with_device(&mut self, wanted: Wanted, claim: String) -> Progress {
        self.job_with(wanted, BTreeMap::new(), Some(claim))
    }

    fn job_with(
        &mut self,
        wanted: Wanted,
        keys: BTreeMap<String, KeyRef>,
        device: Option<String>,
    ) -> Progress {
        let (attempt, on_device) = (self.job_record(&wanted.purpose).attempt, device.is_some());
        let cluster = match self.input.seen.cluster(wanted.side) {
            Seen::View(c) => c,
            Seen::Unseen(p) => {
                self.stopped(p.into());
                return Progress::Running(p.message.clone());
            }
            Seen::NotLooked => return Progress::Running("the cluster was not looked at".into()),
        };
        if !cluster.anchor || !self.input.seen.vault_exists {
            if !self.steps.contains(&Step::PrepareSecrets) {
                self.step(Step::PrepareSecrets);
            }
            return Progress::Running("preparing the cluster".into());
        }
        let name = self.input.me.job(&wanted.purpose, attempt);
        let job = cluster.jobs.get(&name);
        if cluster.stale {
            // A Job that runs is given them, too, within about a minute.
            if !self.steps.contains(&Step::PrepareSecrets) {
                self.step(Step::PrepareSecrets);
            }
            self.job_record(&wanted.purpose).again_at = None;
            if job.is_none() {
                return Progress::Running("handing on keys that have changed".into());
            }
        }
        if let Some(until) = self.waits_for_keys(&wanted.purpose).filter(|_| job.is_none()) {
            return Progress::Running(format!(
                "the keys were refused; it is tried again at {}",
                clock(until)
            ));
        }
        match job {
            None => {
                self.job_record(&wanted.purpose).state = "Running".into();
                self.step(Step::CreateJob(Box::new(JobRequest {
                    side: wanted.side,
                    purpose: wanted.purpose,
                    attempt,
                    task: wanted.task,
                    credentials: wanted.credentials,
                    device,
                    keys,
                    deadline_seconds: wanted.deadline_seconds,
                })));
                Progress::Running("starting".into())
            }
            Some(job) => {
                let job = job.clone();
                match job.lost.clone().filter(|_| job.state == JobState::Active) {
                    Some(lost) => self.lost(&wanted, &name, on_device, lost),
                    None => self.ended(&wanted, &name, &job),
                }
            }
        }
    }

    /// Its pod neither runs nor ends. Where each attempt has a place of its own another one begins beside it; a device, or
    /// what there is only one of, is touched again only when Kubernetes has seen the pod gone, with its node.
    fn lost(&mut self, wanted: &Wanted, name: &str, on_device: bool, lost: String) -> Progress {
        let own = matches!(wanted.task, Task::Backup(_) | Task::Restore(_) | Task::Probe(_) | Task::Check(_));
        let message = format!("Job {name}: {lost}");
        if own && !on_device && self.job_record(&wanted.purpose).tries() < wanted.attempts {
            self.note(format!("{message}; trying again"));
            self.next_attempt(&wanted.purpose, Some(message));
            return Progress::Again;
        }
        let text = format!("{message}; it goes on when the node is back, or deleted");
        self.stopped(Stop::trouble("lost-node", text));
        Progress::Running(message)
    }

    /// Until when the next attempt waits, because keys were refused.
    fn waits_for_keys(&mut self, purpose: &str) -> Option<Timestamp> {
        let now = self.input.now;
        self.job_record(purpose).again_at.as_ref().map(|t| t.0).filter(|until| *until > now)
    }

    fn ended(&mut self, wanted: &Wanted, name: &str, job: &JobView) -> Progress {
        let outcome = job.outcome();
        let now = self.now();
        match (job.state, outcome) {
            (JobState::Active, _) => {
                self.recheck = self.recheck.map(|r| r.min(SOON));
                self.job_runs = true;
                Progress::Running(job.reason.clone().unwrap_or_else(|| "running".into()))
            }
            (JobState::Succeeded, Some(Outcome::Ok(answer))) => {
                let record = self.job_record(&wanted.purpose);
                record.state = "Succeeded".into();
                record.finished_at.get_or_insert(now);
                Progress::Succeeded(answer)
            }
            (_, outcome) => self.failed(wanted, name, job, outcome),
        }
    }

    fn failed(
        &mut self,
        wanted: &Wanted,
        name: &str,
        job: &JobView,
        outcome: Option<Outcome<Answer>>,
    ) -> Progress {
        let failure = outcome.as_ref().and_then(Outcome::failure);
        let said = failure.map(|f| f.message.clone()).filter(|message| !message.is_empty());
        let message =
            said.or_else(|| job.reason.clone()).unwrap_or_else(|| "its pod ended without a result".into());
        // A pod that was killed says nothing; that may pass.
        let refused = failure.is_some_and(keys_refused);
        let retryable = refused || failure.is_none_or(|f| f.retryable);
        let message = format!("Job {name}: {message}");
        let record = self.job_record(&wanted.purpose);
        if retryable && record.tries() < wanted.attempts {
            self.note(format!("{message}; trying again"));
            let tries = self.job_record(&wanted.purpose).tries();
            self.next_attempt(&wanted.purpose, Some(message));
            let pause = SignedDuration::from_secs(KEYS_SECONDS << tries.clamp(0, 10));
            let again_at = self.input.now.checked_add(pause).ok().filter(|_| refused);
            self.job_record(&wanted.purpose).again_at = again_at.map(Time);
            return Progress::Again;
        }
        record.state = "Failed".into();
        record.message = Some(message.clone());
        let now = self.now();
        self.job_record(&wanted.purpose).finished_at.get_or_insert(now);
        Progress::Failed(message)
    }
}
