//! The three calls to an image service that a mover needs, and nothing more.

use std::{future::Future, io, ops::Range, pin::Pin};

use bytes::Bytes;
use futures::Stream;

/// The bytes of an image on their way.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What the image service knows about an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageRecord {
    /// `queued`, `saving`, `active`, …
    pub status: String,
    /// Bytes; `None` before the upload.
    pub size: Option<u64>,
    /// The algorithm of its hash.
    pub hash_algo: Option<String>,
    /// The hash in hex.
    pub hash_value: Option<String>,
}

/// An image being downloaded.
pub struct ImageBody {
    /// Whether these are only the bytes of the range that was asked for.
    pub partial: bool,
    /// What the answer's header announced.
    pub content_length: Option<u64>,
    /// The bytes.
    pub stream: ByteStream,
}

/// A failed call to the image service; the text is fit for users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// May work later.
    #[error("{0}")]
    Transient(String),
    /// The credentials are refused.
    #[error("{0}")]
    Unauthorized(String),
    /// Will not work later either.
    #[error("{0}")]
    Refused(String),
    /// What the image holds is not taken.
    #[error("{0}")]
    Content(String),
}

/// An image service, of a cloud or of a test.
pub trait ImageService: Send + Sync {
    /// The image's record; `None` when there is no such image.
    fn get_image(&self, id: &str) -> impl Future<Output = Result<Option<ImageRecord>, ImageError>> + Send;

    /// Starts to download the image's bytes, or some of them. A service that knows no ranges sends all.
    fn download_image(
        &self,
        id: &str,
        range: Option<Range<u64>>,
    ) -> impl Future<Output = Result<ImageBody, ImageError>> + Send;

    /// Uploads an image's bytes. An error in `body` must break the upload off, never end it.
    fn upload_image(&self, id: &str, body: ByteStream)
    -> impl Future<Output = Result<(), ImageError>> + Send;
}
