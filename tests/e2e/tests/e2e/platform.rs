//! What a platform looks at: who sees which secret, what movers may do, several migrations at once.

use crate::{
    hooks::hook_secret,
    moves::{in_b, serves, written},
    rules::{KINDS, api},
};
use anyhow::{Context, Result, anyhow, ensure};
use e2e::{Disks, Lab, MOVERS, Migration, labelled, log, setting, shared};
use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::Job,
        core::v1::{Event, Namespace, Pod, Secret, Volume},
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::json;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
    sync::OnceLock,
    time::Duration,
};
use vmmigration::{crd::v1alpha1::*, migration::names::LABEL_PURPOSE, openstack::Server};

/// All that could be read, without a right to Secrets, of two migrations that ran at the same time.
#[derive(Default)]
struct Evidence {
    migrations: Vec<VmMigration>,
    pods: BTreeMap<String, Pod>,
    jobs: BTreeMap<String, Job>,
    /// Where something was said, and everything that was said there.
    said: BTreeMap<String, BTreeSet<String>>,
    /// What nobody may say.
    secrets: BTreeMap<String, String>,
}

/// The first test that asks makes two migrations; the others look at the same ones.
fn evidence() -> Result<&'static Evidence> {
    static EVIDENCE: OnceLock<Result<Evidence, String>> = OnceLock::new();
    let gathered = EVIDENCE.get_or_init(|| gather().map_err(|e| format!("the two migrations: {e:#}")));
    gathered.as_ref().map_err(|e| anyhow!("{e}"))
}

fn gather() -> Result<Evidence> {
    let found = Rc::new(RefCell::new(Evidence::default()));
    let slot = found.clone();
    shared("pair", |lab| async move {
        slot.replace(both(&lab).await?);
        Ok(())
    })?;
    Ok(found.take())
}

/// One server on a volume and one on an image, moved side by side.
async fn both(lab: &Rc<Lab>) -> Result<Evidence> {
    let names = [format!("{}-one", lab.name), format!("{}-two", lab.name)];
    let (one, two) = futures::try_join!(
        lab.a.make_server(&names[0], Disks::ROOT),
        lab.a.make_server(&names[1], Disks::LOCAL)
    )?;
    let pages = futures::try_join!(written(&one, &[]), written(&two, &[]))?;
    hook_secret(lab, "key", json!({"id": private_key()?})).await?;
    let first = with_ssh_check(lab.migration(&names[0], CutoverMode::Now).named("one").checked()?)?;
    let first = first.create().await?;
    let second = lab
        .migration(&names[1], CutoverMode::Now)
        .named("two")
        .to(asked_for(lab))?
        .checked()?
        .create()
        .await?;
    let mut seen = Evidence { secrets: known_secrets(lab)?, ..Default::default() };
    let uids = [first.uid().await?, second.uid().await?];
    let watch = async {
        loop {
            seen.look(lab, &uids).await?;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    };
    let ended = async { futures::try_join!(first.wait_succeeded(), second.wait_succeeded()) };
    let (first, second) = tokio::select! {
        ended = ended => ended?,
        stopped = watch => return stopped,
    };
    serves(&in_b(lab, &first).await?, &[], &pages.0).await?;
    let asked = in_b(lab, &second).await?;
    as_asked_for(lab, &asked)?;
    serves(&asked, &[], &pages.1).await?;
    seen.look(lab, &uids).await?;
    seen.says("the operator's log", lab.operator_log(None).await?);
    seen.migrations = vec![first, second];
    Ok(seen)
}

/// What the second migration wants in B.
fn asked_for(lab: &Lab) -> serde_json::Value {
    json!({"serverName": format!("{}-new", lab.name), "flavor": "b1.medium", "metadata": {"moved": "yes"},
        "networks": [{"from": "provider", "to": "provider", "mac": "Auto",
            "fixedIP": {"mode": "Set", "address": "10.231.12.222"}}]})
}

fn as_asked_for(lab: &Lab, server: &Server) -> Result<()> {
    ensure!(server.name == format!("{}-new", lab.name), "its name is {}", server.name);
    ensure!(server.flavor.original_name == "b1.medium", "its flavor is {:?}", server.flavor);
    ensure!(server.addresses[0].address == "10.231.12.222", "its addresses {:?}", server.addresses);
    ensure!(server.metadata.get("moved").map(String::as_str) == Some("yes"), "{:?}", server.metadata);
    Ok(())
}

/// One more check, over SSH: its Job gets the private key.
fn with_ssh_check(mut migration: Migration) -> Result<Migration> {
    let check = json!({"name": "inside", "timeoutSeconds": 240,
        "ssh": {"user": "root", "privateKeySecretRef": {"name": "key", "key": "id"}, "command": "true"}});
    let verification = migration.spec.verification.as_mut().context("no checks")?;
    verification.checks.push(serde_json::from_value(check)?);
    Ok(migration)
}

fn private_key() -> Result<String> {
    Ok(std::fs::read_to_string(setting("TESTBED_SSH_KEY")?)?)
}

fn known_secrets(lab: &Rc<Lab>) -> Result<BTreeMap<String, String>> {
    let mut known = BTreeMap::from([
        ("the store's key".to_string(), setting("TESTBED_S3_SECRET_KEY")?),
        ("the guests' private key".to_string(), private_key()?),
    ]);
    for site in [&lab.a, &lab.b] {
        let secret = site.entry["auth"]["application_credential_secret"].as_str();
        let secret = secret.with_context(|| format!("{} has no secret", site.name))?;
        known.insert(format!("the application credential of {}", site.name), secret.into());
    }
    Ok(known)
}

impl Evidence {
    fn says(&mut self, place: &str, text: String) {
        self.said.entry(place.into()).or_default().insert(text);
    }

    async fn look(&mut self, lab: &Rc<Lab>, uids: &[String]) -> Result<()> {
        for (kind, _) in KINDS {
            for object in api(&lab.kube, &lab.name, kind).list(&ListParams::default()).await? {
                self.says(kind, serde_json::to_string(&object)?);
            }
        }
        self.events("site-a", &lab.kube, &lab.name).await?;
        for (cluster, client) in [("site-a", &lab.kube), ("site-b", &lab.kube_b)] {
            self.events(cluster, client, MOVERS).await?;
            for uid in uids {
                self.movers(cluster, client, uid).await?;
            }
        }
        for uid in uids {
            self.password(&lab.kube, uid).await?;
        }
        for arguments in running()? {
            self.says("argument lists", arguments);
        }
        Ok(())
    }

    async fn events(&mut self, cluster: &str, client: &Client, namespace: &str) -> Result<()> {
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        for event in events.list(&ListParams::default()).await? {
            self.says(&format!("events in {cluster}"), serde_json::to_string(&event)?);
        }
        Ok(())
    }

    async fn movers(&mut self, cluster: &str, client: &Client, uid: &str) -> Result<()> {
        let selector = format!("vmmigration.io/migration={uid}");
        let jobs: Api<Job> = Api::namespaced(client.clone(), MOVERS);
        for job in jobs.list(&ListParams::default().labels(&selector)).await? {
            self.says(&format!("Jobs in {cluster}"), serde_json::to_string(&job)?);
            self.jobs.insert(job.name_any(), job);
        }
        for pod in labelled(client, MOVERS, &selector).await? {
            let name = pod.name_any();
            self.says(&format!("pods in {cluster}"), serde_json::to_string(&pod)?);
            // A pod that has not begun has no log, one that is gone has none any more.
            if let Ok(text) = log(client, MOVERS, &name, None).await {
                self.says(&log_of(&pod), text);
            }
            self.pods.insert(name, pod);
        }
        Ok(())
    }

    async fn password(&mut self, client: &Client, uid: &str) -> Result<()> {
        let vaults: Api<Secret> = Api::namespaced(client.clone(), MOVERS);
        let Some(vault) = vaults.get_opt(&format!("vmm-{uid}-vault")).await? else { return Ok(()) };
        if let Some(password) = vault.data.unwrap_or_default().remove("restic-password") {
            let password = String::from_utf8(password.0)?.trim().to_string();
            self.secrets.insert(format!("the repository's password of {uid}"), password);
        }
        Ok(())
    }
}

fn purpose(labels: &BTreeMap<String, String>) -> &str {
    labels.get(LABEL_PURPOSE).map_or("", String::as_str)
}

fn log_of(pod: &Pod) -> String {
    format!("logs of {}", purpose(pod.labels()))
}

/// Argument lists of everything of ours that runs on the nodes.
fn running() -> Result<Vec<String>> {
    let mut all = vec![];
    for entry in std::fs::read_dir("/proc")? {
        let arguments = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let first = arguments.split(|b| *b == 0).next().unwrap_or_default();
        let program = Path::new(std::str::from_utf8(first).unwrap_or_default()).file_name();
        if program.is_some_and(|p| p == "restic" || p == "vmmigration") {
            all.push(String::from_utf8_lossy(&arguments).replace('\0', " "));
        }
    }
    Ok(all)
}

/// When a phase began and when the next one did.
fn span(object: &VmMigration, phase: Phase) -> Result<(Timestamp, Timestamp)> {
    let rows = object.status.as_ref().map(|s| s.timeline.as_slice()).unwrap_or_default();
    let begun = rows.iter().position(|r| r.phase == phase).context("the phase is not in the timeline")?;
    let ended = rows[begun..].iter().find(|r| r.phase != phase).context("the phase has no end")?;
    Ok((rows[begun].at.0, ended.at.0))
}

#[test]
fn two_migrations_at_once() -> Result<()> {
    let seen = evidence()?;
    let spans = seen.migrations.iter().map(|m| span(m, Phase::Transferring)).collect::<Result<Vec<_>>>()?;
    ensure!(spans.len() == 2, "{} migrations", spans.len());
    ensure!(spans[0].0 < spans[1].1 && spans[1].0 < spans[0].1, "one waited for the other: {spans:?}");
    Ok(())
}

#[test]
fn never_4_latest_snapshot_is_never_asked_for() -> Result<()> {
    let seen = evidence()?;
    for migration in &seen.migrations {
        let uid = migration.uid().context("no UID")?;
        for disk in &migration.status.clone().unwrap_or_default().disks {
            let recorded = disk.backup.clone().unwrap_or_default().snapshot_id.context("no snapshot")?;
            ensure!(recorded.len() == 64, "{recorded} is not a full id");
            let name = format!("vmm-{uid}-restore-{}-1", disk.index);
            let job = seen.jobs.get(&name).with_context(|| format!("{name} was not seen"))?;
            let pod = job.spec.as_ref().and_then(|s| s.template.spec.as_ref()).context("no pod")?;
            let arguments = pod.containers[0].args.clone().unwrap_or_default();
            // Beside its backup it is told what that reads, and names the snapshot itself in the end.
            let given = |key: &str| arguments.iter().skip_while(|a| *a != key).nth(1);
            let named = given("--snapshot") == Some(&recorded);
            let read = disk.export.image_id.is_some() && given("--origin") == disk.export.image_id.as_ref();
            ensure!(named || read, "{name}: recorded {recorded}, arguments {arguments:?}");
            let restored = disk.restore.clone().unwrap_or_default().snapshot_id;
            ensure!(restored.as_ref() == Some(&recorded), "recorded {recorded}, restored {restored:?}");
        }
    }
    // The same of what really ran.
    let dumps: Vec<_> =
        seen.said["argument lists"].iter().filter(|a| a.contains("restic") && a.contains(" dump ")).collect();
    ensure!(!dumps.is_empty(), "no restic dump was seen");
    let full = |a: &str| a.split(' ').any(|w| w.len() == 64 && w.bytes().all(|c| c.is_ascii_hexdigit()));
    for dump in dumps {
        ensure!(full(dump) && !dump.contains("latest"), "restic was called as {dump}");
    }
    Ok(())
}

#[test]
fn never_6_a_secret_is_shown() -> Result<()> {
    let seen = evidence()?;
    ensure!(seen.secrets.len() == 6, "secrets are {:?}", seen.secrets.keys());
    let mut wrong = vec![];
    for (what, secret) in &seen.secrets {
        ensure!(secret.len() >= 12, "{what} is too short to be looked for");
        let encoded = serde_json::to_value(ByteString(secret.clone().into_bytes()))?;
        let encoded = encoded.as_str().context("no base64")?;
        // In JSON the lines of a text are not apart by a line feed.
        let mut parts: Vec<&str> = secret.lines().filter(|l| l.len() >= 12).collect();
        parts.push(encoded);
        for (place, texts) in &seen.said {
            if texts.iter().any(|t| parts.iter().any(|p| t.contains(p))) {
                wrong.push(format!("{place}: {what}"));
            }
        }
    }
    for (place, texts) in &seen.said {
        // How every token of these clouds begins.
        if texts.iter().any(|t| t.contains("gAAAAA")) {
            wrong.push(format!("{place}: a token"));
        }
    }
    ensure!(wrong.is_empty(), "shown in {wrong:?}");
    // All the places were looked at, and something was said there.
    for place in [
        "VmMigration",
        "VmMigrationReport",
        "OpenStackCloud",
        "ObjectStore",
        "events in site-a",
        "Jobs in site-b",
        "pods in site-a",
        "logs of init",
        "logs of backup-0",
        "logs of restore-0",
        "logs of check",
    ] {
        let texts = seen.said.get(place).with_context(|| format!("nothing was seen of {place}"))?;
        ensure!(texts.iter().any(|t| !t.is_empty()), "nothing was said in {place}");
    }
    for migration in &seen.migrations {
        let name = migration.namespace().unwrap_or_default();
        let log = &seen.said["the operator's log"];
        ensure!(log.iter().any(|l| l.contains(&name)), "the operator's log says nothing of {name}");
    }
    let ran =
        |words: [&str; 2]| seen.said["argument lists"].iter().any(|a| words.iter().all(|w| a.contains(w)));
    ensure!(ran(["restic", " backup "]) && ran(["restic", " dump "]), "restic was not seen at work");
    Ok(())
}

#[test]
fn movers_are_restricted() -> Result<()> {
    let seen = evidence()?;
    let purposes: BTreeSet<&str> = seen.pods.values().map(|pod| purpose(pod.labels())).collect();
    for wanted in ["probe-source", "probe-destination", "init", "backup-0", "restore-0"] {
        ensure!(purposes.contains(wanted), "no pod of {wanted} was seen, only {purposes:?}");
    }
    for (name, pod) in &seen.pods {
        restricted(pod).with_context(|| format!("pod {name}"))?;
    }
    Ok(())
}

fn restricted(pod: &Pod) -> Result<()> {
    let spec = pod.spec.as_ref().context("no spec")?;
    ensure!(spec.automount_service_account_token == Some(false), "mounts an API token");
    let host = [spec.host_network, spec.host_pid, spec.host_ipc].contains(&Some(true));
    ensure!(!host, "shares a namespace with its node");
    let harmless = |v: &Volume| v.empty_dir.is_some() || v.secret.is_some();
    ensure!(spec.volumes.iter().flatten().all(harmless), "mounts {:?}", spec.volumes);
    let context = spec.security_context.clone().unwrap_or_default();
    ensure!(context.run_as_non_root == Some(true) && context.run_as_user.unwrap_or(0) != 0, "may be root");
    let seccomp = context.seccomp_profile.map(|p| p.type_);
    ensure!(seccomp.as_deref() == Some("RuntimeDefault"), "seccomp profile {seccomp:?}");
    ensure!(spec.init_containers.as_ref().is_none_or(Vec::is_empty), "has init containers");
    for container in &spec.containers {
        let context = container.security_context.clone().unwrap_or_default();
        ensure!(context.read_only_root_filesystem == Some(true), "may write its root");
        ensure!(context.allow_privilege_escalation == Some(false), "may gain rights");
        ensure!(context.privileged != Some(true), "is privileged");
        let capabilities = context.capabilities.unwrap_or_default();
        ensure!(capabilities.drop.as_deref() == Some(&["ALL".to_string()]), "keeps capabilities");
        ensure!(capabilities.add.is_none_or(|a| a.is_empty()), "adds capabilities");
        ensure!(container.env_from.as_ref().is_none_or(Vec::is_empty), "environment from elsewhere");
        for variable in container.env.iter().flatten() {
            let plain = variable.value_from.is_none() && ["HOME", "TMPDIR"].contains(&variable.name.as_str());
            ensure!(plain, "environment variable {}", variable.name);
        }
    }
    Ok(())
}

#[test]
fn movers_namespaces_enforce_the_restricted_profile() -> Result<()> {
    shared("movers_ns", |lab| async move {
        for client in [&lab.kube, &lab.kube_b] {
            let namespace = Api::<Namespace>::all(client.clone()).get(MOVERS).await?;
            let enforced = namespace.labels().get("pod-security.kubernetes.io/enforce").cloned();
            ensure!(enforced.as_deref() == Some("restricted"), "{MOVERS} enforces {enforced:?}");
        }
        Ok(())
    })
}
