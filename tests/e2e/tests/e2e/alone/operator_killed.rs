//! The operator's pod is killed: the result is the same, and nothing is doubled.

use crate::{
    killed::nothing_doubled,
    moves::{in_b, serves, written},
};
use anyhow::Result;
use e2e::{Disks, Lab, Migration, exclusive};
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

#[test]
fn never_5_crashes_lose_leak_or_double_operator_pod_killed_at_three_phases() -> Result<()> {
    exclusive("operator_killed", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).checked()?.create().await?;
        let claimed = |s: &VmMigrationStatus| s.source.as_ref().is_some_and(|s| s.claimed_at.is_some());
        let snapshot = |s: &VmMigrationStatus| s.disks.iter().any(|d| d.export.snapshot_id.is_some());
        let asked =
            |s: &VmMigrationStatus| s.destination.as_ref().is_some_and(|x| x.server_requested_at.is_some());
        killed_in(&lab, &migration, Phase::Stopping, claimed).await?;
        killed_in(&lab, &migration, Phase::Transferring, snapshot).await?;
        killed_in(&lab, &migration, Phase::Creating, asked).await?;
        let object = migration.wait_succeeded().await?;
        nothing_doubled(&lab, &made).await?;
        serves(&in_b(&lab, &object).await?, &[], &page).await
    })
}

/// Kills the operator in a phase, once something is recorded there.
async fn killed_in(
    lab: &Rc<Lab>,
    migration: &Migration,
    phase: Phase,
    recorded: impl Fn(&VmMigrationStatus) -> bool,
) -> Result<()> {
    let found = |s: &VmMigrationStatus| (s.phase == Some(phase) && recorded(s)).then_some(());
    migration.wait(&format!("in the middle of {phase}"), 400, found).await?;
    lab.kill_operator().await
}
