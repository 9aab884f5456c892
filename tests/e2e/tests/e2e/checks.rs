//! What the application must answer in B: over SSH, on its console, over HTTP and TCP. Here a check fails; that all pass
//! is in `hooks`.

use crate::{
    hooks::hook_secret,
    moves::{in_b, written},
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Guest, Lab, Migration, Stays, condition, setting, shared};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

/// A migration with these checks.
pub fn checked_by(mut migration: Migration, checks: Value) -> Result<Migration> {
    migration.spec.verification = Some(serde_json::from_value(json!({"checks": checks}))?);
    Ok(migration)
}

fn over_ssh(secret: &str, command: &str) -> Value {
    json!({"user": "root", "privateKeySecretRef": {"name": secret, "key": "id"}, "command": command})
}

/// One of each kind, all of which the guest passes; `hooks` runs them.
pub fn every_kind_of_check() -> Value {
    json!([
        {"name": "port", "tcp": {"port": 22}},
        {"name": "page", "http": {"path": "/root.txt", "contains": "hello", "pattern": "^hello from the [a-z]+ disk$",
            "header": {"name": "content-type", "pattern": "^text/plain"}}},
        {"name": "booted", "console": {"pattern": "^HTTPD-UP [0-9.]+$"}},
        // The host keys are those that the guest prints.
        {"name": "inside", "ssh": over_ssh("check-key", "grep -q hello /www/root.txt")},
    ])
}

/// The copy of a check's private key is gone with the check.
pub async fn no_key_in_the_movers_namespaces(lab: &Rc<Lab>, uid: &str) -> Result<()> {
    for client in [&lab.kube, &lab.kube_b] {
        let secrets: kube::Api<Secret> = kube::Api::namespaced(client.clone(), e2e::MOVERS);
        let copy = secrets.get_opt(&format!("vmm-{uid}-check-1")).await?;
        ensure!(copy.is_none(), "a copy of the private key was left");
    }
    Ok(())
}

#[test]
fn never_2_two_copies_run_and_never_8_success_without_all_checks() -> Result<()> {
    shared("never_8", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let page = written(&made, &[]).await?;
        let key = std::fs::read_to_string(setting("TESTBED_SSH_KEY")?)?;
        hook_secret(&lab, "key", json!({"id": key})).await?;
        let bad = json!([{"name": "booted", "console": {"pattern": "("}}]);
        let blocked =
            checked_by(lab.migration(&made.name, CutoverMode::Manual), bad)?.named("bad").create().await?;
        blocked.wait_blocked(&["check-pattern-invalid"]).await?;
        blocked.delete().await?;

        let checks = json!([
            {"name": "booted", "timeoutSeconds": 600, "console": {"pattern": "^HTTPD-UP"}},
            {"name": "inside", "timeoutSeconds": 30, "ssh": over_ssh("key", "echo not-to-be-shown; exit 3")},
        ]);
        let migration = checked_by(lab.migration(&made.name, CutoverMode::Now), checks)?.create().await?;
        let status = lab.never_both(&made, migration.wait_failed(600)).await?;
        let failure = status.failure.clone().unwrap_or_default();
        ensure!(failure.reason == "VerificationFailed", "{failure:?}");
        ensure!(failure.message.contains("inside: the command ended with exit code 3"), "{failure:?}");
        let object = migration.get().await?;
        let text = serde_json::to_string(&object)?.replace("echo not-to-be-shown", "");
        ensure!(!text.contains("not-to-be-shown"), "the command's output is shown");
        for (kind, wanted) in [("Succeeded", false), ("DestinationReady", false), ("SourceStopped", false)] {
            ensure!(condition(&object, kind) == Some(wanted), "{kind} is {:?}", condition(&object, kind));
        }
        lab.a.runs_as_before(&made).await?;
        ensure!(made.guest()?.page(&[]).await? == page, "A does not serve as before");
        // B's server was ACTIVE: it may hold new writes, so it is stopped and kept.
        let b = in_b(&lab, &object).await?;
        ensure!(b.status == "SHUTOFF", "B's server is {}", b.status);
        let address = &b.addresses.first().context("no address")?.address;
        ensure!(!Guest::at(address)?.answers().await, "B answers");
        let uid = migration.uid().await?;
        no_key_in_the_movers_namespaces(&lab, &uid).await?;
        lab.left_only(&uid, Stays::ServerInB).await
    })
}
