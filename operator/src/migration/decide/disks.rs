//! The way of one disk: snapshot, temporary volume, image, backup; image, volume, read-back. All disks side by side.

use super::{
    AT_ONCE, Draft,
    jobs::{Progress, Wanted},
};
use crate::{
    crd::v1alpha1::*,
    migration::{
        names::{Role, Side, Tagged},
        observed::{DestinationView, SourceView, find, find_attempt},
        step::{ObjectKind, Step},
    },
    openstack::{Image, Snapshot},
};
use serde_json::Value;

/// What one disk waits for; `None`: it is proven in the destination.
type Stage = Option<String>;

/// Takes every disk one step further. True when all are proven in the destination.
pub(super) fn all(d: &mut Draft<'_>) -> bool {
    let mut waiting = vec![];
    for i in 0..d.status.disks.len() {
        let stage = one(d, i);
        if d.status.failure.is_some() {
            return false;
        }
        d.status.disks[i].stage = stage.clone().unwrap_or_else(|| "Verified".into());
        waiting.extend(stage);
    }
    let count = d.status.disks.len();
    if let Some(first) = waiting.first() {
        let done = count - waiting.len();
        let since = d.status.phase_since.as_ref().map(|t| super::clock(t.0)).unwrap_or_default();
        d.say(format!(
            "{first} ({done}/{count} disks done, in this phase since {since}){}",
            d.where_source_is()
        ));
    }
    count > 0 && waiting.is_empty()
}

fn one(d: &mut Draft<'_>, i: usize) -> Stage {
    if d.status.disks[i].backup.is_none() {
        let Some(view) = d.input.seen.source.view() else {
            return Some("Waiting for the source cloud".into());
        };
        return Some(export(d, i, view));
    }
    let Some(view) = d.input.seen.destination.view() else {
        let p = d.input.seen.destination.problem().cloned();
        if let Some(p) = p {
            d.trouble(&p.id, &p.message);
        }
        return Some("Waiting for the destination cloud".into());
    };
    if d.status.disks[i].restore.is_none() {
        return Some(import(d, i, view));
    }
    match d.status.disks[i].kind {
        // An image-backed root's proof is the image's bytes.
        DiskKind::Image => {
            d.status.disks[i].readback = d.status.disks[i].restore.clone();
            None
        }
        DiskKind::Volume => prove(d, i, view),
    }
}

/// In the source: until the disk's bytes are in the repository.
fn export(d: &mut Draft<'_>, i: usize, view: &SourceView) -> String {
    let image = match export_image(d, i, view) {
        Ok(image) => image,
        Err(waiting) => return waiting,
    };
    let n = d.status.disks[i].index;
    if !image.tags.contains(&d.input.me.tag()) && d.status.disks[i].kind == DiskKind::Volume {
        d.step(Step::TagImage { side: Side::Source, image_id: image.id.clone() });
    }
    d.status.disks[i].export.image_id = Some(image.id.clone());
    backup(d, i, n, &image)
}

/// The image that the backup reads; or what it waits for.
fn export_image(d: &mut Draft<'_>, i: usize, view: &SourceView) -> Result<Image, String> {
    let n = d.status.disks[i].index;
    let cloud = d.input.spec.source.cloud.clone();
    if let Some(image) = find(&view.images, Role::ExportImage, n) {
        let what = format!("{cloud}: image {} of disk {n}", image.id);
        return usable(
            d,
            &what,
            &image.status,
            "active",
            &["queued", "saving", "importing"],
            &image.created_at,
        )
        .map(|()| image.clone());
    }
    let busy = view.server.as_ref().and_then(|s| s.task_state.clone());
    if d.status.disks[i].kind == DiskKind::Image {
        if let Some(task) = busy {
            return Err(format!("Waiting for the source before its image is made: {task}"));
        }
        d.step(Step::CreateServerImage { disk: n });
        return Err(format!("Making an image of the local root disk in {cloud}"));
    }
    let volume_id = d.status.disks[i].source_volume_id.clone().unwrap_or_default();
    let Some(snapshot) = fresh_snapshot(d, view, n) else {
        // While a server's image is made Nova refuses the snapshots that file backends ask it for.
        let image = d.status.disks.iter().find(|k| k.kind == DiskKind::Image).map(|k| k.index);
        if image.is_some_and(|k| find(&view.images, Role::ExportImage, k).is_none()) || busy.is_some() {
            return Err(format!("The snapshot of volume {volume_id} follows the image of the root disk"));
        }
        d.step(Step::CreateSnapshot { disk: n, volume_id: volume_id.clone() });
        return Err(format!("Taking a snapshot of volume {volume_id}"));
    };
    d.status.disks[i].export.snapshot_id = Some(snapshot.id.clone());
    let what = format!("{cloud}: snapshot {} of volume {volume_id}", snapshot.id);
    usable(d, &what, &snapshot.status, "available", &["creating"], &snapshot.created_at)?;
    let Some(copy) = find(&view.volumes, Role::ExportVolume, n) else {
        d.step(Step::CreateExportVolume { disk: n, snapshot_id: snapshot.id.clone() });
        return Err(format!("Making a temporary volume from snapshot {}", snapshot.id));
    };
    d.status.disks[i].export.volume_id = Some(copy.id.clone());
    let what = format!("{cloud}: temporary volume {} of disk {n}", copy.id);
    usable(d, &what, &copy.status, "available", &["creating", "downloading", "uploading"], &copy.created_at)?;
    d.step(Step::UploadVolume {
        side: Side::Source,
        role: Role::ExportImage,
        disk: n,
        volume_id: copy.id.clone(),
    });
    Err(format!("Uploading temporary volume {} to an image in {cloud}", copy.id))
}

/// The snapshot of this try: one of an earlier try that had to stay holds what the disk was then.
fn fresh_snapshot<'v>(d: &Draft<'_>, view: &'v SourceView, n: i32) -> Option<&'v Snapshot> {
    let stale = d.status.kept.as_ref().map(|k| k.snapshot_ids.as_slice()).unwrap_or_default();
    let fits = |t: &Tagged, s: &Snapshot| t.role == Role::Snapshot && t.index == n && !stale.contains(&s.id);
    view.snapshots.iter().find(|(t, s)| fits(t, s)).map(|(_, s)| s)
}

/// Is an object in the state that is wanted? Otherwise: what is waited for, or the failure.
fn usable(
    d: &mut Draft<'_>,
    what: &str,
    status: &str,
    wanted: &str,
    passing: &[&str],
    created_at: &str,
) -> Result<(), String> {
    if status == wanted {
        return Ok(());
    }
    if !passing.contains(&status) {
        d.fail("UnrecoverableError", format!("{what} went to state {status:?} instead of {wanted}"));
        return Err(String::new());
    }
    if d.overdue(created_at) {
        let bound = d.input.limits.step_seconds;
        d.fail(
            "UnrecoverableError",
            format!("{what} is still {status} since {created_at} (bound {bound} s)"),
        );
        return Err(String::new());
    }
    let Some(since) = super::parse_time(created_at) else {
        return Err(format!("Waiting for {what}: {status}"));
    };
    let bound = k8s_openapi::jiff::SignedDuration::from_secs(d.input.limits.step_seconds);
    let until = since.checked_add(bound).map(super::clock).unwrap_or_default();
    Err(format!("Waiting for {what}: {status} since {} (gives up {until})", super::clock(since)))
}

fn backup(d: &mut Draft<'_>, i: usize, n: i32, image: &Image) -> String {
    let purpose = format!("backup-{n}");
    let repository = repository(d);
    let uid = d.input.me.uid.clone();
    let wanted = Wanted {
        side: Side::Source,
        purpose: purpose.clone(),
        args: [
            "backup",
            "--repository",
            &repository,
            "--migration-uid",
            &uid,
            "--disk",
            &n.to_string(),
            "--image",
            &image.id,
        ]
        .map(String::from)
        .to_vec(),
        credentials: true,
        deadline_seconds: transfer_seconds(image.size.unwrap_or(0)),
        attempts: d.input.limits.job_attempts,
    };
    show_progress(d, i, Side::Source, &purpose);
    match d.job(wanted) {
        Progress::Succeeded(result) => {
            let digest = digest(&result, d.now());
            if digest.snapshot_id.is_none() || digest.hash_value.is_none() || Some(digest.bytes) != image.size
            {
                d.fail(
                    "UnrecoverableError",
                    format!("the backup of disk {n} gave no usable result: {result}"),
                );
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

fn repository(d: &Draft<'_>) -> String {
    d.status.store.as_ref().map(|s| s.repository.clone()).unwrap_or_default()
}

/// Ten minutes and then 1 MiB a second.
fn transfer_seconds(bytes: i64) -> i64 {
    600 + bytes / (1 << 20)
}

fn digest(result: &Value, now: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time) -> Digest {
    let text = |k: &str| result[k].as_str().filter(|s| !s.is_empty()).map(String::from);
    Digest {
        bytes: result["bytes"].as_i64().unwrap_or(-1),
        sha256: text("sha256"),
        hash_algo: text("hashAlgo"),
        hash_value: text("hashValue"),
        snapshot_id: text("snapshotId"),
        by: "mover".into(),
        at: Some(now),
    }
}

fn show_progress(d: &mut Draft<'_>, i: usize, side: Side, purpose: &str) {
    let name = d.input.me.job(purpose, d.job_record(purpose).attempt);
    let job = d.input.seen.cluster(side).view().and_then(|c| c.jobs.get(&name));
    if let Some((bytes, total, rate)) = job.and_then(|j| j.progress) {
        d.status.disks[i].progress = Some(DiskProgress { bytes, total, rate });
    }
}

fn with_progress(d: &Draft<'_>, i: usize, why: &str) -> String {
    match &d.status.disks[i].progress {
        Some(p) if p.total > 0 => format!("{}%", p.bytes * 100 / p.total),
        _ => why.to_string(),
    }
}

/// In the destination: until the image service holds exactly the bytes that were read in the source.
fn import(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> String {
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
    let (bytes, n) = (backup.bytes.to_string(), n.to_string());
    let text = |o: &Option<String>| o.clone().unwrap_or_default();
    let (snapshot, sha256) = (text(&backup.snapshot_id), text(&backup.sha256));
    let (algo, value) = (text(&backup.hash_algo), text(&backup.hash_value));
    [
        ["restore", "--repository", repository, "--snapshot", &snapshot, "--disk", &n]
            .map(String::from)
            .to_vec(),
        ["--image", image_id, "--bytes", &bytes, "--sha256", &sha256].map(String::from).to_vec(),
        ["--hash-algo", &algo, "--hash-value", &value].map(String::from).to_vec(),
    ]
    .concat()
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
    if image.status != "active" {
        return format!("Waiting for image {} of disk {n}: {}", image.id, image.status);
    }
    let equal = restore.bytes == backup.bytes
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

/// In the destination: the volume, its attributes, and the proof by reading it back.
fn prove(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> Stage {
    let n = d.status.disks[i].index;
    let cloud = d.input.spec.destination.cloud.clone();
    let import = find(&view.images, Role::ImportImage, n);
    let readback = find(&view.images, Role::ReadbackImage, n);
    if d.status.disks[i].readback.is_some() {
        for image in [import, readback].into_iter().flatten() {
            d.step(Step::Delete { side: Side::Destination, kind: ObjectKind::Image, id: image.id.clone() });
        }
        return None;
    }
    let Some(volume) = find(&view.volumes, Role::Volume, n) else {
        let Some(import) = import else {
            d.fail("UnrecoverableError", format!("{cloud}: the image of disk {n} is gone"));
            return Some(String::new());
        };
        d.step(Step::CreateVolume { disk: n, image_id: import.id.clone() });
        return Some(format!("Making volume {n} in {cloud}"));
    };
    d.status.disks[i].import.volume_id = Some(volume.id.clone());
    let what = format!("{cloud}: volume {} of disk {n}", volume.id);
    let passing = ["creating", "downloading", "uploading"];
    if volume.status != "uploading"
        && let Err(waiting) = usable(d, &what, &volume.status, "available", &passing, &volume.created_at)
    {
        return Some(waiting);
    }
    if !d.status.disks[i].import.dressed {
        d.step(Step::DressVolume { disk: n, volume_id: volume.id.clone() });
        return Some(format!("Setting the attributes of volume {}", volume.id));
    }
    let Some(image) = readback else {
        d.step(Step::UploadVolume {
            side: Side::Destination,
            role: Role::ReadbackImage,
            disk: n,
            volume_id: volume.id.clone(),
        });
        return Some(format!("Reading back volume {} in {cloud}", volume.id));
    };
    d.status.disks[i].import.readback_image_id = Some(image.id.clone());
    let what = format!("{cloud}: read-back of disk {n}, image {}", image.id);
    if let Err(waiting) =
        usable(d, &what, &image.status, "active", &["queued", "saving", "importing"], &image.created_at)
    {
        return Some(waiting);
    }
    if volume.status != "available" {
        return Some(format!("Waiting for volume {}: {}", volume.id, volume.status));
    }
    compare(d, i, n, image);
    Some(format!("Disk {n} was read back"))
}

fn compare(d: &mut Draft<'_>, i: usize, n: i32, image: &Image) {
    let Some(backup) = d.status.disks[i].backup.clone() else { return };
    let read = Digest {
        bytes: image.size.unwrap_or(-1),
        hash_algo: image.os_hash_algo.clone(),
        hash_value: image.os_hash_value.clone(),
        by: "image-service".into(),
        at: Some(d.now()),
        ..Default::default()
    };
    let equal = backup.hash_value.is_some()
        && (backup.bytes, &backup.hash_algo, &backup.hash_value)
            == (read.bytes, &read.hash_algo, &read.hash_value);
    if equal {
        d.note(format!("disk {n}: read back with the source's digest"));
        d.status.disks[i].readback = Some(read);
        d.recheck = Some(AT_ONCE);
    } else {
        let text = format!(
            "disk {n}: volume {} was read back with another digest than the source's",
            d.status.disks[i].import.volume_id.clone().unwrap_or_default()
        );
        d.fail("DigestMismatch", text);
    }
}
