//! Warm migrations by images: a stale copy is never used.

use crate::{
    held::stays_held,
    moves::{in_b, serves, written},
    rollback::tried_again,
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Migration, shared};
use vmmigration::crd::v1alpha1::*;

/// With passes while the server runs.
pub fn warm(mut migration: Migration) -> Migration {
    migration.spec.strategy = Some(Strategy::Warm);
    migration
}

#[test]
fn never_3_a_source_started_after_the_last_pass_holds_and_a_retry_builds_on_it() -> Result<()> {
    shared("warm_held", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        written(&made, &[]).await?;
        let mut migration = warm(lab.migration(&made.name, CutoverMode::Now));
        // Any forecast is good enough: one pass before the stop, and the last.
        migration.spec.max_downtime = Some(Period("1h".into()));
        let migration = migration.create().await?;
        let last = |s: &VmMigrationStatus| {
            let disk = s.disks.first().filter(|d| d.backup.is_some())?;
            Some(disk.pass)
        };
        let pass = migration.wait("past its last pass", 600, last).await?;
        lab.a.cloud.unlock_server(&made.id).await?;
        lab.a.cloud.start_server(&made.id).await?;
        lab.a.wait_server(&made.id, "ACTIVE").await?;
        let page = stays_held(&lab, &migration, &made).await?;

        tried_again(&migration).await?;
        let object = migration.wait_succeeded().await?;
        serves(&in_b(&lab, &object).await?, &[], &page).await?;
        let disk = object.status.clone().and_then(|s| s.disks.first().cloned()).context("no disk")?;
        ensure!(disk.pass > pass, "pass {} does not build on pass {pass}", disk.pass);
        ensure!(disk.passes.iter().all(|row| row.pass >= pass), "it began anew: {:?}", disk.passes);
        Ok(())
    })
}
