//! What passes is borne: one migration meets killed operators, a cloud that answers 503, a gateway's 404, a download that
//! is cut, a store that is gone and a full quota, one after the other. The result is the same, nothing is doubled, and
//! nothing is copied twice.

use super::faults::then_heal;
use crate::{
    killed::nothing_doubled,
    moves::{in_b, serves, written},
    segments::slowly,
};
use anyhow::{Result, ensure};
use e2e::{Disks, Lab, Migration, exclusive, fault};
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

#[test]
fn never_5_crashes_lose_leak_or_double_and_faults_that_pass_are_borne() -> Result<()> {
    exclusive("borne", |lab| async move {
        // Random bytes at a low rate: both faults of the copy come in its middle.
        slowly(&lab, "4Mi").await?;
        let made = lab.a.make_server(&lab.name, Disks::ROOT_AND_DATA).await?;
        made.guest()?.wait(&["/data"]).await?;
        made.guest()?.fill(64).await?;
        let page = written(&made, &["/data"]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).checked()?.create().await?;
        let claimed = |s: &VmMigrationStatus| s.source.as_ref().is_some_and(|s| s.claimed_at.is_some());
        let snapshot = |s: &VmMigrationStatus| s.disks.iter().any(|d| d.export.snapshot_id.is_some());
        let asked =
            |s: &VmMigrationStatus| s.destination.as_ref().is_some_and(|x| x.server_requested_at.is_some());
        killed_in(&lab, &migration, Phase::Stopping, claimed).await?;
        killed_in(&lab, &migration, Phase::Transferring, snapshot).await?;
        // For longer than two looks, and after the stop: the source is not gone for that.
        answers(&migration, ("site-a", "nova/GET", "404page"), "a proxy or gateway answered").await?;

        cut_and_without_store(&migration).await?;
        without_room(&lab, &migration).await?;

        answers(&migration, ("site-b", "cinder", "503"), "503").await?;
        killed_in(&lab, &migration, Phase::Creating, asked).await?;

        let object = migration.wait_succeeded().await?;
        // The movers themselves asked for the rest.
        let tries = object.status.iter().flat_map(|s| &s.jobs).filter(|j| j.attempt > 1);
        ensure!(tries.clone().count() == 0, "{:?} were tried again", tries.collect::<Vec<_>>());
        nothing_doubled(&lab, &made).await?;
        serves(&in_b(&lab, &object).await?, &["/data"], &page).await
    })
}

/// The data disk is being read.
async fn copying(migration: &Migration) -> Result<()> {
    let moving = |s: &VmMigrationStatus| {
        let disk = s.disks.get(1)?;
        let some = disk.progress.as_ref().is_some_and(|p| p.bytes > 0 && p.bytes < p.total);
        (some && disk.backup.is_none()).then_some(())
    };
    migration.wait("backing up", 400, moving).await
}

/// The download is cut, and then the store is gone for as long as it takes to be told.
async fn cut_and_without_store(migration: &Migration) -> Result<()> {
    copying(migration).await?;
    fault(&["cut", "site-a", "glance"]).await?;
    fault(&["store", "off", "60"]).await?;
    let names = |s: &VmMigrationStatus| {
        let message = s.message.as_deref().unwrap_or_default();
        // Both sides meet it; which of them is told first is a matter of luck.
        let held_up = message.contains(" disk ") && message.contains(", held up by ObjectStore transfer: ");
        (held_up && message.contains("connection refused")).then_some(())
    };
    then_heal(&["store", "on"], migration.wait("naming the store", 55, names)).await
}

/// Nobody gets another volume in B for a while: that is told in the cloud's own words, and waited for.
async fn without_room(lab: &Rc<Lab>, migration: &Migration) -> Result<()> {
    let used = lab.b.cloud.list_volumes().await?.len();
    fault(&["quota", "site-b", &format!("volumes={used}")]).await?;
    let told = |s: &VmMigrationStatus| {
        let trouble = s.trouble.as_ref().filter(|_| s.failure.is_none())?;
        (trouble.message.contains("VolumeLimitExceeded") && trouble.message.contains("req-")).then_some(())
    };
    let refused = migration.wait("telling of the quota", 400, told);
    then_heal(&["quota", "site-b", "default"], refused).await?;
    let over = |s: &VmMigrationStatus| (s.trouble.is_none() && s.failure.is_none()).then_some(());
    migration.wait("over the quota", 120, over).await
}

/// How long a trouble is watched, in seconds: several looks.
const WATCHED: u64 = 10;

/// An API answers so for a while: the status tells of it, nothing is given up for it, and it passes.
async fn answers(
    migration: &Migration,
    (site, api, answer): (&str, &str, &str),
    says: &'static str,
) -> Result<()> {
    // While only Jobs copy, the clouds are looked at once a minute.
    fault(&["answer", site, api, answer, "180"]).await?;
    let told = |s: &VmMigrationStatus| {
        let trouble = s.trouble.as_ref().filter(|t| t.message.contains(says))?;
        trouble.since.clone().filter(|_| s.failure.is_none())
    };
    let lasts = async {
        let what = format!("telling of the {answer} of {site}'s {api}");
        let since = migration.wait(&what, 120, told).await?;
        let long = |s: &VmMigrationStatus| {
            let now = k8s_openapi::jiff::Timestamp::now();
            (told(s)? == since && now.duration_since(since.0).as_secs().unsigned_abs() > WATCHED)
                .then_some(())
        };
        migration.wait(&format!("bearing it for {WATCHED} s"), 60, long).await
    };
    then_heal(&["heal", site], lasts).await?;
    let over = |s: &VmMigrationStatus| (s.trouble.is_none() && s.failure.is_none()).then_some(());
    migration.wait(&format!("over the {answer} of {api}"), 60, over).await
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
