//! In the destination cloud, as a block device: the restore Job writes the new volume, and reads it back.

use super::{
    AT_ONCE, Draft, MAKING, asked::Asked, digest, dress, import, proof, show_progress, usable,
    volume_device as device, with_progress,
};
use crate::{
    contract::{Restore, Task, paths},
    crd::v1alpha1::*,
    migration::{
        block_storage::pinned,
        decide::{
            jobs::{Progress, Wanted},
            next::Stop,
        },
        names::{Role, Side},
        observed::{DestinationView, find},
        step::Step,
    },
};

/// States of a volume that a node of the cluster has, or is about to give back.
const LEAVING: [&str; 4] = ["in-use", "attaching", "detaching", "reserved"];

/// In the destination: until the volume holds exactly the bytes that were read in the source, as read back from it.
pub(super) fn import(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> Stop {
    match claimed(d, i, view) {
        Ok(claim) => restore(d, i, claim),
        Err(stop) => stop,
    }
}

/// The claim through which the Job gets the new volume.
fn claimed(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> Result<String, Stop> {
    let n = d.status.disks[i].index;
    let cloud = d.input.spec.destination.cloud.clone();
    let asked = Asked::new(Side::Destination, Role::Volume, 1);
    let Some(volume) = find(&view.volumes, Role::Volume, n) else {
        let what = format!("Making volume {n} in {cloud}");
        asked.may_be_asked_for(d, i, &what)?;
        // If there was one, what is known of it is not true of this one.
        let asked = std::mem::take(&mut d.status.disks[i].import.asked);
        d.status.disks[i].import = ImportStatus { asked, ..Default::default() };
        d.step(Step::CreateVolume { disk: n, image_id: None });
        return Err(Stop::waiting(what));
    };
    asked.seen(d, i, &volume.id);
    d.status.disks[i].import.volume_id = Some(volume.id.clone());
    d.status.disks[i].import.written |= d.job_seen(Side::Destination, &purpose(n)).is_some();
    if !device::handed_over(d, i, Side::Destination) {
        let what = format!("{cloud}: volume {} of disk {n}", volume.id);
        usable(d, i, &what, (&volume.status, "available"), &MAKING, &volume.created_at)?;
    }
    device::attach(d, i, Side::Destination, &volume.id)
}

fn restore(d: &mut Draft<'_>, i: usize, claim: String) -> Stop {
    let n = d.status.disks[i].index;
    let backup = d.status.disks[i].backup.clone();
    if let Some(waiting) = import::send_again(d, i, &purpose(n)) {
        return Stop::waiting(waiting);
    }
    let pass = d.status.disks[i].pass;
    let progress = fill(d, i, claim, pass, backup.as_ref(), true);
    let place = format!("volume {}", d.status.disks[i].import.volume_id.clone().unwrap_or_default());
    import::restored(d, i, progress, &place, "was read back with", |_, _, _| Ok(true))
}

fn purpose(n: i32) -> String {
    format!("restore-{n}")
}

/// The Job that brings the volume to a pass: that which is known of it, or the one that is being made. `whole`: it reads and
/// compares all of the device in the end.
fn fill(
    d: &mut Draft<'_>,
    i: usize,
    claim: String,
    pass: i32,
    known: Option<&Digest>,
    whole: bool,
) -> Progress {
    let n = d.status.disks[i].index;
    let restore = import::task(d, i, pass, known);
    let task = found(d, i, Restore { device: Some(paths::DEVICE.into()), verify_disk: whole, ..restore });
    let wanted = Wanted {
        side: Side::Destination,
        purpose: purpose(n),
        task: Task::Restore(task),
        credentials: true,
        // It is written, and then read.
        deadline_seconds: 2 * import::seconds(d, i, known),
        attempts: d.input.limits.job_attempts,
    };
    d.job_with_device(wanted, claim)
}

/// The same with what the volume holds before the Job writes to it.
fn found(d: &Draft<'_>, i: usize, task: Restore) -> Restore {
    let import = &d.status.disks[i].import;
    let zero = pinned(&d.status, Side::Destination).is_some_and(|t| t.assume_zero_target);
    match &import.holds {
        Some(pass) => Restore { holds: Some(pass.clone()), ..task },
        // What an earlier attempt has written is no zero any more.
        None if import.written => Restore { resume: true, ..task },
        None => Restore { target_is_zero: zero, ..task },
    }
}

/// While passes are made: the volume is there early, and gets what each pass has found once that is complete: patches
/// of a pass that is given up would stay in it. It is through when it holds the last pass.
pub(in crate::migration::decide) fn fill_volume(
    d: &mut Draft<'_>,
    i: usize,
    view: &DestinationView,
) -> Result<(), Stop> {
    let claim = claimed(d, i, view);
    let n = d.status.disks[i].index;
    let row = d.status.disks[i].base().filter(|_| !d.status.disks[i].followed()).cloned();
    let (claim, row) = match (claim, row) {
        (Err(stop), _) if stop.is_failure() => return Err(stop),
        (_, None) => return Ok(()),
        (claim, Some(row)) => (claim?, row),
    };
    let snapshot_id = Some(row.snapshot_id.clone());
    let known = Digest { bytes: row.bytes_read, snapshot_id, ..Default::default() };
    let wrong = import::wrong_segment(d, &purpose(n));
    let text = match fill(d, i, claim, row.pass, Some(&known), false) {
        // It may have been asked for before this pass was complete.
        Progress::Succeeded(result) => {
            let held = digest(&result, d.now()).snapshot_id;
            let disk = &mut d.status.disks[i];
            (disk.import.holds, disk.progress) = (held, None);
            d.renew_job(&purpose(n));
            d.recheck = Some(AT_ONCE);
            format!("Disk {n} in {} follows the passes", d.input.spec.destination.cloud)
        }
        Progress::Running(why) => {
            show_progress(d, i);
            format!("Restoring pass {} of disk {n}: {}", row.pass + 1, with_progress(d, i, &why))
        }
        Progress::Again => format!("Restoring pass {} of disk {n} again", row.pass + 1),
        Progress::Failed(why) => {
            if wrong {
                begin_anew(&mut d.status.disks[i]);
            }
            return Err(Stop::unrecoverable(why));
        }
    };
    Err(Stop::waiting(text))
}

/// What an earlier pass sent is wrong in the store and cannot be read any more: the next pass builds on none.
fn begin_anew(disk: &mut DiskStatus) {
    (disk.pass, disk.import.holds) = (0, None);
    disk.passes.clear();
}

/// In the destination: the volume leaves the cluster and gets its attributes. The mover's own reading is the proof.
pub(super) fn prove(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> Result<(), Stop> {
    if d.status.disks[i].readback.is_some() {
        return Ok(());
    }
    device::release(d, i, Side::Destination)?;
    let n = d.status.disks[i].index;
    let cloud = d.input.spec.destination.cloud.clone();
    let Some(volume) = find(&view.volumes, Role::Volume, n) else {
        return Err(Stop::unrecoverable(format!("{cloud}: the volume of disk {n} is gone")));
    };
    let what = format!("{cloud}: volume {} of disk {n}, after it was written", volume.id);
    usable(d, i, &what, (&volume.status, "available"), &LEAVING, "")?;
    dress(d, i, volume)?;
    // The mover has read back what it wrote.
    let read = d.status.disks[i].restore.clone().unwrap_or_default();
    proof::read_back(d, i, read)?;
    Err(Stop::waiting(format!("Disk {n} was read back")))
}
