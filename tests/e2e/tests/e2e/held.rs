//! Somebody takes the source back in the middle: it is theirs.

use crate::{
    interrupted::{counted, mover},
    moves::written,
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, MadeServer, Migration, Page, Stays, shared, until};
use std::{
    rc::Rc,
    time::{Duration, Instant},
};
use vmmigration::{crd::v1alpha1::*, migration::names::MARK_CLAIM};

#[test]
#[ignore = "long"]
fn never_3_a_stale_copy_is_used_or_somebodys_start_undone() -> Result<()> {
    shared("never_3", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        written(&made, &[]).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
        let uid = migration.uid().await?;
        mover(&lab, &migration, "backup-0").await?;
        // The tenant, as the lock's reason tells.
        let locked = lab.a.server(&made.id).await?;
        let reason = locked.locked_reason.context("the lock has no reason")?;
        ensure!(reason.contains("web"), "the lock's reason does not name the migration: {reason}");
        lab.a.cloud.unlock_server(&made.id).await?;
        lab.a.cloud.start_server(&made.id).await?;
        lab.a.wait_server(&made.id, "ACTIVE").await?;

        let page = stays_held(&lab, &migration, &made).await?;
        let (guest, actions) = (made.guest()?, lab.a.cloud.server_actions(&made.id).await?);

        // The deletion cleans up and gives the claim back; it does nothing else to A.
        migration.delete().await?;
        migration.wait_gone(240).await?;
        lab.a.runs_as_before(&made).await?;
        let after = lab.a.cloud.server_actions(&made.id).await?;
        ensure!(after == actions, "something was done to A: {after:?}, was {actions:?}");
        ensure!(guest.page(&[]).await? == page, "A does not serve what was written while it was held");
        until("nothing of the migration", 30, || async {
            lab.left_only(&uid, Stays::Nothing).await?;
            Ok(Some(()))
        })
        .await
    })
}

/// It is held, and stays so: nothing is done to A, nothing is made in B; what is written now is no less A's own.
pub async fn stays_held(lab: &Rc<Lab>, migration: &Migration, made: &MadeServer) -> Result<Page> {
    let message = migration.wait_phase(Phase::Held, 120).await?.message.unwrap_or_default();
    ensure!(message.contains("stays as it is") && message.contains("kubectl delete vmm web"), "{message}");
    let guest = made.guest()?;
    guest.wait(&[]).await?;
    guest.write("written-while-held", &[]).await?;
    let (page, uid) = (guest.page(&[]).await?, migration.uid().await?);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        ensure!(lab.a.server(&made.id).await?.status == "ACTIVE", "A was stopped again");
        ensure!(counted(lab, &uid).await?.0 == 0, "B has a server");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let status = migration.status().await?;
    ensure!(status.phase == Some(Phase::Held), "it went on: {:?}", status.message);
    ensure!(status.running_in == Some(RunningIn::A), "running in {:?}", status.running_in);
    let claim = lab.a.server(&made.id).await?.metadata.get(MARK_CLAIM).cloned();
    ensure!(claim.as_ref() == Some(&uid), "the claim is {claim:?}");
    Ok(page)
}
