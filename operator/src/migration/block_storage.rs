//! Can disks of a cloud travel as block devices? Decided by what the cluster near it says of its CSI driver and nodes.

use super::names::Side;
use crate::crd::v1alpha1::{Finding, ResolvedTransfer, Severity, Transfer, TransferMode, VmMigrationStatus};

/// The CSI driver that gives Cinder volumes to pods.
pub const DRIVER: &str = "cinder.csi.openstack.org";
/// Labels of nodes that tell the zone of the volumes that they can have; the driver's own first.
pub const ZONE_LABELS: [&str; 2] = ["topology.cinder.csi.openstack.org/zone", "topology.kubernetes.io/zone"];

/// What decides how disks leave or enter a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockStorage {
    /// What the `OpenStackCloud` asks for.
    pub asked: Option<Transfer>,
    /// What the cluster told, or why it did not.
    pub cluster: Result<ClusterStorage, String>,
    /// The other cloud's Jobs run in that cluster, too.
    pub shared: bool,
}

/// What a cluster tells of its block storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterStorage {
    /// The CSI driver of Cinder is installed.
    pub driver: bool,
    /// Zones of its nodes that are Ready; `None` for a node that names none.
    pub ready_nodes: Vec<Option<String>>,
}

/// The mode that disks in these zones take; an error says why `Volume`, which was asked for, is not possible.
pub fn resolve(storage: &BlockStorage, zones: &[String]) -> Result<ResolvedTransfer, String> {
    let asked = storage.asked.map_or(TransferMode::Auto, |t| t.mode);
    let assume_zero_target = storage.asked.is_some_and(|t| t.assume_zero_target);
    let volume = |reason: String| ResolvedTransfer {
        mode: ResolvedTransfer::VOLUME.into(),
        reason,
        assume_zero_target,
    };
    let image = |reason: String| ResolvedTransfer {
        mode: ResolvedTransfer::IMAGE.into(),
        reason,
        ..Default::default()
    };
    match (asked, possible(storage, zones)) {
        (TransferMode::Image, _) => Ok(image("asked for".into())),
        // Its nodes are servers of one cloud at most, and nothing tells of which.
        (TransferMode::Auto, Ok(_)) if storage.shared => Ok(image(
            "one cluster serves both clouds; ask for Volume in the cloud that its nodes are servers of"
                .into(),
        )),
        (TransferMode::Volume, Ok(why)) => Ok(volume(format!("asked for; {why}"))),
        (TransferMode::Volume, Err(why)) => Err(why),
        (TransferMode::Auto, Ok(why)) => Ok(volume(why)),
        (TransferMode::Auto, Err(why)) => Ok(image(why)),
    }
}

/// The same for disks that have begun to travel: they keep their mode, whatever is asked for by now.
pub fn resolve_again(
    storage: &BlockStorage,
    zones: &[String],
    begun: &ResolvedTransfer,
) -> Result<ResolvedTransfer, String> {
    let mode = if begun.is_volume() { TransferMode::Volume } else { TransferMode::Image };
    let asked = Some(Transfer { mode, assume_zero_target: begun.assume_zero_target });
    resolve(&BlockStorage { asked, ..storage.clone() }, zones).map(|_| begun.clone())
}

fn possible(storage: &BlockStorage, zones: &[String]) -> Result<String, String> {
    let cluster =
        storage.cluster.as_ref().map_err(|why| format!("its cluster's storage cannot be seen: {why}"))?;
    if !cluster.driver {
        return Err(format!("its cluster has no CSI driver {DRIVER}"));
    }
    if cluster.ready_nodes.is_empty() {
        return Err(format!("its cluster has the CSI driver {DRIVER}, but no Ready node"));
    }
    // A node that names no zone is taken as one that can have every volume.
    let reaches = |zone: &String| cluster.ready_nodes.iter().any(|n| n.as_ref().is_none_or(|n| n == zone));
    match zones.iter().find(|zone| !reaches(zone)) {
        Some(zone) => Err(format!("its cluster has no Ready node in zone {zone} of the volumes")),
        None => Ok(format!("its cluster has the CSI driver {DRIVER} and a Ready node")),
    }
}

/// The mode that preflight found for one side of a migration, once it has.
pub fn pinned(status: &VmMigrationStatus, side: Side) -> Option<&ResolvedTransfer> {
    match side {
        Side::Source => status.source.as_ref()?.transfer.as_ref(),
        Side::Destination => status.destination.as_ref()?.transfer.as_ref(),
    }
}

/// Do warm passes fill volumes in the destination, long before the source is claimed?
pub fn fills_while_copying(status: &VmMigrationStatus) -> bool {
    status.copying.is_some() && pinned(status, Side::Destination).is_some_and(ResolvedTransfer::is_volume)
}

/// `Volume` was asked for and is not possible.
pub fn blocker(side: Side, cloud: &str, why: &str) -> Finding {
    Finding {
        id: format!("{side}-transfer-mode"),
        severity: Severity::Blocker,
        message: format!("OpenStackCloud {cloud} asks for transfer.mode Volume, which is not possible: {why}"),
        suggestion: Some("install the driver where the cluster's nodes are servers of that cloud, or ask for Auto or Image".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_follows_from_what_was_asked_and_what_there_is() {
        let cluster = |driver, nodes: &[Option<&str>]| {
            Ok(ClusterStorage { driver, ready_nodes: nodes.iter().map(|n| n.map(String::from)).collect() })
        };
        let (auto, volume, image) = (None, Some(TransferMode::Volume), Some(TransferMode::Image));
        let unseen = || Err("forbidden".to_string());
        // asked, cluster, zones of volumes, mode (none: refused), what the reason names
        let table = [
            (auto, cluster(true, &[None]), &[][..], "Volume", "Ready node"),
            (auto, cluster(true, &[None]), &["nova"], "Volume", "Ready node"),
            (auto, cluster(true, &[Some("az1"), Some("nova")]), &["nova"], "Volume", "Ready node"),
            (auto, cluster(true, &[Some("az1")]), &["nova"], "Image", "zone nova"),
            (auto, cluster(true, &[Some("az1")]), &["az1", "az2"], "Image", "zone az2"),
            (auto, cluster(true, &[]), &[], "Image", "no Ready node"),
            (auto, cluster(false, &[None]), &[], "Image", "no CSI driver"),
            (auto, unseen(), &[], "Image", "forbidden"),
            (volume, cluster(true, &[None]), &["nova"], "Volume", "asked for"),
            (volume, cluster(false, &[None]), &[], "", "no CSI driver"),
            (volume, cluster(true, &[Some("az1")]), &["nova"], "", "zone nova"),
            (volume, unseen(), &[], "", "forbidden"),
            (image, cluster(true, &[None]), &[], "Image", "asked for"),
            (image, unseen(), &[], "Image", "asked for"),
        ];
        for (asked, cluster, zones, mode, reason) in table {
            let asked = asked.map(|mode| Transfer { mode, assume_zero_target: false });
            let storage = BlockStorage { asked, cluster, shared: false };
            let zones: Vec<String> = zones.iter().map(ToString::to_string).collect();
            let (got, why) = match resolve(&storage, &zones) {
                Ok(found) => (found.mode, found.reason),
                Err(why) => (String::new(), why),
            };
            assert_eq!(got, mode, "{storage:?} {zones:?}: {why}");
            assert!(why.contains(reason), "{why}");
        }
    }

    #[test]
    fn a_cluster_for_both_clouds_takes_images_unless_asked() {
        // What is asked for, the mode.
        for (asked, mode) in
            [(None, "Image"), (Some(TransferMode::Volume), "Volume"), (Some(TransferMode::Image), "Image")]
        {
            let asked = asked.map(|mode| Transfer { mode, assume_zero_target: false });
            let cluster = Ok(ClusterStorage { driver: true, ready_nodes: vec![None] });
            let found = resolve(&BlockStorage { asked, cluster, shared: true }, &[]).unwrap();
            assert_eq!(found.mode, mode, "{asked:?}: {}", found.reason);
        }
    }

    #[test]
    fn a_target_is_zero_only_where_somebody_says_so() {
        let asked = Some(Transfer { mode: TransferMode::Auto, assume_zero_target: true });
        let cluster = Ok(ClusterStorage { driver: true, ready_nodes: vec![None] });
        let of = |asked| {
            resolve(&BlockStorage { asked, cluster: cluster.clone(), shared: false }, &[])
                .unwrap()
                .assume_zero_target
        };
        assert!(of(asked) && !of(None));
    }
}
