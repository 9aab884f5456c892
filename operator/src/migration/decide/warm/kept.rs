//! What earlier passes left, in this try or for the next one.

use super::is_warm;
use crate::crd::v1alpha1::*;

/// What earlier passes over the same disk left, in this try or in one before it.
pub(in super::super) fn carry(status: &VmMigrationStatus, spec: &VmMigrationSpec, disk: &mut DiskStatus) {
    if !is_warm(spec) || disk.source_volume_id.is_none() {
        return;
    }
    let id = (disk.index, disk.source_volume_id.clone(), disk.size_gib);
    let same = |k: &&DiskStatus| (k.index, k.source_volume_id.clone(), k.size_gib) == id;
    if let Some(known) = status.disks.iter().find(same) {
        (disk.pass, disk.passes) = (known.pass, known.passes.clone());
        (disk.export, disk.copied) = (known.export.clone(), known.copied);
        disk.import = known.import.clone();
        return;
    }
    let kept = status.kept.iter().flat_map(|k| &k.volumes);
    let same = |v: &&KeptVolume| (v.index, Some(v.volume_id.clone()), v.size_gib) == id;
    if let Some(kept) = kept.clone().find(same) {
        let snapshot_id = kept.backup.snapshot_id.clone().unwrap_or_default();
        disk.passes = vec![PassRow {
            pass: kept.pass,
            snapshot_id,
            bytes_read: kept.backup.bytes,
            ..Default::default()
        }];
        disk.pass = kept.pass + 1;
    }
}

/// What a new try may build on: the last pass, or the last one while the source ran.
pub(in super::super) fn kept(disk: &DiskStatus) -> Option<KeptVolume> {
    let (index, size_gib, volume_id) = (disk.index, disk.size_gib, disk.source_volume_id.clone()?);
    if let Some(backup) = disk.backup.clone() {
        return Some(KeptVolume { index, volume_id, size_gib, backup, pass: disk.pass, running: false });
    }
    let row = disk.base()?;
    let backup = Digest {
        bytes: row.bytes_read,
        snapshot_id: Some(row.snapshot_id.clone()),
        by: "mover".into(),
        at: row.at.clone(),
        ..Default::default()
    };
    Some(KeptVolume { index, volume_id, size_gib, backup, pass: row.pass, running: true })
}
