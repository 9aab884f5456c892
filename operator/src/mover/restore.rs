//! `mover restore`: one snapshot becomes one image of the destination cloud, or a broken-off upload.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::{io::AsyncReadExt, process::ChildStdout, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    backup::not_found,
    digest::{Digests, Hasher},
    error::MoverError,
    feed::BLOCK,
    image::{ByteStream, ImageRecord, ImageService},
    progress::Meter,
    result::{FailureReason, RestoreResult},
};
use crate::restic::{Child, Restic, SnapshotId};

/// How long the image service may take to call a finished upload active.
const SETTLE: Duration = Duration::from_secs(60);

/// What to restore, and what it must turn out to be.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The number of the disk.
    pub disk: u32,
    /// The destination image; it must be `queued`.
    pub image: String,
    /// Bytes as read in the source cloud.
    pub bytes: u64,
    /// SHA-256 as read in the source cloud.
    pub sha256: String,
    /// Glance's hash in the source cloud.
    pub hash: Option<(String, String)>,
}

/// Streams the snapshot into the image. The upload's body ends only after restic's exit code, length and digest
/// were good; until then an error in it breaks the upload off.
pub async fn restore(
    images: &impl ImageService,
    restic: &Restic,
    request: &RestoreRequest,
    cancel: &CancellationToken,
) -> Result<RestoreResult, MoverError> {
    let start = Instant::now();
    require_queued(images, &request.image).await?;
    let (sender, body) = gated_body();
    // Its own token: an upload that fails stops restic, too.
    let stop = cancel.child_token();
    let (uploaded, dumped) = tokio::join!(
        async {
            let uploaded = images.upload_image(&request.image, body).await;
            if uploaded.is_err() {
                stop.cancel();
            }
            uploaded
        },
        dump(restic, request, sender, &stop),
    );
    if cancel.is_cancelled() && dumped.is_err() {
        return Err(MoverError::terminated());
    }
    let digests = judge(uploaded.map_err(MoverError::from), dumped, &request.image)?;
    let (hash_algo, hash_value) = verify_image(images, request, &digests).await?;
    tracing::info!(image = request.image, snapshot = %request.snapshot, bytes = digests.bytes, "disk restored");
    let seconds = start.elapsed().as_secs();
    Ok(RestoreResult { bytes: digests.bytes, sha256: digests.sha256, hash_algo, hash_value, seconds })
}

async fn require_queued(images: &impl ImageService, image: &str) -> Result<(), MoverError> {
    let record = images.get_image(image).await?.ok_or_else(|| not_found(image))?;
    if record.status == "queued" {
        return Ok(());
    }
    let message = format!("image {image} is {}, not queued; every attempt needs a new image", record.status);
    Err(MoverError::terminal(FailureReason::ImageNotReady, message))
}

/// Which of the two sides is the cause, when both ended.
fn judge(
    uploaded: Result<(), MoverError>,
    dumped: Result<Digests, DumpError>,
    image: &str,
) -> Result<Digests, MoverError> {
    match (uploaded, dumped) {
        (Ok(()), Ok(digests)) => Ok(digests),
        // restic that was stopped because the upload failed is no cause.
        (Ok(()), Err(DumpError::Source(error))) => Err(error),
        (Err(_), Err(DumpError::Source(error))) if error.reason != FailureReason::Terminated => Err(error),
        (Err(error), _) => Err(error.context(&format!("upload of image {image}"))),
        (Ok(()), Err(DumpError::UploadEnded)) => {
            let message = format!("the cloud ended the upload of image {image} before all bytes were sent");
            Err(MoverError::retryable(FailureReason::UploadMismatch, message))
        }
    }
}

/// Why a dump ended early.
enum DumpError {
    /// restic, or what it gave.
    Source(MoverError),
    /// Nobody takes the bytes any more; the upload knows why.
    UploadEnded,
}

impl<E: Into<MoverError>> From<E> for DumpError {
    fn from(error: E) -> Self {
        Self::Source(error.into())
    }
}

async fn dump(
    restic: &Restic,
    request: &RestoreRequest,
    sender: mpsc::Sender<Piece>,
    stop: &CancellationToken,
) -> Result<Digests, DumpError> {
    let mut child = Child::spawn(&mut restic.dump(&request.snapshot, request.disk))?;
    let stdout = child.take_stdout()?;
    let hasher = Hasher::start(true)?;
    let pump = async {
        let pumped = pump(stdout, request, &hasher, &sender).await;
        if pumped.is_err() {
            stop.cancel();
        }
        pumped
    };
    let (finished, pumped) = tokio::join!(child.wait(stop), pump);
    // The pump's own complaint comes first: restic was stopped because of it.
    pumped?;
    finished?.into_result().map_err(|error| {
        MoverError::from(error)
            .context(&format!("dump of disk {} from snapshot {}", request.disk, request.snapshot))
    })?;
    let digests = hasher.finish().await?;
    compare(request, &digests)?;
    sender.send(Piece::End).await.map_err(|_| DumpError::UploadEnded)?;
    Ok(digests)
}

async fn pump(
    mut stdout: ChildStdout,
    request: &RestoreRequest,
    hasher: &Hasher,
    sender: &mpsc::Sender<Piece>,
) -> Result<(), DumpError> {
    let meter = Meter::start(request.bytes);
    let mut bytes = 0_u64;
    loop {
        let mut block = BytesMut::with_capacity(BLOCK);
        while block.len() < BLOCK {
            let read = stdout.read_buf(&mut block).await.map_err(|error| {
                let message = format!("reading restic's output failed after {bytes} bytes: {error}");
                MoverError::retryable(FailureReason::ResticFailed, message)
            })?;
            if read == 0 {
                break;
            }
        }
        if block.is_empty() {
            meter.finish();
            return Ok(());
        }
        bytes += block.len() as u64;
        if bytes > request.bytes {
            return Err(
                mismatch(request, "more bytes", &bytes.to_string(), &request.bytes.to_string()).into()
            );
        }
        let block = block.freeze();
        hasher.update(block.clone()).await?;
        let length = block.len() as u64;
        sender.send(Piece::Data(block)).await.map_err(|_| DumpError::UploadEnded)?;
        meter.add(length);
    }
}

fn compare(request: &RestoreRequest, digests: &Digests) -> Result<(), MoverError> {
    if digests.bytes != request.bytes {
        return Err(mismatch(request, "length", &digests.bytes.to_string(), &request.bytes.to_string()));
    }
    if !digests.sha256.eq_ignore_ascii_case(&request.sha256) {
        return Err(mismatch(request, "SHA-256", &digests.sha256, &request.sha256));
    }
    let Some((algorithm, value)) = &request.hash else { return Ok(()) };
    match digests.get(algorithm) {
        Some(got) if !got.eq_ignore_ascii_case(value) => Err(mismatch(request, algorithm, got, value)),
        _ => Ok(()),
    }
}

/// restic authenticates every byte, so another dump gives the same: not worth a retry.
fn mismatch(request: &RestoreRequest, what: &str, got: &str, recorded: &str) -> MoverError {
    let message = format!(
        "disk {} of snapshot {}: {what} is {got}, recorded in the source cloud was {recorded}; the upload was broken off",
        request.disk, request.snapshot
    );
    MoverError::terminal(FailureReason::DigestMismatch, message)
}

/// Looks at the finished image until the cloud calls it active, then compares.
async fn verify_image(
    images: &impl ImageService,
    request: &RestoreRequest,
    digests: &Digests,
) -> Result<(Option<String>, Option<String>), MoverError> {
    let start = Instant::now();
    let record = loop {
        let record = images.get_image(&request.image).await?.ok_or_else(|| not_found(&request.image))?;
        match record.status.as_str() {
            "active" => break record,
            "saving" | "importing" | "uploading" if start.elapsed() < SETTLE => {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            status => return Err(differs(request, "status", status, "active")),
        }
    };
    compare_image(request, digests, record)
}

fn compare_image(
    request: &RestoreRequest,
    digests: &Digests,
    record: ImageRecord,
) -> Result<(Option<String>, Option<String>), MoverError> {
    if record.size != Some(digests.bytes) {
        let got = record.size.map_or_else(|| "unknown".to_owned(), |size| size.to_string());
        return Err(differs(request, "size", &got, &digests.bytes.to_string()));
    }
    let (Some(algorithm), Some(value)) = (record.hash_algo, record.hash_value) else {
        return Ok((None, None));
    };
    match digests.get(&algorithm) {
        // Its size is right, and the read-back before the server is created looks at the bytes again.
        None => Ok((None, None)),
        Some(sent) if sent.eq_ignore_ascii_case(&value) => Ok((Some(algorithm), Some(value))),
        Some(sent) => Err(differs(request, &algorithm, &value, sent)),
    }
}

fn differs(request: &RestoreRequest, what: &str, got: &str, sent: &str) -> MoverError {
    let message = format!(
        "image {}: after the upload its {what} is {got}, not {sent}; delete it and use a new one",
        request.image
    );
    MoverError::retryable(FailureReason::UploadMismatch, message)
}

/// What the upload's body is made of.
enum Piece {
    Data(Bytes),
    End,
}

/// A body that ends well only after [`Piece::End`]: a sender that is dropped before makes it fail.
fn gated_body() -> (mpsc::Sender<Piece>, ByteStream) {
    let (sender, receiver) = mpsc::channel(8);
    let body = stream::unfold(Some(receiver), |receiver| async {
        let mut receiver: mpsc::Receiver<Piece> = receiver?;
        match receiver.recv().await {
            Some(Piece::Data(block)) => Some((Ok(block), Some(receiver))),
            Some(Piece::End) => None,
            None => {
                Some((Err(io::Error::other("the disk's stream broke off before it was proven whole")), None))
            }
        }
    });
    (sender, Box::pin(body))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_body_ends_well_only_when_told() {
        let (sender, body) = gated_body();
        sender.send(Piece::Data(Bytes::from_static(b"x"))).await.unwrap();
        drop(sender);
        let items: Vec<_> = body.collect().await;
        assert!(items.len() == 2 && items[0].is_ok() && items[1].is_err());

        let (sender, body) = gated_body();
        sender.send(Piece::Data(Bytes::from_static(b"x"))).await.unwrap();
        sender.send(Piece::End).await.unwrap();
        drop(sender);
        let items: Vec<_> = body.collect().await;
        assert!(items.len() == 1 && items[0].is_ok());
    }
}
