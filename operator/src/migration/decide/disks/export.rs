//! In the source cloud: from a disk to its bytes in the repository.

use super::{
    AT_ONCE, Draft, SAVING, asked::Asked, available, bandwidth, copy_failed, digest, number, refused,
    repository, transfer_seconds, usable, volume_device, volume_export, with_progress,
};
use crate::{
    cloud::{Image, Snapshot, Volume},
    contract::{Backup, BackupResult, Task},
    crd::v1alpha1::*,
    migration::{
        decide::{
            jobs::{Progress, Wanted},
            next::Stop,
            warm,
        },
        names::{Role, Side, Tagged},
        observed::{SourceView, find, find_attempt},
        step::Step,
    },
};

/// In the source: until the disk's bytes are in the repository.
pub(in crate::migration::decide) fn export(d: &mut Draft<'_>, i: usize, view: &SourceView) -> Stop {
    if volume_device::travels(d, i, Side::Source) {
        return volume_export::export(d, i, view);
    }
    let image = match export_image(d, i, view) {
        Ok(image) => image,
        Err(stop) => return stop,
    };
    let n = d.status.disks[i].index;
    if !image.tags.contains(&d.input.me.tag()) && d.status.disks[i].kind == DiskKind::Volume {
        d.step(Step::TagImage { side: Side::Source, image_id: image.id.clone() });
    }
    d.status.disks[i].export.image_id = Some(image.id.clone());
    backup(d, i, n, &image)
}

/// The image that the backup reads; or what it waits for.
fn export_image(d: &mut Draft<'_>, i: usize, view: &SourceView) -> Result<Image, Stop> {
    let (n, attempt) = (d.status.disks[i].index, d.status.disks[i].export.attempt());
    let cloud = d.input.spec.source.cloud.clone();
    let asked = Asked::new(Side::Source, Role::ExportImage, attempt);
    if let Some(image) = find_attempt(&view.images, Role::ExportImage, n, attempt) {
        asked.seen(d, i, &image.id);
        let what = format!("{cloud}: image {} of disk {n}", image.id);
        usable(d, i, &what, (&image.status, "active"), &SAVING, &image.created_at)?;
        return fits(d, i, image).map(|()| image.clone());
    }
    let busy = view.found().and_then(|s| s.task_state.clone());
    if d.status.disks[i].kind == DiskKind::Image {
        let what = format!("{cloud}: the source, before the image of its local root disk is made");
        let task = busy.as_deref().unwrap_or("idle");
        usable(d, i, &what, (task, "idle"), &[task], "")?;
        let what = format!("Making an image of the local root disk in {cloud}");
        asked.may_be_asked_for(d, i, &what)?;
        d.step(Step::CreateServerImage { disk: n });
        return Err(Stop::waiting(what));
    }
    let copy = copy(d, i, view)?;
    let what = format!("{cloud}: temporary volume {} of disk {n}", copy.id);
    available(d, i, &what, &copy)?;
    let what = format!("Uploading temporary volume {} to an image in {cloud}", copy.id);
    asked.made_of(&copy.id).may_be_asked_for(d, i, &what)?;
    d.step(Step::UploadVolume {
        side: Side::Source,
        role: Role::ExportImage,
        disk: n,
        attempt,
        volume_id: copy.id.clone(),
    });
    Err(Stop::waiting(what))
}

/// An encrypted volume is uploaded as it lies on the storage: longer than the volume, and of no use in another cloud.
fn fits(d: &mut Draft<'_>, i: usize, image: &Image) -> Result<(), Stop> {
    let (disk, bytes) = (&d.status.disks[i], image.size.unwrap_or(0));
    if disk.kind == DiskKind::Image || bytes <= disk.size_gib << 30 {
        return Ok(());
    }
    let text = format!(
        "{}: image {} of disk {} has {bytes} bytes, more than the volume's {} GiB, as if that were encrypted, which is \
         not carried: retype it to an unencrypted type",
        d.input.spec.source.cloud, image.id, disk.index, disk.size_gib
    );
    Err(Stop::unrecoverable(text))
}

/// The temporary volume, as it was asked for; or what it waits for.
pub(super) fn copy(d: &mut Draft<'_>, i: usize, view: &SourceView) -> Result<Volume, Stop> {
    let (n, attempt) = (d.status.disks[i].index, d.status.disks[i].export.attempt());
    let cloud = d.input.spec.source.cloud.clone();
    let busy = view.found().and_then(|s| s.task_state.clone());
    let volume_id = d.status.disks[i].source_volume_id.clone().unwrap_or_default();
    let Some(snapshot) = fresh_snapshot(d, view, n, attempt) else {
        // While a server's image is made Nova refuses the snapshots that file backends ask it for.
        let made = d.phase() == Phase::Transferring;
        let image = d.status.disks.iter().find(|k| made && k.kind == DiskKind::Image).map(|k| k.index);
        if image.is_some_and(|k| find(&view.images, Role::ExportImage, k).is_none()) || busy.is_some() {
            let text = format!("The snapshot of volume {volume_id} follows the image of the root disk");
            return Err(Stop::waiting(text));
        }
        let what = format!("Taking a snapshot of volume {volume_id} in {cloud}");
        Asked::new(Side::Source, Role::Snapshot, attempt)
            .made_of(&volume_id)
            .may_be_asked_for(d, i, &what)?;
        d.step(Step::CreateSnapshot { disk: n, attempt, volume_id: volume_id.clone() });
        return Err(Stop::waiting(what));
    };
    Asked::new(Side::Source, Role::Snapshot, attempt).seen(d, i, &snapshot.id);
    d.status.disks[i].export.snapshot_id = Some(snapshot.id.clone());
    let what = format!("{cloud}: snapshot {} of volume {volume_id}", snapshot.id);
    usable(d, i, &what, (&snapshot.status, "available"), &["creating"], &snapshot.created_at)?;
    let asked = Asked::new(Side::Source, Role::ExportVolume, attempt);
    let Some(copy) = find_attempt(&view.volumes, Role::ExportVolume, n, attempt) else {
        let what = format!("Making a temporary volume from snapshot {} in {cloud}", snapshot.id);
        asked.may_be_asked_for(d, i, &what)?;
        d.step(Step::CreateExportVolume { disk: n, attempt, snapshot_id: snapshot.id.clone() });
        return Err(Stop::waiting(what));
    };
    asked.seen(d, i, &copy.id);
    d.status.disks[i].export.volume_id = Some(copy.id.clone());
    Ok(copy.clone())
}

/// The snapshot of this try: one of an earlier try that had to stay holds what the disk was then.
fn fresh_snapshot<'v>(d: &Draft<'_>, view: &'v SourceView, index: i32, attempt: i32) -> Option<&'v Snapshot> {
    let stale = d.status.kept.as_ref().map(|k| k.snapshot_ids.as_slice()).unwrap_or_default();
    let wanted = Tagged { role: Role::Snapshot, index, attempt };
    let fits = |t: &Tagged, s: &Snapshot| *t == wanted && !stale.contains(&s.id);
    view.snapshots.iter().find(|(t, s)| fits(t, s)).map(|(_, s)| s)
}

/// The backup of a disk, but for what it reads: what a pass builds on, and what the next one needs of it.
pub(super) fn task(d: &Draft<'_>, i: usize) -> Backup {
    let disk = &d.status.disks[i];
    let base = disk.base();
    Backup {
        repository: repository(d),
        migration_uid: d.input.me.uid.clone(),
        disk: number(disk.index),
        // What it guards against, a bad blob out of bad memory, the digests find while the source still exists.
        no_extra_verify: true,
        pass: base.map(|_| number(disk.pass)),
        base_manifest: base.map(|base| base.snapshot_id.clone()),
        keep_digests: warm::is_warm(d.input.spec) && disk.kind == DiskKind::Volume,
        transfer: bandwidth(d),
        ..Default::default()
    }
}

fn backup(d: &mut Draft<'_>, i: usize, n: i32, image: &Image) -> Stop {
    let purpose = format!("backup-{n}");
    let wanted = Wanted {
        side: Side::Source,
        purpose,
        task: Task::Backup(Backup {
            image: Some(image.id.clone()),
            images: refused::checks_of(d, i, image),
            ..task(d, i)
        }),
        credentials: true,
        deadline_seconds: transfer_seconds(d, image.size.unwrap_or(0)),
        attempts: d.input.limits.job_attempts,
    };
    let progress = d.job(wanted);
    let size = image.size;
    // An image service need not have a hash, as when Ceph makes a server's image: ours is enough.
    backed_up(d, i, progress, |read| read.sha256.is_some() && Some(read.bytes) == size)
}

/// How far the backup's Job is; its digest is recorded when it is one.
pub(super) fn backed_up(
    d: &mut Draft<'_>,
    i: usize,
    progress: Progress,
    complete: impl Fn(&Digest) -> bool,
) -> Stop {
    let n = d.status.disks[i].index;
    match progress {
        Progress::Succeeded(result) => {
            let digest = digest(&result, d.now());
            if digest.snapshot_id.is_none() || !complete(&digest) {
                let text = format!("the backup of disk {n} gave no usable result: {result}");
                return Stop::unrecoverable(text);
            }
            d.recheck = Some(AT_ONCE);
            let told = result.read::<BackupResult>().ok();
            if let Some(objection) = told.and_then(|told| told.objection) {
                d.note(format!(
                    "disk {n} may not be taken as an image, for what it begins with: {objection}"
                ));
            }
            if !warm::record(d, i, &digest, &result) {
                d.note(format!("disk {n}: {} bytes are in the repository", digest.bytes));
                d.status.disks[i].backup = Some(digest);
                d.status.disks[i].progress = None;
            }
            Stop::waiting(format!("Disk {n} is in the repository"))
        }
        Progress::Running(why) => {
            Stop::waiting(format!("Backing up disk {n}: {}", with_progress(d, i, &why)))
        }
        Progress::Again => Stop::waiting(format!("Backing up disk {n} again")),
        Progress::Failed(why) => copy_failed(d, Some(i), Side::Source, &format!("backup-{n}"), why),
    }
}
