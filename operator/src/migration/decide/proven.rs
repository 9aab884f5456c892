//! The proof: never `Succeeded=True` without equal digests of every disk and all checks passed.

use crate::crd::v1alpha1::*;

/// Is everything proven? Otherwise: what is not.
pub(super) fn all(status: &VmMigrationStatus) -> Result<(), String> {
    if status.disks.is_empty() || status.checks.is_empty() {
        return Err("no disk or no check is recorded".into());
    }
    if let Some(c) = status.checks.iter().find(|c| !c.passed) {
        return Err(format!("check {} did not pass", c.name));
    }
    for disk in &status.disks {
        match disk.verdict() {
            Verdict::Proven(_) => {}
            Verdict::Differs(what) => return Err(format!("disk {}: {what}", disk.index)),
            Verdict::Open => return Err(format!("disk {} has no equal digests on both sides", disk.index)),
        }
    }
    Ok(())
}

/// What a release before this one has read back has no proof yet.
pub(super) fn record(disks: &mut [DiskStatus]) {
    for disk in disks.iter_mut().filter(|disk| disk.proof.is_none()) {
        disk.proof = disk.verdict().proof();
    }
}
