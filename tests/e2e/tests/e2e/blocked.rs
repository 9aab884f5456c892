//! What cannot be moved is `Blocked`: nothing is touched in either cloud, and it goes on by itself once the cause
//! is gone.

use anyhow::{Result, ensure};
use e2e::{Disks, Lab, shared};
use serde_json::{Value, json};
use std::{collections::BTreeMap, rc::Rc};
use vmmigration::{crd::v1alpha1::*, openstack::Server};

/// Both clouds hold what they held.
async fn untouched(lab: &Rc<Lab>, before: &BTreeMap<String, String>) -> Result<()> {
    let now = lab.footprint().await?;
    for (what, was) in before {
        let is = now.get(what);
        ensure!(is == Some(was), "{what} was touched\nwas {was}\nis  {is:?}");
    }
    let new: Vec<_> = now.keys().filter(|k| !before.contains_key(*k)).collect();
    ensure!(new.is_empty(), "made while blocked: {new:?}");
    Ok(())
}

#[test]
fn wrong_password_until_the_secret_is_corrected() -> Result<()> {
    shared("wrong_password", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let good = lab.cloud_secret(&lab.b)?;
        let mut wrong = lab.b.clone();
        wrong.entry["auth"]["application_credential_secret"] = json!("not-the-secret");
        lab.secret(&lab.name, "site-b", &lab.cloud_secret(&wrong)?).await?;
        let before = lab.footprint().await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).create().await?;
        let status = migration.wait_blocked(&["destination-credentials"]).await?;
        let message = status.message.unwrap_or_default();
        ensure!(message.contains("nothing was touched"), "{message}");
        ensure!(!format!("{:?}", status.preflight).contains("not-the-secret"), "the secret is in status");
        untouched(&lab, &before).await?;
        lab.secret(&lab.name, "site-b", &good).await?;
        migration.wait_phase(Phase::AwaitingCutover, 120).await?;
        untouched(&lab, &before).await
    })
}

#[test]
fn missing_ca_until_it_is_given() -> Result<()> {
    shared("missing_ca", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let good = lab.cloud_secret(&lab.b)?;
        lab.secret(&lab.name, "site-b", &good[..1]).await?;
        let before = lab.footprint().await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).create().await?;
        let status = migration.wait_blocked(&["destination-cloud-unreachable"]).await?;
        let said = format!("{:?}", status.preflight).to_lowercase();
        ensure!(said.contains("certificate") || said.contains("tls"), "it does not say why: {said}");
        untouched(&lab, &before).await?;
        lab.secret(&lab.name, "site-b", &good).await?;
        migration.wait_phase(Phase::AwaitingCutover, 120).await?;
        Ok(())
    })
}

#[test]
fn unknown_server_until_it_is_named_right() -> Result<()> {
    shared("unknown_server", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let before = lab.footprint().await?;
        let migration = lab.migration("nobody", CutoverMode::Manual).create().await?;
        let status = migration.wait_blocked(&["server-not-found"]).await?;
        ensure!(status.message.unwrap_or_default().contains("nobody"), "it does not name the server");
        migration.patch(json!({"source": {"server": made.name}})).await?;
        migration.wait_phase(Phase::AwaitingCutover, 120).await?;
        untouched(&lab, &before).await
    })
}

#[test]
fn ambiguous_name_until_an_id_is_given() -> Result<()> {
    shared("ambiguous_name", |lab| async move {
        let one = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let other = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let before = lab.footprint().await?;
        let migration = lab.migration(&lab.name, CutoverMode::Manual).create().await?;
        let status = migration.wait_blocked(&["server-ambiguous"]).await?;
        let hint = status.preflight.iter().find_map(|f| f.suggestion.clone()).unwrap_or_default();
        ensure!(hint.contains(&one.id) && hint.contains(&other.id), "it does not list both: {hint}");
        migration.patch(json!({"source": {"server": other.id}})).await?;
        let ready = migration.wait_phase(Phase::AwaitingCutover, 120).await?;
        ensure!(ready.source.unwrap_or_default().server_id == other.id, "it took the other one");
        untouched(&lab, &before).await
    })
}

#[test]
fn what_has_no_match_until_it_is_mapped() -> Result<()> {
    shared("no_match", |lab| async move {
        let network = lab.a.id(&["networks", "net-a", "id"])?;
        let more = json!({"flavorRef": lab.a.id(&["flavors", "a1.small"])?, "networks": [{"uuid": network}]});
        let made = lab.a.make_server_with(&lab.name, Disks::LOCAL, more).await?;
        let volume = json!({"name": format!("{}-data", lab.name), "size": 1, "volume_type": "ssd-a"});
        let volume = lab.a.make_volume(volume).await?;
        lab.a.attach(&made.id, &volume).await?;
        let before = lab.footprint().await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).create().await?;
        // All at once, and each lists what there is.
        let status = migration
            .wait_blocked(&["flavor-not-found", "network-not-found", "volume-type-not-found"])
            .await?;
        for (id, there) in [
            ("flavor-not-found", "b1.medium"),
            ("network-not-found", "net-b"),
            ("volume-type-not-found", "fast-b"),
        ] {
            let finding = status.preflight.iter().find(|f| f.id == id);
            let hint = finding.and_then(|f| f.suggestion.clone()).unwrap_or_default();
            ensure!(hint.contains(there), "{id} does not list {there}: {hint}");
        }
        untouched(&lab, &before).await?;
        let mapped = json!({"flavor": "b1.medium", "networks": [{"from": "net-a", "to": "net-b"}],
            "volumeTypes": [{"from": "ssd-a", "to": "fast-b"}]});
        migration.patch(json!({"destination": mapped})).await?;
        migration.wait_phase(Phase::AwaitingCutover, 120).await?;
        untouched(&lab, &before).await
    })
}

#[test]
fn paused_suspended_rescued_and_shelved_servers() -> Result<()> {
    shared("states", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let (a, id) = (&lab.a, &made.id);
        let migration = lab.migration(&made.name, CutoverMode::Manual).create().await?;
        migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        for (enter, state, blocker, leave) in [
            ("pause", "PAUSED", "server-paused", "unpause"),
            ("suspend", "SUSPENDED", "server-suspended", "resume"),
            ("rescue", "RESCUE", "server-rescue", "unrescue"),
            ("shelve", "SHELVED_OFFLOADED", "server-shelved-offloaded", "unshelve"),
        ] {
            a.rest.act(id, json!({enter: null})).await?;
            let before = a.wait_server(id, state).await?;
            // The go does not help: preflight looks again right before the stop.
            let refused = lab.migration(id, CutoverMode::Now).named(enter).create().await?;
            refused.wait_blocked(&[blocker]).await?;
            // Nova itself changes more of it for a while after the state is reached.
            let ours = |s: &Server| (s.status.clone(), s.locked, s.metadata.clone());
            let now = a.server(id).await?;
            ensure!(ours(&now) == ours(&before), "the {state} server was touched: {before:?}, then {now:?}");
            refused.patch(json!({"cutover": {"mode": "Manual"}})).await?;
            a.rest.act(id, json!({leave: null})).await?;
            a.wait_server(id, "ACTIVE").await?;
            refused.wait_phase(Phase::AwaitingCutover, 120).await?;
        }
        Ok(())
    })
}

#[test]
fn ephemeral_and_swap_disks() -> Result<()> {
    shared("local_disks", |lab| async move {
        let admin = lab.a.admin().await?;
        let flavor = json!({"name": lab.name, "ram": 128, "vcpus": 1, "disk": 1,
            "OS-FLV-EXT-DATA:ephemeral": 1, "swap": 64});
        let flavor = admin.post("compute", "/flavors", json!({"flavor": flavor})).await?;
        let flavor = flavor["flavor"]["id"].clone();
        let made = lab.a.make_server_with(&lab.name, Disks::LOCAL, json!({"flavorRef": flavor})).await;
        let outcome = async {
            let made = made?;
            let before = lab.footprint().await?;
            let to = json!({"flavor": "tiny"});
            let migration = lab.migration(&made.name, CutoverMode::Now).to(to)?.create().await?;
            migration.wait_blocked(&["ephemeral-disk", "swap-disk"]).await?;
            untouched(&lab, &before).await
        };
        let outcome = outcome.await;
        admin.delete("compute", &format!("/flavors/{}", flavor.as_str().unwrap_or_default())).await?;
        outcome
    })
}

#[test]
fn a_resize_until_it_is_confirmed() -> Result<()> {
    shared("resized", |lab| async move {
        let admin = lab.a.admin().await?;
        let flavor = json!({"name": lab.name, "ram": 192, "vcpus": 1, "disk": 1});
        let flavor = admin.post("compute", "/flavors", json!({"flavor": flavor})).await?;
        let flavor = flavor["flavor"]["id"].clone();
        let outcome = resized(&lab, &flavor).await;
        admin.delete("compute", &format!("/flavors/{}", flavor.as_str().unwrap_or_default())).await?;
        outcome
    })
}

async fn resized(lab: &Rc<Lab>, flavor: &Value) -> Result<()> {
    let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
    lab.a.rest.act(&made.id, json!({"resize": {"flavorRef": flavor}})).await?;
    lab.a.wait_server(&made.id, "VERIFY_RESIZE").await?;
    let before = lab.footprint().await?;
    let migration = lab.migration(&made.name, CutoverMode::Manual).to(json!({"flavor": "tiny"}))?;
    let migration = migration.create().await?;
    migration.wait_blocked(&["server-verify-resize"]).await?;
    untouched(lab, &before).await?;
    lab.a.rest.act(&made.id, json!({"confirmResize": null})).await?;
    lab.a.wait_server(&made.id, "ACTIVE").await?;
    migration.wait_phase(Phase::AwaitingCutover, 120).await.map(drop)
}

#[test]
fn a_trunk_until_it_is_removed() -> Result<()> {
    shared("trunk", |lab| async move {
        let port = json!({"name": lab.name, "network_id": lab.a.id(&["networks", "provider", "id"])?});
        let port = lab.a.cloud.create_port(&json!({"port": port})).await?;
        let trunk = json!({"trunk": {"name": lab.name, "port_id": port.id}});
        let trunk = lab.a.rest.post("network", "/trunks", trunk).await?;
        let trunk = format!("/trunks/{}", trunk["trunk"]["id"].as_str().unwrap_or_default());
        let outcome = trunked(&lab, &port.id, &trunk).await;
        // The parent of a trunk cannot be deleted.
        lab.a.rest.delete("network", &trunk).await?;
        outcome
    })
}

async fn trunked(lab: &Rc<Lab>, port: &str, trunk: &str) -> Result<()> {
    let made = lab.a.make_server_with(&lab.name, Disks::LOCAL, json!({"networks": [{"port": port}]})).await?;
    let before = lab.footprint().await?;
    let migration = lab.migration(&made.name, CutoverMode::Manual).create().await?;
    migration.wait_blocked(&["trunk-port"]).await?;
    untouched(lab, &before).await?;
    lab.a.rest.delete("network", trunk).await?;
    migration.wait_phase(Phase::AwaitingCutover, 120).await.map(drop)
}
