//! The Job of a mover: restricted, without an API token, credentials by mounted files only, one attempt.

use super::secret::Files;
use crate::contract::paths;
use crate::migration::{
    names::{Identity, LABEL_MIGRATION, LABEL_PURPOSE, Side},
    step::JobRequest,
};
use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::*,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What the platform decides about movers' pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PodSettings {
    /// Nodes that movers may run on.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that movers tolerate.
    pub tolerations: Option<Vec<Toleration>>,
    /// Requests and limits.
    pub resources: Option<ResourceRequirements>,
    /// Secrets for the registry, in the movers' namespace.
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
}

/// The image of the movers and what the platform decides about their pods.
#[derive(Clone, Debug, Default)]
pub struct MoverImage {
    /// Image name.
    pub name: String,
    /// `Always`, `IfNotPresent`, `Never`.
    pub pull_policy: Option<String>,
    /// The rest.
    pub pod: PodSettings,
    /// Networks that movers may not connect to.
    pub denied_cidrs: Vec<String>,
}

/// The user that every mover runs as.
const USER: i64 = 65532;

/// The Job of one attempt. Its owner is the anchor Secret: who deletes that deletes the Job.
pub fn job(me: &Identity, request: &JobRequest, image: &MoverImage, anchor_uid: &str) -> Job {
    let name = me.job(&request.purpose, request.attempt);
    let labels = BTreeMap::from([
        (LABEL_MIGRATION.into(), me.uid.clone()),
        (LABEL_PURPOSE.into(), request.purpose.clone()),
        ("app.kubernetes.io/managed-by".into(), "vmmigration".into()),
    ]);
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels.clone()), ..Default::default() }),
        spec: Some(pod(me, request, image)),
    };
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(labels),
            owner_references: Some(vec![anchor(me, request.side, anchor_uid)]),
            ..Default::default()
        },
        spec: Some(JobSpec {
            // One attempt: the operator decides about the next, which gets an image of its own.
            backoff_limit: Some(0),
            pod_replacement_policy: Some("Failed".into()),
            active_deadline_seconds: Some(request.deadline_seconds),
            template,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn pod(me: &Identity, request: &JobRequest, image: &MoverImage) -> PodSpec {
    restricted_pod(image, container(request, image), volumes(me, request))
}

/// A pod under the restricted profile, without an API token, where the platform wants it; with a scratch directory.
pub fn restricted_pod(image: &MoverImage, container: Container, mut volumes: Vec<Volume>) -> PodSpec {
    let p = &image.pod;
    volumes.insert(
        0,
        Volume {
            name: "scratch".into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Default::default()
        },
    );
    PodSpec {
        restart_policy: Some("Never".into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(60),
        node_selector: p.node_selector.clone(),
        tolerations: p.tolerations.clone(),
        image_pull_secrets: p.image_pull_secrets.clone(),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..Default::default() }),
            ..Default::default()
        }),
        containers: vec![container],
        volumes: Some(volumes),
        ..Default::default()
    }
}

fn container(request: &JobRequest, image: &MoverImage) -> Container {
    let mut args = vec!["mover".to_string()];
    args.extend(request.task.command_line(&image.denied_cidrs));
    let mut mounts = vec![];
    if !request.keys.is_empty() {
        mounts.push(VolumeMount {
            name: "keys".into(),
            mount_path: paths::CHECK_KEYS.into(),
            read_only: Some(true),
            ..Default::default()
        });
    }
    if request.credentials {
        mounts.push(VolumeMount {
            name: "config".into(),
            mount_path: paths::CONFIG.into(),
            read_only: Some(true),
            ..Default::default()
        });
    }
    let device = VolumeDevice { name: "disk".into(), device_path: paths::DEVICE.into() };
    Container {
        args: Some(args),
        volume_devices: request.device.as_ref().map(|_| vec![device]),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..restricted_container("mover", image, mounts)
    }
}

/// A container under the restricted profile, with a scratch directory.
pub fn restricted_container(name: &str, image: &MoverImage, mut mounts: Vec<VolumeMount>) -> Container {
    let env = |name: &str, value: &str| EnvVar {
        name: name.into(),
        value: Some(value.into()),
        ..Default::default()
    };
    mounts.insert(
        0,
        VolumeMount { name: "scratch".into(), mount_path: paths::SCRATCH.into(), ..Default::default() },
    );
    Container {
        name: name.into(),
        image: Some(image.name.clone()),
        image_pull_policy: image.pull_policy.clone(),
        env: Some(vec![env("HOME", paths::SCRATCH), env("TMPDIR", paths::SCRATCH)]),
        resources: image.pod.resources.clone(),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Default::default() }),
            ..Default::default()
        }),
        volume_mounts: Some(mounts),
        ..Default::default()
    }
}

/// Copies of the tenant's private keys for one Job: what runs in the movers' namespace cannot see the tenant's.
pub fn keys(me: &Identity, request: &JobRequest, anchor_uid: &str, files: Files) -> Secret {
    let labels = BTreeMap::from([
        (LABEL_MIGRATION.into(), me.uid.clone()),
        ("app.kubernetes.io/managed-by".into(), "vmmigration".into()),
    ]);
    Secret {
        metadata: ObjectMeta {
            name: Some(me.job(&request.purpose, request.attempt)),
            labels: Some(labels),
            owner_references: Some(vec![anchor(me, request.side, anchor_uid)]),
            ..Default::default()
        },
        data: Some(files.into_iter().map(|(k, v)| (k, ByteString(v))).collect()),
        ..Default::default()
    }
}

/// The anchor as an owner.
pub(super) fn anchor(me: &Identity, side: Side, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Secret".into(),
        name: me.anchor(side),
        uid: uid.into(),
        ..Default::default()
    }
}

fn volumes(me: &Identity, request: &JobRequest) -> Vec<Volume> {
    let config = SecretVolumeSource {
        secret_name: Some(me.anchor(request.side)),
        // Readable by the mover's group (fsGroup), by nobody else.
        default_mode: Some(0o440),
        ..Default::default()
    };
    let config = Volume { name: "config".into(), secret: Some(config), ..Default::default() };
    let keys = SecretVolumeSource {
        secret_name: Some(me.job(&request.purpose, request.attempt)),
        default_mode: Some(0o440),
        ..Default::default()
    };
    let keys = Volume { name: "keys".into(), secret: Some(keys), ..Default::default() };
    let disk = request.device.as_ref().map(|claim| Volume {
        name: "disk".into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.clone(),
            ..Default::default()
        }),
        ..Default::default()
    });
    let all = [(config, request.credentials), (keys, !request.keys.is_empty())];
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(volume, _)| volume).chain(disk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contract::{Checks, Purge, Task},
        crd::v1alpha1::KeyRef,
    };

    fn purge() -> Task {
        Task::Purge(Purge { repository: "r".into(), migration_uid: "u-1".into() })
    }

    fn example(credentials: bool) -> Job {
        let me = Identity { uid: "u-1".into(), namespace: "team".into(), name: "web".into() };
        let request = JobRequest {
            side: Side::Source,
            purpose: "backup-0".into(),
            attempt: 2,
            task: purge(),
            credentials,
            device: None,
            keys: BTreeMap::new(),
            deadline_seconds: 60,
        };
        let image =
            MoverImage { name: "img".into(), denied_cidrs: vec!["10.0.0.0/8".into()], ..Default::default() };
        job(&me, &request, &image, "anchor-uid")
    }

    #[test]
    fn a_mover_is_restricted_and_has_no_token() {
        let job = example(true);
        let pod = job.spec.unwrap().template.spec.unwrap();
        let c = pod.containers[0].security_context.clone().unwrap();
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!(pod.security_context.unwrap().run_as_non_root, Some(true));
        assert_eq!((c.read_only_root_filesystem, c.allow_privilege_escalation), (Some(true), Some(false)));
        assert_eq!(c.capabilities.unwrap().drop, Some(vec!["ALL".to_string()]));
        assert!(pod.service_account_name.is_none());
    }

    #[test]
    fn a_job_is_one_attempt_owned_by_the_anchor() {
        let job = example(true);
        assert_eq!(job.metadata.name.as_deref(), Some("vmm-u-1-backup-0-2"));
        assert_eq!(job.metadata.owner_references.unwrap()[0].uid, "anchor-uid");
        let spec = job.spec.unwrap();
        assert_eq!((spec.backoff_limit, spec.ttl_seconds_after_finished), (Some(0), None));
    }

    #[test]
    fn a_mover_with_a_device_is_as_restricted_as_any() {
        let me = Identity { uid: "u-1".into(), namespace: "team".into(), name: "web".into() };
        let request = JobRequest {
            side: Side::Source,
            purpose: "backup-0".into(),
            attempt: 1,
            task: purge(),
            credentials: true,
            device: Some(me.device(Side::Source, 0)),
            keys: BTreeMap::new(),
            deadline_seconds: 60,
        };
        let pod = job(&me, &request, &MoverImage::default(), "a").spec.unwrap().template.spec.unwrap();
        let device = pod.containers[0].volume_devices.clone().unwrap().remove(0);
        let volume = pod.volumes.unwrap().pop().unwrap();
        assert_eq!((device.name, device.device_path), (volume.name, paths::DEVICE.to_string()));
        assert_eq!(Some(volume.persistent_volume_claim.unwrap().claim_name), request.device);
        let context = pod.security_context.unwrap();
        assert_eq!((context.run_as_user, context.run_as_non_root), (Some(USER), Some(true)));
    }

    #[test]
    fn a_check_gets_no_credentials() {
        let pod = example(false).spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.volumes.unwrap().len(), 1);
        assert_eq!(pod.containers[0].volume_mounts.clone().unwrap().len(), 1);
    }

    #[test]
    fn a_check_over_ssh_gets_a_copy_of_its_key_and_nothing_else() {
        let me = Identity { uid: "u-1".into(), namespace: "team".into(), name: "web".into() };
        let key = KeyRef { name: "tenants".into(), key: "id".into() };
        let request = JobRequest {
            side: Side::Destination,
            purpose: "check".into(),
            attempt: 1,
            task: Task::Check(Checks::new(&[], 60)),
            credentials: false,
            device: None,
            keys: BTreeMap::from([("0".into(), key)]),
            deadline_seconds: 60,
        };
        let job = job(&me, &request, &MoverImage::default(), "anchor-uid");
        let secret = keys(&me, &request, "anchor-uid", Files::from([("0".into(), b"key".to_vec())]));
        let pod = job.spec.unwrap().template.spec.unwrap();
        let mounted = pod.volumes.unwrap().last().cloned().unwrap().secret.unwrap();
        assert_eq!((&mounted.secret_name, mounted.default_mode), (&secret.metadata.name, Some(0o440)));
        let mounts = pod.containers[0].volume_mounts.clone().unwrap();
        let paths: Vec<_> = mounts.iter().map(|m| m.mount_path.as_str()).collect();
        assert_eq!(paths, ["/scratch", "/etc/vmmigration-check"]);
        assert!(me.is_check_job(secret.metadata.name.as_deref().unwrap()));
        assert_eq!(secret.metadata.owner_references.unwrap()[0].uid, "anchor-uid");
        assert_eq!(secret.data.unwrap().keys().collect::<Vec<_>>(), ["0"]);
    }
}
