//! What a cloud is asked to delete and does not: asked again now and then, and after a while left and told, so that the
//! rest goes on. On Ceph an image stays for as long as a volume lives that was made of it.

use super::{Draft, retry};
use crate::{
    crd::v1alpha1::{DeletionRow, Phase, RetainedRow, VmMigrationStatus},
    migration::{
        names::{Role, Side},
        step::{ObjectKind, Step, StepFailure},
    },
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use std::collections::BTreeSet;

/// How long after a request the next one is made, in seconds.
const AGAIN_SECONDS: i64 = 4;

/// What trouble with a deletion is called.
const DELETE: &str = "delete";

/// Something of ours in a cloud.
pub(super) struct Ours<'a> {
    pub side: Side,
    pub kind: ObjectKind,
    pub role: Role,
    pub id: &'a str,
}

/// Asks for the deletion, or tells that the object stays, and why. True: it has to be waited for.
pub(super) fn remove(d: &mut Draft<'_>, ours: &Ours<'_>, hint: &str) -> bool {
    if given_up(d, ours) {
        let row = retained(d, ours, hint);
        d.status.retained.extend(row);
        return false;
    }
    if !lately(d, ours.id) {
        d.step(Step::Delete { side: ours.side, kind: ours.kind, id: ours.id.into() });
    } else if rests(d, ours) && d.status.trouble.as_ref().is_some_and(|t| t.what == DELETE) {
        // It goes on being told.
        d.troubled = true;
    }
    true
}

/// Was it asked for a moment ago?
fn lately(d: &Draft<'_>, id: &str) -> bool {
    row(d, id).is_some_and(|r| !d.past(&r.asked_at, AGAIN_SECONDS))
}

/// Is nothing of it under way: refused a moment ago, or given up?
pub(super) fn rests(d: &Draft<'_>, ours: &Ours<'_>) -> bool {
    let refused = row(d, ours.id).is_some_and(|r| r.refused.is_some());
    refused && lately(d, ours.id) || given_up(d, ours)
}

/// Asks for the deletion if that was not done yet; clean-up does the rest.
pub(super) fn ask_once(d: &mut Draft<'_>, side: Side, kind: ObjectKind, id: &str) {
    if row(d, id).is_none() {
        d.step(Step::Delete { side, kind, id: id.into() });
    }
}

/// Does the cloud still have it, so long after it was asked to delete it that it is left?
fn given_up(d: &Draft<'_>, ours: &Ours<'_>) -> bool {
    let Some(row) = row(d, ours.id) else { return false };
    let limits = d.input.limits;
    let bound = if row.refused.is_some() { limits.trouble_seconds } else { limits.step_seconds };
    // What was refused on the way is asked for anew in the end.
    let from = row.since.clone().max(d.status.finished_at.clone());
    may_stay(d, ours) && row.asked_at >= d.status.finished_at && d.past(&from, bound)
}

/// Volumes and ports in the destination are somebody's data and addresses: those are waited for. And a new try must not
/// take for its own what an earlier one left; of snapshots it knows.
fn may_stay(d: &Draft<'_>, ours: &Ours<'_>) -> bool {
    let no_new_try = match d.phase() {
        Phase::Copying | Phase::AwaitingCutover | Phase::Deleting => true,
        phase => phase.succeeded() || retry::kept_server(d).is_some(),
    };
    ours.role.is_temporary() && (no_new_try || ours.kind == ObjectKind::Snapshot)
}

fn retained(d: &Draft<'_>, ours: &Ours<'_>, hint: &str) -> Option<RetainedRow> {
    let cloud = d.cloud(ours.side);
    let row = row(d, ours.id)?;
    let since = row.since.as_ref().map(|t| t.0.to_string()).unwrap_or_default();
    let answer = row.refused.as_deref().unwrap_or("it took the request, and still has it");
    Some(RetainedRow {
        what: format!("{} {} in {cloud}", ours.kind, ours.id),
        why: format!("the cloud did not delete it, asked since {since}: {answer}{hint}"),
    })
}

/// Half a sentence about the first refusal that is waited for.
pub(super) fn refusal(d: &Draft<'_>) -> String {
    let refused = d.status.deletions.iter().find_map(|r| r.refused.as_ref());
    refused.map(|answer| format!(" ({answer})")).unwrap_or_default()
}

/// Forgets what is gone from one cloud.
pub(super) fn forget_gone<'v>(d: &mut Draft<'_>, side: Side, there: impl Iterator<Item = &'v str>) {
    let (side, there) = (side.to_string(), there.collect::<BTreeSet<_>>());
    d.status.deletions.retain(|row| row.side != side || there.contains(row.id.as_str()));
}

fn row<'d>(d: &'d Draft<'_>, id: &str) -> Option<&'d DeletionRow> {
    d.status.deletions.iter().find(|row| row.id == id)
}

/// Is it only a deletion that failed? What is temporary goes in the end; until then nothing waits for it that it could
/// hold up for ever. A server is another matter.
pub(super) fn is_of_no_matter(step: &Step) -> bool {
    matches!(step, Step::Delete { kind, .. } if *kind != ObjectKind::Server)
}

/// Records that a deletion was asked for, and whether it was refused.
pub(super) fn record(
    status: &mut VmMigrationStatus,
    step: &Step,
    failure: Option<&StepFailure>,
    now: Timestamp,
) {
    let Step::Delete { side, kind, id } = step else { return };
    if !is_of_no_matter(step) {
        return;
    }
    let at = status.deletions.iter().position(|row| row.id == *id).unwrap_or_else(|| {
        let (side, kind, id) = (side.to_string(), kind.to_string(), id.clone());
        status.deletions.push(DeletionRow { side, kind, id, since: Some(Time(now)), ..Default::default() });
        status.deletions.len() - 1
    });
    let row = &mut status.deletions[at];
    row.asked_at = Some(Time(now));
    row.refused = failure.map(|f| f.message.clone());
}
