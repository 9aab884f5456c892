//! The store is gone for a minute, and the store is full: what that costs. That it is borne and named: `borne`.

use super::faults::then_heal;
use crate::{
    rollback::tried_again,
    segments::{holds, on_the_wire, slowly},
    volume_mode::modes,
};
use anyhow::{Context, Result, ensure};
use e2e::{Content, Lab, Migration, condition, exclusive, fault, until};
use serde_json::json;
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

const MIB: u64 = 1 << 20;

#[test]
#[ignore = "long"]
fn the_store_is_gone_for_a_minute() -> Result<()> {
    exclusive("store_gone", |lab| async move {
        modes(&lab, "Volume", "Volume").await?;
        slowly(&lab, "16Mi").await?;
        let contents = [Content::new(1, &[(0, 400)]).await?];
        let made = lab.a.make_stopped(&lab.name, &contents).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
        let work = async {
            migration.wait_moved(&lab.kube, "backup-1", 100 * MIB).await?;
            fault(&["store", "off", "60"]).await?;
            let names = |s: &VmMigrationStatus| {
                let message = s.message.as_deref().unwrap_or_default();
                // Both sides meet it; which of them is told first is a matter of luck.
                let held_up =
                    message.contains(" disk ") && message.contains(", held up by ObjectStore transfer: ");
                (held_up && message.contains("connection refused")).then_some(())
            };
            migration.wait("naming the store", 55, names).await?;
            migration.wait_succeeded().await
        };
        let (object, addresses) = migration.addresses_during(&lab, work).await?;
        let tries = object.status.iter().flat_map(|s| &s.jobs).filter(|j| j.attempt > 1);
        ensure!(tries.clone().count() == 0, "{:?} were tried again", tries.collect::<Vec<_>>());
        // A call that broke is made again, with what it had sent of a pack: five at once for each of two processes.
        let (bytes, found) = (contents[0].random, addresses.traffic("backup-1").await?.received);
        let most = on_the_wire(bytes) + 2 * 5 * 16 * MIB;
        println!("the store received {} of {} MiB", found / MIB, bytes / MIB);
        ensure!((bytes..=most).contains(&found), "of {bytes} bytes the store received {found}");
        holds(&lab, &object, &contents).await
    })
}

/// Room for the first two disks and for two of the third's four segments.
const ROOM: &str = "1000";

#[test]
#[ignore = "long"]
fn the_store_is_full() -> Result<()> {
    exclusive("store_full", |lab| async move {
        fault(&["store", "small", ROOM]).await?;
        then_heal(&["store", "whole"], full(&lab)).await
    })
}

async fn full(lab: &Rc<Lab>) -> Result<()> {
    modes(lab, "Volume", "Volume").await?;
    let contents = [Content::new(1, &[(0, 200)]).await?, Content::full(1).await?];
    let made = lab.a.make_stopped(&lab.name, &contents).await?;
    let mut migration = lab.migration(&made.name, CutoverMode::Now);
    migration.spec.on_failure = Some(serde_json::from_value(json!({"keepData": "1h"}))?);
    let migration = migration.create().await?;
    let status = given_up(&migration).await?;
    let failure = status.failure.clone().context("no failure is recorded")?;
    ensure!(failure.reason == "StoreFull", "{failure:?}");
    for words in ["ObjectStore transfer: ", "backup-2", "No space left on device"] {
        ensure!(failure.message.contains(words), "no {words:?} in {:?}", failure.message);
    }
    ensure!(status.message.iter().any(|m| m.contains(&failure.message)), "it shows {:?}", status.message);

    fault(&["store", "room"]).await?;
    let work = async {
        tried_again(&migration).await?;
        migration.wait_succeeded().await
    };
    let (object, addresses) = migration.addresses_during(lab, work).await?;
    // What was proven is not read again; of the other disk what lies in the store stays there.
    ensure!(addresses.traffic("backup-1").await.is_err(), "disk 1 was read again");
    let (found, most) = (addresses.traffic("backup-2").await?.received, on_the_wire(512 * MIB));
    println!("the second try sent {} of 1024 MiB", found / MIB);
    ensure!(found <= most, "the second try sent {found} bytes, at most {most} were missing");
    holds(lab, &object, &contents).await
}

/// Waits for the failure and the end of what is removed after it; the repository is kept.
async fn given_up(migration: &Migration) -> Result<VmMigrationStatus> {
    until("its failure", 600, || async {
        let object = migration.get().await?;
        let status = object.status.clone().unwrap_or_default();
        let kept = status.retained.iter().any(|r| r.what.starts_with("repository "));
        let over = status.phase == Some(Phase::Failed) && kept && condition(&object, "CleanedUp").is_some();
        Ok(over.then_some(status))
    })
    .await
}
