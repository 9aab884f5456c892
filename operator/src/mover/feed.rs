//! `mover feed`: streams an image to stdout for restic, and succeeds only when every byte was proven.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    digest::{self, Digests, Hasher},
    error::MoverError,
    image::{ByteStream, ImageService},
    result::{FailureReason, JobOutcome},
};

/// Size of one write; also that of the pipe.
pub const BLOCK: usize = 1 << 20;
/// How long the cloud may send nothing.
const IDLE: Duration = Duration::from_secs(120);

/// What the image must be, from its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The image.
    pub image: String,
    /// Its size; never 0.
    pub bytes: u64,
    /// Its hash, when the algorithm is one of ours.
    pub hash: Option<(String, String)>,
}

/// What was read, once everything matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedResult {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256 in hex.
    pub sha256: String,
    /// The compared algorithm.
    pub hash_algo: Option<String>,
    /// The equal hash.
    pub hash_value: Option<String>,
}

/// Streams the image into `out` and compares. Nothing is retried: restic's input cannot be rewound.
pub async fn feed(
    images: &impl ImageService,
    expected: &Expected,
    out: impl Write + Send + 'static,
) -> Result<FeedResult, MoverError> {
    let body = images.download_image(&expected.image).await?;
    if let Some(length) = body.content_length.filter(|length| *length != expected.bytes) {
        let message = format!(
            "image {}: the download announces {length} bytes, its record says {}",
            expected.image, expected.bytes
        );
        return Err(MoverError::retryable(FailureReason::ShortRead, message));
    }
    let with_sha512 = expected.hash.as_ref().is_some_and(|(algorithm, _)| algorithm == "sha512");
    let hasher = Hasher::start(with_sha512)?;
    let writer = Writer::start(out)?;
    pump(body.stream, expected, &hasher, &writer).await?;
    writer.finish().await?;
    compare(expected, hasher.finish().await?)
}

async fn pump(
    mut stream: ByteStream,
    expected: &Expected,
    hasher: &Hasher,
    writer: &Writer,
) -> Result<(), MoverError> {
    let short = |bytes: u64, why: &str| {
        let message = format!(
            "image {}: {bytes} of {} bytes arrived, then {why}; nothing was saved",
            expected.image, expected.bytes
        );
        MoverError::retryable(FailureReason::ShortRead, message)
    };
    let mut block = BytesMut::with_capacity(BLOCK);
    let mut bytes = 0_u64;
    loop {
        let chunk = match timeout(IDLE, stream.next()).await {
            Err(_) => return Err(short(bytes, &format!("nothing for {} s", IDLE.as_secs()))),
            Ok(Some(Err(error))) => return Err(short(bytes, &format!("the connection broke ({error})"))),
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) if bytes != expected.bytes => return Err(short(bytes, "the download ended")),
            Ok(None) => break,
        };
        bytes += chunk.len() as u64;
        if bytes > expected.bytes {
            return Err(short(bytes, "it went on"));
        }
        block.extend_from_slice(&chunk);
        if block.len() >= BLOCK {
            pass_on(block.split().freeze(), hasher, writer).await?;
            block.reserve(BLOCK);
        }
    }
    pass_on(block.freeze(), hasher, writer).await
}

async fn pass_on(block: Bytes, hasher: &Hasher, writer: &Writer) -> Result<(), MoverError> {
    hasher.update(block.clone()).await?;
    writer.write(block).await
}

fn compare(expected: &Expected, digests: Digests) -> Result<FeedResult, MoverError> {
    if digests.bytes != expected.bytes {
        let message =
            format!("image {}: {} of {} bytes were hashed", expected.image, digests.bytes, expected.bytes);
        return Err(MoverError::retryable(FailureReason::ShortRead, message));
    }
    let (mut hash_algo, mut hash_value) = (None, None);
    if let Some((algorithm, value)) = &expected.hash {
        let got = digests.get(algorithm).unwrap_or("nothing");
        if !got.eq_ignore_ascii_case(value) {
            let message = format!(
                "image {}: its {algorithm} is {value} by its record, but {got} as downloaded; nothing was saved",
                expected.image
            );
            return Err(MoverError::retryable(FailureReason::DigestMismatch, message));
        }
        (hash_algo, hash_value) = (Some(algorithm.clone()), Some(value.clone()));
    }
    Ok(FeedResult { bytes: digests.bytes, sha256: digests.sha256, hash_algo, hash_value })
}

/// The hash to compare with, if the record's algorithm is one of ours.
pub fn comparable_hash(algorithm: Option<&str>, value: Option<&str>) -> Option<(String, String)> {
    let (algorithm, value) = (algorithm?, value.filter(|value| !value.is_empty())?);
    digest::is_supported(algorithm).then(|| (algorithm.to_owned(), value.to_owned()))
}

/// Writes on a thread of its own: a full pipe blocks it, not the download.
struct Writer {
    blocks: mpsc::Sender<Bytes>,
    done: oneshot::Receiver<std::io::Result<()>>,
}

impl Writer {
    fn start(mut out: impl Write + Send + 'static) -> Result<Self, MoverError> {
        let (blocks, mut queue) = mpsc::channel::<Bytes>(8);
        let (finished, done) = oneshot::channel();
        let write_all = move || {
            let result =
                std::iter::from_fn(|| queue.blocking_recv()).try_for_each(|block| out.write_all(&block));
            // Flushed before anybody may say that all was written.
            let _ = finished.send(result.and_then(|()| out.flush()));
        };
        std::thread::Builder::new().name("write".into()).spawn(write_all).map_err(|error| {
            MoverError::retryable(FailureReason::Internal, format!("no thread for writing: {error}"))
        })?;
        Ok(Self { blocks, done })
    }

    async fn write(&self, block: Bytes) -> Result<(), MoverError> {
        self.blocks.send(block).await.map_err(|_| reader_gone("it closed the pipe"))
    }

    async fn finish(self) -> Result<(), MoverError> {
        drop(self.blocks);
        match self.done.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(reader_gone(&error.to_string())),
            Err(_) => Err(reader_gone("the writing thread ended")),
        }
    }
}

fn reader_gone(why: &str) -> MoverError {
    MoverError::retryable(FailureReason::ResticFailed, format!("restic takes no more bytes: {why}"))
}

/// The file beside the result's that tells the parent why there is none.
pub fn failure_file(result_file: &Path) -> PathBuf {
    result_file.with_extension("failure.json")
}

/// Writes the outcome for the parent: the result's file exists only after a success.
pub fn write_outcome(result_file: &Path, outcome: &JobOutcome<FeedResult>) -> std::io::Result<()> {
    let path = match outcome {
        JobOutcome::Ok(_) => result_file.to_owned(),
        JobOutcome::Failed(_) => failure_file(result_file),
    };
    let part = path.with_extension("part");
    std::fs::write(&part, outcome.to_termination_message())?;
    std::fs::rename(part, path)
}

/// Our stdout as a plain file without std's line buffer, its pipe made larger where it is one.
pub fn raw_stdout() -> std::io::Result<std::fs::File> {
    use std::os::fd::AsFd;
    let fd = std::io::stdout().as_fd().try_clone_to_owned()?;
    // Only speed depends on it: no pipe, or no right to a larger one.
    let _ = rustix::pipe::fcntl_setpipe_size(&fd, BLOCK);
    Ok(std::fs::File::from(fd))
}
