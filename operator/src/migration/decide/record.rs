//! Records what a step brought back. As pure as the decision.

use super::{deletions, disks, hooks};
use crate::{
    crd::{conditions::reason, v1alpha1::*},
    migration::step::{Effect, Step, StepFailure},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// Records what a step brought back.
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
        reason: reason::UNRECOVERABLE_ERROR.into(),
        message: failure.message,
        at: Some(Time(now)),
        cancelled: false,
    });
}

/// A row in the timeline.
pub(super) fn note(status: &mut VmMigrationStatus, now: Timestamp, message: String) {
    let phase = status.phase.unwrap_or_default();
    status.timeline.push(TimelineRow { at: Time(now), phase, message });
    let extra = status.timeline.len().saturating_sub(64);
    status.timeline.drain(..extra);
}

/// The new server has passed all its checks: it serves, and holds what was written since.
pub(super) fn serves(status: &VmMigrationStatus) -> bool {
    status.destination.as_ref().is_some_and(|x| x.ready_at.is_some())
}

/// Nothing was touched yet: whatever fails is a reason to wait, not to give up.
fn undecided(status: &VmMigrationStatus) -> bool {
    status.source.as_ref().is_none_or(|s| s.claimed_at.is_none())
}
