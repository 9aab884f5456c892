//! What the explorer's worlds do not have, in random combinations: a cutover at a time, `maxDowntime`, checks of every kind
//! that pass or fail, hooks over SSH and of clients, and a clean-up that somebody gives up on. Every sequence comes to an
//! end; what it decides on the way is in `decisions.golden`.

use super::tests::{HOST_KEY, World, everywhere};
use crate::{
    crd::v1alpha1::*,
    migration::observed::{JobState, JobView},
};
use k8s_openapi::jiff::SignedDuration;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

/// One of several.
fn one<T: Clone>(rng: &mut StdRng, of: &[T]) -> T {
    of.choose(rng).cloned().unwrap()
}

/// A hook at each phase, of any kind.
fn hooks(rng: &mut StdRng) -> Value {
    let mut hooks = everywhere();
    for hook in hooks.as_array_mut().unwrap() {
        let ssh = json!({"user": "u", "script": "true", "hostKey": HOST_KEY, "privateKeySecretRef": {"name": "s", "key": "k"}});
        let kinds = [json!({"job": {"script": "true"}}), json!({"ssh": ssh}), json!({"client": {}})];
        let kind = one(rng, &kinds);
        hook.as_object_mut().unwrap().remove("job");
        hook.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        hook["timeout"] = json!(one(rng, &["30s", "5m"]));
        hook["retries"] = json!(rng.random_range(0..2));
        hook["onError"] = json!(one(rng, &["Fail", "Continue"]));
        hook["captureOutput"] = json!(rng.random_bool(0.5));
    }
    hooks
}

/// Some checks, and what their Job will answer.
fn checks(rng: &mut StdRng) -> (Value, Value) {
    let mut ssh = json!({"user": "u", "command": "true", "privateKeySecretRef": {"name": "s", "key": "k"}});
    if rng.random_bool(0.5) {
        ssh["hostKey"] = json!(HOST_KEY);
    }
    let all = [
        json!({"name": "page", "http": {"path": "/", "contains": "up", "header": {"name": "x", "pattern": "y"}}}),
        json!({"name": "port", "tcp": {"port": 22}}),
        json!({"name": "db", "timeoutSeconds": 60, "ssh": ssh}),
        json!({"name": "boot", "timeoutSeconds": 60, "console": {"pattern": "login:"}}),
    ];
    let asked: Vec<Value> = all.into_iter().filter(|_| rng.random_bool(0.6)).collect();
    let well = rng.random_bool(0.6);
    let row = |c: &Value| json!({"name": c["name"], "ok": well, "attempts": 1, "message": "told"});
    let result = json!({"checks": asked.iter().map(row).collect::<Vec<_>>()});
    let told = match well {
        true => json!({"ok": true, "result": result}),
        false => {
            json!({"ok": false, "reason": "CheckFailed", "message": "told", "retryable": false, "result": result})
        }
    };
    (json!({"checks": asked}), told)
}

fn world(rng: &mut StdRng) -> World {
    let mut w = World::new();
    let mut spec = serde_json::to_value(&w.spec).unwrap();
    let at = |w: &World, seconds| w.now.checked_add(SignedDuration::from_secs(seconds)).unwrap().to_string();
    let times = [
        json!({"mode": "Now"}),
        json!({"mode": "At", "at": at(&w, 60)}),
        json!({"mode": "At", "at": at(&w, 600), "notAfter": at(&w, 660)}),
        json!({"mode": "At", "at": at(&w, -60)}),
    ];
    spec["cutover"] = one(rng, &times);
    if rng.random_bool(0.4) {
        spec["maxDowntime"] = json!(one(rng, &["30s", "2m", "1h"]));
    }
    if rng.random_bool(0.3) {
        spec["strategy"] = json!("Warm");
    }
    if rng.random_bool(0.6) {
        spec["hooks"] = hooks(rng);
    }
    (spec["verification"], w.checked) = checks(rng);
    w.spec = serde_json::from_value(spec).unwrap();
    for hook in &w.spec.hooks {
        if rng.random_bool(0.1) {
            w.scripts.insert(hook.name.clone(), vec![one(rng, &[1, 255])]);
        }
    }
    w
}

/// Our own program says why there was no session; the model ends its Job in the next tick.
fn tell_of_ssh(w: &mut World) {
    let failed = |job: &&mut JobView| job.state == JobState::Active && job.exit_code == Some(255);
    for job in w.jobs.values_mut().map(|(_, job)| job).filter(failed) {
        let said = json!({"ok": false, "reason": "SshFailed", "message": "no route", "retryable": true});
        job.termination = Some(said.to_string());
    }
}

/// A client comes by, and may say that it is done.
fn client(w: &mut World, rng: &mut StdRng) {
    let waits =
        |r: &&HookRow| matches!(r.state, HookState::Waiting | HookState::Running) && r.deadline.is_some();
    let Some(name) = w.status.hooks.iter().find(waits).map(|r| r.name.clone()) else { return };
    let code = one(rng, &[None, Some(0), Some(0), Some(3)]);
    let output = Some("said".to_string());
    w.answer(&name, |n| (n.exit_code, n.output) = (code, output));
}

fn ended(w: &World) -> bool {
    w.released || matches!(w.phase(), Some(Phase::Succeeded | Phase::Failed | Phase::Cancelled)) && w.clean()
}

#[test]
fn what_the_explorer_does_not_have_ends_too() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut w = world(&mut rng);
        let deleted_at = rng.random_bool(0.2).then(|| rng.random_range(0..60));
        for n in 0..3000 {
            if ended(&w) {
                break;
            }
            tell_of_ssh(&mut w);
            if rng.random_bool(0.2) {
                client(&mut w, &mut rng);
            }
            if rng.random_bool(0.1) {
                w.console = Ok(one(&mut rng, &["booting", "login: "]).into());
            }
            if n == 600 {
                // Whose time was missed waits for somebody.
                w.spec.cutover = serde_json::from_value(json!({"mode": "Now"})).unwrap();
            }
            if deleted_at == Some(n) {
                w.deleting = true;
                w.unreachable = rng.random_bool(0.5);
            }
            w.abandoned |= w.deleting && rng.random_bool(0.02);
            let crash = rng.random_bool(0.1);
            w.pass(crash);
        }
        assert!(ended(&w), "seed {seed}: {:?} {:?}", w.phase(), w.status.message);
    }
}
