//! Reads of a cluster's block storage: what it has, and what of it is ours.

use super::clusters::MoverCluster;
use crate::{
    crd::v1alpha1::{Transfer, TransferMode},
    migration::{
        block_storage::{ClusterStorage, DRIVER, ZONE_LABELS},
        names::{Identity, LABEL_MIGRATION, LABEL_SIDE, Side},
        observed::{ClaimView, DeviceView, PersistentVolumeView},
    },
    mover::result::shorten,
};
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::CSIDriver,
};
use kube::{Api, ResourceExt, api::ListParams};
use std::collections::BTreeMap;

/// What a cluster tells of its storage. One that refuses to tell is one without, and one of which images are asked for
/// is not asked itself.
pub async fn look(cluster: &MoverCluster, asked: Option<Transfer>) -> Result<ClusterStorage, String> {
    if asked.is_some_and(|t| t.mode == TransferMode::Image) {
        return Ok(ClusterStorage::default());
    }
    told(cluster).await.map_err(|e| shorten(&e.to_string(), 256))
}

async fn told(cluster: &MoverCluster) -> Result<ClusterStorage, kube::Error> {
    let (drivers, nodes) =
        (Api::<CSIDriver>::all(cluster.client.clone()), Api::<Node>::all(cluster.client.clone()));
    let list = ListParams::default();
    if !drivers.list_metadata(&list).await?.items.iter().any(|d| d.name_any() == DRIVER) {
        return Ok(ClusterStorage::default());
    }
    let ready_nodes = nodes.list(&list).await?.items.iter().filter(|n| is_ready(n)).map(zone).collect();
    Ok(ClusterStorage { driver: true, ready_nodes })
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let unschedulable = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or_default();
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True") && !unschedulable
}

fn zone(node: &Node) -> Option<String> {
    ZONE_LABELS.iter().find_map(|label| node.labels().get(*label)).cloned()
}

/// PersistentVolumes and claims of one side, by their common name.
pub async fn devices(
    me: &Identity,
    cluster: &MoverCluster,
    side: Side,
) -> Result<BTreeMap<String, DeviceView>, kube::Error> {
    let ours = ListParams::default().labels(&format!("{LABEL_MIGRATION}={},{LABEL_SIDE}={side}", me.uid));
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    // Claims first: one that is gone by then has left its volume released.
    let claims = claims.list(&ours).await?.items;
    let volumes = volumes.list(&ours).await?.items;
    let mut devices = BTreeMap::<String, DeviceView>::new();
    for claim in claims {
        let view = ClaimView {
            bound: claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound"),
            deleting: claim.metadata.deletion_timestamp.is_some(),
        };
        devices.entry(claim.name_any()).or_default().claim = Some(view);
    }
    for volume in volumes {
        let csi = volume.spec.as_ref().and_then(|s| s.csi.as_ref());
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let view = PersistentVolumeView {
            handle: csi.map(|c| c.volume_handle.clone()).unwrap_or_default(),
            released: matches!(phase, "Released" | "Failed"),
            deleting: volume.metadata.deletion_timestamp.is_some(),
        };
        devices.entry(volume.name_any()).or_default().volume = Some(view);
    }
    Ok(devices)
}
