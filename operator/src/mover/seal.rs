//! `mover seal`: one snapshot of the whole disk as it is after a pass, which plain restic restores.
//!
//! The disk is put together from what the repository holds and saved as one file; its last bytes are given away only when
//! all digests were good, and then a note says so. Without that note it is not found again. What was saved before is not
//! stored again, so this costs time near the store, but hardly any room in it.

use std::time::Instant;

use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    catalog::Catalog,
    error::MoverError,
    gate::gate,
    image_target::{SendError, send_all},
    repository::{Repository, Saved},
    restore::{self, RestoreRequest, Restoring, Target},
};
use crate::{
    contract::{FailureReason, SealResult, SnapshotId},
    transfer::ImageHash,
};

/// Saves the whole disk; finds it when it was saved, and proven, before.
pub async fn seal(
    repository: &Repository,
    manifest: &SnapshotId,
    request: &RestoreRequest,
    cancel: &CancellationToken,
) -> Result<SealResult, MoverError> {
    let (start, file) = (Instant::now(), repository.whole_file());
    repository.store.require_place().await?;
    if let Some(id) = repository.find_whole(manifest, cancel).await? {
        let snapshot_id = id.to_string();
        return Ok(SealResult { snapshot_id, file, stored_bytes: 0, seconds: start.elapsed().as_secs() });
    }
    let mut target = Whole { manifest, saved: None };
    restore::restore(&mut target, repository, request, cancel).await?;
    let saved = target.saved.ok_or_else(|| {
        MoverError::retryable(FailureReason::Internal, "the whole disk was sent, but no snapshot came of it")
    })?;
    repository.note_proven(manifest, &saved.id, cancel).await?;
    tracing::info!(snapshot = %saved.id, file, "whole disk saved");
    let (snapshot_id, stored_bytes) = (saved.id.to_string(), saved.stored_bytes);
    Ok(SealResult { snapshot_id, file, stored_bytes, seconds: start.elapsed().as_secs() })
}

/// A snapshot that is filled like an image.
struct Whole<'a> {
    manifest: &'a SnapshotId,
    saved: Option<Saved>,
}

impl Target for Whole<'_> {
    async fn fill(
        &mut self,
        restoring: &Restoring<'_>,
        catalog: watch::Receiver<Catalog>,
    ) -> Result<Option<ImageHash>, MoverError> {
        let bytes = catalog.borrow().layout.bytes();
        let stream = restoring.repository.stream_whole(self.manifest, bytes)?;
        let (sender, gate) = gate();
        let mut body = gate.body();
        // Its own token: a snapshot that fails stops what reads for it, too.
        let stop = restoring.cancel.child_token();
        let saving = async {
            let write = async |mut out: super::repository::StreamWriter<'_>| {
                while let Some(piece) = body.next().await {
                    let piece = piece
                        .map_err(|error| MoverError::retryable(FailureReason::Internal, error.to_string()))?;
                    out.write(&piece).await?;
                }
                Ok(())
            };
            let saved = stream.run(&stop, write).await;
            if saved.is_err() {
                stop.cancel();
            }
            saved
        };
        let (saved, sent) = tokio::join!(saving, send_all(restoring, catalog, sender, &stop));
        match (saved, sent) {
            (Ok((saved, ())), Ok(_)) => {
                self.saved = Some(saved);
                Ok(None)
            }
            // A sender that was stopped because the snapshot failed is no cause.
            (_, Err(SendError::Source(error))) if error.reason != FailureReason::Terminated => Err(error),
            (Err(error), _) | (Ok(_), Err(SendError::Source(error))) => Err(error),
            (Ok(_), Err(SendError::UploadEnded)) => {
                let message = "restic ended before all bytes were sent; the snapshot is not used";
                Err(MoverError::retryable(FailureReason::ResticFailed, message))
            }
        }
    }
}
