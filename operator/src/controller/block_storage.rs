//! Reads of a cluster's block storage: what it has, whose it is, and what of it is ours.

use super::{clouds::CloudCache, clusters::MoverCluster, observe::cloud_problem};
use crate::{
    contract::shorten,
    crd::v1alpha1::{Transfer, TransferMode},
    migration::{
        block_storage::{BlockStorage, ClusterStorage, DRIVER, ReadyNode, ZONE_LABELS, are_servers},
        names::{Identity, LABEL_MIGRATION, LABEL_SIDE, Side},
        observed::{ClaimView, DeviceView, PersistentVolumeView, Problem},
    },
    net::EndpointPolicy,
    openstack::{Cloud, Credentials},
};
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::CSIDriver,
};
use kube::{Api, ResourceExt, api::ListParams};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// A cloud or a cluster that does not answer is one that proves nothing, for now.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Credentials of a tenant, and what is needed to use them.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// Sessions.
    pub sessions: &'a CloudCache,
    /// Where endpoints may be.
    pub policy: &'a EndpointPolicy,
    /// The tenant's credentials.
    pub credentials: &'a Credentials,
    /// What messages call the cloud.
    pub name: &'a str,
}

/// What decides how disks leave or enter the cloud. The cloud is asked only where its answer decides something.
pub async fn look(cluster: &MoverCluster, asked: Option<Transfer>, access: Access<'_>) -> BlockStorage {
    let late = |_| format!("no answer within {} s", TIMEOUT.as_secs());
    let told = timeout(TIMEOUT, storage(cluster, asked)).await.map_err(late).and_then(|told| told);
    let belongs = match &told {
        Ok(storage) if storage.has_driver_and_node() => {
            let proof = timeout(TIMEOUT, belongs(cluster, storage, access)).await;
            proof.map_err(late).and_then(|proof| proof)
        }
        _ => Err("that was not looked at".into()),
    };
    BlockStorage { asked, cluster: told, belongs }
}

/// Are the cluster's nodes servers of the cloud that the credentials open?
async fn belongs(cluster: &MoverCluster, storage: &ClusterStorage, access: Access<'_>) -> Result<(), String> {
    let cloud = vouched(cluster, access).await.map_err(|problem| problem.message)?;
    let bound = cluster.cloud.as_ref().map_err(Clone::clone)?;
    if bound.nodes_are_servers() {
        return Ok(());
    }
    let servers = cloud.list_servers().await.map_err(|e| e.to_string())?;
    let servers: Vec<String> = servers.into_iter().map(|server| server.id).collect();
    are_servers(&storage.ready_nodes, bound.region(), &servers)
        .map_err(|why| format!("{why}; the platform may state it (nodesAreServers)"))
}

/// A session that the platform vouches for: with the cloud that the cluster is bound to, trusted by the platform's own
/// CA, and with no address that is not from that cloud's catalog.
pub async fn vouched(cluster: &MoverCluster, access: Access<'_>) -> Result<Cloud, Problem> {
    let doubt = |message: String| Problem {
        id: "cluster-of-another-cloud".into(),
        message,
        suggestion: None,
        transient: false,
    };
    let bound = cluster.cloud.as_ref().map_err(|why| doubt(why.clone()))?;
    let admitted = bound.admit(access.credentials).map_err(doubt)?;
    let session = access.sessions.session(&admitted, access.policy, access.name).await;
    let cloud = session.map_err(|e| Problem {
        message: format!("with the platform's CA, {e}"),
        ..cloud_problem(Side::Source, &e)
    })?;
    bound.check_region(&cloud).map_err(doubt)?;
    Ok(cloud)
}

/// What a cluster tells of its storage. One that refuses to tell is one without, and one of which images are asked for
/// is not asked itself.
async fn storage(cluster: &MoverCluster, asked: Option<Transfer>) -> Result<ClusterStorage, String> {
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
    let ready_nodes = nodes.list(&list).await?.items.iter().filter(|n| is_ready(n)).map(ready_node).collect();
    Ok(ClusterStorage { driver: true, ready_nodes })
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let unschedulable = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or_default();
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True") && !unschedulable
}

fn ready_node(node: &Node) -> ReadyNode {
    ReadyNode {
        zone: ZONE_LABELS.iter().find_map(|label| node.labels().get(*label)).cloned(),
        provider_id: node.spec.as_ref().and_then(|spec| spec.provider_id.clone()),
    }
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
