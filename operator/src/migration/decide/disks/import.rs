//! In the destination cloud: from the repository to a place that holds exactly the bytes that were read in the source.

use super::{
    AT_ONCE, Draft, SAVING, bandwidth, digest, job_of, repository, transfer_seconds, usable, with_progress,
};
use crate::{
    crd::v1alpha1::*,
    migration::{
        decide::jobs::{Progress, Wanted},
        names::{Role, Side},
        observed::{DestinationView, find_attempt},
        step::{ObjectKind, Step},
    },
    mover::result::FailureReason,
    openstack::Image,
};
use serde_json::Value;

/// In the destination: until the image service holds exactly the bytes that were read in the source. It begins while
/// they are still read there.
pub(super) fn import(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> String {
    let n = d.status.disks[i].index;
    let purpose = format!("restore-{n}");
    let attempt = d.job_record(&purpose).attempt;
    let role = match d.status.disks[i].kind {
        DiskKind::Volume => Role::ImportImage,
        DiskKind::Image => Role::RootImage,
    };
    drop_failed_images(d, n, role, attempt, view);
    let Some(image) = find_attempt(&view.images, role, n, attempt) else {
        let like = d.status.disks[i].export.image_id.clone();
        d.step(Step::CreateImportImage { disk: n, attempt, like });
        return format!("Making an image for disk {n} in {}", d.input.spec.destination.cloud);
    };
    d.status.disks[i].import.image_id = Some(image.id.clone());
    let backup = d.status.disks[i].backup.clone();
    let mut args = restore_args(d, i, &image.id, backup.as_ref());
    args.extend(bandwidth(d));
    let job = d.input.me.job(&purpose, attempt);
    let started = d.input.seen.destination_cluster.view().is_some_and(|c| c.jobs.contains_key(&job));
    if d.input.seen.destination_cluster.view().is_some() && !started && image.status != "queued" {
        // The Job is gone and its image was begun: only a new image can be filled.
        d.next_attempt(&purpose, None);
        return format!("Restoring disk {n} again");
    }
    if let Some(waiting) = send_again(d, i, &purpose) {
        return waiting;
    }
    let wanted = Wanted {
        side: Side::Destination,
        purpose,
        args,
        credentials: true,
        deadline_seconds: seconds(d, i, backup.as_ref()),
        attempts: d.input.limits.job_attempts,
    };
    match d.job(wanted) {
        Progress::Succeeded(result) => match backup {
            Some(backup) => restored(d, i, n, image, &backup, digest(&result, d.now())),
            None => format!("Disk {n} was restored; waiting for its backup's own end"),
        },
        Progress::Running(why) => format!("Restoring disk {n}: {}", with_progress(d, i, &why)),
        Progress::Again => format!("Restoring disk {n} again"),
        Progress::Failed(why) => {
            d.fail("UnrecoverableError", why);
            String::new()
        }
    }
}

/// A segment that is wrong in the store was condemned there by the restore: the next backup sends it again.
fn send_again(d: &mut Draft<'_>, i: usize, restore: &str) -> Option<String> {
    let said = job_of(d, Side::Destination, restore)?.termination.as_deref()?;
    let said: Value = serde_json::from_str(said).ok()?;
    // What an earlier pass sent cannot be read any more.
    if said["reason"] != FailureReason::WrongSegment.to_string() || d.status.disks[i].pass > 0 {
        return None;
    }
    let (n, backup) = (d.status.disks[i].index, format!("backup-{}", d.status.disks[i].index));
    let record = d.job_record(&backup);
    if record.attempt - record.earlier >= d.input.limits.job_attempts {
        return None;
    }
    if d.status.disks[i].backup.take().is_none() {
        return Some(format!(
            "A segment of disk {n} is wrong in the store; it is sent again after the backup"
        ));
    }
    let message = format!("disk {n}: {}; sending it again", said["message"].as_str().unwrap_or_default());
    d.note(&message);
    d.next_attempt(&backup, Some(message.clone()));
    d.next_attempt(restore, Some(message));
    Some(format!("Sending a segment of disk {n} again"))
}

/// What is known is told. While the backup runs that is the image it reads: segments of another one, that an earlier
/// try left in the repository, are not the disk.
fn restore_args(d: &Draft<'_>, i: usize, image_id: &str, backup: Option<&Digest>) -> Vec<String> {
    let (repository, disk) = (repository(d), &d.status.disks[i]);
    let (n, pass) = (disk.index.to_string(), disk.pass.to_string());
    let target = ["restore", "--repository", &repository, "--disk", &n, "--pass", &pass, "--image", image_id];
    let origin = disk.export.image_id.clone().unwrap_or_default();
    let known = backup.map_or_else(|| vec!["--origin".into(), origin], recorded_args);
    target.into_iter().map(String::from).chain(known).collect()
}

fn recorded_args(backup: &Digest) -> Vec<String> {
    let bytes = backup.bytes.to_string();
    let text = |o: &Option<String>| o.clone().unwrap_or_default();
    let (snapshot, sha256) = (text(&backup.snapshot_id), text(&backup.sha256));
    let (algo, value) = (text(&backup.hash_algo), text(&backup.hash_value));
    [
        ["--snapshot", &snapshot, "--bytes", &bytes, "--sha256", &sha256].map(String::from).to_vec(),
        ["--hash-algo", &algo, "--hash-value", &value].map(String::from).to_vec(),
    ]
    .concat()
}

/// A restore beside its backup must outlast all attempts of that.
fn seconds(d: &Draft<'_>, i: usize, backup: Option<&Digest>) -> i64 {
    match backup {
        Some(backup) => transfer_seconds(d, backup.bytes),
        None => {
            let origin = &d.status.disks[i].export.image_id;
            let images = d.input.seen.source.view().map(|v| v.images.as_slice()).unwrap_or_default();
            let image = images.iter().find(|(_, image)| Some(&image.id) == origin.as_ref());
            let one = transfer_seconds(d, image.and_then(|(_, image)| image.size).unwrap_or(0));
            one * (1 + i64::from(d.input.limits.job_attempts))
        }
    }
}

/// One image per attempt: those of earlier attempts go.
fn drop_failed_images(d: &mut Draft<'_>, n: i32, role: Role, attempt: i32, view: &DestinationView) {
    for (tagged, image) in &view.images {
        if tagged.role == role && tagged.index == n && tagged.attempt < attempt {
            d.step(Step::Delete { side: Side::Destination, kind: ObjectKind::Image, id: image.id.clone() });
        }
    }
}

fn restored(d: &mut Draft<'_>, i: usize, n: i32, image: &Image, backup: &Digest, restore: Digest) -> String {
    let cloud = d.input.spec.destination.cloud.clone();
    let what = format!("{cloud}: image {} of disk {n}, after it was filled", image.id);
    if let Err(waiting) = usable(d, i, &what, (&image.status, "active"), &SAVING, "") {
        return waiting;
    }
    let equal = restore.snapshot_id == backup.snapshot_id
        && restore.sha256 == backup.sha256
        && restore.bytes == backup.bytes
        && restore.hash_value == backup.hash_value
        && image.os_hash_value == backup.hash_value
        && image.size == Some(backup.bytes);
    if !equal {
        let text = format!(
            "disk {n}: image {} in {} is not what was read in the source",
            image.id, d.input.spec.destination.cloud
        );
        d.fail("DigestMismatch", text);
        return String::new();
    }
    d.note(format!("disk {n}: image {} has the source's digest", image.id));
    d.status.disks[i].restore = Some(restore);
    d.status.disks[i].progress = None;
    d.recheck = Some(AT_ONCE);
    format!("Disk {n} is in {}", d.input.spec.destination.cloud)
}
