//! Proof that the source did not run since our stop: its status, and its list of actions.

use crate::{
    crd::v1alpha1::SourceStatus,
    openstack::{InstanceAction, Server},
};

/// Says how the source was touched after our stop, or `None` if it was not.
///
/// After our stop the list of actions (newest first, as Nova gives it) may hold nothing but our own lock and
/// our own image, told by their request ids; `launched_at` does not change on a start.
pub fn ran_since_our_stop(
    source: &SourceStatus,
    server: &Server,
    actions: &[InstanceAction],
) -> Option<String> {
    if server.status != "SHUTOFF" {
        return Some(format!("server {} is {}", server.name, server.status));
    }
    let ours = [&source.stop_request_id, &source.lock_request_id, &source.image_request_id];
    let is_ours = |a: &InstanceAction| ours.iter().any(|id| id.as_deref() == Some(a.request_id.as_str()));
    // Where the source was stopped already our lock is the first thing that we did.
    let base = source.stop_request_id.as_ref().or(source.lock_request_id.as_ref())?;
    if !actions.iter().any(|a| a.request_id == *base) {
        return None;
    }
    let after = actions.iter().take_while(|a| a.request_id != *base);
    let foreign = after.into_iter().find(|a| !is_ours(a) && a.action != "createImage")?;
    Some(format!(
        "somebody did {:?} on server {} at {} ({})",
        foreign.action, server.name, foreign.start_time, foreign.request_id
    ))
}

/// Was the source used after the try whose stop (or lock) has this request id? What is not known to leave its disks
/// alone counts as use, and so does a history that does not reach back.
pub(super) fn ran_since(base: &str, actions: &[InstanceAction]) -> bool {
    let harmless = ["lock", "unlock", "createImage"];
    let known = actions.iter().any(|a| a.request_id == base);
    let mut after = actions.iter().take_while(|a| a.request_id != base);
    !known || after.any(|a| !harmless.contains(&a.action.as_str()))
}

/// Request ids that were not recorded because we were killed between the POST and the write: the newest stop,
/// and the oldest lock after it. The server ran when we claimed it and is SHUTOFF now, so the newest stop is
/// the one that counts, whoever asked for it.
pub(super) fn adopt_request_ids(source: &mut SourceStatus, server: &Server, actions: &[InstanceAction]) {
    if source.stop_requested_at.is_some() && source.stop_request_id.is_none() && server.status == "SHUTOFF" {
        source.stop_request_id = actions.iter().find(|a| a.action == "stop").map(|a| a.request_id.clone());
    }
    if source.lock_requested_at.is_some() && source.lock_request_id.is_none() && server.locked {
        let after_stop =
            actions.iter().take_while(|a| source.stop_request_id.as_deref() != Some(a.request_id.as_str()));
        source.lock_request_id =
            after_stop.filter(|a| a.action == "lock").last().map(|a| a.request_id.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(ran_since_our_stop(&ours, server, &actions).is_some(), ran, "{what}");
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
