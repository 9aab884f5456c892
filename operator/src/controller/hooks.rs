//! Hooks at the edge: what they refer to is read and checked, in preflight and again whenever one is run, and their
//! Jobs are made.

use super::{
    clusters::MoverCluster,
    context::{Context, Settings},
    execute::{Failed, Hands, lasting, later},
    observe::CONSOLE_LINES,
    references::files,
};
use crate::{
    build::hook::{Guest, Material, Place, job, secret},
    contract::host_keys_from_console,
    crd::v1alpha1::{Finding, Hook, KeyRef, SshHook, VmMigration},
    migration::{
        checks::trusted,
        hook_context::context,
        names::{LABEL_HOOK, Side},
        observed::Problem,
        step::{Effect, HookRequest},
    },
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Secret},
};
use kube::{Api, ResourceExt, api::PostParams};
use std::collections::BTreeMap;

/// How long the new server's console may take to show host keys before `hostKey` alone is trusted, in seconds; at most
/// half of the hook's time.
const CONSOLE_SECONDS: i64 = 120;

/// An argument of a program may have 128 KiB.
const SCRIPT_BYTES: usize = 64 << 10;

/// What is wrong with what hooks and checks refer to.
pub async fn findings(ctx: &Context, object: &VmMigration) -> Result<Vec<Finding>, kube::Error> {
    let namespace = object.namespace().unwrap_or_default();
    let mut found = vec![];
    for check in object.spec.verification.iter().flat_map(|v| &v.checks) {
        let Some(key) = check.ssh.as_ref().map(|s| &s.private_key_secret_ref) else { continue };
        let whose = format!("check {}", check.name);
        if let Err(problem) = secret_of(ctx, &namespace, &whose, &key.name, Some(&key.key)).await? {
            found.push(problem.blocker());
        }
    }
    for hook in &object.spec.hooks {
        if let Err(problems) = material(ctx, &namespace, hook).await? {
            found.extend(problems.iter().map(Problem::blocker));
        }
    }
    Ok(found)
}

/// Script and Secrets of a hook, or all that is wrong with them.
async fn material(
    ctx: &Context,
    namespace: &str,
    hook: &Hook,
) -> Result<Result<Material, Vec<Problem>>, kube::Error> {
    let mut problems = vec![];
    let image = hook.job.as_ref().and_then(|j| j.image.as_deref());
    if let Some(image) = image.filter(|i| !allowed(&ctx.settings, i)) {
        problems.push(image_problem(hook, image, &ctx.settings));
    }
    let job = hook.job.as_ref().map(|j| (&j.script, &j.config_map));
    let (inline, reference) =
        job.or(hook.ssh.as_ref().map(|s| (&s.script, &s.config_map))).unwrap_or((&None, &None));
    let script = match (inline, reference) {
        (Some(script), _) => script.clone(),
        (None, Some(r)) => match script_of(ctx, namespace, hook, r).await? {
            Ok(script) => script,
            Err(problem) => {
                problems.push(problem);
                String::new()
            }
        },
        (None, None) => String::new(),
    };
    let mut secrets = BTreeMap::new();
    for (name, key) in wanted_secrets(hook) {
        match secret_of(ctx, namespace, &format!("hook {}", hook.name), name, key).await? {
            Ok(data) => drop(secrets.insert(name.clone(), data)),
            Err(problem) => problems.push(problem),
        }
    }
    Ok(if problems.is_empty() { Ok(Material { script, secrets }) } else { Err(problems) })
}

fn wanted_secrets(hook: &Hook) -> Vec<(&String, Option<&String>)> {
    let of_job = hook.job.iter().flat_map(|j| j.secrets.iter().map(|name| (name, None)));
    let of_ssh = hook.ssh.iter().map(|s| &s.private_key_secret_ref).map(|r| (&r.name, Some(&r.key)));
    of_job.chain(of_ssh).collect()
}

fn problem(id: &str, message: String, suggestion: impl Into<String>) -> Problem {
    Problem { id: id.into(), message, suggestion: Some(suggestion.into()), transient: false }
}

/// Our own image, and what the platform allows: a name, or the beginning of names when it ends in `*`.
fn allowed(settings: &Settings, image: &str) -> bool {
    let fits = |pattern: &String| match pattern.strip_suffix('*') {
        Some(beginning) => image.starts_with(beginning),
        None => image == pattern,
    };
    image == settings.image.name || settings.hook_images.iter().any(fits)
}

fn image_problem(hook: &Hook, image: &str, settings: &Settings) -> Problem {
    let there = match settings.hook_images.join(", ") {
        list if list.is_empty() => "the platform allows no other image than its own".to_string(),
        list => format!("the platform allows: {list}"),
    };
    problem(
        "hook-image-not-allowed",
        format!("hook {}: image {image} is not allowed", hook.name),
        format!(
            "leave job.image out, or ask the platform to allow it (chart value hooks.allowedImages); {there}"
        ),
    )
}

async fn script_of(
    ctx: &Context,
    namespace: &str,
    hook: &Hook,
    r: &KeyRef,
) -> Result<Result<String, Problem>, kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), namespace);
    let Some(found) = api.get_opt(&r.name).await? else {
        let message =
            format!("hook {}: there is no ConfigMap {:?} in namespace {namespace}", hook.name, r.name);
        return Ok(Err(problem("hook-config-map-missing", message, "create it")));
    };
    let script = found.data.and_then(|mut d| d.remove(&r.key));
    if script.as_ref().is_some_and(|s| s.len() > SCRIPT_BYTES) {
        let message = format!(
            "hook {}: key {} of ConfigMap {} has more than {SCRIPT_BYTES} bytes",
            hook.name, r.key, r.name
        );
        return Ok(Err(problem("hook-script-too-long", message, "put what is long into an image")));
    }
    Ok(script.ok_or_else(|| {
        let message = format!("hook {}: ConfigMap {} has no key {:?}", hook.name, r.name, r.key);
        problem("hook-config-map-key-missing", message, "add the script under that key")
    }))
}

/// The keys of a Secret that hooks may use. `whose` is for messages, such as `hook x`.
pub(super) async fn secret_of(
    ctx: &Context,
    namespace: &str,
    whose: &str,
    name: &str,
    key: Option<&String>,
) -> Result<Result<BTreeMap<String, Vec<u8>>, Problem>, kube::Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let Some(found) = api.get_opt(name).await? else {
        let message = format!("{whose}: there is no Secret {name:?} in namespace {namespace}");
        return Ok(Err(problem(
            "hook-secret-missing",
            message,
            "create it, with the label vmmigration.io/hook=true",
        )));
    };
    if found.labels().get(LABEL_HOOK).map(String::as_str) != Some("true") {
        return Ok(Err(problem(
            "hook-secret-not-allowed",
            format!("{whose}: Secret {name} may not be used by hooks and checks"),
            format!("kubectl label secret {name} -n {namespace} {LABEL_HOOK}=true"),
        )));
    }
    let mut data = files(found);
    if let Some(key) = key {
        data.retain(|k, _| k == key);
        if data.is_empty() {
            let message = format!("{whose}: Secret {name} has no key {key:?}");
            return Ok(Err(problem(
                "hook-secret-key-missing",
                message,
                "add the private key under that key",
            )));
        }
    }
    Ok(Ok(data))
}

impl Hands<'_> {
    /// Makes the Job of an attempt. What it refers to may have changed since preflight.
    pub(super) async fn run_hook(&self, request: &HookRequest) -> Result<Effect, Failed> {
        let hook = self.object.spec.hooks.iter().find(|h| h.name == request.hook);
        let row = self.status.hooks.iter().find(|r| r.name == request.hook);
        let (Some(hook), Some(row)) = (hook, row) else {
            return Err(lasting(format!("there is no hook {}", request.hook)));
        };
        let material = material(self.ctx, &self.me.namespace, hook).await?.map_err(|problems| {
            let all: Vec<_> = problems.into_iter().map(|p| p.message).collect();
            lasting(all.join("; "))
        })?;
        let begun = row.started_at.as_ref().map_or(0, |t| self.ctx.now().duration_since(t.0).as_secs());
        let guest = match &hook.ssh {
            Some(ssh) => Some(self.guest(request.side, (hook, ssh), begun).await?),
            None => None,
        };
        let (cluster, place) = self.hook_place(request.side).await?;
        if let Place::Remote { anchor_uid } = &place
            && !material.secrets.is_empty()
        {
            let copy = secret(self.me, row, request.side, anchor_uid, &material);
            let api: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
            existing(api.create(&PostParams::default(), &copy).await)?;
        }
        let told = context(self.me, &self.object.spec, self.status, row);
        let kind = (hook, row, request.side);
        let image = (&self.ctx.settings.image, &place);
        let left = (hook.timeout_seconds() - begun).max(1);
        let job = job(self.me, kind, (&material, guest.as_ref()), (&told, left), image);
        let api: Api<Job> = Api::namespaced(cluster.client, &cluster.namespace);
        existing(api.create(&PostParams::default(), &job).await)?;
        Ok(Effect::Created { id: request.job.clone() })
    }

    /// Near our own clouds a hook runs in its tenant's namespace, elsewhere where movers run.
    async fn hook_place(&self, side: Side) -> Result<(MoverCluster, Place), Failed> {
        let cluster = self.cluster_of_hooks(side).await?;
        if self.hooks_are_own(side) {
            return Ok((cluster, Place::Own));
        }
        let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let anchor = secrets.get_metadata(&self.me.anchor(side)).await?;
        Ok((cluster, Place::Remote { anchor_uid: anchor.uid().unwrap_or_default() }))
    }

    /// Do hooks of a side run in the migration's namespace?
    pub(super) fn hooks_are_own(&self, side: Side) -> bool {
        self.refs.side(side).as_ref().is_ok_and(|r| r.cluster.is_none())
    }

    /// The cluster and the namespace in which hooks of a side run.
    pub(super) async fn cluster_of_hooks(&self, side: Side) -> Result<MoverCluster, Failed> {
        let cluster = self.cluster(side).await?;
        Ok(if self.hooks_are_own(side) {
            MoverCluster { namespace: self.me.namespace.clone(), ..cluster }
        } else {
            cluster
        })
    }

    /// Address and host keys of the guest: as given, or as the cloud tells them; the attempt began `begun` seconds ago.
    async fn guest(&self, side: Side, (hook, ssh): (&Hook, &SshHook), begun: i64) -> Result<Guest, Failed> {
        let (id, addresses) = match side {
            Side::Source => {
                let s = self.status.source.clone().unwrap_or_default();
                (s.server_id, s.addresses)
            }
            Side::Destination => {
                let x = self.status.destination.clone().unwrap_or_default();
                (x.server_id.unwrap_or_default(), x.addresses)
            }
        };
        let address = ssh.address.clone().or_else(|| addresses.first().cloned()).ok_or_else(|| {
            lasting(format!("nothing to run on: no address of the {side} server is known; give ssh.address"))
        })?;
        let given = ssh.host_key.as_deref();
        let printed = match (side, given, id.is_empty()) {
            (Side::Source, Some(_), _) | (Side::Destination, Some(_), true) => vec![],
            (_, None, true) => {
                return Err(lasting(format!(
                    "the {side} server is not known yet, so its console cannot be read; give ssh.hostKey"
                )));
            }
            // With another key at hand a console that cannot be read is one that shows nothing.
            (_, Some(_), false) => self.printed(side, &id).await.unwrap_or_default(),
            (_, None, false) => self.printed(side, &id).await?,
        };
        let waits = !id.is_empty() && begun < CONSOLE_SECONDS.min(hook.timeout_seconds() / 2);
        match trusted(side, given, printed, waits) {
            Some(host_keys) => Ok(Guest { address, host_keys }),
            // A guest that has just started may print them soon; the hook's deadline ends the wait.
            None => Err(later(no_key(&id, &address, given))),
        }
    }

    /// The host keys that a guest has printed on its console.
    async fn printed(&self, side: Side, id: &str) -> Result<Vec<String>, Failed> {
        let console = self.cloud(side)?.console_output(id, CONSOLE_LINES).await?;
        Ok(host_keys_from_console(&console))
    }
}

fn no_key(id: &str, address: &str, given: Option<&str>) -> String {
    match given {
        Some(_) => format!(
            "the console of server {id} shows no SSH host key yet; it is waited for, since cloud-init makes new keys for a \
             new instance, and then hostKey alone is tried"
        ),
        None => format!(
            "the console of server {id} shows no SSH host key, and a key that is not known is not trusted; give ssh.hostKey \
             (ssh-keyscan {address}, compared in the guest), or let the guest print its keys on the console as cloud-init \
             does"
        ),
    }
}

/// What is there already was made by us before: its name carries the attempt.
fn existing<T>(created: Result<T, kube::Error>) -> Result<(), Failed> {
    match created {
        Err(kube::Error::Api(s)) if s.is_already_exists() => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build::job::MoverImage, migration::decide::Limits};

    #[test]
    fn images_are_allowed_by_name_or_by_their_beginning() {
        let settings = Settings {
            namespace: String::new(),
            movers_namespace: String::new(),
            own_cluster: None,
            image: MoverImage { name: "own:1".into(), ..Default::default() },
            hook_images: vec!["reg.example.com/tools:2".into(), "reg.example.com/team/*".into()],
            denied: vec![],
            concurrency: 1,
            limits: Limits::default(),
        };
        for (image, yes) in [
            ("own:1", true),
            ("own:2", false),
            ("reg.example.com/tools:2", true),
            ("reg.example.com/tools:3", false),
            ("reg.example.com/team/any:1", true),
            ("reg.example.com.evil/team/any:1", false),
            ("", false),
        ] {
            assert_eq!(allowed(&settings, image), yes, "{image}");
        }
    }
}
