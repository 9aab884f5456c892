//! What tests do to the operator and to its movers: killing their pods, and other settings for a while.

use crate::{Lab, Migration, pods, until};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::future::Future;
use vmmigration::migration::names::{LABEL_MIGRATION, LABEL_PURPOSE};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/vmmigration-operator");

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

impl Lab {
    /// Kills the operator without grace and waits until another one is ready.
    pub async fn kill_operator(&self) -> Result<()> {
        let all = pods::labelled(&self.kube, pods::SYSTEM, pods::OPERATOR).await?;
        let old = all.iter().find(|p| phase(p) == "Running").context("no operator runs")?;
        pods::kill(&self.kube, old).await?;
        let gone = old.name_any();
        until("another operator to be ready", 120, || async {
            let now = pods::labelled(&self.kube, pods::SYSTEM, pods::OPERATOR).await?;
            Ok(now.iter().any(|p| p.name_any() != gone && ready(p)).then_some(()))
        })
        .await
    }

    /// Runs `body` with other values of the operator's chart; the former ones come back, whatever `body` gives.
    pub async fn operator_with<T>(&self, values: &str, body: impl Future<Output = Result<T>>) -> Result<T> {
        helm(&["upgrade", "vmmigration", CHART, "--reuse-values", "--set", values]).await?;
        let outcome = match rolled_out().await {
            Ok(()) => body.await,
            Err(e) => Err(e),
        };
        helm(&["rollback", "vmmigration"]).await?;
        rolled_out().await?;
        outcome
    }
}

async fn helm(arguments: &[&str]) -> Result<()> {
    let place = ["--kube-context", "site-a", "--namespace", pods::SYSTEM];
    pods::command("helm", &[arguments, &place].concat()).await.map(drop)
}

async fn rolled_out() -> Result<()> {
    let rollout = ["--context", "site-a", "-n", pods::SYSTEM, "rollout", "status", "--timeout=120s"];
    pods::command("kubectl", &[&rollout[..], &["deployment/vmmigration-operator"]].concat()).await.map(drop)
}

impl Migration {
    /// Kills the pod that copies one disk now; `purpose` is such as `backup-0`.
    pub async fn kill_mover(&self, client: &kube::Client, purpose: &str) -> Result<()> {
        let selector = format!("{LABEL_MIGRATION}={},{LABEL_PURPOSE}={purpose}", self.uid().await?);
        let pod = until(&format!("a pod of {purpose} to run"), 60, || async {
            let all = pods::labelled(client, pods::MOVERS, &selector).await?;
            Ok(all.into_iter().find(|p| phase(p) == "Running"))
        })
        .await?;
        pods::kill(client, &pod).await
    }
}
