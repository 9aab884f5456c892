//! In the destination cloud, as a block device: the restore Job writes the new volume, and reads it back.

use super::{AT_ONCE, Draft, MAKING, Stage, bandwidth, import, repository, usable, volume_device as device};
use crate::{
    crd::v1alpha1::*,
    migration::{
        block_storage::pinned,
        decide::jobs::Wanted,
        names::{Role, Side},
        observed::{DestinationView, find},
        step::Step,
    },
};

/// States of a volume that a node of the cluster has, or is about to give back.
const LEAVING: [&str; 4] = ["in-use", "attaching", "detaching", "reserved"];

/// In the destination: until the volume holds exactly the bytes that were read in the source, as read back from it.
pub(super) fn import(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> String {
    match claimed(d, i, view) {
        Ok(claim) => restore(d, i, claim),
        Err(waiting) => waiting,
    }
}

/// The claim through which the Job gets the new volume.
fn claimed(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> Result<String, String> {
    let n = d.status.disks[i].index;
    let cloud = d.input.spec.destination.cloud.clone();
    let Some(volume) = find(&view.volumes, Role::Volume, n) else {
        d.step(Step::CreateVolume { disk: n, image_id: None });
        return Err(format!("Making volume {n} in {cloud}"));
    };
    d.status.disks[i].import.volume_id = Some(volume.id.clone());
    if !device::handed_over(d, i, Side::Destination) {
        let what = format!("{cloud}: volume {} of disk {n}", volume.id);
        usable(d, i, &what, (&volume.status, "available"), &MAKING, &volume.created_at)?;
    }
    device::attach(d, i, Side::Destination, &volume.id)
}

fn restore(d: &mut Draft<'_>, i: usize, claim: String) -> String {
    let n = d.status.disks[i].index;
    let backup = d.status.disks[i].backup.clone();
    let purpose = format!("restore-{n}");
    if let Some(waiting) = import::send_again(d, i, &purpose) {
        return waiting;
    }
    let wanted = Wanted {
        side: Side::Destination,
        args: args(d, i, &purpose, backup.as_ref()),
        purpose,
        credentials: true,
        // It is written, and then read.
        deadline_seconds: 2 * import::seconds(d, i, backup.as_ref()),
        attempts: d.input.limits.job_attempts,
    };
    let progress = d.job_with_device(wanted, claim);
    let place = format!("volume {}", d.status.disks[i].import.volume_id.clone().unwrap_or_default());
    import::restored(d, i, progress, &place, "was read back with", |_, _, _| Ok(true))
}

fn args(d: &mut Draft<'_>, i: usize, purpose: &str, backup: Option<&Digest>) -> Vec<String> {
    let (repository, disk) = (repository(d), d.status.disks[i].index.to_string());
    let target =
        ["restore", "--repository", &repository, "--disk", &disk, "--device", crate::build::volume::PATH];
    let mut args: Vec<String> = target.into_iter().map(String::from).collect();
    args.push("--verify-disk".into());
    let first = d.job_record(purpose).tries() <= 1;
    let zero = pinned(&d.status, Side::Destination).is_some_and(|t| t.assume_zero_target);
    if first {
        // What an earlier attempt has written is no zero any more.
        args.extend(zero.then(|| "--target-is-zero".into()));
    } else {
        args.push("--resume".into());
    }
    args.extend(import::known_args(d, i, backup));
    args.extend(bandwidth(d));
    args
}

/// In the destination: the volume leaves the cluster and gets its attributes. The mover's own reading is the proof.
pub(super) fn prove(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> Stage {
    if d.status.disks[i].readback.is_some() {
        return None;
    }
    if let Err(waiting) = device::release(d, i, Side::Destination) {
        return Some(waiting);
    }
    let n = d.status.disks[i].index;
    let cloud = d.input.spec.destination.cloud.clone();
    let Some(volume) = find(&view.volumes, Role::Volume, n) else {
        d.fail("UnrecoverableError", format!("{cloud}: the volume of disk {n} is gone"));
        return Some(String::new());
    };
    let what = format!("{cloud}: volume {} of disk {n}, after it was written", volume.id);
    if let Err(waiting) = usable(d, i, &what, (&volume.status, "available"), &LEAVING, "") {
        return Some(waiting);
    }
    if !d.status.disks[i].import.dressed {
        d.step(Step::DressVolume { disk: n, volume_id: volume.id.clone() });
        return Some(format!("Setting the attributes of volume {}", volume.id));
    }
    d.status.disks[i].readback = d.status.disks[i].restore.clone();
    d.recheck = Some(AT_ONCE);
    Some(format!("Disk {n} was read back"))
}
