//! What a mover is asked to do. Every option is a field and is spelled once: clap reads it from a command line, and the
//! same names, in the same order, write it.

use clap::{Args, Command, Subcommand};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

use super::{Check, ImageChecks, paths};

/// No segment of a disk is shorter, in bytes.
pub const SMALLEST_SEGMENT: u64 = 64 << 10;

/// What a mover is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Subcommand)]
#[serde(rename_all = "kebab-case")]
// A Job has one.
#[allow(clippy::large_enum_variant)]
pub enum Task {
    /// Prove that this pod reaches the store and the cloud
    Probe(Probe),
    /// Mark the prefix and make the repository; may be repeated
    Init(Init),
    /// Save one pass over an image or a block device
    Backup(Backup),
    /// Fill a queued image or a block device with a saved pass
    Restore(Restore),
    /// Save the whole disk as it is after a pass, for plain restic
    Seal(Seal),
    /// Delete one migration's repository
    Purge(Purge),
    /// Poll checks until they pass or time is up
    Check(Checks),
    /// Run a script in a guest over SSH; ends with the script's exit code, 255 without one, 124 when time is up
    Ssh(Ssh),
}

/// Where a task runs, and what it may connect to. Every task has these, and the operator sets the networks only.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Pod {
    /// The mounted Secret
    #[arg(long, global = true, default_value = paths::CONFIG)]
    pub config_dir: PathBuf,
    /// A writable directory
    #[arg(long, global = true, default_value = paths::SCRATCH)]
    pub scratch_dir: PathBuf,
    /// Where the result is written
    #[arg(long, global = true, default_value = paths::TERMINATION_LOG)]
    pub termination_log: PathBuf,
    /// Networks that may not be connected to
    #[arg(long, global = true)]
    pub denied_cidr: Vec<ipnet::IpNet>,
    /// For tests: loopback addresses, and http to them
    #[arg(long, global = true, hide = true)]
    pub allow_loopback: bool,
}

/// `mover probe`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
pub struct Probe {
    /// s3:https://host[:port]/bucket/prefix/<namespace>/<uid>, or a place of rest: or swift:
    #[arg(long)]
    pub repository: String,
}

/// `mover init`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
pub struct Init {
    /// s3:https://host[:port]/bucket/prefix/<namespace>/<uid>, or a place of rest: or swift:
    #[arg(long)]
    pub repository: String,
    /// The migration's uid
    #[arg(long)]
    pub migration_uid: String,
    /// The migration's namespace/name
    #[arg(long)]
    pub object: String,
}

/// How restic processes use CPU, network and store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize)]
pub struct Transfer {
    /// restic processes at once; unset: 2
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub processes: Option<u16>,
    /// Connections to the store of each process
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: Option<u16>,
    /// KiB a second to the store, for all processes together; unset or 0: no limit
    #[arg(long)]
    pub limit_upload: Option<u64>,
    /// KiB a second from the store, for all processes together; unset or 0: no limit
    #[arg(long)]
    pub limit_download: Option<u64>,
}

/// `mover backup`
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["image", "device"]))]
pub struct Backup {
    /// s3:https://host[:port]/bucket/prefix/<namespace>/<uid>, or a place of rest: or swift:
    #[arg(long)]
    pub repository: String,
    /// The migration's uid
    #[arg(long)]
    pub migration_uid: String,
    /// Number of the disk
    #[arg(long)]
    pub disk: u32,
    /// The image to save
    #[arg(long)]
    pub image: Option<String>,
    /// The block device to save
    #[arg(long)]
    pub device: Option<PathBuf>,
    /// What the device is (a volume's id): an attempt resumes only what was read from the same
    #[arg(long, requires = "device", value_parser = origin)]
    pub device_id: Option<String>,
    /// Skip restic's second look at what it saves; the digests cover it
    #[arg(long)]
    pub no_extra_verify: bool,
    /// Number of the pass; all but the first send only what changed
    #[arg(long)]
    pub pass: Option<u32>,
    /// The manifest of the pass before
    #[arg(long)]
    pub base_manifest: Option<String>,
    /// Save block digests, too, which the next pass needs
    #[arg(long)]
    pub keep_digests: bool,
    /// The disk enters an image service. It does, does not, or may judge what raw images hold: a disk that it refuses ends the
    /// Job before anything else is read
    #[arg(long)]
    pub images: Option<ImageChecks>,
    #[command(flatten)]
    #[serde(flatten)]
    #[expect(missing_docs)]
    pub transfer: Transfer,
    /// Length of a segment; by default it follows from the disk's
    #[arg(long, value_parser = clap::value_parser!(u64).range(SMALLEST_SEGMENT..))]
    pub segment_bytes: Option<u64>,
    /// For tests: length of a patch
    #[arg(long, hide = true)]
    pub patch_bytes: Option<u64>,
}

/// What may stand in a tag.
pub fn origin(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if !text.is_empty() && text.len() <= 255 && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("letters, digits and . _ - / only".to_owned())
}

/// `mover restore`
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize)]
#[command(group = clap::ArgGroup::new("target").required(true).args(["image", "device"]))]
pub struct Restore {
    /// s3:https://host[:port]/bucket/prefix/<namespace>/<uid>, or a place of rest: or swift:
    #[arg(long)]
    pub repository: String,
    /// Number of the disk
    #[arg(long)]
    pub disk: u32,
    /// Number of the pass
    #[arg(long, default_value_t = 0)]
    pub pass: u32,
    /// The image to write; it must be queued
    #[arg(long)]
    pub image: Option<String>,
    /// The block device to write
    #[arg(long)]
    pub device: Option<PathBuf>,
    /// After a later pass: read the whole device and compare (a first pass reads back all that it writes, anyway)
    #[arg(long, requires = "device")]
    pub verify_disk: bool,
    /// The device holds this pass already (the full id of its manifest): write only what later ones changed
    #[arg(long, requires = "device")]
    pub holds: Option<String>,
    /// The device may hold segments of an earlier attempt: compare before fetching
    #[arg(long, requires = "device")]
    pub resume: bool,
    /// The device reads as zeros where nothing was written: do not write zeros
    #[arg(long, requires = "device", conflicts_with = "holds")]
    pub target_is_zero: bool,
    /// Take only segments that were read from this image or volume: an earlier try may have left others
    #[arg(long, conflicts_with = "snapshot")]
    pub origin: Option<String>,
    /// The full id of the pass's manifest; without it, segments are taken while the pass is made
    #[arg(long)]
    pub snapshot: Option<String>,
    /// Bytes, as read in the source cloud
    #[arg(long)]
    pub bytes: Option<u64>,
    /// Digest over all segments' digests, as read in the source cloud
    #[arg(long)]
    pub sha256: Option<String>,
    /// Algorithm of the source image's hash
    #[arg(long, requires = "hash_value")]
    pub hash_algo: Option<String>,
    /// The source image's hash
    #[arg(long, requires = "hash_algo")]
    pub hash_value: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    #[expect(missing_docs)]
    pub transfer: Transfer,
    /// How long to wait for the next segment of a pass that is being made; unset: 3600
    #[arg(long)]
    pub patience_seconds: Option<u64>,
}

/// `mover seal`
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize)]
pub struct Seal {
    /// s3:https://host[:port]/bucket/prefix/<namespace>/<uid>, or a place of rest: or swift:
    #[arg(long)]
    pub repository: String,
    /// The full id of the pass's manifest
    #[arg(long)]
    pub snapshot: String,
    /// Number of the disk
    #[arg(long)]
    pub disk: u32,
    /// Number of the pass
    #[arg(long, default_value_t = 0)]
    pub pass: u32,
    #[command(flatten)]
    #[serde(flatten)]
    #[expect(missing_docs)]
    pub transfer: Transfer,
}

/// `mover purge`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
pub struct Purge {
    /// s3:https://host[:port]/bucket/prefix/<namespace>/<uid>, or a place of rest: or swift:
    #[arg(long)]
    pub repository: String,
    /// The migration's uid
    #[arg(long)]
    pub migration_uid: String,
}

/// `mover check`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
pub struct Checks {
    /// JSON list of checks
    #[arg(long)]
    pub checks: String,
    /// How long to try
    #[arg(long)]
    pub deadline_seconds: u64,
}

impl Checks {
    /// These checks.
    pub fn new(checks: &[Check], deadline_seconds: u64) -> Self {
        // By way of values, whose keys are in order whatever the order of fields.
        let list = checks.iter().map(|check| serde_json::to_value(check).unwrap_or_default()).collect();
        Checks { checks: Value::Array(list).to_string(), deadline_seconds }
    }

    /// The checks that are asked for.
    pub fn read(&self) -> Result<Vec<Check>, serde_json::Error> {
        serde_json::from_str(&self.checks)
    }
}

/// `mover ssh`
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
pub struct Ssh {
    /// The user to log in as
    #[arg(long)]
    pub user: String,
    /// Name or address of the server
    #[arg(long)]
    pub host: String,
    /// Its port
    #[arg(long, default_value_t = 22)]
    pub port: u16,
    /// The private key
    #[arg(long)]
    pub key_file: PathBuf,
    /// The script; run by the guest's sh, with our variables VMM_*
    #[arg(long)]
    pub script_file: PathBuf,
    /// What the script reads on its standard input
    #[arg(long)]
    pub context_file: Option<PathBuf>,
    /// How long all of it may take
    #[arg(long)]
    pub timeout_seconds: u64,
    /// A public host key, such as "ssh-ed25519 AAAA…"; one of them must be the server's
    #[arg(long, required = true)]
    pub host_key: Vec<String>,
}

impl Task {
    /// As arguments of `vmmigration mover`, for a pod that may not connect to these networks.
    pub fn command_line(&self, denied: &[String]) -> Vec<String> {
        // Texts, numbers, flags and lists of these: always an object with one member, the task's name.
        let Ok(Value::Object(task)) = serde_json::to_value(self) else { return vec![] };
        let tasks = Self::augment_subcommands(Command::new("mover"));
        let mut line = vec![];
        for (name, values) in task {
            let Some(command) = tasks.find_subcommand(&name) else { continue };
            line.extend(options(command, &values));
            line.insert(0, name);
        }
        let pod = serde_json::json!({"denied_cidr": denied});
        line.extend(options(&Pod::augment_args(Command::new("pod")), &pod));
        line
    }
}

/// The options of a command, in their order, as far as they have a value.
fn options(command: &Command, values: &Value) -> Vec<String> {
    let of_one = |option: &clap::Arg| {
        let name = format!("--{}", option.get_long().unwrap_or_default());
        let with = |value: &Value| vec![name.clone(), text(value)];
        match &values[option.get_id().as_str()] {
            Value::Null | Value::Bool(false) => vec![],
            Value::Bool(true) => vec![name.clone()],
            Value::Array(several) => several.iter().flat_map(with).collect(),
            one => with(one),
        }
    };
    command.get_arguments().flat_map(of_one).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}
