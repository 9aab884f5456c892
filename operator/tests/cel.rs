//! Every rule that the definitions carry: one object that it accepts and one that it refuses.
//!
//! Run offline, by the same rules that the API server runs; tests/e2e asks a real API server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use vmmigration::crd::v1alpha1::{ObjectStore, OpenStackCloud, VmMigration, VmMigrationReport};

use Request::{Create, Update};

struct Case {
    /// The rule's message.
    rule: &'static str,
    accepted: Request,
    refused: Request,
}

#[derive(Debug)]
enum Request {
    Create(Value),
    Update { old: Value, new: Value },
}

/// The messages of the rules that a request breaks.
fn broken(request: &Request) -> Vec<String> {
    let (new, old) = match request {
        Create(new) => (new, None),
        Update { old, new } => (new, Some(old)),
    };
    macro_rules! ask {
        ($($kind:ident),*) => {
            match new["kind"].as_str().unwrap() {
                $(stringify!($kind) => {
                    let read = |value: &Value| serde_json::from_value::<$kind>(value.clone()).unwrap();
                    match old {
                        Some(old) => read(new).validate_cel_update(&read(old)),
                        None => read(new).validate_cel(),
                    }
                })*
                other => panic!("unknown kind {other}"),
            }
        };
    }
    match ask!(OpenStackCloud, ObjectStore, VmMigration, VmMigrationReport) {
        Ok(()) => vec![],
        Err(errors) => errors.into_iter().map(|e| e.message.clone()).collect(),
    }
}

fn object(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "vmmigration.io/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec})
}

/// `base` with the members of `changes` put in, objects merged; null removes.
fn with(base: &Value, changes: Value) -> Value {
    let mut result = base.clone();
    merge(&mut result, changes);
    result
}

fn merge(base: &mut Value, changes: Value) {
    match (base, changes) {
        (Value::Object(base), Value::Object(changes)) => {
            for (key, value) in changes {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, changes) => *base = changes,
    }
}

fn store(location: &str) -> Value {
    object("ObjectStore", json!({"location": location, "credentialsSecretRef": {"name": "s"}}))
}

fn limited(direction: &str, bytes: &str) -> Value {
    with(&store("s3:https://s3.example.com/bucket"), json!({"spec": {"bandwidth": {direction: bytes}}}))
}

fn migration() -> Value {
    object(
        "VmMigration",
        json!({
            "source": {"cloud": "a", "server": "web-1"},
            "destination": {"cloud": "b"},
            "cutover": {"mode": "Manual"}
        }),
    )
}

fn change(spec: Value) -> Value {
    with(&migration(), json!({"spec": spec}))
}

fn checks(check: Value) -> Value {
    change(json!({"verification": {"checks": [check]}}))
}

fn hook(kind: Value) -> Value {
    change(json!({"hooks": [with(&json!({"name": "h", "phase": "BeforeStop"}), kind)]}))
}

fn ssh_hook(script: Value) -> Value {
    let key = json!({"name": "key", "key": "id"});
    hook(json!({"ssh": with(&json!({"user": "root", "privateKeySecretRef": key}), script)}))
}

fn fixed_ip(fixed_ip: Value) -> Value {
    change(json!({"destination": {"networks": [{"from": "n", "to": "n", "fixedIP": fixed_ip}]}}))
}

fn report() -> Value {
    let server = |cloud| json!({"cloud": cloud, "projectId": "p", "serverId": "s", "serverName": "web-1"});
    object(
        "VmMigrationReport",
        json!({
            "migration": "web-1", "uid": "u", "outcome": "Succeeded", "source": server("a"),
            "destination": server("b"), "finishedAt": "2026-01-01T00:00:00Z", "disks": []
        }),
    )
}

/// The migration in a phase, and the same with another spec.
fn in_phase(phase: &str, spec: Value) -> Request {
    let old = with(&migration(), json!({"status": {"phase": phase}}));
    Update { new: with(&old, json!({"spec": spec})), old }
}

const AT: &str = "cutover.at is needed with mode At, and only with it";
const NOT_AFTER: &str = "cutover.notAfter goes with cutover.at, and must be later";
const ADDRESS: &str = "fixedIP.address is needed with mode Set, and only with it";
const CHECK: &str = "a check is exactly one of tcp, http, console, ssh";
const HOOK: &str = "a hook is exactly one of job, ssh, client";
const LOCATION: &str = "location must be s3:https://host[:port]/bucket[/prefix], \
                        rest:https://host[:port][/prefix] or swift:container:/[prefix]";
const JOB_HOOK: &str = "a job hook is exactly one of script, configMap";
const SSH_HOOK: &str = "an ssh hook is exactly one of script, configMap";
const USER_DATA: &str = "userData is exactly one of secretRef, preset";
const POLICY: &str = "sourcePolicy.after is needed with action Delete, and only with it";
const SOURCE: &str = "spec.source cannot be changed any more: only while the phase is Blocked; \
                      delete this VmMigration and create another";
const DESTINATION: &str = "spec.destination cannot be changed any more: only while the phase is Blocked; \
                           delete this VmMigration and create another";

fn cases() -> Vec<Case> {
    let case = |rule, accepted, refused| Case { rule, accepted, refused };
    let good = || Create(store("s3:https://s3.example.com:9000/bucket/team/web"));
    let now = || json!({"cutover": {"mode": "Now"}});
    let at = || json!({"cutover": {"mode": "At", "at": "2030-01-01T00:00:00Z"}});
    let until =
        |latest: &str| json!({"cutover": {"mode": "At", "at": "2030-01-01T00:00:00Z", "notAfter": latest}});
    let ssh = |port: i32| checks(json!({"name": "ssh", "tcp": {"port": port}}));
    let map = || json!({"name": "scripts", "key": "stop.sh"});
    let job = |script: &str| hook(json!({"job": {"script": script}}));
    let policy = |policy: Value| change(json!({"sourcePolicy": policy}));
    let user_data = |wanted: Value| change(json!({"destination": {"userData": wanted}}));
    let console = || json!({"pattern": "login:"});
    let by_ssh =
        || json!({"user": "root", "privateKeySecretRef": {"name": "key", "key": "id"}, "command": "true"});
    vec![
        case(LOCATION, good(), Create(store("s3:http://s3.example.com/bucket"))),
        case(LOCATION, Create(store("rest:https://h:8000/team")), Create(store("rest:http://h:8000/team"))),
        case(LOCATION, Create(store("swift:moves:/")), Create(store("b2:moves:/"))),
        case(
            "location must name a server and no query: rest:https://host[:port][/prefix]",
            Create(store("rest:https://h")),
            Create(store("rest:https://h/team?x=1")),
        ),
        case(
            "location must name a container: swift:container:/[prefix]",
            Create(store("swift:moves:/team")),
            Create(store("swift:moves")),
        ),
        case(
            "bandwidth.upload is a whole number of bytes a second, such as 25Mi",
            Create(limited("upload", "25Mi")),
            Create(limited("upload", "0")),
        ),
        case(
            "bandwidth.download is a whole number of bytes a second, such as 25Mi",
            Create(limited("download", "1000000")),
            Create(limited("download", "fast")),
        ),
        case(
            "location must not contain user information: keys belong into the Secret named by credentialsSecretRef",
            good(),
            Create(store("s3:https://key:secret@s3.example.com/bucket")),
        ),
        case(
            "location must name a bucket: s3:https://host[:port]/bucket[/prefix]",
            good(),
            Create(store("s3:https://s3.example.com")),
        ),
        case(
            "source.cloud and destination.cloud must be different OpenStackClouds",
            Create(migration()),
            Create(change(json!({"destination": {"cloud": "a"}}))),
        ),
        case(
            "the name may have at most 200 characters: the report is called <name>-<8 characters>",
            Create(with(&migration(), json!({"metadata": {"name": "x".repeat(200)}}))),
            Create(with(&migration(), json!({"metadata": {"name": "x".repeat(201)}}))),
        ),
        case(AT, Create(change(at())), Create(change(json!({"cutover": {"mode": "At"}})))),
        case(AT, Create(change(now())), Create(with(&change(at()), json!({"spec": now()})))),
        case(
            NOT_AFTER,
            Create(change(until("2030-01-01T00:00:01Z"))),
            Create(change(until("2030-01-01T01:00:00+01:00"))),
        ),
        case(
            NOT_AFTER,
            Create(change(now())),
            Create(change(json!({"cutover": {"mode": "Now", "notAfter": "2030-01-01T00:00:00Z"}}))),
        ),
        case(
            ADDRESS,
            Create(fixed_ip(json!({"mode": "Set", "address": "10.0.0.7"}))),
            Create(fixed_ip(json!({"mode": "Set"}))),
        ),
        case(
            ADDRESS,
            Create(fixed_ip(json!({"mode": "Preserve"}))),
            Create(fixed_ip(json!({"mode": "Preserve", "address": "10.0.0.7"}))),
        ),
        case(
            CHECK,
            Create(ssh(22)),
            Create(checks(json!({"name": "both", "tcp": {"port": 22}, "http": {}}))),
        ),
        case(
            CHECK,
            Create(checks(json!({"name": "page", "http": {}}))),
            Create(checks(json!({"name": "none"}))),
        ),
        case(
            CHECK,
            Create(checks(json!({"name": "console", "console": console()}))),
            Create(checks(json!({"name": "both", "console": console(), "ssh": by_ssh()}))),
        ),
        case(
            CHECK,
            Create(checks(json!({"name": "ssh", "ssh": by_ssh()}))),
            Create(checks(json!({"name": "both", "http": {}, "ssh": by_ssh()}))),
        ),
        case(HOOK, Create(hook(json!({"client": {}}))), Create(hook(json!({})))),
        case(HOOK, Create(job("true")), Create(hook(json!({"job": {"script": "true"}, "client": {}})))),
        case(JOB_HOOK, Create(hook(json!({"job": {"configMap": map()}}))), Create(hook(json!({"job": {}})))),
        case(
            JOB_HOOK,
            Create(job("true")),
            Create(hook(json!({"job": {"script": "true", "configMap": map()}}))),
        ),
        case(SSH_HOOK, Create(ssh_hook(json!({"script": "true"}))), Create(ssh_hook(json!({})))),
        case(
            SSH_HOOK,
            Create(ssh_hook(json!({"configMap": map()}))),
            Create(ssh_hook(json!({"script": "true", "configMap": map()}))),
        ),
        case(
            USER_DATA,
            Create(user_data(json!({"secretRef": {"name": "web", "key": "user-data"}}))),
            Create(user_data(json!({}))),
        ),
        case(
            USER_DATA,
            Create(user_data(json!({"preset": "KeepGuest"}))),
            Create(user_data(
                json!({"preset": "KeepGuest", "secretRef": {"name": "web", "key": "user-data"}}),
            )),
        ),
        case(
            POLICY,
            Create(policy(json!({"action": "Delete", "after": "7d"}))),
            Create(policy(json!({"action": "Delete"}))),
        ),
        case(
            POLICY,
            Create(policy(json!({"action": "Keep"}))),
            Create(policy(json!({"action": "Keep", "after": "7d"}))),
        ),
        // The go is an edit, and so is a change of mind about the time.
        case(
            SOURCE,
            in_phase("AwaitingCutover", now()),
            in_phase("AwaitingCutover", json!({"source": {"server": "web-2"}})),
        ),
        case(
            SOURCE,
            in_phase("Blocked", json!({"source": {"server": "web-2"}})),
            Update { old: migration(), new: change(json!({"source": {"server": "web-2"}})) },
        ),
        case(
            DESTINATION,
            in_phase("AwaitingCutover", at()),
            in_phase("AwaitingCutover", json!({"destination": {"flavor": "b1.medium"}})),
        ),
        case(
            DESTINATION,
            in_phase("Blocked", json!({"destination": {"flavor": "b1.medium"}})),
            Update { old: migration(), new: change(json!({"destination": {"flavor": "b1.medium"}})) },
        ),
        case(
            "spec.store is immutable",
            Update { old: change(json!({"store": "one"})), new: change(json!({"store": "one"})) },
            in_phase("Blocked", json!({"store": "other"})),
        ),
        case(
            "spec.strategy is immutable",
            Update { old: migration(), new: migration() },
            Update { old: change(json!({"strategy": "Cold"})), new: migration() },
        ),
        case(
            "spec.strategy is immutable",
            Create(change(json!({"strategy": "Warm"}))),
            Update { old: change(json!({"strategy": "Warm"})), new: change(json!({"strategy": "Cold"})) },
        ),
        case(
            "spec.maxDowntime is immutable",
            Update { old: migration(), new: change(now()) },
            Update { old: migration(), new: change(json!({"maxDowntime": "30m"})) },
        ),
        case(
            "spec.hooks is immutable",
            Update { old: job("one"), new: with(&job("one"), json!({"spec": now()})) },
            Update { old: job("one"), new: job("other") },
        ),
        case(
            "spec.verification is immutable",
            Update { old: ssh(22), new: with(&ssh(22), json!({"spec": now()})) },
            Update { old: ssh(22), new: ssh(23) },
        ),
        case(
            "a report's spec is evidence and cannot be changed",
            Update {
                old: report(),
                new: with(&report(), json!({"status": {"cleanedUpAt": "2026-01-02T00:00:00Z"}})),
            },
            Update { old: report(), new: with(&report(), json!({"spec": {"outcome": "Failed"}})) },
        ),
    ]
}

#[test]
fn rules_accept_and_refuse() {
    for Case { rule, accepted, refused } in cases() {
        let said = broken(&accepted);
        assert!(said.is_empty(), "{rule}: should be accepted, but {said:?}: {accepted:#?}");
        let said = broken(&refused);
        assert!(
            said.iter().any(|message| message == rule),
            "{rule}: should be refused, but {said:?}: {refused:#?}"
        );
    }
}

fn collect(schema: &Value, messages: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            for rule in
                members.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                let message = rule["message"].as_str();
                messages
                    .insert(message.unwrap_or_else(|| panic!("a rule without a message: {rule}")).to_owned());
            }
            members.values().for_each(|value| collect(value, messages));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, messages)),
        _ => {}
    }
}

/// A new rule needs a case above.
#[test]
fn every_rule_has_a_case() {
    let mut rules = BTreeSet::new();
    collect(&serde_json::to_value(vmmigration::crd::all()).unwrap(), &mut rules);
    let tested: BTreeSet<String> = cases().iter().map(|case| case.rule.to_owned()).collect();
    assert_eq!(rules, tested);
}

/// Decisions in the middle are edits that no rule stands in the way of.
#[test]
fn decisions_may_be_made_at_any_time() {
    let decisions = json!({
        "requests": {"cancel": "1", "retry": "1", "rollback": "1", "retire": "1", "startSource": "1"},
        "sourcePolicy": {"action": "Delete", "after": "7d"},
        "onFailure": {"keepData": "1d12h"},
        "suspend": true,
    });
    for phase in ["Pending", "Transferring", "Held", "Failed", "Succeeded", "Retiring"] {
        let said = broken(&in_phase(phase, decisions.clone()));
        assert!(said.is_empty(), "{phase}: {said:?}");
    }
}
