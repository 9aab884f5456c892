//! Movers get in the way: killed pods, a check that does not pass.

use crate::moves::{in_b, written};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Guest, Lab, Migration, Stays, condition, labelled, shared, until};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::Api;
use serde_json::json;
use std::rc::Rc;
use vmmigration::{
    crd::v1alpha1::*,
    migration::names::{MARK_MIGRATION, MARK_ROLE},
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
fn never_4_nothing_or_another_snapshot_is_restored() -> Result<()> {
    shared("never_4", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
        let backed_up = |s: &VmMigrationStatus| s.disks.first()?.backup.clone()?.snapshot_id;
        let snapshot = migration.wait("in the repository", 400, backed_up).await?;
        // The snapshot goes before anybody reads it: there is nothing to restore.
        let store = lab.store()?;
        let keys = store.list_all("").await?;
        let gone: Vec<String> =
            keys.into_iter().filter(|k| k.ends_with(&format!("/snapshots/{snapshot}"))).collect();
        ensure!(gone.len() == 1, "the snapshot {snapshot} is at {gone:?}");
        store.delete_many(&gone).await?;
        let arguments = restore_arguments(&lab, &migration).await?;
        ensure!(snapshot.len() == 64 && arguments.contains(&snapshot), "{snapshot}: {arguments:?}");
        ensure!(!arguments.iter().any(|a| a == "latest"), "{arguments:?}");
        let failure = migration.wait_failed(400).await?.failure.unwrap_or_default();
        ensure!(failure.message.contains("restore-0"), "it does not say what failed: {failure:?}");
        lab.a.runs_as_before(&made).await?;
        ensure!(made.guest()?.page(&[]).await? == page, "A does not serve as before");
        let left = lab.leftovers(&migration.uid().await?, Stays::Nothing).await?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })
}

/// The arguments of the first restore.
async fn restore_arguments(lab: &Rc<Lab>, migration: &Migration) -> Result<Vec<String>> {
    let jobs: Api<Job> = Api::namespaced(lab.kube_b.clone(), e2e::MOVERS);
    let name = format!("vmm-{}-restore-0-1", migration.uid().await?);
    let job = until("the restore's Job", 120, || async { Ok(jobs.get_opt(&name).await?) }).await?;
    let pod = job.spec.and_then(|s| s.template.spec).context("no pod")?;
    Ok(pod.containers[0].args.clone().unwrap_or_default())
}

#[test]
fn never_2_two_copies_run_and_never_8_success_without_all_checks() -> Result<()> {
    shared("never_8", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let page = written(&made, &[]).await?;
        let mut migration = lab.migration(&made.name, CutoverMode::Now);
        let check = json!({"checks": [{"name": "page", "timeoutSeconds": 30,
            "http": {"path": "/root.txt", "contains": "what the page does not hold"}}]});
        migration.spec.verification = Some(serde_json::from_value(check)?);
        let migration = migration.create().await?;
        let status = lab.never_both(&made, migration.wait_failed(600)).await?;
        let failure = status.failure.clone().unwrap_or_default();
        ensure!(failure.reason == "VerificationFailed", "{failure:?}");
        let object = migration.get().await?;
        for (kind, wanted) in [("Succeeded", false), ("DestinationReady", false), ("SourceStopped", false)] {
            ensure!(condition(&object, kind) == Some(wanted), "{kind} is {:?}", condition(&object, kind));
        }
        lab.a.runs_as_before(&made).await?;
        ensure!(made.guest()?.page(&[]).await? == page, "A does not serve as before");
        // B's server was ACTIVE: it may hold new writes, so it is stopped and kept.
        let b = in_b(&lab, &object).await?;
        ensure!(b.status == "SHUTOFF", "B's server is {}", b.status);
        ensure!(
            !Guest::at(&b.addresses.first().context("no address")?.address)?.answers().await,
            "B answers"
        );
        let uid = migration.uid().await?;
        let left = lab.leftovers(&uid, Stays::ServerInB).await?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })
}
