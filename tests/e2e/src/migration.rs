//! One `VmMigration` of a test: making it, editing it, waiting for what it says.

use crate::{Lab, fatal, until};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

/// How long a whole migration may take here.
pub const MIGRATION_SECONDS: u64 = 900;

/// The status of a condition: true, false, or `None` for unknown and absent.
pub fn condition(object: &VmMigration, kind: &str) -> Option<bool> {
    let status = object.status.as_ref()?;
    vmmigration::crd::conditions::status(&status.conditions, kind)
}

/// Did it end with success?
pub fn succeeded(object: &VmMigration) -> bool {
    condition(object, "Succeeded") == Some(true)
}

/// A migration of a test.
pub struct Migration {
    lab: Rc<Lab>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is created with.
    pub spec: VmMigrationSpec,
}

impl Migration {
    pub(crate) fn new(lab: Rc<Lab>, namespace: &str, server: &str, mode: CutoverMode) -> Self {
        let destination: Destination = serde_json::from_value(json!({"cloud": "site-b"}))
            .unwrap_or_else(|e| unreachable!("the smallest destination is one: {e}"));
        let spec = VmMigrationSpec {
            source: Source { cloud: "site-a".into(), server: server.into() },
            destination,
            cutover: Cutover { mode, at: None, not_after: None },
            store: None,
            strategy: None,
            max_downtime: None,
            hooks: vec![],
            source_policy: None,
            on_failure: None,
            verification: None,
            suspend: None,
            requests: None,
        };
        Migration { lab, namespace: namespace.into(), name: "web".into(), spec }
    }

    /// Under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// In another namespace.
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// With another destination; `cloud` need not be given.
    pub fn to(mut self, mut destination: Value) -> Result<Self> {
        destination["cloud"] = json!("site-b");
        self.spec.destination = serde_json::from_value(destination)?;
        Ok(self)
    }

    /// With an HTTP check that the application answers from its root disk.
    pub fn checked(mut self) -> Result<Self> {
        let check = json!({"checks": [
            {"name": "page", "http": {"path": "/root.txt"}, "timeoutSeconds": 240},
            {"name": "ssh", "tcp": {"port": 22}}]});
        self.spec.verification = Some(serde_json::from_value(check)?);
        Ok(self)
    }

    fn api(&self) -> Api<VmMigration> {
        self.lab.api(&self.namespace)
    }

    /// `kubectl create`.
    pub async fn create(self) -> Result<Self> {
        let object = VmMigration::new(&self.name, self.spec.clone());
        let made = self.api().create(&PostParams::default(), &object).await?;
        self.lab.remember(&made);
        Ok(self)
    }

    /// The object.
    pub async fn get(&self) -> Result<VmMigration> {
        let object = self.api().get(&self.name).await?;
        self.lab.remember(&object);
        Ok(object)
    }

    /// Its status.
    pub async fn status(&self) -> Result<VmMigrationStatus> {
        Ok(self.get().await?.status.unwrap_or_default())
    }

    /// Its UID.
    pub async fn uid(&self) -> Result<String> {
        self.get().await?.uid().context("no UID")
    }

    /// Edits the spec.
    pub async fn patch(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api().patch(&self.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Says the go.
    pub async fn go(&self) -> Result<()> {
        self.patch(json!({"cutover": {"mode": "Now"}})).await
    }

    /// `kubectl delete`, without waiting.
    pub async fn delete(&self) -> Result<()> {
        self.api().delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until the object is gone.
    pub async fn wait_gone(&self, seconds: u64) -> Result<()> {
        until(&format!("{} to be gone", self.name), seconds, || async {
            let Some(object) = self.api().get_opt(&self.name).await? else { return Ok(Some(())) };
            self.lab.remember(&object);
            bail!("{}", object.status.and_then(|s| s.message).unwrap_or_default())
        })
        .await
    }

    /// Waits for something in its status. An end that was not asked for ends the wait.
    pub async fn wait<T>(
        &self,
        what: &str,
        seconds: u64,
        found: impl Fn(&VmMigrationStatus) -> Option<T>,
    ) -> Result<T> {
        until(&format!("{} {what}", self.name), seconds, || async {
            let status = self.status().await?;
            if let Some(answer) = found(&status) {
                return Ok(Some(answer));
            }
            let phase = status.phase.unwrap_or_default();
            let said = format!("it is {phase}: {}", status.message.clone().unwrap_or_default());
            if phase.gave_up() {
                return Err(fatal(said));
            }
            bail!(said)
        })
        .await
    }

    /// Waits for a phase.
    pub async fn wait_phase(&self, phase: Phase, seconds: u64) -> Result<VmMigrationStatus> {
        self.wait(&format!("in phase {phase}"), seconds, |s| (s.phase == Some(phase)).then(|| s.clone()))
            .await
    }

    /// Waits until it is blocked by exactly these findings.
    pub async fn wait_blocked(&self, ids: &[&str]) -> Result<VmMigrationStatus> {
        self.wait(&format!("blocked by {ids:?}"), 120, |s| {
            let mut found: Vec<&str> = blockers(s).collect();
            found.sort_unstable();
            (s.phase == Some(Phase::Blocked) && found == ids).then(|| s.clone())
        })
        .await
    }

    /// Waits for success and clean-up, and checks that it may be called so.
    pub async fn wait_succeeded(&self) -> Result<VmMigration> {
        self.wait_phase(Phase::Succeeded, MIGRATION_SECONDS).await?;
        self.wait("cleaned up", 180, |s| {
            let done = |c: &&Condition| c.type_ == "CleanedUp" && c.status == "True";
            s.conditions.iter().find(done).map(drop)
        })
        .await?;
        let object = self.get().await?;
        proven(&object)?;
        Ok(object)
    }

    /// Waits for the end without success and the end of the clean-up.
    pub async fn wait_failed(&self, seconds: u64) -> Result<VmMigrationStatus> {
        until(&format!("{} to fail", self.name), seconds, || async {
            let object = self.get().await?;
            if succeeded(&object) {
                return Err(fatal("it succeeded"));
            }
            let status = object.status.clone().unwrap_or_default();
            let ended = status.phase.is_some_and(Phase::gave_up);
            let over = ended && condition(&object, "CleanedUp") == Some(true);
            if over { Ok(Some(status)) } else { bail!("{:?}", status.message) }
        })
        .await
    }
}

/// Ids of what blocks.
pub fn blockers(status: &VmMigrationStatus) -> impl Iterator<Item = &str> {
    status.preflight.iter().filter(|f| f.severity == Severity::Blocker).map(|f| f.id.as_str())
}

/// Equal digests of every disk, all checks passed, all conditions as they should be.
pub fn proven(object: &VmMigration) -> Result<()> {
    let status = object.status.clone().unwrap_or_default();
    ensure!(!status.disks.is_empty(), "no disk is recorded");
    for disk in &status.disks {
        let n = disk.index;
        // What is claimed of it is what its digests say.
        let Verdict::Proven(follows) = disk.verdict() else { bail!("disk {n}: {:?}", disk.verdict()) };
        ensure!(disk.proof.as_ref() == Some(&follows), "disk {n}: {:?}, and not {follows:?}", disk.proof);
        let snapshot = disk.backup.as_ref().and_then(|b| b.snapshot_id.clone()).unwrap_or_default();
        ensure!(snapshot.len() == 64, "disk {n}: snapshot id {snapshot:?} is not a full one");
    }
    ensure!(
        !status.checks.is_empty() && status.checks.iter().all(|c| c.passed),
        "checks: {:?}",
        status.checks
    );
    for (kind, wanted) in [
        ("Ready", true),
        ("Reconciling", false),
        ("Stalled", false),
        ("Succeeded", true),
        ("Finished", true),
        ("PreflightPassed", true),
        ("SourceStopped", true),
        ("DataTransferred", true),
        ("DataVerified", true),
        ("DestinationCreated", true),
        ("DestinationReady", true),
        ("CleanedUp", true),
    ] {
        let found = condition(object, kind);
        ensure!(found == Some(wanted), "condition {kind} is {found:?}, not {wanted}");
    }
    Ok(())
}
