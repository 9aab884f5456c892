//! The watches of our own kinds. One object hides no other, and a watch that fails is warned of, counted, and known to
//! whoever asks for the operator's health.

use super::{Error, context::Context};
use crate::crd::{
    conditions::{reason, set_outcome},
    stored::{Stored, Unreadable},
};
use futures::{Stream, StreamExt};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt, reflector,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{fmt::Debug, time::Instant};

/// A kind of ours.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// All objects of a kind, and what becomes of them. `of` tells watches of one kind from each other.
pub fn watch<K: Kind>(
    ctx: &Context,
    of: &str,
) -> impl Stream<Item = watcher::Result<Event<Stored<K>>>> + Send + use<K> {
    let (metrics, watches, kind) = (ctx.metrics.clone(), ctx.watches.clone(), K::kind(&()).into_owned());
    let name = format!("{kind}{of}");
    watches.begins(&name, Instant::now());
    let all = Api::<Stored<K>>::all(ctx.client.clone());
    watcher(all, watcher::Config::default()).default_backoff().inspect(move |event| match event {
        // A list has only begun.
        Ok(Event::Init) => {}
        Ok(_) => watches.works(&name),
        Err(error) => {
            tracing::warn!(kind, %error, "the watch failed; it is tried again");
            metrics.watch_error(&kind);
            watches.fails(&name, crate::contract::shorten(&error.to_string(), 256), Instant::now());
        }
    })
}

/// The same, for a controller: objects that were made or have changed, and all of them at any time.
pub fn reflected<K: Kind>(
    ctx: &Context,
) -> (reflector::Store<Stored<K>>, impl Stream<Item = watcher::Result<Stored<K>>> + Send + use<K>) {
    let (reader, writer) = reflector::store::<Stored<K>>();
    (reader, watch::<K>(ctx, "").reflect(writer).applied_objects())
}

/// An object as it is now; `None`: it is gone.
pub async fn current<K: Kind>(ctx: &Context, cached: &Stored<K>) -> Result<Option<Stored<K>>, Error> {
    api(ctx, cached.meta().namespace.as_deref())
        .get_opt(&cached.name_any())
        .await
        .map_err(Error::kube("read an object"))
}

/// The same for what can do nothing else with one that cannot be read than to say so.
pub async fn current_if_readable<K: Kind>(ctx: &Context, cached: &Stored<K>) -> Result<Option<K>, Error> {
    match current(ctx, cached).await? {
        Some(Stored(Ok(object))) => Ok(Some(object)),
        Some(Stored(Err(unreadable))) => tell::<K>(ctx, &unreadable).await.map(|()| None),
        None => Ok(None),
    }
}

/// Writes onto an object that it cannot be read. It is looked at again when it has changed.
pub async fn tell<K: Kind>(ctx: &Context, unreadable: &Unreadable) -> Result<(), Error> {
    let (kind, metadata) = (K::kind(&()), &unreadable.metadata);
    let name = metadata.name.clone().unwrap_or_default();
    let message = format!(
        "this object cannot be read, and nothing is done with it: {unreadable}; correct it with kubectl edit"
    );
    tracing::warn!(%kind, name, namespace = metadata.namespace, message);
    let mut conditions = unreadable.conditions.clone();
    let outcome = Err((reason::INVALID_CONFIGURATION, message.clone()));
    set_outcome(&mut conditions, outcome, "", metadata.generation, ctx.now());
    if conditions == unreadable.conditions {
        return Ok(());
    }
    let mut status = json!({"conditions": conditions, "observedGeneration": metadata.generation});
    if kind == "VmMigration" {
        status["message"] = json!(message);
    }
    let patch = Patch::Merge(json!({"status": status}));
    let written = api::<K>(ctx, metadata.namespace.as_deref())
        .patch_status(&name, &PatchParams::default(), &patch)
        .await;
    match written {
        Err(kube::Error::Api(s)) if s.is_not_found() => Ok(()),
        other => other.map(drop).map_err(Error::kube("write the status of an object that cannot be read")),
    }
}

fn api<K: Kind>(ctx: &Context, namespace: Option<&str>) -> Api<Stored<K>> {
    Api::namespaced(ctx.client.clone(), namespace.unwrap_or_default())
}
