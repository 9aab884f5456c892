//! A volume as a block device of a Job: PersistentVolume and claim come and go one after the other, each as seen.

use super::{super::next::Stop, Draft, usable, waited_since};
use crate::{
    crd::v1alpha1::*,
    migration::{
        block_storage::pinned,
        names::Side,
        observed::{ClusterView, DeviceView, Seen},
        step::Step,
    },
};

/// Does this disk leave or enter this side's cloud as a block device? As preflight found it for that cloud.
pub(in super::super) fn travels(d: &Draft<'_>, i: usize, side: Side) -> bool {
    d.status.disks[i].kind == DiskKind::Volume
        && pinned(&d.status, side).is_some_and(ResolvedTransfer::is_volume)
}

/// Is the volume handed over, or about to be? Then it is in use where the cloud sees its nodes as servers.
pub(super) fn handed_over(d: &Draft<'_>, i: usize, side: Side) -> bool {
    let name = d.input.me.device(side, d.status.disks[i].index);
    d.input.seen.cluster(side).view().is_some_and(|c| c.devices.contains_key(&name))
}

/// The claim through which a Job gets the volume, once it is bound; or what it waits for.
pub(super) fn attach(d: &mut Draft<'_>, i: usize, side: Side, volume_id: &str) -> Result<String, Stop> {
    let cluster = cluster(d, side)?;
    if !cluster.anchor || !d.input.seen.vault_exists {
        if !d.steps.contains(&Step::PrepareSecrets) {
            d.step(Step::PrepareSecrets);
        }
        return Err(Stop::waiting("preparing the cluster"));
    }
    let (n, size_gib) = (d.status.disks[i].index, d.status.disks[i].size_gib);
    let name = d.input.me.device(side, n);
    let device = cluster.devices.get(&name).cloned().unwrap_or_default();
    match (&device.volume, &device.claim) {
        (None, None) => {
            d.step(Step::CreatePersistentVolume { side, disk: n, volume_id: volume_id.into(), size_gib });
            Err(Stop::waiting(format!("Giving volume {volume_id} to the cluster near the {side} cloud")))
        }
        // What is left of another volume, or of an earlier claim, binds no more.
        (Some(v), claim)
            if v.handle != volume_id
                || v.released
                || v.deleting
                || claim.as_ref().is_some_and(|c| c.deleting) =>
        {
            take_away(d, side, &name, &device);
            Err(Stop::waiting(format!("Waiting for the former PersistentVolume {name} to go")))
        }
        (None, Some(_)) => {
            take_away(d, side, &name, &device);
            let text = format!("Waiting for PersistentVolumeClaim {name}, which lost its volume, to go");
            Err(Stop::waiting(text))
        }
        (Some(_), None) => {
            d.step(Step::CreateClaim { side, disk: n, size_gib });
            Err(Stop::waiting(format!("Claiming volume {volume_id} for a Job near the {side} cloud")))
        }
        (Some(_), Some(claim)) => {
            let what = format!("PersistentVolumeClaim {name} of volume {volume_id}");
            let state = if claim.bound { "Bound" } else { "Pending" };
            usable(d, i, &what, (state, "Bound"), &["Pending"], "").map(|()| name)
        }
    }
}

/// The volume is taken out of the cluster: Jobs and pods first, then claim, then PersistentVolume, each seen gone
/// before the next. `Ok`: nothing of it is there.
pub(in super::super) fn release(d: &mut Draft<'_>, i: usize, side: Side) -> Result<(), Stop> {
    let n = d.status.disks[i].index;
    let purpose = match side {
        Side::Source => format!("backup-{n}"),
        Side::Destination => format!("restore-{n}"),
    };
    let (cluster, name) = (cluster(d, side)?, d.input.me.device(side, n));
    let Some(device) = cluster.devices.get(&name) else {
        d.status.disks[i].wait.take_if(|w| w.what == name);
        return Ok(());
    };
    let attempts = d.input.me.attempts(&purpose);
    let jobs: Vec<_> = cluster.jobs.iter().filter(|(job, _)| job.starts_with(&attempts)).collect();
    for (job, _) in jobs.iter().filter(|(_, job)| !job.deleting) {
        d.step(Step::DeleteJob { side, name: job.to_string() });
    }
    if jobs.is_empty() && !cluster.with_pods.iter().any(|job| job.starts_with(&attempts)) {
        take_away(d, side, &name, device);
    }
    let since = waited_since(d, i, &name);
    if d.overdue(since, d.step_bound(0)) && side == Side::Destination {
        let text = format!("PersistentVolume {name} is still there since {since}");
        return Err(Stop::unrecoverable(text));
    }
    Err(Stop::waiting(format!("Waiting for the cluster near the {side} cloud to let go of {name}")))
}

/// Names the deletes that are due for one device.
pub(in super::super) fn take_away(d: &mut Draft<'_>, side: Side, name: &str, device: &DeviceView) {
    match (&device.claim, &device.volume) {
        (Some(claim), _) if !claim.deleting => d.step(Step::DeleteClaim { side, name: name.into() }),
        (None, Some(volume)) if !volume.deleting => {
            d.step(Step::DeletePersistentVolume { side, name: name.into() })
        }
        _ => {}
    }
}

/// The cluster as seen. Trouble with it is recorded here: other disks go on.
fn cluster<'a>(d: &mut Draft<'a>, side: Side) -> Result<&'a ClusterView, Stop> {
    match d.input.seen.cluster(side) {
        Seen::View(c) => Ok(c),
        Seen::Unseen(p) => {
            d.stopped(p.into());
            Err(Stop::waiting(&p.message))
        }
        Seen::NotLooked => Err(Stop::waiting("the cluster was not looked at")),
    }
}
