//! The way back: in the middle, a new try after it, and after success; the same YAML applied all the time.

use crate::{
    moves::{in_b, serves, written},
    volume_mode::modes,
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, Migration, Stays, condition, shared, until};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::{future::Future, rc::Rc, time::Duration};
use vmmigration::crd::v1alpha1::*;

/// Does `work` while a GitOps tool applies the same YAML every two seconds.
async fn applied_again_and_again<T>(
    lab: &Rc<Lab>,
    migration: &Migration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let yaml = json!({
        "apiVersion": "vmmigration.io/v1alpha1", "kind": "VmMigration",
        "metadata": {"name": migration.name}, "spec": migration.spec,
    });
    let api = lab.api::<VmMigration>(&migration.namespace);
    let again = async {
        loop {
            let applied =
                api.patch(&migration.name, &PatchParams::apply("gitops"), &Patch::Apply(&yaml)).await;
            if let Err(error) = applied {
                return anyhow::Error::from(error).context("applying the same YAML again");
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    tokio::select! { done = work => done, error = again => Err(error) }
}

fn answer(status: &VmMigrationStatus, name: RequestName) -> Result<RequestRow> {
    status.requests.iter().find(|r| r.name == name).cloned().with_context(|| format!("no answer to {name:?}"))
}

/// All disks are in the repository.
pub fn backed_up(status: &VmMigrationStatus) -> Option<()> {
    (!status.disks.is_empty() && status.disks.iter().all(|d| d.backup.is_some())).then_some(())
}

/// Waits for the end of a rollback, clean-up included.
pub async fn rolled_back(migration: &Migration) -> Result<VmMigrationStatus> {
    until(&format!("{} to be rolled back", migration.name), 300, || async {
        let object = migration.get().await?;
        let status = object.status.clone().unwrap_or_default();
        let over = status.phase == Some(Phase::RolledBack)
            && (condition(&object, "CleanedUp") == Some(true) || kept(&status).is_some());
        Ok(over.then_some(status))
    })
    .await
}

/// Asks for another try and waits until it has begun.
pub async fn tried_again(migration: &Migration) -> Result<()> {
    migration.patch(json!({"requests": {"retry": "again"}})).await?;
    until("the second try", 180, || async { Ok((migration.status().await?.attempts == 2).then_some(())) })
        .await
}

/// The repository that is kept for a new try.
fn kept(status: &VmMigrationStatus) -> Option<&RetainedRow> {
    status.retained.iter().find(|r| r.what.starts_with("repository "))
}

#[test]
fn rollback_in_the_middle_retry_and_rollback_after_success() -> Result<()> {
    shared("rollback", |lab| async move {
        modes(&lab, "Volume", "Volume").await?;
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        let mut migration = lab.migration(&made.name, CutoverMode::Now).checked()?;
        migration.spec.on_failure = Some(serde_json::from_value(json!({"keepData": "1h"}))?);
        let migration = migration.create().await?;
        let whole = async {
            // In the middle: A is as before, B is empty, and what was read is kept.
            migration.wait("backed up", 400, backed_up).await?;
            migration.patch(json!({"requests": {"rollback": "middle"}})).await?;
            let status = rolled_back(&migration).await?;
            let row = kept(&status).context("nothing is kept for a new try")?;
            ensure!(row.why.contains("until"), "{row:?}");
            lab.a.runs_as_before(&made).await?;
            ensure!(made.guest()?.page(&[]).await? == page, "A does not serve as before");
            let said = status.message.unwrap_or_default();
            ensure!(said.contains("\"retry\"") && said.contains("runs in A as before"), "{said}");

            // Another try: A ran meanwhile, so it is read again.
            tried_again(&migration).await?;
            let object = migration.wait_succeeded().await?;
            let status = object.status.clone().unwrap_or_default();
            let backup =
                status.jobs.iter().find(|j| j.name == "backup-0").context("no record of the backup")?;
            ensure!(backup.attempt > 1, "the disk was not read again: {backup:?}");
            Ok(object)
        };
        let object = applied_again_and_again(&lab, &migration, whole).await?;
        let b = in_b(&lab, &object).await?;
        serves(&b, &[], &page).await?;

        // After success: what was written in B stays behind there.
        migration.patch(json!({"requests": {"rollback": "after"}})).await?;
        let status = lab.never_both(&made, rolled_back(&migration)).await?;
        ensure!(
            answer(&status, RequestName::Rollback)?.result == RequestResult::Done,
            "{:?}",
            status.requests
        );
        lab.a.runs_as_before(&made).await?;
        ensure!(made.guest()?.page(&[]).await? == page, "A does not serve as before");
        ensure!(lab.b.server(&b.id).await?.status == "SHUTOFF", "B's server is not stopped");
        let checks = status.rollback.clone().unwrap_or_default().checks;
        ensure!(checks.len() == 2 && checks.iter().all(|c| c.passed), "A's checks: {checks:?}");
        let said = status.message.unwrap_or_default();
        ensure!(said.contains("stays behind in server") && said.contains(&b.id), "{said}");
        let object = migration.get().await?;
        ensure!(
            condition(&object, "Succeeded") == Some(false),
            "Succeeded: {:?}",
            condition(&object, "Succeeded")
        );
        let reports = lab.api::<VmMigrationReport>(&lab.name).list(&Default::default()).await?;
        let told =
            reports.items.iter().any(|r| r.status.as_ref().is_some_and(|s| s.rolled_back_at.is_some()));
        ensure!(told, "the report does not tell of the rollback");

        // Its deletion touches neither server; a new try would find B's.
        migration.patch(json!({"requests": {"retry": "no"}})).await?;
        let refused = |s: &VmMigrationStatus| answer(s, RequestName::Retry).ok().filter(|r| r.token == "no");
        let row = until("an answer", 30, || async { Ok(refused(&migration.status().await?)) }).await?;
        ensure!(row.result == RequestResult::Refused && row.message.contains(&b.id), "{row:?}");
        let uid = migration.uid().await?;
        migration.delete().await?;
        migration.wait_gone(90).await?;
        lab.a.runs_as_before(&made).await?;
        lab.left_only(&uid, Stays::ServerInB).await
    })
}

#[test]
fn what_was_read_of_a_stopped_server_is_not_read_again_and_it_arrives_stopped() -> Result<()> {
    shared("kept_data", |lab| async move {
        modes(&lab, "Volume", "Volume").await?;
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        lab.a.cloud.stop_server(&made.id).await?;
        lab.a.wait_server(&made.id, "SHUTOFF").await?;
        let mut migration = lab.migration(&made.name, CutoverMode::Now);
        migration.spec.on_failure = Some(serde_json::from_value(json!({"keepData": "1h"}))?);
        let migration = migration.create().await?;
        migration.wait("backed up", 400, backed_up).await?;
        migration.patch(json!({"requests": {"rollback": "1"}})).await?;
        let before = rolled_back(&migration).await?;
        let backup = |s: &VmMigrationStatus| s.disks.first().and_then(|d| d.backup.clone());
        tried_again(&migration).await?;
        let object = migration.wait_succeeded().await?;
        let status = object.status.clone().unwrap_or_default();
        ensure!(backup(&before).is_some() && backup(&status) == backup(&before), "it was read again");
        ensure!(status.running_in == Some(RunningIn::None), "running in {:?}", status.running_in);
        let server = in_b(&lab, &object).await?;
        ensure!(server.status == "SHUTOFF", "B's server is {}", server.status);
        for port in lab.b.cloud.ports_of_device(&server.id).await? {
            ensure!(port.admin_state_up, "port {} is down", port.id);
        }
        lab.b.cloud.start_server(&server.id).await?;
        serves(&lab.b.wait_server(&server.id, "ACTIVE").await?, &[], &page).await
    })
}
