//! Proof that the source did not run since our stop: its status, and its list of actions.

use super::parse_time;
use crate::{
    cloud::{InstanceAction, Server},
    crd::v1alpha1::SourceStatus,
};
use k8s_openapi::jiff::Timestamp;

/// Did the source run since our stop?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// Nothing but what we did was done to it.
    No,
    /// Somebody did something, and what.
    Yes(String),
    /// It cannot be told, and why. Nothing may be built on that, and nobody is to blame.
    CannotTell(String),
}

/// Says whether the source was touched after our stop.
///
/// After our stop the list of actions (newest first, as Nova gives it) may hold nothing but our own lock and
/// our own image, told by their request ids; `launched_at` does not change on a start. A list that does not show our
/// stop proves nothing.
pub fn ran_since_our_stop(source: &SourceStatus, server: &Server, actions: &[InstanceAction]) -> Ran {
    if server.status != "SHUTOFF" {
        return Ran::Yes(format!("server {} is {}", server.name, server.status));
    }
    let shown = |id: &Option<String>| {
        actions.iter().any(|a| Some(&a.request_id) == id.as_ref() && !a.request_id.is_empty())
    };
    // Where the source was stopped already our lock is the first thing that we did.
    let base =
        if source.stop_request_id.is_some() { &source.stop_request_id } else { &source.lock_request_id };
    let unknown = [base, &source.lock_request_id].into_iter().find(|id| !shown(id));
    if let Some(id) = unknown.filter(|id| *id == base || id.is_some()) {
        return Ran::CannotTell(format!(
            "the history of server {} does not show what this migration did to it ({}): whether it ran since its stop cannot \
             be told",
            server.name,
            id.as_deref().unwrap_or("no request id")
        ));
    }
    let ours = [&source.stop_request_id, &source.lock_request_id, &source.image_request_id];
    let is_ours = |a: &InstanceAction| ours.iter().any(|id| id.as_deref() == Some(a.request_id.as_str()));
    let mut after = actions.iter().take_while(|a| Some(&a.request_id) != base.as_ref());
    match after.find(|a| !is_ours(a) && a.action != "createImage") {
        None => Ran::No,
        Some(foreign) => Ran::Yes(format!(
            "somebody did {:?} on server {} at {} ({})",
            foreign.action, server.name, foreign.start_time, foreign.request_id
        )),
    }
}

/// Is the lock that the server has ours? The newest action on its locks tells it; a history that does not show our lock
/// tells nothing, and then it is what we asked for.
pub(super) fn lock_is_ours(source: &SourceStatus, actions: &[InstanceAction]) -> bool {
    let newest = actions.iter().find(|a| ["lock", "unlock"].contains(&a.action.as_str()));
    let shown = |id: &String| actions.iter().any(|a| a.request_id == *id);
    match source.lock_request_id.as_ref().filter(|id| shown(id)) {
        Some(id) => newest.is_some_and(|a| a.request_id == *id),
        None => source.lock_requested_at.is_some(),
    }
}

/// Was the source used after the try whose stop (or lock) has this request id? What is not known to leave its disks
/// alone counts as use, and so does a history that does not reach back.
pub(super) fn ran_since(base: &str, actions: &[InstanceAction]) -> bool {
    let harmless = ["lock", "unlock", "createImage"];
    let known = actions.iter().any(|a| a.request_id == base);
    let mut after = actions.iter().take_while(|a| a.request_id != base);
    !known || after.any(|a| !harmless.contains(&a.action.as_str()))
}

/// Of an action that is told by its time the record may differ from ours by so many seconds.
const SKEW_SECONDS: i64 = 300;

/// Request ids of ours that the history does not show: they were not recorded because we were killed between the POST
/// and the write, or a proxy gives answers other ids than Nova's. True: it is a proxy.
///
/// Not recorded: the newest stop, and the oldest lock after it. The server ran when we claimed it and is SHUTOFF now, so
/// the newest stop is the one that counts, whoever asked for it. Rewritten: the action of that kind at the time at
/// which we asked; without one the id stays as it is, and nothing can be told.
pub(super) fn adopt_request_ids(
    source: &mut SourceStatus,
    server: &Server,
    actions: &[InstanceAction],
) -> bool {
    let shown = |id: &str| actions.iter().any(|a| a.request_id == id);
    let mut rewritten = false;
    if let Some(asked) = source.stop_requested_at.as_ref().filter(|_| server.status == "SHUTOFF") {
        let newest = actions.iter().find(|a| a.action == "stop");
        let nearest = || at_the_time("stop", asked.0, actions);
        rewritten |= adopt(&mut source.stop_request_id, shown, newest, nearest);
    }
    if let Some(asked) = source.lock_requested_at.as_ref().filter(|_| server.locked) {
        let stop = source.stop_request_id.as_ref();
        let since_stop = actions.iter().position(|a| Some(&a.request_id) == stop);
        let after_stop = &actions[..since_stop.unwrap_or(actions.len())];
        let oldest = after_stop.iter().rfind(|a| a.action == "lock");
        let nearest = || at_the_time("lock", asked.0, after_stop);
        rewritten |= adopt(&mut source.lock_request_id, shown, oldest, nearest);
    }
    rewritten
}

/// Records the id of an action that was not recorded, or of the one that stands for an id which is not shown. True: that
/// was an id which is not shown.
fn adopt<'a>(
    recorded: &mut Option<String>,
    shown: impl Fn(&str) -> bool,
    unrecorded: Option<&'a InstanceAction>,
    rewritten: impl FnOnce() -> Option<&'a InstanceAction>,
) -> bool {
    let found = match recorded.as_deref() {
        None => unrecorded,
        Some(id) if !shown(id) => rewritten(),
        Some(_) => None,
    };
    let other = found.is_some() && recorded.is_some();
    *recorded = found.map(|a| a.request_id.clone()).or(recorded.take());
    other
}

/// The action of a kind that is nearest to a time.
fn at_the_time<'a>(
    kind: &str,
    asked: Timestamp,
    actions: &'a [InstanceAction],
) -> Option<&'a InstanceAction> {
    let off = |a: &InstanceAction| {
        let seconds = parse_time(&a.start_time)?.duration_since(asked).as_secs().abs();
        Some(seconds).filter(|s| *s <= SKEW_SECONDS)
    };
    let near = actions.iter().filter(|a| a.action == kind).filter_map(|a| Some((off(a)?, a)));
    near.min_by_key(|(off, _)| *off).map(|(_, a)| a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn act(action: &str, id: &str) -> InstanceAction {
        InstanceAction { action: action.into(), request_id: id.into(), ..Default::default() }
    }

    #[test]
    fn only_our_own_actions_may_follow_our_stop() {
        let ours = SourceStatus {
            stop_request_id: Some("req-stop".into()),
            lock_request_id: Some("req-lock".into()),
            ..Default::default()
        };
        let off = Server { status: "SHUTOFF".into(), ..Default::default() };
        let on = Server { status: "ACTIVE".into(), ..Default::default() };
        let (stop, lock) = (act("stop", "req-stop"), act("lock", "req-lock"));
        let table = [
            ("untouched", &off, vec![lock.clone(), stop.clone(), act("start", "req-old")], false),
            ("our image", &off, vec![act("createImage", "req-i"), lock.clone(), stop.clone()], false),
            ("running", &on, vec![lock.clone(), stop.clone()], true),
            (
                "started and stopped",
                &off,
                vec![act("stop", "x"), act("start", "y"), lock.clone(), stop.clone()],
                true,
            ),
            ("unlocked", &off, vec![act("unlock", "z"), lock.clone(), stop.clone()], true),
            ("locked by another", &off, vec![act("lock", "w"), lock, stop], true),
        ];
        for (what, server, actions, ran) in table {
            let told = ran_since_our_stop(&ours, server, &actions);
            assert!(matches!((&told, ran), (Ran::Yes(_), true) | (Ran::No, false)), "{what}: {told:?}");
        }
    }

    fn at(action: &str, id: &str, second: i64) -> InstanceAction {
        let start_time = Timestamp::from_second(1_800_000_000 + second).unwrap().to_string();
        InstanceAction { start_time, ..act(action, id) }
    }

    #[test]
    fn a_proxy_that_rewrites_request_ids_is_found_out_by_kind_and_time() {
        let time = |second: i64| Timestamp::from_second(1_800_000_000 + second).ok().map(Time);
        let asked = SourceStatus {
            stop_requested_at: time(0),
            stop_request_id: Some("proxy-1".into()),
            lock_requested_at: time(30),
            lock_request_id: Some("proxy-2".into()),
            ..Default::default()
        };
        let off = Server { status: "SHUTOFF".into(), locked: true, ..Default::default() };
        let (stop, lock) = (at("stop", "req-stop", 1), at("lock", "req-lock", 31));
        let old = at("stop", "req-old", -90);
        let table = [
            (vec![lock.clone(), stop.clone(), old.clone()], Ran::No),
            // Hours later somebody starts it and stops it again: ours is the stop at the time of ours.
            (
                vec![at("stop", "s", 9000), at("start", "x", 8000), lock.clone(), stop.clone()],
                Ran::Yes(String::new()),
            ),
            (
                vec![at("lock", "l", 200), at("unlock", "u", 190), lock.clone(), stop.clone()],
                Ran::Yes(String::new()),
            ),
            // Nothing at that time: it cannot be told.
            (vec![at("lock", "l", 9000), at("stop", "s", 8000)], Ran::CannotTell(String::new())),
            (vec![lock.clone()], Ran::CannotTell(String::new())),
            (vec![stop.clone()], Ran::CannotTell(String::new())),
            (vec![], Ran::CannotTell(String::new())),
        ];
        for (actions, wanted) in table {
            let mut source = asked.clone();
            adopt_request_ids(&mut source, &off, &actions);
            let told = ran_since_our_stop(&source, &off, &actions);
            assert_eq!(
                std::mem::discriminant(&told),
                std::mem::discriminant(&wanted),
                "{actions:?}: {told:?}"
            );
            // What was found out stays.
            assert!(wanted != Ran::No || !adopt_request_ids(&mut source, &off, &actions));
        }
    }

    #[test]
    fn a_lock_is_ours_when_nobody_has_locked_since() {
        let time = Some(Time(Default::default()));
        let asked = SourceStatus { lock_requested_at: time, ..Default::default() };
        let known = SourceStatus { lock_request_id: Some("req-lock".into()), ..asked.clone() };
        let (ours, theirs) = (act("lock", "req-lock"), act("lock", "x"));
        let table = [
            ("never asked for", SourceStatus::default(), vec![theirs.clone()], false),
            ("its answer was lost", asked, vec![ours.clone()], true),
            ("ours", known.clone(), vec![act("start", "s"), ours.clone()], true),
            (
                "opened, and locked by another",
                known.clone(),
                vec![theirs.clone(), act("unlock", "u"), ours],
                false,
            ),
            ("a history that does not reach back", known, vec![theirs], true),
        ];
        for (what, source, actions, wanted) in table {
            assert_eq!(lock_is_ours(&source, &actions), wanted, "{what}");
        }
    }

    #[test]
    fn between_two_tries_only_locks_leave_the_disks_alone() {
        let (stop, lock, unlock) = (act("stop", "req-stop"), act("lock", "l"), act("unlock", "u"));
        let table = [
            (vec![lock.clone(), unlock.clone(), lock.clone(), stop.clone()], false),
            (vec![act("stop", "s"), act("start", "x"), lock.clone(), stop.clone()], true),
            (vec![act("detach_volume", "x"), lock.clone(), stop], true),
            (vec![lock, unlock], true),
        ];
        for (actions, ran) in table {
            assert_eq!(ran_since("req-stop", &actions), ran, "{actions:?}");
        }
    }

    #[test]
    fn lost_request_ids_are_found_again() {
        let mut s = SourceStatus {
            stop_requested_at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default())),
            lock_requested_at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default())),
            ..Default::default()
        };
        let off = Server { status: "SHUTOFF".into(), locked: true, ..Default::default() };
        adopt_request_ids(
            &mut s,
            &off,
            &[act("lock", "l2"), act("lock", "l1"), act("stop", "s2"), act("stop", "s1")],
        );
        assert_eq!((s.stop_request_id.as_deref(), s.lock_request_id.as_deref()), (Some("s2"), Some("l1")));
    }
}
