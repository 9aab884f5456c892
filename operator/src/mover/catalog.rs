//! What the restoring side knows of a pass: read from one manifest, or gathered by polling while the pass is made.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{error::MoverError, repository::Repository, restore::RestoreRequest};
use crate::{
    contract::{FailureReason, SnapshotId},
    restic::Complaints,
    transfer::{
        Content, Layout, Manifest,
        tags::{Kind, Listed, Listing},
    },
};

/// Between two looks at the store's list of snapshots, which is one small request.
const POLL: Duration = Duration::from_millis(500);
/// How often a look may fail in a row, while the store answers.
const TRIES: u32 = 5;
/// For how long it may not answer: restic makes its own calls again for as long.
const OUTAGE: Duration = Duration::from_secs(15 * 60);

/// What is known so far.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// How the disk is cut.
    pub layout: Layout,
    /// Snapshots of segments of which no manifest speaks yet.
    listed: BTreeMap<usize, SnapshotId>,
    /// The manifest that knows most.
    pub manifest: Option<Manifest>,
    /// Its snapshot.
    pub manifest_id: Option<SnapshotId>,
}

impl Catalog {
    /// Everything about a pass that has ended.
    pub fn complete(id: SnapshotId, manifest: Manifest) -> Result<Self, MoverError> {
        let layout =
            manifest.layout().map_err(|why| MoverError::terminal(FailureReason::DigestMismatch, why))?;
        Ok(Self { layout, listed: BTreeMap::new(), manifest: Some(manifest), manifest_id: Some(id) })
    }

    /// Where a segment's bytes are, if that is known.
    pub fn content(&self, index: usize) -> Option<Content> {
        let named = self.manifest.as_ref().and_then(|manifest| manifest.segments.get(index)?.as_ref());
        match named {
            Some(segment) => Some(segment.content.clone()),
            None => self.listed.get(&index).cloned().map(Content::Stored),
        }
    }

    /// What a segment must hash to, if that is known.
    pub fn sha256(&self, index: usize) -> Option<&str> {
        let segment = self.manifest.as_ref()?.segments.get(index)?.as_ref()?;
        Some(&segment.sha256)
    }

    /// Whether the pass has ended.
    pub fn is_complete(&self) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.complete)
    }
}

/// Looks at the repository again and again until the pass is complete.
pub struct Watcher<'a> {
    repository: &'a Repository,
    /// For how long nothing new may appear.
    patience: Duration,
    origin: String,
    seen: usize,
    /// The names at the last good look.
    names: Vec<String>,
}

/// Bears what passes by itself, within bounds, and tells whoever watches the progress.
#[derive(Default)]
struct Bearing {
    failures: u32,
    since: Option<Instant>,
}

impl Bearing {
    /// `None`: look again.
    fn bear<T>(
        &mut self,
        looked: Result<T, MoverError>,
        complaints: &Complaints,
    ) -> Result<Option<T>, MoverError> {
        let error = match looked {
            Ok(found) => {
                *self = Self::default();
                return Ok(Some(found));
            }
            Err(error) => error,
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        let passes = match error.reason {
            FailureReason::Terminated => false,
            FailureReason::StoreError => error.retryable && since.elapsed() < OUTAGE,
            _ => error.retryable && self.failures < TRIES,
        };
        if !passes {
            return Err(error);
        }
        if self.failures == 0 {
            tracing::warn!("looking for segments failed, and goes on: {error}");
        }
        self.failures += 1;
        complaints.tell(error.message);
        Ok(None)
    }
}

/// All snapshots, if the names in the store are others than at the last good look: only then they are worth a restic
/// process. What comes or goes while restic looks is news again.
async fn changed(
    repository: &Repository,
    before: &[String],
    cancel: &CancellationToken,
) -> Result<Option<(Vec<String>, Listing)>, MoverError> {
    let mut names = repository.store.list_all("snapshots/").await?;
    names.sort_unstable();
    if names == before {
        return Ok(None);
    }
    let list = repository.list(cancel).await?;
    Ok(Some((names, list)))
}

impl<'a> Watcher<'a> {
    /// Waits for the first snapshot of the pass.
    pub async fn begin(
        repository: &'a Repository,
        request: &RestoreRequest,
        cancel: &CancellationToken,
    ) -> Result<(Self, Catalog), MoverError> {
        let patience = request.patience;
        let until = Instant::now() + patience;
        let (mut names, mut bearing) = (Vec::new(), Bearing::default());
        loop {
            let looked = changed(repository, &names, cancel).await;
            let list = match bearing.bear(looked, &repository.restic.complaints)?.flatten() {
                Some((found, list)) => {
                    names = found;
                    list
                }
                None => Listing::default(),
            };
            if let Some(last) =
                list.snapshots.iter().rfind(|listed| wanted(request.origin.as_deref(), listed))
            {
                let mut watcher = Self { repository, patience, origin: last.origin.clone(), seen: 0, names };
                let mut catalog = Catalog {
                    layout: last.layout,
                    listed: BTreeMap::new(),
                    manifest: None,
                    manifest_id: None,
                };
                watcher.take(list, &mut catalog, cancel).await?;
                return Ok((watcher, catalog));
            }
            if Instant::now() > until {
                return Err(impatient(repository, patience));
            }
            pause(cancel).await?;
        }
    }

    /// Tells everything new to whoever listens. Returns when the pass is complete.
    pub async fn run(
        mut self,
        catalog: watch::Sender<Catalog>,
        cancel: &CancellationToken,
    ) -> Result<(), MoverError> {
        let (mut last_news, mut bearing) = (Instant::now(), Bearing::default());
        let mut known = catalog.borrow().clone();
        while !known.is_complete() {
            pause(cancel).await?;
            let looked = self.look(&mut known, cancel).await;
            if let Some(true) = bearing.bear(looked, &self.repository.restic.complaints)? {
                last_news = Instant::now();
                catalog.send_replace(known.clone());
            }
            if last_news.elapsed() > self.patience {
                return Err(impatient(self.repository, self.patience));
            }
        }
        Ok(())
    }

    async fn look(&mut self, catalog: &mut Catalog, cancel: &CancellationToken) -> Result<bool, MoverError> {
        let Some((names, list)) = changed(self.repository, &self.names, cancel).await? else {
            return Ok(false);
        };
        let news = self.take(list, catalog, cancel).await?;
        self.names = names;
        Ok(news)
    }

    /// Whether there is anything new.
    async fn take(
        &mut self,
        list: Listing,
        catalog: &mut Catalog,
        cancel: &CancellationToken,
    ) -> Result<bool, MoverError> {
        let news = list.snapshots.len() != self.seen;
        self.seen = list.snapshots.len();
        let mut best = None;
        for listed in list.snapshots {
            if listed.layout != catalog.layout || listed.origin != self.origin {
                if news {
                    tracing::warn!(snapshot = %listed.id, "left aside: it is of another source");
                }
                continue;
            }
            match listed.kind {
                Kind::Segment(index) => drop(catalog.listed.insert(index, listed.id)),
                Kind::Manifest { done } if best.as_ref().is_none_or(|(most, _)| done >= *most) => {
                    best = Some((done, listed.id));
                }
                _ => {}
            }
        }
        if let Some((_, id)) = best.filter(|(_, id)| catalog.manifest_id.as_ref() != Some(id)) {
            let manifest = self.repository.manifest(&id, cancel).await?;
            catalog.manifest = Some(manifest.without(&list.condemned));
            catalog.manifest_id = Some(id);
        }
        Ok(news)
    }
}

/// Whether a snapshot is of the source that is asked for, if one is.
fn wanted(origin: Option<&str>, listed: &Listed) -> bool {
    origin.is_none_or(|origin| origin == listed.origin)
}

async fn pause(cancel: &CancellationToken) -> Result<(), MoverError> {
    tokio::select! {
        () = cancel.cancelled() => Err(MoverError::terminated()),
        () = tokio::time::sleep(POLL) => Ok(()),
    }
}

fn impatient(repository: &Repository, patience: Duration) -> MoverError {
    let message = format!(
        "nothing new of disk {}, pass {} came into the repository for {} s; look at the backup's Job",
        repository.key.disk,
        repository.key.pass,
        patience.as_secs()
    );
    MoverError::retryable(FailureReason::NothingArrives, message)
}
