//! What a failed test prints: servers and disks of both clouds, objects, the operator's log, Jobs and pods of both clusters.

use crate::{Lab, Site, pods};
use anyhow::Result;
use futures::TryFutureExt as _;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::json;
use vmmigration::migration::names::LABEL_MIGRATION;

/// How much of a guest's console helps.
const CONSOLE_LINES: u32 = 25;

/// Prints all that helps to see why a test failed. What cannot be had is said and skipped.
pub(crate) async fn print(lab: &Lab) {
    let mut words: Vec<String> = lab.remembered().into_keys().collect();
    words.push(lab.name.clone());
    for site in [&lab.a, &lab.b] {
        if let Err(e) = servers(site, &words).and_then(|()| disks(site, &words)).await {
            eprintln!("({}: {e:#})", site.name);
        }
    }
    if let Err(e) = objects(lab).await {
        eprintln!("(objects: {e:#})");
    }
    match lab.operator_log(Some(400)).await {
        Ok(log) => operator(lab, &log),
        Err(e) => eprintln!("(operator's log: {e:#})"),
    }
    for (client, cluster) in [(&lab.kube, "site-a"), (&lab.kube_b, "site-b")] {
        for uid in lab.remembered().keys() {
            for namespace in [pods::MOVERS, &lab.name] {
                if let Err(e) = jobs(client, cluster, namespace, uid).await {
                    eprintln!("(Jobs in {cluster}: {e:#})");
                }
            }
        }
    }
}

/// The test's servers with the end of what their guests print.
async fn servers(site: &Site, words: &[String]) -> Result<()> {
    for server in
        site.rest.get("compute", "/servers/detail").await?["servers"].as_array().into_iter().flatten()
    {
        let text = server.to_string();
        if !words.iter().any(|w| text.contains(w.as_str())) {
            continue;
        }
        let state =
            ["status", "OS-EXT-STS:task_state", "OS-EXT-STS:power_state", "fault"].map(|k| &server[k]);
        eprintln!("--- server {} in {}: {state:?}", server["name"], site.name);
        let path = format!("/servers/{}/action", server["id"].as_str().unwrap_or_default());
        let ask = json!({"os-getConsoleOutput": {"length": CONSOLE_LINES}});
        match site.rest.post("compute", &path, ask).await {
            Ok(answer) => eprintln!("{}", answer["output"].as_str().unwrap_or_default()),
            Err(e) => eprintln!("(no console: {e:#})"),
        }
    }
    Ok(())
}

/// States of the volumes and snapshots that the test and its migrations made.
async fn disks(site: &Site, words: &[String]) -> Result<()> {
    for (path, kind) in [("/volumes/detail", "volumes"), ("/snapshots/detail", "snapshots")] {
        let found = site.rest.get("volumev3", path).await?;
        for one in found[kind].as_array().into_iter().flatten() {
            let text = one.to_string();
            if words.iter().any(|w| text.contains(w.as_str())) {
                eprintln!("--- {kind} in {}: {} {}: {}", site.name, one["id"], one["name"], one["status"]);
            }
        }
    }
    Ok(())
}

async fn objects(lab: &Lab) -> Result<()> {
    for kind in ["VmMigration", "OpenStackCloud", "ObjectStore"] {
        let gvk = GroupVersionKind::gvk("vmmigration.io", "v1alpha1", kind);
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = Api::all_with(lab.kube.clone(), &resource);
        for mut object in api.list(&ListParams::default()).await? {
            if object.namespace().is_some_and(|n| n.starts_with(&lab.name)) {
                object.metadata.managed_fields = None;
                eprintln!("--- {kind}\n{}", serde_saphyr::to_string(&object).unwrap_or_default());
            }
        }
    }
    Ok(())
}

/// The last lines, and those before them that speak of the test.
fn operator(lab: &Lab, log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(60));
    eprintln!("--- operator's log");
    for line in before.iter().filter(|l| l.contains(&lab.name)).chain(last) {
        eprintln!("{line}");
    }
}

async fn jobs(client: &kube::Client, cluster: &str, namespace: &str, uid: &str) -> Result<()> {
    let selector = format!("{LABEL_MIGRATION}={uid}");
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    for job in jobs.list(&ListParams::default().labels(&selector)).await? {
        let status = job.status.clone().unwrap_or_default();
        eprintln!(
            "--- Job {} in {cluster}: active {:?}, succeeded {:?}, failed {:?}",
            job.name_any(),
            status.active,
            status.succeeded,
            status.failed
        );
    }
    for pod in pods::labelled(client, namespace, &selector).await? {
        let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        eprintln!("--- pod {} in {cluster}: {phase}", pod.name_any());
        match pods::log(client, namespace, &pod.name_any(), Some(30)).await {
            Ok(log) => eprintln!("{log}"),
            Err(e) => eprintln!("(no log: {e:#})"),
        }
    }
    Ok(())
}
