//! In the source cloud, as a block device: the temporary volume is read by the backup Job itself.

use super::{
    AT_ONCE, Draft, MAKING, bandwidth, digest, export, repository, transfer_seconds, usable,
    volume_device as device, with_progress,
};
use crate::migration::{
    decide::jobs::{Progress, Wanted},
    names::Side,
    observed::SourceView,
};

/// In the source: until the disk's bytes are in the repository.
pub(super) fn export(d: &mut Draft<'_>, i: usize, view: &SourceView) -> String {
    match claimed(d, i, view) {
        Ok((volume_id, claim)) => backup(d, i, &volume_id, claim),
        Err(waiting) => waiting,
    }
}

/// The temporary volume and the claim through which the Job gets it.
fn claimed(d: &mut Draft<'_>, i: usize, view: &SourceView) -> Result<(String, String), String> {
    let copy = export::copy(d, i, view)?;
    if !device::handed_over(d, i, Side::Source) {
        let cloud = d.input.spec.source.cloud.clone();
        let what = format!("{cloud}: temporary volume {} of disk {}", copy.id, d.status.disks[i].index);
        usable(d, i, &what, (&copy.status, "available"), &MAKING, &copy.created_at)?;
    }
    let claim = device::attach(d, i, Side::Source, &copy.id)?;
    Ok((copy.id, claim))
}

fn backup(d: &mut Draft<'_>, i: usize, volume_id: &str, claim: String) -> String {
    let n = d.status.disks[i].index;
    let (repository, uid, disk) = (repository(d), d.input.me.uid.clone(), n.to_string());
    // Segments of another copy are never taken for this one's: it may be younger.
    let whose = ["backup", "--repository", &repository, "--migration-uid", &uid, "--disk", &disk];
    let what = ["--device", crate::build::volume::PATH, "--device-id", volume_id, "--no-extra-verify"];
    let args = whose.into_iter().chain(what).map(String::from).chain(bandwidth(d)).collect();
    let purpose = format!("backup-{n}");
    let wanted = Wanted {
        side: Side::Source,
        purpose,
        args,
        credentials: true,
        deadline_seconds: transfer_seconds(d, d.status.disks[i].size_gib << 30),
        attempts: d.input.limits.job_attempts,
    };
    match d.job_with_device(wanted, claim) {
        Progress::Succeeded(result) => {
            let digest = digest(&result, d.now());
            if digest.snapshot_id.is_none() || digest.sha256.is_none() || digest.bytes < 1 {
                let text = format!("the backup of disk {n} gave no usable result: {result}");
                d.fail("UnrecoverableError", text);
                return String::new();
            }
            d.note(format!("disk {n}: {} bytes are in the repository", digest.bytes));
            d.status.disks[i].backup = Some(digest);
            d.status.disks[i].progress = None;
            d.recheck = Some(AT_ONCE);
            format!("Disk {n} is in the repository")
        }
        Progress::Running(why) => format!("Backing up disk {n}: {}", with_progress(d, i, &why)),
        Progress::Again => format!("Backing up disk {n} again"),
        Progress::Failed(why) => {
            d.fail("UnrecoverableError", why);
            String::new()
        }
    }
}
