//! Hooks: scripts that gate a migration at named phases; what they are given and what became of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;

/// What the annotations begin with by which a client answers a hook: `client-hooks.vmmigration.io/<hook>`.
pub const ANNOTATION_CLIENT_HOOK: &str = "client-hooks.vmmigration.io/";

/// A script that gates a migration at one of its phases.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(has(self.job) ? 1 : 0) + (has(self.ssh) ? 1 : 0) + (has(self.client) ? 1 : 0) == 1").message("a hook is exactly one of job, ssh, client"))]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// A name for messages; a DNS label.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// When it runs. Hooks of one phase run one after the other, as listed.
    pub phase: HookPhase,
    /// How long one attempt may take; for a client's hook: how long a client is waited for. Unset: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// How often it is tried again after a failure. Unset: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: Option<i32>,
    /// What a failure means. Unset: `Fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// Show the end of its output in status and report. Unset: false, since scripts print secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_output: Option<bool>,
    /// Bash in a pod near one of the clouds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobHook>,
    /// A script inside of the guest, over SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshHook>,
    /// A script on the machine of whoever attaches with `kubectl vmmigration attach`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientHook>,
}

impl Hook {
    /// How long one attempt may take.
    pub fn timeout_seconds(&self) -> i64 {
        self.timeout.as_ref().map_or(300, |t| t.seconds().max(1))
    }

    /// How many attempts there may be.
    pub fn attempts(&self) -> i32 {
        self.retries.unwrap_or(0) + 1
    }

    /// The end of its output is kept.
    pub fn captures(&self) -> bool {
        self.capture_output == Some(true)
    }
}

/// When a hook runs.
#[derive(
    JsonSchema,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
)]
pub enum HookPhase {
    /// Before anything is looked at.
    BeforePreflight,
    /// After the go and the second preflight, before the source is stopped: shut the application down here.
    #[default]
    BeforeStop,
    /// The source is stopped and locked.
    AfterStop,
    /// All disks are proven in the destination; nothing runs there yet.
    BeforeCreate,
    /// The new server is ACTIVE; before the checks.
    AfterStart,
    /// All checks have passed; the last gate before success.
    AfterVerification,
    /// The migration fails or is cancelled; before the source is given back.
    OnFailure,
    /// At the end, either way.
    Finally,
}

/// What a failed hook means.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnError {
    /// The migration fails there, and the source is given back.
    #[default]
    Fail,
    /// It is recorded, and the migration goes on.
    Continue,
}

/// One of the two sides.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookSide {
    /// The cloud that the server comes from.
    Source,
    /// The cloud that it goes to.
    Destination,
}

/// Bash in a pod near one of the clouds, restricted and without an API token.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.script) != has(self.configMap)").message("a job hook is exactly one of script, configMap"))]
#[serde(rename_all = "camelCase")]
pub struct JobHook {
    /// Near which cloud. Unset: the source until the server runs in the destination, then the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<HookSide>,
    /// An image of the platform's allow-list, with bash. Unset: the operator's own, with bash, curl, ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// The script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    pub script: Option<String>,
    /// A ConfigMap of this namespace that holds the script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeyRef>,
    /// Secrets of this namespace, with the label `vmmigration.io/hook: "true"`, mounted as `/secrets/<name>/<key>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub secrets: Vec<String>,
}

/// A script inside of the guest, over SSH, from a pod near its cloud.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.script) != has(self.configMap)").message("an ssh hook is exactly one of script, configMap"))]
#[serde(rename_all = "camelCase")]
pub struct SshHook {
    /// The user to log in as.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_][-A-Za-z0-9_.]*$"))]
    pub user: String,
    /// A Secret of this namespace, with the label `vmmigration.io/hook: "true"`, that holds the private key.
    pub private_key_secret_ref: KeyRef,
    /// Which server. Unset: the source until the server runs in the destination, then the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<HookSide>,
    /// An address. Unset: the server's first fixed address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub address: Option<String>,
    /// The port. Unset: 22.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The guest's public host key, such as `ssh-ed25519 AAAA…`. In the source it alone is trusted; in the destination it
    /// is trusted besides what the new server prints on its console, since cloud-init makes new keys for a new instance.
    /// Unset: what the guest printed on its console, as cloud-init does. A key that is found in neither is not trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 16, max = 4096))]
    pub host_key: Option<String>,
    /// The script; run by the guest's `sh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    pub script: Option<String>,
    /// A ConfigMap of this namespace that holds the script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeyRef>,
}

/// A script on the machine of whoever attaches.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHook {}

/// An object of this namespace and a key of its data.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// How far a hook is.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
pub enum HookState {
    /// Its phase has not come.
    #[default]
    Pending,
    /// A client has to attach and run it.
    Waiting,
    /// It runs.
    Running,
    /// It ended with exit code 0.
    Succeeded,
    /// It failed, and so did the migration.
    Failed,
    /// It failed, and `onError: Continue` let the migration go on.
    Ignored,
}

impl HookState {
    /// Nothing more will become of it.
    pub fn is_final(self) -> bool {
        matches!(self, HookState::Succeeded | HookState::Failed | HookState::Ignored)
    }
}

/// What became of one hook.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HookRow {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: HookPhase,
    /// How far it is.
    pub state: HookState,
    /// The running or last attempt, from 1.
    pub attempts: i32,
    /// The last attempt's exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How long the last attempt took, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// When the running or last attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last attempt ended; with state `Running`: it ended, and what follows is not decided yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// A client's hook: until when a client is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// What tells this attempt from all others; a client's answer must repeat it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// A client's hook: who runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The end of its output, with `captureOutput` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Why it failed, or what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a client writes, as JSON, into the annotation `client-hooks.vmmigration.io/<hook>`: first its claim, renewed
/// while the script runs, then the same with the result. Always with the object's `resourceVersion`, so that of two
/// clients one wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientHookNote {
    /// The row's nonce: an answer to another attempt is not heard.
    pub nonce: String,
    /// Who: `user@host` and something random.
    pub client: String,
    /// When the claim was last renewed. One that is older than [`CLIENT_CLAIM_SECONDS`] may be taken over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Time>,
    /// How the script ended; unset while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The end of its output, with `captureOutput` only; at most [`OUTPUT_BYTES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// After how many seconds without renewal a client's claim on a hook may be taken over. Clients renew every 10 s.
pub const CLIENT_CLAIM_SECONDS: i64 = 45;

/// How many bytes of a hook's output are kept.
pub const OUTPUT_BYTES: usize = 2048;

/// The end of what a hook printed, at most [`OUTPUT_BYTES`]: text whatever it was, and harmless to a terminal.
pub fn output_tail(output: &[u8]) -> String {
    let tail = &output[output.len().saturating_sub(OUTPUT_BYTES)..];
    let harmless = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    let text: String = String::from_utf8_lossy(tail).chars().map(harmless).collect();
    // What took the place of a byte may be longer than it.
    let start = text.char_indices().map(|(i, _)| i).find(|i| text.len() - i <= OUTPUT_BYTES);
    text[start.unwrap_or(text.len())..].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_bounded_and_harmless() {
        assert_eq!(output_tail(b"done\n\tok"), "done\n\tok");
        assert_eq!(output_tail(b"\x1b[2Jred\x07\r"), "\u{fffd}[2Jred\u{fffd}\u{fffd}");
        let long = [vec![b'x'; 1 << 20], b"the end".to_vec()].concat();
        let tail = output_tail(&long);
        assert!(tail.len() == OUTPUT_BYTES && tail.ends_with("the end"));
        let binary: Vec<u8> = (0..1 << 20).map(|i| (i * 7 % 256) as u8).collect();
        assert!(output_tail(&binary).len() <= OUTPUT_BYTES);
        assert!(output_tail("ä".repeat(5000).as_bytes()).len() <= OUTPUT_BYTES);
        assert_eq!(output_tail(b""), "");
    }
}
