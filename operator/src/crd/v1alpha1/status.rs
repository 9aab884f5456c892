//! Status of a `VmMigration`: what was observed and recorded; every decision can be rebuilt from it and the clouds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{DiskProof, HookRow, ResolvedTransfer};

/// The phases of a migration, for people. Programs read conditions.
#[derive(
    JsonSchema,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum Phase {
    /// Not looked at yet.
    #[default]
    Pending,
    /// Both sides are looked at; nothing is touched.
    Preflight,
    /// Something is in the way; nothing was touched. Looks again by itself.
    Blocked,
    /// Warm: disks are copied in passes while the server runs.
    Copying,
    /// Ready; waits for `spec.cutover`.
    AwaitingCutover,
    /// Second preflight, claim, stop, lock.
    Stopping,
    /// Disks leave A and arrive in B.
    Transferring,
    /// Ports and server in B.
    Creating,
    /// The checks in B.
    Verifying,
    /// The server runs in B, proven.
    Succeeded,
    /// Somebody started the source in the middle; it stays as they want it.
    Held,
    /// The source is given back and what was made is removed.
    RollingBack,
    /// Given back by request; the server in the destination is stopped and kept.
    RolledBack,
    /// After success: the source is being deleted, by request or by policy.
    Retiring,
    /// After success: the source is gone.
    Retired,
    /// Ended without success; the source is as it was.
    Failed,
    /// Ended by request; the source is as it was.
    Cancelled,
    /// The object is being deleted; the same clean-up.
    Deleting,
}

impl Phase {
    /// The destination was proven; only a rollback leads back.
    pub fn succeeded(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Retiring | Phase::Retired)
    }

    /// It has ended, and the source was given back.
    pub fn gave_up(self) -> bool {
        matches!(self, Phase::Failed | Phase::Cancelled | Phase::RolledBack)
    }
}

/// Where the server runs, as observed.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunningIn {
    /// In the source cloud.
    A,
    /// In the destination cloud.
    B,
    /// In neither.
    #[serde(rename = "none")]
    None,
}

/// What is known and recorded of one migration.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VmMigrationStatus {
    /// For people: what, waiting for whom since when, the deadline, the next command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// For people; see conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Percent of all bytes that were copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// When the running copy will be done, at the present rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,
    /// Bytes a second of all disks together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Bytes copied of bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// Where the server runs, as observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_in: Option<RunningIn>,
    /// How long neither side served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
    /// The generation that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// For programs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// When this phase was entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Time>,
    /// When the object was first seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended, either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The answer to `spec.cutover`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cutover: Option<CutoverStatus>,
    /// Warm: the passes that were made while the server runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copying: Option<CopyingStatus>,
    /// Since when nothing new is begun, by `spec.suspend`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_since: Option<Time>,
    /// The answers to `spec.requests`: the last token of each verb.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestRow>,
    /// How often it was tried; unset: once.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: i32,
    /// A new try was asked for and begins when everything of the last one is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_requested_at: Option<Time>,
    /// What an earlier try left proven in the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptData>,
    /// The way back after success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackStatus>,
    /// The end of the source after success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retirement: Option<RetirementStatus>,
    /// Why it ended without success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// An error that may pass, and since when it has lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// How far the way back is, while it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way_back: Option<WayBack>,
    /// The source side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// The destination side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<DestinationStatus>,
    /// Where the data rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreStatus>,
    /// What preflight found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preflight: Vec<Finding>,
    /// What will be made in the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// What is kept, changed and dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fidelity: Vec<FidelityRow>,
    /// Jobs by purpose and how often each was tried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobRecord>,
    /// Hooks, as in the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRow>,
    /// The checks in the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckRow>,
    /// Since when they are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks_since: Option<Time>,
    /// What still exists that a clean-up would remove, and why it stays.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retained: Vec<RetainedRow>,
    /// What the clouds were asked to delete and still have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deletions: Vec<DeletionRow>,
    /// What happened when; the newest 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<TimelineRow>,
    /// When clean-up was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleaned_up_at: Option<Time>,
    /// How often clean-up looked and found nothing more; two looks end it.
    #[serde(skip_serializing_if = "is_zero")]
    pub clean_looks: i32,
    /// When both clouds were last looked at to no effect, while Jobs copy: until a Job ends that is done rarely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clouds_looked_at: Option<Time>,
    /// The disks; last, since they are long.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskStatus>,
}

impl VmMigrationStatus {
    /// It has ended, well or not, and goes on only if somebody asks for it. Clean-up may still be under way.
    pub fn finished(&self) -> bool {
        match self.phase.unwrap_or_default() {
            Phase::Deleting => self.finished_at.is_some(),
            phase if phase.gave_up() => self.retry_requested_at.is_none(),
            phase => phase.succeeded(),
        }
    }

    /// Ids of the snapshots, volumes and images that this migration has made for its disks, as far as they are recorded.
    pub fn made(&self) -> Vec<String> {
        let of = |d: &DiskStatus| {
            let (export, import) = (&d.export, &d.import);
            let known = [&export.snapshot_id, &export.volume_id, &export.image_id, &import.image_id];
            let known = known.into_iter().chain([&import.volume_id, &import.readback_image_id]);
            let asked = export.asked.iter().chain(&import.asked).map(|row| &row.id);
            known.chain(asked).flatten().cloned().collect::<Vec<_>>()
        };
        self.disks.iter().flat_map(of).collect()
    }
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// The answer to `spec.cutover`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CutoverStatus {
    /// `spec.cutover.at`, recorded while it was still to come. Only this time counts when it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Time>,
    /// `spec.cutover.at` has passed and does not count: it waits as `Manual` does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub missed: bool,
    /// When the go was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_at: Option<Time>,
}

/// The passes over all disks that were made while the server runs.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CopyingStatus {
    /// The go was there before the first pass: the source is stopped as soon as passes have done what they can.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_itself: bool,
    /// How many passes have ended well.
    pub passes: i32,
    /// When the pass that is under way was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Time>,
    /// When the last pass ended, either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// How long the last one that ended well took, in seconds.
    pub seconds: i64,
    /// For how many seconds neither side would serve if the source were stopped now, after each pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forecasts: Vec<i64>,
    /// How many passes were made while `spec.cutover` was waited for.
    #[serde(skip_serializing_if = "is_zero")]
    pub while_waiting: i32,
    /// Why the pass that is under way is given up; what it made is being removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How many passes in a row ended so.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures: i32,
}

/// A verb of `spec.requests`.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequestName {
    /// Give the source back.
    #[default]
    Cancel,
    /// Stop the destination and give the source back, also after success.
    Rollback,
    /// Try again.
    Retry,
    /// Delete the source after success.
    Retire,
    /// Start the source although the destination cannot be seen.
    StartSource,
}

impl RequestName {
    /// As the spec has it.
    pub fn verb(self) -> &'static str {
        match self {
            RequestName::Cancel => "cancel",
            RequestName::Rollback => "rollback",
            RequestName::Retry => "retry",
            RequestName::Retire => "retire",
            RequestName::StartSource => "startSource",
        }
    }
}

/// What became of a request.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestResult {
    /// It is being carried out.
    #[default]
    Done,
    /// It cannot be carried out; the message says why.
    Refused,
    /// Something else came before it; the message says what.
    Superseded,
}

/// The answer to one request.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestRow {
    /// The verb.
    pub name: RequestName,
    /// The value that is answered.
    pub token: String,
    /// What became of it.
    pub result: RequestResult,
    /// Why, or what follows.
    pub message: String,
    /// When it was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// What an earlier try left proven in the repository, and what tells whether the source has run since.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeptData {
    /// The request id of that try's stop, or of its lock where the source was stopped already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_request_id: Option<String>,
    /// The source ran when that try claimed it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub was_running: bool,
    /// The volumes that were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<KeptVolume>,
    /// Snapshots in the source that had to stay; a new try does not use them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshot_ids: Vec<String>,
}

/// A volume of the source that rests in the repository.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeptVolume {
    /// Its place in the boot order.
    #[serde(skip_serializing_if = "is_zero")]
    pub index: i32,
    /// The volume.
    pub volume_id: String,
    /// Its size then.
    pub size_gib: i64,
    /// What was read.
    pub backup: Digest,
    /// In which pass.
    #[serde(skip_serializing_if = "is_zero")]
    pub pass: i32,
    /// It was read while the source ran: of use only as what a further pass builds on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub running: bool,
}

/// The way back after success.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollbackStatus {
    /// When it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Time>,
    /// When the source was seen running again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_at: Option<Time>,
    /// The checks, asked of the source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckRow>,
}

/// The end of the source after success.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetirementStatus {
    /// When it was asked for, or when its time had come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Time>,
    /// Its time had come by `spec.sourcePolicy`; otherwise it was asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_policy: bool,
    /// When the destination last passed its checks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Time>,
    /// Written before the server is deleted. From here on there is no way back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_requested_at: Option<Time>,
    /// When the server was seen gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_gone_at: Option<Time>,
    /// When its volumes were seen gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Time>,
    /// Why it did not happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// When it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<Time>,
}

/// Why a migration ended without success.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Failure {
    /// In one word, as in the conditions.
    pub reason: String,
    /// What failed, on which object, what the cloud answered, what to do.
    pub message: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Ended because somebody asked for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
}

/// An error that may pass.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trouble {
    /// What is in trouble: `source-cloud`, `destination-cluster`, or a step such as `create-volume`.
    pub what: String,
    /// The last answer.
    pub message: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// How many times in a row.
    pub count: i32,
    /// It has lasted too long, and nothing is given back for it: a person decides.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
}

/// How far the way back is.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WayBack {
    /// What is being done.
    pub stage: WayBackStage,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Since when it has taken too long: it goes on trying, but somebody should look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_since: Option<Time>,
}

/// What is being done on the way back.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WayBackStage {
    /// The server in the destination is to be seen gone or stopped.
    #[default]
    Destination,
    /// The source is unlocked, started and released.
    Source,
}

/// The source side.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceStatus {
    /// Pinned when preflight first found the server.
    pub project_id: String,
    /// Its region, where the cloud has regions. Pinned with the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Address of the cloud's identity service. Pinned with the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Pinned when preflight first found the server.
    pub server_id: String,
    /// Its name then.
    pub server_name: String,
    /// Its addresses, fixed ones first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Its status as last observed.
    pub server_status: String,
    /// It ran when the migration claimed it.
    pub was_running: bool,
    /// Its owner had locked it before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub was_locked: bool,
    /// Written before its owner's lock is opened to claim it; the lock is put back in the end, claimed or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlock_requested_at: Option<Time>,
    /// When our claim was read back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Time>,
    /// Written before the stop is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_requested_at: Option<Time>,
    /// The request id of our stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_request_id: Option<String>,
    /// When it was seen SHUTOFF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Time>,
    /// When its guest was asked to shut down, by the cloud's record of our stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_until: Option<MicroTime>,
    /// Written before the lock is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_requested_at: Option<Time>,
    /// The request id of our lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_request_id: Option<String>,
    /// When it was seen locked by us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked_at: Option<Time>,
    /// The request id of our image of its local root disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_request_id: Option<String>,
    /// Written before the server is unlocked and started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub give_back_at: Option<Time>,
    /// Somebody started or unlocked it in the middle; it stays as they want it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub taken_back: bool,
    /// When somebody wanted it started although the destination cannot be seen, by `spec.requests.startSource`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_anyway_at: Option<Time>,
    /// Since when the cloud does not have the server any more; that counts when later looks prove it, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<Time>,
    /// Snapshots of the stopped server must stay until it runs again or is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keeps_snapshots: bool,
    /// How disks leave this cloud; as preflight found it, whatever the `OpenStackCloud` says later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<ResolvedTransfer>,
}

/// The destination side.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationStatus {
    /// Pinned by preflight.
    pub project_id: String,
    /// Its region, where the cloud has regions. Pinned with the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Address of the cloud's identity service. Pinned with the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// How disks enter this cloud; as preflight found it, whatever the `OpenStackCloud` says later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<ResolvedTransfer>,
    /// The new server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
    /// Its status as last observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_status: Option<String>,
    /// Written before the server is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_requested_at: Option<Time>,
    /// When it was first seen ACTIVE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_at: Option<Time>,
    /// When it first served: when the first check passed, by the Job that asked; without a check when it became ACTIVE,
    /// by the cloud's record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_from: Option<MicroTime>,
    /// When its last check was seen to have passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,
    /// Written before a server whose source was stopped is stopped again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_requested_at: Option<Time>,
    /// Since when the cloud does not have the server; that counts when later looks prove it, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<Time>,
    /// Its ports, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_ids: Vec<String>,
    /// Its addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// Where the data rest.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreStatus {
    /// The `ObjectStore`.
    pub name: String,
    /// The restic repository, in restic's form. Pinned.
    pub repository: String,
    /// When the repository was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initialized_at: Option<Time>,
    /// When it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged_at: Option<Time>,
    /// What the store did not let go of: old versions, or objects that are locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<RetainedRow>,
}

/// How much a finding weighs.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// The migration cannot start.
    Blocker,
    /// It can, but somebody should know.
    Warning,
    /// For the record.
    Info,
}

/// Something that preflight found.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// A stable name, such as `flavor-not-found`.
    pub id: String,
    /// How much it weighs.
    pub severity: Severity,
    /// What was found, on which object.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// What will be made in the destination.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Plan {
    /// Name of the new server.
    pub server_name: String,
    /// Its flavor.
    pub flavor_id: String,
    /// Its flavor's name.
    pub flavor_name: String,
    /// Its key pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keypair: Option<String>,
    /// Its availability zone, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// It has a config drive.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub config_drive: bool,
    /// The host name that the cloud tells the guest; unset: Nova makes one of the server's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Where its user data are from: a Secret and its key, or the preset. Never what they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Its description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its metadata, without marks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its ports, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PlannedPort>,
}

/// A port to be made.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedPort {
    /// The port of the source that it takes the place of.
    pub source_port_id: String,
    /// Its final name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its network.
    pub network_id: String,
    /// Its network's name.
    pub network_name: String,
    /// Its MAC address; unset: chosen by the cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its fixed addresses; none: chosen by the cloud.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixed_ips: Vec<PlannedAddress>,
    /// Ids of its security groups; unset: the cloud's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_group_ids: Option<Vec<String>>,
    /// Port security, where the source has it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_security_enabled: Option<bool>,
    /// Other addresses that may be used behind it: `address` or `address mac`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_address_pairs: Vec<String>,
    /// Its tags in the source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// A fixed address to be asked for.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedAddress {
    /// The subnet in the destination.
    pub subnet_id: String,
    /// The address; unset: any of the subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
}

/// What becomes of an attribute.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// As in the source.
    Kept,
    /// Another value.
    Changed,
    /// Not carried over.
    Dropped,
}

/// What becomes of one attribute.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FidelityRow {
    /// Such as `port 1 address`.
    pub attribute: String,
    /// What becomes of it.
    pub fate: Fate,
    /// Why, with both values.
    pub why: String,
}

/// A Job's purpose and how often it was tried.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobRecord {
    /// Such as `probe-source`, `backup-0`.
    pub name: String,
    /// The running attempt, from 1; it goes on counting over tries.
    pub attempt: i32,
    /// How many of these attempts do not count against the present bound.
    #[serde(skip_serializing_if = "is_zero")]
    pub earlier: i32,
    /// `Waiting`, `Running`, `Succeeded`, `Failed`.
    pub state: String,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When this attempt ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The keys were refused: until then this attempt waits for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again_at: Option<Time>,
}

impl JobRecord {
    /// The state of an attempt that was not begun.
    pub const WAITING: &str = "Waiting";

    /// Attempts that count: without those of earlier tries.
    pub fn tries(&self) -> i32 {
        self.attempt - self.earlier
    }

    /// What was tried so far does not count any more; the next attempt has a name of its own all the same.
    pub fn carry_over(&mut self) {
        if self.state != Self::WAITING {
            self.earlier = self.attempt;
            self.attempt += 1;
            self.state = Self::WAITING.into();
        }
        (self.message, self.finished_at) = (None, None);
    }
}

/// The outcome of one check in the destination.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckRow {
    /// The check's name; `active` for the server's own state.
    pub name: String,
    /// It passed.
    pub passed: bool,
    /// The last answer.
    pub message: String,
}

/// Something that stays, and why.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetainedRow {
    /// Such as `snapshot 3f… in site-a`.
    pub what: String,
    /// Why it stays and when it can go.
    pub why: String,
}

impl RetainedRow {
    /// The repository, which is kept for a new try.
    pub fn repository(repository: &str, why: String) -> Self {
        RetainedRow { what: format!("repository {repository}, encrypted"), why }
    }

    /// Is it that repository that stays?
    pub fn is_repository(&self, repository: &str) -> bool {
        self.what == Self::repository(repository, String::new()).what
    }
}

/// A deletion that a cloud was asked for.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeletionRow {
    /// In which cloud: `source` or `destination`.
    pub side: String,
    /// What kind of object, such as `image`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Since when it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When it was last asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Time>,
    /// What the cloud answered then; unset: it took the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Something that happened.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineRow {
    /// When.
    pub at: Time,
    /// In which phase.
    pub phase: Phase,
    /// What.
    pub message: String,
}

/// What a disk is in the source.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskKind {
    /// A volume.
    #[default]
    Volume,
    /// The local root disk of a server that was made from an image.
    Image,
}

/// One disk on its way.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskStatus {
    /// Its place in the boot order; 0 is the root disk.
    pub index: i32,
    /// A volume or the local root disk.
    pub kind: DiskKind,
    /// What is being done to it.
    pub stage: String,
    /// Its size in GiB.
    pub size_gib: i64,
    /// Bytes copied, of the transfer that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<DiskProgress>,
    /// What is waited for, where the cloud does not tell since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<DiskWait>,
    /// Its volume in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_volume_id: Option<String>,
    /// What it is in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<DiskAttributes>,
    /// Number of the pass that comes next, or is under way; once its `backup` is there, of the last one.
    #[serde(skip_serializing_if = "is_zero")]
    pub pass: i32,
    /// Warm: its part of the pass that is under way is in the repository.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub copied: bool,
    /// Warm: the newest passes, each of which builds on the one before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passes: Vec<PassRow>,
    /// Objects made in the source.
    pub export: ExportStatus,
    /// Objects made in the destination.
    pub import: ImportStatus,
    /// What was read in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<Digest>,
    /// What was written in the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<Digest>,
    /// What was read back in the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readback: Option<Digest>,
    /// It is proven: written once, when what was read back in the destination is what was read in the source. Absent: it
    /// is not proven yet, or was proven by a release that did not write this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<DiskProof>,
}

/// What a disk is in the source, and what it will be in the destination.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskAttributes {
    /// Name of the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Description of the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The device name that the cloud shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The device tag of the attachment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The volume is deleted with the server.
    pub delete_on_termination: bool,
    /// The volume's bootable flag.
    pub bootable: bool,
    /// Volume type in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
    /// Volume type in the destination; unset: the cloud's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_volume_type: Option<String>,
    /// Metadata of the volume, without marks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Image metadata of the volume: firmware, machine type, bus.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub image_metadata: BTreeMap<String, String>,
}

impl DiskStatus {
    /// How many passes are told.
    const PASSES: usize = 8;

    /// Adds a pass; the oldest are not told any more.
    pub fn add_pass(&mut self, row: PassRow) {
        self.passes.push(row);
        let extra = self.passes.len().saturating_sub(Self::PASSES);
        self.passes.drain(..extra);
    }

    /// Does its volume in the destination hold the last complete pass?
    pub fn followed(&self) -> bool {
        self.base().is_some_and(|row| self.import.holds.as_ref() == Some(&row.snapshot_id))
    }

    /// What the next pass builds on.
    pub fn base(&self) -> Option<&PassRow> {
        self.passes.iter().rev().find(|row| row.pass + 1 == self.pass)
    }
}

/// One pass over one disk.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PassRow {
    /// Its number; the first is 0.
    pub pass: i32,
    /// The repository snapshot that says what it found.
    pub snapshot_id: String,
    /// The disk, all of which was read.
    pub bytes_read: i64,
    /// What differs from the pass before; in the first pass what is not zero.
    pub changed_bytes: i64,
    /// What was sent for it, compressed and encrypted.
    pub sent_bytes: i64,
    /// How long all of it took, from the snapshot on.
    pub seconds: i64,
    /// How much of that went into reading and sending.
    pub read_seconds: i64,
    /// For how long neither side would serve for the sake of this disk, if the source were stopped now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast_downtime_seconds: Option<i64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// Objects made in the source for one disk.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExportStatus {
    /// How often such objects were made and removed before.
    #[serde(skip_serializing_if = "is_zero")]
    pub earlier: i32,
    /// The snapshot of the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// The temporary volume made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<String>,
    /// The image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// What the source's cloud was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<AskedRow>,
}

/// Something that a cloud was asked for on behalf of a disk, and how often it came to nothing.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AskedRow {
    /// What it is for, such as `export-image`.
    pub role: String,
    /// Tells it from what was asked for before, for the same disk.
    pub attempt: i32,
    /// Its id, from the answer to the request, or as it was first seen; unset: it has to be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How often it was neither there nor in progress any more.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: i32,
    /// Since when it is missed; or when the last one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed_at: Option<Time>,
    /// What the cloud says of the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl ExportStatus {
    /// Tells the objects from those that were made before them.
    pub fn attempt(&self) -> i32 {
        self.earlier + 1
    }

    /// Those that there are belong to the past.
    pub fn renew(&mut self) {
        *self = ExportStatus { earlier: self.attempt(), ..Default::default() };
    }
}

/// Objects made in the destination for one disk.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImportStatus {
    /// The image of the present attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<String>,
    /// As a block device: a Job has written to the volume, whether or not it came to an end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub written: bool,
    /// Warm, as a block device: the pass that the volume holds, as the repository snapshot that says what it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// The bootable flag and image metadata are set.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dressed: bool,
    /// The image that the volume was read back into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readback_image_id: Option<String>,
    /// What the destination's cloud was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<AskedRow>,
}

/// A wait that we measure ourselves.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskWait {
    /// The object that is waited for.
    pub what: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// Bytes copied.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskProgress {
    /// So far.
    pub bytes: i64,
    /// In all.
    pub total: i64,
    /// Bytes a second.
    pub rate: i64,
}

/// What somebody read, and when.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Digest {
    /// How many bytes.
    pub bytes: i64,
    /// SHA-256 over the SHA-256 digests of the disk's segments, where the mover read them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The image service's algorithm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_algo: Option<String>,
    /// The hash in that algorithm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_value: Option<String>,
    /// The repository snapshot that holds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Who read them: `mover` or `image-service`.
    pub by: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}
