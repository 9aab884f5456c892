//! The Job of one attempt of a hook: restricted as a mover's, but without anything of a mover's: no credentials of a
//! cloud or of the store, no API token. What it runs and what it is told are arguments and environment.

use super::job::{MoverImage, anchor, restricted_container, restricted_pod};
use crate::{
    contract::{Ssh, Task, paths},
    crd::v1alpha1::{Hook, HookRow, SshHook},
    migration::{
        hook_context::HookContext,
        names::{Identity, LABEL_MIGRATION, LABEL_PURPOSE, LABEL_SIDE, Side},
    },
};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::*,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use std::{collections::BTreeMap, path::Path};

/// Seconds that our own program has to say that time is up.
const LAST_WORDS: i64 = 15;
/// Script and document become files, then the rest of the arguments is run with the document on its input.
const WRAPPER: &str = r#"umask 077 && printf %s "$1" >/scratch/script && printf %s "$2" >/scratch/context.json && shift 2 && exec "$@" </scratch/context.json"#;

/// What a hook needs and what the operator had to look up.
pub struct Material {
    /// The script.
    pub script: String,
    /// Secrets by name: all keys of each.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

/// Whom a hook of the kind SSH speaks to.
pub struct Guest {
    /// Its address.
    pub address: String,
    /// Its host keys.
    pub host_keys: Vec<String>,
}

/// Where a hook's Job is made.
pub enum Place {
    /// In the migration's namespace: the Secrets are there.
    Own,
    /// In the movers' namespace of a registered cluster, with copies of the Secrets; the owner is the anchor.
    Remote {
        /// UID of the anchor.
        anchor_uid: String,
    },
}

/// Copies of the Secrets for a cluster that does not have them, by the name of the Job.
pub fn secret(me: &Identity, row: &HookRow, side: Side, anchor_uid: &str, material: &Material) -> Secret {
    let copies = material.secrets.values().enumerate().flat_map(|(n, data)| {
        data.iter().map(move |(k, v)| (copied_key(n, k), k8s_openapi::ByteString(v.clone())))
    });
    Secret {
        metadata: ObjectMeta {
            name: Some(me.hook_job(row)),
            labels: Some(labels(me, row, side)),
            owner_references: Some(vec![anchor(me, side, anchor_uid)]),
            ..Default::default()
        },
        data: Some(copies.collect()),
        ..Default::default()
    }
}

/// Several Secrets become one: the keys of each get a number.
fn copied_key(n: usize, key: &str) -> String {
    format!("{n}.{key}")
}

/// The Job, with `seconds` left of the attempt.
pub fn job(
    me: &Identity,
    (hook, row, side): (&Hook, &HookRow, Side),
    (material, guest): (&Material, Option<&Guest>),
    (told, seconds): (&HookContext, i64),
    (image, place): (&MoverImage, &Place),
) -> Job {
    let labels = labels(me, row, side);
    let owner = match place {
        Place::Own => OwnerReference {
            api_version: "vmmigration.io/v1alpha1".into(),
            kind: "VmMigration".into(),
            name: me.name.clone(),
            uid: me.uid.clone(),
            ..Default::default()
        },
        Place::Remote { anchor_uid } => anchor(me, side, anchor_uid),
    };
    let (command, wanted) = match (&hook.ssh, guest) {
        (Some(ssh), Some(guest)) => (ssh_command(ssh, guest, seconds, &image.denied_cidrs), None),
        _ => (
            ["bash", paths::SCRIPT].map(String::from).to_vec(),
            hook.job.as_ref().and_then(|j| j.image.clone()),
        ),
    };
    let mut args =
        vec![WRAPPER.to_string(), "hook".into(), material.script.clone(), told.document.to_string()];
    args.extend(command);
    let (mounts, volumes) = secrets(me, hook, row, material, place);
    let mut container = restricted_container("hook", image, mounts);
    if wanted.is_some() {
        // The platform's policy is about its own image.
        (container.image, container.image_pull_policy) = (wanted, None);
    }
    container.command = Some(["bash", "-c"].map(String::from).to_vec());
    container.args = Some(args.iter().map(|a| literal(a)).collect());
    container
        .env
        .get_or_insert_default()
        .extend(told.env.iter().map(|(name, value)| variable(name, &literal(value))));
    let mut pod = restricted_pod(image, container, volumes);
    // A script that was told to end has little time: the next one, or the way back, waits for it.
    pod.termination_grace_period_seconds = Some(10);
    if matches!(place, Place::Own) {
        // Those Secrets are in the movers' namespace only.
        pod.image_pull_secrets = None;
    }
    Job {
        metadata: ObjectMeta {
            name: Some(me.hook_job(row)),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            pod_replacement_policy: Some("Failed".into()),
            active_deadline_seconds: Some(seconds + if guest.is_some() { LAST_WORDS } else { 0 }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..Default::default() }),
                spec: Some(pod),
            },
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn labels(me: &Identity, row: &HookRow, side: Side) -> BTreeMap<String, String> {
    BTreeMap::from([
        (LABEL_MIGRATION.into(), me.uid.clone()),
        (LABEL_PURPOSE.into(), format!("hook-{}", row.name)),
        (LABEL_SIDE.into(), side.to_string()),
        ("app.kubernetes.io/managed-by".into(), "vmmigration".into()),
    ])
}

/// Kubernetes puts variables in place of `$(NAME)`, and `$` in place of `$$`: a script must arrive as it is.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), ..Default::default() }
}

fn ssh_command(ssh: &SshHook, guest: &Guest, seconds: i64, denied: &[String]) -> Vec<String> {
    let task = Task::Ssh(Ssh {
        user: ssh.user.clone(),
        host: guest.address.clone(),
        port: ssh.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(22),
        key_file: Path::new(paths::SSH_KEYS).join(paths::SSH_KEY),
        script_file: paths::SCRIPT.into(),
        context_file: Some(paths::CONTEXT.into()),
        timeout_seconds: u64::try_from(seconds).unwrap_or(1),
        host_key: guest.host_keys.clone(),
    });
    ["vmmigration", "mover"].map(String::from).into_iter().chain(task.command_line(denied)).collect()
}

/// Where the Secrets are mounted, and what they are made of.
fn secrets(
    me: &Identity,
    hook: &Hook,
    row: &HookRow,
    material: &Material,
    place: &Place,
) -> (Vec<VolumeMount>, Vec<Volume>) {
    let key = hook.ssh.as_ref().map(|s| &s.private_key_secret_ref);
    let one = |(n, (name, data)): (usize, (&String, &BTreeMap<String, Vec<u8>>))| {
        let mount_path = match key {
            Some(_) => paths::SSH_KEYS.to_string(),
            None => format!("{}/{name}", paths::HOOK_SECRETS),
        };
        let item = |k: &String| KeyToPath {
            key: if matches!(place, Place::Own) { k.clone() } else { copied_key(n, k) },
            path: key.map_or(k.clone(), |_| paths::SSH_KEY.into()),
            mode: None,
        };
        let keys = data.keys().filter(|k| key.is_none_or(|r| r.key == **k));
        let source = SecretVolumeSource {
            secret_name: Some(match place {
                Place::Own => name.clone(),
                Place::Remote { .. } => me.hook_job(row),
            }),
            // Readable by the script's group (fsGroup), by nobody else.
            default_mode: Some(0o440),
            items: Some(keys.map(item).collect()),
            ..Default::default()
        };
        let volume = format!("secret-{n}");
        (
            VolumeMount { name: volume.clone(), mount_path, read_only: Some(true), ..Default::default() },
            Volume { name: volume, secret: Some(source), ..Default::default() },
        )
    };
    material.secrets.iter().enumerate().map(one).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::v1alpha1::HookPhase;
    use serde_json::{Value, json};

    const SCRIPT: &str = "echo \"$$ $(VMM_HOOK) ${x:-'a b'}\" `id` $(date)\n";

    fn made(hook: Value, place: Place) -> (Value, Value) {
        let me = Identity { uid: "u-1".into(), namespace: "team".into(), name: "web".into() };
        let hook: Hook = serde_json::from_value(hook).unwrap();
        let row = HookRow {
            name: hook.name.clone(),
            phase: HookPhase::BeforeStop,
            nonce: Some("abc".into()),
            attempts: 2,
            ..Default::default()
        };
        let material = Material {
            script: SCRIPT.into(),
            secrets: BTreeMap::from([(
                "tools.v1".into(),
                BTreeMap::from([("id".to_string(), b"key".to_vec())]),
            )]),
        };
        let told = HookContext {
            env: BTreeMap::from([("VMM_SOURCE_SERVER_NAME", "it's $(VMM_HOOK) $$".to_string())]),
            document: json!({"a": "b"}),
        };
        let guest =
            Guest { address: "10.0.0.5".into(), host_keys: vec!["ssh-ed25519 A".into(), "ssh-rsa B".into()] };
        let image =
            MoverImage { name: "img".into(), denied_cidrs: vec!["10.9.0.0/16".into()], ..Default::default() };
        let kind = (&hook, &row, Side::Source);
        let guest = hook.ssh.is_some().then_some(&guest);
        let job = job(&me, kind, (&material, guest), (&told, 30), (&image, &place));
        let secret = secret(&me, &row, Side::Source, "anchor", &material);
        (serde_json::to_value(job).unwrap(), serde_json::to_value(secret).unwrap())
    }

    fn job_hook() -> Value {
        json!({"name": "page", "phase": "BeforeStop", "timeout": "30s", "job": {"script": SCRIPT, "secrets": ["tools.v1"]}})
    }

    fn ssh_hook() -> Value {
        json!({"name": "db", "phase": "BeforeStop", "ssh": {"user": "root", "script": SCRIPT,
            "privateKeySecretRef": {"name": "tools.v1", "key": "id"}}})
    }

    /// As the kubelet puts variables into arguments.
    fn expanded(text: &str) -> String {
        text.replace("$$", "$")
    }

    #[test]
    fn a_script_arrives_as_it_is() {
        let (job, _) = made(job_hook(), Place::Own);
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        let args: Vec<String> =
            container["args"].as_array().unwrap().iter().map(|a| expanded(a.as_str().unwrap())).collect();
        assert_eq!(args[1..], ["hook", SCRIPT, r#"{"a":"b"}"#, "bash", "/scratch/script"]);
        assert_eq!(args[0], WRAPPER);
        assert!(WRAPPER.contains(paths::SCRIPT) && WRAPPER.contains(paths::CONTEXT), "the mover looks there");
        let env = container["env"].as_array().unwrap();
        let name = env.iter().find(|e| e["name"] == "VMM_SOURCE_SERVER_NAME").unwrap();
        assert_eq!(expanded(name["value"].as_str().unwrap()), "it's $(VMM_HOOK) $$");
    }

    #[test]
    fn a_hook_is_restricted_and_has_nothing_of_a_mover() {
        for place in [Place::Own, Place::Remote { anchor_uid: "anchor".into() }] {
            let (job, _) = made(job_hook(), place);
            let pod = &job["spec"]["template"]["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false);
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["containers"][0]["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
            assert_eq!(job["spec"]["activeDeadlineSeconds"], 30);
            assert!(!pod.to_string().contains("/etc/vmmigration"), "{pod}");
            assert!(!pod.to_string().contains("vmm-u-1-source"), "no Secret of a mover: {pod}");
        }
    }

    #[test]
    fn in_its_own_namespace_it_uses_the_secret_and_elsewhere_a_copy() {
        let (own, _) = made(job_hook(), Place::Own);
        let volume = |job: &Value| {
            job["spec"]["template"]["spec"]["volumes"].as_array().unwrap().last().cloned().unwrap()
        };
        assert_eq!(volume(&own)["secret"]["secretName"], "tools.v1");
        assert_eq!(own["metadata"]["ownerReferences"][0]["kind"], "VmMigration");
        let (remote, copy) = made(job_hook(), Place::Remote { anchor_uid: "anchor".into() });
        assert_eq!(volume(&remote)["secret"]["secretName"], "vmm-u-1-hook-abc-2");
        assert_eq!(volume(&remote)["secret"]["items"], json!([{"key": "0.id", "path": "id"}]));
        assert_eq!(remote["metadata"]["ownerReferences"][0]["uid"], "anchor");
        assert_eq!(
            (&copy["metadata"]["name"], &copy["data"]["0.id"]),
            (&json!("vmm-u-1-hook-abc-2"), &json!("a2V5"))
        );
        let mount = remote["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
            .as_array()
            .unwrap()
            .last()
            .cloned();
        assert_eq!(mount.unwrap()["mountPath"], "/secrets/tools.v1");
    }

    #[test]
    fn ssh_is_our_program_with_the_key_and_the_host_keys() {
        let (job, _) = made(ssh_hook(), Place::Own);
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        let args: Vec<&str> =
            container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        let command = args[4..].join(" ");
        assert!(
            command.starts_with(
                "vmmigration mover ssh --user root --host 10.0.0.5 --port 22 --key-file /key/key"
            )
        );
        assert!(
            command.ends_with(
                "--timeout-seconds 30 --host-key ssh-ed25519 A --host-key ssh-rsa B --denied-cidr 10.9.0.0/16"
            ),
            "{command}"
        );
    }
}
