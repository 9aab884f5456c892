//! Does one step. Every step may be done again: it looks before it creates, and what is gone is deleted.

use super::{
    block_storage::{Access, vouched},
    clusters::MoverCluster,
    context::Context,
    dress, lost,
    observe::Look,
    references::{self, References},
    remove,
};
use crate::{
    build,
    crd::v1alpha1::{DiskStatus, VmMigration, VmMigrationReport, VmMigrationSpec, VmMigrationStatus},
    migration::{
        bodies,
        names::{Identity, MARK_CLAIM, Role, Side},
        observed::Problem,
        report,
        step::{Effect, JobRequest, Step, StepFailure},
    },
    openstack::{Cloud, CloudError, ErrorKind},
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{PersistentVolume, PersistentVolumeClaim, Secret},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{fmt::Debug, ops::Deref, time::Duration};
use tokio::time::timeout;

/// No step may take longer: what a cloud does later is observed later.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);
/// The field manager of what we apply.
const MANAGER: &str = "vmmigration";

/// What steps work with.
pub struct Hands<'a> {
    /// Clients.
    pub ctx: &'a Context,
    /// Who the migration is.
    pub me: &'a Identity,
    /// The object.
    pub object: &'a VmMigration,
    /// Its status as decided.
    pub status: &'a VmMigrationStatus,
    /// Where the references lead.
    pub refs: &'a References,
    /// Sessions.
    pub look: &'a Look,
}

/// How a step ended.
pub type Done = Result<Effect, Failed>;

/// Why a step failed, made of what a cloud or a cluster answered.
#[derive(Debug, PartialEq)]
pub struct Failed(pub StepFailure);

impl Deref for Failed {
    type Target = StepFailure;

    fn deref(&self) -> &StepFailure {
        &self.0
    }
}

impl From<CloudError> for Failed {
    fn from(e: CloudError) -> Self {
        // A conflict, or something that is gone: the state is not what we saw, and is looked at again. The others are what
        // somebody may mend while the bound lasts: to wait for that costs less than to begin anew.
        let mended = matches!(
            e.kind,
            ErrorKind::Conflict
                | ErrorKind::NotFound
                | ErrorKind::Unauthorized
                | ErrorKind::Forbidden
                | ErrorKind::Quota
        );
        Failed(StepFailure { transient: e.is_transient() || mended, conflict: false, message: e.to_string() })
    }
}

impl From<kube::Error> for Failed {
    fn from(e: kube::Error) -> Self {
        // A quota and admission, too: a platform may mend them while the bound lasts. Policies answer 403, webhooks 400,
        // others 422, as for an object that is wrong.
        later(format!("Kubernetes: {e}"))
    }
}

/// The world has changed since it was looked at.
pub(super) fn changed(message: impl Into<String>) -> Failed {
    Failed(StepFailure { transient: true, conflict: true, message: message.into() })
}

/// It may work later.
pub(super) fn later(message: impl Into<String>) -> Failed {
    Failed(StepFailure { transient: true, conflict: false, message: message.into() })
}

/// It will not work later either.
pub(super) fn lasting(message: impl Into<String>) -> Failed {
    Failed(StepFailure { transient: false, conflict: false, message: message.into() })
}

impl Hands<'_> {
    /// Does one step, within a bound.
    pub async fn execute(&self, step: &Step) -> Done {
        tracing::info!(uid = %self.me.uid, name = %self.me.name, namespace = %self.me.namespace, step = step.name(), ?step, "step");
        match timeout(STEP_TIMEOUT, self.execute_unbounded(step)).await {
            Ok(done) => done,
            Err(_) => Err(later(format!("{}: no answer within {} s", step.name(), STEP_TIMEOUT.as_secs()))),
        }
    }

    async fn execute_unbounded(&self, step: &Step) -> Done {
        match step {
            Step::PrepareSecrets => self.prepare_secrets().await,
            Step::CreateJob(request) => self.create_job(request).await,
            Step::RunHook(request) => self.run_hook(request).await,
            Step::DeleteJob { side, name } => self.delete_job(*side, name).await,
            Step::CreatePersistentVolume { side, disk, volume_id, size_gib } => {
                self.create_persistent_volume(*side, *disk, volume_id, *size_gib).await
            }
            Step::CreateClaim { side, disk, size_gib } => self.create_claim(*side, *disk, *size_gib).await,
            Step::DeleteClaim { side, name } => {
                let cluster = self.cluster(*side).await?;
                delete(&Api::<PersistentVolumeClaim>::namespaced(cluster.client, &cluster.namespace), name)
                    .await
            }
            Step::DeletePersistentVolume { side, name } => {
                let cluster = self.cluster(*side).await?;
                delete(&Api::<PersistentVolume>::all(cluster.client), name).await
            }
            Step::DeleteAnchor(side) => self.delete_anchor(*side).await,
            Step::DeleteVault => self.delete_vault().await,
            Step::CreateReport => self.create_report().await,
            Step::FinishReport => self.finish_report().await,
            Step::Delete { side, kind, id } => {
                remove::object(self.cloud(*side)?, self.me, *kind, id, self.status).await
            }
            Step::UploadVolume { side, role, disk, attempt, volume_id } => {
                let name = self.me.object_name(*role, *disk, *attempt);
                let id = self.cloud(*side)?.upload_volume_to_image(volume_id, &name, false).await?;
                Ok(Effect::Created { id })
            }
            Step::FindLost { side, role, id, volume_id, .. } => {
                lost::find(self.cloud(*side)?, self.status, *role, id, volume_id.as_deref()).await
            }
            Step::TagImage { side, image_id } => {
                Ok(self.cloud(*side)?.add_image_tag(image_id, &self.me.tag()).await.map(|()| Effect::Done)?)
            }
            _ if step.side() == Some(Side::Source) => self.in_source(step).await,
            _ => self.in_destination(step).await,
        }
    }

    pub(super) fn cloud(&self, side: Side) -> Result<&Cloud, Failed> {
        let cloud = match side {
            Side::Source => &self.look.source,
            Side::Destination => &self.look.destination,
        };
        cloud.as_ref().ok_or_else(|| later(format!("the {side} cloud was not seen")))
    }

    fn spec(&self) -> &VmMigrationSpec {
        &self.object.spec
    }

    fn disk(&self, n: i32) -> Result<&DiskStatus, Failed> {
        self.status
            .disks
            .iter()
            .find(|d| d.index == n)
            .ok_or_else(|| lasting(format!("there is no disk {n} in status")))
    }

    fn server_id(&self) -> String {
        self.status.source.as_ref().map(|s| s.server_id.clone()).unwrap_or_default()
    }

    async fn in_source(&self, step: &Step) -> Done {
        let cloud = self.cloud(Side::Source)?;
        let (me, id) = (self.me, self.server_id());
        let accepted =
            |request_id: String| Effect::Accepted { request_id: Some(request_id).filter(|r| !r.is_empty()) };
        Ok(match step {
            Step::ClaimSource => {
                cloud.set_server_metadata(&id, MARK_CLAIM, &me.uid).await.map(|()| Effect::Done)?
            }
            Step::ReleaseClaim => remove::claim(cloud, me, &id).await?,
            Step::DeleteSource => remove::source_server(cloud, me, self.status, &id).await?,
            Step::DeleteSourceVolume { volume_id } => {
                remove::source_volume(cloud, self.status, volume_id).await?
            }
            Step::StopSource => accepted(cloud.stop_server(&id).await?),
            Step::StartSource => accepted(cloud.start_server(&id).await?),
            Step::UnlockSource => accepted(cloud.unlock_server(&id).await?),
            Step::LockSource => accepted(cloud.lock_server(&id, &self.lock_reason()).await?),
            Step::RelockSource => {
                accepted(cloud.lock_server(&id, "locked by its owner before a migration was tried").await?)
            }
            Step::CreateSnapshot { disk, attempt, volume_id } => {
                let name = me.object_name(Role::Snapshot, *disk, *attempt);
                let marks = me.marks_of(Role::Snapshot, *disk, *attempt);
                Effect::Created { id: cloud.create_snapshot(volume_id, &name, &marks, true).await?.id }
            }
            Step::CreateExportVolume { disk, attempt, snapshot_id } => {
                let body = bodies::export_volume(me, self.disk(*disk)?, *attempt, snapshot_id);
                Effect::Created { id: cloud.create_volume(&body).await?.id }
            }
            Step::CreateServerImage { disk } => {
                // No marks: properties of an image are inherited by what others make of it. The name tells whose it is.
                let name = me.object_name(Role::ExportImage, *disk, 1);
                let (id, request_id) = cloud.create_server_image(&id, &name, &Default::default()).await?;
                Effect::Asked { id, request_id: Some(request_id).filter(|r| !r.is_empty()) }
            }
            other => return Err(lasting(format!("{} is no step in the source", other.name()))),
        })
    }

    /// What a human at the source reads when the lock stops them.
    fn lock_reason(&self) -> String {
        let me = self.me;
        format!(
            "VmMigration {}/{} moves this server; to take it back, delete that VmMigration, or unlock and start the server (the move then holds)",
            me.namespace, me.name
        )
    }

    async fn in_destination(&self, step: &Step) -> Done {
        let cloud = self.cloud(Side::Destination)?;
        let me = self.me;
        let plan = self.status.plan.clone().unwrap_or_default();
        let planned = |index: &i32| {
            usize::try_from(*index)
                .ok()
                .and_then(|i| plan.ports.get(i))
                .ok_or_else(|| lasting(format!("port {index} is not planned")))
        };
        Ok(match step {
            Step::CreateImportImage { disk, attempt, like } => {
                let like = match like {
                    Some(id) => self.cloud(Side::Source)?.get_image(id).await?,
                    None => None,
                };
                let body = bodies::import_image(me, self.disk(*disk)?, *attempt, like.as_ref());
                Effect::Created { id: cloud.create_image(&body).await?.id }
            }
            Step::CreateVolume { disk, image_id } => {
                let body = bodies::volume(me, self.disk(*disk)?, &plan, image_id.as_deref());
                Effect::Created { id: cloud.create_volume(&body).await?.id }
            }
            Step::DressVolume { disk, volume_id } => {
                let wanted = self.disk(*disk)?.attributes.clone().unwrap_or_default();
                dress::volume(cloud, &wanted, volume_id).await?
            }
            Step::CreatePort { index } => {
                let up = self.status.source.as_ref().is_none_or(|s| s.was_running);
                let body = bodies::port(me, *index, planned(index)?, up);
                Effect::Created { id: cloud.create_port(&body).await?.id }
            }
            Step::FinishPort { index, port_id } => {
                let port = planned(index)?;
                let mut tags = port.tags.clone();
                tags.push(me.tag());
                // Tags first: once the name is gone they are the mark.
                cloud.set_port_tags(port_id, &tags).await?;
                cloud.update_port(port_id, &json!({"port": {"name": port.name}})).await?;
                Effect::Done
            }
            Step::CreateServer => {
                let ports = self.status.destination.as_ref().map(|x| x.port_ids.clone()).unwrap_or_default();
                let body = bodies::server(me, &plan, &self.status.disks, &ports, &self.server_id());
                Effect::Created { id: self.create_server(cloud, body).await? }
            }
            Step::StopDestination { server_id } => {
                self.own_server(cloud, server_id).await?;
                Effect::Accepted { request_id: Some(cloud.stop_server(server_id).await?) }
            }
            Step::RaisePort { port_id } => {
                cloud.update_port(port_id, &json!({"port": {"admin_state_up": true}})).await?;
                Effect::Done
            }
            other => return Err(lasting(format!("{} is no step in the destination", other.name()))),
        })
    }

    /// The server with its user data, which may have changed since preflight.
    async fn create_server(&self, cloud: &Cloud, body: serde_json::Value) -> Result<String, Failed> {
        let Some(wanted) = &self.spec().destination.user_data else {
            return Ok(cloud.create_server(&body).await?);
        };
        let found = references::user_data(&self.ctx.client, &self.me.namespace, wanted).await?;
        let data = found.map_err(|p| later(p.message))?;
        let created = cloud.create_server(&bodies::with_user_data(body, &data)).await;
        created.map_err(|mut e| {
            e.message = bodies::without_user_data(&e.message, &data);
            e.into()
        })
    }

    async fn own_server(&self, cloud: &Cloud, id: &str) -> Result<(), Failed> {
        match cloud.get_server(id).await? {
            Some(s) if self.me.server(&s).is_some() => Ok(()),
            _ => Err(lasting(format!("server {id} does not carry our mark"))),
        }
    }

    async fn create_report(&self) -> Done {
        let api: Api<VmMigrationReport> = Api::namespaced(self.ctx.client.clone(), &self.me.namespace);
        let report = report::report(self.me, self.spec(), self.status, self.ctx.now());
        match api.create(&PostParams::default(), &report).await {
            Err(kube::Error::Api(s)) if s.is_already_exists() => Ok(Effect::Done),
            other => Ok(other.map(|_| Effect::Done)?),
        }
    }

    async fn finish_report(&self) -> Done {
        let api: Api<VmMigrationReport> = Api::namespaced(self.ctx.client.clone(), &self.me.namespace);
        let status = report::outcome(self.status, self.ctx.now());
        api.patch_status(
            &self.me.report(),
            &PatchParams::default(),
            &Patch::Merge(json!({"status": status})),
        )
        .await?;
        Ok(Effect::Done)
    }

    pub(super) async fn cluster(&self, side: Side) -> Result<super::clusters::MoverCluster, Failed> {
        let p = match self.refs.side(side) {
            Ok(r) => match self.ctx.clusters.get(r.cluster.as_deref()).await {
                Ok(c) => return Ok(c),
                Err(p) => p,
            },
            Err(p) => p.clone(),
        };
        Err(later(p.message))
    }

    async fn create_job(&self, request: &JobRequest) -> Done {
        let cluster = self.cluster(request.side).await?;
        let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let anchor = secrets.get_metadata(&self.me.anchor(request.side)).await?.uid().unwrap_or_default();
        if !request.keys.is_empty() {
            let copy = build::job::keys(self.me, request, &anchor, self.private_keys(request).await?);
            match secrets.create(&PostParams::default(), &copy).await {
                Err(kube::Error::Api(s)) if s.is_already_exists() => {}
                other => drop(other?),
            }
        }
        let job = build::job::job(self.me, request, &self.ctx.settings.image, &anchor);
        let jobs: Api<Job> = Api::namespaced(cluster.client, &cluster.namespace);
        match jobs.create(&PostParams::default(), &job).await {
            Err(kube::Error::Api(s)) if s.is_already_exists() => Ok(Effect::Done),
            other => Ok(other.map(|j| Effect::Created { id: j.name_any() })?),
        }
    }

    async fn create_persistent_volume(&self, side: Side, disk: i32, volume_id: &str, size_gib: i64) -> Done {
        let cluster = self.cluster(side).await?;
        self.prove_volume(&cluster, side, disk, volume_id).await?;
        let volume =
            build::volume::persistent_volume(self.me, side, disk, volume_id, size_gib, &cluster.namespace);
        create(&Api::<PersistentVolume>::all(cluster.client), &volume).await
    }

    /// The cluster attaches with the platform's rights what is named to it. So the volume must be there, and ours, in the
    /// cloud that the platform vouches for, whatever any other session has told of it.
    async fn prove_volume(
        &self,
        cluster: &MoverCluster,
        side: Side,
        disk: i32,
        volume_id: &str,
    ) -> Result<(), Failed> {
        let failure = |p: &Problem| {
            Failed(StepFailure { transient: p.transient, conflict: false, message: p.message.clone() })
        };
        let r = self.refs.side(side).as_ref().map_err(failure)?;
        let (sessions, policy) = (&self.ctx.clouds, &self.ctx.policy());
        let access = Access { sessions, policy, credentials: &r.credentials, name: &r.name };
        let refused = |p: Problem| {
            let message = format!("volume {volume_id} is not given to the cluster: {}", p.message);
            Failed(StepFailure { transient: p.transient, conflict: false, message })
        };
        let cloud = vouched(cluster, access).await.map_err(refused)?;
        let recorded = [volume_id.to_string()];
        match cloud.get_volume(volume_id).await?.map(|volume| self.me.volume(&volume, &recorded)) {
            Some(Some(tagged)) if tagged.index == disk => Ok(()),
            Some(_) => Err(lasting(format!("volume {volume_id} in {} does not carry our mark", r.name))),
            None => {
                let message =
                    format!("volume {volume_id} is not seen in the cloud that its cluster belongs to");
                Err(later(message))
            }
        }
    }

    async fn create_claim(&self, side: Side, disk: i32, size_gib: i64) -> Done {
        let cluster = self.cluster(side).await?;
        let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let anchor = secrets.get_metadata(&self.me.anchor(side)).await?.uid().unwrap_or_default();
        let claim = build::volume::claim(self.me, side, disk, size_gib, &anchor);
        create(&Api::<PersistentVolumeClaim>::namespaced(cluster.client, &cluster.namespace), &claim).await
    }

    /// Read when the Job is made: they may have changed since preflight.
    async fn private_keys(&self, request: &JobRequest) -> Result<build::secret::Files, Failed> {
        let mut keys = build::secret::Files::new();
        for (file, key) in &request.keys {
            let whose = format!("Job {}", self.me.job(&request.purpose, request.attempt));
            let namespace = &self.me.namespace;
            let found =
                super::hooks::secret_of(self.ctx, namespace, &whose, &key.name, Some(&key.key)).await?;
            let mut data = found.map_err(|p| later(p.message))?;
            keys.insert(file.clone(), data.remove(&key.key).unwrap_or_default());
        }
        Ok(keys)
    }

    async fn delete_job(&self, side: Side, name: &str) -> Done {
        let hook = self.me.is_hook_job(name);
        let cluster = if hook { self.cluster_of_hooks(side).await? } else { self.cluster(side).await? };
        let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        if hook && !self.hooks_are_own(side) || self.me.is_check_job(name) {
            // Copies of the tenant's Secrets, for this Job only.
            self.delete_secret(cluster, name).await?;
        }
        delete(&jobs, name).await
    }

    async fn delete_secret(&self, cluster: super::clusters::MoverCluster, name: &str) -> Done {
        let api: Api<Secret> = Api::namespaced(cluster.client, &cluster.namespace);
        delete(&api, name).await
    }

    async fn delete_anchor(&self, side: Side) -> Done {
        self.delete_secret(self.cluster(side).await?, &self.me.anchor(side)).await
    }

    async fn delete_vault(&self) -> Done {
        self.delete_secret(self.ctx.clusters.own(), &self.me.vault()).await
    }

    /// The vault first: the password is kept before anything is encrypted with it.
    async fn prepare_secrets(&self) -> Done {
        use build::secret::{anchor, of_side, vault};
        let mut kept = self.refs.copies().map_err(|p| lasting(p.message))?;
        kept.entry(vault::PASSWORD.into()).or_insert_with(password);
        let (_, store) = self.refs.store.as_ref().map_err(|p| lasting(p.message.clone()))?;
        apply(self.ctx.clusters.own(), build::secret::vault(self.me, kept.clone())).await?;
        for side in [Side::Source, Side::Destination] {
            let copy = anchor(self.me, side, of_side(&kept, store, side));
            apply(self.cluster(side).await?, copy).await?;
        }
        Ok(Effect::Done)
    }
}

async fn delete<K>(api: &Api<K>, name: &str) -> Done
where
    K: Clone + DeserializeOwned + Debug,
{
    match api.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(s)) if s.is_not_found() => Ok(Effect::Done),
        other => Ok(other.map(|_| Effect::Done)?),
    }
}

/// What was made already, by one of us who was killed, is taken as it is.
async fn create<K>(api: &Api<K>, object: &K) -> Done
where
    K: Clone + DeserializeOwned + Serialize + Debug,
{
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(s)) if s.is_already_exists() => Ok(Effect::Done),
        other => Ok(other.map(|_| Effect::Done)?),
    }
}

async fn apply(cluster: super::clusters::MoverCluster, mut secret: Secret) -> Result<(), Failed> {
    let name = secret.name_any();
    secret.metadata.namespace = Some(cluster.namespace.clone());
    let api: Api<Secret> = Api::namespaced(cluster.client, &cluster.namespace);
    api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&secret)).await?;
    Ok(())
}

/// 256 bits from the operating system.
fn password() -> Vec<u8> {
    let bytes: [u8; 32] = rand::random();
    hex::encode(bytes).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the release before, a quota or a policy ended a move at once, hours into it.
    #[test]
    fn what_somebody_may_mend_is_tried_again() {
        let cloud = |kind| {
            let (cloud, action, message) = ("b".into(), "create volume".into(), "no".into());
            Failed::from(CloudError { cloud, action, kind, status: None, message, request_id: None })
        };
        for (kind, waits) in [
            (ErrorKind::Quota, true),
            (ErrorKind::Forbidden, true),
            (ErrorKind::Unauthorized, true),
            (ErrorKind::Conflict, true),
            (ErrorKind::Transient, true),
            (ErrorKind::Invalid, false),
            (ErrorKind::TooLarge, false),
            (ErrorKind::NotFound, true),
        ] {
            assert_eq!(cloud(kind).transient, waits, "{kind:?}");
        }
        for (code, why) in [
            (403, "pods \"x\" is forbidden: exceeded quota: team"),
            (400, "admission webhook \"policy\" denied the request"),
            (422, "ValidatingAdmissionPolicy 'p' denied request"),
        ] {
            let status = json!({"status": "Failure", "code": code, "message": why, "reason": ""});
            let failure = Failed::from(kube::Error::Api(serde_json::from_value(status).unwrap()));
            assert!(failure.transient && failure.message.contains(why), "{failure:?}");
        }
    }
}
