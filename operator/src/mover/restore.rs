//! `mover restore`: the segments of a pass become a disk again, from the first one that is there on.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncReadExt, process::ChildStdout, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    block_file::aligned,
    catalog::{Catalog, Watcher},
    error::MoverError,
    progress::Meter,
    repository::Repository,
    source::READ,
};
use crate::{
    contract::{FailureReason, RestoreResult, SnapshotId},
    transfer::{ImageHash, Manifest, tags::Kind},
};

/// How often one segment is tried; each has restic's own retries inside.
pub(super) const ATTEMPTS: u32 = 3;

/// What to restore, and what it must turn out to be.
#[derive(Debug, Clone, Default)]
pub struct RestoreRequest {
    /// The manifest of a pass that has ended; `None` to take segments while they arrive.
    pub snapshot: Option<SnapshotId>,
    /// The image or volume whose segments are taken while they arrive; `None`: that of the newest.
    pub origin: Option<String>,
    /// Bytes as read in the source cloud, if already known.
    pub bytes: Option<u64>,
    /// Digest over all segments' digests as read in the source cloud, if already known.
    pub sha256: Option<String>,
    /// The source image's hash.
    pub hash: Option<ImageHash>,
    /// restic processes at once.
    pub processes: usize,
    /// For how long nothing new may arrive.
    pub patience: Duration,
    /// The device may hold segments of an earlier attempt: compare before fetching.
    pub resume: bool,
    /// The manifest of the pass that the device holds already.
    pub holds: Option<SnapshotId>,
    /// The device is known to read as zeros where nothing was written.
    pub target_is_zero: bool,
    /// After a later pass: read the whole device, and compare. A first pass reads back all that it writes, anyway.
    pub verify_disk: bool,
}

/// A disk to be filled.
pub(super) trait Target {
    /// Takes everything that the catalog names, until the pass is complete and proven; returns the whole's hash
    /// where the target has one.
    async fn fill(
        &mut self,
        restoring: &Restoring<'_>,
        catalog: watch::Receiver<Catalog>,
    ) -> Result<Option<ImageHash>, MoverError>;
}

/// What all parts of one restore share.
pub(super) struct Restoring<'a> {
    pub repository: &'a Repository,
    pub request: &'a RestoreRequest,
    pub meter: &'a Meter,
    pub cancel: CancellationToken,
}

/// Fills a target. It is whole and right when this succeeds.
pub(super) async fn restore(
    target: &mut impl Target,
    repository: &Repository,
    request: &RestoreRequest,
    cancel: &CancellationToken,
) -> Result<RestoreResult, MoverError> {
    let start = Instant::now();
    repository.store.require_place().await?;
    let (watcher, first) = match &request.snapshot {
        Some(id) => {
            let manifest = repository.manifest(id, cancel).await?;
            check_manifest(repository, request, id, &manifest)?;
            (None, Catalog::complete(id.clone(), manifest)?)
        }
        None => {
            let (watcher, first) = Watcher::begin(repository, request, cancel).await?;
            (Some(watcher), first)
        }
    };
    check_bytes(request, first.layout.bytes())?;
    let meter = Meter::start(first.layout.bytes(), &repository.restic.complaints);
    // Its own token: when one side fails, the other stops, too.
    let restoring = Restoring { repository, request, meter: &meter, cancel: cancel.child_token() };
    let (sender, receiver) = watch::channel(first);
    let mut last = receiver.clone();
    let watching = async {
        let watched = match watcher {
            Some(watcher) => watcher.run(sender, &restoring.cancel).await,
            None => {
                drop(sender);
                Ok(())
            }
        };
        if watched.is_err() {
            restoring.cancel.cancel();
        }
        watched
    };
    let filling = async {
        let filled = target.fill(&restoring, receiver).await;
        if filled.is_err() {
            restoring.cancel.cancel();
        }
        filled
    };
    let (watched, filled) = tokio::join!(watching, filling);
    let hash = judge(watched, filled, cancel)?;
    let catalog = last.borrow_and_update().clone();
    let result = result(&restoring, &catalog, hash, start)?;
    meter.finish();
    Ok(result)
}

/// The side that failed first is the cause; the other was only stopped.
fn judge(
    watched: Result<(), MoverError>,
    filled: Result<Option<ImageHash>, MoverError>,
    cancel: &CancellationToken,
) -> Result<Option<ImageHash>, MoverError> {
    if cancel.is_cancelled() && (watched.is_err() || filled.is_err()) {
        return Err(MoverError::terminated());
    }
    match (watched, filled) {
        (Ok(()), filled) => filled,
        (Err(error), Err(other)) if error.reason == FailureReason::Terminated => Err(other),
        (Err(error), _) => Err(error),
    }
}

fn result(
    restoring: &Restoring<'_>,
    catalog: &Catalog,
    hash: Option<ImageHash>,
    start: Instant,
) -> Result<RestoreResult, MoverError> {
    let root = catalog.manifest.as_ref().and_then(Manifest::root);
    let sha256 =
        root.ok_or_else(|| MoverError::retryable(FailureReason::Internal, "a segment has no digest"))?;
    tracing::info!(disk = restoring.repository.key.disk, bytes = catalog.layout.bytes(), "disk restored");
    let (hash_algo, hash_value) = hash.map(|hash| (hash.algorithm, hash.value)).unzip();
    let seconds = start.elapsed().as_secs();
    let snapshot_id = catalog.manifest_id.as_ref().map(ToString::to_string).unwrap_or_default();
    Ok(RestoreResult { snapshot_id, bytes: catalog.layout.bytes(), sha256, hash_algo, hash_value, seconds })
}

fn check_manifest(
    repository: &Repository,
    request: &RestoreRequest,
    id: &SnapshotId,
    manifest: &Manifest,
) -> Result<(), MoverError> {
    if !manifest.complete || manifest.pass != repository.key.pass {
        let message = format!(
            "--snapshot {id}: this is the manifest of pass {} ({}), not of pass {} that was asked for",
            manifest.pass,
            if manifest.complete { "complete" } else { "not complete" },
            repository.key.pass
        );
        return Err(MoverError::terminal(FailureReason::InvalidArguments, message));
    }
    check_end(request, manifest)
}

fn check_bytes(request: &RestoreRequest, bytes: u64) -> Result<(), MoverError> {
    match request.bytes {
        Some(recorded) if recorded != bytes => {
            Err(mismatch("length", &bytes.to_string(), &recorded.to_string()))
        }
        _ => Ok(()),
    }
}

/// What can be compared as soon as a pass is complete.
pub(super) fn check_end(request: &RestoreRequest, manifest: &Manifest) -> Result<(), MoverError> {
    check_bytes(request, manifest.bytes)?;
    let root = manifest.root().unwrap_or_default();
    if let Some(recorded) = &request.sha256
        && !root.eq_ignore_ascii_case(recorded)
    {
        return Err(mismatch("SHA-256", &root, recorded));
    }
    match (&request.hash, &manifest.hash) {
        (Some(recorded), Some(hash))
            if hash.algorithm == recorded.algorithm && !hash.value.eq_ignore_ascii_case(&recorded.value) =>
        {
            Err(mismatch(&hash.algorithm, &hash.value, &recorded.value))
        }
        _ => Ok(()),
    }
}

fn mismatch(what: &str, got: &str, recorded: &str) -> MoverError {
    let message = format!(
        "the disk's {what} is {got} in the repository, recorded in the source cloud was {recorded}; nothing of it is used"
    );
    MoverError::terminal(FailureReason::DigestMismatch, message)
}

/// A part of a disk as the repository must give it back.
pub(super) struct Suspect {
    /// The pass that saved it.
    pub pass: u32,
    /// Which part.
    pub kind: Kind,
    /// Where it lies.
    pub snapshot: SnapshotId,
    /// What was read in the source.
    pub sha256: String,
}

impl Suspect {
    fn name(&self, disk: u32) -> String {
        match self.kind {
            Kind::Segment(index) => format!("segment {index} of disk {disk}"),
            Kind::Patch(index) => format!("patch {index} of pass {} of disk {disk}", self.pass),
            Kind::Manifest { .. } | Kind::Table => format!("{} of disk {disk}", self.kind.file()),
        }
    }
}

impl Restoring<'_> {
    /// Waits until the catalog knows what `find` looks for; `None` when it is complete and does not.
    pub async fn wait_for<T>(
        &self,
        catalog: &mut watch::Receiver<Catalog>,
        find: impl Fn(&Catalog) -> Option<T>,
    ) -> Result<Option<T>, MoverError> {
        loop {
            {
                let known = catalog.borrow_and_update();
                let found = find(&known);
                if found.is_some() || known.is_complete() {
                    return Ok(found);
                }
            }
            self.changed(catalog).await?;
        }
    }

    /// The passes that one builds on, the oldest first: from the first one on, or only those after the one that is held.
    pub async fn passes_before(
        &self,
        manifest: &Manifest,
        held: Option<&SnapshotId>,
    ) -> Result<VecDeque<(SnapshotId, Manifest)>, MoverError> {
        let (mut all, mut next) = (VecDeque::new(), (manifest.pass, manifest.base.clone()));
        while let (pass, Some(id)) = next {
            if held == Some(&id) {
                break;
            }
            let before = self.repository.manifest(&id, &self.cancel).await?;
            if before.pass + 1 != pass || before.bytes != manifest.bytes || !before.complete {
                let message = format!("manifest {id} is not of the pass before pass {pass}");
                return Err(MoverError::terminal(FailureReason::DigestMismatch, message));
            }
            next = (before.pass, before.base.clone());
            all.push_front((id, before));
        }
        Ok(all)
    }

    /// Bytes came out of the repository that are not those of the source. They are fetched again, for their digest
    /// only; what is wrong then, too, is condemned, so that the next attempt of the backup sends it again.
    pub async fn accuse(&self, suspects: Vec<Suspect>) -> MoverError {
        for suspect in suspects {
            match self.is_wrong(&suspect).await {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return error,
            }
        }
        let message = format!(
            "disk {}: bytes came out of the repository wrongly, but rightly when fetched again; start the Job again",
            self.repository.key.disk
        );
        MoverError::retryable(FailureReason::DigestMismatch, message)
    }

    async fn is_wrong(&self, suspect: &Suspect) -> Result<Option<MoverError>, MoverError> {
        let Suspect { pass, kind, snapshot, sha256 } = suspect;
        let name = suspect.name(self.repository.key.disk);
        let got = self.digest(snapshot, *kind).await.map_err(|error| error.context(&name))?;
        if got == *sha256 {
            return Ok(None);
        }
        let message = format!(
            "{name}: its SHA-256 is {got} in snapshot {snapshot}, also when fetched again; {sha256} was read in the \
             source cloud. It is not used; the next backup of the disk sends it again"
        );
        tracing::warn!("{message}");
        self.repository.at_pass(*pass).condemn(snapshot, &message, &self.cancel).await?;
        Ok(Some(MoverError::terminal(FailureReason::WrongSegment, message)))
    }

    /// Fetches a snapshot for nothing but its digest.
    async fn digest(&self, id: &SnapshotId, kind: Kind) -> Result<String, MoverError> {
        let (child, mut stdout) = self.repository.dump(id, kind)?;
        let read = async {
            let mut sha256 = Sha256::new();
            loop {
                let piece = next_piece(&mut stdout, READ as u64).await?;
                if piece.is_empty() {
                    return Ok::<_, MoverError>(hex::encode(sha256.finalize()));
                }
                sha256.update(&piece);
            }
        };
        let (finished, read) = tokio::join!(child.wait(&self.cancel), read);
        finished?.into_result()?;
        read
    }

    /// Waits for news.
    pub async fn changed(&self, catalog: &mut watch::Receiver<Catalog>) -> Result<(), MoverError> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(MoverError::terminated()),
            // The watcher ended without a complete pass: its own error is the cause.
            changed = catalog.changed() => changed.map_err(|_| MoverError::terminated()),
        }
    }

    /// The complete manifest, once it is there and agrees with what was asked for.
    pub async fn complete(&self, catalog: &mut watch::Receiver<Catalog>) -> Result<Manifest, MoverError> {
        let whole = |known: &Catalog| known.manifest.clone().filter(|manifest| manifest.complete);
        let manifest = self.wait_for(catalog, whole).await?.ok_or_else(MoverError::terminated)?;
        check_end(self.request, &manifest)?;
        Ok(manifest)
    }
}

/// Reads the next piece of a dump into an aligned buffer; an empty one is the end.
pub(super) async fn next_piece(stdout: &mut ChildStdout, limit: u64) -> Result<BytesMut, MoverError> {
    let size = usize::try_from(limit).unwrap_or(READ).min(READ);
    let mut buffer = aligned(size);
    let mut length = 0;
    while length < size {
        let read = stdout.read(&mut buffer[length..size]).await.map_err(|error| {
            MoverError::retryable(
                FailureReason::ResticFailed,
                format!("reading restic's output failed: {error}"),
            )
        })?;
        if read == 0 {
            break;
        }
        length += read;
    }
    buffer.truncate(length);
    Ok(buffer)
}

/// Whether a dump has really ended.
pub(super) async fn expect_end(stdout: &mut ChildStdout) -> Result<(), MoverError> {
    if next_piece(stdout, 1).await?.is_empty() {
        return Ok(());
    }
    let message = "the snapshot holds more bytes than it should";
    Err(MoverError::terminal(FailureReason::DigestMismatch, message))
}

/// A dump ended early.
pub(super) fn short_dump(got: u64, wanted: u64) -> MoverError {
    let message = format!("{got} of {wanted} bytes came out of the repository");
    MoverError::retryable(FailureReason::ShortRead, message)
}

/// Zeros to send.
pub(super) fn zeros(limit: u64) -> Bytes {
    BytesMut::zeroed(usize::try_from(limit).unwrap_or(READ).min(READ)).freeze()
}
