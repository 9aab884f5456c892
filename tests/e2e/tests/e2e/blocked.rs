//! What cannot be moved is `Blocked`: nothing is touched in either cloud, and it goes on by itself once the cause
//! is gone. Conditions of clouds and stores say it, too.

use crate::rules::api;
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, MadeServer, Migration, Stays, setting, shared, until};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::PostParams;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};
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
#[ignore = "long"]
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

/// One server, and everything that Nova can do to it that cannot be moved.
#[test]
fn states_that_cannot_be_moved_until_they_are_left() -> Result<()> {
    shared("states", |lab| async move {
        let port = json!({"name": lab.name, "network_id": lab.a.id(&["networks", "provider", "id"])?});
        let port = lab.a.cloud.create_port(&json!({"port": port})).await?;
        let trunk = json!({"trunk": {"name": lab.name, "port_id": port.id}});
        let trunk = lab.a.rest.post("network", "/trunks", trunk).await?;
        let trunk = format!("/trunks/{}", trunk["trunk"]["id"].as_str().unwrap_or_default());
        let more = json!({"networks": [{"port": port.id}]});
        let made = lab.a.make_server_with(&lab.name, Disks::LOCAL, more).await;
        let outcome = async {
            let made = made?;
            trunked(&lab, &made.id).await?;
            Ok::<_, anyhow::Error>(made)
        };
        let outcome = outcome.await;
        // The parent of a trunk cannot be deleted.
        lab.a.rest.delete("network", &trunk).await?;
        let made = outcome?;
        lab.migration(&made.id, CutoverMode::Manual)
            .named("trunk")
            .wait_phase(Phase::AwaitingCutover, 120)
            .await?;
        paused_and_so_on(&lab, &made).await?;

        let admin = lab.a.admin().await?;
        let flavor = json!({"name": lab.name, "ram": 192, "vcpus": 1, "disk": 1});
        let flavor = admin.post("compute", "/flavors", json!({"flavor": flavor})).await?;
        let flavor = flavor["flavor"]["id"].clone();
        let outcome = resized(&lab, &made, &flavor).await;
        admin.delete("compute", &format!("/flavors/{}", flavor.as_str().unwrap_or_default())).await?;
        outcome
    })
}

/// A trunk blocks as long as it is there.
async fn trunked(lab: &Rc<Lab>, server: &str) -> Result<()> {
    let before = lab.footprint().await?;
    let migration = lab.migration(server, CutoverMode::Manual).named("trunk").create().await?;
    migration.wait_blocked(&["trunk-port"]).await?;
    untouched(lab, &before).await
}

async fn paused_and_so_on(lab: &Rc<Lab>, made: &MadeServer) -> Result<()> {
    let (a, id) = (&lab.a, &made.id);
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
}

async fn resized(lab: &Rc<Lab>, made: &MadeServer, flavor: &Value) -> Result<()> {
    lab.a.rest.act(&made.id, json!({"resize": {"flavorRef": flavor}})).await?;
    lab.a.wait_server(&made.id, "VERIFY_RESIZE").await?;
    let before = lab.footprint().await?;
    let migration =
        lab.migration(&made.id, CutoverMode::Manual).named("resize").to(json!({"flavor": "tiny"}))?;
    let migration = migration.create().await?;
    migration.wait_blocked(&["server-verify-resize"]).await?;
    untouched(lab, &before).await?;
    lab.a.rest.act(&made.id, json!({"confirmResize": null})).await?;
    lab.a.wait_server(&made.id, "ACTIVE").await?;
    migration.wait_phase(Phase::AwaitingCutover, 120).await.map(drop)
}

/// Five migrations, each with something else wrong; then their clouds, stores and specs are mended.
#[test]
fn what_is_wrong_with_objects_until_it_is_mended() -> Result<()> {
    shared("mended", |lab| async move {
        let servers = futures::try_join!(
            lab.a.make_server(&lab.name, Disks::LOCAL),
            lab.a.make_server(&lab.name, Disks::LOCAL)
        )?;
        let (one, other) = (&servers.0, &servers.1);
        wrong_objects(&lab).await?;
        let before = lab.footprint().await?;
        let make = async |name: &str, server: &str, cloud: &str, store: &str| {
            let mut migration = lab.migration(server, CutoverMode::Manual).named(name);
            migration.spec.destination.cloud = cloud.into();
            migration.spec.store = Some(store.into());
            migration.create().await
        };
        let password = make("password", &one.id, "password", "transfer").await?;
        let no_ca = make("no-ca", &one.id, "no-ca", "transfer").await?;
        let nobody = make("nobody", "nobody", "site-b", "transfer").await?;
        let ambiguous = make("ambiguous", &lab.name, "site-b", "transfer").await?;
        let no_store = make("no-store", &one.id, "site-b", "wrong").await?;

        good_ones_are_ready(&lab).await?;
        bad_clouds_are_not(&lab).await?;
        let refused = ready(&lab, "ObjectStore", "wrong", "False", 60).await?;
        ensure!(refused.reason == "InvalidConfiguration" && !refused.message.contains(WRONG), "{refused:?}");

        let status = password.wait_blocked(&["destination-credentials"]).await?;
        ensure!(status.message.clone().unwrap_or_default().contains("nothing was touched"), "{status:?}");
        ensure!(!format!("{status:?}").contains(WRONG), "the secret is in status");
        let said = format!("{:?}", no_ca.wait_blocked(&["destination-cloud-unreachable"]).await?.preflight);
        let why = ["certificate", "tls"].iter().any(|w| said.to_lowercase().contains(w));
        ensure!(why, "it does not say why: {said}");
        let status = nobody.wait_blocked(&["server-not-found"]).await?;
        ensure!(status.message.unwrap_or_default().contains("nobody"), "it does not name the server");
        let status = ambiguous.wait_blocked(&["server-ambiguous"]).await?;
        let hint = status.preflight.iter().find_map(|f| f.suggestion.clone()).unwrap_or_default();
        ensure!(hint.contains(&one.id) && hint.contains(&other.id), "it does not list both: {hint}");
        let status = no_store.wait_blocked(&["probe-destination", "probe-source"]).await?;
        ensure!(!format!("{status:?}").contains(WRONG), "the key is in the status");
        untouched(&lab, &before).await?;

        for cloud in ["password", "no-ca"] {
            lab.secret(&lab.name, cloud, &lab.cloud_secret(&lab.b)?).await?;
        }
        lab.secret(&lab.name, "wrong", &store_keys(setting("TESTBED_S3_SECRET_KEY")?)?).await?;
        nobody.patch(json!({"source": {"server": one.id}})).await?;
        ambiguous.patch(json!({"source": {"server": other.id}})).await?;
        ready(&lab, "ObjectStore", "wrong", "True", 60).await?;
        for migration in [&password, &no_ca, &nobody, &no_store] {
            migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        }
        let status = ambiguous.wait_phase(Phase::AwaitingCutover, 120).await?;
        ensure!(status.source.unwrap_or_default().server_id == other.id, "it took the other one");
        untouched(&lab, &before).await?;
        given_up_before_the_go(&lab, &ambiguous, &before).await
    })
}

/// A deletion while the go is waited for leaves nothing and touches nothing.
async fn given_up_before_the_go(
    lab: &Rc<Lab>,
    migration: &Migration,
    before: &BTreeMap<String, String>,
) -> Result<()> {
    let uid = migration.uid().await?;
    migration.delete().await?;
    migration.wait_gone(90).await?;
    untouched(lab, before).await?;
    lab.left_only(&uid, Stays::Nothing).await
}

/// What no status may show.
const WRONG: &str = "0123456789-this-is-not-the-key";

fn store_keys(secret: String) -> Result<[(&'static str, String); 3]> {
    Ok([
        ("AWS_ACCESS_KEY_ID", setting("TESTBED_S3_ACCESS_KEY")?),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("cacert", std::fs::read_to_string(setting("TESTBED_CA")?)?),
    ])
}

/// A cloud with a wrong password, one without its CA, and a store with a wrong key.
async fn wrong_objects(lab: &Lab) -> Result<()> {
    let mut wrong = lab.b.clone();
    wrong.entry["auth"]["application_credential_secret"] = json!(WRONG);
    lab.secret(&lab.name, "password", &lab.cloud_secret(&wrong)?).await?;
    lab.secret(&lab.name, "no-ca", &lab.cloud_secret(&lab.b)?[..1]).await?;
    let clouds = lab.api::<OpenStackCloud>(&lab.name);
    for name in ["password", "no-ca"] {
        let mut spec = clouds.get("site-b").await?.spec;
        spec.credentials_ref.secret_name = name.into();
        clouds.create(&PostParams::default(), &OpenStackCloud::new(name, spec)).await?;
    }
    lab.secret(&lab.name, "wrong", &store_keys(WRONG.into())?).await?;
    let stores = lab.api::<ObjectStore>(&lab.name);
    let mut spec = stores.get("transfer").await?.spec;
    spec.credentials_secret_ref.name = "wrong".into();
    stores.create(&PostParams::default(), &ObjectStore::new("wrong", spec)).await?;
    Ok(())
}

/// Waits until `Ready` of an object is as wanted; gives the condition.
async fn ready(lab: &Lab, kind: &str, name: &str, wanted: &str, seconds: u64) -> Result<Condition> {
    until(&format!("{kind} {name} to be Ready={wanted}"), seconds, || async {
        let object = api(&lab.kube, &lab.name, kind).get(name).await?;
        let all: Vec<Condition> = serde_json::from_value(object.data["status"]["conditions"].clone())?;
        let ready = all.into_iter().find(|c| c.type_ == "Ready").context("no condition Ready")?;
        ensure!(ready.status == wanted, "it says {}: {}", ready.reason, ready.message);
        Ok(Some(ready))
    })
    .await
}

async fn good_ones_are_ready(lab: &Lab) -> Result<()> {
    for name in ["site-a", "site-b"] {
        ready(lab, "OpenStackCloud", name, "True", 60).await?;
        let cloud = lab.api::<OpenStackCloud>(&lab.name).get(name).await?;
        let status = cloud.status.unwrap_or_default();
        ensure!(status.observed_generation == cloud.metadata.generation, "{status:?}");
        ensure!(status.project_id.is_some(), "no project: {status:?}");
        let services: BTreeSet<_> = status.services.iter().map(|s| s.name.as_str()).collect();
        let wanted = BTreeSet::from(["block-storage", "compute", "image", "network"]);
        ensure!(services == wanted, "services are {services:?}");
        ensure!(status.quotas.iter().any(|q| q.name == "instances" && q.limit != 0), "{:?}", status.quotas);
        let transfer = status.transfer.context("no transfer mode")?;
        ensure!(transfer.mode == "Image" && !transfer.reason.is_empty(), "{transfer:?}");
    }
    ready(lab, "ObjectStore", "transfer", "True", 60).await.map(drop)
}

async fn bad_clouds_are_not(lab: &Lab) -> Result<()> {
    let mut wrong = lab.a.clone();
    wrong.entry["auth"]["application_credential_secret"] = json!("this-is-not-the-secret");
    lab.secret(&lab.name, "wrong-cloud", &lab.cloud_secret(&wrong)?).await?;
    let clouds = lab.api::<OpenStackCloud>(&lab.name);
    for (name, secret, cluster, word, reason) in [
        ("wrong-secret", "wrong-cloud", None, "", "InvalidConfiguration"),
        ("no-secret", "nowhere", None, "nowhere", "ReferenceNotFound"),
        ("no-cluster", "site-a", Some("nowhere"), "nowhere", "ReferenceNotFound"),
    ] {
        let credentials_ref = CloudCredentialsRef { secret_name: secret.into(), cloud_name: None };
        let spec = OpenStackCloudSpec { credentials_ref, cluster: cluster.map(String::from), transfer: None };
        clouds.create(&PostParams::default(), &OpenStackCloud::new(name, spec)).await?;
        let refused = ready(lab, "OpenStackCloud", name, "False", 60).await?;
        ensure!(refused.reason == reason, "{name}: {refused:?}");
        ensure!(refused.message.contains(word), "{name} does not say what is wrong: {refused:?}");
        ensure!(!refused.message.contains("this-is-not-the-secret"), "the secret is in the status");
    }
    Ok(())
}
