//! What each mover sent to the store and got from it, as the store's side of the network counts it; and plain restic
//! in a migration's repository.

use crate::{Lab, Migration, pods, site::setting, until};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, ResourceExt};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};
use vmmigration::migration::names::{Identity, LABEL_MIGRATION, LABEL_PURPOSE, Side};

/// Bytes on the wire between the store and some pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The store received them.
    pub received: u64,
    /// The store sent them.
    pub sent: u64,
}

/// Addresses of pods by what they were for, such as `backup-0`.
#[derive(Debug, Default)]
pub struct Addresses(RefCell<BTreeMap<String, BTreeSet<String>>>);

impl Addresses {
    /// What went to and from all pods for that purpose.
    pub async fn traffic(&self, purpose: &str) -> Result<Traffic> {
        let ours = self.0.borrow().get(purpose).cloned().unwrap_or_default();
        ensure!(!ours.is_empty(), "no pod for {purpose} was seen");
        traffic(&ours).await
    }

    async fn look(&self, lab: &Lab, selector: &str) -> Result<()> {
        for client in [&lab.kube, &lab.kube_b] {
            for pod in pods::labelled(client, pods::MOVERS, selector).await? {
                if let (Some(purpose), Some(address)) = (pod.labels().get(LABEL_PURPOSE), address(&pod)) {
                    self.0.borrow_mut().entry(purpose.clone()).or_default().insert(address);
                }
            }
        }
        Ok(())
    }
}

fn address(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.pod_ip.clone()
}

/// Counted since the lab began; addresses are given out one after the other, so that none comes again soon.
async fn traffic(addresses: &BTreeSet<String>) -> Result<Traffic> {
    let told = pods::command(pods::TESTBED, &["traffic"]).await?;
    let mut all = Traffic::default();
    for line in told.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [address, way, bytes] = words[..] else { bail!("testbed traffic says {line:?}") };
        let bytes: u64 = bytes.parse()?;
        match way {
            _ if !addresses.contains(address) => {}
            "received" => all.received += bytes,
            _ => all.sent += bytes,
        }
    }
    Ok(all)
}

impl Migration {
    /// Does `work`; tells which addresses the movers' pods had meanwhile.
    pub async fn addresses_during<T>(
        &self,
        lab: &Lab,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Addresses)> {
        let (addresses, selector) =
            (Addresses::default(), format!("{LABEL_MIGRATION}={}", self.uid().await?));
        let look = async {
            loop {
                // A look that fails is made again: pods stay for longer than that.
                let _ = addresses.look(lab, &selector).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let done = tokio::select! { done = work => done?, never = look => never };
        Ok((done, addresses))
    }

    /// Waits until the running pod for a purpose has moved that many bytes, to the store or from it.
    pub async fn wait_moved(&self, client: &kube::Client, purpose: &str, bytes: u64) -> Result<()> {
        let selector = format!("{LABEL_MIGRATION}={},{LABEL_PURPOSE}={purpose}", self.uid().await?);
        until(&format!("{purpose} to move {bytes} bytes"), 400, || async {
            let status = self.status().await?;
            if status.phase.is_some_and(|phase| phase.gave_up()) {
                return Err(crate::fatal(status.message.unwrap_or_default()));
            }
            let found = pods::labelled(client, pods::MOVERS, &selector).await?;
            let addresses: BTreeSet<_> = found.iter().filter_map(address).collect();
            let moved = traffic(&addresses).await?;
            Ok((moved.received.max(moved.sent) >= bytes).then_some(()))
        })
        .await
    }

    /// Runs a line of shell in which plain `restic` works on this migration's repository.
    pub async fn restic(&self, lab: &Lab, line: &str) -> Result<String> {
        let status = self.status().await?;
        let me = Identity { uid: self.uid().await?, ..Default::default() };
        let secrets: Api<Secret> = Api::namespaced(lab.kube.clone(), pods::MOVERS);
        let data = secrets.get(&me.anchor(Side::Source)).await?.data.unwrap_or_default();
        let password = data.get("restic-password").context("no password")?;
        let mut shell = tokio::process::Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", line]).kill_on_drop(true);
        shell.env("RESTIC_REPOSITORY", status.store.context("no store is recorded")?.repository);
        shell.env("RESTIC_PASSWORD", String::from_utf8(password.0.clone())?);
        shell.env("RESTIC_CACERT", setting("TESTBED_CA")?);
        shell.env("AWS_ACCESS_KEY_ID", setting("TESTBED_S3_ACCESS_KEY")?);
        shell.env("AWS_SECRET_ACCESS_KEY", setting("TESTBED_S3_SECRET_KEY")?);
        let out = shell.output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(out.status.success(), "{line}: {}{}", text(&out.stdout), text(&out.stderr));
        Ok(text(&out.stdout))
    }
}
