//! What somebody wants in the middle: suspend and cancel.

use crate::moves::written;
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Stays, shared};
use serde_json::json;
use vmmigration::crd::v1alpha1::*;

#[test]
#[ignore = "long"]
fn suspended_in_the_middle_and_then_cancelled() -> Result<()> {
    shared("cancelled", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT_AND_DATA).await?;
        let page = written(&made, &["/data"]).await?;
        let mut migration = lab.migration(&made.name, CutoverMode::Now);
        // It was there first: it is no request.
        migration.spec.requests = Some(Requests { cancel: Some("old".into()), ..Default::default() });
        let migration = migration.create().await?;
        let uid = migration.uid().await?;
        migration.wait_phase(Phase::Transferring, 300).await?;

        migration.patch(json!({"suspend": true})).await?;
        let told = |s: &VmMigrationStatus| {
            s.message.clone().filter(|m| s.suspended_since.is_some() && m.contains("suspend\":false"))
        };
        let said = migration.wait("telling that it is suspended", 30, told).await?;
        ensure!(said.contains("A is stopped and intact"), "it says {said:?}");
        let status = migration.status().await?;
        let first = status.requests.first().context("no answer to the first token")?;
        ensure!(first.result == RequestResult::Superseded, "{first:?}");

        migration.patch(json!({"requests": {"cancel": "now"}})).await?;
        let status = migration.wait_failed(300).await?;
        ensure!(status.phase == Some(Phase::Cancelled), "it is {:?}", status.phase);
        let answer = status.requests.first().context("no answer")?;
        ensure!(answer.token == "now" && answer.result == RequestResult::Done, "{answer:?}");
        lab.a.runs_as_before(&made).await?;
        ensure!(made.guest()?.page(&["/data"]).await? == page, "A does not serve as before");
        lab.left_only(&uid, Stays::Nothing).await
    })
}
