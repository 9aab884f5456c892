//! How a task ended: its result or its failure, as it stands in the termination message.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Kept, VERSION};

/// The kubelet keeps 4096 bytes of a termination message; we stay below.
pub const MAX_TERMINATION_MESSAGE: usize = 4000;
/// A failure's message in characters.
const MAX_MESSAGE: usize = 1500;

/// Result of `mover backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupResult {
    /// The full id of the manifest's snapshot: all that a restore needs to know.
    pub snapshot_id: String,
    /// The disk's length in bytes, as read.
    pub bytes: u64,
    /// SHA-256 over the SHA-256 digests of all segments, in hex.
    pub sha256: String,
    /// The algorithm of the source image's hash, when it is one that the target computes and compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_algo: Option<String>,
    /// The source image's hash in that algorithm, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_value: Option<String>,
    /// How many segments the disk has.
    #[serde(default)]
    pub segments: u64,
    /// How many of them are nothing but zeros, or as in the pass before: they were not sent.
    #[serde(default)]
    pub skipped_segments: u64,
    /// How many segments and patches an earlier attempt had sent already.
    #[serde(default)]
    pub reused: u64,
    /// Bytes that differ from the pass before; in the first pass those of all segments that are not zero.
    #[serde(default)]
    pub changed_bytes: u64,
    /// Bytes added to the repository, compressed and encrypted.
    pub stored_bytes: u64,
    /// How long the whole step took.
    pub seconds: u64,
    /// Where it enters an image service: what some of them have against what the disk begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objection: Option<String>,
}

/// Result of `mover restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreResult {
    /// The full id of the manifest that says what the disk is.
    #[serde(default)]
    pub snapshot_id: String,
    /// Bytes written to the image; equal to what was read in the source cloud.
    pub bytes: u64,
    /// SHA-256 over the SHA-256 digests of all segments, in hex; equal to the source's.
    pub sha256: String,
    /// The algorithm of the new image's hash, when it is one that we computed and compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_algo: Option<String>,
    /// The hash that Glance computed of what arrived, in hex; equal to ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_value: Option<String>,
    /// How long the whole step took.
    pub seconds: u64,
}

/// Result of `mover seal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealResult {
    /// The full id of the snapshot that plain restic restores.
    pub snapshot_id: String,
    /// The name of the only file in it.
    pub file: String,
    /// Bytes added to the repository, compressed and encrypted.
    pub stored_bytes: u64,
    /// How long the whole step took.
    pub seconds: u64,
}

/// Result of `mover probe`: everything worked; these are the times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeResult {
    /// Milliseconds to write a small object.
    pub store_write_ms: u64,
    /// Milliseconds to read it back.
    pub store_read_ms: u64,
    /// Milliseconds to delete it.
    pub store_delete_ms: u64,
    /// Milliseconds to log in to the cloud.
    pub cloud_connect_ms: u64,
    /// Milliseconds for one call to its image service.
    pub cloud_image_ms: u64,
    /// What the store kept of the object that was written and deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_keeps: Option<Kept>,
}

/// Result of `mover init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitResult {
    /// False when the repository was there already.
    pub created: bool,
}

/// Result of `mover purge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurgeResult {
    /// How many objects were deleted, each version being one; 0 when nothing was there any more.
    pub deleted_objects: u64,
    /// What the store does not let go of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// Result of `mover check`; on failure too, inside of [`Failure::result`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChecksResult {
    /// One for each check, in the order given.
    pub checks: Vec<CheckResult>,
    /// When the first of them passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_passed_at: Option<Timestamp>,
}

/// How one check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckResult {
    /// The check's name.
    pub name: String,
    /// Whether it passed before the deadline.
    pub ok: bool,
    /// How often it was tried.
    #[serde(default)]
    pub attempts: u32,
    /// The last answer, at most 200 characters.
    #[serde(default)]
    pub message: String,
}

/// What a backup and a restore both tell of their disk. What is missing is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskDigest {
    /// The full id of the manifest's snapshot.
    pub snapshot_id: Option<String>,
    /// The disk's length in bytes.
    pub bytes: Option<u64>,
    /// SHA-256 over the SHA-256 digests of all segments, in hex.
    pub sha256: Option<String>,
    /// The algorithm of the image's hash.
    pub hash_algo: Option<String>,
    /// The image's hash in that algorithm, in hex.
    pub hash_value: Option<String>,
}

/// Why a step failed, for machines. Names that this version does not know become `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
pub enum FailureReason {
    /// A wrong command line.
    InvalidArguments,
    /// The Job's Secret or scratch directory cannot be used.
    InvalidConfiguration,
    /// The cloud refused the credentials.
    CloudUnauthorized,
    /// The cloud did not answer, or answered with an error.
    CloudError,
    /// The image is not there.
    ImageNotFound,
    /// The image is not in the state that the step needs, or lacks a size.
    ImageNotReady,
    /// The block device cannot be opened, read or written, or is too small.
    DeviceError,
    /// The download ended early, or went on too long.
    ShortRead,
    /// Bytes or digests differ from what was recorded.
    DigestMismatch,
    /// A segment or a patch is not what was read in the source, even when fetched again. The next backup sends it anew.
    WrongSegment,
    /// The new image is not what was sent.
    UploadMismatch,
    /// The disk begins with something that the cloud does not take as an image.
    DiskRefused,
    /// The store refused the keys.
    StoreUnauthorized,
    /// The bucket is not there.
    NoBucket,
    /// The store cannot be reached, its certificate or its address is refused, or it answered with an error.
    StoreError,
    /// The store has no room.
    StoreFull,
    /// No restic repository where one is needed.
    RepositoryMissing,
    /// Somebody holds an exclusive lock.
    RepositoryLocked,
    /// The password does not open the repository.
    WrongPassword,
    /// What lies under the prefix is not this migration's.
    ForeignRepository,
    /// The snapshot, or the disk in it, is not there.
    SnapshotNotFound,
    /// For too long the source's side saved nothing more.
    NothingArrives,
    /// restic failed, or was killed.
    ResticFailed,
    /// At least one check did not pass before the deadline.
    CheckFailed,
    /// There was no SSH session, or it ended without the script's exit code.
    SshFailed,
    /// SIGTERM.
    Terminated,
    /// A bug, or the machine.
    Internal,
    /// A reason of another version.
    #[serde(other)]
    Unknown,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<T> {
    /// For machines.
    pub reason: FailureReason,
    /// For people: the object, what was expected and found, what to do.
    pub message: String,
    /// Whether a new attempt may succeed without anybody changing anything.
    pub retryable: bool,
    /// What is known besides; only checks have it.
    pub result: Option<T>,
}

/// How a Job ended: exactly what stands in its termination message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "RawOutcome<T>",
    into = "RawOutcome<T>",
    bound = "T: Clone + Serialize + DeserializeOwned"
)]
pub enum Outcome<T> {
    /// It did what it was asked to.
    Ok(T),
    /// It did not.
    Failed(Failure<T>),
}

/// A result as it came. Whoever knows the task reads it as what that gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer(Value);

impl Answer {
    /// As the result of a task.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.0)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Outcome<Answer> {
    /// The outcome of a Job of any release, read leniently: a message that is none of ours is a failure that may pass, since
    /// a pod that was killed leaves the end of its log there. `None`: it is no JSON.
    pub fn told(text: &str) -> Option<Self> {
        let told: Value = serde_json::from_str(text).ok()?;
        let result = told.get("result").cloned();
        if told["ok"] == true {
            return Some(Outcome::Ok(Answer(result.unwrap_or_default())));
        }
        Some(Outcome::Failed(Failure {
            reason: FailureReason::deserialize(&told["reason"]).unwrap_or(FailureReason::Unknown),
            message: told["message"].as_str().unwrap_or_default().into(),
            retryable: told["retryable"] != false,
            result: result.map(Answer),
        }))
    }

    /// The failure, if it is one.
    pub fn failure(&self) -> Option<&Failure<Answer>> {
        match self {
            Outcome::Ok(_) => None,
            Outcome::Failed(failure) => Some(failure),
        }
    }

    /// The result, which a failure may have, too.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Outcome::Ok(answer) => Some(answer),
            Outcome::Failed(failure) => failure.result.as_ref(),
        }
    }
}

/// The flat form on the wire.
#[derive(Serialize, Deserialize)]
struct RawOutcome<T> {
    ok: bool,
    #[serde(default)]
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<FailureReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    result: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> From<Outcome<T>> for RawOutcome<T> {
    fn from(outcome: Outcome<T>) -> Self {
        match outcome {
            Outcome::Ok(result) => Self {
                ok: true,
                version: VERSION,
                reason: None,
                message: None,
                retryable: None,
                result: Some(result),
            },
            Outcome::Failed(failure) => Self {
                ok: false,
                version: VERSION,
                reason: Some(failure.reason),
                message: Some(failure.message),
                retryable: Some(failure.retryable),
                result: failure.result,
            },
        }
    }
}

impl<T> TryFrom<RawOutcome<T>> for Outcome<T> {
    type Error = &'static str;

    fn try_from(raw: RawOutcome<T>) -> Result<Self, Self::Error> {
        if raw.ok {
            return raw.result.map(Self::Ok).ok_or("a success without a result");
        }
        Ok(Self::Failed(Failure {
            reason: raw.reason.ok_or("a failure without a reason")?,
            message: raw.message.unwrap_or_default(),
            retryable: raw.retryable.unwrap_or(false),
            result: raw.result,
        }))
    }
}

impl<T: Clone + Serialize + DeserializeOwned> Outcome<T> {
    /// The termination message: JSON of at most [`MAX_TERMINATION_MESSAGE`] bytes. Only `message` texts are
    /// shortened, never ids or digests.
    pub fn to_termination_message(&self) -> String {
        let Ok(mut value) = serde_json::to_value(self) else { return too_large() };
        for limit in [MAX_MESSAGE, 800, 400, 200, 100, 40, 0] {
            shorten_messages(&mut value, limit);
            let text = value.to_string();
            if text.len() <= MAX_TERMINATION_MESSAGE {
                return text;
            }
        }
        too_large()
    }

    /// Reads a termination message.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

fn too_large() -> String {
    r#"{"ok":false,"reason":"Internal","message":"the result does not fit into a termination message","retryable":false,"version":1}"#
        .to_owned()
}

fn shorten_messages(value: &mut serde_json::Value, limit: usize) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    serde_json::Value::String(text) if name == "message" => *text = shorten(text, limit),
                    other => shorten_messages(other, limit),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| shorten_messages(item, limit)),
        _ => {}
    }
}

/// At most `limit` characters; what was cut is marked.
pub fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> BackupResult {
        BackupResult {
            snapshot_id: "ab".repeat(32),
            bytes: 1,
            sha256: "cd".repeat(32),
            hash_algo: Some("sha512".into()),
            hash_value: Some("ef".repeat(64)),
            segments: 4,
            skipped_segments: 1,
            reused: 2,
            changed_bytes: 3,
            stored_bytes: 2,
            seconds: 3,
            objection: None,
        }
    }

    fn failure(message: String) -> Outcome<BackupResult> {
        Outcome::Failed(Failure { reason: FailureReason::ShortRead, message, retryable: true, result: None })
    }

    #[test]
    fn the_wire_form() {
        let text = Outcome::Ok(backup()).to_termination_message();
        assert!(text.starts_with(r#"{"ok":true,"result":{"#) && text.ends_with(r#","version":1}"#), "{text}");
        for field in
            ["snapshotId", "bytes", "sha256", "hashAlgo", "hashValue", "segments", "storedBytes", "seconds"]
        {
            assert!(text.contains(&format!("\"{field}\":")), "{field}: {text}");
        }
        assert_eq!(Outcome::parse(&text).unwrap(), Outcome::Ok(backup()));
        let failed = failure("3 of 4 bytes".into());
        let value: serde_json::Value = serde_json::from_str(&failed.to_termination_message()).unwrap();
        let expected = serde_json::json!({"ok": false, "version": 1, "reason": "ShortRead", "message": "3 of 4 bytes",
            "retryable": true});
        assert_eq!(value, expected);
        assert_eq!(Outcome::<BackupResult>::parse(&value.to_string()).unwrap(), failed);
    }

    #[test]
    fn odd_messages() {
        for text in ["", "{}", "null", r#"{"ok":true}"#, r#"{"ok":false}"#, r#"{"ok":true,"result":{}}"#] {
            assert!(Outcome::<BackupResult>::parse(text).is_err(), "{text}");
        }
        let later = r#"{"ok":false,"reason":"SomethingNew","message":"m","retryable":false,"more":1}"#;
        let Outcome::Failed(failure) = Outcome::<BackupResult>::parse(later).unwrap() else { panic!("ok") };
        assert_eq!(failure.reason, FailureReason::Unknown);
    }

    #[test]
    fn always_bounded_always_json() {
        for message in ["x".repeat(100_000), "é\u{1}\"\\".repeat(20_000), "\u{0}".repeat(50_000)] {
            let text = failure(message).to_termination_message();
            assert!(text.len() <= MAX_TERMINATION_MESSAGE, "{}", text.len());
            assert!(matches!(Outcome::<BackupResult>::parse(&text), Ok(Outcome::Failed(_))));
        }
        let check =
            CheckResult { name: "n".repeat(63), ok: false, attempts: 900, message: "\u{1}".repeat(200) };
        let text =
            Outcome::Ok(ChecksResult { checks: vec![check; 32], first_passed_at: Some(Timestamp::MAX) })
                .to_termination_message();
        assert!(text.len() <= MAX_TERMINATION_MESSAGE, "{}", text.len());
        let Outcome::Ok(back) = Outcome::<ChecksResult>::parse(&text).unwrap() else { panic!("{text}") };
        assert_eq!(back.checks.len(), 32);
    }

    #[test]
    fn digests_are_never_cut() {
        let outcome = Outcome::Failed(Failure {
            reason: FailureReason::Internal,
            message: "m".repeat(90_000),
            retryable: false,
            result: Some(backup()),
        });
        let Outcome::Failed(back) =
            Outcome::<BackupResult>::parse(&outcome.to_termination_message()).unwrap()
        else {
            panic!("ok")
        };
        assert_eq!(back.result, Some(backup()));
    }
}
