//! What a look may leave out: while nothing but Jobs is waited for, neither cloud has anything to tell.

use super::{
    block_storage::fills_while_copying,
    decide::SIDES,
    names::{Identity, Side},
    observed::{JobState, Observed},
};
use crate::crd::v1alpha1::*;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// For how long the clouds are left alone, in seconds. Whoever takes the source back is seen so much later; before a
/// copy is trusted, and before the server is asked for in B, the source is looked at all the same.
const SECONDS: i64 = 60;

/// What is recorded as the state of a server that is gone.
pub const GONE: &str = "DELETED";

/// Were both clouds looked at a short while ago, to no effect, and does all that is waited for still run?
pub fn clouds_may_wait(me: &Identity, status: &VmMigrationStatus, seen: &Observed, now: Timestamp) -> bool {
    let recent = |t: &Timestamp| (0..SECONDS).contains(&now.duration_since(*t).as_secs());
    status.clouds_looked_at.as_ref().map(|t| t.0).is_some_and(|t| recent(&t))
        && only_copies_run(me, status, seen)
}

/// Is every disk in the hands of a Job that runs, as seen now, or done with?
pub fn only_copies_run(me: &Identity, status: &VmMigrationStatus, seen: &Observed) -> bool {
    let of = Of { me, status, seen };
    let at_work = match status.phase.unwrap_or_default() {
        Phase::Transferring => status.disks.iter().all(|d| of.travels(d)),
        Phase::Copying | Phase::AwaitingCutover if pass_is_under_way(status) => {
            status.disks.iter().all(|d| of.is_read(d))
        }
        _ => false,
    };
    at_work && status.failure.is_none()
}

/// Is a Job or a hook waited for that ends before both clouds are looked at anew? An inventory costs each of them a
/// dozen requests.
pub fn inventory_may_wait(me: &Identity, status: &VmMigrationStatus, seen: &Observed) -> bool {
    let gate = match status.phase {
        Some(Phase::Stopping) => HookPhase::BeforeStop,
        _ => HookPhase::BeforePreflight,
    };
    let hook = |h: &HookRow| h.phase == gate && h.attempts > 0 && !h.state.is_final();
    a_probe_runs(me, status, seen) || init_runs(me, status, seen) || status.hooks.iter().any(hook)
}

/// The store is being probed from a pod near one of the clouds.
pub fn a_probe_runs(me: &Identity, status: &VmMigrationStatus, seen: &Observed) -> bool {
    let of = Of { me, status, seen };
    SIDES.into_iter().any(|side| of.runs(side, &format!("probe-{side}")))
}

/// The repository is being made.
pub fn init_runs(me: &Identity, status: &VmMigrationStatus, seen: &Observed) -> bool {
    Of { me, status, seen }.runs(Side::Source, "init")
}

/// Are disks still becoming volumes, so that neither ports nor the server have been asked for?
pub fn only_disks_are_made(status: &VmMigrationStatus) -> bool {
    let asked = |d: &DestinationStatus| d.server_requested_at.is_some() || !d.port_ids.is_empty();
    status.phase == Some(Phase::Creating)
        && status.failure.is_none()
        && !status.destination.as_ref().is_some_and(asked)
        && status.disks.iter().any(|d| d.readback.is_none())
}

/// A warm pass was begun and has not ended.
pub fn pass_is_under_way(status: &VmMigrationStatus) -> bool {
    status.copying.as_ref().is_some_and(|c| c.began_at.is_some())
}

/// For how long after the end a source that was believed to be gone is looked for, in seconds: a cloud that keeps deleted
/// servers for some days gives them back with all that was on them.
const RETURN_SECONDS: i64 = 7 * 24 * 3600;

/// Until when a source that was believed to be gone may come back with this migration's claim; `None`: there is none. One
/// that has ended otherwise was released.
pub fn source_may_return_until(status: &VmMigrationStatus) -> Option<Timestamp> {
    let ended = status.phase.is_some_and(Phase::gave_up);
    let lost = |s: &SourceStatus| s.claimed_at.is_some() && s.server_status == GONE;
    let since = status.finished_at.as_ref().filter(|_| ended && status.source.as_ref().is_some_and(lost))?;
    since.0.checked_add(SignedDuration::from_secs(RETURN_SECONDS)).ok()
}

/// Is it still to be looked for?
pub fn source_may_return(status: &VmMigrationStatus, now: Timestamp) -> bool {
    source_may_return_until(status).is_some_and(|until| now < until)
}

/// Where to look for a disk's Jobs.
struct Of<'a> {
    me: &'a Identity,
    status: &'a VmMigrationStatus,
    seen: &'a Observed,
}

impl Of<'_> {
    /// After the stop: each side copies, or has nothing left to do.
    fn travels(&self, disk: &DiskStatus) -> bool {
        let n = disk.index;
        let backup = match disk.backup {
            Some(_) => self.let_go(Side::Source, n),
            None => self.runs(Side::Source, &format!("backup-{n}")),
        };
        let restore = match (&disk.restore, &disk.readback) {
            (None, _) => self.runs(Side::Destination, &format!("restore-{n}")),
            (_, Some(_)) => self.let_go(Side::Destination, n),
            // It is proven in the cloud.
            (Some(_), None) => false,
        };
        backup && restore
    }

    /// While the server runs the source is read, and volumes in the destination follow.
    fn is_read(&self, disk: &DiskStatus) -> bool {
        let after_the_stop = disk.kind == DiskKind::Image;
        let follows = || {
            !fills_while_copying(self.status)
                || disk.followed()
                || self.runs(Side::Destination, &format!("restore-{}", disk.index))
        };
        after_the_stop
            || disk.copied && follows()
            || self.runs(Side::Source, &format!("backup-{}", disk.index))
    }

    fn runs(&self, side: Side, purpose: &str) -> bool {
        let seen = self.seen.job(self.me, self.status, side, purpose);
        seen.is_some_and(|j| j.state == JobState::Active && !j.deleting && j.lost.is_none())
    }

    /// The cluster has no device of this disk any more.
    fn let_go(&self, side: Side, n: i32) -> bool {
        self.seen.cluster(side).view().is_some_and(|c| !c.devices.contains_key(&self.me.device(side, n)))
    }
}
