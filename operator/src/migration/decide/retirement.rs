//! Retirement: when the source is to be deleted, and what is left of it.

use super::Draft;
use crate::{crd::v1alpha1::*, migration::observed::SourceView};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use std::time::Duration;

/// How long after a refusal `sourcePolicy` is followed again, in seconds.
const AGAIN_SECONDS: i64 = 3600;

/// When `sourcePolicy` wants the source deleted.
pub(super) fn due(d: &Draft<'_>) -> Option<Time> {
    let policy = d.input.spec.source_policy.as_ref().filter(|p| p.action == SourceAction::Delete)?;
    let after = SignedDuration::from_secs(policy.after.as_ref()?.seconds());
    d.status.finished_at.as_ref()?.0.checked_add(after).ok().map(Time)
}

/// Is it time to begin? Otherwise: when to look again.
pub(super) fn wanted(d: &mut Draft<'_>) -> bool {
    if d.input.spec.suspend == Some(true) {
        return false;
    }
    let r = d.status.retirement.clone().unwrap_or_default();
    if r.requested_at.is_some() && r.refused.is_none() {
        return true;
    }
    let Some(due) = due(d) else { return false };
    let again = r.refused_at.and_then(|t| t.0.checked_add(SignedDuration::from_secs(AGAIN_SECONDS)).ok());
    let at = again.map_or(due.0, |again| again.max(due.0));
    let left = at.duration_since(d.input.now).as_secs();
    if left > 0 {
        d.recheck = Some(Duration::from_secs(left.min(3600).unsigned_abs()));
        return false;
    }
    let requested_at = Some(d.now());
    d.status.retirement = Some(RetirementStatus { requested_at, by_policy: true, ..Default::default() });
    true
}

/// Rows for the volumes that retirement did not delete.
pub(super) fn left(d: &mut Draft<'_>, view: &SourceView) {
    if d.status.retirement.as_ref().is_none_or(|r| r.retired_at.is_none()) {
        return;
    }
    let cloud = d.input.spec.source.cloud.clone();
    for volume in &view.volumes_of_source {
        let why = if volume.attachments.is_empty() {
            "the cloud did not delete it, or it has snapshots that are not this migration's; delete it yourself"
        } else {
            "it is attached to another server"
        };
        let what = format!("volume {} of the old server in {cloud}, {}", volume.id, volume.status);
        d.status.retained.push(RetainedRow { what, why: why.into() });
    }
}
