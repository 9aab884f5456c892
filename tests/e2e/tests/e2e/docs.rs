//! The commands of the documentation, word for word, around one migration: those of a person with a tenant's rights,
//! and those of the platform. `operator/tests/docs_commands.rs` sees to it that none is missing here.

#[path = "../../../../operator/tests/common/pages.rs"]
mod pages;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Disks, Lab, MOVERS, Migration, Terminal, labelled, said, setting, shared, until};
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
    rc::Rc,
};
use tokio::process::Child;
use vmmigration::crd::v1alpha1::*;

/// Two machines, and which commands were not run yet.
struct Desk {
    /// With a tenant's rights.
    person: Terminal,
    /// The administrator's.
    platform: Terminal,
    server: String,
    all: BTreeSet<String>,
    open: RefCell<BTreeSet<String>>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Desk {
    async fn of(lab: &Lab, server: &str) -> Result<Self> {
        let mut all = pages::commands(&repository())?;
        // Those build the project.
        all.retain(|c| !c.starts_with("make "));
        let (person, platform) = (Terminal::of_tenant(lab).await?, Terminal::of_platform(lab)?);
        let open = RefCell::new(all.clone());
        Ok(Desk { person, platform, server: server.into(), all, open })
    }

    /// The command as it is run: names of this test in place of those of the page.
    fn here(&self, command: &str, values: &[(&str, &str)]) -> Result<String> {
        ensure!(self.all.contains(command), "no page has this command: {command}");
        self.open.borrow_mut().remove(command);
        let server = format!("--server {} --name web-1", self.server);
        let line = command.replace("--server web-1", &server).replace(" NAME", " web-1");
        Ok(values.iter().fold(line, |line, (word, value)| line.replace(word, value)))
    }

    /// Starts a command that runs on beside others.
    fn start(&self, command: &str) -> Result<Child> {
        self.person.start_line(&self.here(command, &[])?)
    }

    /// A command of the person that must succeed.
    async fn person(&self, command: &str) -> Result<String> {
        let line = self.here(command, &[])?;
        said(self.person.start_line(&line)?).await?.with(0).with_context(|| line)
    }

    /// A command of the platform that must succeed.
    async fn platform(&self, command: &str, values: &[(&str, &str)]) -> Result<String> {
        let line = self.here(command, values)?;
        said(self.platform.start_line(&line)?).await?.with(0).with_context(|| line)
    }

    /// A command that has the server's name typed.
    async fn typed(&self, command: &str) -> Result<()> {
        let line = self.here(command, &[])?;
        let said = self.person.answering(&line, "Type the server's name", &self.server).await?;
        said.with(0).map(drop).with_context(|| line)
    }
}

#[test]
fn every_command_of_the_documentation_works() -> Result<()> {
    shared("docs", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let desk = Desk::of(&lab, &made.name).await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).named("web-1");
        platforms_sample(&lab, &desk).await?;
        installed(&desk).await?;
        secrets(&lab, &desk).await?;
        looked_at_and_given_up(&lab, &desk, &migration).await?;
        back_and_again(&desk, &migration).await?;
        moved(&lab, &desk, &migration).await?;
        afterwards(&desk, &migration).await?;
        snapshots(&lab, &desk).await?;
        ensure!(desk.open.borrow().is_empty(), "never run: {:#?}", desk.open.borrow());
        Ok(())
    })
}

/// The rest happens under the quota and the limits of the platform's sample, hooks included.
async fn platforms_sample(lab: &Rc<Lab>, desk: &Desk) -> Result<()> {
    let sample = std::fs::read_to_string(repository().join("config/samples/platform-tenant.yaml"))?;
    desk.platform.script("platform-tenant.yaml", &sample.replace("team-web", &lab.name))?;
    said(desk.platform.start_line("kubectl apply -f platform-tenant.yaml")?).await?.with(0)?;
    until("the quota to be counted", 120, || async {
        let quota = lab.api::<ResourceQuota>(&lab.name).get("vmmigration").await?;
        let hard = quota.spec.and_then(|s| s.hard).unwrap_or_default();
        let used = quota.status.and_then(|s| s.used).unwrap_or_default();
        let missing: Vec<_> = hard.keys().filter(|k| !used.contains_key(*k)).collect();
        if missing.is_empty() { Ok(Some(())) } else { bail!("not counted: {missing:?}") }
    })
    .await
}

async fn installed(desk: &Desk) -> Result<()> {
    let from = desk.person.program().to_string();
    for terminal in [&desk.person, &desk.platform] {
        std::fs::create_dir(terminal.home.path().join("bin"))?;
        let line = desk.here(
            "install target/debug/kubectl-vmmigration /usr/local/bin/",
            &[("target/debug/kubectl-vmmigration", &from), ("/usr/local/bin/", "bin/")],
        )?;
        said(terminal.start_line(&line)?).await?.with(0)?;
    }
    let help = desk.person("kubectl vmmigration --help").await?;
    ensure!(help.contains("Usage: kubectl vmmigration"), "{help}");
    let line = desk.here(
        "kubectl vmmigration completion bash >/etc/bash_completion.d/kubectl-vmmigration",
        &[("/etc/bash_completion.d/", "./")],
    )?;
    said(desk.person.start_line(&line)?).await?.with(0)?;
    ensure!(desk.person.written("kubectl-vmmigration").contains("complete"), "no completion");
    desk.person("kubectl vmmigration check").await?;
    let yaml = desk
        .person(
            "kubectl vmmigration create --from site-a --server web-1 --to site-b --dry-run=client -o yaml",
        )
        .await?;
    ensure!(serde_saphyr::from_str::<VmMigration>(&yaml)?.spec.source.server == desk.server, "{yaml}");
    Ok(())
}

async fn secrets(lab: &Rc<Lab>, desk: &Desk) -> Result<()> {
    desk.platform.script("id_ed25519", &std::fs::read_to_string(setting("TESTBED_SSH_KEY")?)?)?;
    desk.platform("kubectl create secret generic shop-ssh --from-file=id_ed25519", &[]).await?;
    for name in ["web-ssh", "tools"] {
        lab.secret(&lab.name, name, &[("key", "value".into())]).await?;
    }
    desk.platform("kubectl label secret shop-ssh vmmigration.io/hook=true", &[]).await?;
    desk.platform("kubectl label secret web-ssh vmmigration.io/hook=true", &[]).await?;
    let named = "kubectl label secret NAME vmmigration.io/hook=true";
    desk.platform(named, &[("web-1", "tools")]).await?;
    for name in ["shop-ssh", "web-ssh", "tools"] {
        let secret = lab.api::<Secret>(&lab.name).get(name).await?;
        ensure!(
            secret.labels().get("vmmigration.io/hook").is_some_and(|v| v == "true"),
            "{name}: {secret:?}"
        );
    }
    Ok(())
}

/// One that waits for its go is looked at from all sides, and cancelled.
async fn looked_at_and_given_up(lab: &Rc<Lab>, desk: &Desk, migration: &Migration) -> Result<()> {
    desk.person.script("stop-app.sh", "echo \"$VMM_HOOK\" >>stopped\n")?;
    desk.person.script("ask.sh", "echo \"$VMM_HOOK\" >>asked\n")?;
    let run = desk.start(
        "kubectl vmmigration run --from site-a --server web-1 --to site-b --hook BeforeStop=./stop-app.sh",
    )?;
    until("the object that run makes", 120, || async { Ok(Some(migration.uid().await?)) }).await?;
    migration.wait_phase(Phase::AwaitingCutover, 240).await?;

    let all = desk.person("kubectl get vmm").await?;
    ensure!(all.contains("web-1") && all.contains("AwaitingCutover"), "{all}");
    let described = desk.person("kubectl describe vmm NAME").await?;
    ensure!(described.contains("Preflight") && described.contains("Timeline"), "{described}");
    let hooks = desk
        .person(r#"kubectl get vmm web-1 -o jsonpath='{range .status.hooks[*]}{.name}{"\t"}{.state}{"\t"}{.message}{"\n"}{end}'"#)
        .await?;
    ensure!(hooks.contains("client-before-stop"), "{hooks:?}");
    let events =
        desk.platform("kubectl get events.events.k8s.io --field-selector regarding.name=web-1", &[]).await?;
    ensure!(events.contains("web-1"), "{events}");
    let log =
        desk.platform("kubectl -n vmmigration-system logs deployment/vmmigration-operator", &[]).await?;
    ensure!(log.contains(&lab.name), "the operator's log does not tell of it");
    let listed = desk.platform("kubectl vmmigration list -A", &[]).await?;
    ensure!(listed.contains(&lab.name), "{listed}");
    let described = desk.person("kubectl vmmigration describe web-1").await?;
    ensure!(described.contains("AwaitingCutover"), "{described}");
    let bundle = desk.person("kubectl vmmigration diagnose web-1").await?;
    ensure!(bundle.contains("diagnose-web-1-"), "{bundle}");

    desk.person(r#"kubectl patch vmm NAME --type merge -p '{"spec":{"suspend":true}}'"#).await?;
    migration.wait("suspended", 60, |s| s.suspended_since.clone()).await?;
    desk.person("kubectl vmmigration resume web-1").await?;
    desk.person("kubectl vmmigration suspend web-1").await?;
    desk.person("kubectl vmmigration resume web-1").await?;
    desk.person("kubectl vmmigration cutover web-1 --at 2030-08-29T22:00:00+02:00").await?;
    ensure!(migration.get().await?.spec.cutover.mode == CutoverMode::At, "the time was not set");
    desk.person("kubectl vmmigration cancel web-1").await?;
    migration.wait_failed(180).await?;
    said(run).await?.with(3)?;

    desk.person("kubectl annotate vmm web-1 vmmigration.io/abandon=$(kubectl get vmm web-1 -o jsonpath='{.metadata.uid}')")
        .await?;
    desk.person("kubectl delete vmm NAME").await?;
    migration.wait_gone(60).await
}

/// The object that stays: a hook of each place.
fn object(server: &str) -> Value {
    json!({
        "apiVersion": "vmmigration.io/v1alpha1", "kind": "VmMigration", "metadata": {"name": "web-1"},
        "spec": {
            "source": {"cloud": "site-a", "server": server}, "destination": {"cloud": "site-b"},
            "cutover": {"mode": "Manual"},
            "hooks": [
                {"name": "greet", "phase": "BeforePreflight", "timeout": "2m",
                    "job": {"secrets": ["tools"], "script": "[ \"$(cat /secrets/tools/key)\" = value ]"}},
                {"name": "stop", "phase": "BeforeStop", "client": {}},
                {"name": "go-ahead", "phase": "AfterVerification", "timeout": "10m", "client": {}},
            ],
            "verification": {"checks": [
                {"name": "page", "http": {"path": "/root.txt"}, "timeoutSeconds": 240}]},
        },
    })
}

/// Rolled back and tried again, twice, before anything is stopped.
async fn back_and_again(desk: &Desk, migration: &Migration) -> Result<()> {
    desk.person.script("web-1.yaml", &object(&desk.server).to_string())?;
    said(desk.person.start_line("kubectl apply -f web-1.yaml")?).await?.with(0)?;
    let waits = async || migration.wait_phase(Phase::AwaitingCutover, 240).await;
    let rolled_back = async || {
        until("the rollback", 180, || async {
            Ok((migration.status().await?.phase == Some(Phase::RolledBack)).then_some(()))
        })
        .await
    };
    let again = async |attempt: i32| {
        let begun = async || Ok((migration.status().await?.attempts == attempt).then_some(()));
        until("a new try", 120, begun).await
    };
    let first = waits().await?;
    let greeted = first.hooks.iter().any(|r| r.name == "greet" && r.state == HookState::Succeeded);
    ensure!(greeted, "no hook's pod within the quota: {:?}", first.hooks);
    desk.person(r#"kubectl patch vmm NAME --type merge -p '{"spec":{"requests":{"rollback":"1"}}}'"#).await?;
    rolled_back().await?;
    desk.person(r#"kubectl patch vmm NAME --type merge -p '{"spec":{"requests":{"retry":"1"}}}'"#).await?;
    again(2).await?;
    waits().await?;
    desk.typed("kubectl vmmigration rollback web-1").await?;
    rolled_back().await?;
    desk.person("kubectl vmmigration retry web-1").await?;
    again(3).await?;
    waits().await.map(drop)
}

/// The go is given, three clients run the hooks, and the movers are looked at.
async fn moved(lab: &Rc<Lab>, desk: &Desk, migration: &Migration) -> Result<()> {
    let clients = [
        "kubectl vmmigration run --from site-a --server web-1 --to site-b --cutover Now --hook BeforeStop=./stop-app.sh",
        "kubectl vmmigration attach web-1 --hook BeforeStop=./stop-app.sh",
        "kubectl vmmigration attach web-1 --hook go-ahead=./ask.sh",
    ];
    let clients = clients.iter().map(|c| desk.start(c)).collect::<Result<Vec<_>>>()?;
    desk.person("kubectl vmmigration cutover web-1").await?;
    // By now it changes nothing.
    desk.person(r#"kubectl patch vmm web-1 --type merge -p '{"spec":{"cutover":{"mode":"Now"}}}'"#).await?;
    migration.wait_phase(Phase::Transferring, 240).await?;
    let uid = migration.uid().await?;
    let (label, uid) = (format!("vmmigration.io/migration={uid}"), [("UID", uid.as_str())]);
    let listing = "kubectl -n vmmigration-movers get jobs,pods -l vmmigration.io/migration=UID";
    until("a mover that has a log", 240, || async {
        let pods = labelled(&lab.kube, MOVERS, &label).await?;
        let pod = pods.first().context("no pod yet")?.name_any();
        let listed = desk.platform(listing, &uid).await?;
        ensure!(listed.contains(&pod), "{listed}");
        desk.platform("kubectl -n vmmigration-movers logs POD", &[("POD", &pod)]).await.map(Some)
    })
    .await?;
    desk.person("kubectl wait --for=condition=Succeeded vmm/web-1 --timeout=2h").await?;
    migration.wait_succeeded().await?;
    for client in clients {
        said(client).await?.with(0)?;
    }
    let ran = (desk.person.written("stopped"), desk.person.written("asked"));
    ensure!(ran == ("stop\n".into(), "go-ahead\n".into()), "the hooks ran: {ran:?}");
    Ok(())
}

/// Evidence, what comes too late, and the retirement.
async fn afterwards(desk: &Desk, migration: &Migration) -> Result<()> {
    let proofs = desk
        .person(r#"kubectl get vmm web-1 -o jsonpath='{range .status.disks[*]}{.index}{"\t"}{.proof.algorithm}{"\t"}{.proof.digest}{"\t"}{.proof.sourceReadBy}{"\t"}{.proof.destinationReadBy}{"\n"}{end}'"#)
        .await?;
    let told = |row: &str| row.split('\t').count() == 5 && row.split('\t').all(|field| !field.is_empty());
    ensure!(!proofs.is_empty() && proofs.lines().all(told), "{proofs}");
    let wide = desk.person("kubectl get vmm -o wide").await?;
    ensure!(wide.contains("VERIFIED"), "{wide}");
    let page = desk.person("kubectl vmmigration report web-1 -o markdown").await?;
    ensure!(page.starts_with("# Migration of "), "{page}");
    let answered = async |name: RequestName| {
        until("an answer", 60, || async {
            let rows = migration.status().await?.requests;
            Ok(rows.into_iter().find(|r| r.name == name && r.token == "1"))
        })
        .await
    };
    desk.person(r#"kubectl patch vmm NAME --type merge -p '{"spec":{"requests":{"cancel":"1"}}}'"#).await?;
    let row = answered(RequestName::Cancel).await?;
    ensure!(row.result == RequestResult::Refused, "{row:?}");
    desk.person(r#"kubectl patch vmm NAME --type merge -p '{"spec":{"sourcePolicy":{"action":"Delete","after":"1d"}}}'"#)
        .await?;
    desk.typed("kubectl vmmigration retire web-1").await?;
    migration.wait_phase(Phase::Retired, 300).await?;
    desk.person(r#"kubectl patch vmm NAME --type merge -p '{"spec":{"requests":{"retire":"1"}}}'"#).await?;
    answered(RequestName::Retire).await.map(drop)
}

/// A snapshot as one that was kept, listed and deleted by hand.
async fn snapshots(lab: &Rc<Lab>, desk: &Desk) -> Result<()> {
    let volume = lab.a.make_volume(json!({"name": lab.name, "size": 1, "volume_type": "nfs"})).await?;
    let wanted = json!({"snapshot": {"name": lab.name, "volume_id": volume}});
    let made = lab.a.rest.post("volumev3", "/snapshots", wanted).await?;
    let id = made["snapshot"]["id"].as_str().context("no id")?.to_string();
    until("the snapshot", 120, || async {
        let found = lab.a.rest.get("volumev3", &format!("/snapshots/{id}")).await?;
        Ok((found["snapshot"]["status"] == "available").then_some(()))
    })
    .await?;
    let listed = desk.platform("openstack --os-cloud site-a volume snapshot list", &[]).await?;
    ensure!(listed.contains(&id), "{listed}");
    desk.platform("openstack --os-cloud site-a volume snapshot delete ID", &[("ID", &id)]).await?;
    until("the snapshot's end", 120, || async {
        let left = lab.a.cloud.list_snapshots().await?;
        Ok((!left.iter().any(|s| s.id == id)).then_some(()))
    })
    .await
}
