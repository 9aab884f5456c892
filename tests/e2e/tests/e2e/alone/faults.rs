//! A cluster that is gone for longer than is borne. What passes is in `borne`, a missing CA in `blocked`.

use crate::moves::written;
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, MadeServer, Migration, Stays, condition, exclusive, fault, until};
use std::{future::Future, rc::Rc};
use vmmigration::crd::v1alpha1::*;

/// Runs `body`; ends the fault afterwards, whatever it gives.
pub(super) async fn then_heal<T>(heal: &[&str], body: impl Future<Output = Result<T>>) -> Result<T> {
    let outcome = body.await;
    fault(heal).await?;
    outcome
}

/// The restore of the first disk is under way.
async fn restoring(migration: &Migration) -> Result<()> {
    let runs = |s: &VmMigrationStatus| {
        let job = s.jobs.iter().find(|j| j.name == "restore-0")?;
        (job.state == "Running" && s.disks.first()?.restore.is_none()).then_some(())
    };
    migration.wait("restoring", 400, runs).await
}

/// A is as before, and neither cloud, cluster nor store holds anything of the migration.
async fn given_back(lab: &Rc<Lab>, made: &MadeServer, uid: &str) -> Result<()> {
    lab.a.runs_as_before(made).await?;
    lab.left_only(uid, Stays::Nothing).await
}

/// How long the operator bears an unreachable cluster in the next test, in seconds.
const BOUND: u64 = 30;

#[test]
fn cluster_b_gone_during_a_restore_and_during_a_deletion() -> Result<()> {
    exclusive("cluster_b_gone", |lab| async move {
        let values = format!("operator.troubleDeadlineSeconds={BOUND}");
        lab.operator_with(&values, cluster_b_gone(&lab)).await
    })
}

async fn cluster_b_gone(lab: &Rc<Lab>) -> Result<()> {
    let restored = lab.a.make_server(&format!("{}-restored", lab.name), Disks::ROOT).await?;
    let deleted = lab.a.make_server(&format!("{}-deleted", lab.name), Disks::ROOT).await?;
    let page = written(&restored, &[]).await?;
    let one = lab.migration(&restored.name, CutoverMode::Manual).create().await?;
    let other = lab.migration(&deleted.name, CutoverMode::Manual).named("other").create().await?;
    let uids = [one.uid().await?, other.uid().await?];
    for migration in [&one, &other] {
        migration.wait_phase(Phase::AwaitingCutover, 180).await?;
    }
    // The other one is behind: stopped, but not yet built in B, while this one restores.
    one.go().await?;
    one.wait_phase(Phase::Transferring, 300).await?;
    other.go().await?;
    other.wait_phase(Phase::Transferring, 300).await?;
    restoring(&one).await?;
    // It ends by itself in case that this test does not live to end it.
    fault(&["apiserver", "site-b", "off", "600"]).await?;
    then_heal(&["apiserver", "site-b", "on"], while_gone(lab, [&one, &other], [&restored, &deleted])).await?;
    one.wait_failed(240).await?;
    other.wait_gone(240).await?;
    given_back(lab, &restored, &uids[0]).await?;
    given_back(lab, &deleted, &uids[1]).await?;
    ensure!(restored.guest()?.page(&[]).await? == page, "A does not serve as before");
    Ok(())
}

/// Both servers run again although nobody reaches B's cluster; what is left there is not forgotten.
async fn while_gone(lab: &Rc<Lab>, [one, other]: [&Migration; 2], made: [&MadeServer; 2]) -> Result<()> {
    other.delete().await?;
    lab.a.wait_given_back(made[1], "ACTIVE", 60).await?;
    let object = other.get().await.context("it was let go although B's cluster cannot be cleaned")?;
    ensure!(object.metadata.deletion_timestamp.is_some(), "it is not being deleted");

    lab.a.wait_given_back(made[0], "ACTIVE", BOUND + 60).await?;
    let failed = until("its failure to be told", 30, || async {
        let object = one.get().await?;
        let failed = object.status.as_ref().is_some_and(|s| s.phase == Some(Phase::Failed));
        Ok(failed.then_some(object))
    })
    .await?;
    let status = failed.status.clone().unwrap_or_default();
    let said = status.failure.clone().context("no failure is recorded")?.message;
    ensure!(said.contains("cluster site-b") && said.contains("does not answer"), "it says {said:?}");
    ensure!(condition(&failed, "CleanedUp") == Some(false), "CleanedUp: {:?}", status.conditions);
    ensure!(condition(&failed, "Succeeded") == Some(false), "Succeeded: {:?}", status.conditions);
    let shown = status.message.unwrap_or_default();
    ensure!(shown.contains("runs in A as before"), "it shows {shown:?}");
    other.get().await.context("it was let go although B's cluster cannot be cleaned")?;
    Ok(())
}
