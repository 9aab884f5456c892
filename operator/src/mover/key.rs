//! Makes the repository cheap to open: replaces restic's expensive key file by one that costs nothing.

use super::error::MoverError;
use crate::{
    contract::FailureReason,
    restic::key_file::{KeyFile, KeyFileError, MasterKeys},
    store::{Store, StoreError},
};

/// Where key files lie.
pub(super) const KEYS: &str = "keys/";
const MAX_KEY_FILE: usize = 64 << 10;

/// The key files that our password opens.
pub(super) struct OwnKeys {
    /// Their names, with whether they are cheap.
    files: Vec<(String, bool)>,
    master: Option<MasterKeys>,
}

impl OwnKeys {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.master.is_some()
    }
}

/// Tries all key files.
pub(super) async fn own_keys(store: &Store, password: &[u8]) -> Result<OwnKeys, MoverError> {
    let mut own = OwnKeys { files: Vec::new(), master: None };
    for name in store.list_all(KEYS).await? {
        let content = match store.get(&name, MAX_KEY_FILE).await {
            Ok(content) => content,
            // Deleted since the listing.
            Err(StoreError::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let opened = KeyFile::parse(&content).and_then(|file| Ok((file.is_cheap(), file.open(password)?)));
        match opened {
            Ok((cheap, master)) => {
                own.files.push((name, cheap));
                own.master = Some(master);
            }
            Err(error) => tracing::warn!(key = name, "left alone: {error}"),
        }
    }
    Ok(own)
}

/// Writes a cheap key file unless there is one, then deletes the expensive ones that our password opens. Cut short
/// anywhere, the repository opens, and doing it again goes on.
pub(super) async fn make_cheap(store: &Store, password: &[u8]) -> Result<(), MoverError> {
    let own = own_keys(store, password).await?;
    let Some(master) = &own.master else {
        // restic has just opened it.
        let message = format!("{}: no key file opens with the repository's password", store.location());
        return Err(MoverError::retryable(FailureReason::WrongPassword, message));
    };
    if !own.files.iter().any(|(_, cheap)| *cheap) {
        let (name, content) = KeyFile::cheap(master, password, jiff::Timestamp::now())
            .and_then(|file| file.to_bytes())
            .map_err(unmade)?;
        let name = format!("{KEYS}{name}");
        store.put(&name, content.clone()).await?;
        // Nothing is deleted before the new one is known to have arrived.
        let arrived = store.get(&name, MAX_KEY_FILE).await?;
        if arrived != content {
            let message = format!("{}/{name}: other bytes came back than were written", store.location());
            return Err(MoverError::retryable(FailureReason::StoreError, message));
        }
    }
    for (name, _) in own.files.iter().filter(|(_, cheap)| !cheap) {
        store.delete(name).await?;
    }
    Ok(())
}

fn unmade(error: KeyFileError) -> MoverError {
    MoverError::terminal(FailureReason::Internal, format!("a key file: {error}"))
}
