//! Why something that a cloud was asked for is gone: looked for by its id, then asked of the service that made it.

use super::execute::{Done, changed};
use crate::{
    contract::shorten,
    crd::v1alpha1::VmMigrationStatus,
    migration::{names::Role, step::Effect},
    openstack::{Cloud, CloudError},
};

/// Longest answer that is recorded, in characters.
const MOST: usize = 500;

/// Looks for an object by its id; when it is gone, says what the cloud tells of it. `volume_id` is the volume that it
/// was to be made of, where it was made of one.
pub async fn find(
    cloud: &Cloud,
    status: &VmMigrationStatus,
    role: Role,
    id: &str,
    volume_id: Option<&str>,
) -> Done {
    let there = match role {
        Role::Snapshot => cloud.get_snapshot(id).await?.is_some(),
        Role::ExportVolume | Role::Volume => cloud.get_volume(id).await?.is_some(),
        Role::ExportImage | Role::ImportImage | Role::ReadbackImage | Role::RootImage => {
            cloud.get_image(id).await?.is_some()
        }
        Role::Port => cloud.get_port(id).await?.is_some(),
        Role::Server => cloud.get_server(id).await?.is_some(),
    };
    if there {
        return Err(changed(format!("{role} {id} is there, although it was in no list")));
    }
    let said = match (role, volume_id) {
        (Role::Snapshot | Role::ExportVolume | Role::Volume, _) => by_volume_service(cloud, id).await,
        (_, Some(volume)) => by_volume_service(cloud, volume).await,
        (Role::ExportImage, None) => by_compute_service(cloud, status).await,
        _ => Ok(None),
    };
    let why = match said {
        Ok(Some(why)) => why,
        Ok(None) => "the cloud gives no reason; somebody may have deleted it".into(),
        Err(error) => format!("no reason could be read: {error}"),
    };
    Ok(Effect::Lost { why: shorten(&why, MOST) })
}

/// The newest message about a volume or snapshot.
async fn by_volume_service(cloud: &Cloud, id: &str) -> Result<Option<String>, CloudError> {
    let newest = cloud.failures_of(id).await?.into_iter().next();
    Ok(newest.map(|message| match message.request_id {
        Some(request) => format!("{} ({request})", message.user_message),
        None => message.user_message,
    }))
}

/// What became of our request for an image of the source's local root disk.
async fn by_compute_service(cloud: &Cloud, status: &VmMigrationStatus) -> Result<Option<String>, CloudError> {
    let Some(source) = &status.source else { return Ok(None) };
    let Some(request) = &source.image_request_id else { return Ok(None) };
    let action = cloud.server_action_details(&source.server_id, request).await?;
    let failed = action.events.iter().find(|e| e.result.as_deref() == Some("Error"));
    let event = failed.map(|e| match &e.details {
        Some(details) => format!("{}: {details}", e.event),
        None => format!("{} failed", e.event),
    });
    let server = cloud.get_server(&source.server_id).await?;
    let said = event.or(server.and_then(|s| s.fault)).or(action.message);
    Ok(said.map(|said| format!("{said} ({request})")))
}
