//! What a cloud was asked for and is neither there nor in progress any more came to nothing: the cloud is asked why,
//! and a few times for another one; then it is given up. Without that a cloud that cannot make it is asked for ever.

use super::{
    super::{clock, next::Stop},
    Draft, import, refused,
};
use crate::{
    contract::FailureReason,
    crd::v1alpha1::{AskedRow, DiskStatus, VmMigrationStatus},
    migration::{
        names::{Role, Side},
        step::Step,
    },
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// How often something is asked for.
const ATTEMPTS: i32 = 3;
/// How long after one that came to nothing the next is asked for, in seconds; as long again after each further one.
const PAUSE_SECONDS: i64 = 15;

/// Something that a cloud is asked for on behalf of a disk.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub side: Side,
    pub role: Role,
    pub attempt: i32,
    /// The volume that it is made of: of its failure the cloud tells there.
    pub volume_id: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(side: Side, role: Role, attempt: i32) -> Self {
        Asked { side, role, attempt, volume_id: None }
    }

    pub(super) fn made_of(self, volume_id: &'a str) -> Self {
        Asked { volume_id: Some(volume_id), ..self }
    }

    /// It is there, in whatever state.
    pub(super) fn seen(&self, d: &mut Draft<'_>, i: usize, id: &str) {
        let row = row(&mut d.status.disks[i], self.side, self.role, self.attempt);
        (row.id, row.missed_at) = (Some(id.into()), None);
    }

    /// It is not there, and nothing that could become it is in progress: may it be asked for? Otherwise: what is waited
    /// for, or the failure.
    pub(super) fn may_be_asked_for(&self, d: &mut Draft<'_>, i: usize, what: &str) -> Result<(), Stop> {
        let (now, n) = (d.now(), d.status.disks[i].index);
        let row = row(&mut d.status.disks[i], self.side, self.role, self.attempt);
        if let Some(id) = row.id.clone() {
            let since = row.missed_at.get_or_insert(now).0;
            return Err(self.find(d, n, what, id, since));
        }
        let (lost, why, since) = (row.lost, row.why.clone().unwrap_or_default(), row.missed_at.clone());
        if let Some(refused) = self.volume_id.and_then(|_| refused::upload(d, self.side, &why)) {
            let reason = FailureReason::DiskRefused.to_string();
            return Err(Stop::failed(reason, format!("{what}: it came to nothing: {refused}")));
        }
        if lost >= ATTEMPTS {
            let hint = refused::hint(d, self.side, &why);
            let text = format!("{what}: asked for {lost} times, it came to nothing: {why}{hint}");
            return Err(Stop::unrecoverable(text));
        }
        let pause = SignedDuration::from_secs(PAUSE_SECONDS * i64::from(lost));
        match since.and_then(|since| since.0.checked_add(pause).ok()) {
            Some(next) if next > d.input.now => {
                let text = format!("{what}: it came to nothing ({why}); asked for again at {}", clock(next));
                Err(Stop::waiting(text))
            }
            _ => Ok(()),
        }
    }

    /// It was there, or was promised.
    fn find(&self, d: &mut Draft<'_>, disk: i32, what: &str, id: String, since: Timestamp) -> Stop {
        if d.overdue(since, d.step_bound(0)) {
            return Stop::unrecoverable(format!("{what}: {id} is in no list of the cloud since {since}"));
        }
        let (side, role, attempt) = (self.side, self.role, self.attempt);
        let volume_id = self.volume_id.map(String::from);
        let waiting = format!("{what}: {id} is gone; asking the cloud why");
        d.step(Step::FindLost { side, role, disk, attempt, id, volume_id });
        Stop::waiting(waiting)
    }
}

/// The row of something that was asked for, made if there is none.
fn row(disk: &mut DiskStatus, side: Side, role: Role, attempt: i32) -> &mut AskedRow {
    let rows = match side {
        Side::Source => &mut disk.export.asked,
        Side::Destination => &mut disk.import.asked,
    };
    let role = role.to_string();
    // An earlier attempt's is of no use any more.
    rows.retain(|r| r.role != role || r.attempt == attempt);
    let at = rows.iter().position(|r| r.role == role).unwrap_or_else(|| {
        rows.push(AskedRow { role, attempt, ..Default::default() });
        rows.len() - 1
    });
    &mut rows[at]
}

/// What a step asks for.
fn asked_by(status: &VmMigrationStatus, step: &Step) -> Option<(Side, Role, i32, i32)> {
    let image = |n: i32| {
        let disk = status.disks.iter().find(|k| k.index == n);
        import::role(disk.map(|k| k.kind).unwrap_or_default())
    };
    Some(match step {
        Step::CreateSnapshot { disk, attempt, .. } => (Side::Source, Role::Snapshot, *disk, *attempt),
        Step::CreateExportVolume { disk, attempt, .. } => (Side::Source, Role::ExportVolume, *disk, *attempt),
        Step::CreateServerImage { disk } => (Side::Source, Role::ExportImage, *disk, 1),
        Step::UploadVolume { side, role, disk, attempt, .. } => (*side, *role, *disk, *attempt),
        Step::CreateImportImage { disk, attempt, .. } => (Side::Destination, image(*disk), *disk, *attempt),
        Step::CreateVolume { disk, .. } => (Side::Destination, Role::Volume, *disk, 1),
        _ => return None,
    })
}

/// Records the id of what a step asked for.
pub(in super::super) fn record_asked(status: &mut VmMigrationStatus, step: &Step, id: &str) {
    let Some((side, role, n, attempt)) = asked_by(status, step) else { return };
    if let Some(disk) = status.disks.iter_mut().find(|k| k.index == n) {
        let row = row(disk, side, role, attempt);
        (row.id, row.missed_at) = (Some(id.into()), None);
    }
}

/// Records that it is gone. `None`: not by this step.
pub(in super::super) fn record_lost(
    status: &mut VmMigrationStatus,
    step: &Step,
    why: &str,
) -> Option<String> {
    let Step::FindLost { side, role, disk: n, attempt, id, .. } = step else { return None };
    let disk = status.disks.iter_mut().find(|k| k.index == *n)?;
    let row = row(disk, *side, *role, *attempt);
    row.id = None;
    row.lost += 1;
    row.why = Some(why.into());
    Some(format!("disk {n}: {role} {id} is gone ({} of {ATTEMPTS}): {why}", row.lost))
}
