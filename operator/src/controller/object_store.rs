//! One reconcile of an `ObjectStore`: a real write, read and delete; `Ready`.

use super::{
    Error,
    context::Context,
    references::{Unusable, keys, store_secret},
    watch::current_if_readable,
};
use crate::{
    build::secret::Files,
    contract::paths,
    crd::{
        conditions::{Outcome, kind, reason, set_outcome},
        stored::Stored,
        v1alpha1::{ObjectStore, ObjectStoreStatus},
    },
    net::address_check,
    store::{ObjectStoreLocation, Store, StoreError, StoreOptions},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, ResourceExt, api::PostParams, runtime::controller::Action};
use std::{sync::Arc, time::Duration};

/// How often a store that is ready is written to. What is overwritten or deleted may stay there, and cost.
const WRITES: SignedDuration = SignedDuration::from_hours(1);
/// How often it is tried whether there is room again.
const FULL_WRITES: SignedDuration = SignedDuration::from_secs(60);
/// How often a store is written to that refuses it for another reason.
const REFUSED_WRITES: SignedDuration = SignedDuration::from_mins(5);
/// How often a store that is ready is looked at, and its Secret, which is not watched.
const LOOK: Duration = Duration::from_secs(120);
/// How often one that is not.
const LOOK_SOON: Duration = Duration::from_secs(10);
const GOOD: &str = "an object was written, read and deleted";

/// Looks; a Secret is not watched, so it looks again by itself.
pub async fn reconcile(cached: Arc<Stored<ObjectStore>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(object) = current_if_readable(&ctx, &cached).await? else {
        return Ok(Action::await_change());
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().unwrap_or_default();
    let mut status = object.status.clone().unwrap_or_default();
    look(&ctx, &namespace, &object, &mut status).await?;
    let ready = why_not(&status) == Some(reason::SUCCESS);
    if object.status.as_ref() != Some(&status) {
        let api: Api<ObjectStore> = Api::namespaced(ctx.client.clone(), &namespace);
        let mut written = object.clone();
        written.status = Some(status);
        api.replace_status(&object.name_any(), &PostParams::default(), &written)
            .await
            .map_err(Error::kube("write the status"))?;
    }
    Ok(Action::requeue(if ready { LOOK } else { LOOK_SOON }))
}

/// Looks, and writes when that is due. What was found by the last write stands until the next one.
async fn look(
    ctx: &Context,
    namespace: &str,
    object: &ObjectStore,
    status: &mut ObjectStoreStatus,
) -> Result<(), Error> {
    let generation = object.metadata.generation;
    let opened = store_secret(ctx, namespace, object).await?;
    let version = opened.as_ref().ok().and_then(|(_, version)| version.clone());
    let due = is_due(status, generation, version.as_deref(), ctx.now());
    (status.observed_generation, status.secret_version) = (generation, version);
    let seen = async {
        let (files, _) = opened.map_err(Unusable::told)?;
        let store = open(ctx, object, &files)?;
        store.look().await.map_err(sorted)?;
        Ok::<_, (&'static str, String)>(store)
    };
    let outcome = match seen.await {
        Ok(_) if !due => return Ok(()),
        Ok(store) => {
            status.probed_at = Some(Time(ctx.now()));
            store.probe().await.map_err(sorted)
        }
        Err(why) => {
            // As soon as this has passed, it is written to.
            status.probed_at = None;
            Err(why)
        }
    };
    let kept = outcome.as_ref().ok().and_then(|probed| probed.kept.clone());
    let good = kept.map_or_else(|| GOOD.to_string(), |kept| format!("{GOOD}; {}", kept.message));
    let outcome: Outcome = outcome.map(|_| ());
    set_outcome(&mut status.conditions, outcome, &good, generation, ctx.now());
    Ok(())
}

fn open(ctx: &Context, object: &ObjectStore, files: &Files) -> Result<Store, (&'static str, String)> {
    let location = ObjectStoreLocation::parse(&object.spec.location)
        .map_err(|e| (reason::INVALID_CONFIGURATION, e.to_string()))?;
    let mut options = StoreOptions::new(address_check(ctx.policy()));
    options.ca_pem = files.get(paths::STORE_CACERT).cloned();
    let opened = keys(&location, files).and_then(|keys| Store::new(&location, &keys, &options));
    opened.map_err(sorted)
}

fn sorted(error: StoreError) -> (&'static str, String) {
    let why = match &error {
        StoreError::Full { .. } => reason::STORE_FULL,
        error if error.is_transient() => reason::TRANSIENT_ERROR,
        _ => reason::INVALID_CONFIGURATION,
    };
    (why, error.to_string())
}

/// Whether an object is to be written: after every change, and then as often as what was found asks for it.
fn is_due(
    status: &ObjectStoreStatus,
    generation: Option<i64>,
    secret_version: Option<&str>,
    now: Timestamp,
) -> bool {
    let changed =
        status.observed_generation != generation || status.secret_version.as_deref() != secret_version;
    let pause = match why_not(status) {
        Some(reason::SUCCESS) => WRITES,
        Some(reason::STORE_FULL) => FULL_WRITES,
        Some(reason::INVALID_CONFIGURATION) => REFUSED_WRITES,
        _ => SignedDuration::ZERO,
    };
    changed || status.probed_at.as_ref().is_none_or(|at| now.duration_since(at.0) >= pause)
}

/// The reason of `Ready`.
fn why_not(status: &ObjectStoreStatus) -> Option<&str> {
    status.conditions.iter().find(|c| c.type_ == kind::READY).map(|c| c.reason.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(outcome: Outcome, at: Timestamp) -> ObjectStoreStatus {
        let mut status = ObjectStoreStatus {
            observed_generation: Some(3),
            secret_version: Some("7".into()),
            probed_at: Some(Time(at)),
            ..Default::default()
        };
        set_outcome(&mut status.conditions, outcome, GOOD, Some(3), at);
        status
    }

    #[test]
    fn it_is_written_to_on_change_and_hourly() {
        let at = Timestamp::from_second(1_790_000_000).unwrap();
        let later = |seconds| at + SignedDuration::from_secs(seconds);
        let err = |why| Err((why, String::new()));
        for (outcome, pause) in [
            (Ok(()), 3600),
            (err(reason::STORE_FULL), 60),
            (err(reason::INVALID_CONFIGURATION), 300),
            (err(reason::TRANSIENT_ERROR), 0),
        ] {
            let status = found(outcome.clone(), at);
            assert!(pause == 0 || !is_due(&status, Some(3), Some("7"), later(pause - 1)), "{outcome:?}");
            assert!(is_due(&status, Some(3), Some("7"), later(pause)), "{outcome:?}");
            // The object, or its Secret, is another one.
            assert!(is_due(&status, Some(4), Some("7"), later(1)), "{outcome:?}");
            assert!(is_due(&status, Some(3), Some("8"), later(1)), "{outcome:?}");
            // It could not even be looked at.
            assert!(is_due(&ObjectStoreStatus { probed_at: None, ..status }, Some(3), Some("7"), later(1)));
        }
        // What the release before wrote.
        assert!(is_due(&ObjectStoreStatus::default(), Some(1), Some("7"), at));
    }

    #[test]
    fn a_full_store_has_a_reason_of_its_own() {
        let error = StoreError::Full { what: "PUT x".into(), answer: "507".into() };
        let mut status = ObjectStoreStatus::default();
        set_outcome(&mut status.conditions, Err(sorted(error)), GOOD, None, Timestamp::UNIX_EPOCH);
        let reasons: Vec<_> = status
            .conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str()))
            .collect();
        assert_eq!(
            reasons,
            [
                ("Ready", "False", "StoreFull"),
                ("Reconciling", "False", "StoreFull"),
                ("Stalled", "True", "StoreFull")
            ]
        );
    }
}
