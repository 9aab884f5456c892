//! Disks that travel as block devices: on both sides, on one of them, with movers killed, given up in the middle; and not
//! at all where a tenant names addresses of its own.

use crate::moves::{in_b, serves, written};
use anyhow::{Context, Result, bail, ensure};
use e2e::{Disks, Lab, Stays, shared, until};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use std::rc::Rc;
use vmmigration::{
    crd::v1alpha1::*,
    migration::{
        block_storage::pinned,
        names::{LABEL_MIGRATION, Side},
    },
};

/// Asks for a mode in each of the two clouds.
pub async fn modes(lab: &Lab, a: &str, b: &str) -> Result<()> {
    modes_in(lab, &lab.name, a, b).await
}

async fn modes_in(lab: &Lab, namespace: &str, a: &str, b: &str) -> Result<()> {
    let clouds = lab.api::<OpenStackCloud>(namespace);
    for (cloud, mode) in [("site-a", a), ("site-b", b)] {
        let asked = json!({"spec": {"transfer": {"mode": mode}}});
        clouds.patch(cloud, &PatchParams::default(), &Patch::Merge(asked)).await?;
    }
    Ok(())
}

/// The modes that a migration took.
pub fn taken(status: &VmMigrationStatus) -> (String, String) {
    let mode = |t: Option<&ResolvedTransfer>| t.map(|t| t.mode.clone()).unwrap_or_default();
    (mode(pinned(status, Side::Source)), mode(pinned(status, Side::Destination)))
}

/// Names of PersistentVolumes of a migration in both clusters.
pub async fn devices(lab: &Rc<Lab>, uid: &str) -> Result<Vec<String>> {
    let ours = ListParams::default().labels(&format!("{LABEL_MIGRATION}={uid}"));
    let mut found = vec![];
    for client in [&lab.kube, &lab.kube_b] {
        let all = Api::<PersistentVolume>::all(client.clone()).list(&ours).await?;
        found.extend(all.items.iter().map(ResourceExt::name_any));
    }
    Ok(found)
}

#[test]
fn as_block_devices_on_both_sides_with_movers_killed() -> Result<()> {
    shared("devices", |lab| async move {
        modes(&lab, "Volume", "Volume").await?;
        let made = lab.a.make_server(&lab.name, Disks { root_volume: true, data: 1 }).await?;
        let page = written(&made, &["/data"]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).checked()?.create().await?;
        for (job, client) in [("backup-0", &lab.kube), ("restore-1", &lab.kube_b)] {
            let runs = |s: &VmMigrationStatus| {
                let job = s.jobs.iter().find(|j| j.name == job)?;
                (job.state == "Running").then_some(())
            };
            migration.wait(&format!("in the middle of {job}"), 400, runs).await?;
            migration.kill_mover(client, job).await?;
        }
        let object = migration.wait_succeeded().await?;
        let status = object.status.clone().context("no status")?;
        ensure!(taken(&status) == ("Volume".into(), "Volume".into()), "it took {:?}", taken(&status));
        let images = status.disks.iter().filter(|d| d.export.image_id.is_some()).count();
        ensure!(images == 0, "{images} disks went through an image");
        let left = devices(&lab, &migration.uid().await?).await?;
        ensure!(left.is_empty(), "PersistentVolumes are left: {left:?}");
        let server = in_b(&lab, &object).await?;
        let volumes = lab.b.volumes(&server).await?;
        ensure!(volumes.iter().all(|v| v.status == "in-use"), "volumes in B: {volumes:?}");
        serves(&server, &["/data"], &page).await
    })
}

/// The whole namespace goes while both clusters have the volumes.
#[test]
fn namespace_deleted_while_clusters_have_the_volumes() -> Result<()> {
    shared("devices_deleted", |lab| async move {
        let namespace = format!("{}-gone", lab.name);
        lab.prepare(&namespace).await?;
        modes_in(&lab, &namespace, "Volume", "Volume").await?;
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).in_namespace(&namespace).create().await?;
        let uid = migration.uid().await?;
        let restoring = |s: &VmMigrationStatus| s.jobs.iter().any(|j| j.name == "restore-0").then_some(());
        migration.wait("restoring", 400, restoring).await?;
        until("both clusters to have a volume", 60, || async {
            Ok((devices(&lab, &uid).await?.len() == 2).then_some(()))
        })
        .await?;
        let namespaces: Api<Namespace> = Api::all(lab.kube.clone());
        namespaces.delete(&namespace, &DeleteParams::default()).await?;
        until("the namespace to be gone", 300, || async {
            Ok(namespaces.get_opt(&namespace).await?.is_none().then_some(()))
        })
        .await?;
        lab.a.runs_as_before(&made).await?;
        let left = (lab.leftovers(&uid, Stays::Nothing).await?, devices(&lab, &uid).await?);
        ensure!(left.0.is_empty() && left.1.is_empty(), "left behind: {left:?}");
        ensure!(made.guest()?.page(&[]).await? == page, "A does not serve as before");
        Ok(())
    })
}

#[test]
fn a_tenants_own_address_for_volumes_gets_no_block_devices() -> Result<()> {
    shared("own_address", |lab| async move {
        modes(&lab, "Auto", "Auto").await?;
        resolved(&lab, "site-b", "Volume", "Ready node").await?;
        // It leads to the same Cinder; but the tenant says so, not the cloud.
        let auth_url = lab.b.entry["auth"]["auth_url"].as_str().context("no auth_url")?;
        let address = auth_url.replace(":5000/v3", &format!(":8776/v3/{}", lab.b.cloud.project_id()));
        let mut played = lab.b.clone();
        played.entry["volume_endpoint_override"] = json!(address);
        lab.secret(&lab.name, "own-address", &lab.cloud_secret(&played)?).await?;
        let other = json!({"spec": {"credentialsRef": {"secretName": "own-address"}}});
        let clouds = lab.api::<OpenStackCloud>(&lab.name);
        clouds.patch("site-b", &PatchParams::default(), &Patch::Merge(other)).await?;
        resolved(&lab, "site-b", "Image", "block_storage_endpoint_override").await
    })
}

/// Waits for the mode that an `OpenStackCloud` resolves to, with this in its reason.
async fn resolved(lab: &Lab, cloud: &str, mode: &str, reason: &str) -> Result<()> {
    let clouds = lab.api::<OpenStackCloud>(&lab.name);
    until(&format!("{mode} of {cloud}, for {reason}"), 90, || async {
        let found = clouds.get(cloud).await?.status.and_then(|status| status.transfer).unwrap_or_default();
        let as_wanted = found.mode == mode && found.reason.contains(reason);
        if as_wanted { Ok(Some(())) } else { bail!("{found:?}") }
    })
    .await
}
