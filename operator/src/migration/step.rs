//! The side effects that a migration consists of, one value each. `decide` names them, `controller::execute` does them.

use super::names::{Role, Side};
use crate::{contract::Task, crd::v1alpha1::KeyRef};
use serde_json::Value;
use std::collections::BTreeMap;

/// One side effect.
#[derive(Clone, Debug, PartialEq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Step {
    /// Writes the Secrets that this migration's Jobs and its clean-up need.
    PrepareSecrets,
    /// Creates a Job in one side's cluster.
    CreateJob(Box<JobRequest>),
    /// Creates the Job of one attempt of a hook.
    RunHook(HookRequest),
    /// Deletes a Job with its pods.
    DeleteJob {
        /// In whose cluster.
        side: Side,
        /// The Job.
        name: String,
    },
    /// Deletes one side's anchor Secret, and with it what it owns.
    DeleteAnchor(Side),
    /// Deletes the operator's own Secret of this migration.
    DeleteVault,
    /// Marks the source as ours.
    ClaimSource,
    /// Takes the mark away.
    ReleaseClaim,
    /// Asks the source's guest to shut down.
    StopSource,
    /// Locks the source with a reason that names the migration.
    LockSource,
    /// Unlocks the source.
    UnlockSource,
    /// Puts back the lock that its owner had on the source.
    RelockSource,
    /// Starts the source again.
    StartSource,
    /// After success, on request: deletes the source's server.
    DeleteSource,
    /// After its server was deleted: deletes a volume that is recorded as its own.
    DeleteSourceVolume {
        /// The volume.
        volume_id: String,
    },
    /// Snapshot of a volume of the source.
    CreateSnapshot {
        /// Which disk.
        disk: i32,
        /// Which attempt.
        attempt: i32,
        /// The volume.
        volume_id: String,
    },
    /// Temporary volume from a snapshot.
    CreateExportVolume {
        /// Which disk.
        disk: i32,
        /// Which attempt.
        attempt: i32,
        /// The snapshot.
        snapshot_id: String,
    },
    /// Image of the source's local root disk.
    CreateServerImage {
        /// Which disk.
        disk: i32,
    },
    /// Image of a volume, under a name of ours.
    UploadVolume {
        /// In which cloud.
        side: Side,
        /// What for.
        role: Role,
        /// Which disk.
        disk: i32,
        /// Which attempt.
        attempt: i32,
        /// The volume.
        volume_id: String,
    },
    /// Looks by its id for something that was asked for and is in no list any more; if it is gone, asks the cloud why.
    FindLost {
        /// In which cloud.
        side: Side,
        /// What it was for.
        role: Role,
        /// Which disk.
        disk: i32,
        /// Which attempt.
        attempt: i32,
        /// Its id.
        id: String,
        /// The volume that it was to be made of, where it was made of one.
        volume_id: Option<String>,
    },
    /// Marks an image that could not be marked when it was made.
    TagImage {
        /// In which cloud.
        side: Side,
        /// The image.
        image_id: String,
    },
    /// Empty image that a restore Job will fill.
    CreateImportImage {
        /// Which disk.
        disk: i32,
        /// Which attempt.
        attempt: i32,
        /// The image in the source that it is a copy of.
        like: Option<String>,
    },
    /// Volume from an image, or a blank one.
    CreateVolume {
        /// Which disk.
        disk: i32,
        /// The image.
        image_id: Option<String>,
    },
    /// PersistentVolume that stands for a volume of ours.
    CreatePersistentVolume {
        /// In whose cluster.
        side: Side,
        /// Which disk.
        disk: i32,
        /// The volume.
        volume_id: String,
        /// Its size.
        size_gib: i64,
    },
    /// Claim of that PersistentVolume.
    CreateClaim {
        /// In whose cluster.
        side: Side,
        /// Which disk.
        disk: i32,
        /// Its size.
        size_gib: i64,
    },
    /// Deletes a claim of ours.
    DeleteClaim {
        /// In whose cluster.
        side: Side,
        /// The claim.
        name: String,
    },
    /// Deletes a PersistentVolume of ours; what it stands for stays.
    DeletePersistentVolume {
        /// In whose cluster.
        side: Side,
        /// The PersistentVolume.
        name: String,
    },
    /// Bootable flag and image metadata of a volume.
    DressVolume {
        /// Which disk.
        disk: i32,
        /// The volume.
        volume_id: String,
    },
    /// A port.
    CreatePort {
        /// Its place in the plan.
        index: i32,
    },
    /// A port's tags and final name.
    FinishPort {
        /// Its place in the plan.
        index: i32,
        /// The port.
        port_id: String,
    },
    /// The new server.
    CreateServer,
    /// Stops the new server.
    StopDestination {
        /// The server.
        server_id: String,
    },
    /// Sets ports up that were created down.
    RaisePort {
        /// The port.
        port_id: String,
    },
    /// The report, before `Succeeded=True`.
    CreateReport,
    /// The report's status: what clean-up left.
    FinishReport,
    /// Deletes something that carries our mark.
    Delete {
        /// In which cloud.
        side: Side,
        /// What kind of object.
        kind: ObjectKind,
        /// Its id.
        id: String,
    },
}

/// Kinds of objects in a cloud that a migration may delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum ObjectKind {
    /// A server.
    Server,
    /// A port.
    Port,
    /// A volume.
    Volume,
    /// A volume snapshot.
    Snapshot,
    /// An image.
    Image,
}

/// A Job to be created.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRequest {
    /// In whose cluster.
    pub side: Side,
    /// What for, such as `backup-0`.
    pub purpose: String,
    /// Which attempt, from 1.
    pub attempt: i32,
    /// What it is to do.
    pub task: Task,
    /// It may use the cloud and the store. A check gets neither.
    pub credentials: bool,
    /// The claim of the block device that it gets.
    pub device: Option<String>,
    /// Private keys of the tenant that it gets, by the name of the file.
    pub keys: BTreeMap<String, KeyRef>,
    /// After how many seconds Kubernetes ends it.
    pub deadline_seconds: i64,
}

/// One attempt of a hook that runs in a Job. What it runs is read when the Job is made.
#[derive(Clone, Debug, PartialEq)]
pub struct HookRequest {
    /// Near which side's cloud.
    pub side: Side,
    /// The hook's name.
    pub hook: String,
    /// The Job's name.
    pub job: String,
}

impl Step {
    /// A name for messages and metrics.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// The side that it changes, where it changes a cloud or a remote cluster.
    pub fn side(&self) -> Option<Side> {
        use Step::*;
        match self {
            CreateJob(j) => Some(j.side),
            RunHook(h) => Some(h.side),
            DeleteJob { side, .. }
            | CreatePersistentVolume { side, .. }
            | CreateClaim { side, .. }
            | DeleteClaim { side, .. }
            | DeletePersistentVolume { side, .. }
            | UploadVolume { side, .. }
            | FindLost { side, .. }
            | TagImage { side, .. }
            | Delete { side, .. } => Some(*side),
            DeleteAnchor(side) => Some(*side),
            ClaimSource
            | ReleaseClaim
            | StopSource
            | LockSource
            | UnlockSource
            | RelockSource
            | StartSource
            | DeleteSource
            | DeleteSourceVolume { .. }
            | CreateSnapshot { .. }
            | CreateExportVolume { .. }
            | CreateServerImage { .. } => Some(Side::Source),
            CreateImportImage { .. }
            | CreateVolume { .. }
            | DressVolume { .. }
            | CreatePort { .. }
            | FinishPort { .. }
            | CreateServer
            | StopDestination { .. }
            | RaisePort { .. } => Some(Side::Destination),
            PrepareSecrets | DeleteVault | CreateReport | FinishReport => None,
        }
    }
}

/// What a step brought back that has to be recorded before anything else follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Nothing to record.
    Done,
    /// An object was created.
    Created {
        /// Its id.
        id: String,
    },
    /// The cloud took a request that it carries out later.
    Accepted {
        /// The request's id, where the cloud gave one.
        request_id: Option<String>,
    },
    /// The cloud took a request and makes an object of it later.
    Asked {
        /// The object's id.
        id: String,
        /// The request's id, where the cloud gave one.
        request_id: Option<String>,
    },
    /// What was asked for is gone.
    Lost {
        /// What the cloud says of it.
        why: String,
    },
    /// For completeness of the record.
    Value(Value),
}

/// Why a step did not happen.
#[derive(Clone, Debug, PartialEq)]
pub struct StepFailure {
    /// It may work later.
    pub transient: bool,
    /// The state was not what it was when we decided; look again.
    pub conflict: bool,
    /// What failed, on which object, what was answered.
    pub message: String,
}
