//! In the destination cloud: from the repository to a place that holds exactly the bytes that were read in the source.

use super::{
    AT_ONCE, Draft, SAVING, digest, repository, show_progress, transfer_seconds, usable,
    volume_device, volume_import, with_progress,
};
use crate::{
    crd::v1alpha1::*,
    migration::{
        decide::jobs::{Progress, Wanted},
        names::{Role, Side},
        observed::{DestinationView, find_attempt},
        step::{ObjectKind, Step},
    },
    openstack::Image,
};

/// In the destination: until the image service holds exactly the bytes that were read in the source.
pub(super) fn import(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> String {
    if volume_device::travels(d, i, Side::Destination) {
        return volume_import::import(d, i, view);
    }
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
    let Some(backup) = d.status.disks[i].backup.clone() else { return String::new() };
    let args = restore_args(&repository(d), n, &image.id, &backup);
    let job = d.input.me.job(&purpose, attempt);
    let started = d.input.seen.destination_cluster.view().is_some_and(|c| c.jobs.contains_key(&job));
    if d.input.seen.destination_cluster.view().is_some() && !started && image.status != "queued" {
        // The Job is gone and its image was begun: only a new image can be filled.
        d.next_attempt(&purpose, None);
        return format!("Restoring disk {n} again");
    }
    show_progress(d, i, Side::Destination, &purpose);
    let wanted = Wanted {
        side: Side::Destination,
        purpose,
        args,
        credentials: true,
        deadline_seconds: transfer_seconds(backup.bytes),
        attempts: d.input.limits.job_attempts,
    };
    match d.job(wanted) {
        Progress::Succeeded(result) => restored(d, i, n, image, &backup, digest(&result, d.now())),
        Progress::Running(why) => format!("Restoring disk {n}: {}", with_progress(d, i, &why)),
        Progress::Again => format!("Restoring disk {n} again"),
        Progress::Failed(why) => {
            d.fail("UnrecoverableError", why);
            String::new()
        }
    }
}

fn restore_args(repository: &str, n: i32, image_id: &str, backup: &Digest) -> Vec<String> {
    let n = n.to_string();
    let target = ["restore", "--repository", repository, "--disk", &n, "--image", image_id];
    target.into_iter().map(String::from).chain(recorded_args(backup)).collect()
}

/// What was recorded in the source, as far as it was: a volume there has no hash of its own.
pub(super) fn recorded_args(backup: &Digest) -> Vec<String> {
    let bytes = Some(backup.bytes.to_string());
    let known = [
        ("--snapshot", &backup.snapshot_id),
        ("--bytes", &bytes),
        ("--sha256", &backup.sha256),
        ("--hash-algo", &backup.hash_algo),
        ("--hash-value", &backup.hash_value),
    ];
    let given = known.into_iter().filter_map(|(name, value)| Some([name.to_string(), value.clone()?]));
    given.flatten().collect()
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
    let equal = restore.agrees(backup) == Some(true)
        && image.os_hash_value == restore.hash_value
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
