//! Killed pods: the result is the same, and nothing is doubled.

use crate::{
    interrupted::mover,
    moves::{in_b, serves, written},
    segments::slowly,
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, MadeServer, shared};
use std::{collections::BTreeMap, rc::Rc};
use vmmigration::crd::v1alpha1::*;

/// In B exactly one server and port, and a volume for each of A's; A was stopped once and never started.
pub async fn nothing_doubled(lab: &Rc<Lab>, made: &MadeServer) -> Result<()> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for what in lab.footprint().await?.keys().filter_map(|k| k.strip_prefix("site-b ")) {
        *found.entry(what.split(' ').next().unwrap_or_default().into()).or_default() += 1;
    }
    // Its root disk is a volume.
    let wanted = [("server", 1), ("volume", 1 + made.data.len()), ("port", 1)];
    let wanted = BTreeMap::from(wanted.map(|(kind, count)| (kind.to_string(), count)));
    ensure!(found == wanted, "in B there are {found:?}");
    let actions = lab.a.cloud.server_actions(&made.id).await?;
    let count = |name: &str| actions.iter().filter(|a| a.action == name).count();
    ensure!((count("stop"), count("start")) == (1, 0), "actions of A: {actions:?}");
    let a = lab.a.server(&made.id).await?;
    ensure!(a.status == "SHUTOFF" && a.locked, "A is {} locked={}", a.status, a.locked);
    Ok(())
}

/// The attempt of a Job, from 1.
fn attempt(status: &VmMigrationStatus, job: &str) -> i32 {
    status.jobs.iter().find(|j| j.name == job).map_or(0, |j| j.attempt)
}

#[test]
#[ignore = "long"]
fn mover_pods_killed_in_the_middle_of_a_backup_and_of_a_restore() -> Result<()> {
    shared("mover_killed", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        // 17 MiB travel: the movers' own logs tell of the middle in time.
        slowly(&lab, "2Mi").await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).checked()?.create().await?;
        for (job, client) in [("backup-0", &lab.kube), ("restore-0", &lab.kube_b)] {
            mover(&lab, &migration, job).await?;
            migration.kill_mover(client, job).await?;
            migration
                .wait(&format!("trying {job} again"), 90, |s| (attempt(s, job) == 2).then_some(()))
                .await?;
        }
        let object = migration.wait_succeeded().await?;
        let status = object.status.clone().context("no status")?;
        for job in ["backup-0", "restore-0"] {
            ensure!(attempt(&status, job) == 2, "{job} is at attempt {}", attempt(&status, job));
            let killed = status.timeline.iter().any(|r| r.message.contains(&format!("{job}-1")));
            ensure!(killed, "the timeline does not tell of {job}: {:?}", status.timeline);
        }
        nothing_doubled(&lab, &made).await?;
        serves(&in_b(&lab, &object).await?, &[], &page).await
    })
}
