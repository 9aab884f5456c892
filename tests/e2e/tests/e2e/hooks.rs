//! Hooks gate a migration: in pods near both clouds, in the guest, and on a client's machine; and it passes every kind
//! of check.

use crate::{
    checks::{checked_by, every_kind_of_check, no_key_in_the_movers_namespaces},
    moves::in_b,
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Guest, Lab, Migration, Stays, setting, shared, until};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Event, Secret},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

/// What no status, event, report and log may hold.
const TOKEN: &str = "this-is-a-secret";

/// A Secret that hooks may use.
pub async fn hook_secret(lab: &Rc<Lab>, name: &str, data: Value) -> Result<()> {
    let labels = json!({"vmmigration.io/hook": "true"});
    let secret = json!({"metadata": {"name": name, "labels": labels}, "stringData": data});
    let secret: Secret = serde_json::from_value(secret)?;
    lab.api(&lab.name).create(&PostParams::default(), &secret).await?;
    Ok(())
}

/// Secrets and ConfigMap that the hooks of a test use.
async fn prepare(lab: &Rc<Lab>) -> Result<()> {
    hook_secret(lab, "tools", json!({"token": TOKEN})).await?;
    let key = std::fs::read_to_string(setting("TESTBED_SSH_KEY")?)?;
    hook_secret(lab, "key", json!({"id": &key})).await?;
    lab.secret(&lab.name, "check-key", &[("id", key)]).await?;
    let script = r#"set -eu
[ "$VMM_PHASE $VMM_SOURCE_CLOUD" = "BeforePreflight site-a" ]
document=$(cat)
case $document in *'"phase":"BeforePreflight"'*) ;; *) exit 4 ;; esac
x="/tmp/a b.$$"
case $x in "/tmp/a b."[0-9]*) ;; *) exit 5 ;; esac
"#;
    let scripts = json!({"metadata": {"name": "scripts"}, "data": {"first.sh": script}});
    let scripts: ConfigMap = serde_json::from_value(scripts)?;
    lab.api(&lab.name).create(&PostParams::default(), &scripts).await?;
    Ok(())
}

/// Lets hooks and checks use a Secret.
async fn allow(lab: &Rc<Lab>, secret: &str) -> Result<()> {
    let labelled = json!({"metadata": {"labels": {"vmmigration.io/hook": "true"}}});
    lab.api::<Secret>(&lab.name).patch(secret, &PatchParams::default(), &Patch::Merge(labelled)).await?;
    Ok(())
}

/// With hooks.
fn hooked(migration: Migration, hooks: Value) -> Result<Migration> {
    let mut migration = migration;
    migration.spec.hooks = serde_json::from_value(hooks)?;
    Ok(migration)
}

fn row(status: &VmMigrationStatus, name: &str) -> HookRow {
    status.hooks.iter().find(|r| r.name == name).cloned().unwrap_or_default()
}

/// What a script prints: a megabyte, binary, and a last line.
const LOUD: &str = r#"[ "$VMM_ATTEMPT" = 2 ] || exit 7
curl -fsS -m 10 -o /dev/null "http://$VMM_SOURCE_ADDRESS/root.txt" || exit 8
head -c 1000000 /dev/zero | tr '\0' x
head -c 3000 /dev/urandom
printf '\033[31m\n<%s>' "$VMM_SOURCE_SERVER_NAME""#;

/// A pod of a hook has its Secrets, and nothing of the operator's.
const BARE: &str = r#"set -eu
[ "$(cat /secrets/tools/token)" = this-is-a-secret ]
cat /secrets/tools/token
[ ! -e /var/run/secrets/kubernetes.io ]
[ ! -e /etc/vmmigration ]
[ "$(id -u)" = 65532 ]"#;

/// The application is stopped; what it wrote last must arrive.
const STOP: &str = r#"set -e
killall httpd
! pidof httpd
printf '%s' "$VMM_SOURCE_SERVER_NAME" > /www/name.txt
cat > /www/document.txt
echo "last write" > /www/last.txt
sync"#;

#[test]
fn hooks_gate_a_whole_migration() -> Result<()> {
    shared("hooks", |lab| async move {
        prepare(&lab).await?;
        let name = format!("{} it's \"web\" $HOME", lab.name);
        let made = lab.a.make_server(&name, Disks::LOCAL).await?;
        made.guest()?.wait(&[]).await?;
        let key = json!({"name": "key", "key": "id"});
        let ssh = |more: Value| {
            let mut all = json!({"user": "root", "privateKeySecretRef": key});
            all.as_object_mut()
                .into_iter()
                .for_each(|a| a.extend(more.as_object().cloned().unwrap_or_default()));
            all
        };
        let hooks = json!([
            {"name": "first", "phase": "BeforePreflight", "job": {"configMap": {"name": "scripts", "key": "first.sh"}}},
            {"name": "loud", "phase": "BeforeStop", "retries": 2, "captureOutput": true, "job": {"script": LOUD}},
            {"name": "bare", "phase": "BeforeStop", "job": {"script": BARE, "secrets": ["tools"]}},
            {"name": "too-long", "phase": "BeforeStop", "timeout": "8s", "onError": "Continue", "job": {"script": "sleep 600"}},
            {"name": "stop-app", "phase": "BeforeStop", "timeout": "2m", "ssh": ssh(json!({"script": STOP}))},
            {"name": "is-down", "phase": "BeforeStop", "job": {"script": "! curl -s -m 5 \"http://$VMM_SOURCE_ADDRESS/root.txt\""}},
            {"name": "person", "phase": "BeforeCreate", "timeout": "5m", "captureOutput": true, "client": {}},
            {"name": "arrived", "phase": "AfterStart", "timeout": "4m",
                "ssh": ssh(json!({"script": "grep -q 'last write' /www/last.txt"}))},
            {"name": "near-b", "phase": "AfterVerification", "job": {"script": BARE, "secrets": ["tools"]}},
            {"name": "never", "phase": "OnFailure", "job": {"script": "true"}},
            {"name": "the-end", "phase": "Finally", "job": {"script": "[ \"$VMM_OUTCOME\" = Succeeded ]"}},
        ]);
        let migration = lab.migration(&made.id, CutoverMode::Now);
        let migration = checked_by(hooked(migration, hooks)?, every_kind_of_check())?.create().await?;
        // A check's key is allowed as a hook's is.
        migration.wait_blocked(&["hook-secret-not-allowed"]).await?;
        allow(&lab, "check-key").await?;
        let waits = |s: &VmMigrationStatus| Some(row(s, "person")).filter(|r| r.state == HookState::Waiting);
        migration.wait("waiting for a client", 480, waits).await?;
        let said = migration.status().await?.message.unwrap_or_default();
        ensure!(
            said.contains("kubectl vmmigration attach web")
                && said.contains("--hook BeforeCreate=./script.sh"),
            "{said}"
        );
        answer(&lab, &migration, "person").await?;
        let object = migration.wait_succeeded().await?;
        let status = object.status.clone().unwrap_or_default();
        as_expected(&status, &name)?;
        let passed: Vec<_> = status.checks.iter().map(|c| (c.name.as_str(), c.passed)).collect();
        let all = ["active", "port", "page", "booted", "inside"].map(|name| (name, true));
        ensure!(passed == all, "{:?}", status.checks);
        no_key_in_the_movers_namespaces(&lab, &migration.uid().await?).await?;
        arrived(&lab, &object, &name).await?;
        told(&lab, &migration, &status).await?;
        lab.left_only(&migration.uid().await?, Stays::Moved).await
    })
}

/// A client that claims the hook, and then answers.
pub async fn answer(lab: &Rc<Lab>, migration: &Migration, hook: &str) -> Result<()> {
    let api: Api<VmMigration> = lab.api(&migration.namespace);
    let nonce = row(&migration.status().await?, hook).nonce.context("no nonce")?;
    let seen_at = Some(Time(k8s_openapi::jiff::Timestamp::now()));
    let claim = ClientHookNote { nonce, client: "test@here".into(), seen_at, ..Default::default() };
    let done = ClientHookNote { exit_code: Some(0), output: Some("yes".into()), ..claim.clone() };
    let post = async |note: &ClientHookNote| -> Result<()> {
        let text = serde_json::to_string(note)?;
        let patch = json!({"metadata": {"annotations": {format!("{ANNOTATION_CLIENT_HOOK}{hook}"): text}}});
        api.patch(&migration.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    };
    // An answer to something else changes nothing.
    post(&ClientHookNote { nonce: "other".into(), exit_code: Some(1), ..Default::default() }).await?;
    post(&claim).await?;
    let runs = |s: &VmMigrationStatus| {
        Some(row(s, hook).client).filter(|_| row(s, hook).state == HookState::Running)
    };
    let client = migration.wait("run by the client", 30, runs).await?;
    ensure!(client.as_deref() == Some("test@here"), "it is run by {client:?}");
    post(&done).await
}

fn as_expected(status: &VmMigrationStatus, server: &str) -> Result<()> {
    for (name, state, attempts, code) in [
        ("first", HookState::Succeeded, 1, Some(0)),
        ("loud", HookState::Succeeded, 2, Some(0)),
        ("bare", HookState::Succeeded, 1, Some(0)),
        ("too-long", HookState::Ignored, 1, None),
        ("stop-app", HookState::Succeeded, 1, Some(0)),
        ("is-down", HookState::Succeeded, 1, Some(0)),
        ("person", HookState::Succeeded, 1, Some(0)),
        ("arrived", HookState::Succeeded, 1, Some(0)),
        ("near-b", HookState::Succeeded, 1, Some(0)),
        ("never", HookState::Pending, 0, None),
        ("the-end", HookState::Succeeded, 1, Some(0)),
    ] {
        let r = row(status, name);
        ensure!((r.state, r.attempts, r.exit_code) == (state, attempts, code), "{name}: {r:?}");
    }
    let long = row(status, "too-long").message.unwrap_or_default();
    ensure!(long.contains("longer than 8 s"), "{long}");
    let output = row(status, "loud").output.unwrap_or_default();
    ensure!(output.ends_with(&format!("\n<{server}>")), "its output is {output:?}");
    ensure!(output.len() <= OUTPUT_BYTES && !output.contains('\u{1b}'), "its output is {output:?}");
    ensure!(row(status, "person").output.as_deref() == Some("yes"), "{:?}", row(status, "person"));
    ensure!(row(status, "bare").output.is_none(), "output is kept although nobody wanted it");
    Ok(())
}

/// What the SSH hook wrote last is in B.
async fn arrived(lab: &Rc<Lab>, object: &VmMigration, name: &str) -> Result<()> {
    let server = in_b(lab, object).await?;
    let guest = Guest::at(&server.addresses.first().context("no address")?.address)?;
    ensure!(guest.text("/last.txt").await?.trim() == "last write", "the last write is not in B");
    ensure!(guest.text("/name.txt").await? == name, "the guest was told another name");
    let document: Value = serde_json::from_str(&guest.text("/document.txt").await?)?;
    ensure!(document["source"]["serverName"] == name, "the guest was told {document}");
    Ok(())
}

/// The report has it all; the secret is nowhere.
async fn told(lab: &Rc<Lab>, migration: &Migration, status: &VmMigrationStatus) -> Result<()> {
    let reports: Api<VmMigrationReport> = lab.api(&lab.name);
    let report = reports.list(&ListParams::default()).await?.items.into_iter().next().context("no report")?;
    let stopped = report.spec.hooks.iter().find(|h| h.name == "stop-app").context("no row in the report")?;
    ensure!(stopped.state == HookState::Succeeded, "{stopped:?}");
    let end = report.status.iter().flat_map(|s| &s.hooks).find(|h| h.name == "the-end");
    ensure!(end.is_some_and(|h| h.state == HookState::Succeeded), "{:?}", report.status);
    let events = lab.api::<Event>(&lab.name).list(&ListParams::default()).await?.items;
    let all = [
        ("status", serde_json::to_string(status)?),
        ("report", serde_json::to_string(&report)?),
        ("object", serde_json::to_string(&migration.get().await?.status)?),
        ("events", serde_json::to_string(&events)?),
        ("operator's log", lab.operator_log(None).await?),
    ];
    for (what, text) in all {
        ensure!(!text.contains(TOKEN), "the secret is in the {what}");
    }
    Ok(())
}

#[test]
fn a_failing_gate_leaves_a_running_and_b_empty() -> Result<()> {
    shared("gate", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let before = lab.footprint().await?;
        lab.secret(&lab.name, "not-for-hooks", &[("id", TOKEN.into())]).await?;
        refused(&lab, &made.name).await?;

        let end =
            r#"[ "$VMM_OUTCOME" = Failed ] && case $VMM_FAILURE in *"exit code 3"*) ;; *) exit 9 ;; esac"#;
        let hooks = json!([
            {"name": "gate", "phase": "BeforeStop", "retries": 1, "captureOutput": true, "job": {"script": "echo no; exit 3"}},
            {"name": "never", "phase": "BeforeStop", "job": {"script": "true"}},
            {"name": "undo", "phase": "OnFailure", "job": {"script": end}},
            {"name": "last", "phase": "Finally", "job": {"script": end}},
        ]);
        let migration = hooked(lab.migration(&made.name, CutoverMode::Now), hooks)?.create().await?;
        let status = migration.wait_failed(300).await?;
        let failure = status.failure.clone().unwrap_or_default();
        ensure!(failure.reason == "HookFailed", "{failure:?}");
        for part in ["gate", "BeforeStop", "attempt 2 of 2", "exit code 3"] {
            ensure!(failure.message.contains(part), "{failure:?}");
        }
        ensure!(row(&status, "gate").output.as_deref() == Some("no\n"), "{:?}", row(&status, "gate"));
        ensure!(row(&status, "never").state == HookState::Pending, "{:?}", status.hooks);
        for name in ["undo", "last"] {
            ensure!(row(&status, name).state == HookState::Succeeded, "{:?}", row(&status, name));
        }
        lab.a.runs_as_before(&made).await?;
        ensure!(lab.footprint().await? == before, "something was touched");
        lab.left_only(&migration.uid().await?, Stays::Nothing).await?;

        cancelled(&lab, &made.name).await?;
        lab.a.runs_as_before(&made).await?;
        ensure!(lab.footprint().await? == before, "something was touched");
        Ok(())
    })
}

/// What hooks may not use, or what is not there, blocks; all of it at once, and nothing is run.
async fn refused(lab: &Rc<Lab>, server: &str) -> Result<()> {
    let map = |name: &str, key: &str| json!({"name": name, "key": key});
    prepare(lab).await?;
    let hooks = json!([
        {"name": "image", "phase": "BeforePreflight", "job": {"script": "true", "image": "docker.io/library/bash:5"}},
        {"name": "map", "phase": "BeforeStop", "job": {"configMap": map("nothing", "x")}},
        {"name": "map-key", "phase": "BeforeStop", "job": {"configMap": map("scripts", "nothing")}},
        {"name": "secret", "phase": "BeforeStop", "job": {"script": "true", "secrets": ["not-for-hooks"]}},
        {"name": "no-secret", "phase": "BeforeStop", "job": {"script": "true", "secrets": ["nothing"]}},
        {"name": "no-key", "phase": "BeforeStop",
            "ssh": {"user": "root", "privateKeySecretRef": map("key", "nothing"), "script": "true"}},
    ]);
    let migration = hooked(lab.migration(server, CutoverMode::Now).named("refused"), hooks)?.create().await?;
    migration
        .wait_blocked(&[
            "hook-config-map-key-missing",
            "hook-config-map-missing",
            "hook-image-not-allowed",
            "hook-secret-key-missing",
            "hook-secret-missing",
            "hook-secret-not-allowed",
        ])
        .await?;
    let uid = migration.uid().await?;
    migration.delete().await?;
    migration.wait_gone(120).await?;
    lab.left_only(&uid, Stays::Nothing).await
}

/// A cancellation and a deletion end the hook that runs.
async fn cancelled(lab: &Rc<Lab>, server: &str) -> Result<()> {
    let hooks =
        json!([{"name": "slow", "phase": "BeforeStop", "timeout": "1h", "job": {"script": "sleep 3600"}}]);
    for delete in [false, true] {
        let name = if delete { "deleted" } else { "cancelled" };
        let migration = lab.migration(server, CutoverMode::Now).named(name);
        let migration = hooked(migration, hooks.clone())?.create().await?;
        let uid = migration.uid().await?;
        let jobs: Api<Job> = lab.api(&lab.name);
        let ours = ListParams::default().labels(&format!("vmmigration.io/migration={uid}"));
        until("the hook to run in the tenant's namespace", 180, || async {
            Ok(jobs.list(&ours).await?.items.first().map(ResourceExt::name_any))
        })
        .await?;
        if delete {
            migration.delete().await?;
            migration.wait_gone(180).await?;
        } else {
            migration.patch(json!({"requests": {"cancel": "now"}})).await?;
            let status = migration.wait_failed(180).await?;
            ensure!(status.phase == Some(Phase::Cancelled), "it is {:?}", status.phase);
        }
        lab.left_only(&uid, Stays::Nothing).await?;
    }
    Ok(())
}
