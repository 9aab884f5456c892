//! The controllers: what watches, what reconciles, and how it ends.

pub mod block_storage;
pub mod clouds;
pub mod clusters;
pub mod context;
pub mod dress;
mod ended_jobs;
pub mod execute;
mod hooks;
pub mod lost;
mod object_store;
pub mod observe;
mod open_stack_cloud;
mod reconcile;
pub mod references;
pub mod remove;
mod watch;

use crate::crd::{
    stored::Stored,
    v1alpha1::{ObjectStore, OpenStackCloud, Phase, VmMigration},
};
use context::Context;
use futures::{StreamExt, future};
use kube::{
    ResourceExt,
    runtime::{
        Controller, Predicate, PredicateConfig, WatchStreamExt,
        controller::{Action, Config},
        predicates,
        reflector::{self, ObjectRef},
    },
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use watch::{Kind, reflected, watch};

/// Runs all controllers until the token is cancelled; what is under way is finished.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let migrations = run_migrations(ctx.clone(), stop.clone());
    let clouds = run_simple::<OpenStackCloud, _, _>(ctx.clone(), stop.clone(), open_stack_cloud::reconcile);
    let stores = run_simple::<ObjectStore, _, _>(ctx, stop, object_store::reconcile);
    future::join3(migrations, clouds, stores).await;
}

/// An object is looked at again when somebody changed it, not when we wrote its status.
fn changed_by_others<K: kube::Resource>() -> impl Predicate<K> {
    predicates::generation.combine(predicates::finalizers).combine(predicates::annotations)
}

async fn run_migrations(ctx: Arc<Context>, stop: CancellationToken) {
    let (reader, stream) = reflected::<VmMigration>(&ctx);
    let stream = stream.predicate_filter(changed_by_others(), PredicateConfig::default());
    let waiting_for = |reader: reflector::Store<Stored<VmMigration>>| {
        move |namespace: Option<String>| -> Vec<ObjectRef<Stored<VmMigration>>> {
            let waits = |m: &Arc<Stored<VmMigration>>| {
                let status = m.0.as_ref().ok().and_then(|m| m.status.as_ref());
                let phase = status.and_then(|s| s.phase).unwrap_or_default();
                m.namespace() == namespace
                    && matches!(phase, Phase::Pending | Phase::Preflight | Phase::Blocked)
            };
            reader.state().iter().filter(|m| waits(m)).map(|m| ObjectRef::from_obj(m.as_ref())).collect()
        }
    };
    let (of_cloud, of_store) = (waiting_for(reader.clone()), waiting_for(reader.clone()));
    let _watched = ctx.clusters.watch_own();
    let known = reader.clone();
    let of_uid = move |uid: String| known.find(|m| m.uid().as_ref() == Some(&uid));
    let of_job = ctx.clusters.ended_jobs().map(of_uid);
    let of_job = of_job.filter_map(|m| future::ready(m.map(|m| ObjectRef::from_obj(m.as_ref()))));
    let clouds = watch::<OpenStackCloud>(&ctx, " of migrations").touched_objects();
    let stores = watch::<ObjectStore>(&ctx, " of migrations").touched_objects();
    Controller::for_stream(stream, reader)
        .reconcile_on(of_job)
        .watches_stream(clouds, move |c| of_cloud(c.namespace()))
        .watches_stream(stores, move |s| of_store(s.namespace()))
        .with_config(Config::default().concurrency(ctx.settings.concurrency))
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(reconcile::reconcile, on_error, ctx)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "reconcile");
            }
        })
        .await;
}

async fn run_simple<K, F, Fut>(ctx: Arc<Context>, stop: CancellationToken, reconcile: F)
where
    K: Kind,
    F: FnMut(Arc<Stored<K>>, Arc<Context>) -> Fut,
    Fut: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let (reader, stream) = reflected::<K>(&ctx);
    Controller::for_stream(stream.predicate_filter(changed_by_others(), PredicateConfig::default()), reader)
        .with_config(Config::default().concurrency(4))
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(reconcile, on_error, ctx)
        .for_each(|_| future::ready(()))
        .await;
}

/// An error that a reconcile could not put into a status: the API server did not answer, or somebody else wrote.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kubernetes did not do what was asked.
    #[error("{what}: {source}")]
    Kube {
        /// What was asked.
        what: &'static str,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// Kubernetes did not answer in time.
    #[error("{0}: no answer in time")]
    Timeout(&'static str),
}

impl Error {
    fn kube(what: &'static str) -> impl Fn(kube::Error) -> Error {
        move |source| Error::Kube { what, source: Box::new(source) }
    }

    /// Somebody else wrote the object meanwhile.
    fn is_conflict(&self) -> bool {
        matches!(self, Error::Kube { source, .. } if matches!(source.as_ref(), kube::Error::Api(s) if s.is_conflict()))
    }
}

fn on_error<K: ResourceExt>(object: Arc<K>, error: &Error, ctx: Arc<Context>) -> Action {
    if error.is_conflict() {
        return Action::requeue(Duration::from_millis(200));
    }
    ctx.metrics.reconcile_errors.inc();
    tracing::warn!(name = object.name_any(), namespace = object.namespace(), %error, "will try again");
    Action::requeue(Duration::from_secs(3))
}
