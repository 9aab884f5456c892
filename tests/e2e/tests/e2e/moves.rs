//! Servers of every kind that this version carries arrive as they were.

use crate::volume_mode::modes;
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Guest, Lab, MadeServer, Page, shared, until};
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

#[test]
fn image_backed_server_with_a_data_volume() -> Result<()> {
    shared("image_backed", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks { root_volume: false, data: 1 }).await?;
        let page = written(&made, &["/data"]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).checked()?.create().await?;
        let object = migration.wait_succeeded().await?;
        let kinds: Vec<_> = object.status.iter().flat_map(|s| s.disks.iter().map(|d| d.kind)).collect();
        ensure!(kinds == [DiskKind::Image, DiskKind::Volume], "disks are {kinds:?}");
        let server = in_b(&lab, &object).await?;
        ensure!(server.image_id.is_some(), "B's server is not image-backed");
        ensure!(server.volumes_attached.len() == 1, "B has volumes {:?}", server.volumes_attached);
        serves(&server, &["/data"], &page).await
    })
}

#[test]
fn stopped_server_arrives_stopped() -> Result<()> {
    shared("stopped", |lab| async move {
        modes(&lab, "Volume", "Volume").await?;
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let page = written(&made, &[]).await?;
        lab.a.cloud.stop_server(&made.id).await?;
        lab.a.wait_server(&made.id, "SHUTOFF").await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
        let object = migration.wait_succeeded().await?;
        ensure!(object.status.clone().unwrap_or_default().running_in == Some(RunningIn::None), "{object:?}");
        let server = in_b(&lab, &object).await?;
        ensure!(server.status == "SHUTOFF", "B's server is {}", server.status);
        for port in lab.b.cloud.ports_of_device(&server.id).await? {
            ensure!(port.admin_state_up, "port {} is down", port.id);
        }
        lab.b.cloud.start_server(&server.id).await?;
        let server = lab.b.wait_server(&server.id, "ACTIVE").await?;
        serves(&server, &[], &page).await
    })
}

#[test]
fn three_data_disks_attached_out_of_order() -> Result<()> {
    shared("three_disks", |lab| async move {
        modes(&lab, "Volume", "Volume").await?;
        let made = lab.a.make_server(&lab.name, Disks { root_volume: true, data: 3 }).await?;
        let mounts = ["/data", "/datac", "/datad"];
        let guest = made.guest()?;
        guest.wait(&mounts).await?;
        // The first disk goes and comes again: the order of attaching is not the order of devices any more.
        guest.get("/cgi-bin/put?umount=/data").await?;
        lab.a.detach(&made.id, &made.data[0]).await?;
        // As long as the guest holds on to the lost disk, it writes to it, and the next one gets another name.
        until("the guest to let go of /data", 120, || async {
            let mounts = guest.mounts().await?;
            Ok((!mounts.iter().any(|m| m.ends_with(" /data"))).then_some(()))
        })
        .await?;
        lab.a.attach(&made.id, &made.data[0]).await?;
        let page = written(&made, &mounts).await?;
        let devices = guest.mounts().await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).checked()?.create().await?;
        let object = migration.wait_succeeded().await?;
        ensure!(object.status.iter().all(|s| s.disks.len() == 4), "not four disks");
        let server = in_b(&lab, &object).await?;
        serves(&server, &mounts, &page).await?;
        let there = Guest::at(&server.addresses[0].address)?.mounts().await?;
        ensure!(there == devices, "devices in B {there:?}, in A {devices:?}");
        Ok(())
    })
}

#[test]
fn destination_as_asked_for() -> Result<()> {
    shared("as_asked", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let page = written(&made, &[]).await?;
        let to = json!({"serverName": format!("{}-new", lab.name), "flavor": "b1.medium",
            "metadata": {"moved": "yes"},
            "networks": [{"from": "provider", "to": "provider", "mac": "Auto",
                "fixedIP": {"mode": "Set", "address": "10.231.12.222"}}]});
        let migration = lab.migration(&made.name, CutoverMode::Now).to(to)?.checked()?.create().await?;
        let object = migration.wait_succeeded().await?;
        let server = in_b(&lab, &object).await?;
        ensure!(server.name == format!("{}-new", lab.name), "its name is {}", server.name);
        ensure!(server.flavor.original_name == "b1.medium", "its flavor is {:?}", server.flavor);
        ensure!(server.addresses[0].address == "10.231.12.222", "its addresses {:?}", server.addresses);
        ensure!(server.metadata.get("moved").map(String::as_str) == Some("yes"), "{:?}", server.metadata);
        serves(&server, &[], &page).await
    })
}
