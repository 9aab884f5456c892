//! The edges between phases: which may follow which, and when. The driver takes no other one, the diagram in
//! `docs/how-it-works.md` is made of this table, and `edges.golden` names a test that takes each.

use crate::crd::v1alpha1::Phase::{self, *};

/// From any of these phases to that one.
pub(super) struct Edge {
    pub from: &'static [Phase],
    pub to: Phase,
    /// For the diagram.
    #[cfg_attr(not(test), expect(dead_code, reason = "the diagram is made by a test"))]
    pub when: &'static str,
}

const fn edge(from: &'static [Phase], to: Phase, when: &'static str) -> Edge {
    Edge { from, to, when }
}

/// The way forward.
pub(super) const UNDER_WAY: &[Phase] =
    &[Pending, Preflight, Blocked, Copying, AwaitingCutover, Stopping, Transferring, Creating, Verifying];
/// Ended without success.
pub(super) const GAVE_UP: &[Phase] = &[Failed, Cancelled, RolledBack];

pub(super) const EDGES: &[Edge] = &[
    edge(&[Pending], Preflight, "first look"),
    edge(&[Preflight, Stopping], Blocked, "something is in the way"),
    edge(&[Preflight, Blocked], Copying, "passed, with passes"),
    edge(&[Preflight, Blocked], AwaitingCutover, "passed"),
    edge(&[Copying], AwaitingCutover, "passes have done what they can"),
    edge(&[Copying, AwaitingCutover], Stopping, "the go"),
    edge(&[Stopping], AwaitingCutover, "the go was taken back"),
    edge(&[Stopping], Transferring, "stopped and locked"),
    edge(&[Transferring], Creating, "all disks are in B"),
    edge(&[Creating], Verifying, "the server is ACTIVE"),
    edge(&[Verifying], Succeeded, "all is proven"),
    edge(&[Stopping, Transferring, Creating, Verifying], Held, "somebody started A"),
    edge(UNDER_WAY, RollingBack, "failed, or given up by request"),
    edge(&[Held], RollingBack, "cancel, rollback or retry"),
    edge(&[RollingBack], Failed, "given back"),
    edge(&[RollingBack], Cancelled, "given back, by request"),
    edge(&[RollingBack], RolledBack, "given back, by rollback"),
    edge(&[Failed, RolledBack], Preflight, "retry"),
    edge(GAVE_UP, RollingBack, "A is back with our claim"),
    edge(&[Succeeded], Retiring, "retire, or sourcePolicy"),
    edge(&[Retiring], Retired, "A's server and volumes are gone"),
    edge(&[Retiring], Succeeded, "refused, or rollback"),
    edge(&[Succeeded], RollingBack, "rollback"),
    edge(UNDER_WAY, Deleting, "the object is deleted"),
    edge(&[Held, RollingBack], Deleting, "the object is deleted"),
    edge(GAVE_UP, Deleting, "the object is deleted"),
];

/// May this phase follow that one? What has none yet begins as Pending does.
pub(super) fn is_allowed(from: Option<Phase>, to: Phase) -> bool {
    let first = from.is_none() && to == Pending;
    let from = from.unwrap_or_default();
    first || EDGES.iter().any(|e| e.to == to && e.from.contains(&from))
}
