//! What must never happen, in words, each beside what the explorer looks at after every pass to see that it did not. What a
//! cloud or a mover would see for itself, the model of both clouds (`World`) refuses besides, in every test.

use super::{proven, tests::World};
use crate::crd::v1alpha1::*;

/// One of the eight.
pub(super) struct Never {
    pub words: &'static str,
    /// What was seen of it, if anything was.
    pub seen: fn(&World) -> Result<(), String>,
}

/// In the order in which the tests number them.
pub(super) const NEVER: [Never; 8] = [
    Never {
        words: "The source's disks are detached, modified or deleted before the destination is verified, or ever without \
                an explicit policy or request.",
        seen: touched_disks,
    },
    Never {
        words: "Two copies of the server run with the same identity: B is asked for only when A is seen SHUTOFF and did \
                not run since; A is started again only when B's server is seen gone or stopped.",
        seen: two_copies,
    },
    Never {
        words: "A stale copy is used: if A ran after the last pass, that is seen, and nobody's start is undone by us.",
        seen: stale_copy,
    },
    Never {
        words: "\"Latest snapshot\": every restore names the full snapshot id. Nothing to restore, a short read, a missing \
                disk: failure, never exit 0.",
        seen: latest_snapshot,
    },
    Never {
        words: "A crash at any point (operator, Job, node, API, store) loses, leaks or doubles anything: identity in the \
                request that creates, look before create, the new id in status before anything else.",
        seen: doubles,
    },
    Never {
        words: "A secret in a spec, a status, an event, a log, an argument list or a report.",
        seen: secrets,
    },
    Never { words: "Deleting something that does not carry our mark.", seen: deletions_of_others },
    Never {
        words: "`Succeeded=True` without equal digests for every disk and all checks passed.",
        seen: unproven_success,
    },
];

/// What the output of every Job has in it: nobody said that it may be kept.
pub(super) const SECRET: &str = "s3cr3t";

/// All of it after one pass.
pub(super) fn has_happened(w: &World) -> Result<(), String> {
    for (number, never) in (1..).zip(&NEVER) {
        (never.seen)(w).map_err(|what| format!("never {number}: {what}. ({})", never.words))?;
    }
    Ok(())
}

fn so(holds: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn touched_disks(w: &World) -> Result<(), String> {
    let retiring = w.phase() == Some(Phase::Retiring) || w.status.retirement.is_some();
    so(retiring || w.own.len() == 2, "a volume of the source is gone")
}

/// Where people act, or one of them said that B's cloud is gone, what runs is not our doing alone.
pub(super) fn two_copies(w: &World) -> Result<(), String> {
    let in_a = usize::from(w.source.status == "ACTIVE");
    let in_b = w.servers.iter().filter(|s| s.status == "ACTIVE").count();
    let taken_back = w.status.source.as_ref().is_some_and(|s| s.taken_back);
    so(in_a + in_b <= 1 || w.humans || w.started_anyway() || taken_back, "two copies run")
}

fn stale_copy(w: &World) -> Result<(), String> {
    let used = matches!(w.phase(), Some(Phase::Verifying | Phase::Succeeded));
    let ran = w.humans || w.source.status != "SHUTOFF" || w.status.rollback.is_some();
    let wanted = format!("version {}", w.version);
    let stale = w.made.iter().find(|volume| w.content.get(&volume.id) != Some(&wanted));
    so(!used || ran || stale.is_none(), format!("B runs on {stale:?}, and A has {wanted}"))
}

/// Restores name what they restore: a snapshot by its full id, or what the backup beside them reads.
fn latest_snapshot(w: &World) -> Result<(), String> {
    let full = |id: &String| id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit());
    let names = |args: &[String]| {
        let given = |key: &str| args.iter().position(|a| a == key).and_then(|at| args.get(at + 1));
        given("--snapshot").is_some_and(full) || given("--origin").is_some_and(|id| !id.is_empty())
    };
    let mut restores = w.asked.iter().filter(|(_, args)| args.first().is_some_and(|a| a == "restore"));
    let wrong = restores.find(|(_, args)| !names(args));
    so(wrong.is_none(), format!("a restore names no snapshot: {wrong:?}"))
}

fn doubles(w: &World) -> Result<(), String> {
    let mut names: Vec<_> = w.images.iter().map(|(side, i)| format!("{side} {}", i.name)).collect();
    names.extend(w.volumes.iter().map(|v| v.name.clone()));
    let all = names.len();
    names.sort();
    names.dedup();
    let one_each = w.servers.len() <= 1 && w.made.len() <= w.own.len().max(2) && w.ports.len() <= 1;
    so(names.len() == all && one_each, format!("something was made twice: {names:?}"))
}

/// The decision is given no key; what it is given of a Job's output it may not keep.
fn secrets(w: &World) -> Result<(), String> {
    let status = serde_json::to_string(&w.status).unwrap_or_default();
    let listed = w.asked.values().flatten().any(|argument| argument.contains(SECRET));
    so(!status.contains(SECRET) && !listed, "the output of a Job is in status or in arguments")
}

/// What is asked of the clouds is in status: nothing of the source is.
fn deletions_of_others(w: &World) -> Result<(), String> {
    let theirs = |id: &String| *id == w.source.id || w.own.iter().any(|v| v.id == *id);
    let asked = w.status.deletions.iter().map(|row| &row.id).find(|id| theirs(id));
    so(asked.is_none(), format!("{asked:?} was to be deleted"))
}

fn unproven_success(w: &World) -> Result<(), String> {
    if w.phase() == Some(Phase::Succeeded) { proven::all(&w.status) } else { Ok(()) }
}
