//! The command line of the mover, and how a Job ends: termination message, exit code, SIGTERM.

use std::{
    ffi::OsString, future::Future, path::PathBuf, process::ExitCode, sync::atomic::AtomicU64, time::Duration,
};

use clap::{Args, Subcommand};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::{
    backup::{self, BackupRequest},
    check,
    config::{self, ConfigDir, mask},
    device_target::DeviceTarget,
    error::MoverError,
    feed, glance, guard,
    image_target::ImageTarget,
    init::{self, Owner},
    probe, purge,
    repository::Repository,
    restore::{self, RestoreRequest},
    result::{BackupResult, Failure, FailureReason, JobOutcome, RestoreResult},
    seal,
    source::{DeviceSource, ImageSource},
    ssh::{self, Output, Script, SshError, Target},
};
use crate::{
    contract::{ImageChecks, SnapshotId},
    net::{AddressCheck, EndpointPolicy, address_check},
    openstack::Cloud,
    restic::{Complaints, Restic, Traffic, program_from_environment},
    signals::StopSignals,
    store::{ObjectStoreLocation, Store, StoreOptions},
    transfer::{BLOCK, ImageHash, manifest::MAX_PATCH, tags::PassKey},
};

/// restic gets its time to release the lock, and we some to say so.
const TERM_GRACE: Duration = Duration::from_secs(25);
/// What restic does by itself, made explicit.
const DEFAULT_TRAFFIC: Traffic = Traffic { connections: 5, upload_kib: 0, download_kib: 0 };
/// A dump fetches blob by blob.
const RESTORE_CONNECTIONS: u16 = 16;
const EXIT_RETRYABLE: u8 = 1;
const EXIT_TERMINAL: u8 = 2;
const EXIT_SIGTERM: u8 = 143;
/// As `timeout` of coreutils.
const EXIT_TIMED_OUT: u8 = 124;
/// As ssh itself.
const EXIT_SSH_FAILED: u8 = 255;

/// What runs inside of a Job.
#[derive(Debug, Subcommand)]
pub enum MoverCommand {
    /// Prove that this pod reaches the store and the cloud
    Probe(ProbeArgs),
    /// Mark the prefix and make the repository; may be repeated
    Init(InitArgs),
    /// Save one pass over an image or a block device
    Backup(BackupCommand),
    /// Fill a queued image or a block device with a saved pass
    Restore(RestoreCommand),
    /// Save the whole disk as it is after a pass, for plain restic
    Seal(SealCommand),
    /// Delete one migration's repository
    Purge(PurgeArgs),
    /// Poll checks until they pass or time is up
    Check(CheckArgs),
    /// Run a script in a guest over SSH; ends with the script's exit code, 255 without one, 124 when time is up
    Ssh(SshArgs),
    /// Pass bytes on to restic
    #[command(hide = true)]
    Feed(FeedArgs),
    /// Become a program that dies with its parent
    #[command(hide = true)]
    Guard(GuardArgs),
}

/// What every Job has.
#[derive(Debug, Clone, Args)]
pub struct JobArgs {
    /// Where the result is written
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
    /// Networks that may not be connected to
    #[arg(long)]
    pub denied_cidr: Vec<ipnet::IpNet>,
    /// For tests: loopback addresses, and http to them
    #[arg(long, hide = true)]
    pub allow_loopback: bool,
}

/// Files and repository.
#[derive(Debug, Clone, Args)]
pub struct RepositoryArgs {
    /// The mounted Secret
    #[arg(long, default_value = "/etc/vmmigration")]
    pub config_dir: PathBuf,
    /// A writable directory
    #[arg(long, default_value = "/scratch")]
    pub scratch_dir: PathBuf,
    /// s3:https://host[:port]/bucket/prefix/<namespace>/<uid>, or a place of rest: or swift:
    #[arg(long)]
    pub repository: String,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub job: JobArgs,
}

/// `mover probe`
#[derive(Debug, Args)]
pub struct ProbeArgs {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub repository: RepositoryArgs,
}

/// `mover init`
#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub repository: RepositoryArgs,
    /// The migration's uid
    #[arg(long)]
    pub migration_uid: String,
    /// The migration's namespace/name
    #[arg(long)]
    pub object: String,
}

/// How restic processes use CPU, network and store.
#[derive(Debug, Clone, Args)]
pub struct TransferArgs {
    /// restic processes at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub processes: u16,
    /// Connections to the store of each process
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: Option<u16>,
    /// KiB a second to the store, for all processes together; 0 for no limit
    #[arg(long, default_value_t = 0)]
    pub limit_upload: u64,
    /// KiB a second from the store, for all processes together; 0 for no limit
    #[arg(long, default_value_t = 0)]
    pub limit_download: u64,
}

impl TransferArgs {
    fn traffic(&self, connections: u16) -> Traffic {
        // A limit that is shared out never becomes none.
        let share = |kib: u64| if kib == 0 { 0 } else { (kib / u64::from(self.processes)).max(1) };
        Traffic {
            connections: self.connections.unwrap_or(connections),
            upload_kib: share(self.limit_upload),
            download_kib: share(self.limit_download),
        }
    }
}

/// `mover backup`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["image", "device"]))]
pub struct BackupCommand {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub transfer: TransferArgs,
    /// The image to save
    #[arg(long)]
    pub image: Option<String>,
    /// The block device to save
    #[arg(long)]
    pub device: Option<PathBuf>,
    /// What the device is (a volume's id): an attempt resumes only what was read from the same
    #[arg(long, requires = "device", value_parser = origin)]
    pub device_id: Option<String>,
    /// Number of the disk
    #[arg(long)]
    pub disk: u32,
    /// Number of the pass; all but the first send only what changed
    #[arg(long, default_value_t = 0)]
    pub pass: u32,
    /// The manifest of the pass before
    #[arg(long)]
    pub base_manifest: Option<String>,
    /// Save block digests, too, which the next pass needs
    #[arg(long)]
    pub keep_digests: bool,
    /// The migration's uid
    #[arg(long)]
    pub migration_uid: String,
    /// Skip restic's second look at what it saves; the digests cover it
    #[arg(long)]
    pub no_extra_verify: bool,
    /// Length of a segment; by default it follows from the disk's
    #[arg(long, value_parser = clap::value_parser!(u64).range(BLOCK..))]
    pub segment_bytes: Option<u64>,
    /// The disk enters an image service. It does, does not, or may judge what raw images hold (checked, unchecked,
    /// unknown): a disk that it refuses ends the Job before anything else is read
    #[arg(long)]
    pub images: Option<ImageChecks>,
    /// For tests: length of a patch
    #[arg(long, hide = true, default_value_t = MAX_PATCH)]
    pub patch_bytes: u64,
}

/// What may stand in a tag.
fn origin(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if !text.is_empty() && text.len() <= 255 && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("letters, digits and . _ - / only".to_owned())
}

/// `mover restore`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("target").required(true).args(["image", "device"]))]
pub struct RestoreCommand {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub transfer: TransferArgs,
    /// The full id of the pass's manifest; without it, segments are taken while the pass is made
    #[arg(long)]
    pub snapshot: Option<String>,
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
    /// The device may hold segments of an earlier attempt: compare before fetching
    #[arg(long, requires = "device")]
    pub resume: bool,
    /// The device holds this pass already (the full id of its manifest): write only what later ones changed
    #[arg(long, requires = "device")]
    pub holds: Option<String>,
    /// The device reads as zeros where nothing was written: do not write zeros
    #[arg(long, requires = "device", conflicts_with = "holds")]
    pub target_is_zero: bool,
    /// After a later pass: read the whole device and compare (a first pass reads back all that it writes, anyway)
    #[arg(long, requires = "device")]
    pub verify_disk: bool,
    /// How long to wait for the next segment of a pass that is being made
    #[arg(long, default_value_t = 3600)]
    pub patience_seconds: u64,
    /// Take only segments that were read from this image or volume: an earlier try may have left others
    #[arg(long, conflicts_with = "snapshot")]
    pub origin: Option<String>,
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
}

/// `mover seal`
#[derive(Debug, Args)]
pub struct SealCommand {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub repository: RepositoryArgs,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub transfer: TransferArgs,
    /// The full id of the pass's manifest
    #[arg(long)]
    pub snapshot: String,
    /// Number of the disk
    #[arg(long)]
    pub disk: u32,
    /// Number of the pass
    #[arg(long, default_value_t = 0)]
    pub pass: u32,
}

/// `mover purge`
#[derive(Debug, Args)]
pub struct PurgeArgs {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub repository: RepositoryArgs,
    /// The migration's uid
    #[arg(long)]
    pub migration_uid: String,
}

/// `mover check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub job: JobArgs,
    /// JSON list of checks
    #[arg(long)]
    pub checks: String,
    /// How long to try
    #[arg(long)]
    pub deadline_seconds: u64,
}

/// `mover ssh`
#[derive(Debug, Args)]
pub struct SshArgs {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub job: JobArgs,
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
    /// A public host key, such as "ssh-ed25519 AAAA…"; one of them must be the server's
    #[arg(long, required = true)]
    pub host_key: Vec<String>,
    /// The script; run by the guest's sh, with our variables VMM_*
    #[arg(long)]
    pub script_file: PathBuf,
    /// What the script reads on its standard input
    #[arg(long)]
    pub context_file: Option<PathBuf>,
    /// How long all of it may take
    #[arg(long)]
    pub timeout_seconds: u64,
}

/// `mover feed`
#[derive(Debug, Args)]
pub struct FeedArgs {
    /// A file or a named pipe
    #[arg(long)]
    pub from: PathBuf,
    /// How many bytes must come
    #[arg(long)]
    pub bytes: u64,
}

/// `mover guard`
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// The parent's process id
    #[arg(long)]
    pub parent: u32,
    /// Program and arguments
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

impl JobArgs {
    /// Which addresses cloud, store and checks may have.
    pub fn endpoint_policy(&self) -> EndpointPolicy {
        EndpointPolicy { allow_loopback: self.allow_loopback, denied: self.denied_cidr.clone() }
    }

    fn address_check(&self) -> AddressCheck {
        address_check(self.endpoint_policy())
    }
}

impl RepositoryArgs {
    fn config(&self) -> ConfigDir {
        ConfigDir::new(&self.config_dir)
    }

    fn location(&self) -> Result<ObjectStoreLocation, MoverError> {
        ObjectStoreLocation::parse_with(&self.repository, self.job.allow_loopback).map_err(|error| {
            MoverError::terminal(FailureReason::InvalidArguments, format!("--repository: {error}"))
        })
    }

    fn store(&self) -> Result<Store, MoverError> {
        let config = self.config();
        let mut options = StoreOptions::new(self.job.address_check());
        options.ca_pem = config.optional(config::STORE_CACERT)?;
        let location = self.location()?;
        Ok(Store::new(&location, &config.store_keys(&location)?, &options)?)
    }

    fn restic(&self, traffic: Traffic) -> Result<Restic, MoverError> {
        let config = self.config();
        config.password()?;
        let location = self.location()?;
        Ok(Restic {
            program: program_from_environment(),
            repository: location.to_string(),
            guard: Some(self_exe()?),
            password_file: config.path().join(config::RESTIC_PASSWORD),
            keys: config.store_keys(&location)?,
            cacert: config.existing_path(config::STORE_CACERT),
            scratch: self.scratch_dir.clone(),
            traffic,
            complaints: Complaints::default(),
        })
    }

    async fn images(&self) -> Result<Cloud, MoverError> {
        glance::connect(&self.config(), &self.job).await
    }

    /// A pass that was saved, or is being saved.
    fn saved_pass(&self, disk: u32, pass: u32, transfer: &TransferArgs) -> Result<Repository, MoverError> {
        // A repository is one migration's, and is called after it.
        let migration = self.location()?.last_part().to_owned();
        let key = PassKey { migration, disk, pass };
        self.repository(key, transfer.traffic(RESTORE_CONNECTIONS), true)
    }

    fn repository(
        &self,
        key: PassKey,
        traffic: Traffic,
        no_extra_verify: bool,
    ) -> Result<Repository, MoverError> {
        let (restic, own_program) = (self.restic(traffic)?, self_exe()?);
        let store = self.store()?;
        Ok(Repository { restic, store, key, own_program, no_extra_verify, counter: AtomicU64::new(0) })
    }
}

/// A snapshot's full id in an option.
fn snapshot(option: &str, text: &str) -> Result<SnapshotId, MoverError> {
    let refused = |why| MoverError::terminal(FailureReason::InvalidArguments, format!("{option}: {why}"));
    text.parse().map_err(refused)
}

fn self_exe() -> Result<PathBuf, MoverError> {
    std::env::current_exe().map_err(|error| {
        MoverError::terminal(FailureReason::Internal, format!("our own path is not known: {error}"))
    })
}

/// Runs one subcommand to its end.
pub async fn run(command: MoverCommand) -> ExitCode {
    if let MoverCommand::Guard(args) = &command {
        let error = guard::exec(args.parent, &args.command);
        eprintln!("{}: {error}", args.command.first().map(|name| name.to_string_lossy()).unwrap_or_default());
        return ExitCode::from(EXIT_TERMINAL);
    }
    if let MoverCommand::Feed(args) = &command {
        return match feed::feed(&args.from, args.bytes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("feed: {error}");
                ExitCode::from(EXIT_RETRYABLE)
            }
        };
    }
    init_logging();
    match command {
        MoverCommand::Probe(args) => run_probe(args).await,
        MoverCommand::Init(args) => run_init(args).await,
        MoverCommand::Backup(args) => run_backup(args).await,
        MoverCommand::Restore(args) => run_restore(args).await,
        MoverCommand::Seal(args) => run_seal(args).await,
        MoverCommand::Purge(args) => run_purge(args).await,
        MoverCommand::Check(args) => run_check(args).await,
        MoverCommand::Ssh(args) => run_ssh(args).await,
        MoverCommand::Feed(_) | MoverCommand::Guard(_) => ExitCode::from(EXIT_TERMINAL),
    }
}

/// JSON lines on stderr; stdout is for progress. A logger that is there already stays.
fn init_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "warn,vmmigration=info".into());
    let _ = tracing_subscriber::fmt().json().with_writer(std::io::stderr).with_env_filter(filter).try_init();
}

async fn run_probe(args: ProbeArgs) -> ExitCode {
    let repository = &args.repository;
    let work = async |_| Ok(probe::probe(&repository.store()?, repository.images()).await?);
    job(&repository.job, repository.config().secrets(), Duration::ZERO, work).await
}

async fn run_init(args: InitArgs) -> ExitCode {
    let repository = &args.repository;
    let work = async |cancel: CancellationToken| {
        let (store, restic) = (repository.store()?, repository.restic(DEFAULT_TRAFFIC)?);
        let owner = Owner {
            uid: &args.migration_uid,
            object: &args.object,
            password: &repository.config().password()?,
        };
        Ok(init::init(&store, &restic, &owner, &cancel).await?)
    };
    job(&repository.job, repository.config().secrets(), TERM_GRACE, work).await
}

async fn run_backup(args: BackupCommand) -> ExitCode {
    let (job_args, secrets) = (args.repository.job.clone(), args.repository.config().secrets());
    let work = async |cancel: CancellationToken| Ok(backup_with(&args, &cancel).await?);
    job(&job_args, secrets, TERM_GRACE, work).await
}

async fn backup_with(args: &BackupCommand, cancel: &CancellationToken) -> Result<BackupResult, MoverError> {
    let base = args.base_manifest.as_ref().map(|text| snapshot("--base-manifest", text)).transpose()?;
    if (args.pass == 0) != base.is_none() {
        let message = "--base-manifest is needed in all passes but the first, and only there";
        return Err(MoverError::terminal(FailureReason::InvalidArguments, message));
    }
    let request = BackupRequest {
        segment_bytes: args.segment_bytes,
        processes: args.transfer.processes.into(),
        keep_table: args.keep_digests || args.pass > 0,
        base,
        patch_bytes: args.patch_bytes,
        images: args.images,
    };
    let key = PassKey { migration: args.migration_uid.clone(), disk: args.disk, pass: args.pass };
    let traffic = args.transfer.traffic(DEFAULT_TRAFFIC.connections);
    let repository = args.repository.repository(key, traffic, args.no_extra_verify)?;
    if let Some(device) = &args.device {
        let named = args.device_id.clone().unwrap_or_else(|| device.display().to_string());
        let origin = origin(&named).map_err(|why| {
            MoverError::terminal(FailureReason::InvalidArguments, format!("--device-id is needed: {why}"))
        })?;
        let source = DeviceSource::open(device, &origin)?;
        return backup::backup(&source, &repository, &request, cancel).await;
    }
    let images = args.repository.images().await?;
    let source = ImageSource::open(images, args.image.as_deref().unwrap_or_default()).await?;
    backup::backup(&source, &repository, &request, cancel).await
}

async fn run_restore(args: RestoreCommand) -> ExitCode {
    let (job_args, secrets) = (args.repository.job.clone(), args.repository.config().secrets());
    let work = async |cancel: CancellationToken| Ok(restore_with(&args, &cancel).await?);
    job(&job_args, secrets, TERM_GRACE, work).await
}

async fn restore_with(
    args: &RestoreCommand,
    cancel: &CancellationToken,
) -> Result<RestoreResult, MoverError> {
    let hash = args.hash_algo.clone().zip(args.hash_value.clone());
    let request = RestoreRequest {
        snapshot: args.snapshot.as_ref().map(|text| snapshot("--snapshot", text)).transpose()?,
        origin: args.origin.clone(),
        bytes: args.bytes,
        sha256: args.sha256.clone(),
        hash: hash.map(|(algorithm, value)| ImageHash { algorithm, value }),
        processes: args.transfer.processes.into(),
        patience: Duration::from_secs(args.patience_seconds),
        resume: args.resume,
        holds: args.holds.as_ref().map(|text| snapshot("--holds", text)).transpose()?,
        target_is_zero: args.target_is_zero,
        verify_disk: args.verify_disk,
    };
    let repository = args.repository.saved_pass(args.disk, args.pass, &args.transfer)?;
    if let Some(path) = &args.device {
        let mut target = DeviceTarget { path: path.clone() };
        return restore::restore(&mut target, &repository, &request, cancel).await;
    }
    let images = args.repository.images().await?;
    let mut target = ImageTarget::open(images, args.image.as_deref().unwrap_or_default()).await?;
    restore::restore(&mut target, &repository, &request, cancel).await
}

async fn run_seal(args: SealCommand) -> ExitCode {
    let repository = &args.repository;
    let work = async |cancel: CancellationToken| {
        let manifest = snapshot("--snapshot", &args.snapshot)?;
        let request = RestoreRequest {
            snapshot: Some(manifest.clone()),
            processes: args.transfer.processes.into(),
            ..Default::default()
        };
        let pass = repository.saved_pass(args.disk, args.pass, &args.transfer)?;
        Ok(seal::seal(&pass, &manifest, &request, &cancel).await?)
    };
    job(&repository.job, repository.config().secrets(), TERM_GRACE, work).await
}

async fn run_purge(args: PurgeArgs) -> ExitCode {
    let repository = &args.repository;
    let work = async |_| {
        let password = repository.config().password()?;
        Ok(purge::purge(&repository.store()?, &args.migration_uid, &password).await?)
    };
    job(&repository.job, repository.config().secrets(), Duration::ZERO, work).await
}

async fn run_check(args: CheckArgs) -> ExitCode {
    let work = async |_| {
        let deadline = Duration::from_secs(args.deadline_seconds);
        check::run(&check::parse(&args.checks)?, deadline, args.job.address_check()).await
    };
    job(&args.job, Vec::new(), Duration::ZERO, work).await
}

/// Output and exit code are the script's. What went wrong besides is in the termination message, too.
async fn run_ssh(args: SshArgs) -> ExitCode {
    let cancel = CancellationToken::new();
    if let Err(error) = listen(&cancel) {
        tracing::warn!(%error, "signals cannot be caught");
    }
    let ended = tokio::select! {
        ended = script(&args) => ended,
        // ssh goes with the work that is dropped.
        () = cancel.cancelled() => return script_failed(&args, MoverError::terminated(), EXIT_SIGTERM),
    };
    let (code, error) = match ended {
        Ok(code) => return ExitCode::from(u8::try_from(code).unwrap_or(EXIT_SSH_FAILED)),
        Err(error @ SshError::TimedOut(_)) => (EXIT_TIMED_OUT, error),
        Err(error @ SshError::Failed(_)) => (EXIT_SSH_FAILED, error),
    };
    script_failed(&args, MoverError::retryable(FailureReason::SshFailed, error.to_string()), code)
}

/// In words, since people read this among the script's own.
fn script_failed(args: &SshArgs, error: MoverError, code: u8) -> ExitCode {
    eprintln!("vmmigration: {error}");
    let outcome: JobOutcome<()> = JobOutcome::Failed(error.into());
    if let Err(error) = std::fs::write(&args.job.termination_log, outcome.to_termination_message()) {
        eprintln!("vmmigration: {}: {error}", args.job.termination_log.display());
    }
    ExitCode::from(code)
}

async fn script(args: &SshArgs) -> Result<i32, SshError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|e| SshError::Failed(format!("{} cannot be read: {e}", path.display())))
    };
    let target = Target {
        user: args.user.clone(),
        host: args.host.clone(),
        port: args.port,
        key_file: args.key_file.clone(),
        host_keys: args.host_key.clone(),
    };
    let text = String::from_utf8(read(&args.script_file)?)
        .map_err(|_| SshError::Failed(format!("{} is no text", args.script_file.display())))?;
    let document = args.context_file.as_ref().map(read).transpose()?.unwrap_or_default();
    let script = Script { text, variables: ssh::variables(), document };
    let limit = Duration::from_secs(args.timeout_seconds);
    ssh::run(&target, &script, Output::Inherited, limit, &args.job.address_check()).await
}

/// Runs the work of a Job and tells how it ended. After SIGTERM the work has `grace` to end by itself.
async fn job<T, F>(
    args: &JobArgs,
    secrets: Vec<String>,
    grace: Duration,
    work: impl FnOnce(CancellationToken) -> F,
) -> ExitCode
where
    T: Clone + Serialize + DeserializeOwned,
    F: Future<Output = Result<T, Failure<T>>>,
{
    let cancel = CancellationToken::new();
    if let Err(error) = listen(&cancel) {
        tracing::warn!(%error, "signals cannot be caught");
    }
    let late = async {
        cancel.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let ended = tokio::select! {
        ended = work(cancel.clone()) => ended,
        () = late => Err(MoverError::terminated().into()),
    };
    report(args, &masked(ended, &secrets))
}

fn listen(cancel: &CancellationToken) -> std::io::Result<()> {
    let mut signals = StopSignals::listen()?;
    let cancel = cancel.clone();
    tokio::spawn(async move {
        signals.recv().await;
        tracing::warn!("stopping on a signal");
        cancel.cancel();
    });
    Ok(())
}

fn masked<T>(ended: Result<T, Failure<T>>, secrets: &[String]) -> JobOutcome<T> {
    match ended {
        Ok(result) => JobOutcome::Ok(result),
        Err(failure) => JobOutcome::Failed(Failure { message: mask(&failure.message, secrets), ..failure }),
    }
}

/// A result that nobody can read is no success.
fn report<T: Clone + Serialize + DeserializeOwned>(args: &JobArgs, outcome: &JobOutcome<T>) -> ExitCode {
    if let JobOutcome::Failed(failure) = outcome {
        tracing::error!(reason = %failure.reason, retryable = failure.retryable, "{}", failure.message);
    }
    match std::fs::write(&args.termination_log, outcome.to_termination_message()) {
        Ok(()) => exit_code(outcome),
        Err(error) => {
            tracing::error!(%error, "the termination message cannot be written");
            ExitCode::from(EXIT_RETRYABLE)
        }
    }
}

fn exit_code<T>(outcome: &JobOutcome<T>) -> ExitCode {
    match outcome {
        JobOutcome::Ok(_) => ExitCode::SUCCESS,
        JobOutcome::Failed(failure) if failure.reason == FailureReason::Terminated => {
            ExitCode::from(EXIT_SIGTERM)
        }
        JobOutcome::Failed(failure) if failure.retryable => ExitCode::from(EXIT_RETRYABLE),
        JobOutcome::Failed(_) => ExitCode::from(EXIT_TERMINAL),
    }
}
