//! `mover purge`: deletes one migration's repository, and only that.

use super::{
    error::MoverError,
    init::{MARKER, read_marker, require_ours, require_own_key, require_uid},
    key::KEYS,
    result::{FailureReason, PurgeResult},
};
use crate::store::Store;

/// Deletes everything below the prefix when it is ours, what says so last, and looks again.
pub async fn purge(store: &Store, uid: &str, password: &str) -> Result<PurgeResult, MoverError> {
    require_uid(store, uid)?;
    let keys = store.list_all("").await?;
    if !store.takes_any_name() {
        require_own_key(store, &keys, password).await?;
    } else if let Some(marker) = read_marker(store).await? {
        require_ours(store, &marker, uid)?;
    } else {
        require_nothing_but_probes(store, &keys)?;
    }
    let is_proof = |key: &String| match store.takes_any_name() {
        true => key == MARKER,
        false => key.starts_with(KEYS),
    };
    let mut deleted_objects = 0;
    let mut rest = keys;
    // A second round for what a pod that was still ending wrote meanwhile.
    for _ in 0..2 {
        rest.retain(|key| !is_proof(key));
        store.delete_many(&rest).await?;
        deleted_objects += rest.len() as u64;
        rest = store.list_all("").await?;
        if rest.iter().all(is_proof) {
            break;
        }
    }
    require_empty(store, rest.iter().filter(|key| !is_proof(key)).count())?;
    // Last, so that a purge that is cut short can be repeated.
    if !rest.is_empty() {
        store.delete_many(&rest).await?;
        deleted_objects += rest.len() as u64;
        require_empty(store, store.list_all("").await?.len())?;
    }
    tracing::info!(repository = %store.location(), deleted_objects, "repository purged");
    Ok(PurgeResult { deleted_objects })
}

fn require_nothing_but_probes(store: &Store, keys: &[String]) -> Result<(), MoverError> {
    let Some(first) = keys.iter().find(|key| !store.is_probe(key)) else { return Ok(()) };
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
