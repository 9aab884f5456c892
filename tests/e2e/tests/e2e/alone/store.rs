//! The store is gone for a minute.

use crate::segments::{holds, on_the_wire, slowly};
use anyhow::{Result, ensure};
use e2e::{Content, exclusive, fault};
use vmmigration::crd::v1alpha1::*;

const MIB: u64 = 1 << 20;

#[test]
fn the_store_is_gone_for_a_minute() -> Result<()> {
    exclusive("store_gone", |lab| async move {
        slowly(&lab, "16Mi").await?;
        let contents = [Content::new(1, &[(0, 400)]).await?];
        let made = lab.a.make_stopped(&lab.name, &contents).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
        let work = async {
            migration.wait_moved(&lab.kube, "backup-1", 100 * MIB).await?;
            fault(&["store", "off", "60"]).await?;
            let names = |s: &VmMigrationStatus| {
                let message = s.message.as_deref().unwrap_or_default();
                let held_up = message.starts_with("Backing up disk ")
                    && message.contains("held up by ObjectStore transfer: ")
                    && message.contains("connection refused");
                held_up.then_some(())
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
