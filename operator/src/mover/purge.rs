//! `mover purge`: deletes one migration's repository, and only that.

use super::{
    error::MoverError,
    init::{MARKER, read_marker, require_ours, require_own_key, require_uid},
    key::KEYS,
};
use crate::{
    contract::{FailureReason, PurgeResult},
    store::{Removed, Store, Stored},
};

/// Deletes everything below the prefix when it is ours, down to old versions, what says so last, and looks again. What
/// the store does not let go of is told, and so is until when.
pub async fn purge(store: &Store, uid: &str, password: &str) -> Result<PurgeResult, MoverError> {
    require_uid(store, uid)?;
    let there = store.list_stored().await?;
    require_owned(store, &there, uid, password).await?;
    store.abort_uploads().await?;
    let (mut removed, mut proof) = remove_data(store, there).await?;
    // Last, so that a purge that is cut short, or that is held, can be repeated.
    if proof.iter().all(|stored| is_proof(store, stored)) {
        removed = removed.and(store.remove(&proof).await?);
        proof = store.list_stored().await?;
    } else if let Some(kept) = &mut removed.kept {
        kept.objects = proof.len() as u64;
    }
    if removed.kept.is_none() {
        require_empty(store, proof.len())?;
    }
    tracing::info!(repository = %store.location(), deleted = removed.deleted, kept = ?removed.kept, "repository purged");
    Ok(PurgeResult { deleted_objects: removed.deleted, kept: removed.kept })
}

/// Removes all but what says whose it is; gives that, and what the store keeps.
async fn remove_data(store: &Store, mut there: Vec<Stored>) -> Result<(Removed, Vec<Stored>), MoverError> {
    let mut removed = Removed::default();
    // A second round for what a pod that was still ending wrote meanwhile.
    for _ in 0..2 {
        there.retain(|stored| !is_proof(store, stored));
        removed = removed.and(store.remove(&there).await?);
        there = store.list_stored().await?;
        if removed.kept.is_some() || there.iter().all(|stored| is_proof(store, stored)) {
            break;
        }
    }
    if removed.kept.is_none() {
        require_empty(store, there.iter().filter(|stored| !is_proof(store, stored)).count())?;
    }
    Ok((removed, there))
}

fn is_proof(store: &Store, stored: &Stored) -> bool {
    match store.takes_any_name() {
        true => stored.key == MARKER,
        false => stored.key.starts_with(KEYS),
    }
}

async fn require_owned(store: &Store, there: &[Stored], uid: &str, password: &str) -> Result<(), MoverError> {
    let keys: Vec<String> = there.iter().map(|stored| stored.key.clone()).collect();
    if !store.takes_any_name() {
        require_own_key(store, &keys, password).await
    } else if let Some(marker) = read_marker(store).await? {
        require_ours(store, &marker, uid)
    } else {
        require_nothing_but_probes(store, &keys)
    }
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
