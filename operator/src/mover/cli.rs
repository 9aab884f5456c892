//! The command line of the mover, and what each task is begun with.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::{
    backup::{self, BackupRequest},
    check,
    device_target::DeviceTarget,
    ended::{job, listen},
    error::MoverError,
    feed, guard,
    image_target::ImageTarget,
    init::{self, Owner},
    place::{DEFAULT_TRAFFIC, Place, addresses, processes, traffic},
    probe, purge,
    restore::{self, RestoreRequest},
    seal,
    source::{DeviceSource, ImageSource},
    ssh::{self, Output, Script, SshError, Target},
};
use crate::{
    contract::{
        Backup, BackupResult, Checks, FailureReason, Init, Outcome, Pod, Probe, Purge, Restore,
        RestoreResult, SMALLEST_SEGMENT, Seal, SnapshotId, Ssh, Task, exit, origin,
    },
    transfer::{BLOCK, ImageHash, manifest::MAX_PATCH, tags::PassKey},
};

/// restic gets its time to release the lock, and we some to say so.
const TERM_GRACE: Duration = Duration::from_secs(25);
/// How long a restore waits for the next segment when nothing else is said.
const PATIENCE: Duration = Duration::from_secs(3600);

const _: () = assert!(SMALLEST_SEGMENT == BLOCK, "a segment has at least one block");

/// `vmmigration mover`
#[derive(Debug, Args)]
pub struct MoverArgs {
    #[command(flatten)]
    #[expect(missing_docs)]
    pub pod: Pod,
    /// What to do.
    #[command(subcommand)]
    pub command: MoverCommand,
}

/// What runs inside of a Job.
#[derive(Debug, Subcommand)]
// One value exists, for the whole life of the process.
#[allow(clippy::large_enum_variant)]
pub enum MoverCommand {
    /// What the operator asks for.
    #[command(flatten)]
    Task(Task),
    /// Pass bytes on to restic
    #[command(hide = true)]
    Feed(FeedArgs),
    /// Become a program that dies with its parent
    #[command(hide = true)]
    Guard(GuardArgs),
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

/// A snapshot's full id in an option.
fn snapshot(option: &str, text: &str) -> Result<SnapshotId, MoverError> {
    let refused = |why| MoverError::terminal(FailureReason::InvalidArguments, format!("{option}: {why}"));
    text.parse().map_err(refused)
}

/// Runs one subcommand to its end.
pub async fn run(MoverArgs { pod, command }: MoverArgs) -> ExitCode {
    let task = match command {
        MoverCommand::Guard(args) => return run_guard(&args),
        MoverCommand::Feed(args) => return run_feed(&args),
        MoverCommand::Task(task) => task,
    };
    init_logging();
    match task {
        Task::Probe(task) => run_probe(&pod, task).await,
        Task::Init(task) => run_init(&pod, task).await,
        Task::Backup(task) => run_backup(&pod, task).await,
        Task::Restore(task) => run_restore(&pod, task).await,
        Task::Seal(task) => run_seal(&pod, task).await,
        Task::Purge(task) => run_purge(&pod, task).await,
        Task::Check(task) => run_check(&pod, task).await,
        Task::Ssh(task) => run_ssh(&pod, task).await,
    }
}

fn run_guard(args: &GuardArgs) -> ExitCode {
    let error = guard::exec(args.parent, &args.command);
    eprintln!("{}: {error}", args.command.first().map(|name| name.to_string_lossy()).unwrap_or_default());
    ExitCode::from(exit::TERMINAL)
}

fn run_feed(args: &FeedArgs) -> ExitCode {
    match feed::feed(&args.from, args.bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("feed: {error}");
            ExitCode::from(exit::RETRYABLE)
        }
    }
}

/// JSON lines on stderr; stdout is for progress. A logger that is there already stays.
fn init_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "warn,vmmigration=info".into());
    let _ = tracing_subscriber::fmt().json().with_writer(std::io::stderr).with_env_filter(filter).try_init();
}

async fn run_probe(pod: &Pod, task: Probe) -> ExitCode {
    let place = Place { pod, repository: &task.repository };
    let work = async |_| Ok(probe::probe(&place.store()?, place.images()).await?);
    place.job(Duration::ZERO, work).await
}

async fn run_init(pod: &Pod, task: Init) -> ExitCode {
    let place = Place { pod, repository: &task.repository };
    let work = async |cancel: CancellationToken| {
        let (store, restic) = (place.store()?, place.restic(DEFAULT_TRAFFIC)?);
        let password = place.config().password()?;
        let owner = Owner { uid: &task.migration_uid, object: &task.object, password: &password };
        Ok(init::init(&store, &restic, &owner, &cancel).await?)
    };
    place.job(TERM_GRACE, work).await
}

async fn run_backup(pod: &Pod, task: Backup) -> ExitCode {
    let place = Place { pod, repository: &task.repository };
    let work = async |cancel: CancellationToken| Ok(backup_with(&place, &task, &cancel).await?);
    place.job(TERM_GRACE, work).await
}

async fn backup_with(
    place: &Place<'_>,
    task: &Backup,
    cancel: &CancellationToken,
) -> Result<BackupResult, MoverError> {
    let pass = task.pass.unwrap_or(0);
    let base = task.base_manifest.as_ref().map(|text| snapshot("--base-manifest", text)).transpose()?;
    if (pass == 0) != base.is_none() {
        let message = "--base-manifest is needed in all passes but the first, and only there";
        return Err(MoverError::terminal(FailureReason::InvalidArguments, message));
    }
    let request = BackupRequest {
        segment_bytes: task.segment_bytes,
        processes: processes(&task.transfer).into(),
        keep_table: task.keep_digests || pass > 0,
        base,
        patch_bytes: task.patch_bytes.unwrap_or(MAX_PATCH),
        images: task.images,
    };
    let key = PassKey { migration: task.migration_uid.clone(), disk: task.disk, pass };
    let traffic = traffic(&task.transfer, DEFAULT_TRAFFIC.connections);
    let repository = place.repository(key, traffic, task.no_extra_verify)?;
    if let Some(device) = &task.device {
        let named = task.device_id.clone().unwrap_or_else(|| device.display().to_string());
        let origin = origin(&named).map_err(|why| {
            MoverError::terminal(FailureReason::InvalidArguments, format!("--device-id is needed: {why}"))
        })?;
        let source = DeviceSource::open(device, &origin)?;
        return backup::backup(&source, &repository, &request, cancel).await;
    }
    let images = place.images().await?;
    let source = ImageSource::open(images, task.image.as_deref().unwrap_or_default()).await?;
    backup::backup(&source, &repository, &request, cancel).await
}

async fn run_restore(pod: &Pod, task: Restore) -> ExitCode {
    let place = Place { pod, repository: &task.repository };
    let work = async |cancel: CancellationToken| Ok(restore_with(&place, &task, &cancel).await?);
    place.job(TERM_GRACE, work).await
}

async fn restore_with(
    place: &Place<'_>,
    task: &Restore,
    cancel: &CancellationToken,
) -> Result<RestoreResult, MoverError> {
    let hash = task.hash_algo.clone().zip(task.hash_value.clone());
    let request = RestoreRequest {
        snapshot: task.snapshot.as_ref().map(|text| snapshot("--snapshot", text)).transpose()?,
        origin: task.origin.clone(),
        bytes: task.bytes,
        sha256: task.sha256.clone(),
        hash: hash.map(|(algorithm, value)| ImageHash { algorithm, value }),
        processes: processes(&task.transfer).into(),
        patience: task.patience_seconds.map_or(PATIENCE, Duration::from_secs),
        resume: task.resume,
        holds: task.holds.as_ref().map(|text| snapshot("--holds", text)).transpose()?,
        target_is_zero: task.target_is_zero,
        verify_disk: task.verify_disk,
    };
    let repository = place.saved_pass(task.disk, task.pass, &task.transfer)?;
    if let Some(path) = &task.device {
        let mut target = DeviceTarget { path: path.clone() };
        return restore::restore(&mut target, &repository, &request, cancel).await;
    }
    let images = place.images().await?;
    let mut target = ImageTarget::open(images, task.image.as_deref().unwrap_or_default()).await?;
    restore::restore(&mut target, &repository, &request, cancel).await
}

async fn run_seal(pod: &Pod, task: Seal) -> ExitCode {
    let place = Place { pod, repository: &task.repository };
    let work = async |cancel: CancellationToken| {
        let manifest = snapshot("--snapshot", &task.snapshot)?;
        let request = RestoreRequest {
            snapshot: Some(manifest.clone()),
            processes: processes(&task.transfer).into(),
            ..Default::default()
        };
        let pass = place.saved_pass(task.disk, task.pass, &task.transfer)?;
        Ok(seal::seal(&pass, &manifest, &request, &cancel).await?)
    };
    place.job(TERM_GRACE, work).await
}

async fn run_purge(pod: &Pod, task: Purge) -> ExitCode {
    let place = Place { pod, repository: &task.repository };
    let work = async |_| {
        let password = place.config().password()?;
        Ok(purge::purge(&place.store()?, &task.migration_uid, &password).await?)
    };
    place.job(Duration::ZERO, work).await
}

async fn run_check(pod: &Pod, task: Checks) -> ExitCode {
    let work = async |_| {
        let deadline = Duration::from_secs(task.deadline_seconds);
        check::run(&check::read(&task)?, deadline, addresses(pod)).await
    };
    job(&pod.termination_log, Vec::new(), Duration::ZERO, work).await
}

/// Output and exit code are the script's. What went wrong besides is in the termination message, too.
async fn run_ssh(pod: &Pod, task: Ssh) -> ExitCode {
    let cancel = CancellationToken::new();
    if let Err(error) = listen(&cancel) {
        tracing::warn!(%error, "signals cannot be caught");
    }
    let ended = tokio::select! {
        ended = script(pod, &task) => ended,
        // ssh goes with the work that is dropped.
        () = cancel.cancelled() => return script_failed(pod, MoverError::terminated(), exit::TERMINATED),
    };
    let (code, error) = match ended {
        Ok(code) => return ExitCode::from(u8::try_from(code).unwrap_or(exit::SSH_FAILED)),
        Err(error @ SshError::TimedOut(_)) => (exit::TIMED_OUT, error),
        Err(error @ SshError::Failed(_)) => (exit::SSH_FAILED, error),
    };
    script_failed(pod, MoverError::retryable(FailureReason::SshFailed, error.to_string()), code)
}

/// In words, since people read this among the script's own.
fn script_failed(pod: &Pod, error: MoverError, code: u8) -> ExitCode {
    eprintln!("vmmigration: {error}");
    let outcome: Outcome<()> = Outcome::Failed(error.into());
    if let Err(error) = std::fs::write(&pod.termination_log, outcome.to_termination_message()) {
        eprintln!("vmmigration: {}: {error}", pod.termination_log.display());
    }
    ExitCode::from(code)
}

async fn script(pod: &Pod, task: &Ssh) -> Result<i32, SshError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|e| SshError::Failed(format!("{} cannot be read: {e}", path.display())))
    };
    let target = Target {
        user: task.user.clone(),
        host: task.host.clone(),
        port: task.port,
        key_file: task.key_file.clone(),
        host_keys: task.host_key.clone(),
    };
    let text = String::from_utf8(read(&task.script_file)?)
        .map_err(|_| SshError::Failed(format!("{} is no text", task.script_file.display())))?;
    let document = task.context_file.as_ref().map(read).transpose()?.unwrap_or_default();
    let script = Script { text, variables: ssh::variables(), document };
    let limit = Duration::from_secs(task.timeout_seconds);
    ssh::run(&target, &script, Output::Inherited, limit, &addresses(pod)).await
}
