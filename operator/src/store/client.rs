//! One place in an object store: small calls of our own, below one prefix.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    error::StoreError,
    http::{StoreOptions, refused},
    keys::StoreKeys,
    location::{ObjectStoreLocation, Place},
    rest::Rest,
    s3::S3,
    swift::Swift,
};

/// Names of the objects that a probe writes begin so, where a store takes any name.
const PROBE_PREFIX: &str = ".probe-";
/// rest-server takes only names that restic gives. What lies here is nothing as long as no index names it.
const PROBE_PREFIX_REST: &str = "data/";
/// Deletions at once, in stores that delete one by one.
const DELETIONS: usize = 8;
/// How often a call is made that a store in trouble refuses.
const TRIES: u32 = 5;

/// How long the three calls of a probe took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeTimes {
    /// Milliseconds for the write.
    pub write_ms: u64,
    /// Milliseconds for reading it back.
    pub read_ms: u64,
    /// Milliseconds for the deletion.
    pub delete_ms: u64,
}

/// One place in an object store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    location: ObjectStoreLocation,
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    S3(S3),
    Rest(Rest),
    Swift(Swift),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Store {
    /// A client for one location. Connects to nothing yet.
    pub fn new(
        location: &ObjectStoreLocation,
        keys: &StoreKeys,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        let backend = match location.place() {
            Place::S3 { endpoint, bucket } => Backend::S3(S3::new(endpoint, bucket, keys, options)?),
            Place::Rest { endpoint } => Backend::Rest(Rest::new(endpoint, keys, options)?),
            Place::Swift { container } => Backend::Swift(Swift::new(container, keys, options)?),
        };
        Ok(Self { location: location.clone(), backend })
    }

    /// Where this is.
    pub fn location(&self) -> &ObjectStoreLocation {
        &self.location
    }

    /// Whether objects of our own names can lie beside a repository.
    pub fn takes_any_name(&self) -> bool {
        !matches!(self.backend, Backend::Rest(_))
    }

    /// Whether this is a name that probes have.
    pub fn is_probe(&self, key: &str) -> bool {
        match self.backend {
            Backend::Rest(_) => key.starts_with(PROBE_PREFIX_REST),
            Backend::S3(_) | Backend::Swift(_) => key.starts_with(PROBE_PREFIX) && !key.contains('/'),
        }
    }

    /// Writes one object.
    pub async fn put(&self, key: &str, body: impl Into<Bytes>) -> Result<(), StoreError> {
        let (key, body) = (self.full_key(key)?, body.into());
        patiently(|| {
            async {
                match &self.backend {
                    Backend::S3(s3) => s3.put(&key, body.clone()).await,
                    Backend::Rest(rest) => rest.put(&key, body.clone()).await,
                    Backend::Swift(swift) => swift.put(&key, body.clone()).await,
                }
            }
            .boxed()
        })
        .await
    }

    /// Reads one object of at most `limit` bytes.
    pub async fn get(&self, key: &str, limit: usize) -> Result<Bytes, StoreError> {
        let key = self.full_key(key)?;
        patiently(|| {
            async {
                match &self.backend {
                    Backend::S3(s3) => s3.get(&key, limit).await,
                    Backend::Rest(rest) => rest.get(&key, limit).await,
                    Backend::Swift(swift) => swift.get(&key, limit).await,
                }
            }
            .boxed()
        })
        .await
    }

    /// Deletes one object; one that is not there is fine.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let key = self.full_key(key)?;
        let deleted = patiently(|| {
            async {
                match &self.backend {
                    Backend::S3(s3) => s3.delete(&key).await,
                    Backend::Rest(rest) => rest.delete(&key).await,
                    Backend::Swift(swift) => swift.delete(&key).await,
                }
            }
            .boxed()
        });
        match deleted.await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The keys of all objects below `under` (empty: the whole prefix), relative to the prefix.
    pub async fn list_all(&self, under: &str) -> Result<Vec<String>, StoreError> {
        let base = self.base();
        let prefix = format!("{base}{under}");
        let listed = patiently(|| {
            async {
                match &self.backend {
                    Backend::S3(s3) => s3.list(&prefix).await,
                    Backend::Rest(rest) => rest.list(&base, under).await,
                    Backend::Swift(swift) => swift.list(&prefix).await,
                }
            }
            .boxed()
        });
        let relative = |key: String| {
            let ours = key.strip_prefix(&base).filter(|_| key.starts_with(&prefix)).map(str::to_owned);
            ours.ok_or_else(|| refused(&format!("LIST {prefix}"), "a key outside of the prefix was listed"))
        };
        listed.await?.into_iter().map(relative).collect()
    }

    /// Deletes objects; any that the store did not delete is an error.
    pub async fn delete_many(&self, keys: &[String]) -> Result<(), StoreError> {
        if let Backend::S3(s3) = &self.backend {
            let keys = keys.iter().map(|key| self.full_key(key)).collect::<Result<Vec<_>, _>>()?;
            return patiently(|| s3.delete_many(&keys).boxed()).await;
        }
        stream::iter(keys.iter().map(|key| self.delete(key))).buffer_unordered(DELETIONS).try_collect().await
    }

    /// Writes a small random object, reads it back, deletes it, and sees that it is gone.
    pub async fn probe(&self) -> Result<ProbeTimes, StoreError> {
        let content = Bytes::from(rand::random::<[u8; 32]>().to_vec());
        let key = match self.backend {
            Backend::Rest(_) => format!("{PROBE_PREFIX_REST}{}", hex::encode(Sha256::digest(&content))),
            Backend::S3(_) | Backend::Swift(_) => format!("{PROBE_PREFIX}{:032x}", rand::random::<u128>()),
        };
        let start = Instant::now();
        if let Err(error) = self.put(&key, content.clone()).await {
            // Some stores keep what they said no to.
            if !matches!(error, StoreError::Unreachable { .. }) {
                let _ = self.delete(&key).await;
            }
            return Err(error);
        }
        let write_ms = millis(start);
        let start = Instant::now();
        let read = self.get(&key, 1024).await;
        let read_ms = millis(start);
        let start = Instant::now();
        // Deleted before the reading is judged, so that nothing stays behind.
        self.delete(&key).await?;
        let delete_ms = millis(start);
        if read? != content {
            return Err(refused(&format!("GET {key}"), "other bytes came back than were written"));
        }
        Ok(ProbeTimes { write_ms, read_ms, delete_ms })
    }

    fn base(&self) -> String {
        match self.location.prefix() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    fn full_key(&self, key: &str) -> Result<String, StoreError> {
        if key.is_empty() || key.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(StoreError::Invalid(format!("{key:?} is no object key")));
        }
        Ok(format!("{}{key}", self.base()))
    }
}

/// Makes a call again, after longer and longer pauses, while the store is only in trouble.
async fn patiently<'a, T>(call: impl Fn() -> BoxFuture<'a, Result<T, StoreError>>) -> Result<T, StoreError> {
    let mut attempt = 1;
    loop {
        match call().await {
            Err(error) if error.is_busy() && attempt < TRIES => {
                tracing::warn!(attempt, "trying once more: {error}");
                tokio::time::sleep(Duration::from_millis(250 << attempt)).await;
                attempt += 1;
            }
            ended => return ended,
        }
    }
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
