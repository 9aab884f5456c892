//! `attach`: claims client hooks, runs their scripts, and answers.

use super::{
    cli::AttachArgs,
    connect::Session,
    end::Done,
    follow::{Follow, follow},
    hooks::{Turn, annotation, is_mine, next_action, note_of, row_of, tail},
    script::{self, Running, TOOK_TOO_LONG},
};
use crate::{
    crd::v1alpha1::*,
    migration::{hook_context, names::Identity},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How often a claim is renewed; a third of the time after which it may be taken over.
const RENEW: Duration = Duration::from_secs(10);

/// How often a write is tried again that somebody else's write came before.
const CONFLICTS: usize = 20;

/// How long the answer is tried to be given to a cluster that does not answer.
const DELIVERY: Duration = Duration::from_secs(600);

/// `kubectl vmmigration attach`
pub async fn run(session: Session, args: &AttachArgs) -> Done {
    let how = Follow::of(&args.follow).with_scripts(args.hooks.clone());
    follow(&session, &args.name, how).await
}

/// A name for this client: who, where, and something random.
pub fn client_id() -> String {
    let user =
        ["USER", "LOGNAME"].iter().find_map(|v| std::env::var(v).ok()).unwrap_or_else(|| "somebody".into());
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().into_owned();
    format!("{user}@{host}-{:08x}", rand::random::<u32>())
}

/// One hook and the script that this client has for it.
#[derive(Clone)]
pub struct Task {
    /// The migrations' API.
    pub api: Api<VmMigration>,
    /// The migration.
    pub migration: String,
    /// The hook.
    pub hook: Hook,
    /// The attempt.
    pub nonce: String,
    /// This client.
    pub me: String,
    /// The script.
    pub path: PathBuf,
    /// Where lines for the terminal go.
    pub print: UnboundedSender<String>,
}

/// What a write came to.
enum Written {
    /// It is there.
    Done(Box<VmMigration>),
    /// Not allowed any more.
    NotMine,
}

/// Claims the hook, runs its script and answers; gives what there is to tell. Ends early when `stop` is cancelled:
/// then the script is killed and the claim is given up, so that another client can take it at once.
pub async fn serve(task: Task, stop: CancellationToken) -> String {
    let name = task.hook.name.clone();
    let claimed = match task.claim().await {
        Ok(Written::Done(object)) => object,
        Ok(Written::NotMine) => return format!("hook {name}: another client was faster"),
        Err(e) => return format!("hook {name} could not be claimed: {e}"),
    };
    let mut running = match task.start(&claimed) {
        Ok(running) => running,
        Err(e) => {
            // 127 is what a shell says of what it cannot run.
            let said = format!("{}: {e}", task.path.display());
            return task.deliver(127, said.as_bytes()).await;
        }
    };
    match task.accompany(&mut running, &stop).await {
        Ok(code) => task.deliver(code, running.tail()).await,
        Err(why) => {
            running.kill().await;
            task.give_up().await;
            format!("hook {name}: {why}; the script was ended")
        }
    }
}

impl Task {
    fn note(&self) -> ClientHookNote {
        ClientHookNote {
            nonce: self.nonce.clone(),
            client: self.me.clone(),
            seen_at: Some(Time(Timestamp::now())),
            ..Default::default()
        }
    }

    async fn claim(&self) -> Result<Written, kube::Error> {
        let allowed = |object: &VmMigration| {
            let row = row_of(object, &self.hook.name).filter(|r| r.nonce.as_ref() == Some(&self.nonce));
            let note = note_of(object, &self.hook.name);
            let turn = row.map(|r| next_action(r, note.as_ref(), &self.me, Timestamp::now()));
            matches!(turn, Some(Turn::Claim | Turn::Run))
        };
        self.write(allowed, || self.note()).await
    }

    fn start(&self, object: &VmMigration) -> std::io::Result<Running> {
        let me = Identity {
            uid: object.uid().unwrap_or_default(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        };
        let status = object.status.clone().unwrap_or_default();
        let row = row_of(object, &self.hook.name).cloned().unwrap_or_default();
        let context = hook_context::context(&me, &object.spec, &status, &row);
        let _ = self.print.send(format!("hook {}: running {}", self.hook.name, self.path.display()));
        script::start(&self.path, &context, self.print.clone())
    }

    /// Until the script's end, renewing the claim; an error says why the script must be ended.
    async fn accompany(&self, running: &mut Running, stop: &CancellationToken) -> Result<i32, String> {
        let limit = Duration::from_secs(self.hook.timeout_seconds().unsigned_abs());
        let end = Instant::now() + limit;
        let renewing = self.renewing();
        tokio::select! {
            code = timeout_at(end, running.wait()) => match code {
                Ok(code) => code.map_err(|e| format!("the script's end could not be seen: {e}")),
                Err(_) => {
                    running.kill().await;
                    let _ = self.print.send(format!("hook {}: ended after {} s", self.hook.name, limit.as_secs()));
                    Ok(TOOK_TOO_LONG)
                }
            },
            () = renewing => Err("it was taken over by another client, or its time is up".into()),
            () = stop.cancelled() => Err("given up; another client can attach and run it".into()),
        }
    }

    /// Renews the claim; ends when it is not ours any more. A cluster that does not answer is asked again.
    async fn renewing(&self) {
        loop {
            sleep(RENEW).await;
            if let Ok(Written::NotMine) = self.write(|o| self.mine(o), || self.note()).await {
                return;
            }
        }
    }

    fn mine(&self, object: &VmMigration) -> bool {
        let note = note_of(object, &self.hook.name);
        is_mine(row_of(object, &self.hook.name), note.as_ref(), &self.me, &self.nonce)
    }

    /// Posts the result, until it is there or nobody wants it any more.
    async fn deliver(&self, code: i32, output: &[u8]) -> String {
        let name = &self.hook.name;
        let output = self.hook.captures().then(|| tail(output));
        let note = || ClientHookNote { exit_code: Some(code), output: output.clone(), ..self.note() };
        let end = Instant::now() + DELIVERY;
        loop {
            let error = match self.write(|o| self.mine(o), note).await {
                Ok(Written::Done(_)) => {
                    return format!("hook {name}: the script ended with exit code {code}");
                }
                Ok(Written::NotMine) => {
                    return format!(
                        "hook {name}: exit code {code} came too late; the hook does not wait for it any more"
                    );
                }
                Err(error) => error,
            };
            if Instant::now() > end {
                return format!("hook {name}: exit code {code} could not be told to the cluster: {error}");
            }
            let _ = self.print.send(format!("hook {name}: exit code {code} could not be told yet: {error}"));
            sleep(Duration::from_secs(3)).await;
        }
    }

    /// A claim without a time may be taken over at once.
    async fn give_up(&self) {
        let note = || ClientHookNote { seen_at: None, ..self.note() };
        // If that fails, the claim ends by itself after CLIENT_CLAIM_SECONDS.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.write(|o| self.mine(o), note)).await;
    }

    /// Writes the note, if it is allowed on the object as it is now. Of two clients that write at once one gets a
    /// conflict and looks again.
    async fn write(
        &self,
        allowed: impl Fn(&VmMigration) -> bool,
        note: impl Fn() -> ClientHookNote,
    ) -> Result<Written, kube::Error> {
        let mut conflicts = 0;
        loop {
            let Some(object) = self.api.get_opt(&self.migration).await? else { return Ok(Written::NotMine) };
            if !allowed(&object) {
                return Ok(Written::NotMine);
            }
            let patch = annotate(&object, &self.hook.name, &note());
            match self.api.patch(&self.migration, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(object) => return Ok(Written::Done(Box::new(object))),
                Err(kube::Error::Api(status)) if status.is_conflict() && conflicts < CONFLICTS => {
                    conflicts += 1
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A merge patch of one annotation that is refused if the object has changed.
fn annotate(object: &VmMigration, hook: &str, note: &ClientHookNote) -> Value {
    let text = json!(note).to_string();
    json!({"metadata": {
        "resourceVersion": object.resource_version(),
        "annotations": {annotation(hook): text},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_written_only_onto_what_was_seen() {
        let spec = json!({"source": {"cloud": "a", "server": "s"}, "destination": {"cloud": "b"},
            "cutover": {"mode": "Now"}});
        let mut object = VmMigration::new("web", serde_json::from_value(spec).unwrap());
        object.metadata.resource_version = Some("17".into());
        let note = ClientHookNote { nonce: "n".into(), client: "me".into(), ..Default::default() };
        let patch = annotate(&object, "stop", &note);
        assert_eq!(patch["metadata"]["resourceVersion"], "17");
        let text = patch["metadata"]["annotations"]["client-hooks.vmmigration.io/stop"].as_str().unwrap();
        assert_eq!(text, r#"{"client":"me","nonce":"n"}"#);
        assert_eq!(patch.as_object().unwrap().len(), 1, "nothing but metadata is written");
    }

    #[test]
    fn no_two_clients_have_the_same_name() {
        assert_ne!(client_id(), client_id());
        assert!(client_id().contains('@'));
    }
}
