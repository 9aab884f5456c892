//! Cancel and rollback at every phase: a client's hook holds the migration there, then somebody changes their mind.

use crate::moves::written;
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, Stays, shared, until};
use serde_json::json;
use std::rc::Rc;
use vmmigration::crd::v1alpha1::*;

/// Where a hook holds a migration, and whether the server runs in B by then.
const PLACES: &[(HookPhase, bool)] = &[
    (HookPhase::BeforePreflight, false),
    (HookPhase::BeforeStop, false),
    (HookPhase::AfterStop, false),
    (HookPhase::BeforeCreate, false),
    (HookPhase::AfterStart, true),
    (HookPhase::AfterVerification, true),
];

/// What is asked for there, and how the migration ends then.
type Wish = (&'static str, Phase);
const CANCEL: Wish = ("cancel", Phase::Cancelled);
const ROLLBACK: Wish = ("rollback", Phase::RolledBack);

/// Until the server runs in B; from then on it is a rollback as that of a check that fails (`checks`).
#[test]
fn cancelled_or_rolled_back_before_b_runs() -> Result<()> {
    at_every_phase("every_phase", &PLACES[..4], [CANCEL, ROLLBACK])
}

#[test]
#[ignore = "long"]
fn cancelled_or_rolled_back_at_every_phase() -> Result<()> {
    at_every_phase("every_phase_all", PLACES, [CANCEL, ROLLBACK])
}

#[test]
#[ignore = "long"]
fn rolled_back_or_cancelled_at_every_phase() -> Result<()> {
    at_every_phase("every_phase_else", PLACES, [ROLLBACK, CANCEL])
}

/// The wishes take turns.
fn at_every_phase(name: &str, places: &'static [(HookPhase, bool)], wishes: [Wish; 2]) -> Result<()> {
    shared(name, |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let page = written(&made, &[]).await?;
        for (&(place, runs_in_b), (verb, end)) in places.iter().zip(wishes.into_iter().cycle()) {
            let name = place.to_string().to_lowercase();
            let mut migration = lab.migration(&made.name, CutoverMode::Now).named(&name);
            let hook = json!([{"name": "here", "phase": place, "timeout": "20m", "client": {}}]);
            migration.spec.hooks = serde_json::from_value(hook)?;
            let migration = migration.create().await?;
            let waits =
                |s: &VmMigrationStatus| s.hooks.iter().any(|h| h.state == HookState::Waiting).then_some(());
            migration.wait(&format!("held at {place}"), 400, waits).await?;
            migration.patch(json!({"requests": {verb: "now"}})).await?;
            let status = migration.wait_failed(300).await.with_context(|| format!("{verb} at {place}"))?;
            ensure!(status.phase == Some(end), "{verb} at {place}: it is {:?}", status.phase);
            let said = status.message.clone().unwrap_or_default();
            let touched = status.source.as_ref().is_some_and(|s| s.claimed_at.is_some());
            let wanted = if touched { "runs in A as before" } else { "nothing was touched" };
            ensure!(said.contains(wanted), "{verb} at {place}: it says {said:?}");
            lab.a.runs_as_before(&made).await.with_context(|| format!("{verb} at {place}"))?;
            ensure!(made.guest()?.page(&[]).await? == page, "{verb} at {place}: A does not serve as before");
            let stays = if runs_in_b { Stays::ServerInB } else { Stays::Nothing };
            let left = lab.leftovers(&migration.uid().await?, stays).await?;
            ensure!(left.is_empty(), "{verb} at {place}: left behind: {left:?}");
            if runs_in_b {
                remove_kept(&lab, &status).await.with_context(|| format!("{verb} at {place}"))?;
            }
        }
        Ok(())
    })
}

/// B's server ran, so it is kept, stopped; the next try is refused until it is gone.
pub async fn remove_kept(lab: &Rc<Lab>, status: &VmMigrationStatus) -> Result<()> {
    let server = status.destination.as_ref().and_then(|x| x.server_id.as_ref());
    let id = server.context("no server in B is recorded")?;
    ensure!(lab.b.server(id).await?.status == "SHUTOFF", "B runs");
    lab.b.cloud.delete_server(id).await?;
    until("the end of B's server", 90, || async {
        Ok(lab.b.cloud.get_server(id).await?.is_none().then_some(()))
    })
    .await
}
