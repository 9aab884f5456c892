//! Movers' Jobs that end: what wakes a migration before it would look by itself. Where a cluster cannot be watched
//! nothing is lost but time.

use super::clusters::MoverCluster;
use crate::{metrics::Metrics, migration::names::LABEL_MIGRATION};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, Sender, error::RecvError};
use tokio_util::sync::{CancellationToken, DropGuard};

/// So many ends may be told before the first is heard; those that are not are seen by looking.
const CAPACITY: usize = 1024;

/// Where ends are told.
pub fn channel() -> Sender<String> {
    Sender::new(CAPACITY)
}

/// UIDs of migrations, as told.
pub fn stream(told: Receiver<String>) -> impl Stream<Item = String> + Send {
    stream::unfold(told, |mut told| async move {
        loop {
            match told.recv().await {
                Ok(uid) => return Some((uid, told)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

/// Watches the Jobs of one cluster until the guard is dropped.
pub fn watch(called: &str, cluster: &MoverCluster, told: Sender<String>, metrics: Arc<Metrics>) -> DropGuard {
    let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let stop = CancellationToken::new();
    let (guard, called, namespace) =
        (stop.clone().drop_guard(), called.to_string(), cluster.namespace.clone());
    tokio::spawn(async move {
        let ours = watcher::Config::default().labels(LABEL_MIGRATION);
        let seen = watcher(jobs, ours).default_backoff().touched_objects();
        let tell = seen.for_each(|job| {
            match job {
                Ok(job) => drop(whose(&job).map(|uid| told.send(uid))),
                // They are looked at all the same, if later.
                Err(error) => {
                    tracing::warn!(cluster = called, namespace, %error, "Jobs cannot be watched; it is tried again");
                    metrics.watch_error("Job");
                }
            }
            std::future::ready(())
        });
        stop.run_until_cancelled(tell).await
    });
    guard
}

/// The migration of a Job that has ended, or goes.
fn whose(job: &Job) -> Option<String> {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let over = |c: &str| matches!(c, "Complete" | "Failed");
    let ended = conditions.into_iter().any(|c| over(&c.type_) && c.status == "True");
    let uid =
        job.labels().get(LABEL_MIGRATION).filter(|_| ended || job.metadata.deletion_timestamp.is_some());
    uid.cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_that_ended_or_goes_is_told_of() {
        let condition = |kind: &str, status: &str| json!({"conditions": [{"type": kind, "status": status}]});
        let table = [
            (json!({"active": 1}), None, false),
            (condition("Complete", "True"), None, true),
            (condition("Failed", "True"), None, true),
            (condition("Failed", "False"), None, false),
            (condition("Suspended", "True"), None, false),
            (json!({"active": 1}), Some("2026-01-01T00:00:00Z"), true),
        ];
        for (status, deleted, told) in table {
            let metadata = json!({"labels": {LABEL_MIGRATION: "uid"}, "deletionTimestamp": deleted});
            let job = serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap();
            assert_eq!(whose(&job), told.then(|| "uid".to_string()), "{status} {deleted:?}");
        }
    }

    #[tokio::test]
    async fn who_listens_late_hears_the_rest() {
        let told = channel();
        let mut heard = Box::pin(stream(told.subscribe()));
        for n in 0..=CAPACITY {
            told.send(n.to_string()).unwrap();
        }
        assert_eq!(heard.next().await.as_deref(), Some("1"));
        drop(told);
        assert_eq!(heard.count().await, CAPACITY - 1);
    }
}
