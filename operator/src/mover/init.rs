//! `mover init`: marks the prefix as one migration's, makes the repository, and makes it cheap to open. May be
//! repeated.

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{error::MoverError, key};
use crate::{
    contract::{FailureReason, InitResult},
    restic::{Child, Restic, ResticError},
    store::{Store, StoreError, shown},
};

/// The marker's name below the repository's prefix.
pub const MARKER: &str = "vmmigration.json";
const MAX_MARKER: usize = 64 << 10;
/// No uid is longer.
const MAX_UID: usize = 128;
/// No namespace and name are longer.
const MAX_OBJECT: usize = 512;

/// Says whose prefix this is. Nothing is ever deleted where it does not stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// The migration.
    pub uid: String,
    /// Its namespace and name.
    pub object: String,
    /// When it was written (RFC 3339).
    pub created_at: String,
}

/// Whose repository it is.
pub struct Owner<'a> {
    /// The migration.
    pub uid: &'a str,
    /// Its namespace and name.
    pub object: &'a str,
    /// The repository's password.
    pub password: &'a str,
}

/// Makes the repository unless it is there; refuses a prefix of somebody else.
pub async fn init(
    store: &Store,
    restic: &Restic,
    owner: &Owner<'_>,
    cancel: &CancellationToken,
) -> Result<InitResult, MoverError> {
    require_uid(store, owner.uid)?;
    store.look().await?;
    if store.takes_any_name() {
        match read_marker(store).await? {
            Some(marker) => require_ours(store, &marker, owner.uid)?,
            None => write_marker(store, owner.uid, owner.object).await?,
        }
    } else {
        require_own_key(store, &store.list_all("").await?, owner.password).await?;
    }
    let created = !opens(restic, cancel).await?;
    if created {
        remove_half_made(store).await?;
        let mut command = restic.init();
        Child::spawn(&mut command, &restic.complaints)?.run_lines(cancel, |_| {}).await?.into_result()?;
        tracing::info!(repository = %store.location(), "repository made");
    }
    key::make_cheap(store, owner.password.as_bytes()).await?;
    Ok(InitResult { created })
}

/// Where no marker can lie, a key file that our password opens says whose prefix this is: the password is random and
/// one migration's only.
pub(super) async fn require_own_key(
    store: &Store,
    keys: &[String],
    password: &str,
) -> Result<(), MoverError> {
    let Some(first) = keys.iter().find(|key| !is_ours_beside(store, key)) else { return Ok(()) };
    if key::own_keys(store, password.as_bytes()).await?.any() {
        return Ok(());
    }
    let message = format!(
        "{} holds objects like {first}, but no key file that this migration's password opens; nothing was touched",
        store.location()
    );
    Err(MoverError::terminal(FailureReason::ForeignRepository, message))
}

async fn opens(restic: &Restic, cancel: &CancellationToken) -> Result<bool, MoverError> {
    let mut command = restic.cat_config();
    match Child::spawn(&mut command, &restic.complaints)?.run_lines(cancel, |_| {}).await?.into_result() {
        Ok(()) => Ok(true),
        Err(ResticError::NoRepository(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// An `init` that was killed between key and config leaves a key, and then restic refuses every other `init`.
async fn remove_half_made(store: &Store) -> Result<(), MoverError> {
    let keys = store.list_all("").await?;
    let (half_made, other): (Vec<String>, Vec<String>) = keys
        .into_iter()
        .filter(|key| !is_ours_beside(store, key))
        .partition(|key| key.starts_with(key::KEYS));
    if let Some(first) = other.first() {
        let message = format!(
            "{} has no repository that opens, but {} objects like {first}; they are left alone: look at them or use another prefix",
            store.location(),
            other.len()
        );
        return Err(MoverError::terminal(FailureReason::ForeignRepository, message));
    }
    Ok(store.delete_many(&half_made).await?)
}

/// The marker and probes: objects of ours that are no part of a repository.
pub(super) fn is_ours_beside(store: &Store, key: &str) -> bool {
    key == MARKER || store.is_probe(key)
}

/// The marker, if there is one. One that cannot be read is somebody else's.
pub(super) async fn read_marker(store: &Store) -> Result<Option<Marker>, MoverError> {
    let content = match store.get(MARKER, MAX_MARKER).await {
        Ok(content) => content,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    parse_marker(&content).map(Some).map_err(|why| {
        let message =
            format!("{}/{MARKER} is not one of our markers ({why}); nothing was touched", store.location());
        MoverError::terminal(FailureReason::ForeignRepository, message)
    })
}

/// Reads a marker. What stands in one of ours fits into a message.
pub fn parse_marker(content: &[u8]) -> Result<Marker, String> {
    let marker: Marker = serde_json::from_slice(content).map_err(|error| shown(&error.to_string()))?;
    let ours = |text: &str, most| text.len() <= most && !text.chars().any(char::is_control);
    if ours(&marker.uid, MAX_UID) && ours(&marker.object, MAX_OBJECT) {
        return Ok(marker);
    }
    Err("its uid or its object is none of Kubernetes".to_owned())
}

async fn write_marker(store: &Store, uid: &str, object: &str) -> Result<(), MoverError> {
    if let Some(first) = store.list_all("").await?.iter().find(|key| !is_ours_beside(store, key)) {
        let message = format!(
            "{} holds objects like {first}, but no marker of ours; use another prefix",
            store.location()
        );
        return Err(MoverError::terminal(FailureReason::ForeignRepository, message));
    }
    let created_at = jiff::Timestamp::now().to_string();
    let marker = Marker { uid: uid.to_owned(), object: object.to_owned(), created_at };
    let content = serde_json::to_vec(&marker)
        .map_err(|error| MoverError::terminal(FailureReason::Internal, format!("the marker: {error}")))?;
    Ok(store.put(MARKER, content).await?)
}

pub(super) fn require_ours(store: &Store, marker: &Marker, uid: &str) -> Result<(), MoverError> {
    if marker.uid == uid {
        return Ok(());
    }
    let message = format!(
        "{} belongs to migration {} ({}), not to {uid}; nothing was touched",
        store.location(),
        marker.uid,
        marker.object
    );
    Err(MoverError::terminal(FailureReason::ForeignRepository, message))
}

/// A uid that is not empty and is the last part of the prefix.
pub(super) fn require_uid(store: &Store, uid: &str) -> Result<(), MoverError> {
    if !uid.is_empty() && store.location().last_part() == uid {
        return Ok(());
    }
    let message =
        format!("the repository {} does not end with /{uid}, the migration's uid; refused", store.location());
    Err(MoverError::terminal(FailureReason::InvalidArguments, message))
}
