//! What operator and movers say to each other: the task in a Job's arguments, its progress in the log, its outcome in the
//! termination message, and where things are in the pod; and the rules that both keep to. Plain types, neither side's
//! clients, no clock; each form is written and read here and nowhere else.
//!
//! A Job outlives the operator that made it: its pod runs the image of that release, and the next release reads its
//! outcome. So a field that is added has a default, a reason that is not known is read as `Unknown`, and no option changes
//! its meaning. Nothing here imports from other modules of this project.

mod check;
pub mod exit;
mod host_keys;
mod image_checks;
mod kept;
mod outcome;
pub mod paths;
mod pattern;
mod progress;
mod snapshot_id;
mod task;

#[cfg(test)]
mod before_tests;
#[cfg(test)]
mod task_tests;

pub use check::{Check, CheckKind, Header};
pub use host_keys::{host_key, host_keys_from_console};
pub use image_checks::ImageChecks;
pub use kept::Kept;
pub use outcome::{
    Answer, BackupResult, CheckResult, ChecksResult, DiskDigest, Failure, FailureReason, InitResult,
    MAX_TERMINATION_MESSAGE, Outcome, ProbeResult, PurgeResult, RestoreResult, SealResult, shorten,
};
pub use pattern::pattern;
pub use progress::{Progress, ProgressLine};
pub use snapshot_id::SnapshotId;
pub use task::{
    Backup, Checks, Init, Pod, Probe, Purge, Restore, SMALLEST_SEGMENT, Seal, Ssh, Task, Transfer, origin,
};

/// Counts the changes after which an older reader would misunderstand an outcome. It is in every outcome; the first
/// release wrote none, which is 0.
pub const VERSION: u32 = 1;
