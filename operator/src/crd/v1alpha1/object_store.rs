//! `ObjectStore`: where encrypted data rest on their way.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
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
    /// In restic's form: `s3:https://host[:port]/bucket[/prefix]`, `rest:https://host[:port][/prefix]` or
    /// `swift:container:/[prefix]`. No user information in it.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(s3:https://|rest:https://|swift:)')").message("location must be s3:https://host[:port]/bucket[/prefix], rest:https://host[:port][/prefix] or swift:container:/[prefix]"))]
    #[x_kube(validation = Rule::new("!self.contains('@')").message("location must not contain user information: keys belong into the Secret named by credentialsSecretRef"))]
    #[x_kube(validation = Rule::new("!self.startsWith('s3:') || self.matches('^s3:https://[^/?#]+/[^/?#]+(/[^?#]*)?$')").message("location must name a bucket: s3:https://host[:port]/bucket[/prefix]"))]
    #[x_kube(validation = Rule::new("!self.startsWith('rest:') || self.matches('^rest:https://[^/?#]+(/[^?#]*)?$')").message("location must name a server and no query: rest:https://host[:port][/prefix]"))]
    #[x_kube(validation = Rule::new("!self.startsWith('swift:') || self.matches('^swift:[A-Za-z0-9._-]+:/[^?#]*$')").message("location must name a container: swift:container:/[prefix]"))]
    pub location: String,
    /// A Secret with the store's keys and optionally `cacert` (PEM), the only CA that is then trusted.
    ///
    /// `s3:` needs `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and takes `AWS_SESSION_TOKEN` and
    /// `AWS_DEFAULT_REGION`. `rest:` takes `RESTIC_REST_USERNAME` and `RESTIC_REST_PASSWORD`. `swift:` needs
    /// `OS_AUTH_URL` with `OS_APPLICATION_CREDENTIAL_ID` and `OS_APPLICATION_CREDENTIAL_SECRET`, or with `OS_USERNAME`,
    /// `OS_PASSWORD` and `OS_PROJECT_NAME`, and takes `OS_REGION_NAME`, `OS_USER_DOMAIN_NAME` and
    /// `OS_PROJECT_DOMAIN_NAME`.
    pub credentials_secret_ref: StoreSecretRef,
    /// How much of the network one disk's copy may use; without it, all there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
}

/// Bytes a second, such as `25Mi`, for each disk that is copied.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// From the source's cluster to the store.
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,11}(k|M|G|Ki|Mi|Gi)?$')").message("bandwidth.upload is a whole number of bytes a second, such as 25Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// From the store to the destination's cluster.
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,11}(k|M|G|Ki|Mi|Gi)?$')").message("bandwidth.download is a whole number of bytes a second, such as 25Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<String>,
}

impl Bandwidth {
    /// KiB a second to the store; 0 for no limit.
    pub fn upload_kib(&self) -> u64 {
        self.upload.as_deref().map_or(0, kib)
    }

    /// KiB a second from the store; 0 for no limit.
    pub fn download_kib(&self) -> u64 {
        self.download.as_deref().map_or(0, kib)
    }
}

/// A limit is never rounded down to none.
fn kib(quantity: &str) -> u64 {
    let digits = quantity.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &quantity[digits.len()..] {
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => 1,
    };
    (digits.parse::<u64>().unwrap_or_default().saturating_mul(factor) >> 10).max(1)
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
    /// When an object was last written to find out. Until the object or its Secret changes, that is done hourly, and
    /// looks in between only read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed_at: Option<Time>,
    /// The `resourceVersion` of the Secret that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<String>,
    /// `Ready`, from a real write, read and delete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_become_kib() {
        for (text, expected) in [
            ("1", 1),
            ("2048", 2),
            ("25Mi", 25 << 10),
            ("1Gi", 1 << 20),
            ("1M", 976),
            ("3k", 2),
            ("999999999999Gi", u64::MAX >> 10),
        ] {
            assert_eq!(kib(text), expected, "{text}");
        }
        let limits = Bandwidth { upload: Some("25Mi".into()), download: None };
        assert_eq!((limits.upload_kib(), limits.download_kib()), (25 << 10, 0));
    }
}
