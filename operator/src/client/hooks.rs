//! The protocol of client hooks, as far as it needs no cluster: whose turn it is, and what the note says.
//!
//! The operator sets a hook's row to `Waiting` with a nonce. A client claims it by a note in an annotation, always with
//! the object's `resourceVersion`, renews the note while its script runs, and then writes the result into it.

use crate::crd::v1alpha1::*;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

/// A script of this machine and what it is for: a phase, or the name of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptFor {
    /// A phase or a name.
    pub key: String,
    /// The script; absolute.
    pub path: PathBuf,
}

impl FromStr for ScriptFor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, path) = text
            .split_once('=')
            .filter(|(key, path)| !key.is_empty() && !path.is_empty())
            .ok_or("needed is PHASE=SCRIPT or NAME=SCRIPT, such as BeforeStop=./stop-app.sh")?;
        let path = std::fs::canonicalize(path).map_err(|e| format!("{path}: {e}"))?;
        if !path.is_file() {
            return Err(format!("{} is no file", path.display()));
        }
        Ok(ScriptFor { key: key.into(), path })
    }
}

/// Finds the script of a hook: one that is for its name, else one for its phase.
pub fn script_of<'a>(scripts: &'a [ScriptFor], name: &str, phase: HookPhase) -> Option<&'a Path> {
    let find = |key: &str| scripts.iter().find(|s| s.key == key).map(|s| s.path.as_path());
    find(name).or_else(|| find(&phase.to_string()))
}

/// Scripts that no client hook of the migration would ever run.
pub fn useless<'a>(scripts: &'a [ScriptFor], spec: &VmMigrationSpec) -> Vec<&'a str> {
    let client = |h: &&Hook| h.client.is_some();
    let fits = |s: &&ScriptFor| {
        spec.hooks.iter().filter(client).any(|h| h.name == s.key || h.phase.to_string() == s.key)
    };
    scripts.iter().filter(|s| !fits(s)).map(|s| s.key.as_str()).collect()
}

/// What a client does about one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing: it does not wait for a client, or it was answered.
    Nothing,
    /// Another client runs it.
    Theirs(String),
    /// Claim it; then run it.
    Claim,
    /// The claim is ours: run it.
    Run,
}

/// Whose turn it is. Pure.
pub fn next_action(row: &HookRow, note: Option<&ClientHookNote>, me: &str, now: Timestamp) -> Turn {
    // An attempt that has ended waits for the operator's next word, under the nonce that it had.
    let open = matches!(row.state, HookState::Waiting | HookState::Running) && row.finished_at.is_none();
    let Some(nonce) = row.nonce.as_deref().filter(|_| open) else { return Turn::Nothing };
    let Some(note) = note.filter(|n| n.nonce == nonce) else { return Turn::Claim };
    match note {
        n if n.exit_code.is_some() => Turn::Nothing,
        n if n.client == me => Turn::Run,
        n if is_alive(n, now) => Turn::Theirs(n.client.clone()),
        _ => Turn::Claim,
    }
}

/// Has the claim been renewed lately? A claim without a time was given up.
fn is_alive(note: &ClientHookNote, now: Timestamp) -> bool {
    let limit = SignedDuration::from_secs(CLIENT_CLAIM_SECONDS);
    note.seen_at.as_ref().is_some_and(|at| now.duration_since(at.0) <= limit)
}

/// May `me` still write to this hook's note? Only while the same attempt waits and the claim is ours.
pub fn is_mine(row: Option<&HookRow>, note: Option<&ClientHookNote>, me: &str, nonce: &str) -> bool {
    row.is_some_and(|r| is_open(r, nonce)) && note.is_some_and(|n| n.nonce == nonce && n.client == me)
}

/// Does the hook still wait for the answer to this attempt?
pub fn is_open(row: &HookRow, nonce: &str) -> bool {
    row.nonce.as_deref() == Some(nonce) && !row.state.is_final() && row.finished_at.is_none()
}

/// The note of a hook; one that cannot be read is none.
pub fn note_of(object: &VmMigration, hook: &str) -> Option<ClientHookNote> {
    let text = object.annotations().get(&annotation(hook))?;
    serde_json::from_str(text).ok()
}

/// The annotation of a hook's note.
pub fn annotation(hook: &str) -> String {
    format!("{ANNOTATION_CLIENT_HOOK}{hook}")
}

/// The row of a hook.
pub fn row_of<'a>(object: &'a VmMigration, hook: &str) -> Option<&'a HookRow> {
    object.status.as_ref()?.hooks.iter().find(|r| r.name == hook)
}

/// The client hooks of the spec, with their rows as far as there are any.
pub fn client_hooks(object: &VmMigration) -> impl Iterator<Item = (&Hook, Option<&HookRow>)> {
    object.spec.hooks.iter().filter(|h| h.client.is_some()).map(|h| (h, row_of(object, &h.name)))
}

/// The end of a script's output as it may go into a status: whole characters, nothing that moves a cursor.
pub fn tail(output: &[u8]) -> String {
    let text = super::text::clean(&String::from_utf8_lossy(output));
    let mut from = text.len().saturating_sub(OUTPUT_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn row(state: HookState, nonce: Option<&str>) -> HookRow {
        HookRow { name: "stop".into(), state, nonce: nonce.map(Into::into), ..Default::default() }
    }

    fn note(nonce: &str, client: &str, seen: Option<i64>, exit_code: Option<i32>) -> ClientHookNote {
        let seen_at = seen.map(|s| Time(at(s)));
        ClientHookNote { nonce: nonce.into(), client: client.into(), seen_at, exit_code, output: None }
    }

    #[test]
    fn whose_turn_it_is() {
        let waiting = row(HookState::Waiting, Some("n2"));
        let theirs = || Turn::Theirs("you".into());
        let cases = [
            ("its phase has not come", row(HookState::Pending, None), None, Turn::Nothing),
            ("waits without a nonce: no client's hook", row(HookState::Waiting, None), None, Turn::Nothing),
            (
                "its attempt has ended",
                HookRow { finished_at: Some(Time(at(90))), ..waiting.clone() },
                None,
                Turn::Nothing,
            ),
            ("it is over", row(HookState::Succeeded, Some("n2")), None, Turn::Nothing),
            ("nobody has it", waiting.clone(), None, Turn::Claim),
            (
                "a note on an earlier attempt",
                waiting.clone(),
                Some(note("n1", "you", Some(99), Some(1))),
                Turn::Claim,
            ),
            (
                "my note on an earlier attempt",
                waiting.clone(),
                Some(note("n1", "me", Some(99), None)),
                Turn::Claim,
            ),
            (
                "another one has just claimed it",
                waiting.clone(),
                Some(note("n2", "you", Some(99), None)),
                theirs(),
            ),
            (
                "its claim is as old as allowed",
                waiting.clone(),
                Some(note("n2", "you", Some(55), None)),
                theirs(),
            ),
            ("its claim is too old", waiting.clone(), Some(note("n2", "you", Some(54), None)), Turn::Claim),
            ("its claim was given up", waiting.clone(), Some(note("n2", "you", None, None)), Turn::Claim),
            ("its clock is ahead", waiting.clone(), Some(note("n2", "you", Some(500), None)), theirs()),
            ("it is mine", waiting.clone(), Some(note("n2", "me", Some(1), None)), Turn::Run),
            ("I have answered", waiting.clone(), Some(note("n2", "me", Some(99), Some(0))), Turn::Nothing),
            ("another one has answered", waiting, Some(note("n2", "you", Some(1), Some(7))), Turn::Nothing),
            (
                "the operator has seen a claim that died since",
                row(HookState::Running, Some("n2")),
                Some(note("n2", "you", Some(1), None)),
                Turn::Claim,
            ),
        ];
        for (what, row, note, wanted) in cases {
            assert_eq!(next_action(&row, note.as_ref(), "me", at(100)), wanted, "{what}");
        }
    }

    #[test]
    fn a_claim_that_was_lost_is_not_written_to() {
        let waiting = row(HookState::Waiting, Some("n2"));
        let over = row(HookState::Failed, Some("n2"));
        let mine = note("n2", "me", Some(1), None);
        assert!(is_mine(Some(&waiting), Some(&mine), "me", "n2"));
        assert!(!is_mine(Some(&waiting), Some(&note("n2", "you", Some(1), None)), "me", "n2"), "taken over");
        assert!(!is_mine(Some(&over), Some(&mine), "me", "n2"), "over");
        assert!(!is_mine(Some(&row(HookState::Waiting, Some("n3"))), Some(&mine), "me", "n2"), "tried again");
        assert!(!is_mine(None, Some(&mine), "me", "n2"), "no such row");
        assert!(!is_mine(Some(&waiting), None, "me", "n2"), "the note was removed");
    }

    #[test]
    fn scripts_are_found_by_name_before_phase() {
        let script = |key: &str| ScriptFor { key: key.into(), path: format!("/{key}").into() };
        let scripts = [script("BeforeStop"), script("stop-db"), script("AfterStart")];
        let found = |name, phase| script_of(&scripts, name, phase).map(|p| p.display().to_string());
        assert_eq!(found("stop-db", HookPhase::BeforeStop).as_deref(), Some("/stop-db"));
        assert_eq!(found("other", HookPhase::BeforeStop).as_deref(), Some("/BeforeStop"));
        assert_eq!(found("other", HookPhase::Finally), None);
        let spec: VmMigrationSpec = serde_json::from_value(json!({
            "source": {"cloud": "a", "server": "s"}, "destination": {"cloud": "b"}, "cutover": {"mode": "Now"},
            "hooks": [{"name": "stop-db", "phase": "BeforeStop", "client": {}},
                {"name": "ping", "phase": "AfterStart", "job": {"script": "true"}}],
        }))
        .unwrap();
        assert_eq!(useless(&scripts, &spec), ["AfterStart"], "that phase has no hook for a client");
    }

    #[test]
    fn output_is_bounded_and_harmless() {
        assert_eq!(tail(b"done\n"), "done\n");
        assert_eq!(tail(b"\x1b[2Jx\0\xff"), "\u{fffd}[2Jx\u{fffd}\u{fffd}");
        let long = tail(&vec![0xff; 1 << 20]);
        assert!(long.len() <= OUTPUT_BYTES && long.len() > OUTPUT_BYTES - 4, "{}", long.len());
        assert!(tail(&"ä".repeat(3000).into_bytes()).len() <= OUTPUT_BYTES);
    }

    #[test]
    fn notes_are_read_from_the_annotation() {
        let mut object = VmMigration::new("web", serde_json::from_value(json!({
            "source": {"cloud": "a", "server": "s"}, "destination": {"cloud": "b"}, "cutover": {"mode": "Now"},
        })).unwrap());
        assert_eq!(note_of(&object, "stop"), None);
        let text = json!({"nonce": "n", "client": "me", "exitCode": 3}).to_string();
        object.annotations_mut().insert("client-hooks.vmmigration.io/stop".into(), text);
        object.annotations_mut().insert("client-hooks.vmmigration.io/bad".into(), "{".into());
        assert_eq!(note_of(&object, "stop").unwrap().exit_code, Some(3));
        assert_eq!(note_of(&object, "bad"), None);
    }
}
