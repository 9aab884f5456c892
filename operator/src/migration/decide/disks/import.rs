//! In the destination cloud: from the repository to a place that holds exactly the bytes that were read in the source.

use super::{
    AT_ONCE, Draft, SAVING, asked::Asked, bandwidth, copy_failed, digest, failed_for, number, origin,
    repository, transfer_seconds, usable, volume_device, volume_import, with_progress,
};
use crate::{
    cloud::Image,
    contract::{FailureReason, Restore, Task},
    crd::v1alpha1::*,
    migration::{
        decide::{
            deletions,
            jobs::{Progress, Wanted},
            next::Stop,
        },
        names::{Role, Side},
        observed::{DestinationView, find_attempt},
        step::{ObjectKind, Step},
    },
};

/// In the destination: until the image service holds exactly the bytes that were read in the source. It begins while
/// they are still read there.
pub(super) fn import(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> Stop {
    if volume_device::travels(d, i, Side::Destination) {
        return volume_import::import(d, i, view);
    }
    match image(d, i, view) {
        Ok(image) => restore(d, i, image),
        Err(stop) => stop,
    }
}

fn purpose(d: &Draft<'_>, i: usize) -> String {
    format!("restore-{}", d.status.disks[i].index)
}

/// The image of this attempt.
fn image<'v>(d: &mut Draft<'_>, i: usize, view: &'v DestinationView) -> Result<&'v Image, Stop> {
    let n = d.status.disks[i].index;
    let attempt = d.job_record(&purpose(d, i)).attempt;
    let role = role(d.status.disks[i].kind);
    drop_failed_images(d, n, role, attempt, view);
    let asked = Asked::new(Side::Destination, role, attempt);
    let Some(image) = find_attempt(&view.images, role, n, attempt) else {
        let what = format!("Making an image for disk {n} in {}", d.input.spec.destination.cloud);
        asked.may_be_asked_for(d, i, &what)?;
        let like = d.status.disks[i].export.image_id.clone();
        d.step(Step::CreateImportImage { disk: n, attempt, like });
        return Err(Stop::waiting(what));
    };
    asked.seen(d, i, &image.id);
    d.status.disks[i].import.image_id = Some(image.id.clone());
    Ok(image)
}

fn restore(d: &mut Draft<'_>, i: usize, image: &Image) -> Stop {
    let (n, purpose) = (d.status.disks[i].index, purpose(d, i));
    let backup = d.status.disks[i].backup.clone();
    let job = d.input.me.job(&purpose, d.job_record(&purpose).attempt);
    let started = d.input.seen.destination_cluster.view().is_some_and(|c| c.jobs.contains_key(&job));
    if d.input.seen.destination_cluster.view().is_some() && !started && used(image) {
        // The Job is gone and its image was begun: only a new image can be filled.
        d.next_attempt(&purpose, None);
        return Stop::waiting(format!("Restoring disk {n} again"));
    }
    if let Some(waiting) = send_again(d, i, &purpose) {
        return Stop::waiting(waiting);
    }
    let wanted = Wanted {
        side: Side::Destination,
        purpose,
        task: Task::Restore(Restore {
            image: Some(image.id.clone()),
            ..task(d, i, d.status.disks[i].pass, backup.as_ref())
        }),
        credentials: true,
        deadline_seconds: seconds(d, i, backup.as_ref()),
        attempts: d.input.limits.job_attempts,
    };
    let progress = d.job(wanted);
    let place = format!("image {}", image.id);
    restored(d, i, progress, &place, "has", |d, backup, restore| {
        let what = format!("{}: {place} of disk {n}, after it was filled", d.input.spec.destination.cloud);
        usable(d, i, &what, (&image.status, "active"), &SAVING, "")?;
        Ok(image.os_hash_value == restore.hash_value && image.size == Some(backup.bytes))
    })
}

/// An upload was begun into it. One that was refused is queued again, and has a hash.
fn used(image: &Image) -> bool {
    image.status != "queued" || image.os_hash_value.is_some()
}

/// What the image is for that a disk is restored into.
pub(super) fn role(kind: DiskKind) -> Role {
    match kind {
        DiskKind::Volume => Role::ImportImage,
        DiskKind::Image => Role::RootImage,
    }
}

/// How far the restore's Job is; its digest is recorded when the place it filled holds what was read in the source, in
/// the mover's eyes and in those of `holds`, which may also say what it waits for.
pub(super) fn restored(
    d: &mut Draft<'_>,
    i: usize,
    progress: Progress,
    place: &str,
    verb: &str,
    holds: impl FnOnce(&mut Draft<'_>, &Digest, &Digest) -> Result<bool, Stop>,
) -> Stop {
    let (n, cloud) = (d.status.disks[i].index, d.input.spec.destination.cloud.clone());
    let result = match progress {
        Progress::Succeeded(result) => result,
        Progress::Running(why) => {
            return Stop::waiting(format!("Restoring disk {n}: {}", with_progress(d, i, &why)));
        }
        Progress::Again => return Stop::waiting(format!("Restoring disk {n} again")),
        Progress::Failed(why) => {
            return copy_failed(d, Some(i), Side::Destination, &format!("restore-{n}"), why);
        }
    };
    let Some(backup) = d.status.disks[i].backup.clone() else {
        return Stop::waiting(format!("Disk {n} was restored; waiting for its backup's own end"));
    };
    let restore = digest(&result, d.now());
    let held = match holds(d, &backup, &restore) {
        Ok(held) => held,
        Err(stop) => return stop,
    };
    if !held || restore.snapshot_id != backup.snapshot_id || restore.agrees(&backup) != Some(true) {
        let text = format!("disk {n}: {place} in {cloud} is not what was read in the source");
        return Stop::failed("DigestMismatch", text);
    }
    d.note(format!("disk {n}: {place} {verb} the source's digest"));
    d.status.disks[i].restore = Some(restore);
    d.status.disks[i].progress = None;
    d.recheck = Some(AT_ONCE);
    Stop::waiting(format!("Disk {n} is in {cloud}"))
}

/// A segment that is wrong in the store was condemned there by the restore: the next backup sends it again.
pub(super) fn send_again(d: &mut Draft<'_>, i: usize, restore: &str) -> Option<String> {
    let outcome = d.job_seen(Side::Destination, restore)?.outcome()?;
    // What an earlier pass sent cannot be read any more.
    if !wrong_segment(d, restore) || d.status.disks[i].pass > 0 {
        return None;
    }
    let (n, backup) = (d.status.disks[i].index, format!("backup-{}", d.status.disks[i].index));
    let record = d.job_record(&backup);
    if record.tries() >= d.input.limits.job_attempts {
        return None;
    }
    if d.status.disks[i].backup.take().is_none() {
        return Some(format!(
            "A segment of disk {n} is wrong in the store; it is sent again after the backup"
        ));
    }
    let said = outcome.failure().map(|f| f.message.as_str()).unwrap_or_default();
    let message = format!("disk {n}: {said}; sending it again");
    d.note(&message);
    d.next_attempt(&backup, Some(message.clone()));
    d.next_attempt(restore, Some(message));
    Some(format!("Sending a segment of disk {n} again"))
}

/// Did the Job find that something is wrong in the store?
pub(super) fn wrong_segment(d: &Draft<'_>, restore: &str) -> bool {
    failed_for(d, Side::Destination, restore) == Some(FailureReason::WrongSegment)
}

/// The restore of a pass over a disk, but for what it writes. What was recorded in the source is told, as far as it was: a
/// volume there has no hash of its own. While the backup runs that is what it reads: segments of another image or volume,
/// that an earlier try left in the repository, are not the disk.
pub(super) fn task(d: &Draft<'_>, i: usize, pass: i32, backup: Option<&Digest>) -> Restore {
    let restore = Restore {
        repository: repository(d),
        disk: number(d.status.disks[i].index),
        pass: number(pass),
        transfer: bandwidth(d),
        ..Default::default()
    };
    let Some(known) = backup.cloned() else { return Restore { origin: Some(origin(d, i)), ..restore } };
    Restore {
        snapshot: known.snapshot_id,
        bytes: u64::try_from(known.bytes).ok(),
        sha256: known.sha256,
        hash_algo: known.hash_algo,
        hash_value: known.hash_value,
        ..restore
    }
}

/// A restore beside its backup must outlast all attempts of that.
pub(super) fn seconds(d: &Draft<'_>, i: usize, backup: Option<&Digest>) -> i64 {
    match backup {
        Some(backup) => transfer_seconds(d, backup.bytes),
        None => {
            let origin = origin(d, i);
            let images = d.input.seen.source.view().map(|v| v.images.as_slice()).unwrap_or_default();
            let image = images.iter().find(|(_, image)| image.id == origin);
            let volume = d.status.disks[i].size_gib << 30;
            let one = transfer_seconds(d, image.and_then(|(_, image)| image.size).unwrap_or(volume));
            one * (1 + i64::from(d.input.limits.job_attempts))
        }
    }
}

/// One image per attempt: those of earlier attempts go.
fn drop_failed_images(d: &mut Draft<'_>, n: i32, role: Role, attempt: i32, view: &DestinationView) {
    for (tagged, image) in &view.images {
        if tagged.role == role && tagged.index == n && tagged.attempt < attempt {
            deletions::ask_once(d, Side::Destination, ObjectKind::Image, &image.id);
        }
    }
}
