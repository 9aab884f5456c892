//! What disturbs everybody: a killed operator, dead and failing APIs, a full quota. One at a time.

use crate::{
    interrupted::{counted, mover},
    moves::{in_b, serves, written},
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, Stays, command, exclusive, fault, kill, labelled, until};
use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job};
use kube::Api;
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

const DEPLOYMENT: &str = "vmmigration-operator";
const TROUBLE: &str = "VMM_TROUBLE_DEADLINE_SECONDS";

/// An unreachable cluster is borne for that long in these tests.
async fn short_deadline(lab: &Rc<Lab>) -> Result<()> {
    let deployment: Deployment = lab.api(e2e::SYSTEM).get(DEPLOYMENT).await?;
    let pod = deployment.spec.and_then(|s| s.template.spec).context("no pod")?;
    let value =
        pod.containers[0].env.iter().flatten().find(|e| e.name == TROUBLE).and_then(|e| e.value.clone());
    if value.and_then(|v| v.parse::<u32>().ok()).is_some_and(|seconds| seconds <= 60) {
        return Ok(());
    }
    let deployment = format!("deployment/{DEPLOYMENT}");
    let base = ["--context", "site-a", "-n", e2e::SYSTEM];
    command("kubectl", &[&base[..], &["set", "env", &deployment, &format!("{TROUBLE}=45")]].concat()).await?;
    command("kubectl", &[&base[..], &["rollout", "status", &deployment, "--timeout=90s"]].concat()).await?;
    Ok(())
}

/// Kills the operator's pod without grace.
async fn kill_operator(lab: &Rc<Lab>) -> Result<()> {
    for pod in labelled(&lab.kube, e2e::SYSTEM, e2e::OPERATOR).await? {
        kill(&lab.kube, &pod).await?;
    }
    Ok(())
}

/// Does `work`, then ends all faults, whatever came of it.
async fn healed<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let outcome = work.await;
    let healed = fault(&["heal"]).await;
    let outcome = outcome?;
    healed?;
    Ok(outcome)
}

#[test]
fn never_5_a_crash_loses_leaks_or_doubles() -> Result<()> {
    exclusive("never_5", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks { root_volume: false, data: 1 }).await?;
        let page = written(&made, &["/data"]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).checked()?.create().await?;
        for phase in [Phase::Stopping, Phase::Transferring, Phase::Creating, Phase::Verifying] {
            migration
                .wait(&format!("in phase {phase} or later"), 300, |s| {
                    let reached = s.timeline.iter().any(|row| row.phase == phase);
                    reached.then_some(())
                })
                .await?;
            kill_operator(&lab).await?;
        }
        let object = migration.wait_succeeded().await?;
        serves(&in_b(&lab, &object).await?, &["/data"], &page).await?;
        let found = counted(&lab, &migration.uid().await?).await?;
        ensure!(found == (1, 1, 1), "servers, volumes, ports in B: {found:?}");
        Ok(())
    })
}

#[test]
fn never_4_a_short_read_or_another_snapshot_is_restored() -> Result<()> {
    exclusive("never_4", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
        mover(&lab, &migration, "backup-0").await?;
        fault(&["cut", "site-a", "glance"]).await?;
        // The restore names the whole snapshot id.
        mover(&lab, &migration, "restore-0").await?;
        let status = migration.status().await?;
        let backup = status.disks[0].backup.clone().unwrap_or_default();
        let snapshot = backup.snapshot_id.context("no snapshot id")?;
        let jobs: Api<Job> = Api::namespaced(lab.kube_b.clone(), e2e::MOVERS);
        let uid = migration.uid().await?;
        let restore = jobs.get(&format!("vmm-{uid}-restore-0-1")).await?;
        let pod = restore.spec.and_then(|s| s.template.spec).context("no pod")?;
        let arguments = pod.containers[0].args.clone().unwrap_or_default();
        ensure!(snapshot.len() == 64 && arguments.contains(&snapshot), "{snapshot}: {arguments:?}");
        ensure!(!arguments.iter().any(|a| a == "latest"), "{arguments:?}");
        let object = migration.wait_succeeded().await?;
        let bytes =
            object.status.iter().flat_map(|s| &s.disks).filter_map(|d| d.backup.as_ref()).map(|b| b.bytes);
        ensure!(bytes.eq([1 << 30]), "not all bytes were read");
        serves(&in_b(&lab, &object).await?, &[], &page).await
    })
}

#[test]
fn apis_answer_503_for_a_while() -> Result<()> {
    exclusive("api_503", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks { root_volume: false, data: 1 }).await?;
        let page = written(&made, &["/data"]).await?;
        healed(async {
            let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
            let seen = |phase: Phase| {
                move |s: &VmMigrationStatus| s.timeline.iter().any(|row| row.phase == phase).then_some(())
            };
            migration.wait("stopping", 300, seen(Phase::Stopping)).await?;
            fault(&["answer", "site-a", "nova", "503", "10"]).await?;
            migration.wait("transferring", 300, seen(Phase::Transferring)).await?;
            fault(&["answer", "site-a", "cinder", "503", "10"]).await?;
            fault(&["answer", "site-b", "glance", "503", "10"]).await?;
            migration.wait("creating", 300, seen(Phase::Creating)).await?;
            fault(&["answer", "site-b", "cinder", "503", "10"]).await?;
            fault(&["answer", "site-b", "nova", "503", "10"]).await?;
            let object = migration.wait_succeeded().await?;
            serves(&in_b(&lab, &object).await?, &["/data"], &page).await?;
            let found = counted(&lab, &migration.uid().await?).await?;
            ensure!(found == (1, 1, 1), "servers, volumes, ports in B: {found:?}");
            Ok(())
        })
        .await
    })
}

#[test]
fn quota_exhausted_in_b() -> Result<()> {
    exclusive("quota", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks { root_volume: false, data: 1 }).await?;
        let page = written(&made, &["/data"]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).create().await?;
        migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        fault(&["quota", "site-b", "full"]).await?;
        let outcome = async {
            migration.go().await?;
            migration.wait_failed(600).await
        };
        let outcome = outcome.await;
        fault(&["quota", "site-b", "default"]).await?;
        let message = outcome?.failure.unwrap_or_default().message.to_lowercase();
        ensure!(message.contains("quota") && message.contains("site-b"), "it does not say why: {message}");
        lab.a.runs_as_before(&made).await?;
        ensure!(made.guest()?.page(&["/data"]).await? == page, "A does not serve as before");
        let left = lab.leftovers(&migration.uid().await?, Stays::Nothing).await?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })
}

#[test]
fn cluster_b_gone_during_the_restore() -> Result<()> {
    exclusive("b_gone", |lab| async move {
        short_deadline(&lab).await?;
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        healed(async {
            let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
            mover(&lab, &migration, "restore-0").await?;
            fault(&["apiserver", "site-b", "off"]).await?;
            // A is given back while the cluster is away; what is left in B waits for it.
            lab.a.wait_server(&made.id, "ACTIVE").await?;
            until("A as before", 60, || async { Ok(lab.a.runs_as_before(&made).await.ok()) }).await?;
            ensure!(made.guest()?.page(&[]).await? == page, "A does not serve as before");
            let waiting = migration.status().await?;
            ensure!(waiting.cleaned_up_at.is_none(), "it says that B is clean: {waiting:?}");
            fault(&["apiserver", "site-b", "on"]).await?;
            migration.wait_failed(180).await?;
            let left = lab.leftovers(&migration.uid().await?, Stays::Nothing).await?;
            ensure!(left.is_empty(), "left behind: {left:?}");
            Ok(())
        })
        .await
    })
}

#[test]
fn cluster_b_gone_during_a_deletion() -> Result<()> {
    exclusive("b_gone_deleted", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        healed(async {
            let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
            mover(&lab, &migration, "restore-0").await?;
            let uid = migration.uid().await?;
            fault(&["apiserver", "site-b", "off"]).await?;
            migration.delete().await?;
            lab.a.wait_server(&made.id, "ACTIVE").await?;
            until("A as before", 60, || async { Ok(lab.a.runs_as_before(&made).await.ok()) }).await?;
            ensure!(made.guest()?.page(&[]).await? == page, "A does not serve as before");
            migration.get().await.context("the object did not wait for cluster B")?;
            fault(&["apiserver", "site-b", "on"]).await?;
            migration.wait_gone(180).await?;
            let left = lab.leftovers(&uid, Stays::Nothing).await?;
            ensure!(left.is_empty(), "left behind: {left:?}");
            Ok(())
        })
        .await
    })
}
