//! Hooks at each phase, of every kind.

use super::*;

#[test]
fn hooks_of_each_phase_run_at_their_time_and_only_once() {
    for seed in 0..60 {
        let mut w = hooked(everywhere());
        let mut crash = dice(seed, 4);
        w.run(2000, World::clean, &mut crash);
        assert_eq!(w.phase(), Some(Phase::Succeeded), "seed {seed}: {:?}", w.status.failure);
        let expected: Vec<&str> = vec![
            "beforepreflight",
            "beforestop",
            "afterstop",
            "beforecreate",
            "afterstart",
            "afterverification",
            "finally",
        ];
        assert_eq!(w.ran, expected, "seed {seed}");
        assert_eq!(hook_row(&w, "onfailure").state, HookState::Pending);
        assert!(w.jobs.is_empty());
    }
}

#[test]
fn what_a_hook_finds_when_it_begins() {
    let mut w = hooked(everywhere());
    let mut seen: Vec<(String, String, bool, usize, usize)> = vec![];
    for _ in 0..400 {
        w.pass(false);
        if let Some(last) = w.ran.last().filter(|l| seen.last().is_none_or(|s| s.0 != **l)) {
            let claimed = !w.source.metadata.is_empty();
            seen.push((last.clone(), w.source.status.clone(), claimed, w.ports.len(), w.servers.len()));
        }
    }
    let rows = [
        ("beforepreflight", "ACTIVE", false, 0, 0),
        ("beforestop", "ACTIVE", false, 0, 0),
        ("afterstop", "SHUTOFF", true, 0, 0),
        ("beforecreate", "SHUTOFF", true, 0, 0),
        ("afterstart", "SHUTOFF", true, 1, 1),
        ("afterverification", "SHUTOFF", true, 1, 1),
        ("finally", "SHUTOFF", true, 1, 1),
    ];
    assert_eq!(seen, rows.map(|(a, b, c, d, e)| (a.to_string(), b.to_string(), c, d, e)));
}

#[test]
fn a_failed_gate_gives_the_source_back_and_the_hooks_of_the_end_run() {
    let forward =
        ["BeforePreflight", "BeforeStop", "AfterStop", "BeforeCreate", "AfterStart", "AfterVerification"];
    for (n, phase) in forward.into_iter().enumerate() {
        let mut w = hooked(everywhere());
        let name = phase.to_lowercase();
        w.scripts.insert(name.clone(), vec![7]);
        w.run(2000, World::clean, dice(n as u64, 5));
        assert_eq!(w.phase(), Some(Phase::Failed), "{phase}");
        let failure = w.status.failure.clone().unwrap();
        assert_eq!(failure.reason, "HookFailed");
        for part in [name.as_str(), phase, "attempt 1 of 1", "exit code 7"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
        assert_eq!((hook_row(&w, &name).state, hook_row(&w, &name).exit_code), (HookState::Failed, Some(7)));
        assert_eq!(w.ran[n..], [name.as_str(), "onfailure", "finally"], "{:?}", w.ran);
        w.assert_given_back();
        if n < 4 {
            w.assert_nothing_left();
        } else {
            assert_eq!(w.servers[0].status, "SHUTOFF");
        }
    }
}

#[test]
fn a_hook_is_tried_again_and_may_be_allowed_to_fail() {
    let table = [
        (vec![1, 1], json!({"retries": 2}), HookState::Succeeded, 3, Phase::Succeeded),
        (vec![1, 1, 1], json!({"retries": 2}), HookState::Failed, 3, Phase::Failed),
        (vec![1, 1], json!({"retries": 1, "onError": "Continue"}), HookState::Ignored, 2, Phase::Succeeded),
        (vec![TIMES_OUT], json!({}), HookState::Failed, 1, Phase::Failed),
        (vec![TIMES_OUT], json!({"retries": 1}), HookState::Succeeded, 2, Phase::Succeeded),
        (vec![NEVER_ENDS], json!({"timeout": "30s"}), HookState::Failed, 1, Phase::Failed),
        (
            vec![NEVER_ENDS],
            json!({"timeout": "30s", "retries": 1}),
            HookState::Succeeded,
            2,
            Phase::Succeeded,
        ),
    ];
    for (codes, more, state, attempts, phase) in table {
        let mut hook = json!({"name": "h", "phase": "BeforeStop", "job": {"script": "true"}});
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut w = hooked(json!([hook]));
        w.scripts.insert("h".into(), codes.clone());
        w.run(2000, World::clean, || false);
        assert_eq!(
            (hook_row(&w, "h").state, hook_row(&w, "h").attempts),
            (state, attempts),
            "{codes:?} {more}"
        );
        assert_eq!(w.phase(), Some(phase), "{codes:?} {more}");
        assert!(w.jobs.is_empty(), "{:?}", w.jobs);
        if codes == [TIMES_OUT] && phase == Phase::Failed {
            assert!(w.status.failure.unwrap().message.contains("longer than 300 s"));
        }
    }
}

#[test]
fn hooks_of_one_phase_run_one_after_the_other_and_the_first_failure_ends_them() {
    let hook = |name: &str| json!({"name": name, "phase": "BeforeStop", "job": {"script": "true"}});
    let mut w = hooked(json!([hook("one"), hook("two"), hook("three")]));
    w.scripts.insert("two".into(), vec![1]);
    w.run(2000, World::clean, || false);
    assert_eq!(w.ran, ["one", "two"]);
    assert_eq!(hook_row(&w, "three").state, HookState::Pending);
    assert_eq!((w.source.status.as_str(), w.actions.len()), ("ACTIVE", 0), "A was not touched");
    assert!(w.made.is_empty() && w.snapshots.is_empty());
}

#[test]
fn hooks_of_the_end_change_no_outcome() {
    let mut w = hooked(everywhere());
    w.scripts.insert("finally".into(), vec![1]);
    w.run(2000, World::clean, || false);
    assert_eq!((w.phase(), hook_row(&w, "finally").state), (Some(Phase::Succeeded), HookState::Failed));
    let mut w = hooked(everywhere());
    for (name, code) in [("afterstop", 1), ("onfailure", NEVER_ENDS), ("finally", NEVER_ENDS)] {
        w.scripts.insert(name.into(), vec![code]);
    }
    w.run(2000, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Failed));
    w.assert_given_back();
    w.assert_nothing_left();
}

#[test]
fn a_job_that_cannot_be_made_is_a_failed_attempt() {
    let mut w = hooked(json!([{"name": "h", "phase": "AfterStop", "retries": 1, "job": {"script": "true"}}]));
    w.broken = Some("run-hook");
    w.run(2000, World::clean, || false);
    let failure = w.status.failure.clone().unwrap();
    assert!(failure.reason == "HookFailed" && failure.message.contains("413 quota exceeded"), "{failure:?}");
    assert_eq!(hook_row(&w, "h").attempts, 2);
    w.assert_given_back();
}

#[test]
fn a_job_that_somebody_deletes_is_not_run_twice() {
    let mut w = hooked(json!([{"name": "h", "phase": "BeforeStop", "job": {"script": "true"}}]));
    w.scripts.insert("h".into(), vec![NEVER_ENDS]);
    w.run(200, |w| hook_row(w, "h").message.is_some(), || false);
    w.jobs.retain(|name, _| !name.contains("hook"));
    w.run(2000, World::clean, || false);
    assert_eq!(w.ran, ["h"]);
    assert!(w.status.failure.unwrap().message.contains("deleted by somebody"));
}

#[test]
fn cancel_and_deletion_end_a_hook() {
    for phase in
        ["BeforePreflight", "BeforeStop", "AfterStop", "BeforeCreate", "AfterStart", "AfterVerification"]
    {
        for kind in [json!({"job": {"script": "true"}}), json!({"client": {}})] {
            for delete in [false, true] {
                let mut hook = json!({"name": "h", "phase": phase, "timeout": "1d"});
                hook.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
                let mut w =
                    hooked(json!([hook, {"name": "f", "phase": "OnFailure", "job": {"script": "true"}}]));
                w.scripts.insert("h".into(), vec![NEVER_ENDS]);
                w.run(500, |w| w.status.hooks.iter().any(|r| r.attempts > 0), || false);
                (0..5).for_each(|_| w.pass(false));
                assert!(!hook_row(&w, "h").state.is_final(), "{phase}");
                if delete {
                    w.deleting = true;
                    w.run(500, |w| w.released, dice(1, 4));
                } else {
                    w.spec.requests = Some(Requests { cancel: Some("x".into()), ..Default::default() });
                    w.run(500, World::clean, dice(1, 4));
                    assert_eq!(w.phase(), Some(Phase::Cancelled));
                    assert_eq!(hook_row(&w, "f").state, HookState::Succeeded, "{phase}");
                }
                // Where nothing was made a deletion has nothing to write down.
                assert!(delete || hook_row(&w, "h").state == HookState::Failed);
                assert!(w.jobs.is_empty(), "{phase}: {:?}", w.jobs);
                w.assert_given_back();
            }
        }
    }
}

#[test]
fn deletion_ends_a_hook_of_the_end_and_runs_none() {
    let mut w = hooked(everywhere());
    w.scripts.insert("afterstop".into(), vec![1]);
    w.scripts.insert("onfailure".into(), vec![NEVER_ENDS]);
    w.run(500, |w| w.ran.last().is_some_and(|r| r == "onfailure"), || false);
    w.deleting = true;
    w.run(500, |w| w.released, || false);
    assert!(w.jobs.is_empty());
    assert_eq!(hook_row(&w, "finally").state, HookState::Pending);
    w.assert_given_back();
    w.assert_nothing_left();
}

#[test]
fn a_client_is_waited_for_claims_and_answers() {
    let mut w = with_client(json!({"captureOutput": true}));
    let said = w.status.message.clone().unwrap();
    assert!(
        said.contains("kubectl vmmigration attach web-1 -n team --hook BeforeStop=./script.sh"),
        "{said}"
    );
    w.answer("c", |_| {});
    w.pass(false);
    let row = hook_row(&w, "c");
    assert_eq!((row.state, row.client.as_deref()), (HookState::Running, Some("me@here-1")));
    w.answer("c", |n| (n.exit_code, n.output) = (Some(0), Some("\u{1b}[1mdone".into())));
    w.run(500, World::clean, || false);
    let row = hook_row(&w, "c");
    assert_eq!((row.state, row.exit_code, row.attempts), (HookState::Succeeded, Some(0), 1));
    assert_eq!(row.output.as_deref(), Some("\u{fffd}[1mdone"));
    assert_eq!(w.phase(), Some(Phase::Succeeded));
}

#[test]
fn an_answer_to_another_attempt_is_not_heard_and_output_is_kept_only_when_wanted() {
    let mut w = with_client(json!({"retries": 1}));
    w.answer("c", |n| (n.exit_code, n.nonce) = (Some(0), "other".into()));
    (0..5).for_each(|_| w.pass(false));
    assert_eq!(hook_row(&w, "c").state, HookState::Waiting);
    w.annotations.insert(format!("{ANNOTATION_CLIENT_HOOK}c"), "{nonsense".into());
    w.pass(false);
    w.answer("c", |n| (n.exit_code, n.output) = (Some(3), Some("secret".into())));
    w.run(50, |w| hook_row(w, "c").attempts == 2, || false);
    (0..5).for_each(|_| w.pass(false));
    assert_eq!(
        hook_row(&w, "c").state,
        HookState::Waiting,
        "the answer to the first attempt is no answer to the second"
    );
    w.answer("c", |n| (n.exit_code, n.output) = (Some(0), Some("secret".into())));
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    assert!(!serde_json::to_string(&w.status).unwrap().contains("secret"));
}

#[test]
fn a_lost_client_is_told_and_the_deadline_stays() {
    let mut w = with_client(json!({}));
    let deadline = hook_row(&w, "c").deadline.clone();
    w.answer("c", |_| {});
    w.pass(false);
    for _ in 0..25 {
        w.pass(false);
    }
    let row = hook_row(&w, "c");
    assert_eq!((row.state, row.client, row.deadline), (HookState::Waiting, None, deadline));
    assert!(w.status.message.as_ref().unwrap().contains("me@here-1 is not seen any more"));
    w.run(200, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Failed));
    assert!(w.status.failure.as_ref().unwrap().message.contains("did not answer"), "{:?}", w.status.failure);
    w.assert_given_back();
}

#[test]
fn no_client_by_the_deadline_is_what_on_error_says() {
    for (on_error, phase) in [("Fail", Phase::Failed), ("Continue", Phase::Succeeded)] {
        let mut w = with_client(json!({"onError": on_error}));
        w.run(500, World::clean, || false);
        assert_eq!(w.phase(), Some(phase));
        assert!(hook_row(&w, "c").message.as_ref().unwrap().contains("no client came within 120 s"));
    }
}

#[test]
fn while_suspended_a_client_has_time() {
    let mut w = with_client(json!({}));
    w.spec.suspend = Some(true);
    (0..500).for_each(|_| w.pass(false));
    w.spec.suspend = Some(false);
    w.pass(false);
    assert_eq!(hook_row(&w, "c").state, HookState::Waiting);
    w.answer("c", |n| n.exit_code = Some(0));
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
}

#[test]
fn a_guest_that_a_hook_shut_down_ran_all_the_same() {
    let mut w = with_client(json!({}));
    w.source.status = "SHUTOFF".into();
    w.answer("c", |n| n.exit_code = Some(0));
    w.run(500, World::clean, || false);
    assert_eq!((w.phase(), w.servers[0].status.as_str()), (Some(Phase::Succeeded), "ACTIVE"));
}

#[test]
fn what_is_in_the_way_after_the_hooks_is_borne_and_then_undone() {
    let mut w = with_client(json!({}));
    w.source.status = "PAUSED".into();
    w.answer("c", |n| n.exit_code = Some(0));
    (0..100).for_each(|_| w.pass(false));
    assert_eq!(w.phase(), Some(Phase::Stopping));
    w.source.status = "ACTIVE".into();
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    let mut w = with_client(json!({}));
    w.source.status = "PAUSED".into();
    w.answer("c", |n| n.exit_code = Some(0));
    w.run(1000, World::clean, || false);
    assert_eq!(w.status.failure.unwrap().reason, "InvalidConfiguration");
}

#[test]
fn what_hooks_refer_to_blocks_before_anything_runs() {
    let mut w = hooked(everywhere());
    w.hook_finding = Some("hook-secret-missing");
    (0..20).for_each(|_| w.pass(false));
    assert_eq!((w.phase(), w.ran.len()), (Some(Phase::Blocked), 0));
    assert_eq!(w.status.preflight[0].id, "hook-secret-missing");
    w.hook_finding = None;
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
}
