//! `Held`: somebody has the source. Until this object is deleted we only see to it that no copy runs beside it.

use crate::{
    crd::v1alpha1::*,
    migration::decide::{
        Draft, LATER, cleanup, hooks, lock,
        next::{Next, Stop},
        requests, way_back,
    },
};

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    d.source().taken_back = true;
    if let Some(server) = d.input.seen.source.view().and_then(|v| v.found()) {
        d.status.running_in = Some(if server.status == "ACTIVE" { RunningIn::A } else { RunningIn::None });
        // Where our own lock is gone somebody has opened it. Before there was one, nobody but us has opened the owner's.
        if d.source().lock_request_id.is_none() && d.source().locked_at.is_none() {
            lock::lock_again(d, server);
        }
        d.source().server_status = server.status.clone();
    }
    hooks::abandon(d, "ended: somebody has the source");
    cleanup::stop_jobs(d, &[]);
    d.recheck = Some(LATER);
    let settled = way_back::settle_destination(d);
    d.is_through(settled);
    if let Some(row) = d.input.status.timeline.iter().rev().find(|r| r.phase == Phase::Held) {
        let me = d.input.me;
        let text = format!(
            "Held: {}. A stays as it is. To give up and remove what was made in B: kubectl delete vmm {} -n {}; to stop A again and go on: {}",
            row.message,
            me.name,
            me.namespace,
            requests::command(d, RequestName::Retry)
        );
        d.say(text);
    }
    Ok(Next::Stay)
}
