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
    /// Its nodes are servers of this cloud, by what the platform says; or why that is not proven.
    pub belongs: Result<(), String>,
}

/// What a cluster tells of its block storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterStorage {
    /// The CSI driver of Cinder is installed.
    pub driver: bool,
    /// Its nodes that are Ready.
    pub ready_nodes: Vec<ReadyNode>,
}

/// A node that takes pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadyNode {
    /// Its zone, if it names one.
    pub zone: Option<String>,
    /// What its cloud provider calls it.
    pub provider_id: Option<String>,
}

impl ClusterStorage {
    /// It has the driver, and nodes that could have a volume.
    pub fn has_driver_and_node(&self) -> bool {
        self.driver && !self.ready_nodes.is_empty()
    }
}

/// Are the nodes servers of that cloud? All must say so, in this region where they name one, and one of them must be
/// among the servers that were seen there.
pub fn are_servers(nodes: &[ReadyNode], region: &str, servers: &[String]) -> Result<(), String> {
    let mut seen = false;
    for node in nodes {
        let id = node.provider_id.as_deref().unwrap_or_default();
        let place = id.strip_prefix("openstack://").and_then(|place| place.split_once('/'));
        let Some((of_region, server)) = place else {
            return Err("a node's providerID is not that of an OpenStack server".into());
        };
        if !of_region.is_empty() && of_region != region {
            return Err(format!("a node's providerID names region {of_region}, not {region}"));
        }
        seen |= servers.iter().any(|known| known == server);
    }
    if seen { Ok(()) } else { Err("none of its nodes is a server that the credentials can see".into()) }
}

/// The mode that disks in these zones take; an error says why `Volume`, which was asked for, is not possible.
pub fn resolve(storage: &BlockStorage, zones: &[String]) -> Result<ResolvedTransfer, String> {
    let asked = storage.asked.map_or(TransferMode::Auto, |t| t.mode);
    let assume_zero_target = storage.asked.is_some_and(|t| t.assume_zero_target);
    let volume = |reason: String| ResolvedTransfer {
        mode: ResolvedTransfer::VOLUME.into(),
        reason,
        assume_zero_target,
        ..Default::default()
    };
    let image = |reason: String| ResolvedTransfer {
        mode: ResolvedTransfer::IMAGE.into(),
        reason,
        ..Default::default()
    };
    match (asked, possible(storage, zones)) {
        (TransferMode::Image, _) => Ok(image("asked for".into())),
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
    let asked = Some(Transfer { mode, assume_zero_target: begun.assume_zero_target, takes_any_disk: false });
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
    let reaches =
        |zone: &String| cluster.ready_nodes.iter().any(|n| n.zone.as_ref().is_none_or(|n| n == zone));
    if let Some(zone) = zones.iter().find(|zone| !reaches(zone)) {
        return Err(format!("its cluster has no Ready node in zone {zone} of the volumes"));
    }
    match &storage.belongs {
        Ok(()) => Ok(format!("its cluster has the CSI driver {DRIVER} and a Ready node of this cloud")),
        Err(why) => Err(format!("its cluster's nodes are not proven to be servers of this cloud: {why}")),
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
        suggestion: Some("the platform installs the driver where the cluster's nodes are servers of that cloud, and says so with identityURL, region and ca; or ask for Auto or Image".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Ready node of that zone.
    fn node(zone: Option<&str>) -> ReadyNode {
        ReadyNode { zone: zone.map(String::from), ..Default::default() }
    }

    #[test]
    fn the_mode_follows_from_what_was_asked_and_what_there_is() {
        let cluster = |driver, nodes: &[Option<&str>]| {
            Ok(ClusterStorage { driver, ready_nodes: nodes.iter().map(|n| node(*n)).collect() })
        };
        let (auto, volume, image) = (None, Some(TransferMode::Volume), Some(TransferMode::Image));
        let unseen = || Err("forbidden".to_string());
        let foreign = || Err("another cloud".to_string());
        // asked, cluster, whether its nodes are of this cloud, zones of volumes, mode (none: refused), what the reason names
        let table = [
            (auto, cluster(true, &[None]), Ok(()), &[][..], "Volume", "Ready node"),
            (auto, cluster(true, &[None]), Ok(()), &["nova"], "Volume", "Ready node"),
            (auto, cluster(true, &[Some("az1"), Some("nova")]), Ok(()), &["nova"], "Volume", "Ready node"),
            (auto, cluster(true, &[Some("az1")]), Ok(()), &["nova"], "Image", "zone nova"),
            (auto, cluster(true, &[Some("az1")]), Ok(()), &["az1", "az2"], "Image", "zone az2"),
            (auto, cluster(true, &[]), Ok(()), &[], "Image", "no Ready node"),
            (auto, cluster(false, &[None]), Ok(()), &[], "Image", "no CSI driver"),
            (auto, unseen(), Ok(()), &[], "Image", "forbidden"),
            (auto, cluster(true, &[None]), foreign(), &[], "Image", "another cloud"),
            (volume, cluster(true, &[None]), Ok(()), &["nova"], "Volume", "asked for"),
            (volume, cluster(false, &[None]), Ok(()), &[], "", "no CSI driver"),
            (volume, cluster(true, &[Some("az1")]), Ok(()), &["nova"], "", "zone nova"),
            (volume, unseen(), Ok(()), &[], "", "forbidden"),
            (volume, cluster(true, &[None]), foreign(), &[], "", "another cloud"),
            (image, cluster(true, &[None]), Ok(()), &[], "Image", "asked for"),
            (image, unseen(), foreign(), &[], "Image", "asked for"),
        ];
        for (asked, cluster, belongs, zones, mode, reason) in table {
            let asked = asked.map(|mode| Transfer { mode, assume_zero_target: false, takes_any_disk: false });
            let storage = BlockStorage { asked, cluster, belongs };
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
    fn disks_that_travel_as_devices_stop_when_that_is_not_proven_any_more() {
        let cluster = Ok(ClusterStorage { driver: true, ready_nodes: vec![node(None)] });
        let begun = |mode: &str| ResolvedTransfer { mode: mode.into(), ..Default::default() };
        let storage = BlockStorage { asked: None, cluster, belongs: Err("another cloud".into()) };
        assert!(resolve_again(&storage, &[], &begun("Volume")).unwrap_err().contains("another cloud"));
        assert_eq!(resolve_again(&storage, &[], &begun("Image")), Ok(begun("Image")));
    }

    #[test]
    fn nodes_are_servers_when_all_say_so_and_one_was_seen() {
        let nodes = |ids: &[&str]| -> Vec<ReadyNode> {
            let id = |id: &&str| Some(id.to_string()).filter(|id| !id.is_empty());
            ids.iter().map(|i| ReadyNode { provider_id: id(i), zone: None }).collect()
        };
        let servers = ["s1".to_string(), "s2".to_string()];
        for (ids, complaint) in [
            (&["openstack:///s1"][..], ""),
            (&["openstack://R/s2"], ""),
            (&["openstack:///others", "openstack:///s1"], ""),
            (&["openstack:///others"], "can see"),
            (&["openstack://S/s1"], "region S"),
            (&["openstack:///s1", "kind://docker/s2"], "providerID"),
            (&["openstack:///s1", ""], "providerID"),
            (&["aws:///zone/s1"], "providerID"),
            (&["openstack://s1"], "providerID"),
            (&[], "can see"),
        ] {
            let told = are_servers(&nodes(ids), "R", &servers);
            assert_eq!(told.is_ok(), complaint.is_empty(), "{ids:?}: {told:?}");
            assert!(told.err().unwrap_or_default().contains(complaint), "{ids:?}");
        }
    }

    #[test]
    fn a_target_is_zero_only_where_somebody_says_so() {
        let asked =
            Some(Transfer { mode: TransferMode::Auto, assume_zero_target: true, takes_any_disk: false });
        let cluster = Ok(ClusterStorage { driver: true, ready_nodes: vec![node(None)] });
        let of = |asked| {
            resolve(&BlockStorage { asked, cluster: cluster.clone(), belongs: Ok(()) }, &[])
                .unwrap()
                .assume_zero_target
        };
        assert!(of(asked) && !of(None));
    }
}
