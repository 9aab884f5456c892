//! Out of A as images and into B as block devices; then retirement: the old server and its volumes go, and nothing
//! else; a mark that is not ours refuses it.

use crate::{
    moves::{in_b, serves, written},
    volume_mode::{modes, taken},
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, condition, shared, until};
use serde_json::json;
use vmmigration::{crd::v1alpha1::*, migration::names::MARK_CLAIM};

#[test]
fn retired_by_request_unless_the_mark_is_foreign() -> Result<()> {
    shared("retire", |lab| async move {
        modes(&lab, "Image", "Volume").await?;
        let made = lab.a.make_server(&lab.name, Disks::ROOT_AND_DATA).await?;
        let page = written(&made, &["/data"]).await?;
        let volumes = lab.a.server(&made.id).await?.volumes_attached;
        let migration = lab.migration(&made.name, CutoverMode::Now).checked()?.create().await?;
        let object = migration.wait_succeeded().await?;
        let way = taken(&object.status.clone().unwrap_or_default());
        ensure!(way == ("Image".into(), "Volume".into()), "it took {way:?}");
        let uid = migration.uid().await?;

        lab.a.cloud.unlock_server(&made.id).await?;
        lab.a.cloud.set_server_metadata(&made.id, MARK_CLAIM, "somebody-else").await?;
        migration.patch(json!({"requests": {"retire": "first"}})).await?;
        let refused = |s: &VmMigrationStatus| {
            let row = s.requests.iter().find(|r| r.token == "first" && r.result == RequestResult::Refused);
            row.filter(|_| s.phase == Some(Phase::Succeeded)).cloned()
        };
        let row = migration.wait("refusing to retire", 180, refused).await?;
        ensure!(row.message.contains("somebody-else"), "{row:?}");
        ensure!(lab.a.server(&made.id).await?.status == "SHUTOFF", "A was touched");

        lab.a.cloud.set_server_metadata(&made.id, MARK_CLAIM, &uid).await?;
        migration.patch(json!({"requests": {"retire": "second"}})).await?;
        migration.wait_phase(Phase::Retired, 300).await?;
        until("the end of the clean-up", 120, || async {
            let object = migration.get().await?;
            Ok((condition(&object, "CleanedUp") == Some(true)).then_some(()))
        })
        .await?;
        ensure!(lab.a.cloud.get_server(&made.id).await?.is_none(), "the old server is there");
        for id in &volumes {
            ensure!(lab.a.cloud.get_volume(id).await?.is_none(), "volume {id} is there");
        }
        ensure!(volumes.len() == 2, "it had {} volumes", volumes.len());
        let after = migration.get().await?;
        for kind in ["Succeeded", "SourceRetired", "Ready"] {
            ensure!(condition(&after, kind) == Some(true), "{kind}: {:?}", condition(&after, kind));
        }
        let status = after.status.unwrap_or_default();
        ensure!(status.retained.is_empty(), "{:?}", status.retained);
        serves(&in_b(&lab, &object).await?, &["/data"], &page).await?;
        let reports = lab.api::<VmMigrationReport>(&lab.name).list(&Default::default()).await?;
        let report = reports.items.first().and_then(|r| r.status.clone()).context("no report")?;
        ensure!(report.retired_at.is_some(), "the report does not tell of the retirement: {report:?}");
        Ok(())
    })
}
