//! One pass of one disk in the repository: its snapshots are listed, saved and read through restic here.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use rustix::fs::{CWD, Mode, mkfifoat};
use tokio::{
    io::AsyncWriteExt,
    net::unix::pipe::{OpenOptions, Sender},
    process::ChildStdout,
};
use tokio_util::sync::CancellationToken;

use super::{error::MoverError, source::READ};
use crate::{
    contract::{FailureReason, SnapshotId},
    restic::{BackupArgs, BackupSummary, Child, Line, Restic, ResticError},
    store::Store,
    transfer::{
        Layout, Manifest, Table,
        tags::{Kind, Listing, PassKey, parse_listing, parse_proven},
    },
};

/// A listing, a manifest or a table is never larger.
const MAX_OUTPUT: u64 = 1 << 30;

/// Saves and finds the snapshots of one pass of one disk.
pub struct Repository {
    /// How restic is run.
    pub restic: Restic,
    /// Where the repository lies.
    pub store: Store,
    /// Which pass of which disk.
    pub key: PassKey,
    /// Our own binary.
    pub own_program: PathBuf,
    /// Skip restic's second look at what it saves.
    pub no_extra_verify: bool,
    /// Tells files in the scratch directory apart.
    pub counter: AtomicU64,
}

/// What a snapshot is of, besides the pass.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// How the disk is cut.
    pub layout: Layout,
    /// The image or volume that is read.
    pub origin: String,
}

/// A snapshot that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its full id.
    pub id: SnapshotId,
    /// What it added to the repository.
    pub stored_bytes: u64,
}

impl Repository {
    /// The same repository, another pass.
    #[must_use]
    pub fn at_pass(&self, pass: u32) -> Self {
        Self {
            restic: self.restic.clone(),
            store: self.store.clone(),
            key: PassKey { pass, ..self.key.clone() },
            own_program: self.own_program.clone(),
            no_extra_verify: self.no_extra_verify,
            counter: AtomicU64::new(self.counter.load(Ordering::Relaxed)),
        }
    }

    /// All snapshots of this pass.
    pub async fn list(&self, cancel: &CancellationToken) -> Result<Listing, MoverError> {
        let mut command = self.restic.snapshots(&self.key.filter());
        let (finished, output) =
            Child::spawn(&mut command, &self.restic.complaints)?.run_output(cancel, MAX_OUTPUT).await?;
        finished.into_result()?;
        parse_listing(&output, &self.key)
            .map_err(|why| MoverError::retryable(FailureReason::ResticFailed, why))
    }

    /// Starts to dump a snapshot's file.
    pub fn dump(&self, id: &SnapshotId, kind: Kind) -> Result<(Child, ChildStdout), MoverError> {
        let mut child = Child::spawn(&mut self.restic.dump(id, kind.file()), &self.restic.complaints)?;
        let stdout = child.take_stdout()?;
        // Only speed depends on it.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, READ);
        Ok((child, stdout))
    }

    /// Reads a manifest.
    pub async fn manifest(
        &self,
        id: &SnapshotId,
        cancel: &CancellationToken,
    ) -> Result<Manifest, MoverError> {
        let bytes = self.read(id, Kind::Manifest { done: 0 }, cancel).await?;
        let manifest = Manifest::parse(&bytes).map_err(|why| unusable(id, "manifest", &why))?;
        let found = (&manifest.migration, manifest.disk);
        if found != (&self.key.migration, self.key.disk) {
            return Err(unusable(id, "manifest", &format!("it is of disk {} of {}", found.1, found.0)));
        }
        Ok(manifest)
    }

    /// Reads a table.
    pub async fn table(
        &self,
        id: &SnapshotId,
        layout: &Layout,
        cancel: &CancellationToken,
    ) -> Result<Table, MoverError> {
        let bytes = self.read(id, Kind::Table, cancel).await?;
        Table::from_bytes(&bytes, layout).map_err(|why| unusable(id, "table", &why))
    }

    async fn read(
        &self,
        id: &SnapshotId,
        kind: Kind,
        cancel: &CancellationToken,
    ) -> Result<Vec<u8>, MoverError> {
        let child = Child::spawn(&mut self.restic.dump(id, kind.file()), &self.restic.complaints)?;
        let (finished, output) = child.run_output(cancel, MAX_OUTPUT).await?;
        let named = |error: ResticError| {
            MoverError::from(error).context(&format!("{} of snapshot {id}", kind.file()))
        };
        finished.into_result().map_err(named)?;
        Ok(output)
    }

    /// Saves bytes that are small enough to lie in memory.
    pub async fn save(
        &self,
        kind: Kind,
        provenance: &Provenance,
        bytes: Vec<u8>,
        cancel: &CancellationToken,
    ) -> Result<Saved, MoverError> {
        let scratch = Scratch::new(self.scratch_path(kind.file()));
        tokio::fs::write(&scratch.0, &bytes).await.map_err(|error| scratch.failed(&error))?;
        self.save_file(kind, provenance, &scratch, bytes.len() as u64, cancel).await
    }

    /// Saves a file of the scratch directory.
    pub async fn save_file(
        &self,
        kind: Kind,
        provenance: &Provenance,
        file: &Scratch,
        bytes: u64,
        cancel: &CancellationToken,
    ) -> Result<Saved, MoverError> {
        let tags = self.key.tags(kind, &provenance.layout, &provenance.origin);
        let child = self.start(kind.file(), tags, &file.0, bytes)?;
        self.ended(child, kind.file(), bytes, cancel).await
    }

    /// What a backup has saved. A snapshot that does not hold what was sent is condemned: whoever lists the pass would
    /// find it by its tags, each time anew.
    async fn ended(
        &self,
        child: Child,
        file: &str,
        bytes: u64,
        cancel: &CancellationToken,
    ) -> Result<Saved, MoverError> {
        let unused = match finish(child, file, bytes, cancel).await {
            Ok(saved) => return Ok(saved),
            Err(unused) => unused,
        };
        if let Some(id) = &unused.id
            && let Err(error) = self.condemn(id, &unused.error.message, cancel).await
        {
            tracing::warn!(snapshot = %id, %error, "a snapshot that is not used could not be condemned");
        }
        Err(unused.error)
    }

    /// Notes that a snapshot of this pass holds other bytes than were read in the source: the next attempt of the
    /// backup sends that part again, and nobody takes it from there any more.
    pub async fn condemn(
        &self,
        id: &SnapshotId,
        why: &str,
        cancel: &CancellationToken,
    ) -> Result<(), MoverError> {
        self.note("condemned", self.key.condemn_tags(id), why, cancel).await
    }

    /// Notes that a snapshot holds the whole disk as a manifest describes it, digest by digest.
    pub async fn note_proven(
        &self,
        manifest: &SnapshotId,
        whole: &SnapshotId,
        cancel: &CancellationToken,
    ) -> Result<(), MoverError> {
        let what =
            format!("snapshot {whole} holds the disk of manifest {manifest}; all digests were compared");
        self.note("proven", self.key.proven_tags(manifest, whole), &what, cancel).await
    }

    /// Saves a note about another snapshot: programs read its tags.
    async fn note(
        &self,
        file: &str,
        tags: String,
        text: &str,
        cancel: &CancellationToken,
    ) -> Result<(), MoverError> {
        let scratch = Scratch::new(self.scratch_path(file));
        tokio::fs::write(&scratch.0, text).await.map_err(|error| scratch.failed(&error))?;
        let child = self.start(file, tags, &scratch.0, text.len() as u64)?;
        finish(child, file, text.len() as u64, cancel).await.map(drop).map_err(|unused| unused.error)
    }

    /// Starts to save a stream of a known length.
    pub fn stream(&self, kind: Kind, provenance: &Provenance, bytes: u64) -> Result<Stream<'_>, MoverError> {
        self.stream_as(kind.file(), self.key.tags(kind, &provenance.layout, &provenance.origin), bytes)
    }

    /// Starts to save the whole disk as it is after a pass.
    pub fn stream_whole(&self, manifest: &SnapshotId, bytes: u64) -> Result<Stream<'_>, MoverError> {
        self.stream_as(&self.whole_file(), self.key.whole_tags(manifest), bytes)
    }

    /// The newest snapshot of the whole disk that is noted as proven, if there is one.
    pub async fn find_whole(
        &self,
        manifest: &SnapshotId,
        cancel: &CancellationToken,
    ) -> Result<Option<SnapshotId>, MoverError> {
        let mut command = self.restic.snapshots(&self.key.of_tags(manifest));
        let (finished, output) =
            Child::spawn(&mut command, &self.restic.complaints)?.run_output(cancel, MAX_OUTPUT).await?;
        finished.into_result()?;
        parse_proven(&output).map_err(|why| MoverError::retryable(FailureReason::ResticFailed, why))
    }

    /// The name of the only file in a snapshot of the whole disk.
    pub fn whole_file(&self) -> String {
        format!("disk-{}.raw", self.key.disk)
    }

    fn stream_as(&self, file: &str, tags: String, bytes: u64) -> Result<Stream<'_>, MoverError> {
        let scratch = Scratch::new(self.scratch_path(file));
        mkfifoat(CWD, &scratch.0, Mode::RUSR | Mode::WUSR).map_err(|error| scratch.failed(&error.into()))?;
        // Open for reading, too: so it needs nobody at the other end yet.
        let pipe = OpenOptions::new()
            .read_write(true)
            .open_sender(&scratch.0)
            .map_err(|error| scratch.failed(&error))?;
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, READ);
        let child = self.start(file, tags, &scratch.0, bytes)?;
        Ok(Stream { repository: self, child, pipe, file: file.to_owned(), bytes, _scratch: scratch })
    }

    fn start(&self, file: &str, tags: String, from: &Path, bytes: u64) -> Result<Child, MoverError> {
        let mut feed = vec![self.own_program.clone().into_os_string(), "mover".into(), "feed".into()];
        feed.extend(["--from".into(), from.as_os_str().to_owned()]);
        feed.extend(["--bytes".into(), OsString::from(bytes.to_string())]);
        let args = BackupArgs {
            file: file.to_owned(),
            host: self.key.migration.clone(),
            tags,
            no_extra_verify: self.no_extra_verify,
            feed,
        };
        Ok(Child::spawn(&mut self.restic.backup(&args), &self.restic.complaints)?)
    }

    /// A path in the scratch directory that nobody used yet.
    pub fn scratch_path(&self, file: &str) -> PathBuf {
        let n = self.counter.fetch_add(1, Ordering::Relaxed);
        let name = format!("disk-{}.pass-{}.{n}.{file}", self.key.disk, self.key.pass);
        self.restic.scratch.join(name)
    }
}

/// Why what restic saved is not used.
struct Unused {
    error: MoverError,
    /// The snapshot, where there is one all the same.
    id: Option<SnapshotId>,
}

impl From<MoverError> for Unused {
    fn from(error: MoverError) -> Self {
        Self { error, id: None }
    }
}

impl From<ResticError> for Unused {
    fn from(error: ResticError) -> Self {
        MoverError::from(error).into()
    }
}

async fn finish(child: Child, file: &str, bytes: u64, cancel: &CancellationToken) -> Result<Saved, Unused> {
    let mut summary = None;
    let on_line = |line: &str| {
        if let Line::Summary(found) = Line::parse(line) {
            summary = Some(found);
        }
    };
    child.run_lines(cancel, on_line).await?.into_result()?;
    saved(summary, file, bytes)
}

fn saved(summary: Option<BackupSummary>, file: &str, bytes: u64) -> Result<Saved, Unused> {
    let failed = |why: String| {
        let message = format!("{file}: {why}; the snapshot is not used");
        MoverError::retryable(FailureReason::ResticFailed, message)
    };
    let summary = summary.ok_or_else(|| failed("restic ended without a summary of its backup".to_owned()))?;
    let id: SnapshotId = summary.snapshot_id.parse().map_err(failed)?;
    if summary.total_bytes_processed != bytes {
        let why = format!("{bytes} bytes were sent, restic saved {}", summary.total_bytes_processed);
        return Err(Unused { error: failed(why), id: Some(id) });
    }
    Ok(Saved { id, stored_bytes: summary.data_added_packed })
}

fn unusable(id: &SnapshotId, what: &str, why: &str) -> MoverError {
    MoverError::terminal(
        FailureReason::DigestMismatch,
        format!("snapshot {id} holds no usable {what}: {why}"),
    )
}

/// A stream on its way into a snapshot.
pub struct Stream<'a> {
    repository: &'a Repository,
    child: Child,
    pipe: Sender,
    file: String,
    bytes: u64,
    _scratch: Scratch,
}

/// The end of a [`Stream`] that bytes are written to.
pub struct StreamWriter<'a>(&'a mut Sender);

impl StreamWriter<'_> {
    /// Hands over the next bytes.
    pub async fn write(&mut self, bytes: &Bytes) -> Result<(), MoverError> {
        self.0.write_all(bytes).await.map_err(|error| {
            MoverError::retryable(FailureReason::ResticFailed, format!("restic takes no more bytes: {error}"))
        })
    }
}

impl Stream<'_> {
    /// Writes all bytes and waits for the snapshot. When `write` fails, restic is stopped before it could take what
    /// it has for the whole; when restic ends, nobody waits for `write` any more.
    pub async fn run<T>(
        self,
        cancel: &CancellationToken,
        write: impl AsyncFnOnce(StreamWriter<'_>) -> Result<T, MoverError>,
    ) -> Result<(Saved, T), MoverError> {
        let Self { repository, child, mut pipe, file, bytes, _scratch } = self;
        let stop = cancel.child_token();
        let ended = CancellationToken::new();
        let restic = async {
            let finished = repository.ended(child, &file, bytes, &stop).await;
            if finished.is_err() {
                ended.cancel();
            }
            finished
        };
        let writing = async {
            let written = tokio::select! {
                written = write(StreamWriter(&mut pipe)) => Some(written),
                () = ended.cancelled() => None,
            };
            if matches!(written, Some(Err(_))) {
                stop.cancel();
            }
            written
        };
        // The pipe stays open until restic has ended: its reader may not have opened it yet.
        let (saved, written) = tokio::join!(restic, writing);
        drop(pipe);
        match (saved, written) {
            (_, Some(Err(error))) if !cancel.is_cancelled() => Err(error),
            (Ok(saved), Some(Ok(written))) => Ok((saved, written)),
            (Err(error), _) => Err(error),
            (Ok(_), _) => {
                let message = "restic ended before all bytes were written; the snapshot is not used";
                Err(MoverError::retryable(FailureReason::ResticFailed, message))
            }
        }
    }
}

/// A file of the scratch directory that is removed with this.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// Nothing is made yet; what an earlier process left there is removed.
    pub fn new(path: PathBuf) -> Self {
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    /// The scratch directory is full, or not writable.
    pub fn failed(&self, error: &std::io::Error) -> MoverError {
        let message = format!("scratch file {}: {error}", self.0.display());
        MoverError::retryable(FailureReason::InvalidConfiguration, message)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
