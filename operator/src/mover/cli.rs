//! The command line of the mover, and how a Job ends: termination message, exit code, SIGTERM.

use std::{ffi::OsString, future::Future, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde::{Serialize, de::DeserializeOwned};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    backup::{self, BackupRequest},
    check,
    config::{self, ConfigDir, mask},
    error::MoverError,
    feed::{self, Expected},
    glance, guard, init, probe, purge,
    restore::{self, RestoreRequest},
    result::{Failure, FailureReason, JobOutcome},
    ssh::{self, Output, Script, SshError, Target},
};
use crate::{
    openstack::{Cloud, EndpointPolicy},
    restic::{Restic, SnapshotId, program_from_environment},
    store::{AddressCheck, ObjectStoreLocation, Store, StoreOptions, address_check},
};

/// restic gets its time to release the lock, and we some to say so.
const TERM_GRACE: Duration = Duration::from_secs(25);
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
    /// Save one image as a snapshot
    Backup(BackupCommand),
    /// Write one snapshot into a queued image
    Restore(RestoreCommand),
    /// Delete one migration's repository
    Purge(PurgeArgs),
    /// Poll checks until they pass or time is up
    Check(CheckArgs),
    /// Run a script in a guest over SSH; ends with the script's exit code, 255 without one, 124 when time is up
    Ssh(SshArgs),
    /// Stream an image to restic
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
    /// s3:https://host[:port]/bucket/prefix/<namespace>/<uid>
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

/// `mover backup`
#[derive(Debug, Args)]
pub struct BackupCommand {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub repository: RepositoryArgs,
    /// The image to save
    #[arg(long)]
    pub image: String,
    /// Number of the disk
    #[arg(long)]
    pub disk: u32,
    /// The migration's uid
    #[arg(long)]
    pub migration_uid: String,
    /// Skip restic's second look at what it saves; the digests cover it
    #[arg(long)]
    pub no_extra_verify: bool,
}

/// `mover restore`
#[derive(Debug, Args)]
pub struct RestoreCommand {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub repository: RepositoryArgs,
    /// The snapshot's full id
    #[arg(long)]
    pub snapshot: String,
    /// Number of the disk
    #[arg(long)]
    pub disk: u32,
    /// The image to write; it must be queued
    #[arg(long)]
    pub image: String,
    /// Bytes, as read in the source cloud
    #[arg(long)]
    pub bytes: u64,
    /// SHA-256, as read in the source cloud
    #[arg(long)]
    pub sha256: String,
    /// Algorithm of the source image's hash
    #[arg(long, requires = "hash_value")]
    pub hash_algo: Option<String>,
    /// The source image's hash
    #[arg(long, requires = "hash_algo")]
    pub hash_value: Option<String>,
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
    /// The mounted Secret
    #[arg(long)]
    pub config_dir: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs)]
    pub job: JobArgs,
    /// The image
    #[arg(long)]
    pub image: String,
    /// Its size
    #[arg(long)]
    pub bytes: u64,
    /// Algorithm of its hash
    #[arg(long, requires = "hash_value")]
    pub hash_algo: Option<String>,
    /// Its hash
    #[arg(long, requires = "hash_algo")]
    pub hash_value: Option<String>,
    /// Where the parent looks for the proof
    #[arg(long)]
    pub result_file: PathBuf,
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
        Ok(Store::new(&self.location()?, &config.store_keys()?, &options)?)
    }

    fn restic(&self) -> Result<Restic, MoverError> {
        let config = self.config();
        config.required(config::RESTIC_PASSWORD)?;
        Ok(Restic {
            program: program_from_environment(),
            repository: self.location()?.to_string(),
            guard: Some(self_exe()?),
            password_file: config.path().join(config::RESTIC_PASSWORD),
            keys: Some(config.store_keys()?),
            cacert: config.existing_path(config::STORE_CACERT),
            scratch: self.scratch_dir.clone(),
        })
    }

    async fn images(&self) -> Result<Cloud, MoverError> {
        glance::connect(&self.config(), &self.job).await
    }

    /// Our own command line up to the options that differ from disk to disk.
    fn feed_command(&self) -> Result<Vec<OsString>, MoverError> {
        let mut line =
            vec![self_exe()?.into_os_string(), "mover".into(), "feed".into(), "--config-dir".into()];
        line.push(self.config_dir.clone().into_os_string());
        for cidr in &self.job.denied_cidr {
            line.extend(["--denied-cidr".into(), OsString::from(cidr.to_string())]);
        }
        if self.job.allow_loopback {
            line.push("--allow-loopback".into());
        }
        Ok(line)
    }
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
    init_logging();
    match command {
        MoverCommand::Probe(args) => run_probe(args).await,
        MoverCommand::Init(args) => run_init(args).await,
        MoverCommand::Backup(args) => run_backup(args).await,
        MoverCommand::Restore(args) => run_restore(args).await,
        MoverCommand::Purge(args) => run_purge(args).await,
        MoverCommand::Check(args) => run_check(args).await,
        MoverCommand::Ssh(args) => run_ssh(args).await,
        MoverCommand::Feed(args) => run_feed(args).await,
        MoverCommand::Guard(_) => ExitCode::from(EXIT_TERMINAL),
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
        let (store, restic) = (repository.store()?, repository.restic()?);
        Ok(init::init(&store, &restic, &args.migration_uid, &args.object, &cancel).await?)
    };
    job(&repository.job, repository.config().secrets(), TERM_GRACE, work).await
}

async fn run_backup(args: BackupCommand) -> ExitCode {
    let repository = &args.repository;
    let work = async |cancel: CancellationToken| {
        let request = BackupRequest {
            image: args.image.clone(),
            disk: args.disk,
            uid: args.migration_uid.clone(),
            no_extra_verify: args.no_extra_verify,
            feed_command: repository.feed_command()?,
            scratch: repository.scratch_dir.clone(),
        };
        let restic = repository.restic()?;
        Ok(backup::backup(&repository.images().await?, &restic, &request, &cancel).await?)
    };
    job(&repository.job, repository.config().secrets(), TERM_GRACE, work).await
}

async fn run_restore(args: RestoreCommand) -> ExitCode {
    let repository = &args.repository;
    let work = async |cancel: CancellationToken| {
        let refused =
            |why| MoverError::terminal(FailureReason::InvalidArguments, format!("--snapshot: {why}"));
        let snapshot: SnapshotId = args.snapshot.parse().map_err(refused)?;
        let request = RestoreRequest {
            snapshot,
            disk: args.disk,
            image: args.image.clone(),
            bytes: args.bytes,
            sha256: args.sha256.clone(),
            hash: args.hash_algo.clone().zip(args.hash_value.clone()),
        };
        let restic = repository.restic()?;
        Ok(restore::restore(&repository.images().await?, &restic, &request, &cancel).await?)
    };
    job(&repository.job, repository.config().secrets(), TERM_GRACE, work).await
}

async fn run_purge(args: PurgeArgs) -> ExitCode {
    let repository = &args.repository;
    let work = async |_| Ok(purge::purge(&repository.store()?, &args.migration_uid).await?);
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

/// The feed has no termination message: its parent reads the files beside the result.
async fn run_feed(args: FeedArgs) -> ExitCode {
    let config = ConfigDir::new(&args.config_dir);
    let work = async {
        let images = glance::connect(&config, &args.job).await?;
        let hash = args.hash_algo.clone().zip(args.hash_value.clone());
        let expected = Expected { image: args.image.clone(), bytes: args.bytes, hash };
        let stdout = feed::raw_stdout()
            .map_err(|error| MoverError::terminal(FailureReason::Internal, format!("stdout: {error}")))?;
        feed::feed(&images, &expected, stdout).await
    };
    let outcome = tokio::select! {
        ended = work => masked(ended.map_err(Failure::from), &config.secrets()),
        () = guard::orphaned() => return ExitCode::from(EXIT_RETRYABLE),
    };
    match feed::write_outcome(&args.result_file, &outcome) {
        Ok(()) => exit_code(&outcome),
        Err(error) => {
            tracing::error!(%error, "the feed's result cannot be written");
            ExitCode::from(EXIT_RETRYABLE)
        }
    }
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
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
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
