//! A finished volume in the destination: it gets what the source's volume has, and keeps nothing of the image of ours that
//! it was made of.

use super::execute::{Done, lasting};
use crate::{
    crd::v1alpha1::DiskAttributes,
    migration::{bodies, step::Effect},
    openstack::Cloud,
};
use serde_json::json;

/// Name, bootable flag and image metadata.
pub async fn volume(cloud: &Cloud, wanted: &DiskAttributes, id: &str) -> Done {
    let volume = cloud.get_volume(id).await?.ok_or_else(|| lasting(format!("volume {id} is gone")))?;
    if volume.name != wanted.name {
        cloud.update_volume(id, &json!({"volume": {"name": wanted.name}})).await?;
    }
    if volume.bootable != wanted.bootable {
        cloud.set_bootable(id, wanted.bootable).await?;
    }
    for key in volume.volume_image_metadata.keys().filter(|key| bodies::tells_of_our_image(key)) {
        cloud.unset_volume_image_metadata(id, key).await?;
    }
    let metadata = bodies::image_metadata(wanted);
    if !metadata.is_empty() {
        cloud.set_volume_image_metadata(id, &metadata).await?;
    }
    Ok(Effect::Done)
}
