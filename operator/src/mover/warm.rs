//! A later pass over a disk: all of it is read again, only blocks that differ from the pass before are sent.

use std::{collections::HashMap, fs::File, io::Write, pin::Pin};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{
    backup::{Earlier, Pass},
    digest::{Extra, Sums},
    error::MoverError,
    repository::{Repository, Scratch},
    source::Source,
};
use crate::{
    contract::{FailureReason, SnapshotId},
    transfer::{
        BLOCK, Content, Manifest, Patch, Runs, Segment, Table, manifest::MAX_PATCH, table::is_zero,
        tags::Kind,
    },
};

/// The longest first patch.
const FIRST_PATCH: u64 = 16 << 20;

/// The manifest that a pass builds on: complete, of the pass before, of the same disk.
pub(super) async fn base(
    repository: &Repository,
    id: &SnapshotId,
    bytes: u64,
    cancel: &CancellationToken,
) -> Result<Manifest, MoverError> {
    let manifest = repository.manifest(id, cancel).await?;
    let wrong = if Some(manifest.pass) != repository.key.pass.checked_sub(1) {
        format!("it is of pass {}, which pass {} does not follow", manifest.pass, repository.key.pass)
    } else if !manifest.complete || manifest.table.is_none() {
        "it is not complete, or was made without block digests (--keep-digests)".to_owned()
    } else if manifest.bytes != bytes {
        format!("its disk has {} bytes, this one {bytes}", manifest.bytes)
    } else {
        return Ok(manifest);
    };
    let message = format!("--base-manifest {id}: {wrong}");
    Err(MoverError::terminal(FailureReason::InvalidArguments, message))
}

/// Reads the disk once from start to end and sends what changed, in patches whose blocks ascend.
pub(super) async fn scan<S: Source>(
    pass: &Pass<'_, S>,
    base: &Manifest,
    earlier: &Earlier,
) -> Result<u64, MoverError> {
    let layout = pass.provenance.layout;
    let id = base.table.as_ref().ok_or_else(|| internal("the pass before has no block digests"))?;
    let before = pass.repository.table(id, &layout, &pass.cancel).await?;
    let mut scan = Scan {
        pass,
        before,
        spool: None,
        uploads: FuturesUnordered::new(),
        sent: earlier.manifest.iter().flat_map(|(_, manifest)| &manifest.patches).map(key).collect(),
        patches: Vec::new(),
        cut: 0,
        reused: 0,
    };
    let scanned = scan.disk(base).await;
    if scanned.is_err() {
        pass.cancel.cancel();
    }
    // Those that still run end, and release their locks, before this returns.
    let drained = scan.drain(0).await;
    scanned.and(drained)?;
    scan.publish();
    Ok(scan.reused)
}

fn key(patch: &Patch) -> ((String, Runs), SnapshotId) {
    ((patch.sha256.clone(), patch.blocks.clone()), patch.snapshot.clone())
}

type Upload<'a> = Pin<Box<dyn Future<Output = Result<(usize, Patch, u64), MoverError>> + 'a>>;

struct Scan<'a, 'p, S> {
    pass: &'a Pass<'p, S>,
    before: Table,
    spool: Option<Spool>,
    uploads: FuturesUnordered<Upload<'a>>,
    /// Patches that an earlier attempt sent.
    sent: HashMap<(String, Runs), SnapshotId>,
    /// By number; those under way are missing.
    patches: Vec<Option<Patch>>,
    /// Bytes of all patches so far.
    cut: u64,
    reused: u64,
}

impl<S: Source> Scan<'_, '_, S> {
    async fn disk(&mut self, base: &Manifest) -> Result<(), MoverError> {
        for (index, old) in base.segments.iter().enumerate() {
            let (sha256, changed) = self.segment(index).await?;
            let content = if changed { Content::Patched } else { Content::Unchanged };
            let old = old.as_ref().map(|old| old.sha256.as_str());
            if !changed && old != Some(sha256.as_str()) {
                let message = format!("segment {index}: its block digests are equal, its SHA-256 is not");
                return Err(internal(&message));
            }
            self.pass.manifest().segments[index] = Some(Segment { sha256, content });
        }
        self.close_spool().await
    }

    async fn segment(&mut self, index: usize) -> Result<(String, bool), MoverError> {
        let range = self.pass.provenance.layout.range(index);
        let mut pieces = self.pass.source.read(range.clone());
        let (mut sums, mut table, mut at, mut changed) =
            (Sums::new(Extra::default()), Table::default(), range.start, false);
        while let Some(piece) = pieces.recv().await.transpose()? {
            sums.add(&piece);
            table.add(&piece);
            for block in piece.chunks(usize::try_from(BLOCK).unwrap_or(usize::MAX)) {
                let number = at / BLOCK;
                if table.get(number - range.start / BLOCK) != self.before.get(number) {
                    changed = true;
                    self.changed(number, block).await?;
                }
                at += block.len() as u64;
            }
            self.pass.meter.add(piece.len() as u64);
            self.collect()?;
            if self.pass.cancel.is_cancelled() {
                return Err(MoverError::terminated());
            }
        }
        if at != range.end {
            let message = format!("segment {index}: {} of {} bytes were read", at - range.start, range.end);
            return Err(MoverError::retryable(FailureReason::ShortRead, message));
        }
        self.pass.set_table(range.start / BLOCK, &table);
        Ok((sums.finish().sha256, changed))
    }

    async fn changed(&mut self, number: u64, block: &[u8]) -> Result<(), MoverError> {
        if is_zero(block) {
            self.pass.manifest().zeroed.push(number);
            return Ok(());
        }
        let limit = patch_limit(self.cut, self.pass.request.patch_bytes);
        if self.spool.as_ref().is_some_and(|spool| spool.blocks.count() * BLOCK >= limit) {
            self.close_spool().await?;
        }
        let spool = match &mut self.spool {
            Some(spool) => spool,
            none => none.insert(Spool::new(self.pass.repository)?),
        };
        spool.push(number, block)
    }

    /// Sends what the spool holds, unless an earlier attempt did.
    async fn close_spool(&mut self) -> Result<(), MoverError> {
        let Some(spool) = self.spool.take() else { return Ok(()) };
        self.cut += spool.bytes;
        let number = self.patches.len();
        let sha256 = hex::encode(spool.sha256.finalize());
        if let Some(snapshot) = self.sent.remove(&(sha256.clone(), spool.blocks.clone())) {
            self.reused += 1;
            self.patches.push(Some(Patch { snapshot, sha256, blocks: spool.blocks }));
            self.publish();
            return Ok(());
        }
        self.patches.push(None);
        self.drain(self.pass.request.processes.max(1) - 1).await?;
        let pass = self.pass;
        let upload = async move {
            let (kind, bytes) = (Kind::Patch(number), spool.bytes);
            let save = pass.repository.save_file(kind, &pass.provenance, &spool.scratch, bytes, &pass.cancel);
            let saved = save.await.map_err(|error| error.context(&format!("patch {number}")))?;
            Ok((number, Patch { snapshot: saved.id, sha256, blocks: spool.blocks }, saved.stored_bytes))
        };
        self.uploads.push(Box::pin(upload));
        Ok(())
    }

    /// Waits until no more than `left` uploads are under way.
    async fn drain(&mut self, left: usize) -> Result<(), MoverError> {
        let mut first_error = None;
        while self.uploads.len() > left {
            let Some(ended) = self.uploads.next().await else { break };
            if let Err(error) = self.take(ended) {
                self.pass.cancel.cancel();
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Takes note of uploads that have ended, without waiting.
    fn collect(&mut self) -> Result<(), MoverError> {
        while let Some(Some(ended)) = self.uploads.next().now_or_never() {
            self.take(ended)?;
        }
        Ok(())
    }

    fn take(&mut self, ended: Result<(usize, Patch, u64), MoverError>) -> Result<(), MoverError> {
        let (number, patch, stored_bytes) = ended?;
        self.patches[number] = Some(patch);
        self.pass.manifest().stored_bytes += stored_bytes;
        self.publish();
        Ok(())
    }

    /// What the manifest says of patches: those that are saved.
    fn publish(&self) {
        self.pass.manifest().patches = self.patches.iter().flatten().cloned().collect();
    }
}

/// How long the next patch may be after so many bytes. The first ones are short, so that they travel and are written
/// while the rest is still being read; many changes make few patches all the same. Another attempt cuts alike, and
/// finds what was sent.
fn patch_limit(before: u64, most: u64) -> u64 {
    before.max(FIRST_PATCH).min(most).clamp(BLOCK, MAX_PATCH)
}

/// Changed blocks on their way into a patch.
struct Spool {
    file: File,
    scratch: Scratch,
    blocks: Runs,
    bytes: u64,
    sha256: Sha256,
}

impl Spool {
    fn new(repository: &Repository) -> Result<Self, MoverError> {
        let scratch = Scratch::new(repository.scratch_path(Kind::Patch(0).file()));
        let file = File::create(&scratch.0).map_err(|error| scratch.failed(&error))?;
        Ok(Self { file, scratch, blocks: Runs::default(), bytes: 0, sha256: Sha256::new() })
    }

    fn push(&mut self, number: u64, block: &[u8]) -> Result<(), MoverError> {
        self.file.write_all(block).map_err(|error| self.scratch.failed(&error))?;
        self.sha256.update(block);
        self.blocks.push(number);
        self.bytes += block.len() as u64;
        Ok(())
    }
}

fn internal(message: &str) -> MoverError {
    MoverError::retryable(FailureReason::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_short_at_first_and_few_in_the_end() {
        let mib = |n: u64| n << 20;
        let (mut cut, mut lengths) = (0, vec![]);
        while cut < mib(1024) {
            lengths.push(patch_limit(cut, MAX_PATCH) >> 20);
            cut += patch_limit(cut, MAX_PATCH);
        }
        assert_eq!(lengths, [16, 16, 32, 64, 128, 256, 256, 256]);
        assert_eq!(patch_limit(mib(64), 1), BLOCK);
        assert_eq!(patch_limit(0, mib(1)), mib(1));
    }
}
