//! The report of a migration that succeeded.

use crate::{
    crd::v1alpha1::*,
    migration::{
        names::{Identity, LABEL_MIGRATION},
        present,
    },
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use std::collections::BTreeMap;

/// What followed after success, for the report's status.
pub fn outcome(status: &VmMigrationStatus, now: Timestamp) -> VmMigrationReportStatus {
    let (rolled_back_at, retired_at) = later(status);
    // That both may run is told before the source is started; the rest when all is done.
    let going_back = status.phase == Some(Phase::Succeeded) && status.rollback.is_some();
    let ended = status.phase != Some(Phase::RollingBack) && !going_back;
    VmMigrationReportStatus {
        cleaned_up_at: ended.then_some(Time(now)),
        rolled_back_at,
        start_anyway_at: start_anyway_at(status),
        source_checks: status.rollback.as_ref().map(|r| r.checks.clone()).unwrap_or_default(),
        retired_at,
        hooks: status.hooks.iter().filter(|h| h.phase == HookPhase::Finally).cloned().collect(),
        retained: status.retained.clone(),
    }
}

/// Does the report tell all that followed?
pub fn tells(report: &VmMigrationReportStatus, status: &VmMigrationStatus) -> bool {
    report.cleaned_up_at.is_some()
        && report.start_anyway_at == start_anyway_at(status)
        && (report.rolled_back_at.is_some(), report.retired_at.is_some())
            == (later(status).0.is_some(), later(status).1.is_some())
}

fn start_anyway_at(status: &VmMigrationStatus) -> Option<Time> {
    status.source.as_ref().and_then(|s| s.start_anyway_at.clone())
}

/// When it was rolled back and when the source was retired.
fn later(status: &VmMigrationStatus) -> (Option<Time>, Option<Time>) {
    let back = status.finished_at.clone().filter(|_| status.failure.is_some() && status.rollback.is_some());
    (back, status.retirement.as_ref().and_then(|r| r.retired_at.clone()))
}

/// Built from what is recorded; it has no owner and outlives everything.
pub fn report(
    me: &Identity,
    spec: &VmMigrationSpec,
    status: &VmMigrationStatus,
    now: Timestamp,
) -> VmMigrationReport {
    let s = status.source.clone().unwrap_or_default();
    let x = status.destination.clone().unwrap_or_default();
    let spec = VmMigrationReportSpec {
        migration: me.name.clone(),
        uid: me.uid.clone(),
        outcome: "Succeeded".into(),
        source: ReportedServer {
            cloud: spec.source.cloud.clone(),
            project_id: s.project_id,
            server_id: s.server_id,
            server_name: s.server_name,
            addresses: s.addresses,
        },
        destination: ReportedServer {
            cloud: spec.destination.cloud.clone(),
            project_id: x.project_id,
            server_id: x.server_id.unwrap_or_default(),
            server_name: status.plan.as_ref().map(|p| p.server_name.clone()).unwrap_or_default(),
            addresses: x.addresses,
        },
        started_at: status.started_at.clone(),
        finished_at: Time(now),
        downtime_seconds: present::down(status, now),
        disks: status.disks.clone(),
        checks: status.checks.clone(),
        hooks: status.hooks.clone(),
        fidelity: status.fidelity.clone(),
        plan: status.plan.clone(),
        timeline: status.timeline.clone(),
    };
    let mut report = VmMigrationReport::new(&me.report(), spec);
    report.metadata.namespace = Some(me.namespace.clone());
    report.metadata.labels = Some(BTreeMap::from([(LABEL_MIGRATION.into(), me.uid.clone())]));
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(minute: u8) -> Timestamp {
        format!("2026-01-01T10:{minute:02}:00Z").parse().unwrap()
    }

    fn status() -> VmMigrationStatus {
        serde_json::from_value(json!({
            "startedAt": at(0), "finishedAt": at(20),
            "source": {"projectId": "pa", "serverId": "src", "serverName": "web", "addresses": ["10.0.0.4"],
                "wasRunning": true, "stopRequestedAt": at(5), "servedUntil": at(5), "stoppedAt": at(6)},
            "destination": {"projectId": "pb", "serverId": "new", "addresses": ["10.9.0.4"],
                "activeAt": at(13), "servedFrom": at(14), "readyAt": at(15)},
            "plan": {"serverName": "web-in-b"},
            "disks": [{"index": 0, "sourceVolumeId": "v0", "sizeGib": 1,
                "backup": {"bytes": 5, "hashValue": "h", "by": "mover"}}],
            "checks": [{"name": "page", "passed": true, "message": "200"}],
            "hooks": [{"name": "stop-app", "phase": "BeforeStop", "state": "Succeeded"},
                {"name": "the-end", "phase": "Finally", "state": "Succeeded"}],
            "timeline": [{"at": at(5), "phase": "Stopping", "message": "claimed"}],
            "retained": [{"what": "snapshot s", "why": "the cloud refuses"}],
        }))
        .unwrap()
    }

    #[test]
    fn a_report_tells_both_servers_times_disks_and_proofs() {
        let me = Identity {
            uid: "11111111-2222-4333-8444-555555555555".into(),
            namespace: "team".into(),
            name: "web-1".into(),
        };
        let spec = serde_json::from_value(json!({"source": {"cloud": "site-a", "server": "web"},
            "destination": {"cloud": "site-b"}, "cutover": {"mode": "Now"}}));
        let status = status();
        let made = report(&me, &spec.unwrap(), &status, at(16));
        assert_eq!(made.metadata.name.as_deref(), Some("web-1-11111111"));
        assert_eq!(made.metadata.namespace.as_deref(), Some("team"));
        assert_eq!(made.metadata.labels.unwrap()[LABEL_MIGRATION], me.uid);
        assert_eq!(made.metadata.owner_references, None, "it outlives the migration");
        assert_eq!(made.status, None, "that follows");

        let told = serde_json::to_value(&made.spec).unwrap();
        for (pointer, wanted) in [
            ("/migration", json!("web-1")),
            ("/uid", json!(me.uid)),
            ("/outcome", json!("Succeeded")),
            (
                "/source",
                json!({"cloud": "site-a", "projectId": "pa", "serverId": "src", "serverName": "web",
                "addresses": ["10.0.0.4"]}),
            ),
            (
                "/destination",
                json!({"cloud": "site-b", "projectId": "pb", "serverId": "new", "serverName": "web-in-b",
                "addresses": ["10.9.0.4"]}),
            ),
            ("/startedAt", json!(at(0))),
            ("/finishedAt", json!(at(16))),
            // From the stop to the first check that passed.
            ("/downtimeSeconds", json!(540)),
        ] {
            assert_eq!(told.pointer(pointer), Some(&wanted), "{pointer} of {told:#}");
        }
        let s = made.spec;
        assert_eq!((s.disks, s.checks, s.hooks), (status.disks, status.checks, status.hooks));
        assert_eq!((s.fidelity, s.plan, s.timeline), (status.fidelity, status.plan, status.timeline));
    }

    #[test]
    fn what_followed_is_told_once_more_when_more_followed() {
        let mut status = status();
        let told = outcome(&status, at(21));
        assert_eq!(told.cleaned_up_at, Some(Time(at(21))));
        assert_eq!((&told.rolled_back_at, &told.retired_at), (&None, &None));
        let names: Vec<&str> = told.hooks.iter().map(|h| h.name.as_str()).collect();
        assert_eq!((names, &told.retained), (vec!["the-end"], &status.retained));
        assert!(tells(&told, &status) && !tells(&VmMigrationReportStatus::default(), &status));

        status.retirement =
            Some(RetirementStatus { retired_at: Some(Time(at(30))), ..RetirementStatus::default() });
        assert!(!tells(&told, &status), "the retirement is missing");
        let told = outcome(&status, at(31));
        assert_eq!(told.retired_at, Some(Time(at(30))));
        assert!(tells(&told, &status));

        status.retirement = None;
        status.rollback = Some(Default::default());
        assert_eq!(outcome(&status, at(31)).rolled_back_at, None, "it is only being rolled back");
        status.failure = Some(Failure::default());
        let told = outcome(&status, at(32));
        assert_eq!(told.rolled_back_at, Some(Time(at(20))));
        assert!(tells(&told, &status));
    }
}
