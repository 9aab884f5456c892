//! The demo's path: a server with a root and a data volume waits for the go, moves, and serves the same in B.

use crate::volume_mode::modes;
use anyhow::{Result, ensure};
use e2e::{Disks, Guest, Stays, shared, until};
use serde_json::json;
use vmmigration::crd::v1alpha1::*;

#[test]
fn demo_path() -> Result<()> {
    shared("demo_path", |lab| async move {
        // As for whoever says nothing of it.
        modes(&lab, "Auto", "Auto").await?;
        let more = json!({"metadata": {"app": "shop", "tier": "web"}, "description": "the shop",
            "tags": ["blue", "team-7"]});
        let made = lab.a.make_server_with(&lab.name, Disks::ROOT_AND_DATA, more).await?;
        let guest = made.guest()?;
        guest.wait(&["/data"]).await?;
        guest.write("written-in-A", &["/data"]).await?;
        guest.fill(8).await?;
        let page = guest.page(&["/data"]).await?;
        let before = lab.a.server(&made.id).await?;
        let volumes = lab.a.volumes(&before).await?;
        ensure!(volumes.len() == 2 && volumes.iter().all(|v| v.status == "in-use"), "{volumes:?}");

        let migration = lab.migration(&made.name, CutoverMode::Manual).checked()?.create().await?;
        let waiting = migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        ensure!(waiting.running_in == Some(RunningIn::A), "running in {:?}", waiting.running_in);
        ensure!(waiting.message.clone().unwrap_or_default().contains("kubectl patch vmm web"), "{waiting:?}");
        // It waits, and nothing is touched meanwhile.
        ensure!(lab.a.server(&made.id).await? == before, "server A was touched before the go");
        ensure!(lab.a.volumes(&before).await? == volumes, "A's volumes were touched before the go");
        ensure!(guest.page(&["/data"]).await? == page, "server A does not serve as before");

        migration.go().await?;
        let object = migration.wait_succeeded().await?;
        let status = object.status.clone().unwrap_or_default();
        ensure!(status.disks.len() == 2, "{} disks", status.disks.len());
        ensure!(status.running_in == Some(RunningIn::B), "running in {:?}", status.running_in);
        ensure!(status.progress.as_deref() == Some("100%"), "progress {:?}", status.progress);

        let target = status.destination.clone().unwrap_or_default();
        let b = lab.b.server(target.server_id.as_deref().unwrap_or_default()).await?;
        let moved = Guest::at(&target.addresses[0])?;
        moved.wait(&["/data"]).await?;
        let now = moved.page(&["/data"]).await?;
        ensure!(now == page, "B serves\n{}\nA served\n{}", now.describe(), page.describe());

        ensure!(b.name == before.name && b.description == before.description, "{b:?}");
        ensure!(b.tags == before.tags && b.key_name == before.key_name && b.config_drive, "{b:?}");
        for (key, value) in &before.metadata {
            ensure!(b.metadata.get(key) == Some(value), "metadata {key} is {:?}", b.metadata.get(key));
        }
        let mac = |s: &vmmigration::openstack::Server| s.addresses.first().map(|a| a.mac.clone());
        ensure!(mac(&b) == mac(&before), "MAC {:?}, was {:?}", mac(&b), mac(&before));

        let a = lab.a.server(&made.id).await?;
        ensure!(a.status == "SHUTOFF" && a.locked, "A is {} locked={}", a.status, a.locked);
        ensure!(a.volumes_attached == before.volumes_attached, "A's volumes: {:?}", a.volumes_attached);
        let kept = lab.a.volumes(&a).await?;
        ensure!(kept == volumes, "A's volumes were {volumes:?}, are {kept:?}");
        ensure!(a.locked_reason.clone().unwrap_or_default().contains("web"), "{:?}", a.locked_reason);

        let uid = migration.uid().await?;
        let report = lab.api::<VmMigrationReport>(&lab.name).get(&format!("web-{}", &uid[..8])).await?;
        ensure!(report.spec.disks == status.disks, "the report's disks differ");
        ensure!(report.spec.downtime_seconds.unwrap_or(0) > 0, "no downtime in the report");
        until("a report that clean-up is done", 20, || async {
            let report = lab.api::<VmMigrationReport>(&lab.name).get(&format!("web-{}", &uid[..8])).await?;
            Ok(report.status.and_then(|s| s.cleaned_up_at))
        })
        .await?;
        let left = lab.leftovers(&uid, Stays::Moved).await?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })
}
