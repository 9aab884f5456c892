//! A disk that a cloud does not take as an image, for what it begins with: which clouds that concerns, and the ways out.

use super::{Draft, volume_device};
use crate::{
    cloud::Image,
    contract::ImageChecks,
    crd::v1alpha1::DiskKind,
    migration::{block_storage::pinned, image_checks, names::Side},
};

/// What block storage tells of an upload that did not come to its end, whatever ended it.
const UPLOAD_FAILED: &str = "Failed to upload volume to image";

/// What a backup is told of the image service that the disk enters, if it enters one.
pub(super) fn checks(d: &Draft<'_>, i: usize) -> Option<ImageChecks> {
    let judges = pinned(&d.status, Side::Destination).and_then(|t| t.judges_images);
    let enters = !volume_device::travels(d, i, Side::Destination);
    enters.then(|| image_checks::checks(judges))
}

/// The same for a disk that is an image already: what is no raw disk there is none in the destination either.
pub(super) fn checks_of(d: &Draft<'_>, i: usize, image: &Image) -> Option<ImageChecks> {
    let raw = image.disk_format.as_deref().is_none_or(|format| format == "raw");
    checks(d, i).filter(|_| raw)
}

/// What can be done.
pub(super) fn ways_out(d: &Draft<'_>, side: Side, kind: DiskKind) -> String {
    let cloud = d.cloud(side);
    let volume = match kind {
        DiskKind::Volume => {
            format!("transfer.mode Volume of OpenStackCloud {cloud}, where no image is made; or ")
        }
        DiskKind::Image => String::new(),
    };
    format!(
        "Ways out: {volume}the cloud's operator allows it in Glance, and you say so there with transfer.takesAnyDisk; or \
         the disk begins with something else (docs/clouds.md)"
    )
}

/// An upload of a volume came to nothing, with these words. Where the image service judges what images hold, that is what
/// they mean, and another one would copy the whole disk again for the same answer.
pub(super) fn upload(d: &Draft<'_>, side: Side, why: &str) -> Option<String> {
    let judges = pinned(&d.status, side)?.judges_images?;
    (judges && why.contains(UPLOAD_FAILED)).then(|| {
        format!(
            "{why}. The image service of {} judges what raw images hold, and refuses disks for what they begin with. {}",
            d.cloud(side),
            ways_out(d, side, DiskKind::Volume)
        )
    })
}

/// The same where it is not known that it judges.
pub(super) fn hint(d: &Draft<'_>, side: Side, why: &str) -> String {
    let unknown = pinned(&d.status, side).is_some_and(|t| t.judges_images.is_none());
    if !unknown || !why.contains(UPLOAD_FAILED) {
        return String::new();
    }
    format!(
        "; an image service of 2025.1 or later refuses disks for what they begin with. {}",
        ways_out(d, side, DiskKind::Volume)
    )
}
