//! What a failed test prints: the objects, the operator's log, Jobs and pods of its migrations in both clusters.

use crate::{Lab, pods};
use anyhow::Result;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};
use vmmigration::migration::names::LABEL_MIGRATION;

/// Prints all that helps to see why a test failed. What cannot be had is said and skipped.
pub(crate) async fn print(lab: &Lab) {
    if let Err(e) = objects(lab).await {
        eprintln!("(objects: {e:#})");
    }
    match lab.operator_log(Some(400)).await {
        Ok(log) => operator(lab, &log),
        Err(e) => eprintln!("(operator's log: {e:#})"),
    }
    for (client, cluster) in [(&lab.kube, "site-a"), (&lab.kube_b, "site-b")] {
        for uid in lab.remembered().keys() {
            if let Err(e) = jobs(client, cluster, uid).await {
                eprintln!("(Jobs in {cluster}: {e:#})");
            }
        }
    }
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

async fn jobs(client: &kube::Client, cluster: &str, uid: &str) -> Result<()> {
    let selector = format!("{LABEL_MIGRATION}={uid}");
    let jobs: Api<Job> = Api::namespaced(client.clone(), pods::MOVERS);
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
    for pod in pods::labelled(client, pods::MOVERS, &selector).await? {
        let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        eprintln!("--- pod {} in {cluster}: {phase}", pod.name_any());
        match pods::log(client, pods::MOVERS, &pod.name_any(), Some(30)).await {
            Ok(log) => eprintln!("{log}"),
            Err(e) => eprintln!("(no log: {e:#})"),
        }
    }
    Ok(())
}
