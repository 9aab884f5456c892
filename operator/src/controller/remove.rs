//! What is taken away in a cloud: nothing that does not show, looked at once more right before, that it may go.

use super::execute::{Done, changed, lasting};
use crate::{
    crd::v1alpha1::VmMigrationStatus,
    migration::{
        names::{Identity, MARK_CLAIM},
        step::{Effect, ObjectKind},
    },
    openstack::{Cloud, Sighting},
};

/// Deletes only what is ours beyond doubt: by a name that only we give, or by mark and record.
pub async fn object(
    cloud: &Cloud,
    me: &Identity,
    kind: ObjectKind,
    id: &str,
    status: &VmMigrationStatus,
) -> Done {
    let made = status.made();
    let ports = status.destination.as_ref().map(|x| x.port_ids.as_slice()).unwrap_or_default();
    let ours = match kind {
        ObjectKind::Server => cloud.get_server(id).await?.map(|o| me.server(&o).is_some()),
        ObjectKind::Volume => cloud.get_volume(id).await?.map(|o| me.volume(&o, &made).is_some()),
        ObjectKind::Snapshot => cloud.get_snapshot(id).await?.map(|o| me.snapshot(&o, &made).is_some()),
        ObjectKind::Image => cloud.get_image(id).await?.map(|o| me.image(&o).is_some()),
        ObjectKind::Port => cloud.get_port(id).await?.map(|o| me.port(&o, ports).is_some()),
    };
    match ours {
        None => return Ok(Effect::Done),
        Some(false) => {
            return Err(lasting(format!(
                "{kind} {id} does not carry our mark, or is not recorded, and is not deleted"
            )));
        }
        Some(true) => {}
    }
    match kind {
        ObjectKind::Server => cloud.delete_server(id).await?,
        ObjectKind::Volume => cloud.delete_volume(id).await?,
        ObjectKind::Snapshot => cloud.delete_snapshot(id).await?,
        ObjectKind::Image => cloud.delete_image(id).await?,
        ObjectKind::Port => cloud.delete_port(id).await?,
    }
    Ok(Effect::Done)
}

/// Takes only our own claim away.
pub async fn claim(cloud: &Cloud, me: &Identity, server_id: &str) -> Done {
    let server = cloud.get_server(server_id).await?;
    if server.is_some_and(|s| s.metadata.get(MARK_CLAIM) == Some(&me.uid)) {
        cloud.delete_server_metadata_key(server_id, MARK_CLAIM).await?;
    }
    Ok(Effect::Done)
}

/// Deletes the source's server only when it is stopped and claimed by us, and when the wish to delete it is recorded.
pub async fn source_server(cloud: &Cloud, me: &Identity, status: &VmMigrationStatus, id: &str) -> Done {
    let recorded = status.retirement.as_ref().is_some_and(|r| r.deletion_requested_at.is_some());
    let Some(server) = cloud.get_server(id).await? else { return Ok(Effect::Done) };
    let ours = server.metadata.get(MARK_CLAIM) == Some(&me.uid);
    if !ours || server.status == "ACTIVE" || !recorded {
        return Err(changed(format!("server {id} is not as it was seen; it is looked at again")));
    }
    cloud.delete_server(id).await?;
    Ok(Effect::Done)
}

/// Deletes a volume of the source only when it is recorded as the source's own and free, and its server was seen gone.
pub async fn source_volume(cloud: &Cloud, status: &VmMigrationStatus, id: &str) -> Done {
    let recorded = status.disks.iter().any(|d| d.source_volume_id.as_deref() == Some(id));
    let server_gone = status.retirement.as_ref().is_some_and(|r| r.server_gone_at.is_some());
    let server_id = status.source.as_ref().map(|s| s.server_id.as_str()).unwrap_or_default();
    if !recorded || !server_gone || server_id.is_empty() {
        return Err(lasting(format!("volume {id} is not recorded as the source's own and is not deleted")));
    }
    if let Sighting::Found(_) = cloud.look_for_server(server_id).await? {
        return Err(changed(format!("server {server_id} is there again")));
    }
    let Some(volume) = cloud.get_volume(id).await? else { return Ok(Effect::Done) };
    if !volume.attachments.is_empty() {
        return Err(changed(format!("volume {id} is attached")));
    }
    cloud.delete_volume(id).await?;
    Ok(Effect::Done)
}
