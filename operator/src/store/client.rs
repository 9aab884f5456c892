//! One place in an object store: small calls of our own, below one prefix.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use sha2::{Digest, Sha256};

use super::{
    error::StoreError,
    http::{StoreOptions, refused},
    keys::StoreKeys,
    location::{ObjectStoreLocation, Place},
    removal,
    rest::Rest,
    s3::S3,
    stored::{Removed, Stored},
    swift::Swift,
};
use crate::contract::Kept;

/// Names of the objects that a probe writes begin so, where a store takes any name.
const PROBE_PREFIX: &str = ".probe-";
/// rest-server takes only names that restic gives. What lies here is nothing as long as no index names it.
const PROBE_PREFIX_REST: &str = "data/";
/// Deletions at once, in stores that delete one by one.
const DELETIONS: usize = 8;
/// How often a call is made that a store in trouble refuses.
const TRIES: u32 = 5;

/// How the three calls of a probe went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Milliseconds for the write.
    pub write_ms: u64,
    /// Milliseconds for reading it back.
    pub read_ms: u64,
    /// Milliseconds for the deletion.
    pub delete_ms: u64,
    /// What of it stays, and until when.
    pub kept: Option<Kept>,
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

    /// Sees that bucket or container is there and takes our keys; writes nothing.
    pub async fn look(&self) -> Result<(), StoreError> {
        patiently(|| self.look_once().boxed()).await
    }

    /// To be called before restic, which makes a container that is missing. Whatever else is wrong restic meets, too,
    /// and waits for it.
    pub async fn require_place(&self) -> Result<(), StoreError> {
        match self.look_once().await {
            // restic would ask for the bucket's region with these keys for a quarter of an hour.
            Err(
                error @ (StoreError::NoBucket { .. }
                | StoreError::ClockSkew { .. }
                | StoreError::Unauthorized { .. }),
            ) => Err(error),
            _ => Ok(()),
        }
    }

    async fn look_once(&self) -> Result<(), StoreError> {
        match &self.backend {
            Backend::S3(s3) => s3.look(&self.base()).await,
            Backend::Rest(rest) => rest.look(&self.base()).await,
            Backend::Swift(swift) => swift.look().await.map(drop),
        }
    }

    /// Writes one object.
    pub async fn put(&self, key: &str, body: impl Into<Bytes>) -> Result<(), StoreError> {
        self.write(key, body.into()).await.map(drop)
    }

    /// Writes one object; gives the version that it became.
    async fn write(&self, key: &str, body: Bytes) -> Result<Option<String>, StoreError> {
        let key = self.full_key(key)?;
        patiently(|| {
            async {
                match &self.backend {
                    Backend::S3(s3) => s3.put(&key, body.clone()).await,
                    Backend::Rest(rest) => rest.put(&key, body.clone()).await.map(|()| None),
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
        self.delete_version(key, None).await
    }

    /// The same of one version; S3's are removed by the batch.
    async fn delete_version(&self, key: &str, version: Option<&str>) -> Result<(), StoreError> {
        let key = self.full_key(key)?;
        let deleted = patiently(|| {
            async {
                match &self.backend {
                    Backend::S3(s3) => s3.delete(&key).await,
                    Backend::Rest(rest) => rest.delete(&key).await,
                    Backend::Swift(swift) => swift.delete(&key, version).await,
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
        listed.await?.into_iter().map(|key| self.relative(key, &prefix)).collect()
    }

    /// Everything below the prefix, down to versions and markers of deletions, as far as the store shows them.
    pub async fn list_stored(&self) -> Result<Vec<Stored>, StoreError> {
        let base = self.base();
        let seen = match &self.backend {
            Backend::S3(s3) => removal::seen(patiently(|| s3.versions(&base).boxed()).await)?,
            Backend::Swift(swift) => {
                let rows = patiently(|| swift.versions(&base).boxed()).await?;
                let stored = |(key, version)| Stored { key, version, written: None };
                Some(rows.into_iter().map(stored).collect())
            }
            Backend::Rest(_) => None,
        };
        let Some(seen) = seen else {
            return Ok(self.list_all("").await?.into_iter().map(Stored::plain).collect());
        };
        let relative =
            |stored: Stored| Ok::<_, StoreError>(Stored { key: self.relative(stored.key, &base)?, ..stored });
        seen.into_iter().map(relative).collect()
    }

    /// What the store said, without our prefix.
    fn relative(&self, key: String, prefix: &str) -> Result<String, StoreError> {
        let ours = key.strip_prefix(&self.base()).filter(|_| key.starts_with(prefix)).map(str::to_owned);
        ours.ok_or_else(|| refused(&format!("LIST {prefix}"), "a key outside of the prefix was listed"))
    }

    /// Removes objects and versions for good, and tells what the store keeps of them. What it does not delete, without
    /// a reason of its own, is an error.
    pub async fn remove(&self, objects: &[Stored]) -> Result<Removed, StoreError> {
        let full = |stored: &Stored| {
            Ok::<_, StoreError>(Stored { key: self.full_key(&stored.key)?, ..stored.clone() })
        };
        if let Backend::S3(s3) = &self.backend {
            let objects = objects.iter().map(full).collect::<Result<Vec<_>, _>>()?;
            return removal::remove(s3, &objects).await;
        }
        let each: Vec<_> = objects
            .iter()
            .map(|stored| self.delete_version(&stored.key, stored.version.as_deref()).boxed())
            .collect();
        stream::iter(each).buffer_unordered(DELETIONS).try_collect::<()>().await?;
        let deleted = objects.len() as u64;
        let Backend::Swift(swift) = &self.backend else { return Ok(Removed { deleted, kept: None }) };
        let copied = if objects.is_empty() { None } else { patiently(|| swift.look().boxed()).await? };
        let kept = copied.map(|container| Kept {
            objects: deleted,
            until: None,
            message: format!(
                "container {} copies what is deleted into container {container}; delete the copies there yourself",
                swift.name()
            ),
        });
        Ok(Removed { deleted, kept })
    }

    /// Ends uploads below the prefix that nobody ended.
    pub async fn abort_uploads(&self) -> Result<(), StoreError> {
        let Backend::S3(s3) = &self.backend else { return Ok(()) };
        let base = self.base();
        patiently(|| s3.abort_uploads(&base).boxed()).await
    }

    /// Deletes objects; any that the store did not delete is an error.
    pub async fn delete_many(&self, keys: &[String]) -> Result<(), StoreError> {
        self.remove(&keys.iter().map(Stored::plain).collect::<Vec<_>>()).await.map(drop)
    }

    /// Writes a small random object where bucket or container is there already, reads it back, and removes it.
    pub async fn probe(&self) -> Result<Probed, StoreError> {
        self.look().await?;
        let content = Bytes::from(rand::random::<[u8; 32]>().to_vec());
        let key = match self.backend {
            Backend::Rest(_) => format!("{PROBE_PREFIX_REST}{}", hex::encode(Sha256::digest(&content))),
            Backend::S3(_) | Backend::Swift(_) => format!("{PROBE_PREFIX}{:032x}", rand::random::<u128>()),
        };
        let start = Instant::now();
        let version = match self.write(&key, content.clone()).await {
            Ok(version) => version,
            Err(error) => {
                // Some stores keep what they said no to.
                if !matches!(error, StoreError::Unreachable { .. }) {
                    let _ = self.delete(&key).await;
                }
                return Err(error);
            }
        };
        let write_ms = millis(start);
        let start = Instant::now();
        let read = self.get(&key, 1024).await;
        let read_ms = millis(start);
        let start = Instant::now();
        // Removed before the reading is judged, so that nothing stays behind.
        let kept = self.remove_probe(&key, version).await?;
        let delete_ms = millis(start);
        if read? != content {
            return Err(refused(&format!("GET {key}"), "other bytes came back than were written"));
        }
        Ok(Probed { write_ms, read_ms, delete_ms, kept })
    }

    /// What cannot be removed is at least not seen any more.
    async fn remove_probe(&self, key: &str, version: Option<String>) -> Result<Option<Kept>, StoreError> {
        let Some(version) = version else { return self.delete(key).await.map(|()| None) };
        let stored =
            Stored { key: key.to_owned(), version: Some(version), written: Some(jiff::Timestamp::now()) };
        let removed = self.remove(&[stored]).await?;
        if removed.kept.is_some() {
            self.delete(key).await?;
        }
        Ok(removed.kept)
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
pub(super) async fn patiently<'a, T>(
    call: impl Fn() -> BoxFuture<'a, Result<T, StoreError>>,
) -> Result<T, StoreError> {
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
