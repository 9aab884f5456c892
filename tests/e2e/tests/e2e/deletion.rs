//! Deletion in every phase: before success A is given back as it was and B is empty, after it both servers stay.

use crate::{
    moves::{in_b, serves, written},
    volume_mode::modes,
};
use anyhow::{Result, ensure};
use e2e::{Disks, Lab, Migration, Stays, shared, until};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::DeleteParams};
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

/// A copy is under way.
async fn copying(migration: &Migration) -> Result<()> {
    let moving = |s: &VmMigrationStatus| {
        s.disks.iter().any(|d| d.progress.as_ref().is_some_and(|p| p.bytes > 0)).then_some(())
    };
    migration.wait("copying", 300, moving).await
}

/// Nothing of a migration is left anywhere.
async fn nothing_left(lab: &Rc<Lab>, uid: &str) -> Result<()> {
    let left = lab.leftovers(uid, Stays::Nothing).await?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

#[test]
fn while_it_awaits_the_go() -> Result<()> {
    shared("deleted_waiting", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let before = lab.a.server(&made.id).await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).create().await?;
        migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        let uid = migration.uid().await?;
        migration.delete().await?;
        migration.wait_gone(90).await?;
        ensure!(lab.a.server(&made.id).await? == before, "A was touched");
        nothing_left(&lab, &uid).await
    })
}

#[test]
fn never_1_source_disks_are_touched_by_a_cancelled_move() -> Result<()> {
    shared("never_1", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT_AND_DATA).await?;
        let page = written(&made, &["/data"]).await?;
        let before = lab.a.server(&made.id).await?;
        let volumes = lab.a.volumes(&before).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
        copying(&migration).await?;
        let uid = migration.uid().await?;
        migration.delete().await?;
        // A is given back first, before everything is cleaned up.
        lab.a.wait_server(&made.id, "ACTIVE").await?;
        migration.wait_gone(180).await?;
        lab.a.runs_as_before(&made).await?;
        ensure!(made.guest()?.page(&["/data"]).await? == page, "A does not serve as before");
        let after = lab.a.volumes(&before).await?;
        ensure!(after == volumes, "A's volumes were {volumes:?}, are {after:?}");
        nothing_left(&lab, &uid).await
    })
}

#[test]
fn namespace_deleted_in_the_middle() -> Result<()> {
    shared("ns_deleted", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        let namespace = format!("{}-gone", lab.name);
        lab.prepare(&namespace).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).in_namespace(&namespace).create().await?;
        copying(&migration).await?;
        let uid = migration.uid().await?;
        let namespaces: Api<Namespace> = Api::all(lab.kube.clone());
        namespaces.delete(&namespace, &DeleteParams::default()).await?;
        until("the namespace to be gone", 240, || async {
            Ok(namespaces.get_opt(&namespace).await?.is_none().then_some(()))
        })
        .await?;
        lab.a.runs_as_before(&made).await?;
        ensure!(made.guest()?.page(&[]).await? == page, "A does not serve as before");
        nothing_left(&lab, &uid).await
    })
}

#[test]
fn after_success_both_servers_stay() -> Result<()> {
    shared("deleted_done", |lab| async move {
        modes(&lab, "Volume", "Volume").await?;
        let made = lab.a.make_server(&lab.name, Disks { root_volume: false, data: 1 }).await?;
        let page = written(&made, &["/data"]).await?;
        let volumes = lab.a.volumes(&lab.a.server(&made.id).await?).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
        // Deleted at once: clean-up may not even have begun.
        migration.wait_phase(Phase::Succeeded, 600).await?;
        let object = migration.get().await?;
        let uid = migration.uid().await?;
        migration.delete().await?;
        migration.wait_gone(180).await?;
        let a = lab.a.server(&made.id).await?;
        ensure!(a.status == "SHUTOFF" && a.locked, "A is {} locked={}", a.status, a.locked);
        ensure!(a.volumes_attached == made.data, "A's volumes: {:?}", a.volumes_attached);
        let after = lab.a.volumes(&a).await?;
        ensure!(after == volumes, "A's volumes were {volumes:?}, are {after:?}");
        serves(&in_b(&lab, &object).await?, &["/data"], &page).await?;
        let left = lab.leftovers(&uid, Stays::Moved).await?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        let reports = lab.api::<VmMigrationReport>(&lab.name).list(&Default::default()).await?;
        ensure!(reports.items.len() == 1, "the report did not outlive the migration");
        Ok(())
    })
}
