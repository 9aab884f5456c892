//! One reconcile of an `OpenStackCloud`: a session, real calls, `Ready`.

use super::{
    Error,
    block_storage::{self, Access},
    clusters::{MoverCluster, NOT_REGISTERED},
    context::Context,
    observe::cloud_problem,
    references::credentials,
    watch::current_if_readable,
};
use crate::{
    crd::{
        conditions::{Outcome, reason, set_outcome},
        stored::Stored,
        v1alpha1::*,
    },
    migration::{block_storage::resolve, image_checks, names::Side, observed::Problem},
    openstack::{Cloud, CloudError},
};
use kube::{Api, ResourceExt, api::PostParams, runtime::controller::Action};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Looks; a Secret is not watched, so it looks again by itself.
pub async fn reconcile(cached: Arc<Stored<OpenStackCloud>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(object) = current_if_readable(&ctx, &cached).await? else {
        return Ok(Action::await_change());
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().unwrap_or_default();
    let mut status = object.status.clone().unwrap_or_default();
    let outcome = look(&ctx, &namespace, &object, &mut status).await?;
    let generation = object.metadata.generation;
    status.observed_generation = generation;
    let ready = set_outcome(
        &mut status.conditions,
        outcome,
        "credentials work; all services answer",
        generation,
        ctx.now(),
    );
    if object.status.as_ref() != Some(&status) {
        let api: Api<OpenStackCloud> = Api::namespaced(ctx.client.clone(), &namespace);
        let mut written = object.clone();
        written.status = Some(status);
        api.replace_status(&object.name_any(), &PostParams::default(), &written)
            .await
            .map_err(Error::kube("write the status"))?;
    }
    Ok(Action::requeue(Duration::from_secs(if ready { 120 } else { 10 })))
}

async fn look(
    ctx: &Context,
    namespace: &str,
    object: &OpenStackCloud,
    status: &mut OpenStackCloudStatus,
) -> Result<Outcome, Error> {
    let credentials = match credentials(ctx, namespace, object).await? {
        Ok(c) => c,
        Err(why) => return Ok(Err(why.told())),
    };
    let cluster = match ctx.clusters.get(object.spec.cluster.as_deref()).await {
        Ok(cluster) => cluster,
        Err(problem) => return Ok(Err((why_no_cluster(&problem), problem.message))),
    };
    let name = object.name_any();
    let answer = async {
        let cloud = ctx.clouds.session(&credentials, &ctx.policy(), &name).await?;
        Ok::<_, CloudError>((quotas(&cloud).await?, cloud))
    };
    match answer.await {
        Ok((quotas, cloud)) => {
            status.project_id = Some(cloud.project_id());
            status.region = cloud.region().map(String::from);
            status.services = cloud
                .versions()
                .into_iter()
                .map(|v| CloudService { name: v.service, version: v.version, microversion: v.microversion })
                .collect();
            status.quotas = quotas;
            let policy = ctx.policy();
            let access =
                Access { sessions: &ctx.clouds, policy: &policy, credentials: &credentials, name: &name };
            let takes_any = object.spec.transfer.is_some_and(|t| t.takes_any_disk);
            let judges = if takes_any { Some(false) } else { image_checks::judges(&cloud.versions()) };
            let outcome = transfer(&cluster, object.spec.transfer, access, status).await;
            status.transfer.iter_mut().for_each(|t| t.judges_images = judges);
            Ok(outcome)
        }
        Err(e) => {
            ctx.clouds.forget(&credentials, &name).await;
            let problem = cloud_problem(Side::Source, &e);
            let why = if problem.transient { reason::TRANSIENT_ERROR } else { reason::INVALID_CONFIGURATION };
            Ok(Err((why, problem.message)))
        }
    }
}

fn why_no_cluster(problem: &Problem) -> &'static str {
    match problem.id.as_str() {
        _ if problem.transient => reason::TRANSIENT_ERROR,
        NOT_REGISTERED => reason::REFERENCE_NOT_FOUND,
        _ => reason::INVALID_CONFIGURATION,
    }
}

/// How disks would travel now. A migration looks again, at the zones of its volumes, too, and keeps what it finds.
async fn transfer(
    cluster: &MoverCluster,
    asked: Option<Transfer>,
    access: Access<'_>,
    status: &mut OpenStackCloudStatus,
) -> Outcome {
    match resolve(&block_storage::look(cluster, asked, access).await, &[]) {
        Ok(found) => {
            status.transfer = Some(found);
            Ok(())
        }
        Err(why) => {
            status.transfer = None;
            let message = format!("spec.transfer.mode Volume is not possible: {why}");
            Err((reason::INVALID_CONFIGURATION, message))
        }
    }
}

/// The limits that a migration meets. Real calls to three services; images are listed for the fourth.
async fn quotas(cloud: &Cloud) -> Result<Vec<Quota>, CloudError> {
    let (compute, volume, network, _) = tokio::try_join!(
        cloud.compute_limits(),
        cloud.volume_quotas(),
        cloud.network_quotas(),
        cloud.list_images()
    )?;
    let pair = |limit: &str, used: &str, name: &str, from: &BTreeMap<String, i64>| {
        Some(Quota { name: name.into(), limit: *from.get(limit)?, used: *from.get(used)? })
    };
    let mut rows: Vec<Quota> = [
        pair("maxTotalInstances", "totalInstancesUsed", "instances", &compute),
        pair("maxTotalCores", "totalCoresUsed", "cores", &compute),
        pair("maxTotalRAMSize", "totalRAMUsed", "ram", &compute),
    ]
    .into_iter()
    .flatten()
    .collect();
    for (name, from) in
        [("volumes", &volume), ("snapshots", &volume), ("gigabytes", &volume), ("port", &network)]
    {
        if let Some(q) = from.get(name) {
            rows.push(Quota { name: name.into(), limit: q.limit, used: q.used });
        }
    }
    Ok(rows)
}
