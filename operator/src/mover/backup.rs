//! `mover backup`: one pass over one disk. Segments (or, in later passes, patches of changed blocks) become
//! snapshots, several at once; a manifest says which, and is the pass's result.
//!
//! Killed at any moment, it loses what was under way: the next attempt finds the finished snapshots by their tags and
//! their digests in the last manifest, or reads those segments again to know them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::{
    digest::{Digests, Extra, Hasher},
    error::MoverError,
    pause::pause,
    progress::Meter,
    repository::{Provenance, Repository, Saved},
    source::{Pieces, READ, Source},
};
use crate::{
    contract::{BackupResult, FailureReason, ImageChecks, SnapshotId},
    transfer::{
        BLOCK, Content, FIRST_BYTES, Layout, Manifest, Segment, Table, first_bytes::objection,
        table::is_zero, tags::Kind,
    },
};

/// How often one segment is tried; each has restic's own retries inside.
const ATTEMPTS: u32 = 3;
/// Between two saves of what is known so far: the target learns of digests and zero segments from them.
const JOURNAL: Duration = Duration::from_secs(3);
/// How many manifests are tried to resume from.
const RESUME_TRIES: usize = 3;

/// How to back up.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The length of a segment, when it is not to follow from the disk's.
    pub segment_bytes: Option<u64>,
    /// restic processes at once.
    pub processes: usize,
    /// Keep block digests, because another pass may follow.
    pub keep_table: bool,
    /// The manifest of the pass before; `None` in the first pass.
    pub base: Option<SnapshotId>,
    /// Bytes of one patch.
    pub patch_bytes: u64,
    /// What is known of the image service that the disk enters, if it enters one.
    pub images: Option<ImageChecks>,
}

/// One pass under way.
pub(super) struct Pass<'a, S> {
    pub source: &'a S,
    pub repository: &'a Repository,
    pub request: &'a BackupRequest,
    pub provenance: Provenance,
    pub meter: Meter,
    pub cancel: CancellationToken,
    manifest: Mutex<Manifest>,
    table: Mutex<Table>,
}

/// What earlier attempts of this pass left.
#[derive(Default)]
pub(super) struct Earlier {
    /// Segments that are saved, by number.
    pub segments: BTreeMap<usize, SnapshotId>,
    /// The manifest that knows most.
    pub manifest: Option<(SnapshotId, Manifest)>,
}

/// Makes one pass, or finishes what an earlier attempt began.
pub async fn backup(
    source: &impl Source,
    repository: &Repository,
    request: &BackupRequest,
    cancel: &CancellationToken,
) -> Result<BackupResult, MoverError> {
    let start = Instant::now();
    repository.store.require_place().await?;
    let objection = look(source, repository, request).await?;
    let saved = save(source, repository, request, cancel, start).await?;
    Ok(BackupResult { objection, ..saved })
}

/// The disk's first bytes come before anything else: what the way does not carry is known before it travels. What is
/// against it, where that is not known to hold.
async fn look(
    source: &impl Source,
    repository: &Repository,
    request: &BackupRequest,
) -> Result<Option<String>, MoverError> {
    let Some(checks) = request.images else { return Ok(None) };
    let mut pieces = source.read(0..source.bytes().min(FIRST_BYTES as u64));
    let first = pieces.recv().await.transpose()?.unwrap_or_default();
    let Some(objection) = objection(&first) else { return Ok(None) };
    let message = format!("disk {} begins with {objection}", repository.key.disk);
    if objection.holds(checks) {
        return Err(MoverError::terminal(FailureReason::DiskRefused, message));
    }
    tracing::warn!("{message}");
    Ok(Some(objection.to_string()))
}

async fn save(
    source: &impl Source,
    repository: &Repository,
    request: &BackupRequest,
    cancel: &CancellationToken,
    start: Instant,
) -> Result<BackupResult, MoverError> {
    let base = match &request.base {
        Some(id) => Some((id.clone(), super::warm::base(repository, id, source.bytes(), cancel).await?)),
        None => None,
    };
    let layout = match &base {
        Some((_, base)) => base.layout().map_err(|why| MoverError::terminal(FailureReason::Internal, why))?,
        None => layout(source, request.segment_bytes).await?,
    };
    let provenance = Provenance { layout, origin: source.origin().to_owned() };
    let earlier = earlier(repository, &provenance, cancel).await?;
    if let Some((id, manifest)) = earlier.manifest.as_ref().filter(|(_, manifest)| manifest.complete) {
        tracing::info!(manifest = %id, "an earlier attempt finished this pass");
        return result(id, manifest, manifest.done() - 1, start);
    }
    let mut manifest = Manifest::new(&repository.key, &layout, source.hash());
    manifest.base = base.as_ref().map(|(id, _)| id.clone());
    let pass = Pass {
        source,
        repository,
        request,
        provenance,
        meter: Meter::start(layout.bytes(), &repository.restic.complaints),
        // Its own token: when one part fails, the others stop, too.
        cancel: cancel.child_token(),
        manifest: Mutex::new(manifest),
        table: Mutex::new(Table::for_layout(&layout)),
    };
    let work = async {
        let worked = match &base {
            Some((_, base)) => super::warm::scan(&pass, base, &earlier).await,
            None => pass.segments(&earlier).await,
        };
        pass.cancel.cancel();
        worked
    };
    let (worked, ()) = tokio::join!(work, pass.keep_journal(cancel));
    let reused =
        worked.map_err(|error| if cancel.is_cancelled() { MoverError::terminated() } else { error })?;
    let (id, manifest) = pass.finish(cancel).await?;
    result(&id, &manifest, reused, start)
}

/// A source that cannot be read from the middle is one segment.
async fn layout(source: &impl Source, segment_bytes: Option<u64>) -> Result<Layout, MoverError> {
    let bytes = source.bytes();
    let layout = match segment_bytes {
        Some(segment) => Layout::new(bytes, segment),
        None => Layout::automatic(bytes),
    };
    let invalid = |why| MoverError::terminal(FailureReason::InvalidArguments, why);
    let layout = layout.map_err(invalid)?;
    if layout.segments() > 1 && !source.has_ranges().await? {
        return Layout::new(bytes, bytes).map_err(invalid);
    }
    Ok(layout)
}

async fn earlier(
    repository: &Repository,
    provenance: &Provenance,
    cancel: &CancellationToken,
) -> Result<Earlier, MoverError> {
    let mut earlier = Earlier::default();
    let mut manifests = Vec::new();
    let listing = repository.list(cancel).await?;
    for listed in listing.snapshots {
        // Bytes of another image, or cut otherwise, are of no use.
        if listed.layout != provenance.layout || listed.origin != provenance.origin {
            continue;
        }
        match listed.kind {
            Kind::Segment(index) => drop(earlier.segments.insert(index, listed.id)),
            Kind::Manifest { done } => manifests.push((done, listed.id)),
            Kind::Table | Kind::Patch(_) => {}
        }
    }
    // Of those that know as much, the newest first: an older one may build on what was condemned since.
    manifests.reverse();
    manifests.sort_by_key(|(done, _)| std::cmp::Reverse(*done));
    for (_, id) in manifests.into_iter().take(RESUME_TRIES) {
        match repository.manifest(&id, cancel).await {
            Ok(manifest) => {
                earlier.manifest = Some((id, manifest.without(&listing.condemned)));
                return Ok(earlier);
            }
            Err(error) if cancel.is_cancelled() => return Err(error),
            Err(error) => tracing::warn!(manifest = %id, "not resumed from: {error}"),
        }
    }
    Ok(earlier)
}

fn result(
    id: &SnapshotId,
    manifest: &Manifest,
    reused: u64,
    start: Instant,
) -> Result<BackupResult, MoverError> {
    let root = manifest.root();
    let sha256 =
        root.ok_or_else(|| MoverError::retryable(FailureReason::Internal, "a segment has no digest"))?;
    let layout = manifest.layout().map_err(|why| MoverError::terminal(FailureReason::Internal, why))?;
    let length = |index| {
        let range = layout.range(index);
        range.end - range.start
    };
    let (mut sent, mut skipped) = (0, 0);
    for (index, segment) in manifest.segments.iter().enumerate() {
        match segment.as_ref().map(|segment| &segment.content) {
            Some(Content::Stored(_)) => sent += length(index),
            Some(Content::Zero | Content::Unchanged) => skipped += 1,
            Some(Content::Patched) | None => {}
        }
    }
    let (hash_algo, hash_value) = manifest.hash.clone().map(|hash| (hash.algorithm, hash.value)).unzip();
    Ok(BackupResult {
        snapshot_id: id.to_string(),
        bytes: manifest.bytes,
        sha256,
        hash_algo,
        hash_value,
        segments: manifest.segments.len() as u64,
        skipped_segments: skipped,
        reused,
        changed_bytes: sent + manifest.changed_bytes(),
        stored_bytes: manifest.stored_bytes,
        seconds: start.elapsed().as_secs(),
        objection: None,
    })
}

impl<S: Source> Pass<'_, S> {
    /// What is known so far.
    pub fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts block digests in their place.
    pub fn set_table(&self, first_block: u64, part: &Table) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).set(first_block, part);
    }

    /// Settles all segments of a first pass; returns how many an earlier attempt had sent.
    async fn segments(&self, earlier: &Earlier) -> Result<u64, MoverError> {
        let mut known = vec![None; self.provenance.layout.segments()];
        if let Some((_, manifest)) = &earlier.manifest {
            known.clone_from(&manifest.segments);
            self.manifest().stored_bytes = manifest.stored_bytes;
        }
        // Those of which something is known are dealt with in their turn.
        let mut seen: BTreeSet<usize> =
            (0..known.len()).filter(|n| known[*n].is_some() || earlier.segments.contains_key(n)).collect();
        let mut waiting: BTreeSet<usize> = (0..known.len()).collect();
        let (mut working, mut scouting) = (FuturesUnordered::new(), FuturesUnordered::new());
        let (mut reused, mut failed) = (0, None);
        loop {
            while working.len() < self.request.processes.max(1)
                && failed.is_none()
                && let Some(index) = waiting.pop_first()
            {
                working.push(self.settle(index, known[index].take(), earlier.segments.get(&index)));
            }
            let unseen = waiting.iter().rev().find(|index| !seen.contains(index)).copied();
            if let Some(index) = unseen.filter(|_| scouting.is_empty() && failed.is_none()) {
                waiting.remove(&index);
                scouting.push(self.scout(index));
            }
            tokio::select! {
                Some(settled) = working.next() => match settled {
                    Ok(again) => reused += u64::from(again),
                    Err(error) => {
                        // The others release their locks before this returns.
                        self.cancel.cancel();
                        failed.get_or_insert(error);
                    }
                },
                Some((index, empty)) = scouting.next() => {
                    if !empty {
                        seen.insert(index);
                        waiting.insert(index);
                    }
                }
                else => break,
            }
        }
        failed.map_or(Ok(reused), Err)
    }

    /// Looks at a segment beside those that are sent; settles it if it is empty. Most of most disks is, and a network
    /// that is busy leaves the time to find out. What is wrong with a segment is told by who sends it.
    async fn scout(&self, index: usize) -> (usize, bool) {
        let (mut counted, range) = (0, self.provenance.layout.range(index));
        let looked = async {
            let mut reading = self.reading(range, &mut counted)?;
            if reading.skip_zeros().await?.is_some() {
                return Ok(false);
            }
            let digests = reading.hasher.finish().await?;
            self.manifest().segments[index] = Some(self.settled(index, Content::Zero, digests)?);
            Ok::<_, MoverError>(true)
        };
        let empty = tokio::select! {
            looked = looked => looked.unwrap_or(false),
            () = self.cancel.cancelled() => false,
        };
        if !empty {
            self.meter.sub(counted);
        }
        (index, empty)
    }

    /// Settles one segment, whatever it takes. True when it had been sent before.
    async fn settle(
        &self,
        index: usize,
        known: Option<Segment>,
        saved: Option<&SnapshotId>,
    ) -> Result<bool, MoverError> {
        let range = self.provenance.layout.range(index);
        // What an earlier manifest says is enough, unless block digests are wanted, which it does not hold.
        if let Some(segment) = known
            && !self.request.keep_table
        {
            self.meter.add(range.end - range.start);
            let reused = matches!(segment.content, Content::Stored(_));
            self.manifest().segments[index] = Some(segment);
            return Ok(reused);
        }
        let mut attempt = 1;
        loop {
            if self.cancel.is_cancelled() {
                return Err(MoverError::terminated());
            }
            let mut counted = 0;
            match self.attempt(index, saved, &mut counted).await {
                Ok((segment, stored_bytes)) => {
                    let mut manifest = self.manifest();
                    manifest.segments[index] = Some(segment);
                    manifest.stored_bytes += stored_bytes;
                    return Ok(saved.is_some());
                }
                // A source that fails was tried often enough when its bytes were read.
                Err(error)
                    if error.reason == FailureReason::ResticFailed
                        && attempt < ATTEMPTS
                        && !self.cancel.is_cancelled() =>
                {
                    tracing::warn!(segment = index, attempt, "trying once more: {error}");
                    self.meter.sub(counted);
                    pause(attempt, &self.cancel).await;
                    attempt += 1;
                }
                Err(error) => return Err(error.context(&format!("segment {index}"))),
            }
        }
    }

    async fn attempt(
        &self,
        index: usize,
        saved: Option<&SnapshotId>,
        counted: &mut u64,
    ) -> Result<(Segment, u64), MoverError> {
        let range = self.provenance.layout.range(index);
        let length = range.end - range.start;
        let mut reading = self.reading(range, counted)?;
        let (content, stored_bytes, digests) = if let Some(id) = saved {
            reading.skip_all().await?;
            (Content::Stored(id.clone()), 0, reading.hasher.finish().await?)
        } else if let Some((zeros, first)) = reading.skip_zeros().await? {
            let (saved, digests) = self.send(index, length, zeros, first, reading).await?;
            (Content::Stored(saved.id), saved.stored_bytes, digests)
        } else {
            (Content::Zero, 0, reading.hasher.finish().await?)
        };
        Ok((self.settled(index, content, digests)?, stored_bytes))
    }

    fn reading<'b>(&'b self, range: Range<u64>, counted: &'b mut u64) -> Result<Reading<'b>, MoverError> {
        let hasher = Hasher::start(Extra { table: self.request.keep_table, ..Extra::default() })?;
        Ok(Reading { pieces: self.source.read(range), hasher, meter: &self.meter, counted })
    }

    /// A segment that was read to its end.
    fn settled(&self, index: usize, content: Content, digests: Digests) -> Result<Segment, MoverError> {
        let range = self.provenance.layout.range(index);
        if digests.bytes != range.end - range.start {
            let message = format!("{} of {} bytes were read", digests.bytes, range.end - range.start);
            return Err(MoverError::retryable(FailureReason::ShortRead, message));
        }
        if let Some(table) = &digests.table {
            self.set_table(range.start / BLOCK, table);
        }
        Ok(Segment { sha256: digests.sha256, content })
    }

    /// Sends a segment that begins with `zeros` zeros and goes on with `first`.
    async fn send(
        &self,
        index: usize,
        length: u64,
        zeros: u64,
        first: Bytes,
        mut reading: Reading<'_>,
    ) -> Result<(Saved, Digests), MoverError> {
        let stream = self.repository.stream(Kind::Segment(index), &self.provenance, length)?;
        stream
            .run(&self.cancel, async move |mut out| {
                let nothing = BytesMut::zeroed(READ).freeze();
                let mut left = zeros;
                while left > 0 {
                    let piece = nothing.slice(..nothing.len().min(usize::try_from(left).unwrap_or(READ)));
                    out.write(&piece).await?;
                    left -= piece.len() as u64;
                }
                out.write(&first).await?;
                while let Some(piece) = reading.next().await? {
                    out.write(&piece).await?;
                }
                reading.hasher.finish().await
            })
            .await
    }

    /// Saves what is known now and then, until the work is done.
    async fn keep_journal(&self, cancel: &CancellationToken) {
        let mut saved = 0;
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep(JOURNAL) => {}
            }
            let manifest = self.manifest().clone();
            if manifest.done() == saved {
                continue;
            }
            match self.save_manifest(&manifest, cancel).await {
                Ok(_) => saved = manifest.done(),
                Err(error) => tracing::warn!("the manifest so far was not saved: {error}"),
            }
        }
    }

    async fn finish(self, cancel: &CancellationToken) -> Result<(SnapshotId, Manifest), MoverError> {
        let mut manifest = self.manifest().clone();
        if self.request.keep_table {
            let table = self.table.lock().unwrap_or_else(PoisonError::into_inner).to_bytes();
            let saved = self.repository.save(Kind::Table, &self.provenance, table, cancel).await?;
            manifest.stored_bytes += saved.stored_bytes;
            manifest.table = Some(saved.id);
        }
        manifest.complete = true;
        let saved = self.save_manifest(&manifest, cancel).await?;
        self.meter.finish();
        tracing::info!(manifest = %saved.id, origin = self.provenance.origin, bytes = manifest.bytes, "disk saved");
        Ok((saved.id, manifest))
    }

    async fn save_manifest(
        &self,
        manifest: &Manifest,
        cancel: &CancellationToken,
    ) -> Result<Saved, MoverError> {
        let json = serde_json::to_vec(manifest).map_err(|error| {
            MoverError::retryable(FailureReason::Internal, format!("the manifest: {error}"))
        })?;
        let kind = Kind::Manifest { done: manifest.done() };
        self.repository.save(kind, &self.provenance, json, cancel).await
    }
}

/// A range that is being read: hashed and counted on its way.
struct Reading<'a> {
    pieces: Pieces,
    hasher: Hasher,
    meter: &'a Meter,
    counted: &'a mut u64,
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, MoverError> {
        let Some(piece) = self.pieces.recv().await.transpose()? else { return Ok(None) };
        self.hasher.update(piece.clone()).await?;
        *self.counted += piece.len() as u64;
        self.meter.add(piece.len() as u64);
        Ok(Some(piece))
    }

    async fn skip_all(&mut self) -> Result<(), MoverError> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// How many zeros the range begins with, and what follows them; `None` when nothing does.
    async fn skip_zeros(&mut self) -> Result<Option<(u64, Bytes)>, MoverError> {
        let mut zeros = 0;
        while let Some(piece) = self.next().await? {
            if !is_zero(&piece) {
                return Ok(Some((zeros, piece)));
            }
            zeros += piece.len() as u64;
        }
        Ok(None)
    }
}
