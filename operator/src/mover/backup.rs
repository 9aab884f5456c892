//! `mover backup`: one image of the source cloud becomes one snapshot, or none.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use super::{
    error::MoverError,
    feed::{Expected, FeedResult, comparable_hash, failure_file},
    image::{ImageRecord, ImageService},
    progress::Meter,
    result::{BackupResult, FailureReason, JobOutcome},
};
use crate::restic::{BackupArgs, BackupSummary, Child, Line, Restic, SnapshotId};

/// What to back up, and with which feed.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The image.
    pub image: String,
    /// The number of the disk.
    pub disk: u32,
    /// The migration.
    pub uid: String,
    /// Skip restic's second look at what it saves.
    pub no_extra_verify: bool,
    /// The start of the feed's command line; image, sizes and the result's file are added.
    pub feed_command: Vec<OsString>,
    /// Where feed and parent meet.
    pub scratch: PathBuf,
}

/// Reads the image's record, lets restic save what feed sends, and believes it only when all counts agree.
pub async fn backup(
    images: &impl ImageService,
    restic: &Restic,
    request: &BackupRequest,
    cancel: &CancellationToken,
) -> Result<BackupResult, MoverError> {
    let start = Instant::now();
    let expected = expected(images, &request.image).await?;
    let result_file = request.scratch.join(format!("feed-{}.json", request.disk));
    for stale in [result_file.clone(), failure_file(&result_file)] {
        // Nothing of an earlier attempt in this pod may speak for this one.
        let _ = std::fs::remove_file(stale);
    }
    let args = BackupArgs {
        disk: request.disk,
        uid: request.uid.clone(),
        no_extra_verify: request.no_extra_verify,
        feed: feed_line(request, &expected, &result_file),
    };
    let summary = run_restic(restic, &args, expected.bytes, cancel).await;
    let summary = summary.map_err(|error| explain(error, &result_file))?;
    let feed = read_feed(&result_file)?;
    let snapshot_id = agree(&expected, &summary, &feed)?;
    tracing::info!(image = expected.image, snapshot = %snapshot_id, bytes = feed.bytes, "disk saved");
    Ok(BackupResult {
        snapshot_id: snapshot_id.to_string(),
        bytes: feed.bytes,
        sha256: feed.sha256,
        hash_algo: feed.hash_algo,
        hash_value: feed.hash_value,
        stored_bytes: summary.data_added_packed,
        seconds: start.elapsed().as_secs(),
    })
}

async fn expected(images: &impl ImageService, image: &str) -> Result<Expected, MoverError> {
    let record = images.get_image(image).await?.ok_or_else(|| not_found(image))?;
    let ImageRecord { status, size, hash_algo, hash_value } = record;
    if status != "active" {
        let message = format!("image {image} is {status}, not active; wait until the cloud has finished it");
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
    Ok(Expected { image: image.to_owned(), bytes, hash })
}

fn feed_line(request: &BackupRequest, expected: &Expected, result_file: &Path) -> Vec<OsString> {
    let mut line = request.feed_command.clone();
    line.extend(["--image".into(), OsString::from(&expected.image)]);
    line.extend(["--bytes".into(), OsString::from(expected.bytes.to_string())]);
    if let Some((algorithm, value)) = &expected.hash {
        line.extend([
            "--hash-algo".into(),
            OsString::from(algorithm),
            "--hash-value".into(),
            OsString::from(value),
        ]);
    }
    line.extend(["--result-file".into(), result_file.as_os_str().to_owned()]);
    line
}

async fn run_restic(
    restic: &Restic,
    args: &BackupArgs,
    total: u64,
    cancel: &CancellationToken,
) -> Result<BackupSummary, MoverError> {
    let child = Child::spawn(&mut restic.backup(args))?;
    let meter = Meter::start(total);
    let mut summary = None;
    let on_line = |line: &str| match Line::parse(line) {
        Line::Status(status) => meter.set(status.bytes_done),
        Line::Summary(found) => {
            meter.set(found.total_bytes_processed);
            summary = Some(found);
        }
        Line::Other => {}
    };
    let finished = child.run_lines(cancel, on_line).await?;
    meter.finish();
    finished.into_result()?;
    summary.ok_or_else(|| {
        MoverError::retryable(FailureReason::ResticFailed, "restic ended without a summary of its backup")
    })
}

/// The feed knows why it failed; restic only that it did.
fn explain(error: MoverError, result_file: &Path) -> MoverError {
    if error.reason == FailureReason::Terminated {
        return error;
    }
    match read_outcome(&failure_file(result_file)) {
        // Its pipe broke because restic ended: then restic's word is the cause.
        Ok(JobOutcome::Failed(failure)) if failure.reason != FailureReason::ResticFailed => {
            MoverError { reason: failure.reason, message: failure.message, retryable: failure.retryable }
        }
        _ => error,
    }
}

fn read_feed(result_file: &Path) -> Result<FeedResult, MoverError> {
    match read_outcome(result_file) {
        Ok(JobOutcome::Ok(result)) => Ok(result),
        _ => {
            let message = "restic saved a stream, but the feed left no proof of it; the snapshot is not used";
            Err(MoverError::retryable(FailureReason::Internal, message))
        }
    }
}

fn read_outcome(path: &Path) -> std::io::Result<JobOutcome<FeedResult>> {
    Ok(JobOutcome::parse(&std::fs::read_to_string(path)?)?)
}

fn agree(expected: &Expected, summary: &BackupSummary, feed: &FeedResult) -> Result<SnapshotId, MoverError> {
    if summary.total_bytes_processed != expected.bytes || feed.bytes != expected.bytes {
        let message = format!(
            "image {} has {} bytes, the feed sent {}, restic saved {}; the snapshot is not used",
            expected.image, expected.bytes, feed.bytes, summary.total_bytes_processed
        );
        return Err(MoverError::retryable(FailureReason::ShortRead, message));
    }
    let refused =
        |why| MoverError::retryable(FailureReason::ResticFailed, format!("restic's summary: {why}"));
    summary.snapshot_id.parse().map_err(refused)
}

pub(super) fn not_found(image: &str) -> MoverError {
    let message = format!("there is no image {image} in this cloud, or this project may not see it");
    MoverError::terminal(FailureReason::ImageNotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_counts_must_agree() {
        let expected = Expected { image: "i".into(), bytes: 5, hash: None };
        let feed = |bytes| FeedResult { bytes, sha256: String::new(), hash_algo: None, hash_value: None };
        let summary = |total_bytes_processed, id: &str| BackupSummary {
            snapshot_id: id.to_owned(),
            total_bytes_processed,
            data_added_packed: 0,
        };
        let id = "ab".repeat(32);
        assert!(agree(&expected, &summary(5, &id), &feed(5)).is_ok());
        for (total, read, id) in [(4, 5, id.as_str()), (5, 4, &id), (5, 5, ""), (5, 5, "abababab")] {
            assert!(agree(&expected, &summary(total, id), &feed(read)).is_err(), "{total} {read} {id}");
        }
    }
}
