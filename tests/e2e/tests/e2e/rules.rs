//! The rules of the definitions, asked of a real API server: one object that is accepted and one that is refused.

use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, shared};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

fn api(lab: &Rc<Lab>, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("vmmigration.io", "v1alpha1", kind));
    Api::namespaced_with(lab.kube.clone(), &lab.name, &resource)
}

/// What the API server says to the creation of an object, without creating it.
async fn create(lab: &Rc<Lab>, kind: &str, name: &str, spec: &Value) -> Result<String> {
    let object = json!({"apiVersion": "vmmigration.io/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec});
    let dry = PostParams { dry_run: true, ..Default::default() };
    Ok(said(api(lab, kind).create(&dry, &serde_json::from_value(object)?).await))
}

/// What it says to an edit, without doing it.
async fn edit(lab: &Rc<Lab>, kind: &str, name: &str, spec: &Value) -> Result<String> {
    let dry = PatchParams { dry_run: true, ..Default::default() };
    Ok(said(api(lab, kind).patch(name, &dry, &Patch::Merge(json!({"spec": spec}))).await))
}

fn said(answer: kube::Result<DynamicObject>) -> String {
    answer.map_or_else(|error| error.to_string(), |_| String::new())
}

fn expect(answer: &str, rule: &str) -> Result<()> {
    match rule {
        "" => ensure!(answer.is_empty(), "should be accepted: {answer}"),
        _ => ensure!(answer.contains(rule), "should be refused by {rule:?}: {answer:?}"),
    }
    Ok(())
}

fn migration(changes: Value) -> Value {
    let mut spec = json!({"source": {"cloud": "a", "server": "web-1"}, "destination": {"cloud": "b"},
        "cutover": {"mode": "Manual"}});
    for (key, value) in changes.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

fn store(location: &str) -> Value {
    json!({"location": location, "credentialsSecretRef": {"name": "s"}})
}

const AT: &str = "cutover.at is needed with mode At";
const ADDRESS: &str = "fixedIP.address is needed with mode Set";
const CHECK: &str = "a check is exactly one of tcp, http";

#[test]
fn creation() -> Result<()> {
    shared("rules", |lab| async move {
        let address = |fixed: Value| {
            migration(json!({"destination": {"cloud": "b",
                "networks": [{"from": "n", "to": "n", "fixedIP": fixed}]}}))
        };
        let check = |check: Value| migration(json!({"verification": {"checks": [check]}}));
        let cutover = |cutover: Value| migration(json!({"cutover": cutover}));
        let long = "x".repeat(201);
        for (kind, name, spec, rule) in [
            ("ObjectStore", "s", store("s3:https://s3.example.com:9000/bucket/team/web"), ""),
            ("ObjectStore", "s", store("s3:http://s3.example.com/bucket"), "only S3 over HTTPS is supported"),
            (
                "ObjectStore",
                "s",
                store("s3:https://k:s@s3.example.com/bucket"),
                "must not contain user information",
            ),
            ("ObjectStore", "s", store("s3:https://s3.example.com"), "must name a bucket"),
            ("VmMigration", "m", migration(json!({})), ""),
            ("VmMigration", &long[..200], migration(json!({})), ""),
            ("VmMigration", &long, migration(json!({})), "at most 200 characters"),
            ("VmMigration", "m", migration(json!({"destination": {"cloud": "a"}})), "must be different"),
            ("VmMigration", "m", migration(json!({"cutover": null})), "cutover"),
            ("VmMigration", "m", cutover(json!({"mode": "At", "at": "2030-01-01T00:00:00Z"})), ""),
            ("VmMigration", "m", cutover(json!({"mode": "At"})), AT),
            ("VmMigration", "m", cutover(json!({"mode": "Now", "at": "2030-01-01T00:00:00Z"})), AT),
            ("VmMigration", "m", address(json!({"mode": "Set", "address": "10.0.0.7"})), ""),
            ("VmMigration", "m", address(json!({"mode": "Set"})), ADDRESS),
            ("VmMigration", "m", address(json!({"mode": "Preserve", "address": "10.0.0.7"})), ADDRESS),
            ("VmMigration", "m", check(json!({"name": "ssh", "tcp": {"port": 22}})), ""),
            ("VmMigration", "m", check(json!({"name": "both", "tcp": {"port": 22}, "http": {}})), CHECK),
            ("VmMigration", "m", check(json!({"name": "none"})), CHECK),
        ] {
            let answer = create(&lab, kind, name, &spec).await?;
            expect(&answer, rule).with_context(|| format!("{kind} {spec}"))?;
        }
        Ok(())
    })
}

#[test]
fn edits() -> Result<()> {
    shared("edits", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let blocked = lab.migration("nobody", CutoverMode::Manual).named("blocked").create().await?;
        let mut waiting = lab.migration(&made.name, CutoverMode::Manual).named("waiting");
        waiting.spec.store = Some("transfer".into());
        let waiting = waiting.checked()?.create().await?;
        blocked.wait_phase(Phase::Blocked, 120).await?;
        waiting.wait_phase(Phase::AwaitingCutover, 180).await?;
        let cutover = json!({"cutover": {"mode": "At", "at": "2030-01-01T00:00:00Z"}});
        for (name, change, rule) in [
            ("blocked", json!({"source": {"server": "web-2"}}), ""),
            ("blocked", json!({"destination": {"flavor": "b1.medium"}}), ""),
            ("blocked", json!({"store": "other"}), "spec.store is immutable"),
            ("blocked", json!({"strategy": "Cold"}), "spec.strategy is immutable"),
            ("waiting", cutover, ""),
            ("waiting", json!({"source": {"server": "web-2"}}), "spec.source cannot be changed any more"),
            (
                "waiting",
                json!({"destination": {"flavor": "b1.medium"}}),
                "spec.destination cannot be changed",
            ),
            ("waiting", json!({"store": "other"}), "spec.store is immutable"),
            ("waiting", json!({"verification": null}), "spec.verification is immutable"),
        ] {
            let answer = edit(&lab, "VmMigration", name, &change).await?;
            expect(&answer, rule).with_context(|| format!("{name} {change}"))?;
        }
        let server =
            |cloud| json!({"cloud": cloud, "projectId": "p", "serverId": "s", "serverName": "web-1"});
        let spec = json!({"migration": "web-1", "uid": "u", "outcome": "Succeeded", "source": server("a"),
            "destination": server("b"), "finishedAt": "2026-01-01T00:00:00Z", "disks": []});
        let report = json!({"apiVersion": "vmmigration.io/v1alpha1", "kind": "VmMigrationReport",
            "metadata": {"name": "report"}, "spec": spec});
        let reports = api(&lab, "VmMigrationReport");
        reports.create(&PostParams::default(), &serde_json::from_value(report)?).await?;
        expect(&edit(&lab, "VmMigrationReport", "report", &spec).await?, "")?;
        let changed = edit(&lab, "VmMigrationReport", "report", &json!({"outcome": "Failed"})).await?;
        expect(&changed, "is evidence and cannot be changed")
    })
}
