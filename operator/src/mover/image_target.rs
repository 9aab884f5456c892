//! An image that is uploaded: one stream in order, put together from segments and the patches of later passes.

use std::{
    collections::VecDeque,
    iter::{Flatten, Peekable},
    ops::Range,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::AsyncReadExt,
    process::ChildStdout,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    catalog::Catalog,
    digest::{Digests, Extra, Hasher},
    error::MoverError,
    gate::{Gate, Piece, gate},
    image::{ImageRecord, ImageService},
    pause::pause,
    restore::{ATTEMPTS, Restoring, Suspect, Target, expect_end, next_piece, short_dump, zeros},
    source::{comparable_hash, not_found},
};
use crate::{
    contract::FailureReason,
    restic::Child,
    transfer::{
        BLOCK, Content, ImageHash, Layout, Manifest, Patch, Runs, first_bytes::objection, tags::Kind,
    },
};

/// How long the image service may take to call a finished upload active.
const SETTLE: Duration = Duration::from_secs(60);

/// A queued image.
pub struct ImageTarget<I> {
    images: I,
    image: String,
}

impl<I: ImageService> ImageTarget<I> {
    /// The image must be queued: every attempt needs a new one. One whose content was refused is queued again, but has a
    /// hash, and a second upload into it is 500.
    pub async fn open(images: I, image: &str) -> Result<Self, MoverError> {
        let record = images.get_image(image).await?.ok_or_else(|| not_found(image))?;
        if record.status == "queued" && record.hash_value.is_none() {
            return Ok(Self { images, image: image.to_owned() });
        }
        let state = if record.status == "queued" { "written to already" } else { record.status.as_str() };
        let message = format!("image {image} is {state}, not queued; every attempt needs a new image");
        Err(MoverError::terminal(FailureReason::ImageNotReady, message))
    }
}

impl<I: ImageService> Target for ImageTarget<I> {
    /// The upload's body ends only after all digests were good; until then an error in it breaks the upload off.
    async fn fill(
        &mut self,
        restoring: &Restoring<'_>,
        catalog: watch::Receiver<Catalog>,
    ) -> Result<Option<ImageHash>, MoverError> {
        let (sender, gate) = gate();
        // Its own token: an upload that fails stops restic, too.
        let stop = restoring.cancel.child_token();
        let (uploaded, sent) = tokio::join!(
            async {
                let uploaded = self.upload(gate).await;
                if uploaded.is_err() {
                    stop.cancel();
                }
                uploaded
            },
            send_all(restoring, catalog, sender, &stop),
        );
        let digests = self.judge(uploaded, sent)?;
        self.verify(&digests).await
    }
}

impl<I: ImageService> ImageTarget<I> {
    /// Begins when there is something to send. An image service that refuses the content says little of why.
    async fn upload(&self, mut gate: Gate) -> Result<(), MoverError> {
        let Some(first) = gate.first().await else { return Ok(()) };
        let uploaded = self.images.upload_image(&self.image, gate.body()).await;
        uploaded.map_err(|error| match (MoverError::from(error), objection(&first)) {
            (refused, Some(objection)) if refused.reason == FailureReason::DiskRefused => {
                refused.and(&format!("the disk begins with {objection}"))
            }
            (error, _) => error,
        })
    }

    /// Which of the two sides is the cause, when both ended.
    fn judge(
        &self,
        uploaded: Result<(), MoverError>,
        sent: Result<Digests, SendError>,
    ) -> Result<Digests, MoverError> {
        match (uploaded, sent) {
            (Ok(()), Ok(digests)) => Ok(digests),
            // A sender that was stopped because the upload failed is no cause.
            (Ok(()), Err(SendError::Source(error))) => Err(error),
            (Err(_), Err(SendError::Source(error))) if error.reason != FailureReason::Terminated => {
                Err(error)
            }
            (Err(error), _) => Err(error.context(&format!("upload of image {}", self.image))),
            (Ok(()), Err(SendError::UploadEnded)) => {
                let message =
                    format!("the cloud ended the upload of image {} before all bytes were sent", self.image);
                Err(MoverError::retryable(FailureReason::UploadMismatch, message))
            }
        }
    }

    /// Looks at the finished image until the cloud calls it active, then compares.
    async fn verify(&self, digests: &Digests) -> Result<Option<ImageHash>, MoverError> {
        let start = Instant::now();
        let record = loop {
            let record = self.images.get_image(&self.image).await?.ok_or_else(|| not_found(&self.image))?;
            match record.status.as_str() {
                "active" => break record,
                "saving" | "importing" | "uploading" if start.elapsed() < SETTLE => {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                status => return Err(self.differs("status", status, "active")),
            }
        };
        self.compare(digests, record)
    }

    fn compare(&self, digests: &Digests, record: ImageRecord) -> Result<Option<ImageHash>, MoverError> {
        if record.size != Some(digests.bytes) {
            let got = record.size.map_or_else(|| "unknown".to_owned(), |size| size.to_string());
            return Err(self.differs("size", &got, &digests.bytes.to_string()));
        }
        let Some(hash) = comparable_hash(record.hash_algo.as_deref(), record.hash_value.as_deref()) else {
            // Its size is right, and the read-back before the server is created looks at the bytes again.
            return Ok(None);
        };
        match digests.get(&hash.algorithm) {
            Some(sent) if !sent.eq_ignore_ascii_case(&hash.value) => {
                Err(self.differs(&hash.algorithm, &hash.value, sent))
            }
            _ => Ok(Some(hash)),
        }
    }

    fn differs(&self, what: &str, got: &str, sent: &str) -> MoverError {
        let message = format!(
            "image {}: after the upload its {what} is {got}, not {sent}; delete it and use a new one",
            self.image
        );
        MoverError::retryable(FailureReason::UploadMismatch, message)
    }
}

/// Why sending ended early.
pub(super) enum SendError {
    /// The repository, or what came out of it.
    Source(MoverError),
    /// Nobody takes the bytes any more; the upload knows why.
    UploadEnded,
}

impl<E: Into<MoverError>> From<E> for SendError {
    fn from(error: E) -> Self {
        Self::Source(error.into())
    }
}

/// The passes from the first to the one that is restored; alone, it is taken while it is made.
async fn chain(
    restoring: &Restoring<'_>,
    catalog: &mut watch::Receiver<Catalog>,
) -> Result<(watch::Receiver<Catalog>, Vec<Manifest>), MoverError> {
    if restoring.repository.key.pass == 0 {
        return Ok((catalog.clone(), Vec::new()));
    }
    let manifest = restoring.complete(catalog).await?;
    let mut before = restoring.passes_before(&manifest, None).await?;
    let (id, first) = before.pop_front().ok_or_else(MoverError::terminated)?;
    let later = before.into_iter().map(|(_, between)| between).chain([manifest]).collect();
    Ok((watch::channel(Catalog::complete(id, first)?).1, later))
}

/// Sends the disk in order, and the end only after all digests were good.
pub(super) async fn send_all(
    restoring: &Restoring<'_>,
    mut catalog: watch::Receiver<Catalog>,
    sender: mpsc::Sender<Piece>,
    stop: &CancellationToken,
) -> Result<Digests, SendError> {
    let (first, later) = chain(restoring, &mut catalog).await?;
    let layout = first.borrow().layout;
    let mut sending = Sending {
        restoring,
        first,
        last: catalog,
        layout,
        layers: later.into_iter().map(Layer::new).collect(),
        whole: Hasher::start(Extra { sha512: true, ..Extra::default() })?,
        sender,
        stop,
    };
    let digests = sending.segments().await?;
    let manifest = tokio::select! {
        manifest = restoring.complete(&mut sending.last) => manifest?,
        () = sending.sender.closed() => return Err(SendError::UploadEnded),
    };
    for (index, segment) in manifest.segments.iter().enumerate() {
        let recorded = segment.as_ref().map(|segment| segment.sha256.as_str()).unwrap_or_default();
        if digests[index] != recorded {
            return Err(sending.wrong(index).await.into());
        }
    }
    let whole = sending.whole.finish().await?;
    compare_whole(&manifest, &whole)?;
    sending.sender.send(Piece::End).await.map_err(|_| SendError::UploadEnded)?;
    Ok(whole)
}

/// The source cloud's own hash: it covers the way from there to the segments, too.
fn compare_whole(manifest: &Manifest, digests: &Digests) -> Result<(), MoverError> {
    let Some(hash) = &manifest.hash else { return Ok(()) };
    match digests.get(&hash.algorithm) {
        Some(got) if !got.eq_ignore_ascii_case(&hash.value) => {
            let message = format!(
                "disk {}: all segments are as read, but their {} is {got}, the source image's record says {}; \
                 the image was read wrongly, back it up again",
                manifest.disk, hash.algorithm, hash.value
            );
            Err(MoverError::terminal(FailureReason::DigestMismatch, message))
        }
        _ => Ok(()),
    }
}

struct Sending<'a> {
    restoring: &'a Restoring<'a>,
    /// The first pass: whole segments.
    first: watch::Receiver<Catalog>,
    /// The pass that is restored: what the disk must be.
    last: watch::Receiver<Catalog>,
    layout: Layout,
    layers: Vec<Layer>,
    whole: Hasher,
    sender: mpsc::Sender<Piece>,
    stop: &'a CancellationToken,
}

/// A segment whose bytes begin to come.
enum Opened {
    Zero,
    Dump(Box<(Child, ChildStdout)>),
}

impl Sending<'_> {
    /// Sends all segments in order; while one is sent, the next is opened already. Returns their digests.
    async fn segments(&mut self) -> Result<Vec<String>, SendError> {
        let count = self.layout.segments();
        let mut digests = Vec::with_capacity(count);
        let mut ahead = VecDeque::new();
        for index in 0..count {
            if ahead.is_empty() {
                let known = |catalog: &Catalog| catalog.content(index);
                let found = tokio::select! {
                    found = self.restoring.wait_for(&mut self.first, known) => found?,
                    () = self.sender.closed() => return Err(SendError::UploadEnded),
                };
                ahead.push_back(self.open(found)?);
            }
            while ahead.len() < self.restoring.request.processes.max(1) && index + ahead.len() < count {
                let Some(content) = self.first.borrow().content(index + ahead.len()) else { break };
                ahead.push_back(self.open(Some(content))?);
            }
            let opened = ahead.pop_front();
            let sha256 = self.segment(index, opened).await?;
            let recorded = self.last.borrow().sha256(index).map(str::to_owned);
            if recorded.is_some_and(|recorded| recorded != sha256) {
                return Err(self.wrong(index).await.into());
            }
            digests.push(sha256);
        }
        for layer in &mut self.layers {
            layer.finish(self.stop).await?;
        }
        Ok(digests)
    }

    /// What was sent of a segment is not what was read in the source: one of its parts is to blame.
    async fn wrong(&self, index: usize) -> MoverError {
        let mut suspects = Vec::new();
        let (content, sha256) = {
            let first = self.first.borrow();
            (first.content(index), first.sha256(index).map(str::to_owned))
        };
        if let (Some(Content::Stored(snapshot)), Some(sha256)) = (content, sha256) {
            suspects.push(Suspect { pass: 0, kind: Kind::Segment(index), snapshot, sha256 });
        }
        let range = self.layout.range(index);
        let inside = |block: u64| range.contains(&(block * BLOCK));
        for layer in &self.layers {
            for (number, patch) in layer.manifest.patches.iter().enumerate() {
                if patch.blocks.iter().cloned().flatten().any(inside) {
                    let (snapshot, sha256) = (patch.snapshot.clone(), patch.sha256.clone());
                    let (pass, kind) = (layer.manifest.pass, Kind::Patch(number));
                    suspects.push(Suspect { pass, kind, snapshot, sha256 });
                }
            }
        }
        self.restoring.accuse(suspects).await
    }

    fn open(&self, content: Option<Content>) -> Result<Opened, MoverError> {
        match content {
            Some(Content::Zero) => Ok(Opened::Zero),
            Some(Content::Stored(id)) => {
                Ok(Opened::Dump(Box::new(self.restoring.repository.dump(&id, Kind::Segment(0))?)))
            }
            _ => Err(MoverError::terminal(FailureReason::DigestMismatch, "a segment without content")),
        }
    }

    /// Sends one segment. A dump that breaks is begun again, and what was sent already is left out.
    async fn segment(&mut self, index: usize, opened: Option<Opened>) -> Result<String, SendError> {
        let hasher = Hasher::start(Extra::default())?;
        let (mut sent, mut attempt, mut opened) = (0, 1, opened);
        loop {
            let open = match opened.take() {
                Some(open) => open,
                None => self.open(self.first.borrow().content(index))?,
            };
            match self.pass_on(index, open, &hasher, &mut sent).await {
                Ok(()) => return Ok(hasher.finish().await?.sha256),
                Err(SendError::Source(error))
                    if error.retryable
                        && attempt < ATTEMPTS
                        && self.layers.is_empty()
                        && !self.stop.is_cancelled() =>
                {
                    tracing::warn!(segment = index, attempt, sent, "trying once more: {error}");
                    pause(attempt, self.stop).await;
                    attempt += 1;
                }
                Err(SendError::Source(error)) => {
                    return Err(error.context(&format!("segment {index}")).into());
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn pass_on(
        &mut self,
        index: usize,
        opened: Opened,
        hasher: &Hasher,
        sent: &mut u64,
    ) -> Result<(), SendError> {
        let Opened::Dump(dump) = opened else {
            return self.pump(index, None, hasher, sent).await;
        };
        let (child, mut stdout) = *dump;
        let stop = self.stop.child_token();
        let pump = async {
            let pumped = self.pump(index, Some(&mut stdout), hasher, sent).await;
            // A restic whose output has ended is about to say why.
            if !matches!(
                &pumped,
                Ok(()) | Err(SendError::Source(MoverError { reason: FailureReason::ShortRead, .. }))
            ) {
                stop.cancel();
            }
            pumped
        };
        let (finished, pumped) = tokio::join!(child.wait(&stop), pump);
        let finished = finished?.into_result().map_err(MoverError::from);
        match (pumped, finished) {
            (Err(SendError::Source(error)), Err(cause)) if error.reason == FailureReason::ShortRead => {
                Err(cause.into())
            }
            (Err(error), _) => Err(error),
            (Ok(()), finished) => Ok(finished?),
        }
    }

    async fn pump(
        &mut self,
        index: usize,
        mut stdout: Option<&mut ChildStdout>,
        hasher: &Hasher,
        sent: &mut u64,
    ) -> Result<(), SendError> {
        let range = self.layout.range(index);
        let (length, mut done) = (range.end - range.start, 0);
        while done < length {
            let mut piece = match &mut stdout {
                Some(stdout) => next_piece(stdout, length - done).await?,
                None => BytesMut::from(zeros(length - done)),
            };
            if piece.is_empty() {
                return Err(short_dump(done, length).into());
            }
            let start = done;
            done += piece.len() as u64;
            for layer in &mut self.layers {
                layer.apply(self.restoring, self.stop, range.start + start, &mut piece).await?;
            }
            let again = sent.saturating_sub(start).min(piece.len() as u64);
            let new = piece.split_off(usize::try_from(again).unwrap_or(0)).freeze();
            if !new.is_empty() {
                self.send(new, hasher).await?;
                *sent = done;
            }
        }
        match stdout {
            Some(stdout) => Ok(expect_end(stdout).await?),
            None => Ok(()),
        }
    }

    async fn send(&self, piece: Bytes, hasher: &Hasher) -> Result<(), SendError> {
        let length = piece.len() as u64;
        hasher.update(piece.clone()).await?;
        self.whole.update(piece.clone()).await?;
        self.sender.send(Piece::Data(piece)).await.map_err(|_| SendError::UploadEnded)?;
        self.restoring.meter.add(length);
        Ok(())
    }
}

/// Block after block, out of runs: a pass may have zeroed all of a disk.
type Blocks = Peekable<Flatten<std::vec::IntoIter<Range<u64>>>>;

fn blocks(runs: &Runs) -> Blocks {
    runs.iter().cloned().collect::<Vec<_>>().into_iter().flatten().peekable()
}

/// What one later pass changed, laid over the passes before while they stream by.
struct Layer {
    manifest: Manifest,
    zeroed: Blocks,
    patches: VecDeque<Patch>,
    current: Option<OpenPatch>,
}

struct OpenPatch {
    blocks: Blocks,
    child: Child,
    stdout: ChildStdout,
}

impl Layer {
    fn new(manifest: Manifest) -> Self {
        let (zeroed, patches) = (blocks(&manifest.zeroed), manifest.patches.clone().into());
        Self { manifest, zeroed, patches, current: None }
    }

    /// Replaces the blocks of a piece that starts at `at`, a block's start.
    async fn apply(
        &mut self,
        restoring: &Restoring<'_>,
        stop: &CancellationToken,
        at: u64,
        piece: &mut [u8],
    ) -> Result<(), MoverError> {
        for (n, block) in piece.chunks_mut(usize::try_from(BLOCK).unwrap_or(usize::MAX)).enumerate() {
            let number = at / BLOCK + n as u64;
            if self.zeroed.next_if_eq(&number).is_some() {
                block.fill(0);
            }
            let starts = |patch: &Patch| patch.blocks.start() == Some(number);
            if self.current.as_mut().is_none_or(|open| open.blocks.peek().is_none())
                && self.patches.front().is_some_and(starts)
            {
                self.finish(stop).await?;
                self.current =
                    self.patches.pop_front().map(|patch| open_patch(restoring, &patch)).transpose()?;
            }
            let Some(open) = &mut self.current else { continue };
            if open.blocks.next_if_eq(&number).is_some() {
                open.stdout.read_exact(block).await.map_err(|error| {
                    let message = format!("a patch ended before block {number}: {error}");
                    MoverError::retryable(FailureReason::ShortRead, message)
                })?;
            }
        }
        Ok(())
    }

    /// The current patch has been read; did its restic end well?
    async fn finish(&mut self, stop: &CancellationToken) -> Result<(), MoverError> {
        let Some(OpenPatch { child, mut stdout, .. }) = self.current.take() else { return Ok(()) };
        expect_end(&mut stdout).await?;
        Ok(child.wait(stop).await?.into_result()?)
    }
}

fn open_patch(restoring: &Restoring<'_>, patch: &Patch) -> Result<OpenPatch, MoverError> {
    let (child, stdout) = restoring.repository.dump(&patch.snapshot, Kind::Patch(0))?;
    Ok(OpenPatch { blocks: blocks(&patch.blocks), child, stdout })
}
