//! The commands of the documentation, word for word, around one migration: those of a person with a tenant's rights,
//! and those of the platform. `operator/tests/docs_commands.rs` sees to it that none is missing; those that install the
//! operator are in `alone/helm.rs`.

#[path = "../../../../operator/tests/common/pages.rs"]
mod pages;

use crate::client::{drawn, looks, told_afterwards};
use anyhow::{Context, Result, bail, ensure};
use e2e::{Disks, Lab, MOVERS, Migration, Site, Terminal, ca, labelled, said, setting, shared, until};
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
    rc::Rc,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
};
use vmmigration::crd::v1alpha1::*;

/// Two machines, and which commands of a test were not run yet.
pub struct Desk {
    /// With a tenant's rights.
    pub person: Terminal,
    /// The administrator's.
    pub platform: Terminal,
    server: String,
    all: BTreeSet<String>,
    open: RefCell<BTreeSet<String>>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Desk {
    /// With all commands that the test's source has. In its directory are the chart and the samples' place.
    pub async fn of(lab: &Lab, server: &str, source: &str) -> Result<Self> {
        let mut all = pages::commands(&repository())?;
        all.retain(|command| pages::has(source, command));
        let (person, platform) = (Terminal::of_tenant(lab).await?, Terminal::of_platform(lab)?);
        let home = platform.home.path();
        std::os::unix::fs::symlink(repository().join("charts"), home.join("charts"))?;
        std::fs::create_dir_all(home.join("config/samples"))?;
        let open = RefCell::new(all.clone());
        Ok(Desk { person, platform, server: server.into(), all, open })
    }

    /// All its commands were run.
    pub fn done(&self) -> Result<()> {
        ensure!(self.open.borrow().is_empty(), "never run: {:#?}", self.open.borrow());
        Ok(())
    }

    /// A sample in the platform's directory, with names of this test in place of its own.
    fn sample(&self, name: &str, values: &[(&str, &str)]) -> Result<()> {
        let path = format!("config/samples/{name}");
        let text = std::fs::read_to_string(repository().join(&path))?;
        for (word, _) in values {
            ensure!(text.contains(word), "{path} has no {word}");
        }
        let text = values.iter().fold(text, |text, (word, value)| text.replace(word, value));
        self.platform.script(&path, &text).map(drop)
    }

    /// The command as it is run: names of this test in place of those of the page.
    fn here(&self, command: &str, values: &[(&str, &str)]) -> Result<String> {
        ensure!(self.all.contains(command), "no page has this command: {command}");
        self.open.borrow_mut().remove(command);
        let server = format!("--server {} --name web-1", self.server);
        let line = command.replace("--server web-1", &server).replace(" NAME", " web-1");
        for (word, _) in values {
            ensure!(line.contains(word), "{line} has no {word}");
        }
        let line = values.iter().fold(line, |line, (word, value)| line.replace(word, value));
        Ok(line.replace("team-web", self.platform.namespace()))
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
    pub async fn platform(&self, command: &str, values: &[(&str, &str)]) -> Result<String> {
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
        let desk = Desk::of(&lab, &made.name, include_str!("docs.rs")).await?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).named("web-1");
        platforms_sample(&lab, &desk).await?;
        installed(&desk).await?;
        secrets(&lab, &desk).await?;
        first_steps(&lab, &desk).await?;
        looks(&desk.person, &desk.server).await?;
        looked_at_and_given_up(&lab, &desk, &migration).await?;
        back_and_again(&desk, &migration).await?;
        moved(&lab, &desk, &migration, &made.address).await?;
        told_afterwards(&desk.person, &migration).await?;
        afterwards(&desk, &migration).await?;
        snapshots(&lab, &desk).await?;
        image(&lab, &desk).await?;
        desk.done()
    })
}

/// The rest happens under the quota and the limits of the platform's sample, hooks included.
async fn platforms_sample(lab: &Rc<Lab>, desk: &Desk) -> Result<()> {
    desk.sample("platform-tenant.yaml", &[("team-web", &lab.name)])?;
    desk.platform("kubectl apply -f config/samples/platform-tenant.yaml", &[]).await?;
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
    desk.platform.script("user-data", "#cloud-config\nusers: []\n")?;
    desk.platform("kubectl create secret generic shop-2 --from-file=user-data", &[]).await?;
    desk.platform("kubectl label secret shop-2 vmmigration.io/hook=true", &[]).await?;
    desk.platform("kubectl label secret web-ssh vmmigration.io/hook=true", &[]).await?;
    let named = "kubectl label secret NAME vmmigration.io/hook=true";
    desk.platform(named, &[("web-1", "tools")]).await?;
    for name in ["shop-ssh", "shop-2", "web-ssh", "tools"] {
        let secret = lab.api::<Secret>(&lab.name).get(name).await?;
        ensure!(
            secret.labels().get("vmmigration.io/hook").is_some_and(|v| v == "true"),
            "{name}: {secret:?}"
        );
    }
    Ok(())
}

/// Getting started, in a namespace that has nothing yet: from credentials to the plan, and then somebody changes their mind.
async fn first_steps(lab: &Rc<Lab>, desk: &Desk) -> Result<()> {
    let team = format!("{}-team", lab.name);
    let here = [("team-web", team.as_str())];
    said(desk.platform.start_line(&format!("kubectl create namespace {team}"))?).await?.with(0)?;
    let mut made = vec![];
    for site in [&lab.a, &lab.b] {
        made.push(credential(desk, site, &lab.name).await?);
    }
    desk.platform.script("credentials.yaml", &filled_in(lab, &made)?)?;
    desk.platform("kubectl -n team-web apply -f credentials.yaml", &here).await?;
    let location = format!("{}/team", lab.location()?);
    desk.sample("clouds.yaml", &[("s3:https://s3.example.com/vm-transfer/team-web", location.as_str())])?;
    desk.platform("kubectl -n team-web apply -f config/samples/clouds.yaml", &here).await?;
    let ready =
        "kubectl -n team-web wait --for=condition=Ready osc/site-a osc/site-b ostore/transfer --timeout=2m";
    desk.platform(ready, &here).await?;

    let server = format!("server: {}", desk.server);
    desk.sample("migration-minimal.yaml", &[("server: web-1", server.as_str())])?;
    desk.platform("kubectl -n team-web apply -f config/samples/migration-minimal.yaml", &here).await?;
    let watching = desk.platform.start_line(&desk.here("kubectl -n team-web get vmm -w", &here)?)?;
    shows(watching, "AwaitingCutover").await?;
    let described = desk.platform("kubectl -n team-web describe vmm web-1", &here).await?;
    ensure!(described.contains("Fidelity") && described.contains("Plan"), "{described}");
    let found = desk
        .platform(r#"kubectl -n team-web get vmm web-1 -o jsonpath='{range .status.preflight[*]}{.severity} {.message}{"\n"}{end}'"#, &here)
        .await?;
    ensure!(found.contains("Warning "), "{found}");
    let migration = lab.migration(&desk.server, CutoverMode::Manual).in_namespace(&team).named("web-1");
    migration.wait_phase(Phase::AwaitingCutover, 60).await?;
    let in_team = format!("kubectl -n {team} delete");
    desk.platform("kubectl delete vmm web-1", &[("kubectl delete", in_team.as_str())]).await?;
    migration.wait_gone(60).await?;
    for site in [&lab.a, &lab.b] {
        let cloud = format!("--os-cloud {}-tenant", site.name);
        let line = format!("openstack {cloud} application credential delete {}", lab.name);
        said(desk.platform.start_line(&line)?).await?.with(0)?;
    }
    Ok(())
}

/// Id and secret of a new application credential, as the command shows them.
async fn credential(desk: &Desk, site: &Site, name: &str) -> Result<[String; 2]> {
    let cloud = format!("openstack --os-cloud {}-tenant", site.name);
    let values = [("openstack", cloud.as_str()), ("vmmigration", name)];
    let shown = desk.platform("openstack application credential create vmmigration", &values).await?;
    let field = |name: &str| {
        let mut rows = shown.lines().map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        let row = rows.find(|row| row.get(1) == Some(&name));
        row.and_then(|row| row.get(2).map(ToString::to_string))
            .with_context(|| format!("no {name} in {shown}"))
    };
    Ok([field("id")?, field("secret")?])
}

/// The sample of the three Secrets with what belongs there.
fn filled_in(lab: &Lab, made: &[[String; 2]]) -> Result<String> {
    let sample = std::fs::read_to_string(repository().join("config/samples/credentials.yaml"))?;
    let ca = String::from_utf8(ca()?)?;
    let mut documents = vec![];
    for document in sample.split("\n---\n") {
        let mut secret: Value = serde_saphyr::from_str(document)?;
        let data = &mut secret["stringData"];
        data["cacert"] = json!(ca);
        if let Some(keys) = data.as_object_mut().filter(|data| data.contains_key("AWS_ACCESS_KEY_ID")) {
            keys.insert("AWS_ACCESS_KEY_ID".into(), json!(setting("TESTBED_S3_ACCESS_KEY")?));
            keys.insert("AWS_SECRET_ACCESS_KEY".into(), json!(setting("TESTBED_S3_SECRET_KEY")?));
        } else {
            let (site, [id, key]) =
                [&lab.a, &lab.b].into_iter().zip(made).nth(documents.len()).context("a third cloud")?;
            let entry = |path: &str| site.entry.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let address = format!("https://keystone.{}.example.com/v3", site.name);
            let clouds = data["clouds.yaml"].as_str().context("no clouds.yaml")?;
            let clouds = clouds.replace(&address, entry("/auth/auth_url"));
            let clouds = clouds.replace("RegionOne", entry("/region_name"));
            data["clouds.yaml"] = json!(clouds.replacen("REPLACE", id, 1).replacen("REPLACE", key, 1));
        }
        ensure!(!secret.to_string().contains("REPLACE"), "not all is filled in: {document}");
        documents.push(secret.to_string());
    }
    Ok(documents.join("\n---\n"))
}

/// Reads what a command shows until a word is in it, and ends the command.
async fn shows(mut child: Child, word: &str) -> Result<()> {
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut seen = vec![];
    let found = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(word) {
                return Ok(());
            }
            seen.push(line);
        }
        bail!("it ended before")
    };
    let found = tokio::time::timeout(std::time::Duration::from_secs(240), found).await;
    child.kill().await?;
    found.context("it does not come").and_then(|found| found).with_context(|| format!("{word}: {seen:?}"))
}

/// One that waits for its go is looked at from all sides, and cancelled.
async fn looked_at_and_given_up(lab: &Rc<Lab>, desk: &Desk, migration: &Migration) -> Result<()> {
    desk.person.script(
        "stop-app.sh",
        "echo \"$VMM_HOOK $VMM_PHASE $VMM_SOURCE_SERVER_NAME $VMM_SOURCE_ADDRESS $(cat | wc -c)\" >>stopped\n",
    )?;
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
    let listed = desk.person("kubectl vmmigration list").await?;
    ensure!(listed.contains("web-1"), "{listed}");
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
    let out = said(run).await?.with(3)?;
    ensure!(out.contains("created") && !out.contains('\x1b'), "a pipe gets control characters: {out:?}");

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
async fn moved(lab: &Rc<Lab>, desk: &Desk, migration: &Migration, address: &str) -> Result<()> {
    let clients = [
        "kubectl vmmigration run --from site-a --server web-1 --to site-b --cutover Now --hook BeforeStop=./stop-app.sh",
        "kubectl vmmigration attach web-1 --hook BeforeStop=./stop-app.sh",
        "kubectl vmmigration attach web-1 --hook go-ahead=./ask.sh",
    ];
    let clients = clients.iter().map(|c| desk.start(c)).collect::<Result<Vec<_>>>()?;
    let coloured = desk.person.start_in_terminal("watch web-1 --timeout 30m", false)?;
    let plain = desk.person.start_in_terminal("watch web-1 --timeout 30m", true)?;
    desk.person("kubectl vmmigration cutover web-1").await?;
    // By now it changes nothing.
    desk.person(r#"kubectl patch vmm web-1 --type merge -p '{"spec":{"cutover":{"mode":"Now"}}}'"#).await?;
    desk.person(
        r#"kubectl -n team-web patch vmm web-1 --type merge -p '{"spec":{"cutover":{"mode":"Now"}}}'"#,
    )
    .await?;
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
    desk.person("kubectl wait --for=condition=Finished vmm/web-1 --timeout=2h").await?;
    desk.person("kubectl -n team-web wait --for=condition=Finished vmm/web-1 --timeout=2h").await?;
    for shown in ["kubectl get vmm web-1", "kubectl -n team-web get vmm web-1"] {
        let shown = desk.person(shown).await?;
        ensure!(shown.contains("Succeeded"), "{shown}");
    }
    for waited in ["kubectl vmmigration wait web-1", "kubectl vmmigration wait web-1 --timeout 2h"] {
        let waited = desk.person(waited).await?;
        ensure!(waited.contains(": Succeeded: "), "{waited}");
    }
    desk.person("kubectl vmmigration wait --all").await?;
    migration.wait_succeeded().await?;
    for client in clients {
        let out = said(client).await?.with(0)?;
        ensure!(out.contains("web-1: Succeeded") && !out.contains('\x1b'), "{out:?}");
    }
    drawn(&said(coloured).await?.with(0)?, true)?;
    drawn(&said(plain).await?.with(0)?, false)?;
    // Two clients had the hook: one of them ran it.
    let (stopped, asked) = (desk.person.written("stopped"), desk.person.written("asked"));
    let told = format!("stop BeforeStop {} {address} ", desk.server);
    ensure!(stopped.lines().count() == 1 && stopped.starts_with(&told), "the hook ran: {stopped:?}");
    ensure!(asked == "go-ahead\n", "the hook ran: {asked:?}");
    Ok(())
}

/// Evidence, what comes too late, and the retirement.
async fn afterwards(desk: &Desk, migration: &Migration) -> Result<()> {
    let reports = desk.person("kubectl -n team-web get vmmr").await?;
    ensure!(reports.contains("web-1-") && reports.contains("Succeeded"), "{reports}");
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
    answered(RequestName::Retire).await?;
    // Too late, and told so, however well its id was typed.
    let line = desk.here("kubectl vmmigration start-source web-1", &[])?;
    let id = migration.status().await?.source.context("no source is recorded")?.server_id;
    let said = desk.person.answering(&line, "Type the server's id", &id).await?.with(1)?;
    ensure!(said.contains("the source was retired"), "{said}");
    Ok(())
}

/// An image as one that was kept, deleted by hand.
async fn image(lab: &Rc<Lab>, desk: &Desk) -> Result<()> {
    let wanted = json!({"name": lab.name, "disk_format": "raw", "container_format": "bare"});
    let id = lab.b.cloud.create_image(&wanted).await?.id;
    desk.platform("openstack --os-cloud site-b image delete ID", &[("ID", &id)]).await?;
    ensure!(lab.b.cloud.get_image(&id).await?.is_none(), "image {id} is still there");
    Ok(())
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
