//! Volumes and snapshots (Cinder).

use std::collections::BTreeMap;

use http::Method;
use openstack_sdk::types::ServiceType;
use serde::Deserialize;
use serde_json::{Value, json};

use super::compute::available;
use super::endpoint::{Call, path};
use super::error::{CloudError, ErrorKind};
use super::session::Cloud;
use crate::cloud::{FailureMessage, Listed, Quota, Snapshot, Volume, VolumeType};

fn call(method: Method, segments: &[&str]) -> Call {
    Call::new(ServiceType::BlockStorage, method, path(segments)).version((3, 0))
}

impl Cloud {
    /// All volumes of the project.
    pub async fn list_volumes(&self) -> Result<Listed<Volume>, CloudError> {
        self.listed("list volumes", "volumes", "id", call(Method::GET, &["volumes", "detail"])).await
    }

    /// One volume; `None` when there is none with this id.
    pub async fn get_volume(&self, id: &str) -> Result<Option<Volume>, CloudError> {
        self.fetch_optional("get volume", "volume", call(Method::GET, &["volumes", id])).await
    }

    /// Asks for a volume. `body` is the whole document, `{"volume": {...}}`, with metadata that says whose it is.
    pub async fn create_volume(&self, body: &Value) -> Result<Volume, CloudError> {
        let call = call(Method::POST, &["volumes"]).json(body.clone());
        self.fetch("create volume", "volume", call).await
    }

    /// Deletes a volume; done when it is not there. One with snapshots is refused (400).
    pub async fn delete_volume(&self, id: &str) -> Result<(), CloudError> {
        self.remove("delete volume", call(Method::DELETE, &["volumes", id])).await
    }

    /// Changes name, description or metadata; `body` is `{"volume": {...}}`. Metadata are replaced as a whole.
    pub async fn update_volume(&self, id: &str, body: &Value) -> Result<Volume, CloudError> {
        let call = call(Method::PUT, &["volumes", id]).json(body.clone());
        self.fetch("update volume", "volume", call).await
    }

    /// All snapshots of the project.
    pub async fn list_snapshots(&self) -> Result<Listed<Snapshot>, CloudError> {
        self.listed("list snapshots", "snapshots", "id", call(Method::GET, &["snapshots", "detail"])).await
    }

    /// One snapshot; `None` when there is none with this id.
    pub async fn get_snapshot(&self, id: &str) -> Result<Option<Snapshot>, CloudError> {
        self.fetch_optional("get snapshot", "snapshot", call(Method::GET, &["snapshots", id])).await
    }

    /// Asks for a snapshot. `force` is needed for an attached volume; the version is below 3.66, where the
    /// meaning of the flag changed.
    pub async fn create_snapshot(
        &self,
        volume_id: &str,
        name: &str,
        metadata: &BTreeMap<String, String>,
        force: bool,
    ) -> Result<Snapshot, CloudError> {
        let body = json!({"snapshot": {
            "volume_id": volume_id, "name": name, "metadata": metadata, "force": force,
        }});
        self.fetch("create snapshot", "snapshot", call(Method::POST, &["snapshots"]).json(body)).await
    }

    /// Deletes a snapshot; done when it is not there.
    pub async fn delete_snapshot(&self, id: &str) -> Result<(), CloudError> {
        self.remove("delete snapshot", call(Method::DELETE, &["snapshots", id])).await
    }

    async fn volume_action(&self, action: &str, id: &str, body: Value) -> Result<(), CloudError> {
        let call = call(Method::POST, &["volumes", id, "action"]).json(body);
        self.send(action, call).await.map(drop)
    }

    /// What the block storage service tells its users of a failure of this volume or snapshot, newest first. Needs 3.5.
    pub async fn failures_of(&self, id: &str) -> Result<Vec<FailureMessage>, CloudError> {
        let call = call(Method::GET, &["messages"]).version((3, 5)).query("resource_uuid", id);
        let mut found: Vec<FailureMessage> = self.list("list messages", "messages", "id", call).await?;
        found.retain(|message| message.resource_uuid == id);
        found.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        Ok(found)
    }

    /// Copies a volume into a new private raw image and gives the image's id. An attached volume is refused
    /// (400) by most clouds even with `force`.
    pub async fn upload_volume_to_image(
        &self,
        volume_id: &str,
        image_name: &str,
        force: bool,
    ) -> Result<String, CloudError> {
        #[derive(Deserialize)]
        struct Upload {
            image_id: String,
        }
        // 3.1 is the first version that takes the visibility.
        let body = json!({"os-volume_upload_image": {
            "image_name": image_name, "disk_format": "raw", "container_format": "bare", "force": force,
            "visibility": "private", "protected": false,
        }});
        let call = call(Method::POST, &["volumes", volume_id, "action"]).version((3, 1)).json(body);
        let upload: Upload = self.fetch("upload volume to image", "os-volume_upload_image", call).await?;
        Ok(upload.image_id)
    }

    /// Says whether servers may boot from the volume.
    pub async fn set_bootable(&self, id: &str, bootable: bool) -> Result<(), CloudError> {
        let body = json!({"os-set_bootable": {"bootable": bootable}});
        self.volume_action("set bootable", id, body).await
    }

    /// Adds image properties, which a server that boots from the volume gets.
    pub async fn set_volume_image_metadata(
        &self,
        id: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), CloudError> {
        let body = json!({"os-set_image_metadata": {"metadata": metadata}});
        self.volume_action("set volume image metadata", id, body).await
    }

    /// Removes one of these; done when it is not there.
    pub async fn unset_volume_image_metadata(&self, id: &str, key: &str) -> Result<(), CloudError> {
        let body = json!({"os-unset_image_metadata": {"key": key}});
        match self.volume_action("unset volume image metadata", id, body).await {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Volume types that the project may use.
    pub async fn list_volume_types(&self) -> Result<Vec<VolumeType>, CloudError> {
        self.list("list volume types", "volume_types", "id", call(Method::GET, &["types"])).await
    }

    /// The project's limits and use by Cinder's names, e.g. `maxTotalVolumes`, `totalVolumesUsed`; -1 is
    /// unlimited.
    pub async fn volume_limits(&self) -> Result<BTreeMap<String, i64>, CloudError> {
        self.absolute_limits("get volume limits", call(Method::GET, &["limits"])).await
    }

    /// The project's quotas by resource, those of single volume types too (`gigabytes_<type>`). Numbers of
    /// gigabytes are GiB.
    pub async fn volume_quotas(&self) -> Result<BTreeMap<String, Quota>, CloudError> {
        let project = self.project_id();
        let call = call(Method::GET, &["os-quota-sets", &project]).query("usage", "True");
        let set: BTreeMap<String, Value> = self.fetch("get volume quotas", "quota_set", call).await?;
        Ok(set.into_iter().filter_map(|(name, v)| Some((name, quota(&v, "in_use")?))).collect())
    }

    /// How the backend connects an attached volume: `driver_volume_type` of its attachment (`rbd`, `iscsi`,
    /// `nfs`, ...). `None` when the volume is not attached or the cloud does not show it. Needs 3.27.
    pub async fn volume_driver_types(&self, volume_id: &str) -> Result<Option<String>, CloudError> {
        let call =
            call(Method::GET, &["attachments", "detail"]).version((3, 27)).query("volume_id", volume_id);
        let found: Vec<Value> = self.list("list attachments", "attachments", "id", call).await?;
        let driver = |a: &Value| {
            let info = a.get("connection_info")?;
            let name = info.get("driver_volume_type").or_else(|| info.pointer("/data/driver_volume_type"));
            name?.as_str().map(str::to_string)
        };
        let ours = |a: &&Value| a.get("volume_id").and_then(Value::as_str) == Some(volume_id);
        Ok(found.iter().filter(ours).find_map(driver))
    }

    /// Names of the block storage zones that take new volumes.
    pub async fn volume_availability_zones(&self) -> Result<Vec<String>, CloudError> {
        let call = call(Method::GET, &["os-availability-zone"]);
        Ok(available(self.fetch("list volume availability zones", "availabilityZoneInfo", call).await?))
    }
}

/// `{limit, <used>, reserved}` as a quota; `None` for members that are none (`id`).
pub(super) fn quota(value: &Value, used: &str) -> Option<Quota> {
    let number = |key: &str| value.get(key).and_then(Value::as_i64);
    Some(Quota { limit: number("limit")?, used: number(used)? + number("reserved").unwrap_or_default() })
}
