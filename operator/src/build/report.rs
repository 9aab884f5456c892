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
    VmMigrationReportStatus {
        cleaned_up_at: Some(Time(now)),
        rolled_back_at,
        source_checks: status.rollback.as_ref().map(|r| r.checks.clone()).unwrap_or_default(),
        retired_at,
        hooks: status.hooks.iter().filter(|h| h.phase == HookPhase::Finally).cloned().collect(),
        retained: status.retained.clone(),
    }
}

/// Does the report tell all that followed?
pub fn tells(report: &VmMigrationReportStatus, status: &VmMigrationStatus) -> bool {
    report.cleaned_up_at.is_some()
        && (report.rolled_back_at.is_some(), report.retired_at.is_some())
            == (later(status).0.is_some(), later(status).1.is_some())
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
