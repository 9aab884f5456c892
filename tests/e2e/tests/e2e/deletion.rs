//! Deletion in the middle: A is given back as it was, B is empty, and nothing goes that is not ours. While it waits for
//! the go: `blocked`; after success: `claims`.

use crate::moves::written;
use anyhow::{Result, ensure};
use e2e::{Disks, Lab, Migration, Stays, shared};
use serde_json::json;
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

/// A copy is under way.
async fn copying(migration: &Migration) -> Result<()> {
    let moving = |s: &VmMigrationStatus| {
        s.disks.iter().any(|d| d.progress.as_ref().is_some_and(|p| p.bytes > 0)).then_some(())
    };
    migration.wait("copying", 300, moving).await
}

#[test]
fn never_1_source_disks_are_touched_and_never_7_something_without_our_mark_is_deleted() -> Result<()> {
    shared("never_1", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT_AND_DATA).await?;
        let page = written(&made, &["/data"]).await?;
        let before = lab.a.server(&made.id).await?;
        let volumes = lab.a.volumes(&before).await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).create().await?;
        let uid = migration.uid().await?;
        let decoys = Decoys::make(&lab, &uid).await?;
        migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        migration.go().await?;
        copying(&migration).await?;
        migration.delete().await?;
        // A is given back first, before everything is cleaned up.
        lab.a.wait_server(&made.id, "ACTIVE").await?;
        migration.wait_gone(180).await?;
        lab.a.runs_as_before(&made).await?;
        ensure!(made.guest()?.page(&["/data"]).await? == page, "A does not serve as before");
        let after = lab.a.volumes(&before).await?;
        ensure!(after == volumes, "A's volumes were {volumes:?}, are {after:?}");
        let missing = decoys.missing(&lab).await;
        decoys.remove(&lab).await?;
        let missing = missing?;
        ensure!(missing.is_empty(), "deleted although not ours: {missing:?}");
        lab.left_only(&uid, Stays::Nothing).await
    })
}

/// Objects that look like ours and are not: without marks, or with those of another migration.
struct Decoys {
    volume_a: String,
    volume_b: String,
    marked_b: String,
    image_b: String,
    inherited_b: [String; 2],
    port_b: String,
}

const OTHER: &str = "00000000-0000-4000-8000-00000000e2e0";

impl Decoys {
    async fn make(lab: &Rc<Lab>, uid: &str) -> Result<Self> {
        let name = |role: &str| format!("vmm-{uid}-{role}-0");
        let volume_a = lab.a.make_volume(json!({"name": name("export-volume"), "size": 1})).await?;
        let volume_b = lab.b.make_volume(json!({"name": name("volume"), "size": 1})).await?;
        let marks = json!({"vmmigration.io:migration": OTHER, "vmmigration.io:role": "volume",
            "vmmigration.io:index": "0"});
        let marked = json!({"name": lab.name, "size": 1, "metadata": marks});
        let marked_b = lab.b.make_volume(marked).await?;
        let image = json!({"name": format!("vmm-{OTHER}-import-image-0"), "disk_format": "raw",
            "container_format": "bare"});
        let image_b = lab.b.cloud.create_image(&image).await?.id;
        // As clouds hand them on: from our image to a volume and to a user's image, with a backup to a user's volume.
        let inherited = json!({"vmmigration.io:migration": uid, "vmmigration.io:role": "volume"});
        let volume = json!({"name": lab.name, "size": 1, "metadata": inherited});
        let image = json!({"name": lab.name, "disk_format": "raw", "container_format": "bare",
            "vmmigration.io:migration": uid, "vmmigration.io:role": "import-image"});
        let inherited_b = [lab.b.make_volume(volume).await?, lab.b.cloud.create_image(&image).await?.id];
        let network = lab.b.id(&["networks", "provider", "id"])?;
        let port = json!({"name": format!("vmm-{OTHER}-port-0"), "network_id": network});
        let port_b = lab.b.cloud.create_port(&json!({"port": port})).await?.id;
        lab.store()?.put(&format!("{}/decoy", lab.name), "not ours").await?;
        Ok(Decoys { volume_a, volume_b, marked_b, image_b, inherited_b, port_b })
    }

    async fn missing(&self, lab: &Rc<Lab>) -> Result<Vec<&'static str>> {
        let (a, b) = (&lab.a.cloud, &lab.b.cloud);
        let there = [
            ("volume in A", a.get_volume(&self.volume_a).await?.is_some()),
            ("volume in B", b.get_volume(&self.volume_b).await?.is_some()),
            ("another migration's volume", b.get_volume(&self.marked_b).await?.is_some()),
            ("another migration's image", b.get_image(&self.image_b).await?.is_some()),
            ("volume with our marks", b.get_volume(&self.inherited_b[0]).await?.is_some()),
            ("image with our marks", b.get_image(&self.inherited_b[1]).await?.is_some()),
            ("another migration's port", b.get_port(&self.port_b).await?.is_some()),
            ("object in the store", lab.store()?.get(&format!("{}/decoy", lab.name), 64).await.is_ok()),
        ];
        Ok(there.into_iter().filter(|(_, there)| !there).map(|(what, _)| what).collect())
    }

    async fn remove(&self, lab: &Rc<Lab>) -> Result<()> {
        let (a, b) = (&lab.a.cloud, &lab.b.cloud);
        a.delete_volume(&self.volume_a).await?;
        b.delete_volume(&self.volume_b).await?;
        b.delete_volume(&self.marked_b).await?;
        b.delete_image(&self.image_b).await?;
        b.delete_volume(&self.inherited_b[0]).await?;
        b.delete_image(&self.inherited_b[1]).await?;
        b.delete_port(&self.port_b).await?;
        lab.store()?.delete(&format!("{}/decoy", lab.name)).await?;
        let in_b = [&self.volume_b, &self.marked_b, &self.inherited_b[0]].map(|id| (&lab.b, id));
        for (site, id) in [(&lab.a, &self.volume_a)].into_iter().chain(in_b) {
            e2e::until("a decoy's end", 60, || async {
                Ok(site.cloud.get_volume(id).await?.is_none().then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}
