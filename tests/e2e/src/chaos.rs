//! What tests do to the operator and to its movers: killing pods and processes, and other settings for a while.

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

/// What SIGKILL hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The first process of a mover's pod.
    Agent,
    /// A restic of it that saves a segment.
    Restic,
}

impl Victim {
    /// Is that the process, by its command line?
    fn is(self, words: &[&str], uid: &str, verb: &str, disk: &str) -> bool {
        let has = |wanted: &[&str]| words.windows(wanted.len()).any(|found| found == wanted);
        match self {
            Victim::Agent => {
                has(&["mover", verb]) && has(&["--disk", disk]) && words.iter().any(|w| w.ends_with(uid))
            }
            Victim::Restic => {
                let whose = format!("mig={uid},disk={disk},");
                let saves = |w: &&str| w.starts_with(&whose) && w.contains("kind=segment");
                words.first().is_some_and(|program| program.ends_with("restic")) && words.iter().any(saves)
            }
        }
    }
}

/// All processes that a filter finds by their command lines; those of pods are among them.
fn processes(found: impl Fn(&[&str]) -> bool) -> Result<Vec<String>> {
    let mut all = vec![];
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        // One that has just ended has none.
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
        if found(&words) {
            all.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(all)
}

impl Migration {
    /// Kills a process of a mover that runs now; `purpose` is such as `backup-0`.
    pub async fn kill_process(&self, purpose: &str, victim: Victim) -> Result<()> {
        let (uid, (verb, disk)) = (self.uid().await?, purpose.split_once('-').context("a purpose")?);
        // Between two segments there is none for a moment.
        let process = until(&format!("a process of {purpose}"), 20, || async {
            Ok(processes(|words| victim.is(words, &uid, verb, disk))?.into_iter().next())
        })
        .await?;
        pods::command("kill", &["-9", &process]).await.map(drop)
    }

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
