//! A block device that is filled: segments in any order, several at once, each read back; later passes as patches.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use bytes::BytesMut;
use crc32fast::Hasher as Crc32;
use futures::{StreamExt, TryStreamExt, stream, stream::FuturesUnordered};
use tokio::{
    process::ChildStdout,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    block_file::BlockFile,
    catalog::Catalog,
    digest::{Extra, Sums},
    error::MoverError,
    pause::pause,
    restore::{ATTEMPTS, RestoreRequest, Restoring, Suspect, Target, expect_end, next_piece, short_dump},
    source::READ,
};
use crate::{
    contract::{FailureReason, SnapshotId},
    transfer::{BLOCK, Content, ImageHash, Layout, Manifest, Patch, table::is_zero, tags::Kind},
};

/// How many pieces may wait for the device.
const QUEUE: usize = 4;

/// A device to be filled.
pub struct DeviceTarget {
    /// Where it is.
    pub path: PathBuf,
}

impl Target for DeviceTarget {
    async fn fill(
        &mut self,
        restoring: &Restoring<'_>,
        mut catalog: watch::Receiver<Catalog>,
    ) -> Result<Option<ImageHash>, MoverError> {
        let layout = catalog.borrow().layout;
        let device = Arc::new(BlockFile::open_for_writing(&self.path, layout.bytes())?);
        let filling = Filling { device: &device, restoring, layout };
        let held = restoring.request.holds.as_ref();
        let later = filling.passes(&mut catalog, held).await?;
        // Of a first pass every segment was read back from the device: that is all of it.
        let Some(manifest) = later.filter(|_| restoring.request.verify_disk) else { return Ok(None) };
        match filling.verify(&manifest).await {
            Err(error) if held.is_some() && error.reason == FailureReason::DigestMismatch => {
                tracing::warn!(
                    "the device did not hold what it was said to, beginning with the first pass: {error}"
                );
                restoring.meter.sub(layout.bytes());
                filling.passes(&mut catalog, None).await?;
                filling.verify(&manifest).await?;
            }
            verified => verified?,
        }
        tracing::info!(device = device.name(), flushes = device.flushes(), "the device holds the pass");
        Ok(None)
    }
}

struct Filling<'a> {
    device: &'a Arc<BlockFile>,
    restoring: &'a Restoring<'a>,
    layout: Layout,
}

impl Filling<'_> {
    /// Brings the device to the pass that is restored, from what it holds: the passes after that one, in their order.
    /// To be broken off amid them harms nothing, as long as the next attempt begins with the same.
    async fn passes(
        &self,
        catalog: &mut watch::Receiver<Catalog>,
        held: Option<&SnapshotId>,
    ) -> Result<Option<Manifest>, MoverError> {
        let RestoreRequest { processes, resume, holds, target_is_zero, .. } = self.restoring.request.clone();
        for (id, manifest) in self.before(catalog, held).await? {
            let request = RestoreRequest {
                processes,
                resume: resume || holds.is_some(),
                target_is_zero,
                ..Default::default()
            };
            let repository = self.restoring.repository.at_pass(manifest.pass);
            let restoring = Restoring {
                repository: &repository,
                request: &request,
                meter: self.restoring.meter,
                cancel: self.restoring.cancel.clone(),
            };
            let filling = Filling { device: self.device, restoring: &restoring, layout: self.layout };
            filling.pass(&mut watch::channel(Catalog::complete(id, manifest)?).1).await?;
            // Each pass counts all of the disk.
            self.restoring.meter.sub(self.layout.bytes());
        }
        self.pass(catalog).await
    }

    /// The passes before the one that is restored, as far as the device does not hold them.
    async fn before(
        &self,
        catalog: &mut watch::Receiver<Catalog>,
        held: Option<&SnapshotId>,
    ) -> Result<VecDeque<(SnapshotId, Manifest)>, MoverError> {
        if self.restoring.repository.key.pass == 0 {
            return Ok(VecDeque::new());
        }
        // While the pass is made its manifest grows; what it builds on is in the first one.
        let any = self.restoring.wait_for(catalog, |known| known.manifest.clone()).await?;
        self.restoring.passes_before(&any.ok_or_else(MoverError::terminated)?, held).await
    }

    /// One pass; the manifest of a later one.
    async fn pass(&self, catalog: &mut watch::Receiver<Catalog>) -> Result<Option<Manifest>, MoverError> {
        match self.restoring.repository.key.pass {
            0 => self.segments(catalog).await.map(|()| None),
            _ => self.patches(catalog).await.map(Some),
        }
    }

    /// Fills all segments of a first pass, as they become known.
    async fn segments(&self, catalog: &mut watch::Receiver<Catalog>) -> Result<(), MoverError> {
        let mut settled = BTreeMap::new();
        let mut waiting: Vec<usize> = (0..self.layout.segments()).collect();
        let mut running = FuturesUnordered::new();
        // Zeros are written beside the dumps: they need no network.
        let (mut dumping, mut zeroing) = (0, None);
        while !waiting.is_empty() || !running.is_empty() {
            let room = |index: &usize| match catalog.borrow().content(*index) {
                None => false,
                Some(Content::Zero) => zeroing.is_none(),
                Some(_) => dumping < self.restoring.request.processes.max(1),
            };
            if let Some(index) = waiting.iter().copied().find(room) {
                waiting.retain(|other| *other != index);
                match catalog.borrow().content(index) {
                    Some(Content::Zero) => zeroing = Some(index),
                    _ => dumping += 1,
                }
                running.push(self.segment(index, catalog.clone()));
                continue;
            }
            let unknown = waiting.iter().any(|index| catalog.borrow().content(*index).is_none());
            tokio::select! {
                Some(ended) = running.next(), if !running.is_empty() => {
                    let (index, sha256) = ended?;
                    settled.insert(index, sha256);
                    if zeroing.take_if(|zeroed| *zeroed == index).is_none() {
                        dumping -= 1;
                    }
                }
                changed = self.restoring.changed(catalog), if unknown => changed?,
            }
        }
        drop(running);
        let manifest = self.restoring.complete(catalog).await?;
        self.prove(&manifest, settled, catalog).await
    }

    /// Compares what was written before its digest was known; what differs is fetched once more.
    async fn prove(
        &self,
        manifest: &Manifest,
        settled: BTreeMap<usize, String>,
        catalog: &watch::Receiver<Catalog>,
    ) -> Result<(), MoverError> {
        for (index, segment) in manifest.segments.iter().enumerate() {
            let recorded = segment.as_ref().map(|segment| segment.sha256.as_str()).unwrap_or_default();
            if settled.get(&index).map(String::as_str) != Some(recorded) {
                tracing::warn!(
                    segment = index,
                    "it differs from what was read in the source, fetching it again"
                );
                let range = self.layout.range(index);
                self.restoring.meter.sub(range.end - range.start);
                self.segment(index, catalog.clone()).await?;
            }
        }
        Ok(())
    }

    /// Fills one segment; returns what the device then holds.
    async fn segment(
        &self,
        index: usize,
        catalog: watch::Receiver<Catalog>,
    ) -> Result<(usize, String), MoverError> {
        let range = self.layout.range(index);
        let recorded = || catalog.borrow().sha256(index).map(str::to_owned);
        if self.restoring.request.resume
            && recorded().is_some()
            && self.read_back(&range).await.ok() == recorded()
        {
            self.restoring.meter.add(range.end - range.start);
            return Ok((index, recorded().unwrap_or_default()));
        }
        let mut attempt = 1;
        loop {
            let content = catalog.borrow().content(index);
            let error = match self.receive(content.clone(), &range).await {
                Ok(sha256) => match recorded() {
                    Some(recorded) if recorded != sha256 => {
                        // Another manifest may name another snapshot by now.
                        let named =
                            catalog.borrow().content(index).filter(|named| Some(named) == content.as_ref());
                        self.differs(index, named, &sha256, recorded).await
                    }
                    _ => {
                        self.restoring.meter.add(range.end - range.start);
                        return Ok((index, sha256));
                    }
                },
                Err(error) => error.context(&format!("segment {index}")),
            };
            if !error.retryable || attempt >= ATTEMPTS || self.restoring.cancel.is_cancelled() {
                return Err(error);
            }
            tracing::warn!(attempt, "trying once more: {error}");
            pause(attempt, &self.restoring.cancel).await;
            attempt += 1;
        }
    }

    /// A segment that is not what was read in the source; `named` is where it should have been.
    async fn differs(&self, index: usize, named: Option<Content>, got: &str, recorded: String) -> MoverError {
        if let Some(Content::Stored(snapshot)) = named {
            let pass = self.restoring.repository.key.pass;
            let suspect = Suspect { pass, kind: Kind::Segment(index), snapshot, sha256: recorded };
            return self.restoring.accuse(vec![suspect]).await;
        }
        MoverError::retryable(FailureReason::DigestMismatch, self.held(index, got, &recorded))
    }

    fn held(&self, index: usize, got: &str, recorded: &str) -> String {
        let (device, disk) = (self.device.name(), self.restoring.repository.key.disk);
        format!(
            "segment {index} of disk {disk}: {device} holds SHA-256 {got}, {recorded} was read in the source cloud"
        )
    }

    async fn receive(&self, content: Option<Content>, range: &Range<u64>) -> Result<String, MoverError> {
        match content {
            Some(Content::Stored(id)) => self.dump(&id, Kind::Segment(0), vec![range.clone()]).await,
            Some(Content::Zero) => {
                let (device, range) = (Arc::clone(self.device), range.clone());
                let zeroed = range.clone();
                let skip = self.restoring.request.target_is_zero;
                blocking(move || if skip { Ok(()) } else { device.zero(zeroed) }).await?;
                self.read_back(&range).await
            }
            _ => Err(MoverError::retryable(FailureReason::Internal, "nothing is known of it")),
        }
    }

    /// Writes a snapshot's bytes to some ranges; returns the digest of what the device then gives back, which is
    /// that of what came out of the repository.
    async fn dump(&self, id: &SnapshotId, kind: Kind, ranges: Vec<Range<u64>>) -> Result<String, MoverError> {
        let (child, mut stdout) = self.restoring.repository.dump(id, kind)?;
        let stop = self.restoring.cancel.child_token();
        let (pieces, queue) = mpsc::channel(QUEUE);
        let skip_zeros = self.restoring.request.target_is_zero && self.restoring.repository.key.pass == 0;
        let device = Arc::clone(self.device);
        let writer: JoinHandle<Result<u32, MoverError>> =
            tokio::task::spawn_blocking(move || write_all(&device, queue, skip_zeros));
        let pump = async {
            let pumped = pump(&mut stdout, ranges.clone(), pieces).await;
            // A restic whose output has ended is about to say why.
            if pumped.as_ref().is_err_and(|error| error.reason != FailureReason::ShortRead) {
                stop.cancel();
            }
            pumped
        };
        let (finished, pumped, written) = tokio::join!(child.wait(&stop), pump, writer);
        let written = written.map_err(|error| internal(&error))??;
        match (pumped, finished?.into_result()) {
            (Err(error), _) if error.reason != FailureReason::ShortRead => return Err(error),
            (_, Err(error)) => {
                return Err(MoverError::from(error).context(&format!("dump of snapshot {id}")));
            }
            (pumped, Ok(())) => pumped?,
        }
        let device = Arc::clone(self.device);
        let (sha256, back) = blocking(move || {
            let mut crc = Crc32::new();
            let sha256 = read_back(&device, ranges, |piece| crc.update(piece))?;
            Ok((sha256, crc.finalize()))
        })
        .await?;
        if back == written {
            return Ok(sha256);
        }
        let message = format!("{}: other bytes came back than were written", self.device.name());
        Err(MoverError::retryable(FailureReason::DeviceError, message))
    }

    async fn read_back(&self, range: &Range<u64>) -> Result<String, MoverError> {
        let (device, ranges) = (Arc::clone(self.device), vec![range.clone()]);
        blocking(move || read_back(&device, ranges, |_| {})).await
    }

    /// Applies the patches of a later pass, as they become known.
    async fn patches(&self, catalog: &mut watch::Receiver<Catalog>) -> Result<Manifest, MoverError> {
        let mut applied = Vec::new();
        loop {
            let (patches, complete) = {
                let known = catalog.borrow_and_update();
                let patches = known.manifest.as_ref().map(|manifest| manifest.patches.clone());
                (patches.unwrap_or_default(), known.is_complete())
            };
            let new: Vec<(usize, Patch)> = patches
                .into_iter()
                .enumerate()
                .filter(|(_, patch)| !applied.contains(&patch.snapshot))
                .collect();
            for (_, patch) in &new {
                applied.push(patch.snapshot.clone());
            }
            let works = new.into_iter().map(|(number, patch)| self.patch(number, patch));
            stream::iter(works)
                .buffer_unordered(self.restoring.request.processes.max(1))
                .try_collect::<Vec<()>>()
                .await?;
            if complete {
                break;
            }
            self.restoring.changed(catalog).await?;
        }
        let manifest = self.restoring.complete(catalog).await?;
        let zeroed: Vec<_> = manifest.zeroed.iter().map(|run| self.layout.block_range(run)).collect();
        let device = Arc::clone(self.device);
        blocking(move || {
            zeroed.iter().try_for_each(|range| device.zero(range.clone()))?;
            if zeroed.is_empty() { Ok(()) } else { device.settle(&zeroed) }
        })
        .await?;
        // What did not change is settled since the pass before.
        self.restoring.meter.add(manifest.bytes.saturating_sub(patched_bytes(&manifest)));
        Ok(manifest)
    }

    async fn patch(&self, number: usize, patch: Patch) -> Result<(), MoverError> {
        let ranges: Vec<_> = patch.blocks.iter().map(|run| self.layout.block_range(run)).collect();
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let mut attempt = 1;
        loop {
            let error = match self.dump(&patch.snapshot, Kind::Patch(0), ranges.clone()).await {
                Ok(sha256) if sha256 == patch.sha256 => {
                    self.restoring.meter.add(bytes);
                    return Ok(());
                }
                Ok(sha256) => {
                    tracing::warn!(patch = number, sha256, "it differs from what was read in the source");
                    let (pass, kind) = (self.restoring.repository.key.pass, Kind::Patch(number));
                    let (snapshot, sha256) = (patch.snapshot.clone(), patch.sha256.clone());
                    self.restoring.accuse(vec![Suspect { pass, kind, snapshot, sha256 }]).await
                }
                Err(error) => error.context(&format!("patch {number}")),
            };
            if !error.retryable || attempt >= ATTEMPTS || self.restoring.cancel.is_cancelled() {
                return Err(error);
            }
            tracing::warn!(attempt, "trying once more: {error}");
            pause(attempt, &self.restoring.cancel).await;
            attempt += 1;
        }
    }

    /// Reads the whole device and compares it with what was read in the source cloud.
    async fn verify(&self, manifest: &Manifest) -> Result<(), MoverError> {
        let works = manifest.segments.iter().enumerate().map(async |(index, segment)| {
            let recorded = segment.as_ref().map(|segment| segment.sha256.as_str()).unwrap_or_default();
            let got = self.read_back(&self.layout.range(index)).await?;
            if got == recorded {
                return Ok(());
            }
            let message = self.held(index, &got, recorded);
            Err(MoverError::terminal(FailureReason::DigestMismatch, message))
        });
        stream::iter(works)
            .buffer_unordered(self.restoring.request.processes.max(1))
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }
}

fn patched_bytes(manifest: &Manifest) -> u64 {
    manifest.patches.iter().map(|patch| patch.blocks.count() * BLOCK).sum()
}

/// Cuts a dump into pieces with their places.
async fn pump(
    stdout: &mut ChildStdout,
    ranges: Vec<Range<u64>>,
    pieces: mpsc::Sender<(u64, BytesMut)>,
) -> Result<(), MoverError> {
    let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let mut got = 0;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let piece = next_piece(stdout, range.end - at).await?;
            if piece.is_empty() {
                return Err(short_dump(got, wanted));
            }
            let length = piece.len() as u64;
            // A writer that has ended knows why.
            if pieces.send((at, piece)).await.is_err() {
                return Err(MoverError::terminated());
            }
            at += length;
            got += length;
        }
    }
    expect_end(stdout).await
}

/// SHA-256 of what the device gives back; each piece of it is shown to `look`.
fn read_back(
    device: &BlockFile,
    ranges: Vec<Range<u64>>,
    mut look: impl FnMut(&[u8]),
) -> Result<String, MoverError> {
    let mut sums = Sums::new(Extra::default());
    device.settle(&ranges)?;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + READ as u64);
            let piece = device.read(&(at..end))?;
            look(&piece);
            sums.add(&piece);
            at = end;
        }
    }
    Ok(sums.finish().sha256)
}

/// Writes pieces until there are no more; returns their checksum. It only tells a device that loses bytes from a store
/// that does: what is right is judged by SHA-256 of what comes back, and hashing is most of what a mover computes.
fn write_all(
    device: &BlockFile,
    mut queue: mpsc::Receiver<(u64, BytesMut)>,
    skip_zeros: bool,
) -> Result<u32, MoverError> {
    let mut crc = Crc32::new();
    while let Some((at, piece)) = queue.blocking_recv() {
        crc.update(&piece);
        write_piece(device, at, &piece, skip_zeros)?;
    }
    Ok(crc.finalize())
}

/// Writes what is not zero, in runs as long as they come, and zeros the rest.
fn write_piece(device: &BlockFile, start: u64, piece: &[u8], skip_zeros: bool) -> Result<(), MoverError> {
    let block = usize::try_from(BLOCK).unwrap_or(usize::MAX);
    let mut from = 0;
    while from < piece.len() {
        let kind = is_zero(&piece[from..piece.len().min(from + block)]);
        let mut to = from;
        while to < piece.len() && is_zero(&piece[to..piece.len().min(to + block)]) == kind {
            to = piece.len().min(to + block);
        }
        let at = start + from as u64;
        match kind {
            true if skip_zeros => {}
            true => device.zero(at..start + to as u64)?,
            false => device.write(at, &piece[from..to])?,
        }
        from = to;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MoverError> + Send + 'static,
) -> Result<T, MoverError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| internal(&error))?
}

fn internal(error: &tokio::task::JoinError) -> MoverError {
    MoverError::retryable(FailureReason::Internal, format!("a thread of ours broke off: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_of_many_runs_is_read_back_after_one_flush() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let content: Vec<u8> = (0..64 * BLOCK).map(|at| u8::try_from(at / BLOCK).unwrap()).collect();
        std::fs::write(&path, &content).unwrap();
        let device = BlockFile::open(&path).unwrap();
        let runs = (0..32).map(|run| 2 * run * BLOCK..(2 * run + 1) * BLOCK).collect();
        let mut back = Vec::new();
        read_back(&device, runs, |piece| back.extend_from_slice(piece)).unwrap();
        let even = |(at, _): &(usize, &u8)| (*at as u64 / BLOCK).is_multiple_of(2);
        assert!(back.iter().eq(content.iter().enumerate().filter(even).map(|(_, byte)| byte)));
        assert_eq!(device.flushes(), 1);
    }
}
