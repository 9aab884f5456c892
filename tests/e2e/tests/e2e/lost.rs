//! Images that are taken away amid their upload, in either cloud; and what stays of images in a finished volume: nothing.

use crate::moves::{in_b, serves, written};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, Site, shared, until};
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

#[test]
#[ignore = "long"]
fn an_image_that_vanishes_amid_its_upload_is_made_again() -> Result<()> {
    shared("lost_images", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
        let uid = migration.uid().await?;
        vanish(&lab.a, &format!("vmm-{uid}-export-image-0")).await?;
        vanish(&lab.b, &format!("vmm-{uid}-readback-image-0")).await?;
        let object = migration.wait_succeeded().await?;
        let timeline = object.status.clone().unwrap_or_default().timeline;
        for role in ["export-image", "readback-image"] {
            let told =
                |row: &TimelineRow| row.message.contains(role) && row.message.contains("is gone (1 of 3)");
            ensure!(timeline.iter().any(told), "{role} is not in {timeline:#?}");
        }
        nothing_of_an_image(&lab, &object).await?;
        serves(&in_b(&lab, &object).await?, &[], &page).await
    })
}

/// Deletes an image while it is uploaded, as soon as it is there.
async fn vanish(site: &Site, name: &str) -> Result<()> {
    until(&format!("image {name} amid its upload"), 400, || async {
        let images = site.cloud.list_images().await?;
        let Some(image) = images.iter().find(|i| i.name == name) else { return Ok(None) };
        ensure!(image.status != "active", "{name} was done before it could be deleted");
        Ok(Some(site.cloud.delete_image(&image.id).await?))
    })
    .await
}

/// The new volumes have their own names, and tell of no image of ours.
async fn nothing_of_an_image(lab: &Rc<Lab>, object: &VmMigration) -> Result<()> {
    for disk in object.status.clone().unwrap_or_default().disks {
        let id = disk.import.volume_id.context("no volume is recorded")?;
        let volume = lab.b.cloud.get_volume(&id).await?.context("the volume is gone")?;
        let name = disk.attributes.unwrap_or_default().name;
        ensure!(volume.name == name, "it is called {:?}, not {name:?}", volume.name);
        let of_ours =
            |key: &&String| ["image_id", "image_name"].contains(&key.as_str()) || key.contains("vmmigration");
        let left: Vec<_> = volume.volume_image_metadata.keys().filter(of_ours).collect();
        ensure!(left.is_empty(), "volume {id} still has {left:?}");
    }
    Ok(())
}
