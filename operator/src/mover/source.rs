//! Where a disk is read from: an image of a cloud, or a block device. Any range of it, again and again.

use std::{future::Future, ops::Range, path::Path, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    block_file::BlockFile,
    digest,
    error::MoverError,
    image::{ImageBody, ImageError, ImageRecord, ImageService},
};
use crate::{contract::FailureReason, transfer::ImageHash};

/// Size of one read; also that of the pipes.
pub const READ: usize = 1 << 20;
/// How many reads may wait for who takes them.
const AHEAD: usize = 4;
/// How long the cloud may send nothing.
const IDLE: Duration = Duration::from_secs(120);
/// How often a download goes on where it broke without having brought a byte in between.
const TRIES: u32 = 4;

/// Bytes of a range in pieces of [`READ`] bytes, the last one shorter. It ends after the last byte or an error; a
/// reader that is dropped stops the reading.
pub type Pieces = mpsc::Receiver<Result<Bytes, MoverError>>;

/// A disk that does not change while it is read.
pub trait Source: Send + Sync {
    /// Its length.
    fn bytes(&self) -> u64;

    /// Which image or volume this is.
    fn origin(&self) -> &str;

    /// What the image service says it must hash to.
    fn hash(&self) -> Option<ImageHash> {
        None
    }

    /// Whether any part can be read without what is before it.
    fn has_ranges(&self) -> impl Future<Output = Result<bool, MoverError>> + Send;

    /// Starts to read.
    fn read(&self, range: Range<u64>) -> Pieces;
}

/// A block device.
pub struct DeviceSource {
    device: Arc<BlockFile>,
    origin: String,
}

impl DeviceSource {
    /// Opens it; `origin` tells apart what earlier Jobs read under the same path.
    pub fn open(path: &Path, origin: &str) -> Result<Self, MoverError> {
        let device = BlockFile::open(path)?;
        if device.bytes() == 0 {
            let message = format!("{} has no bytes; there is nothing to copy", device.name());
            return Err(MoverError::terminal(FailureReason::DeviceError, message));
        }
        Ok(Self { device: Arc::new(device), origin: origin.to_owned() })
    }
}

impl Source for DeviceSource {
    fn bytes(&self) -> u64 {
        self.device.bytes()
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    async fn has_ranges(&self) -> Result<bool, MoverError> {
        Ok(true)
    }

    fn read(&self, range: Range<u64>) -> Pieces {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let device = Arc::clone(&self.device);
        tokio::task::spawn_blocking(move || {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + READ as u64);
                let piece = device.read(&(at..end));
                let failed = piece.is_err();
                if sender.blocking_send(piece).is_err() || failed {
                    return;
                }
                at = end;
            }
        });
        receiver
    }
}

/// An image.
pub struct ImageSource<I> {
    images: Arc<I>,
    image: String,
    bytes: u64,
    hash: Option<ImageHash>,
}

impl<I: ImageService + 'static> ImageSource<I> {
    /// Looks the image up; it must be active.
    pub async fn open(images: I, image: &str) -> Result<Self, MoverError> {
        let record = images.get_image(image).await?.ok_or_else(|| not_found(image))?;
        let ImageRecord { status, size, hash_algo, hash_value } = record;
        if status != "active" {
            let message =
                format!("image {image} is {status}, not active; wait until the cloud has finished it");
            return Err(MoverError::retryable(FailureReason::ImageNotReady, message));
        }
        let Some(bytes) = size.filter(|size| *size > 0) else {
            let message = format!("image {image} has no size; there is nothing to copy");
            return Err(MoverError::terminal(FailureReason::ImageNotReady, message));
        };
        let hash = comparable_hash(hash_algo.as_deref(), hash_value.as_deref());
        if hash.is_none() {
            tracing::warn!(
                image,
                ?hash_algo,
                "the image has no hash that can be compared; only SHA-256 is recorded"
            );
        }
        Ok(Self { images: Arc::new(images), image: image.to_owned(), bytes, hash })
    }
}

impl<I: ImageService + 'static> Source for ImageSource<I> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn origin(&self) -> &str {
        &self.image
    }

    fn hash(&self) -> Option<ImageHash> {
        self.hash.clone()
    }

    /// Some stores behind the image service cannot: then it ignores the range, or refuses.
    async fn has_ranges(&self) -> Result<bool, MoverError> {
        match self.images.download_image(&self.image, Some(0..1)).await {
            Ok(body) => Ok(body.partial),
            Err(ImageError::Refused(why)) => {
                tracing::warn!(image = self.image, why, "the image service takes no ranges");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, range: Range<u64>) -> Pieces {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let download = Download {
            images: Arc::clone(&self.images),
            image: self.image.clone(),
            bytes: self.bytes,
            end: range.end,
            at: range.start,
            piece: BytesMut::new(),
            without_ranges: false,
            sender,
        };
        tokio::spawn(download.run());
        receiver
    }
}

/// One range on its way. A connection that breaks is opened again where it broke.
struct Download<I> {
    images: Arc<I>,
    image: String,
    bytes: u64,
    end: u64,
    at: u64,
    piece: BytesMut,
    /// The service takes no ranges.
    without_ranges: bool,
    sender: mpsc::Sender<Result<Bytes, MoverError>>,
}

impl<I: ImageService> Download<I> {
    async fn run(mut self) {
        let (mut tries, begin) = (0, self.at);
        while self.at < self.end && !self.sender.is_closed() {
            let before = self.at;
            let Err(error) = self.attempt().await else { return };
            tries = if self.at > before { 1 } else { tries + 1 };
            if !error.retryable || tries >= TRIES {
                // What arrived says more than why the last try brought nothing.
                let known = !error.retryable || self.at == begin || error.reason == FailureReason::ShortRead;
                let error = if known { error } else { self.short(&error.message) };
                let _ = self.sender.send(Err(error)).await;
                return;
            }
            tracing::warn!(image = self.image, at = self.at, tries, "the download broke, going on: {error}");
            sleep(Duration::from_millis(500) * tries).await;
        }
    }

    async fn attempt(&mut self) -> Result<(), MoverError> {
        let whole = self.at == 0 && self.end == self.bytes;
        let body = self.open(whole).await?;
        // What comes before our range in an answer that knows no ranges.
        let mut skip = if whole || body.partial { 0 } else { self.at };
        let announced = body.content_length.map(|length| length.saturating_sub(skip));
        if announced.is_some_and(|length| (whole || body.partial) && length != self.end - self.at) {
            let message = format!(
                "image {}: the download announces {} bytes, {} were to come",
                self.image,
                body.content_length.unwrap_or_default(),
                self.end - self.at
            );
            return Err(MoverError::retryable(FailureReason::ShortRead, message));
        }
        let mut stream = body.stream;
        loop {
            let mut chunk = match timeout(IDLE, stream.next()).await {
                Err(_) => return Err(self.short(&format!("nothing for {} s", IDLE.as_secs()))),
                Ok(Some(Err(error))) => return Err(self.short(&format!("the connection broke ({error})"))),
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) if self.at != self.end => return Err(self.short("the download ended")),
                Ok(None) => return Ok(()),
            };
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(0));
            if chunk.len() as u64 > self.end - self.at {
                if whole || body.partial {
                    return Err(self.short("it went on"));
                }
                chunk.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
            }
            self.at += chunk.len() as u64;
            self.piece.extend_from_slice(&chunk);
            if !self.pass_on().await || (self.at == self.end && !whole && !body.partial) {
                return Ok(());
            }
        }
    }

    /// Where a store such as Ceph takes no ranges the whole image is asked for, and what was read of it is skipped.
    async fn open(&mut self, whole: bool) -> Result<ImageBody, ImageError> {
        if !whole && !self.without_ranges {
            match self.images.download_image(&self.image, Some(self.at..self.end)).await {
                Err(ImageError::Refused(why)) => {
                    tracing::warn!(image = self.image, why, "the image service takes no ranges");
                    self.without_ranges = true;
                }
                other => return other,
            }
        }
        self.images.download_image(&self.image, None).await
    }

    /// Sends what is a whole piece, or the last. False when nobody takes it any more.
    async fn pass_on(&mut self) -> bool {
        while self.piece.len() >= READ || (self.at == self.end && !self.piece.is_empty()) {
            let piece = self.piece.split_to(READ.min(self.piece.len())).freeze();
            if self.sender.send(Ok(piece)).await.is_err() {
                self.at = self.end;
                return false;
            }
        }
        true
    }

    fn short(&self, why: &str) -> MoverError {
        let message = format!(
            "image {}: {} of {} bytes arrived, then {why}; nothing of them was saved",
            self.image, self.at, self.bytes
        );
        MoverError::retryable(FailureReason::ShortRead, message)
    }
}

/// The hash to compare with, if the record's algorithm is one of ours.
pub fn comparable_hash(algorithm: Option<&str>, value: Option<&str>) -> Option<ImageHash> {
    let (algorithm, value) = (algorithm?.to_owned(), value.filter(|value| !value.is_empty())?.to_owned());
    digest::is_supported(&algorithm).then_some(ImageHash { algorithm, value })
}

/// There is no such image.
pub(super) fn not_found(image: &str) -> MoverError {
    let message = format!("there is no image {image} in this cloud, or this project may not see it");
    MoverError::terminal(FailureReason::ImageNotFound, message)
}
