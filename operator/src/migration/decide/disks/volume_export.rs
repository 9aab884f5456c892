//! In the source cloud, as a block device: the temporary volume is read by the backup Job itself.

use super::{Draft, MAKING, export, refused, transfer_seconds, usable, volume_device as device};
use crate::{
    contract::{Backup, Task, paths},
    migration::{
        decide::{jobs::Wanted, next::Stop},
        names::Side,
        observed::SourceView,
    },
};

/// In the source: until the disk's bytes are in the repository.
pub(super) fn export(d: &mut Draft<'_>, i: usize, view: &SourceView) -> Stop {
    match claimed(d, i, view) {
        Ok((volume_id, claim)) => backup(d, i, &volume_id, claim),
        Err(stop) => stop,
    }
}

/// The temporary volume and the claim through which the Job gets it.
fn claimed(d: &mut Draft<'_>, i: usize, view: &SourceView) -> Result<(String, String), Stop> {
    let copy = export::copy(d, i, view)?;
    if !device::handed_over(d, i, Side::Source) {
        let cloud = d.input.spec.source.cloud.clone();
        let what = format!("{cloud}: temporary volume {} of disk {}", copy.id, d.status.disks[i].index);
        usable(d, i, &what, (&copy.status, "available"), &MAKING, &copy.created_at)?;
    }
    let claim = device::attach(d, i, Side::Source, &copy.id)?;
    Ok((copy.id, claim))
}

fn backup(d: &mut Draft<'_>, i: usize, volume_id: &str, claim: String) -> Stop {
    // Segments of another copy are never taken for this one's: it may be younger.
    let task = Backup {
        device: Some(paths::DEVICE.into()),
        device_id: Some(volume_id.into()),
        images: refused::checks(d, i),
        ..export::task(d, i)
    };
    let purpose = format!("backup-{}", d.status.disks[i].index);
    let wanted = Wanted {
        side: Side::Source,
        purpose,
        task: Task::Backup(task),
        credentials: true,
        deadline_seconds: transfer_seconds(d, d.status.disks[i].size_gib << 30),
        attempts: d.input.limits.job_attempts,
    };
    let progress = d.job_with_device(wanted, claim);
    export::backed_up(d, i, progress, |read| read.sha256.is_some() && read.bytes > 0)
}
