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
mod draft;
mod driver;
mod edges;
mod gone;
mod hooks;
mod jobs;
mod lock;
mod look;
mod next;
mod phases;
mod proven;
mod ran;
mod recheck;
mod record;
mod repository;
mod requests;
mod retirement;
mod retry;
mod source;
mod times;
mod warm;
mod way_back;
mod words;

#[cfg(test)]
mod built_tests;

#[cfg(test)]
mod cutover_tests;

#[cfg(test)]
mod deletions_tests;

#[cfg(test)]
mod edges_tests;

#[cfg(test)]
mod explore;

#[cfg(test)]
mod gitops_tests;

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
mod never;

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
pub use record::record;
pub use times::parse_time;

use super::{
    names::{Identity, Side},
    observed::Observed,
    place,
    step::Step,
};
use crate::{cloud::Server, crd::v1alpha1::*};
use draft::Draft;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use record::set_at;
use std::{collections::BTreeMap, time::Duration};
use times::{AT_ONCE, CALM, LATER, PROGRESS, SOON, clock, pause};

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
    driver::decide(d, first_seen)
}

/// The reason of a failure that was asked for by `requests.rollback`.
pub(super) const ROLLED_BACK: &str = crate::crd::conditions::reason::ROLLED_BACK;

/// All addresses of a server, fixed ones first.
fn addresses(server: &Server) -> Vec<String> {
    let (fixed, floating): (Vec<_>, Vec<_>) = server.addresses.iter().partition(|a| a.fixed);
    fixed.into_iter().chain(floating).map(|a| a.address.clone()).collect()
}

/// Both sides.
pub(super) const SIDES: [Side; 2] = [Side::Source, Side::Destination];
