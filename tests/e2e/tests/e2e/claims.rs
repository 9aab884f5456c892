//! One source, one migration: the same YAML under another name or in another namespace migrates nothing twice. After
//! success a deletion leaves both servers as they are.

use crate::{
    moves::{in_b, serves, written},
    volume_mode::modes,
};
use anyhow::{Result, ensure};
use e2e::{Disks, Stays, shared};
use vmmigration::{crd::v1alpha1::*, migration::names::MARK_CLAIM};

#[test]
fn the_same_yaml_again_is_refused() -> Result<()> {
    shared("same_yaml", |lab| async move {
        modes(&lab, "Volume", "Volume").await?;
        let made = lab.a.make_server(&lab.name, Disks { root_volume: false, data: 1 }).await?;
        let page = written(&made, &["/data"]).await?;
        let volumes = lab.a.volumes(&lab.a.server(&made.id).await?).await?;
        let first = lab.migration(&made.name, CutoverMode::Now).create().await?;
        let uid = first.uid().await?;
        first.wait("claimed", 240, |s| s.source.as_ref()?.claimed_at.clone()).await?;
        let claim = lab.a.server(&made.id).await?.metadata.get(MARK_CLAIM).cloned();
        ensure!(claim.as_deref() == Some(uid.as_str()), "the claim is {claim:?}");

        // In the middle: under a new name, and in a new namespace.
        let renamed = lab.migration(&made.name, CutoverMode::Now).named("again").create().await?;
        let namespace = format!("{}-other", lab.name);
        lab.prepare(&namespace).await?;
        let moved = lab.migration(&made.name, CutoverMode::Now).in_namespace(&namespace).create().await?;
        for other in [&renamed, &moved] {
            other
                .wait("refused", 120, |s| {
                    let claimed = s.preflight.iter().any(|f| f.id == "claimed-elsewhere");
                    (s.phase == Some(Phase::Blocked) && claimed).then_some(())
                })
                .await?;
        }
        let object = first.wait_succeeded().await?;

        // After success, and after the first object is gone.
        for other in [&renamed, &moved] {
            other.wait_blocked(&["already-migrated", "claimed-elsewhere"]).await?;
        }
        first.delete().await?;
        first.wait_gone(90).await?;
        let a = lab.a.server(&made.id).await?;
        ensure!(a.status == "SHUTOFF" && a.locked, "A is {} locked={}", a.status, a.locked);
        ensure!(a.volumes_attached == made.data, "A's volumes: {:?}", a.volumes_attached);
        let after = lab.a.volumes(&a).await?;
        ensure!(after == volumes, "A's volumes were {volumes:?}, are {after:?}");
        serves(&in_b(&lab, &object).await?, &["/data"], &page).await?;
        lab.left_only(&uid, Stays::Moved).await?;
        let reports = lab.api::<VmMigrationReport>(&lab.name).list(&Default::default()).await?;
        ensure!(reports.items.len() == 1, "the report did not outlive the migration");
        let last = lab.migration(&made.name, CutoverMode::Now).create().await?;
        last.wait_blocked(&["already-migrated", "claimed-elsewhere"]).await?;
        let there = lab.b.cloud.find_servers(&made.name).await?;
        ensure!(there.len() == 1, "B has {} servers of that name", there.len());
        Ok(())
    })
}
