//! Who sees and may do what: secrets, restricted pods, the tenant's role, objects that are not ours.

use crate::moves::written;
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, MOVERS, OPERATOR, SYSTEM, command, labelled, log, setting, shared};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Namespace, Pod, Secret},
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;
use std::{collections::BTreeSet, rc::Rc, time::Duration};
use vmmigration::crd::v1alpha1::*;

/// Everything that somebody may read without reading Secrets: objects, events, Jobs, pods and their logs.
async fn readable(lab: &Rc<Lab>, uid: &str) -> Result<Vec<(String, String)>> {
    let mut all = vec![];
    macro_rules! objects {
        ($kind:ty) => {
            for o in lab.api::<$kind>(&lab.name).list(&ListParams::default()).await? {
                all.push((o.name_any(), serde_json::to_string(&o)?));
            }
        };
    }
    objects!(VmMigration);
    objects!(VmMigrationReport);
    objects!(OpenStackCloud);
    objects!(ObjectStore);
    objects!(Event);
    let selector = format!("vmmigration.io/migration={uid}");
    for client in [&lab.kube, &lab.kube_b] {
        let jobs: Api<Job> = Api::namespaced(client.clone(), MOVERS);
        for job in jobs.list(&ListParams::default().labels(&selector)).await? {
            all.push((job.name_any(), serde_json::to_string(&job)?));
        }
        let events: Api<Event> = Api::namespaced(client.clone(), MOVERS);
        for event in events.list(&ListParams::default()).await? {
            all.push((event.name_any(), serde_json::to_string(&event)?));
        }
        for pod in labelled(client, MOVERS, &selector).await? {
            let text = log(client, MOVERS, &pod.name_any(), None).await.unwrap_or_default();
            all.push((pod.name_any(), serde_json::to_string(&pod)? + &text));
        }
    }
    for pod in labelled(&lab.kube, SYSTEM, OPERATOR).await? {
        let text = log(&lab.kube, SYSTEM, &pod.name_any(), None).await.unwrap_or_default();
        all.push((pod.name_any(), serde_json::to_string(&pod)? + &text));
    }
    Ok(all)
}

/// The values that nobody may see: the clouds', the store's and the repository's.
async fn secrets(lab: &Rc<Lab>, uid: &str) -> Result<BTreeSet<String>> {
    let mut values = BTreeSet::from([setting("TESTBED_S3_SECRET_KEY")?]);
    for site in [&lab.a, &lab.b] {
        let secret = &site.entry["auth"]["application_credential_secret"];
        values.insert(secret.as_str().context("no secret")?.to_string());
    }
    let api: Api<Secret> = Api::namespaced(lab.kube.clone(), MOVERS);
    let vault = api.get(&format!("vmm-{uid}-vault")).await?;
    let password = vault.data.unwrap_or_default().remove("restic-password").context("no password")?;
    values.insert(String::from_utf8(password.0)?.trim().to_string());
    ensure!(values.iter().all(|v| v.len() >= 8), "a secret is too short to be looked for");
    Ok(values)
}

async fn nothing_shown(lab: &Rc<Lab>, uid: &str, secrets: &BTreeSet<String>) -> Result<()> {
    for (name, text) in readable(lab, uid).await? {
        for secret in secrets {
            ensure!(!text.contains(secret), "{name} shows a secret that begins with {:?}", &secret[..4]);
        }
    }
    Ok(())
}

#[test]
fn never_6_a_secret_is_shown() -> Result<()> {
    shared("never_6", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks { root_volume: false, data: 1 }).await?;
        written(&made, &["/data"]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).checked()?.create().await?;
        migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        let uid = migration.uid().await?;
        let secrets = secrets(&lab, &uid).await?;
        migration.go().await?;
        // Again and again while pods come and go.
        let watch = async {
            loop {
                nothing_shown(&lab, &uid, &secrets).await?;
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        };
        tokio::select! {
            done = migration.wait_phase(Phase::Succeeded, 600) => done.map(drop),
            shown = watch => shown,
        }?;
        nothing_shown(&lab, &uid, &secrets).await?;
        migration.wait_succeeded().await?;
        nothing_shown(&lab, &uid, &secrets).await
    })
}

fn restricted(pod: &Pod) -> Result<()> {
    let name = pod.name_any();
    let spec = pod.spec.as_ref().context("no spec")?;
    ensure!(spec.automount_service_account_token == Some(false), "{name} mounts an API token");
    let mounts = |v: &k8s_openapi::api::core::v1::Volume| v.projected.is_some() || v.host_path.is_some();
    ensure!(!spec.volumes.iter().flatten().any(mounts), "{name} mounts a token or a path of its node");
    ensure!(
        spec.security_context.as_ref().and_then(|s| s.run_as_non_root) == Some(true),
        "{name} may be root"
    );
    let context = spec.containers[0].security_context.clone().unwrap_or_default();
    ensure!(context.read_only_root_filesystem == Some(true), "{name} may write its root");
    ensure!(context.allow_privilege_escalation == Some(false), "{name} may gain rights");
    let dropped = context.capabilities.and_then(|c| c.drop).unwrap_or_default();
    ensure!(dropped == ["ALL"], "{name} drops {dropped:?}");
    Ok(())
}

#[test]
fn movers_are_restricted() -> Result<()> {
    shared("restricted", |lab| async move {
        for client in [&lab.kube, &lab.kube_b] {
            let namespace = Api::<Namespace>::all(client.clone()).get(MOVERS).await?;
            let enforced = namespace.labels().get("pod-security.kubernetes.io/enforce").cloned();
            ensure!(enforced.as_deref() == Some("restricted"), "{MOVERS} enforces {enforced:?}");
        }
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).create().await?;
        migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        let selector = format!("vmmigration.io/migration={}", migration.uid().await?);
        for client in [&lab.kube, &lab.kube_b] {
            let pods = labelled(client, MOVERS, &selector).await?;
            ensure!(!pods.is_empty(), "no probe ran");
            pods.iter().try_for_each(restricted)?;
        }
        Ok(())
    })
}

/// May the tenant's account do that?
async fn may(lab: &Rc<Lab>, verb: &str, what: &str, namespace: &str) -> Result<bool> {
    let account = format!("--as=system:serviceaccount:{}:tenant", lab.name);
    let question = ["--context", "site-a", "-n", namespace, "auth", "can-i", verb, what, &account];
    Ok(command("kubectl", &question).await.is_ok())
}

#[test]
fn tenants_use_the_api_and_nothing_else() -> Result<()> {
    shared("tenant", |lab| async move {
        let base = ["--context", "site-a", "-n", &lab.name, "create"];
        command("kubectl", &[&base[..], &["serviceaccount", "tenant"]].concat()).await?;
        let account = format!("--serviceaccount={}:tenant", lab.name);
        let bind = ["rolebinding", "tenant", "--clusterrole=vmmigration-tenant", &account];
        command("kubectl", &[&base[..], &bind].concat()).await?;
        for (verb, what, namespace, wanted) in [
            ("create", "vmmigrations.vmmigration.io", lab.name.as_str(), true),
            ("patch", "vmmigrations.vmmigration.io", &lab.name, true),
            ("create", "openstackclouds.vmmigration.io", &lab.name, true),
            ("create", "objectstores.vmmigration.io", &lab.name, true),
            ("get", "vmmigrationreports.vmmigration.io", &lab.name, true),
            ("patch", "vmmigrations.vmmigration.io/status", &lab.name, false),
            ("create", "vmmigrationreports.vmmigration.io", &lab.name, false),
            ("delete", "vmmigrationreports.vmmigration.io", &lab.name, false),
            ("get", "secrets", &lab.name, false),
            ("create", "pods", &lab.name, false),
            ("get", "vmmigrations.vmmigration.io", "default", false),
            ("get", "secrets", MOVERS, false),
            ("get", "pods", MOVERS, false),
            ("get", "pods/log", MOVERS, false),
            ("get", "secrets", SYSTEM, false),
        ] {
            let is = may(&lab, verb, what, namespace).await?;
            ensure!(is == wanted, "a tenant may {verb} {what} in {namespace}: {is}");
        }
        Ok(())
    })
}

#[test]
fn never_7_something_without_our_mark_is_deleted() -> Result<()> {
    shared("never_7", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).create().await?;
        migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        let uid = migration.uid().await?;
        let decoys = Decoys::make(&lab, &uid).await?;
        migration.go().await?;
        migration.wait_phase(Phase::Transferring, 240).await?;
        migration.delete().await?;
        migration.wait_gone(240).await?;
        let missing = decoys.missing(&lab).await;
        decoys.remove(&lab).await?;
        let missing = missing?;
        ensure!(missing.is_empty(), "deleted although not ours: {missing:?}");
        lab.a.runs_as_before(&made).await
    })
}

/// Objects that look like ours and are not: without marks, or with those of another migration.
struct Decoys {
    volume_a: String,
    volume_b: String,
    marked_b: String,
    image_b: String,
    port_b: String,
}

const OTHER: &str = "00000000-0000-4000-8000-00000000e2e0";

impl Decoys {
    async fn make(lab: &Rc<Lab>, uid: &str) -> Result<Self> {
        let name = |role: &str| format!("vmm-{uid}-{role}-0");
        let volume_a = lab.a.make_volume(json!({"name": name("export-volume"), "size": 1})).await?;
        let volume_b = lab.b.make_volume(json!({"name": name("volume"), "size": 1})).await?;
        let marks = json!({"vmmigration.io:migration": OTHER, "vmmigration.io:role": "volume",
            "vmmigration.io:index": "0"});
        let marked = json!({"name": lab.name, "size": 1, "metadata": marks});
        let marked_b = lab.b.make_volume(marked).await?;
        let image = json!({"name": format!("vmm-{OTHER}-import-image-0"), "disk_format": "raw",
            "container_format": "bare"});
        let image_b = lab.b.cloud.create_image(&image).await?.id;
        let network = lab.b.id(&["networks", "provider", "id"])?;
        let port = json!({"name": format!("vmm-{OTHER}-port-0"), "network_id": network});
        let port_b = lab.b.cloud.create_port(&json!({"port": port})).await?.id;
        lab.store()?.put(&format!("{}/decoy", lab.name), "not ours").await?;
        Ok(Decoys { volume_a, volume_b, marked_b, image_b, port_b })
    }

    async fn missing(&self, lab: &Rc<Lab>) -> Result<Vec<&'static str>> {
        let (a, b) = (&lab.a.cloud, &lab.b.cloud);
        let there = [
            ("volume in A", a.get_volume(&self.volume_a).await?.is_some()),
            ("volume in B", b.get_volume(&self.volume_b).await?.is_some()),
            ("another migration's volume", b.get_volume(&self.marked_b).await?.is_some()),
            ("another migration's image", b.get_image(&self.image_b).await?.is_some()),
            ("another migration's port", b.get_port(&self.port_b).await?.is_some()),
            ("object in the store", lab.store()?.get(&format!("{}/decoy", lab.name), 64).await.is_ok()),
        ];
        Ok(there.into_iter().filter(|(_, there)| !there).map(|(what, _)| what).collect())
    }

    async fn remove(&self, lab: &Rc<Lab>) -> Result<()> {
        let (a, b) = (&lab.a.cloud, &lab.b.cloud);
        a.delete_volume(&self.volume_a).await?;
        b.delete_volume(&self.volume_b).await?;
        b.delete_volume(&self.marked_b).await?;
        b.delete_image(&self.image_b).await?;
        b.delete_port(&self.port_b).await?;
        lab.store()?.delete(&format!("{}/decoy", lab.name)).await?;
        for (site, id) in [(&lab.a, &self.volume_a), (&lab.b, &self.volume_b), (&lab.b, &self.marked_b)] {
            e2e::until("a decoy's end", 60, || async {
                Ok(site.cloud.get_volume(id).await?.is_none().then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}
