//! `OpenStackCloud`: one project in one cloud, and the cluster whose Jobs are near it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One project in one OpenStack cloud.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "vmmigration.io",
    version = "v1alpha1",
    kind = "OpenStackCloud",
    plural = "openstackclouds",
    shortname = "osc",
    category = "vmmigration",
    namespaced,
    status = "OpenStackCloudStatus",
    derive = "PartialEq",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Project", type_ = "string", json_path = ".status.projectId"),
    printcolumn(name = "Transfer", type_ = "string", json_path = ".status.transfer.mode"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct OpenStackCloudSpec {
    /// Where the credentials are. The same Secret works with other OpenStack operators.
    pub credentials_ref: CloudCredentialsRef,
    /// Name of the registered cluster whose Jobs run near this cloud. Unset: the operator's own cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub cluster: Option<String>,
    /// How disks leave and enter this cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
}

/// A Secret in the same namespace with key `clouds.yaml` and optionally `cacert`.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudCredentialsRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Name of the entry in `clouds.yaml`. May be left out when there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub cloud_name: Option<String>,
}

/// How disks leave and enter a cloud.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// `Auto` chooses; `Volume` gives Jobs the volumes as block devices; `Image` sends every disk through the cloud's
    /// image service.
    pub mode: TransferMode,
    /// With `Volume`: new volumes of this cloud read as zeros, so zeros need not be written. Wrong for encrypted volume
    /// types, and where the storage hands out what another volume held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assume_zero_target: bool,
    /// With images: the image service of this cloud takes disks whatever they begin with, although its release (2025.1 or
    /// later) refuses some of them by default: its operator has allowed it. Disks are then not refused before they travel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_any_disk: bool,
}

/// How disks leave and enter a cloud.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferMode {
    /// The operator chooses and says why.
    Auto,
    /// As block devices: the nodes of the cluster are servers of that cloud and run its CSI driver.
    Volume,
    /// Through images: works with every cloud.
    Image,
}

/// What the operator found when it used the credentials.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackCloudStatus {
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, from real calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The project that the credentials open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// The region in use, where the cloud has regions: the chosen one, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The services in use and their versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<CloudService>,
    /// Limits and use of the project; only names that the cloud reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<Quota>,
    /// The transfer mode in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<ResolvedTransfer>,
}

/// One service of a cloud.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudService {
    /// `compute`, `block-storage`, `image` or `network`.
    pub name: String,
    /// The API version, such as `2.1`.
    pub version: String,
    /// The newest microversion that the service offers, where it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microversion: Option<String>,
}

/// A limit and what is used of it.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// Such as `instances`, `gigabytes` (GiB), `ram` (MiB).
    pub name: String,
    /// In use now.
    pub used: i64,
    /// The limit; -1: none.
    pub limit: i64,
}

/// The transfer mode in use and the reason for it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResolvedTransfer {
    /// `Volume` or `Image`.
    pub mode: String,
    /// Why it was chosen.
    pub reason: String,
    /// As `spec.transfer.assumeZeroTarget` said.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub assume_zero_target: bool,
    /// The cloud's image service refuses some disks for what they begin with (2025.1 and later, unless
    /// `spec.transfer.takesAnyDisk`). Unset: that cannot be told by the versions of its services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judges_images: Option<bool>,
}

impl ResolvedTransfer {
    /// The mode as it is written in `mode`.
    pub const VOLUME: &str = "Volume";
    /// The mode as it is written in `mode`.
    pub const IMAGE: &str = "Image";

    /// Do disks travel as block devices?
    pub fn is_volume(&self) -> bool {
        self.mode == Self::VOLUME
    }
}
