//! `VmMigrationReport`: the durable evidence of one migration; it outlives the migration's own object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CheckRow, DiskStatus, FidelityRow, HookRow, Plan, RetainedRow, TimelineRow};

/// The evidence of one migration. Nothing is decided from it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "vmmigration.io",
    version = "v1alpha1",
    kind = "VmMigrationReport",
    plural = "vmmigrationreports",
    shortname = "vmmr",
    category = "vmmigration",
    namespaced,
    status = "VmMigrationReportStatus",
    derive = "PartialEq",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(name = "Migration", type_ = "string", json_path = ".spec.migration"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".spec.outcome"),
    printcolumn(name = "Down", type_ = "integer", json_path = ".spec.downtimeSeconds"),
    printcolumn(name = "Finished", type_ = "date", json_path = ".spec.finishedAt"),
    validation = Rule::new("self.spec == oldSelf.spec").message("a report's spec is evidence and cannot be changed")
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct VmMigrationReportSpec {
    /// Name of the `VmMigration`.
    pub migration: String,
    /// Its UID.
    pub uid: String,
    /// `Succeeded`.
    pub outcome: String,
    /// The server as it was.
    pub source: ReportedServer,
    /// The server as it is.
    pub destination: ReportedServer,
    /// When the migration was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it succeeded.
    pub finished_at: Time,
    /// Seconds that neither side served: from the source's stop to the first check that passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_seconds: Option<i64>,
    /// Digests, sizes and who read them when.
    pub disks: Vec<DiskStatus>,
    /// The checks.
    #[serde(default)]
    pub checks: Vec<CheckRow>,
    /// The hooks, until success.
    #[serde(default)]
    pub hooks: Vec<HookRow>,
    /// What was kept, changed, dropped.
    #[serde(default)]
    pub fidelity: Vec<FidelityRow>,
    /// What was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// What happened when.
    #[serde(default)]
    pub timeline: Vec<TimelineRow>,
}

/// A server on one side.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedServer {
    /// The `OpenStackCloud`.
    pub cloud: String,
    /// The project.
    pub project_id: String,
    /// The server.
    pub server_id: String,
    /// Its name.
    pub server_name: String,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// What happened after success.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VmMigrationReportStatus {
    /// When clean-up was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleaned_up_at: Option<Time>,
    /// When the source was given back after success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back_at: Option<Time>,
    /// When somebody wanted the source started although the destination could not be seen: from then on both may have
    /// run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_anyway_at: Option<Time>,
    /// What the source answered then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_checks: Vec<CheckRow>,
    /// When the source's server and volumes were seen gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Time>,
    /// The hooks that ran after success.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRow>,
    /// What still exists where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retained: Vec<RetainedRow>,
}
