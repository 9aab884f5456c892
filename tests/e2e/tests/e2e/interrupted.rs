//! What a restore needs is gone; and what tests look at while movers copy.

use crate::{
    moves::written,
    rollback::{backed_up, rolled_back, tried_again},
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, Migration, Stays, labelled, shared, until};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Api, api::ListParams};
use serde_json::json;
use std::rc::Rc;
use vmmigration::{
    crd::v1alpha1::*,
    migration::names::{LABEL_MIGRATION, LABEL_PURPOSE, MARK_MIGRATION, MARK_ROLE},
};

/// Waits until the Job `purpose` has copied some bytes, and gives its pod.
pub async fn mover(lab: &Rc<Lab>, migration: &Migration, purpose: &str) -> Result<Pod> {
    let uid = migration.uid().await?;
    let client = if purpose.starts_with("backup") { &lab.kube } else { &lab.kube_b };
    let selector = format!("vmmigration.io/migration={uid},vmmigration.io/purpose={purpose}");
    until(&format!("{purpose} to copy"), 300, || async {
        let pods = labelled(client, e2e::MOVERS, &selector).await?;
        let runs = |p: &&Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        let Some(pod) = pods.iter().find(runs) else { return Ok(None) };
        let name = pod.metadata.name.clone().unwrap_or_default();
        let log = e2e::log(client, e2e::MOVERS, &name, Some(5)).await?;
        Ok(log.contains("\"bytes\"").then(|| pod.clone()))
    })
    .await
}

/// How many objects of each kind a migration has in B: servers, volumes, ports.
pub async fn counted(lab: &Rc<Lab>, uid: &str) -> Result<(usize, usize, usize)> {
    let b = &lab.b.cloud;
    let (servers, volumes) = futures::try_join!(b.list_servers(), b.list_volumes())?;
    let ports = b.list_ports().await?;
    let ours =
        |m: &std::collections::BTreeMap<String, String>| m.get(MARK_MIGRATION).is_some_and(|u| u == uid);
    Ok((
        servers.iter().filter(|s| ours(&s.metadata)).count(),
        volumes
            .iter()
            .filter(|v| ours(&v.metadata) && v.metadata.get(MARK_ROLE).is_some_and(|r| r == "volume"))
            .count(),
        ports.iter().filter(|p| p.tags.iter().any(|t| t.contains(uid))).count(),
    ))
}

#[test]
#[ignore = "long"]
fn never_4_nothing_or_another_snapshot_is_restored() -> Result<()> {
    shared("never_4", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        // What was read of a stopped server counts in another try, whose restore begins with it.
        lab.a.cloud.stop_server(&made.id).await?;
        lab.a.wait_server(&made.id, "SHUTOFF").await?;
        let mut migration = lab.migration(&made.name, CutoverMode::Now);
        migration.spec.on_failure = Some(serde_json::from_value(json!({"keepData": "1h"}))?);
        let migration = migration.create().await?;
        migration.wait("in the repository", 400, backed_up).await?;
        migration.patch(json!({"requests": {"rollback": "1"}})).await?;
        let (uid, kept) = (migration.uid().await?, rolled_back(&migration).await?);
        let backup = kept.disks.first().and_then(|d| d.backup.clone()).context("no backup is kept")?;
        let snapshot = backup.snapshot_id.context("no snapshot is recorded")?;
        // Between the tries it goes: there is nothing to restore.
        let store = lab.store()?;
        let keys = store.list_all("").await?;
        let gone: Vec<String> =
            keys.into_iter().filter(|k| k.ends_with(&format!("/snapshots/{snapshot}"))).collect();
        ensure!(gone.len() == 1, "the snapshot {snapshot} is at {gone:?}");
        store.delete_many(&gone).await?;
        tried_again(&migration).await?;
        let arguments = restore_arguments(&lab, &migration, &snapshot).await?;
        ensure!(snapshot.len() == 64 && !arguments.iter().any(|a| a == "latest"), "{arguments:?}");
        until("its failure to restore", 400, || async {
            let status = migration.status().await?;
            Ok(status.failure.filter(|f| f.message.contains("restore-0")))
        })
        .await?;
        lab.a.wait_given_back(&made, "SHUTOFF", 180).await?;
        // This storage removes a snapshot of a server's volume only while that runs.
        lab.a.cloud.start_server(&made.id).await?;
        lab.a.wait_server(&made.id, "ACTIVE").await?;
        migration.delete().await?;
        migration.wait_gone(300).await?;
        lab.left_only(&uid, Stays::Nothing).await?;
        let guest = made.guest()?;
        guest.wait(&[]).await?;
        ensure!(guest.page(&[]).await? == page, "A does not serve as before");
        Ok(())
    })
}

/// The arguments of the restore that is told to read this snapshot.
async fn restore_arguments(lab: &Rc<Lab>, migration: &Migration, snapshot: &str) -> Result<Vec<String>> {
    let jobs: Api<Job> = Api::namespaced(lab.kube_b.clone(), e2e::MOVERS);
    let selector = format!("{LABEL_MIGRATION}={},{LABEL_PURPOSE}=restore-0", migration.uid().await?);
    until("the restore's Job", 180, || async {
        let all = jobs.list(&ListParams::default().labels(&selector)).await?;
        let pods = all.items.into_iter().filter_map(|j| j.spec?.template.spec);
        let mut arguments = pods.filter_map(|p| p.containers.into_iter().next()?.args);
        Ok(arguments.find(|a| a.windows(2).any(|w| w[0] == "--snapshot" && w[1] == snapshot)))
    })
    .await
}
