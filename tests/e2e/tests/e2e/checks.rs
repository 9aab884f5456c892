//! What the application must answer in B: over SSH, on its console, over HTTP and TCP.

use crate::{hooks::hook_secret, moves::in_b};
use anyhow::{Result, ensure};
use e2e::{Disks, Lab, Migration, Stays, setting, shared};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

fn with(mut migration: Migration, checks: Value) -> Result<Migration> {
    migration.spec.verification = Some(serde_json::from_value(json!({"checks": checks}))?);
    Ok(migration)
}

fn over_ssh(command: &str) -> Value {
    json!({"user": "root", "privateKeySecretRef": {"name": "key", "key": "id"}, "command": command})
}

async fn no_key_in_the_movers_namespaces(lab: &Rc<Lab>, uid: &str) -> Result<()> {
    for client in [&lab.kube, &lab.kube_b] {
        let secrets: kube::Api<Secret> = kube::Api::namespaced(client.clone(), e2e::MOVERS);
        let copy = secrets.get_opt(&format!("vmm-{uid}-check-1")).await?;
        ensure!(copy.is_none(), "a copy of the private key was left");
    }
    Ok(())
}

#[test]
fn checks_of_every_kind() -> Result<()> {
    shared("checks", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        made.guest()?.wait(&[]).await?;
        let key = std::fs::read_to_string(setting("TESTBED_SSH_KEY")?)?;
        lab.secret(&lab.name, "key", &[("id", key)]).await?;
        let checks = json!([
            {"name": "port", "tcp": {"port": 22}},
            {"name": "page", "http": {"path": "/root.txt", "contains": "hello", "pattern": "^hello from the [a-z]+ disk$",
                "header": {"name": "content-type", "pattern": "^text/plain"}}},
            {"name": "booted", "console": {"pattern": "^HTTPD-UP [0-9.]+$"}},
            // The host keys are those that the guest prints.
            {"name": "inside", "ssh": over_ssh("grep -q hello /www/root.txt")},
        ]);
        let migration = with(lab.migration(&made.name, CutoverMode::Now), checks)?.create().await?;
        migration.wait_blocked(&["hook-secret-not-allowed"]).await?;
        let labelled = json!({"metadata": {"labels": {"vmmigration.io/hook": "true"}}});
        lab.api::<Secret>(&lab.name).patch("key", &PatchParams::default(), &Patch::Merge(labelled)).await?;
        let object = migration.wait_succeeded().await?;
        let status = object.status.clone().unwrap_or_default();
        let passed: Vec<_> = status.checks.iter().map(|c| (c.name.as_str(), c.passed)).collect();
        let all = ["active", "port", "page", "booted", "inside"].map(|name| (name, true));
        ensure!(passed == all, "{:?}", status.checks);
        ensure!(in_b(&lab, &object).await?.status == "ACTIVE", "B does not run");
        no_key_in_the_movers_namespaces(&lab, &migration.uid().await?).await
    })
}

#[test]
fn failed_checks_tell_what_was_answered_and_give_the_source_back() -> Result<()> {
    shared("checks_failed", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        made.guest()?.wait(&[]).await?;
        let key = std::fs::read_to_string(setting("TESTBED_SSH_KEY")?)?;
        hook_secret(&lab, "key", json!({"id": key})).await?;
        let bad = json!([{"name": "booted", "console": {"pattern": "("}}]);
        let blocked =
            with(lab.migration(&made.name, CutoverMode::Manual), bad)?.named("bad").create().await?;
        blocked.wait_blocked(&["check-pattern-invalid"]).await?;
        blocked.delete().await?;

        let checks = json!([
            {"name": "booted", "timeoutSeconds": 600, "console": {"pattern": "^HTTPD-UP"}},
            {"name": "inside", "timeoutSeconds": 30, "ssh": over_ssh("echo not-to-be-shown; exit 3")},
        ]);
        let migration = with(lab.migration(&made.name, CutoverMode::Now), checks)?.create().await?;
        let status = lab.never_both(&made, migration.wait_failed(600)).await?;
        let failure = status.failure.clone().unwrap_or_default();
        ensure!(failure.reason == "VerificationFailed", "{failure:?}");
        ensure!(failure.message.contains("inside: the command ended with exit code 3"), "{failure:?}");
        let text = serde_json::to_string(&migration.get().await?)?.replace("echo not-to-be-shown", "");
        ensure!(!text.contains("not-to-be-shown"), "the command's output is shown");
        lab.a.runs_as_before(&made).await?;
        let uid = migration.uid().await?;
        no_key_in_the_movers_namespaces(&lab, &uid).await?;
        let left = lab.leftovers(&uid, Stays::ServerInB).await?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })
}
