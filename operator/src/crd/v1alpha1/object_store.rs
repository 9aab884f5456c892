//! `ObjectStore`: where encrypted data rest on their way.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The place in which encrypted disks rest on their way from cloud to cloud.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "vmmigration.io",
    version = "v1alpha1",
    kind = "ObjectStore",
    plural = "objectstores",
    shortname = "ostore",
    category = "vmmigration",
    namespaced,
    status = "ObjectStoreStatus",
    derive = "PartialEq",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Location", type_ = "string", json_path = ".spec.location"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct ObjectStoreSpec {
    /// In restic's form: `s3:https://host[:port]/bucket[/prefix]`. No user information in it.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('s3:https://')").message("location must be s3:https://host[:port]/bucket[/prefix]: only S3 over HTTPS is supported"))]
    #[x_kube(validation = Rule::new("!self.contains('@')").message("location must not contain user information: keys belong into the Secret named by credentialsSecretRef"))]
    #[x_kube(validation = Rule::new("self.matches('^s3:https://[^/?#]+/[^/?#]+(/[^?#]*)?$')").message("location must name a bucket: s3:https://host[:port]/bucket[/prefix]"))]
    pub location: String,
    /// A Secret with keys `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, and optionally `AWS_SESSION_TOKEN`,
    /// `AWS_DEFAULT_REGION` and `cacert` (PEM).
    pub credentials_secret_ref: StoreSecretRef,
}

/// A Secret in the same namespace.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What the operator found when it wrote, read and deleted an object.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStoreStatus {
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, from a real write, read and delete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
