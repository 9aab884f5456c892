//! In the destination cloud: the volume, its attributes, and the proof by reading it back.

use super::{AT_ONCE, Draft, MAKING, SAVING, Stage, usable};
use crate::{
    crd::v1alpha1::*,
    migration::{
        names::{Role, Side},
        observed::{DestinationView, find},
        step::{ObjectKind, Step},
    },
    openstack::Image,
};

/// In the destination: the volume, its attributes, and the proof by reading it back.
pub(super) fn prove(d: &mut Draft<'_>, i: usize, view: &DestinationView) -> Stage {
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
        d.step(Step::CreateVolume { disk: n, image_id: Some(import.id.clone()) });
        return Some(format!("Making volume {n} in {cloud}"));
    };
    d.status.disks[i].import.volume_id = Some(volume.id.clone());
    let what = format!("{cloud}: volume {} of disk {n}", volume.id);
    if volume.status != "uploading"
        && let Err(waiting) = usable(d, i, &what, (&volume.status, "available"), &MAKING, &volume.created_at)
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
            attempt: 1,
            volume_id: volume.id.clone(),
        });
        return Some(format!("Reading back volume {} in {cloud}", volume.id));
    };
    d.status.disks[i].import.readback_image_id = Some(image.id.clone());
    let what = format!("{cloud}: read-back of disk {n}, image {}", image.id);
    if let Err(waiting) = usable(d, i, &what, (&image.status, "active"), &SAVING, &image.created_at) {
        return Some(waiting);
    }
    let what = format!("{cloud}: volume {} of disk {n}, after it was read back", volume.id);
    if let Err(waiting) = usable(d, i, &what, (&volume.status, "available"), &["uploading"], "") {
        return Some(waiting);
    }
    compare(d, i, n, image);
    Some(format!("Disk {n} was read back"))
}

fn compare(d: &mut Draft<'_>, i: usize, n: i32, image: &Image) {
    let read = Digest {
        bytes: image.size.unwrap_or(-1),
        hash_algo: image.os_hash_algo.clone(),
        hash_value: image.os_hash_value.clone(),
        by: "image-service".into(),
        at: Some(d.now()),
        ..Default::default()
    };
    let mut disk = d.status.disks[i].clone();
    disk.readback = Some(read.clone());
    if disk.proven() {
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
