//! In the destination cloud: the volume, its attributes, and the proof by reading it back.

use super::{AT_ONCE, Draft, SAVING, asked::Asked, available, dress, usable};
use crate::{
    crd::v1alpha1::*,
    migration::{
        decide::{
            deletions,
            next::{Stop, VERIFICATION_FAILED},
        },
        names::{Role, Side},
        observed::{DestinationView, find},
        step::{ObjectKind, Step},
    },
};

/// In the destination: the volume, its attributes, and the proof by reading it back.
pub(super) fn prove(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> Result<(), Stop> {
    let n = d.status.disks[i].index;
    let cloud = d.input.spec.destination.cloud.clone();
    let import = find(&view.images, Role::ImportImage, n);
    let readback = find(&view.images, Role::ReadbackImage, n);
    if d.status.disks[i].readback.is_some() {
        for image in [import, readback].into_iter().flatten() {
            deletions::ask_once(d, Side::Destination, ObjectKind::Image, &image.id);
        }
        return Ok(());
    }
    let asked = Asked::new(Side::Destination, Role::Volume, 1);
    let Some(volume) = find(&view.volumes, Role::Volume, n) else {
        let Some(import) = import else {
            return Err(Stop::unrecoverable(format!("{cloud}: the image of disk {n} is gone")));
        };
        let what = format!("Making volume {n} in {cloud}");
        asked.may_be_asked_for(d, i, &what)?;
        d.step(Step::CreateVolume { disk: n, image_id: Some(import.id.clone()) });
        return Err(Stop::waiting(what));
    };
    asked.seen(d, i, &volume.id);
    d.status.disks[i].import.volume_id = Some(volume.id.clone());
    let what = format!("{cloud}: volume {} of disk {n}", volume.id);
    if volume.encrypted {
        return Err(Stop::unrecoverable(encrypted(&what)));
    }
    let reads_back = volume.status == "uploading" && readback.is_some();
    if !reads_back {
        available(d, i, &what, volume)?;
    }
    dress(d, i, volume)?;
    let asked = Asked::new(Side::Destination, Role::ReadbackImage, 1).made_of(&volume.id);
    let Some(image) = readback else {
        let what = format!("Reading back volume {} in {cloud}", volume.id);
        asked.may_be_asked_for(d, i, &what)?;
        d.step(Step::UploadVolume {
            side: Side::Destination,
            role: Role::ReadbackImage,
            disk: n,
            attempt: 1,
            volume_id: volume.id.clone(),
        });
        return Err(Stop::waiting(what));
    };
    asked.seen(d, i, &image.id);
    d.status.disks[i].import.readback_image_id = Some(image.id.clone());
    let what = format!("{cloud}: read-back of disk {n}, image {}", image.id);
    usable(d, i, &what, (&image.status, "active"), &SAVING, &image.created_at)?;
    let what = format!("{cloud}: volume {} of disk {n}, after it was read back", volume.id);
    usable(d, i, &what, (&volume.status, "available"), &["uploading"], "")?;
    let read = Digest {
        bytes: image.size.unwrap_or(-1),
        hash_algo: image.os_hash_algo.clone(),
        hash_value: image.os_hash_value.clone(),
        by: "image-service".into(),
        at: Some(d.now()),
        ..Default::default()
    };
    read_back(d, i, read)?;
    Err(Stop::waiting(format!("Disk {n} was read back")))
}

/// What such a volume uploads is longer than the disk, and none of its bytes.
fn encrypted(what: &str) -> String {
    format!(
        "{what} is encrypted by its volume type: read back as an image it cannot be compared. Map the type to one \
         without encryption (spec.destination.volumeTypes), or let disks travel as block devices (transfer.mode Volume \
         of the OpenStackCloud)"
    )
}

/// The disk was read back in the destination: it is proven, which is recorded here and nowhere else, or the migration
/// has failed.
pub(super) fn read_back(d: &mut Draft<'_>, i: usize, read: Digest) -> Result<(), Stop> {
    let disk = DiskStatus { readback: Some(read.clone()), ..d.status.disks[i].clone() };
    let (n, cloud) = (disk.index, d.input.spec.destination.cloud.clone());
    match disk.verdict() {
        Verdict::Proven(proof) => {
            d.note(format!("disk {n} is proven in {cloud}: {proof}"));
            d.status.disks[i] = DiskStatus { proof: Some(proof), ..disk };
            d.recheck = Some(AT_ONCE);
            Ok(())
        }
        Verdict::Differs(what) => {
            let text = format!("disk {n}: {cloud} does not have what was read: {what}");
            Err(Stop::failed("DigestMismatch", text))
        }
        Verdict::Open => Err(Stop::failed(
            VERIFICATION_FAILED,
            format!(
                "disk {n}: {cloud} read it back as {read}, which no digest of what was read and written can be \
                 compared with; its image service must hash by sha512 or sha256, or its disks travel as block \
                 devices (transfer.mode Volume of the OpenStackCloud)"
            ),
        )),
    }
}
