//! Clean-up: Jobs, temporary objects by mark, the repository, the Secrets. It looks twice before it says that it is done.

mod objects;

pub(super) use objects::source_objects;

use super::{
    AT_ONCE, Draft, SIDES, SOON, disks, hooks,
    next::{Next, Stop, seen},
    repository, words,
};
use crate::{
    crd::v1alpha1::*,
    migration::{
        names::{MARK_CLAIM, Side},
        observed::{ClusterView, Seen, SourceView},
        step::Step,
    },
};

/// What clean-up removes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// What was only on the way; server, disks and ports in the destination stay.
    Temporary,
    /// All that we made, but what a server that is kept uses.
    All,
}

/// Looks that find nothing before clean-up is done.
const LOOKS: i32 = 2;

/// Only what was on the way goes; the servers stay.
pub(super) fn after_success(d: &mut Draft<'_>) -> Result<Next, Stop> {
    if let Err(stop) = hooks::gate(d, HookPhase::Finally) {
        d.stopped(stop);
        let waits = d.status.message.clone().unwrap_or_default();
        words::of_success(d);
        let runs = d.status.message.clone().unwrap_or_default();
        return Err(Stop::waiting(format!("{runs}; {waits}")));
    }
    let swept = sweep(d, Scope::Temporary);
    if d.is_through(swept) {
        finish(d);
    }
    words::of_success(d);
    Ok(Next::Stay)
}

/// Neither a Secret nor a Job nor a claim: there is nothing to clean up.
pub(super) fn nothing_made(d: &Draft<'_>) -> bool {
    let claim_seen = d
        .input
        .seen
        .source
        .view()
        .and_then(SourceView::found)
        .is_some_and(|s| s.metadata.get(MARK_CLAIM) == Some(&d.input.me.uid));
    let jobs = !d.status.jobs.is_empty() || hooks::any_job(&d.status);
    !d.input.seen.vault_exists && !jobs && !d.claimed() && !claim_seen
}

/// The last word goes into the report, where there is one.
pub(super) fn finish(d: &mut Draft<'_>) {
    if !d.input.seen.report_finished && d.input.seen.report_exists {
        d.step(Step::FinishReport);
    } else {
        d.status.cleaned_up_at = Some(d.now());
        d.recheck = Some(AT_ONCE);
    }
}

/// Ends all Jobs but the purge and those with these purposes. A cluster that cannot be reached holds nothing up here.
pub(super) fn stop_jobs(d: &mut Draft<'_>, but: &[&str]) {
    let seen = d.input.seen;
    let kept: Vec<_> = ["purge"].iter().chain(but).map(|p| d.input.me.attempts(p)).collect();
    for side in SIDES {
        let Some(cluster) = seen.cluster(side).view() else { continue };
        for (name, job) in &cluster.jobs {
            if !kept.iter().any(|k| name.starts_with(k)) && !job.deleting && !hooks::keeps(d, name) {
                d.step(Step::DeleteJob { side, name: name.clone() });
            }
        }
    }
}

/// Removes what is in scope. Nothing is left in the end but what is retained on purpose.
pub(super) fn sweep(d: &mut Draft<'_>, scope: Scope) -> Result<(), Stop> {
    sweep_clouds(d, scope)?;
    drop_data(d)
}

/// All that we made is gone from both clouds and both clusters; if not, it is asked for.
pub(super) fn clouds_are_clean(d: &mut Draft<'_>) -> bool {
    let swept = sweep_clouds(d, Scope::All);
    d.is_through(swept)
}

/// Both clouds and both clusters. It is through when twice nothing was found.
fn sweep_clouds(d: &mut Draft<'_>, scope: Scope) -> Result<(), Stop> {
    if secrets_gone(d) || d.status.clean_looks >= LOOKS { Ok(()) } else { Err(look(d, scope)) }
}

/// The repository, and then the Secrets.
pub(super) fn drop_data(d: &mut Draft<'_>) -> Result<(), Stop> {
    if secrets_gone(d) {
        return Ok(());
    }
    let repository = d.status.store.as_ref().map(|s| s.repository.clone()).unwrap_or_default();
    d.status.retained.retain(|r| !r.is_repository(&repository));
    repository::purge(d)?;
    if let Some(kept) = d.status.store.as_ref().and_then(|s| s.kept.clone()) {
        d.status.retained.retain(|r| r.what != kept.what);
        d.status.retained.push(kept);
    }
    Err(drop_secrets(d))
}

/// The last thing that goes is the operator's own Secret; without it everything else is gone, too.
pub(super) fn secrets_gone(d: &Draft<'_>) -> bool {
    let anchors = SIDES.iter().any(|s| d.input.seen.cluster(*s).view().is_some_and(|c| c.anchor));
    !d.input.seen.vault_exists && !anchors && d.status.clean_looks >= LOOKS
}

/// One look, and what it finds is removed.
fn look(d: &mut Draft<'_>, scope: Scope) -> Stop {
    stop_jobs(d, &[]);
    // Before the go nothing was ever made in a cloud: it need not be seen.
    let untouched = !d.claimed() && !begun(d);
    let mut quiet = d.steps.is_empty();
    d.status.retained.clear();
    for side in SIDES {
        quiet &= match d.input.seen.cluster(side) {
            Seen::View(c) if c.pods > 0 => {
                let lost = c.lost.iter().map(|l| format!("; {l}")).collect::<String>();
                d.say(format!("Waiting for {} pods near the {side} cloud to end{lost}", c.pods));
                false
            }
            Seen::View(c) if !c.devices.is_empty() => {
                take_devices_away(d, side, c);
                false
            }
            Seen::View(_) if untouched => true,
            Seen::View(_) => objects::are_gone(d, side, scope),
            Seen::Unseen(p) => {
                d.stopped(p.into());
                false
            }
            Seen::NotLooked => false,
        };
    }
    if quiet {
        d.status.clean_looks += 1;
        return Stop::as_said().again(SOON);
    }
    d.status.clean_looks = 0;
    Stop::as_said()
}

/// No volume is deleted while a cluster may still have it.
fn take_devices_away(d: &mut Draft<'_>, side: Side, cluster: &ClusterView) {
    d.say(format!(
        "Waiting for the cluster near the {side} cloud to let go of {} volumes",
        cluster.devices.len()
    ));
    for (name, device) in &cluster.devices {
        disks::take_away(d, side, name, device);
    }
}

/// Something may have been made in the source cloud or in the repository.
pub(super) fn begun(d: &Draft<'_>) -> bool {
    let granted = d.status.cutover.as_ref().is_some_and(|c| c.granted_at.is_some());
    granted || d.status.copying.is_some()
}

/// What is left of the Secrets, once nothing needs them.
fn drop_secrets(d: &mut Draft<'_>) -> Stop {
    for side in SIDES {
        let c = match seen(d.input.seen.cluster(side)) {
            Ok(c) => c,
            Err(stop) => return stop,
        };
        for name in c.jobs.iter().filter(|(_, j)| !j.deleting).map(|(n, _)| n) {
            d.step(Step::DeleteJob { side, name: name.clone() });
        }
        if !c.devices.is_empty() {
            take_devices_away(d, side, c);
        } else if c.anchor && c.jobs.is_empty() && c.purge_pods == 0 {
            d.step(Step::DeleteAnchor(side));
        }
    }
    let anchors = SIDES.iter().any(|s| d.input.seen.cluster(*s).view().is_some_and(|c| c.anchor));
    if !anchors && d.input.seen.vault_exists {
        d.step(Step::DeleteVault);
    }
    Stop::as_said()
}
