//! For how long neither side serves, as somebody outside would measure it; and `spec.maxDowntime`: a move that takes
//! too long is given up while the source is all there is.
//!
//! Both moments are taken from who saw them: we look only now and then. They are never outside of what we saw
//! ourselves, however wrong a clock is.

use super::{Draft, next::Stop, parse_time};
use crate::{cloud::InstanceAction, crd::v1alpha1::*, migration::present};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

/// The source is seen SHUTOFF: its guest began to shut down when the cloud took our stop. One that was shut down by
/// somebody else served until now, for all we know.
pub(super) fn begins(d: &mut Draft<'_>, actions: &[InstanceAction]) {
    let (s, now) = (d.source().clone(), d.input.now);
    let asked = s.stop_requested_at.map_or(now, |t| t.0);
    let ours = |a: &&InstanceAction| Some(&a.request_id) == s.stop_request_id.as_ref();
    let told = actions.iter().find(ours).and_then(|a| parse_time(&a.start_time));
    d.source().served_until = Some(MicroTime(told.unwrap_or(asked).max(asked).min(now)));
}

/// The destination serves, since the time that is told.
pub(super) fn ends(d: &mut Draft<'_>, told: Option<Timestamp>) {
    let (x, now) = (d.destination().clone(), d.input.now);
    let asked = x.server_requested_at.map_or(now, |t| t.0);
    let from = MicroTime(told.unwrap_or(now).max(asked).min(now));
    // A check that is asked elsewhere may be told of later than one that passed after it.
    d.destination().served_from = Some(x.served_from.map_or(from.clone(), |known| known.min(from)));
}

/// Gives up when neither side has served for longer than is allowed. A destination that was seen ACTIVE is not
/// stopped for being late.
pub(super) fn limit(d: &Draft<'_>) -> Result<(), Stop> {
    let Some(allowed) = d.input.spec.max_downtime.as_ref().map(Period::seconds) else { return Ok(()) };
    if d.status.failure.is_some()
        || !matches!(d.phase(), Phase::Stopping | Phase::Transferring | Phase::Creating)
    {
        return Ok(());
    }
    let s = d.status.source.as_ref().filter(|s| s.was_running);
    let asked = s.and_then(|s| s.stop_requested_at.as_ref()).map(|t| t.0);
    let Some(since) = s.and_then(|s| s.served_until.as_ref()).map(|t| t.0).or(asked) else { return Ok(()) };
    let runs = d.input.seen.destination.view().and_then(|v| v.server()).is_some_and(|s| s.status == "ACTIVE");
    let down = d.input.now.duration_since(since).as_secs();
    if down <= allowed || runs || d.status.destination.as_ref().is_some_and(|x| x.active_at.is_some()) {
        return Ok(());
    }
    Err(Stop::failed(
        "MaxDowntimeExceeded",
        format!(
            "neither side has served for {} since {}, and spec.maxDowntime is {}",
            present::seconds(down),
            super::clock(since),
            present::seconds(allowed)
        ),
    ))
}
