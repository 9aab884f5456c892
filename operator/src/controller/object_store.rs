//! One reconcile of an `ObjectStore`: a real write, read and delete; `Ready`.

use super::{
    Error,
    context::Context,
    references::{keys, store_files},
    watch::current_if_readable,
};
use crate::{
    crd::{
        conditions::{Outcome, reason, set_outcome},
        stored::Stored,
        v1alpha1::ObjectStore,
    },
    net::address_check,
    store::{ObjectStoreLocation, Store, StoreOptions},
};
use kube::{Api, ResourceExt, api::PostParams, runtime::controller::Action};
use std::{sync::Arc, time::Duration};

/// Looks; a Secret is not watched, so it looks again by itself.
pub async fn reconcile(cached: Arc<Stored<ObjectStore>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(object) = current_if_readable(&ctx, &cached).await? else {
        return Ok(Action::await_change());
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().unwrap_or_default();
    let outcome = probe(&ctx, &namespace, &object).await?;
    let generation = object.metadata.generation;
    let mut status = object.status.clone().unwrap_or_default();
    status.observed_generation = generation;
    let ready = set_outcome(
        &mut status.conditions,
        outcome,
        "an object was written, read and deleted",
        generation,
        ctx.now(),
    );
    if object.status.as_ref() != Some(&status) {
        let api: Api<ObjectStore> = Api::namespaced(ctx.client.clone(), &namespace);
        let mut written = object.clone();
        written.status = Some(status);
        api.replace_status(&object.name_any(), &PostParams::default(), &written)
            .await
            .map_err(Error::kube("write the status"))?;
    }
    Ok(Action::requeue(Duration::from_secs(if ready { 120 } else { 10 })))
}

async fn probe(ctx: &Context, namespace: &str, object: &ObjectStore) -> Result<Outcome, Error> {
    let files = match store_files(ctx, namespace, object).await? {
        Ok(f) => f,
        Err(message) => return Ok(Err((reason::INVALID_CONFIGURATION, message))),
    };
    let location = match ObjectStoreLocation::parse(&object.spec.location) {
        Ok(l) => l,
        Err(e) => return Ok(Err((reason::INVALID_CONFIGURATION, e.to_string()))),
    };
    let mut options = StoreOptions::new(address_check(ctx.policy()));
    options.ca_pem = files.get("store-cacert").cloned();
    let tried = async { Store::new(&location, &keys(&location, &files)?, &options)?.probe().await };
    Ok(tried.await.map(|_| ()).map_err(|e| {
        let why = if e.is_transient() { reason::TRANSIENT_ERROR } else { reason::INVALID_CONFIGURATION };
        (why, e.to_string())
    }))
}
