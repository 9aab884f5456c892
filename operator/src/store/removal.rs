//! Removing from S3 what may be held: versions that are locked, and those that our keys may not see or delete.

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::{
    client::patiently,
    error::StoreError,
    http::refused,
    s3::{DELETE_BATCH, Hold, S3},
    s3_answers::Failed,
    stored::{Removed, Stored},
};
use crate::contract::Kept;

/// Looks at versions at once.
const LOOKS: usize = 8;
const DENIED: &str = "AccessDenied";

/// The versions, unless the store has no such call or these keys may not make it.
pub(super) fn seen(listed: Result<Vec<Stored>, StoreError>) -> Result<Option<Vec<Stored>>, StoreError> {
    match listed {
        Ok(rows) => Ok(Some(rows)),
        Err(error @ (StoreError::Unsupported { .. } | StoreError::Unauthorized { .. })) => {
            tracing::info!("versions are not listed: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Removes all of these, a thousand at a time.
pub(super) async fn remove(s3: &S3, objects: &[Stored]) -> Result<Removed, StoreError> {
    let mut all = Removed::default();
    for batch in objects.chunks(DELETE_BATCH) {
        all = all.and(remove_batch(s3, batch).await?);
    }
    Ok(all)
}

async fn remove_batch(s3: &S3, batch: &[Stored]) -> Result<Removed, StoreError> {
    let deletion = patiently(|| s3.delete_batch(batch).boxed()).await?;
    let is_denied = |failed: &&Failed| failed.version.is_some() && failed.code == DENIED;
    if let Some(first) = deletion.failed.iter().find(|failed| !is_denied(failed)) {
        return Err(undeleted(&deletion.failed, first));
    }
    let deleted = (batch.len() - deletion.failed.len()) as u64;
    let markers = (deletion.markers > 0).then(|| Kept {
        objects: deletion.markers,
        until: None,
        message: format!(
            "bucket {} keeps versions, and these keys may not list them (s3:ListBucketVersions): what was there stays, \
             encrypted, as old versions; a lifecycle rule of the bucket can remove them",
            s3.name()
        ),
    });
    let Some(first) = deletion.failed.first() else { return Ok(Removed { deleted, kept: markers }) };
    let held = match holds(s3, batch, &deletion.failed).await? {
        Some(held) => held,
        None => hide(s3, &deletion.failed, first).await?,
    };
    Ok(Removed { deleted, kept: Some(held) })
}

fn undeleted(failed: &[Failed], first: &Failed) -> StoreError {
    let why =
        format!("{} of them failed, first {}: {} {}", failed.len(), first.key, first.code, first.message);
    refused("DELETE objects", &why)
}

/// What object lock holds, if that is why nothing was deleted.
async fn holds(s3: &S3, batch: &[Stored], failed: &[Failed]) -> Result<Option<Kept>, StoreError> {
    let looks: Vec<_> = failed.iter().map(|failed| hold(s3, failed).boxed()).collect();
    let found: Vec<Option<Hold>> = stream::iter(looks).buffered(LOOKS).try_collect().await?;
    let rule = if found.contains(&None) { patiently(|| s3.rule().boxed()).await? } else { None };
    if rule.is_none() && found.iter().all(Option::is_none) {
        return Ok(None);
    }
    let by_rule = |failed: &Failed| {
        let stored = batch.iter().find(|one| one.key == failed.key && one.version == failed.version)?;
        stored.written?.checked_add(rule?).ok()
    };
    let mut until: Option<Timestamp> = None;
    for (failed, hold) in failed.iter().zip(&found) {
        until = until.max(match hold {
            Some(Hold::Until(date)) => Some(*date),
            Some(Hold::Legal) => None,
            None => by_rule(failed),
        });
    }
    let end = if found.contains(&Some(Hold::Legal)) {
        "until a legal hold is taken off them".to_owned()
    } else {
        until.map_or_else(|| "for a time that it does not tell".to_owned(), |date| format!("until {date}"))
    };
    let message = format!(
        "object lock of bucket {} keeps them, encrypted, {end}; delete them then, or let a lifecycle rule do it",
        s3.name()
    );
    Ok(Some(Kept { objects: failed.len() as u64, until, message }))
}

/// What holds one version; nothing is known of one that these keys may not look at.
async fn hold(s3: &S3, failed: &Failed) -> Result<Option<Hold>, StoreError> {
    let version = failed.version.as_deref().unwrap_or_default();
    match patiently(|| s3.hold(&failed.key, version).boxed()).await {
        Err(error) if error.is_transient() => Err(error),
        known => Ok(known.unwrap_or_default()),
    }
}

/// These keys may not delete versions: markers take them out of sight.
async fn hide(s3: &S3, failed: &[Failed], first: &Failed) -> Result<Kept, StoreError> {
    let objects: Vec<_> = failed.iter().map(|failed| Stored::plain(&failed.key)).collect();
    let deletion = patiently(|| s3.delete_batch(&objects).boxed()).await?;
    if let Some(still) = deletion.failed.first() {
        return Err(undeleted(&deletion.failed, still));
    }
    let message = format!(
        "bucket {} keeps versions, and these keys may not delete them (s3:DeleteObjectVersion; {}): what was there stays, \
         encrypted, as old versions; a lifecycle rule of the bucket can remove them",
        s3.name(),
        first.message
    );
    Ok(Kept { objects: failed.len() as u64, until: None, message })
}
