//! Servers of every kind that this version carries arrive as they were.

use crate::volume_mode::{modes, taken};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Guest, Lab, MadeServer, Migration, Page, Stays, shared, until};
use serde_json::json;
use std::rc::Rc;
use vmmigration::{crd::v1alpha1::*, openstack::Server};

/// Writes to every disk of a server and tells what it serves then.
pub async fn written(made: &MadeServer, mounts: &[&str]) -> Result<Page> {
    let guest = made.guest()?;
    guest.wait(mounts).await?;
    guest.write("written-in-A", mounts).await?;
    guest.page(mounts).await
}

/// The server in B.
pub async fn in_b(lab: &Rc<Lab>, object: &VmMigration) -> Result<Server> {
    let target = object.status.clone().and_then(|s| s.destination).unwrap_or_default();
    lab.b.server(target.server_id.as_deref().context("no server in B is recorded")?).await
}

/// B serves exactly that.
pub async fn serves(server: &Server, mounts: &[&str], wanted: &Page) -> Result<()> {
    let guest = Guest::at(&server.addresses.first().context("no address")?.address)?;
    guest.wait(mounts).await?;
    let page = guest.page(mounts).await?;
    ensure!(page == *wanted, "B serves\n{}\nA served\n{}", page.describe(), wanted.describe());
    Ok(())
}

/// The local root disk travels as an image, the data volume leaves A as a block device and enters B as an image.
#[test]
fn image_backed_server_with_a_data_volume() -> Result<()> {
    shared("image_backed", |lab| async move {
        modes(&lab, "Volume", "Image").await?;
        let made = lab.a.make_server(&lab.name, Disks { root_volume: false, data: 1 }).await?;
        let page = written(&made, &["/data"]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).checked()?.create().await?;
        let object = migration.wait_succeeded().await?;
        let status = object.status.clone().unwrap_or_default();
        let kinds: Vec<_> = status.disks.iter().map(|d| d.kind).collect();
        ensure!(kinds == [DiskKind::Image, DiskKind::Volume], "disks are {kinds:?}");
        ensure!(taken(&status) == ("Volume".into(), "Image".into()), "it took {:?}", taken(&status));
        let server = in_b(&lab, &object).await?;
        ensure!(server.image_id.is_some(), "B's server is not image-backed");
        ensure!(server.volumes_attached.len() == 1, "B has volumes {:?}", server.volumes_attached);
        serves(&server, &["/data"], &page).await
    })
}

/// Four disks, attributes and a go: what a user who says nothing of the way gets.
#[test]
fn three_data_disks_attached_out_of_order_wait_for_the_go() -> Result<()> {
    shared("three_disks", |lab| async move {
        modes(&lab, "Auto", "Auto").await?;
        let made = out_of_order(&lab).await?;
        let mounts = ["/data", "/datac", "/datad"];
        let guest = made.guest()?;
        let page = written(&made, &mounts).await?;
        let devices = guest.mounts().await?;
        let before = lab.a.server(&made.id).await?;
        let volumes = lab.a.volumes(&before).await?;
        ensure!(volumes.len() == 4 && volumes.iter().all(|v| v.status == "in-use"), "{volumes:?}");

        let migration = lab.migration(&made.name, CutoverMode::Manual).checked()?.create().await?;
        let waiting = migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        ensure!(waiting.running_in == Some(RunningIn::A), "running in {:?}", waiting.running_in);
        ensure!(waiting.message.clone().unwrap_or_default().contains("kubectl patch vmm web"), "{waiting:?}");
        // It waits, and nothing is touched meanwhile.
        ensure!(lab.a.server(&made.id).await? == before, "server A was touched before the go");
        ensure!(lab.a.volumes(&before).await? == volumes, "A's volumes were touched before the go");
        ensure!(guest.page(&mounts).await? == page, "server A does not serve as before");

        migration.go().await?;
        let object = migration.wait_succeeded().await?;
        let status = object.status.clone().unwrap_or_default();
        ensure!(status.disks.len() == 4, "{} disks", status.disks.len());
        ensure!(status.running_in == Some(RunningIn::B), "running in {:?}", status.running_in);
        ensure!(status.progress.as_deref() == Some("100%"), "progress {:?}", status.progress);
        let server = in_b(&lab, &object).await?;
        serves(&server, &mounts, &page).await?;
        let there = Guest::at(&server.addresses[0].address)?.mounts().await?;
        ensure!(there == devices, "devices in B {there:?}, in A {devices:?}");
        as_it_was(&server, &before)?;

        let a = lab.a.server(&made.id).await?;
        ensure!(a.status == "SHUTOFF" && a.locked, "A is {} locked={}", a.status, a.locked);
        ensure!(a.volumes_attached == before.volumes_attached, "A's volumes: {:?}", a.volumes_attached);
        let kept = lab.a.volumes(&a).await?;
        ensure!(kept == volumes, "A's volumes were {volumes:?}, are {kept:?}");
        ensure!(a.locked_reason.clone().unwrap_or_default().contains("web"), "{:?}", a.locked_reason);
        reported(&lab, &migration, &status).await
    })
}

/// A server with three data disks, the first of which went and came again: the order of attaching is not that of devices.
async fn out_of_order(lab: &Rc<Lab>) -> Result<MadeServer> {
    let more = json!({"metadata": {"app": "shop", "tier": "web"}, "description": "the shop", "tags": ["blue", "team-7"]});
    let made = lab.a.make_server_with(&lab.name, Disks { root_volume: true, data: 3 }, more).await?;
    let guest = made.guest()?;
    guest.wait(&["/data", "/datac", "/datad"]).await?;
    guest.fill(8).await?;
    guest.get("/cgi-bin/put?umount=/data").await?;
    lab.a.detach(&made.id, &made.data[0]).await?;
    // As long as the guest holds on to the lost disk, it writes to it, and the next one gets another name.
    until("the guest to let go of /data", 120, || async {
        let mounts = guest.mounts().await?;
        Ok((!mounts.iter().any(|m| m.ends_with(" /data"))).then_some(()))
    })
    .await?;
    lab.a.attach(&made.id, &made.data[0]).await?;
    Ok(made)
}

/// What the owner of the server in A sees of the one in B.
fn as_it_was(b: &Server, a: &Server) -> Result<()> {
    ensure!(b.name == a.name && b.description == a.description, "{b:?}");
    ensure!(b.tags == a.tags && b.key_name == a.key_name && b.config_drive, "{b:?}");
    ensure!(b.hostname.is_some() && b.hostname == a.hostname, "{:?}, was {:?}", b.hostname, a.hostname);
    for (key, value) in &a.metadata {
        ensure!(b.metadata.get(key) == Some(value), "metadata {key} is {:?}", b.metadata.get(key));
    }
    let mac = |s: &Server| s.addresses.first().map(|a| a.mac.clone());
    ensure!(mac(b) == mac(a), "MAC {:?}, was {:?}", mac(b), mac(a));
    Ok(())
}

/// The report tells of it, clean-up included, and nothing is left behind.
async fn reported(lab: &Rc<Lab>, migration: &Migration, status: &VmMigrationStatus) -> Result<()> {
    let uid = migration.uid().await?;
    let (reports, name) = (lab.api::<VmMigrationReport>(&lab.name), format!("web-{}", &uid[..8]));
    let report = reports.get(&name).await?;
    ensure!(report.spec.disks == status.disks, "the report's disks differ");
    ensure!(report.spec.downtime_seconds.unwrap_or(0) > 0, "no downtime in the report");
    until("a report that clean-up is done", 20, || async {
        Ok(reports.get(&name).await?.status.and_then(|s| s.cleaned_up_at))
    })
    .await?;
    lab.left_only(&uid, Stays::Moved).await
}
