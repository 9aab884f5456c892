//! `spec.maxDowntime`: a move that takes too long is given up while the source is all there is.

use super::Draft;
use crate::{crd::v1alpha1::*, migration::present};

/// Gives up when neither side has served for longer than is allowed. A destination that was seen ACTIVE is not
/// stopped for being late.
pub(super) fn limit(d: &mut Draft<'_>) {
    let Some(allowed) = d.input.spec.max_downtime.as_ref().map(Period::seconds) else { return };
    if d.status.failure.is_some()
        || !matches!(d.phase(), Phase::Stopping | Phase::Transferring | Phase::Creating)
    {
        return;
    }
    let Some(since) =
        d.status.source.as_ref().filter(|s| s.was_running).and_then(|s| s.stop_requested_at.clone())
    else {
        return;
    };
    let runs = d.input.seen.destination.view().and_then(|v| v.server()).is_some_and(|s| s.status == "ACTIVE");
    let down = d.input.now.duration_since(since.0).as_secs();
    if down <= allowed || runs || d.status.destination.as_ref().is_some_and(|x| x.active_at.is_some()) {
        return;
    }
    d.fail(
        "MaxDowntimeExceeded",
        format!(
            "neither side has served for {} since {}, and spec.maxDowntime is {}",
            present::seconds(down),
            super::clock(since.0),
            present::seconds(allowed)
        ),
    );
}
