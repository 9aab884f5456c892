//! One reconcile of a `VmMigration`: observe -> decide -> execute -> one status write.

use super::{Error, context::Context, execute::Hands, observe::observe, references, watch};
use crate::{
    crd::{
        stored::{Stored, Unreadable},
        v1alpha1::{VmMigration, VmMigrationStatus},
    },
    migration::{
        decide::{Decision, Input, decide, record},
        names::{ANNOTATION_ABANDON, FINALIZER, Identity},
        present::{last_word, present},
        step::{Effect, Step, StepFailure},
    },
};
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{
        controller::Action,
        events::{Event, EventType},
    },
};
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// However slow the clouds are, something is seen after so long.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// One that cannot be read hides nothing.
type Migrations = Api<Stored<VmMigration>>;

/// What a step brought back.
type Result<T, E = Error> = std::result::Result<T, E>;

/// The driver; each of its lines is a part of the design.
pub async fn reconcile(cached: Arc<Stored<VmMigration>>, ctx: Arc<Context>) -> Result<Action> {
    let _timer = ctx.metrics.time();
    let api: Migrations = Api::namespaced(ctx.client.clone(), &cached.namespace().unwrap_or_default());
    // The cache may be behind our own last write, and ids in status must never be lost.
    let object = match watch::current(&ctx, &cached).await? {
        Some(Stored(Ok(object))) => object,
        Some(Stored(Err(unreadable))) => return leave_alone(&ctx, &api, unreadable).await,
        None => return Ok(Action::await_change()),
    };
    let deleting = object.metadata.deletion_timestamp.is_some();
    if !object.finalizers().iter().any(|f| f == FINALIZER) {
        return if deleting {
            Ok(Action::await_change())
        } else {
            add_finalizer(&api, &object.metadata).await
        };
    }
    let me = identity(&object);
    let status = object.status.clone().unwrap_or_default();
    let refs = references::resolve(&ctx, &me, &object).await?;
    let looking = Instant::now();
    let look = observe(&ctx, &me, &object, &status, &refs, ctx.now()).await?;
    let (now, took) = (ctx.now(), looking.elapsed());
    let abandoned = object.annotations().get(ANNOTATION_ABANDON) == Some(&me.uid);
    let mut decision = decide(Input {
        me: &me,
        spec: &object.spec,
        generation: object.metadata.generation,
        deleting,
        abandoned,
        annotations: object.annotations(),
        status: &status,
        seen: &look.seen,
        limits: &ctx.settings.limits,
        now,
    });
    if decision.release {
        if let Some(last) = last_word(&decision.status, object.metadata.generation, now) {
            // Nothing depends on it: what cannot be told does not keep the object.
            match write_status(&api, &object, &last).await {
                Ok(()) => return Ok(Action::requeue(Duration::from_millis(20))),
                Err(error) => tracing::debug!(%error, "the end was not written"),
            }
        }
        if abandoned && deleting {
            tell_what_is_left(&ctx, &object, &me).await;
        }
        return remove_finalizer(&api, &object.metadata).await;
    }
    decision.recheck = decision.recheck.map(|recheck| paced(recheck, took));
    let hands =
        Hands { ctx: &ctx, me: &me, object: &object, status: &decision.status, refs: &refs, look: &look };
    let results = execute_all(&hands, &decision.steps).await;
    forget_refused_sessions(&ctx, &refs, &look).await;
    finish(&ctx, &api, &object, status, decision, results).await
}

/// Nothing is known of what it wants, and of how far it is: it is told so, and looked at when it has changed.
async fn leave_alone(ctx: &Context, api: &Migrations, unreadable: Unreadable) -> Result<Action> {
    let metadata = &unreadable.metadata;
    let abandoned = metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_ABANDON));
    if metadata.deletion_timestamp.is_some() && abandoned.is_some() && abandoned == metadata.uid.as_ref() {
        return remove_finalizer(api, metadata).await;
    }
    watch::tell::<VmMigration>(ctx, &unreadable).await?;
    Ok(Action::await_change())
}

/// Clouds and clusters that answer slowly are asked less often: no more than a quarter of the time. What is to be done
/// at once is done at once.
fn paced(recheck: Duration, look_took: Duration) -> Duration {
    if recheck < Duration::from_secs(1) {
        return recheck;
    }
    recheck.max((look_took * 3).min(LONGEST_PAUSE))
}

/// Who the object is.
fn identity(object: &VmMigration) -> Identity {
    Identity {
        uid: object.uid().unwrap_or_default(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

async fn execute_all(hands: &Hands<'_>, steps: &[Step]) -> Vec<(Step, Result<Effect, StepFailure>)> {
    join_all(
        steps
            .iter()
            .map(|step| async { (step.clone(), hands.execute(step).await.map_err(|failed| failed.0)) }),
    )
    .await
}

/// A cloud that could not be seen gets a new session: its credentials may have changed meaning.
async fn forget_refused_sessions(ctx: &Context, refs: &references::References, look: &super::observe::Look) {
    let unseen =
        [(&refs.source, look.seen.source.problem()), (&refs.destination, look.seen.destination.problem())];
    for (side, problem) in unseen {
        if let (Ok(side), Some(problem)) = (side, problem)
            && problem.id.ends_with("-credentials")
        {
            ctx.clouds.forget(&side.credentials, &side.name).await;
        }
    }
}

/// Records results, derives what people read, writes the status once, and says when to look again.
async fn finish(
    ctx: &Context,
    api: &Migrations,
    object: &VmMigration,
    before: VmMigrationStatus,
    decision: Decision,
    results: Vec<(Step, Result<Effect, StepFailure>)>,
) -> Result<Action> {
    let now = ctx.now();
    let mut status = decision.status;
    let mut recheck = decision.recheck;
    for (step, result) in results {
        ctx.metrics.step(step.name(), result.is_ok());
        if let Err(failure) = &result {
            tracing::warn!(name = %object.name_any(), step = step.name(), message = %failure.message, "step failed");
            if !status.trouble.as_ref().is_some_and(|t| t.stalled) {
                status.message = Some(format!("{} (trying again)", failure.message));
            }
            recheck = recheck.map(|r| r.max(Duration::from_secs(2)));
        }
        record(&mut status, &step, result, now);
    }
    present(&mut status, object.metadata.generation, now);
    if status != before {
        write_status(api, object, &status).await?;
        announce(ctx, object, &before, &status).await;
    }
    Ok(recheck.map_or_else(Action::await_change, Action::requeue))
}

async fn write_status(api: &Migrations, object: &VmMigration, status: &VmMigrationStatus) -> Result<()> {
    let written = Stored(Ok(VmMigration { status: Some(status.clone()), ..object.clone() }));
    let answer = api.replace_status(&object.name_any(), &PostParams::default(), &written).await;
    answer.map(drop).map_err(Error::kube("write the status"))
}

/// An Event for each new row of the timeline. One that cannot be published is logged, no more.
async fn announce(
    ctx: &Context,
    object: &VmMigration,
    before: &VmMigrationStatus,
    after: &VmMigrationStatus,
) {
    for row in after.timeline.iter().filter(|row| !before.timeline.contains(row)) {
        let failed = after.failure.is_some() && after.failure != before.failure;
        let event = Event {
            type_: if failed { EventType::Warning } else { EventType::Normal },
            reason: row.phase.to_string(),
            note: Some(crate::contract::shorten(&row.message, 1000)),
            action: "Migrate".into(),
            secondary: None,
        };
        if let Err(error) = ctx.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(%error, "an event was not published");
        }
    }
}

/// Somebody gave up on clean-up: where to look for what may be left.
async fn tell_what_is_left(ctx: &Context, object: &VmMigration, me: &Identity) {
    let note = format!(
        "abandoned: what carries the mark {} in {} and {}, and Secrets and Jobs named vmm-{}-* in the movers' namespaces, may be left",
        me.tag(),
        object.spec.source.cloud,
        object.spec.destination.cloud,
        me.uid
    );
    tracing::warn!(name = %me.name, namespace = %me.namespace, "{note}");
    let event = Event {
        type_: EventType::Warning,
        reason: "Abandoned".into(),
        note: Some(note),
        action: "Delete".into(),
        secondary: None,
    };
    if let Err(error) = ctx.recorder.publish(&event, &object.object_ref(&())).await {
        tracing::debug!(%error, "an event was not published");
    }
}

async fn add_finalizer(api: &Migrations, metadata: &ObjectMeta) -> Result<Action> {
    let mut all = metadata.finalizers.clone().unwrap_or_default();
    all.push(FINALIZER.into());
    patch_finalizers(api, metadata, &all).await
}

async fn remove_finalizer(api: &Migrations, metadata: &ObjectMeta) -> Result<Action> {
    let mut rest = metadata.finalizers.clone().unwrap_or_default();
    rest.retain(|f| f != FINALIZER);
    patch_finalizers(api, metadata, &rest).await
}

/// With the resource version, so that a finalizer that somebody else set meanwhile is not lost.
async fn patch_finalizers(api: &Migrations, metadata: &ObjectMeta, finalizers: &[String]) -> Result<Action> {
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": metadata.resource_version}});
    let name = metadata.name.clone().unwrap_or_default();
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(s)) if s.is_not_found() => Ok(Action::await_change()),
        other => other
            .map(|_| Action::requeue(Duration::from_millis(20)))
            .map_err(Error::kube("change the finalizer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_that_are_slow_are_asked_less_often() {
        let of = |recheck: u64, took: u64| {
            paced(Duration::from_millis(recheck), Duration::from_millis(took)).as_millis()
        };
        assert_eq!(of(20, 5000), 20, "a step is due");
        assert_eq!(of(2000, 300), 2000);
        assert_eq!(of(2000, 1500), 4500);
        assert_eq!(of(15_000, 1500), 15_000);
        assert_eq!(of(2000, 60_000), 15_000, "a cloud that does not answer");
    }
}
