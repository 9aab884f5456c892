//! `VmMigration`: the move of one server; its spec and the rules that the API server checks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{Hook, KeyRef, Period, VmMigrationStatus};

/// The move of one server, with all its disks, to another cloud.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "vmmigration.io",
    version = "v1alpha1",
    kind = "VmMigration",
    plural = "vmmigrations",
    shortname = "vmm",
    category = "vmmigration",
    namespaced,
    status = "VmMigrationStatus",
    derive = "PartialEq",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.eta"),
    printcolumn(name = "Running-In", type_ = "string", json_path = ".status.runningIn"),
    printcolumn(name = "Down", type_ = "string", json_path = ".status.down"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = ".status.conditions[?(@.type=='Succeeded')].status", priority = 1),
    printcolumn(name = "Verified", type_ = "string", json_path = ".status.conditions[?(@.type=='DataVerified')].status", priority = 1),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.rate", priority = 1),
    printcolumn(name = "Bytes", type_ = "string", json_path = ".status.bytes", priority = 1),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source.serverId", priority = 1),
    printcolumn(name = "Destination", type_ = "string", json_path = ".status.destination.serverId", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 200").message("the name may have at most 200 characters: the report is called <name>-<8 characters>"),
    validation = Rule::new("self.spec.source == oldSelf.spec.source || (has(oldSelf.status) && has(oldSelf.status.phase) && oldSelf.status.phase == 'Blocked')").message("spec.source cannot be changed any more: only while the phase is Blocked; delete this VmMigration and create another"),
    validation = Rule::new("self.spec.destination == oldSelf.spec.destination || (has(oldSelf.status) && has(oldSelf.status.phase) && oldSelf.status.phase == 'Blocked')").message("spec.destination cannot be changed any more: only while the phase is Blocked; delete this VmMigration and create another")
)]
#[cfg_attr(feature = "cel", kube(cel))]
#[x_kube(validation = Rule::new("self.source.cloud != self.destination.cloud").message("source.cloud and destination.cloud must be different OpenStackClouds"))]
#[x_kube(validation = Rule::new("has(self.store) == has(oldSelf.store) && (!has(self.store) || self.store == oldSelf.store)").message("spec.store is immutable"))]
#[x_kube(validation = Rule::new("has(self.strategy) == has(oldSelf.strategy) && (!has(self.strategy) || self.strategy == oldSelf.strategy)").message("spec.strategy is immutable"))]
#[x_kube(validation = Rule::new("has(self.maxDowntime) == has(oldSelf.maxDowntime) && (!has(self.maxDowntime) || self.maxDowntime == oldSelf.maxDowntime)").message("spec.maxDowntime is immutable"))]
#[x_kube(validation = Rule::new("has(self.hooks) == has(oldSelf.hooks) && (!has(self.hooks) || self.hooks == oldSelf.hooks)").message("spec.hooks is immutable"))]
#[x_kube(validation = Rule::new("has(self.verification) == has(oldSelf.verification) && (!has(self.verification) || self.verification == oldSelf.verification)").message("spec.verification is immutable"))]
#[serde(rename_all = "camelCase")]
pub struct VmMigrationSpec {
    /// The server to move.
    pub source: Source,
    /// Where it goes.
    pub destination: Destination,
    /// When the source may be stopped.
    pub cutover: Cutover,
    /// Name of an `ObjectStore`. Unset: the only one of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub store: Option<String>,
    /// Unset or `Cold`: disks are copied after the stop. `Warm`: also before it, in passes while the server runs; after
    /// the stop only what changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// How long neither side may serve after the stop of the source. When it is exceeded before the new server was
    /// seen ACTIVE, the source is given back. With `Warm`, passes go on until the forecast is below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downtime: Option<Period>,
    /// Scripts that gate the migration at its phases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hooks: Vec<Hook>,
    /// What proves that the application works in the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// What becomes of the source after success. Unset: it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_policy: Option<SourcePolicy>,
    /// What stays for a retry after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<FailurePolicy>,
    /// `true`: nothing new is begun until it is false again. What was asked of a cloud or a Job before goes on;
    /// a failure, a cancellation and a deletion still give the source back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// One-shot verbs. A value is a token of your choice: a new one is answered once, in `status.requests`. Values
    /// that are there when the object is first seen do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
}

/// One-shot verbs.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Gives the source back and removes what was made, as if the migration had not been tried. Refused once it
    /// has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub cancel: Option<String>,
    /// After a failure, or from `Held`: tries again with what is still proven good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub retry: Option<String>,
    /// Stops the server in the destination, keeps it, and starts the source again; also after success, while the
    /// source exists. What was written in the destination since is left behind there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub rollback: Option<String>,
    /// After success: deletes the source's server, and then its volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub retire: Option<String>,
    /// For a destination cloud that is gone for good: the way back starts the source although what runs in the destination
    /// cannot be seen. The value is the id of the source's server, typed by somebody who knows that the other one does
    /// not run; a space and any word after it make it a new request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub start_source: Option<String>,
}

/// What becomes of the source after success.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.action == 'Delete') == has(self.after)").message("sourcePolicy.after is needed with action Delete, and only with it"))]
#[serde(rename_all = "camelCase")]
pub struct SourcePolicy {
    /// Keep it, or delete it some time after success.
    pub action: SourceAction,
    /// How long after success the source is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Period>,
}

/// What becomes of the source after success.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceAction {
    /// It stays, stopped and locked.
    Keep,
    /// Server, ports and volumes are deleted.
    Delete,
}

/// What stays for a retry after a failure.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicy {
    /// How long proven data stay. Unset: they are removed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_data: Option<Period>,
}

/// The server to move.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// An `OpenStackCloud` in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub cloud: String,
    /// Name or id of the server. A name that several servers have is refused.
    #[schemars(length(min = 1, max = 255))]
    pub server: String,
}

/// Where the server goes. What is unset takes the same name in the destination cloud.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// An `OpenStackCloud` in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub cloud: String,
    /// Name of the new server. Unset: the name of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub server_name: Option<String>,
    /// The host name that the cloud tells the guest; without a domain. Unset: that of the source, where its cloud shows it
    /// and the destination takes it (Nova with microversion 2.90); else Nova makes one of the server's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 63), regex(pattern = "^[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]$"))]
    pub hostname: Option<String>,
    /// Whether the new server has a config drive. Unset: if the source has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_drive: Option<bool>,
    /// What cloud-init is told in the new server. Unset: nothing; what the source was told no cloud shows, and it is not
    /// told again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<UserData>,
    /// Name or id of a flavor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub flavor: Option<String>,
    /// Availability zone of server and volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub availability_zone: Option<String>,
    /// Name of a key pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub keypair: Option<String>,
    /// Which network of the source becomes which network of the destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["from".into()]))]
    pub networks: Vec<NetworkMapping>,
    /// Which security group of the source becomes which of the destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["from".into()]))]
    pub security_groups: Vec<NameMapping>,
    /// Which volume type of the source becomes which of the destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["from".into()]))]
    pub volume_types: Vec<NameMapping>,
    /// Metadata that the new server gets besides what the source has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub metadata: BTreeMap<String, String>,
}

/// What cloud-init is told in the new server. It takes that server for a new instance, so it does all of it, whatever was
/// done in the source before.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.preset)").message("userData is exactly one of secretRef, preset"))]
#[serde(rename_all = "camelCase")]
pub struct UserData {
    /// A Secret of this namespace, with the label `vmmigration.io/hook: "true"`, that holds the user data as cloud-init
    /// reads it, not in base64; at most 49149 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
    /// A ready-made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<UserDataPreset>,
}

/// Ready-made user data.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
pub enum UserDataPreset {
    /// Tells cloud-init to keep what it can: host keys, users, root's login and authorized keys; the host name from the
    /// second boot on.
    KeepGuest,
}

/// A name in the source cloud and the name that takes its place in the destination cloud.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameMapping {
    /// Name in the source cloud.
    #[schemars(length(min = 1, max = 255))]
    pub from: String,
    /// Name or id in the destination cloud.
    #[schemars(length(min = 1, max = 255))]
    pub to: String,
}

/// A network of the source and the one that takes its place.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkMapping {
    /// Name or id in the source cloud.
    #[schemars(length(min = 1, max = 255))]
    pub from: String,
    /// Name or id in the destination cloud.
    #[schemars(length(min = 1, max = 255))]
    pub to: String,
    /// What becomes of the fixed address. Unset: kept when subnet and policy allow, else chosen by the cloud.
    #[serde(rename = "fixedIP", default, skip_serializing_if = "Option::is_none")]
    pub fixed_ip: Option<FixedIp>,
    /// What becomes of the MAC address. Unset: kept when policy allows, else chosen by the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacMode>,
}

/// What becomes of a fixed address.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.mode == 'Set') == has(self.address)").message("fixedIP.address is needed with mode Set, and only with it"))]
#[serde(rename_all = "camelCase")]
pub struct FixedIp {
    /// Keep it or be refused, let the cloud choose, or use the given one.
    pub mode: FixedIpMode,
    /// The address for mode `Set`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45))]
    pub address: Option<String>,
}

/// What becomes of a fixed address.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FixedIpMode {
    /// The same address, or the migration is blocked.
    Preserve,
    /// One that the cloud chooses.
    Auto,
    /// The given address.
    Set,
}

/// What becomes of a MAC address.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MacMode {
    /// The same, or the migration is blocked.
    Preserve,
    /// One that the cloud chooses.
    Auto,
}

/// How the disks travel in time.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Stop, copy, start.
    Cold,
    /// Copy in passes while it runs; stop, copy what changed since, start.
    Warm,
}

/// When the source may be stopped.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.mode == 'At') == has(self.at)").message("cutover.at is needed with mode At, and only with it"))]
#[x_kube(validation = Rule::new("!has(self.notAfter) || (has(self.at) && self.notAfter > self.at)").message("cutover.notAfter goes with cutover.at, and must be later"))]
#[serde(rename_all = "camelCase")]
pub struct Cutover {
    /// `Manual` waits until it is changed to `Now`; `At` waits for a time.
    pub mode: CutoverMode,
    /// The time for mode `At`. One that was past when it was first seen waits as `Manual` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Until when the source may be stopped for `at`; later it waits as `Manual` does. Unset: an hour after `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
}

/// When the source may be stopped.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CutoverMode {
    /// As soon as preflight has passed, and with `Warm` the passes have ended.
    Now,
    /// When somebody changes this field to `Now`.
    Manual,
    /// At a given time.
    At,
}

/// What proves that the application works in the destination.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// All of them must pass. None: the server must be ACTIVE, which proves nothing of the application.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub checks: Vec<Check>,
}

/// One question put to the new server from a pod near it, asked again until it is answered or time is up.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.tcp), has(self.http), has(self.console), has(self.ssh)].filter(x, x).size() == 1").message("a check is exactly one of tcp, http, console, ssh"))]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// A name for messages.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// A TCP connection is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// An HTTP GET is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// The guest's console holds a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<ConsoleCheck>,
    /// A command in the guest, over SSH, ends with exit code 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshCheck>,
    /// How long to go on asking, in seconds. Unset: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 3600))]
    pub timeout_seconds: Option<i32>,
}

/// A TCP connection is accepted.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpCheck {
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// An address. Unset: the new server's first fixed address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub address: Option<String>,
}

/// An HTTP GET is answered.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// The port. Unset: 80 or 443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Such as `/healthz`. Unset: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub path: Option<String>,
    /// `http` or `https`. Unset: `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<HttpScheme>,
    /// An address or host name. Unset: the new server's first fixed address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub address: Option<String>,
    /// The status that must come. Unset: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status: Option<i32>,
    /// Text that the body must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub contains: Option<String>,
    /// Regular expression (RE2 syntax) that must match somewhere in the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub pattern: Option<String>,
    /// A header of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderCheck>,
}

/// A header that the answer must have.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderCheck {
    /// Its name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Regular expression that must match its value. Unset: any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub pattern: Option<String>,
}

/// The guest's console holds a text.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsoleCheck {
    /// Regular expression that must match somewhere in the console's log.
    #[schemars(length(min = 1, max = 256))]
    pub pattern: String,
}

/// A command in the guest ends with exit code 0.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshCheck {
    /// The user to log in as.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_][-A-Za-z0-9_.]*$"))]
    pub user: String,
    /// A Secret of this namespace, with the label `vmmigration.io/hook: "true"`, that holds the private key.
    pub private_key_secret_ref: KeyRef,
    /// The command; run by the guest's `sh`.
    #[schemars(length(min = 1, max = 4096))]
    pub command: String,
    /// An address. Unset: the new server's first fixed address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub address: Option<String>,
    /// The port. Unset: 22.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// A public host key that is trusted besides those that the new server prints on its console. Unset: only those.
    /// cloud-init makes new host keys for a new instance, so that one read in the source may be the wrong one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 16, max = 4096))]
    pub host_key: Option<String>,
}

/// How to speak to an HTTP server.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpScheme {
    /// In clear.
    Http,
    /// With TLS; the certificate is verified.
    Https,
}
