//! `mover purge`: deletes one migration's repository, and only that.

use super::{
    error::MoverError,
    init::{MARKER, is_probe, read_marker, require_ours, require_uid},
    result::{FailureReason, PurgeResult},
};
use crate::store::Store;

/// Deletes everything below the prefix when our marker stands there, the marker last, and looks again.
pub async fn purge(store: &Store, uid: &str) -> Result<PurgeResult, MoverError> {
    require_uid(store, uid)?;
    let keys = store.list_all("").await?;
    match read_marker(store).await? {
        Some(marker) => require_ours(store, &marker, uid)?,
        None => require_nothing_but_probes(store, &keys)?,
    }
    let mut deleted_objects = 0;
    let mut rest = keys;
    // A second round for what a pod that was still ending wrote meanwhile.
    for _ in 0..2 {
        rest.retain(|key| key != MARKER);
        store.delete_many(&rest).await?;
        deleted_objects += rest.len() as u64;
        rest = store.list_all("").await?;
        if rest.iter().all(|key| key == MARKER) {
            break;
        }
    }
    require_empty(store, rest.iter().filter(|key| *key != MARKER).count())?;
    // Last, so that a purge that is cut short can be repeated.
    if !rest.is_empty() {
        store.delete(MARKER).await?;
        deleted_objects += 1;
        require_empty(store, store.list_all("").await?.len())?;
    }
    tracing::info!(repository = %store.location(), deleted_objects, "repository purged");
    Ok(PurgeResult { deleted_objects })
}

fn require_nothing_but_probes(store: &Store, keys: &[String]) -> Result<(), MoverError> {
    let Some(first) = keys.iter().find(|key| !is_probe(key)) else { return Ok(()) };
    let message = format!(
        "{} holds objects like {first}, but no marker of ours; nothing was deleted, look at them yourself",
        store.location()
    );
    Err(MoverError::terminal(FailureReason::ForeignRepository, message))
}

fn require_empty(store: &Store, left: usize) -> Result<(), MoverError> {
    if left == 0 {
        return Ok(());
    }
    let message = format!(
        "{left} objects are still below {} after the deletion; somebody writes there",
        store.location()
    );
    Err(MoverError::retryable(FailureReason::StoreError, message))
}
