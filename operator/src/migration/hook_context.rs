//! What every hook is told, wherever it runs: environment `VMM_*`, and the same as one JSON document.

use super::names::Identity;
use crate::crd::v1alpha1::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a hook is told.
#[derive(Clone, Debug, PartialEq)]
pub struct HookContext {
    /// Environment. Every variable is always there; what is not known yet is empty.
    pub env: BTreeMap<&'static str, String>,
    /// The same, for standard input.
    pub document: Value,
}

/// One of the two sides, as far as it is known.
struct Side<'a> {
    cloud: &'a str,
    id: &'a str,
    name: &'a str,
    addresses: &'a [String],
}

impl Side<'_> {
    fn document(&self) -> Value {
        json!({"cloud": self.cloud, "serverId": self.id, "serverName": self.name, "addresses": self.addresses})
    }
}

/// What the hook of `row` is told. Pure: the same for a Job, a guest and a client.
pub fn context(
    me: &Identity,
    spec: &VmMigrationSpec,
    status: &VmMigrationStatus,
    row: &HookRow,
) -> HookContext {
    let s = status.source.clone().unwrap_or_default();
    let x = status.destination.clone().unwrap_or_default();
    let source = Side {
        cloud: &spec.source.cloud,
        id: &s.server_id,
        name: if s.server_name.is_empty() { &spec.source.server } else { &s.server_name },
        addresses: &s.addresses,
    };
    let destination = Side {
        cloud: &spec.destination.cloud,
        id: x.server_id.as_deref().unwrap_or_default(),
        name: destination_name(spec, status).unwrap_or(source.name),
        addresses: &x.addresses,
    };
    let outcome = outcome(status, row.phase);
    let failure = status.failure.as_ref().map(|f| f.message.as_str());
    HookContext {
        env: environment(me, row, [&source, &destination], failure, outcome),
        document: json!({
            "migration": {"name": me.name, "namespace": me.namespace, "uid": me.uid},
            "hook": {"name": row.name, "phase": row.phase, "attempt": row.attempts},
            "source": source.document(),
            "destination": destination.document(),
            "failure": failure,
            "outcome": outcome,
        }),
    }
}

fn destination_name<'a>(spec: &'a VmMigrationSpec, status: &'a VmMigrationStatus) -> Option<&'a str> {
    let planned = status.plan.as_ref().map(|p| p.server_name.as_str()).filter(|n| !n.is_empty());
    planned.or(spec.destination.server_name.as_deref())
}

/// How the migration ends; known to the hooks of the end only.
fn outcome(status: &VmMigrationStatus, phase: HookPhase) -> Option<&'static str> {
    match (phase, &status.failure) {
        (HookPhase::OnFailure | HookPhase::Finally, Some(f)) if f.cancelled => Some("Cancelled"),
        (HookPhase::OnFailure | HookPhase::Finally, Some(_)) => Some("Failed"),
        (HookPhase::Finally, None) => Some("Succeeded"),
        _ => None,
    }
}

fn environment(
    me: &Identity,
    row: &HookRow,
    [source, destination]: [&Side<'_>; 2],
    failure: Option<&str>,
    outcome: Option<&str>,
) -> BTreeMap<&'static str, String> {
    let first = |side: &Side<'_>| side.addresses.first().cloned().unwrap_or_default();
    let all = |side: &Side<'_>| side.addresses.join(" ");
    let variables = [
        ("VMM_MIGRATION", me.name.clone()),
        ("VMM_NAMESPACE", me.namespace.clone()),
        ("VMM_UID", me.uid.clone()),
        ("VMM_HOOK", row.name.clone()),
        ("VMM_PHASE", row.phase.to_string()),
        ("VMM_ATTEMPT", row.attempts.to_string()),
        ("VMM_SOURCE_CLOUD", source.cloud.into()),
        ("VMM_SOURCE_SERVER_ID", source.id.into()),
        ("VMM_SOURCE_SERVER_NAME", source.name.into()),
        ("VMM_SOURCE_ADDRESS", first(source)),
        ("VMM_SOURCE_ADDRESSES", all(source)),
        ("VMM_DESTINATION_CLOUD", destination.cloud.into()),
        ("VMM_DESTINATION_SERVER_ID", destination.id.into()),
        ("VMM_DESTINATION_SERVER_NAME", destination.name.into()),
        ("VMM_DESTINATION_ADDRESS", first(destination)),
        ("VMM_DESTINATION_ADDRESSES", all(destination)),
        ("VMM_FAILURE", failure.unwrap_or_default().into()),
        ("VMM_OUTCOME", outcome.unwrap_or_default().into()),
    ];
    // An environment cannot hold a NUL; a name in a cloud can.
    variables.map(|(name, value): (_, String)| (name, value.replace('\0', ""))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VmMigrationSpec {
        serde_json::from_value(json!({
            "source": {"cloud": "site-a", "server": "it's \"web\" 1"},
            "destination": {"cloud": "site-b"},
            "cutover": {"mode": "Manual"},
        }))
        .unwrap()
    }

    fn row(phase: HookPhase) -> HookRow {
        HookRow { name: "stop-db".into(), phase, attempts: 2, ..Default::default() }
    }

    fn me() -> Identity {
        Identity { uid: "u1".into(), namespace: "team".into(), name: "web".into() }
    }

    #[test]
    fn before_anything_is_known_every_variable_is_there() {
        let told = context(&me(), &spec(), &VmMigrationStatus::default(), &row(HookPhase::BeforePreflight));
        assert_eq!(told.env.len(), 18);
        assert_eq!(told.env["VMM_SOURCE_SERVER_NAME"], "it's \"web\" 1");
        assert_eq!(told.env["VMM_DESTINATION_SERVER_NAME"], "it's \"web\" 1");
        assert_eq!((told.env["VMM_SOURCE_ADDRESS"].as_str(), told.env["VMM_ATTEMPT"].as_str()), ("", "2"));
        assert_eq!(told.document["hook"]["phase"], "BeforePreflight");
        assert_eq!(told.document["outcome"], Value::Null);
    }

    #[test]
    fn both_sides_are_told() {
        let status: VmMigrationStatus = serde_json::from_value(json!({
            "source": {"serverId": "s1", "serverName": "web-1", "addresses": ["10.0.0.5", "fd00::5"]},
            "destination": {"serverId": "s2", "addresses": ["10.1.0.9"]},
            "plan": {"serverName": "web-1-new"},
        }))
        .unwrap();
        let told = context(&me(), &spec(), &status, &row(HookPhase::AfterStart));
        assert_eq!(told.env["VMM_SOURCE_ADDRESS"], "10.0.0.5");
        assert_eq!(told.env["VMM_SOURCE_ADDRESSES"], "10.0.0.5 fd00::5");
        assert_eq!(told.env["VMM_DESTINATION_SERVER_ID"], "s2");
        assert_eq!(told.document["destination"]["serverName"], "web-1-new");
        assert_eq!(told.document["source"]["addresses"], json!(["10.0.0.5", "fd00::5"]));
    }

    #[test]
    fn the_outcome_is_told_at_the_end() {
        let failure = |cancelled| Some(Failure { message: "why\0".into(), cancelled, ..Default::default() });
        let told = |phase, failure| {
            let status = VmMigrationStatus { failure, ..Default::default() };
            let told = context(&me(), &spec(), &status, &row(phase));
            (told.env["VMM_OUTCOME"].clone(), told.env["VMM_FAILURE"].clone())
        };
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(told(HookPhase::Finally, None), pair("Succeeded", ""));
        assert_eq!(told(HookPhase::Finally, failure(false)), pair("Failed", "why"));
        assert_eq!(told(HookPhase::OnFailure, failure(true)), pair("Cancelled", "why"));
        assert_eq!(told(HookPhase::AfterVerification, None), pair("", ""));
    }
}
