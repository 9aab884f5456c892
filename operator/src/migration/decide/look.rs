//! One look at everything before the source is touched: references, both clouds, the server, and the store from inside a
//! pod near each cloud. What is in the way is listed in `status.preflight`.

use super::{
    AT_ONCE, Draft, SIDES, addresses, hooks,
    jobs::{Progress, Wanted},
    next::Stop,
    warm,
};
use crate::{
    contract::{Probe, Task},
    crd::v1alpha1::*,
    migration::{
        block_storage, checks as application, image_checks, looks, names::Side, observed::Problem, place,
        preflight, step::Step,
    },
};

/// For how long a passed probe of a side counts, in seconds.
const PROBE_SECONDS: i64 = 600;
/// After how many seconds a failed probe is tried again.
const PROBE_AGAIN_SECONDS: i64 = 30;

/// Looks. Nothing is in the way when nothing stops it.
pub(super) fn look(d: &mut Draft<'_>) -> Result<(), Stop> {
    let seen = d.input.seen;
    let mut problems: Vec<Problem> = seen.reference_problems.clone();
    problems.extend([seen.source.problem(), seen.destination.problem()].into_iter().flatten().cloned());
    problems.extend(
        [seen.source_cluster.problem(), seen.destination_cluster.problem()].into_iter().flatten().cloned(),
    );
    // What was found before the probes began stands until they have ended.
    if problems.is_empty()
        && seen.inventory.is_none()
        && looks::a_probe_runs(d.input.me, &d.status, seen)
        && let Some(what) = probe(d, &mut vec![])
    {
        return Err(Stop::waiting(what));
    }
    let mut findings: Vec<Finding> = problems.iter().map(Problem::blocker).collect();
    findings.extend(seen.hook_findings.clone());
    findings.extend(application::findings(d.input.spec));
    let console = seen.inventory.as_ref().and_then(|i| i.source.console.as_ref());
    findings.extend(application::host_keys(d.input.spec, &d.status.hooks, console));
    if let Some(inventory) = &seen.inventory {
        let project = seen.destination_place.as_ref().map(|p| p.project_id.as_str()).unwrap_or_default();
        let found = preflight::preflight(d.input.me, d.input.spec, project, inventory);
        findings.extend(found.findings.clone());
        pin(d, found);
    }
    if let Some(store) = &seen.store {
        let pinned = d.status.store.get_or_insert_default();
        if pinned.initialized_at.is_none() {
            (pinned.name, pinned.repository) = (store.name.clone(), store.repository.clone());
        }
    }
    let waiting = if problems.is_empty() { probe(d, &mut findings) } else { None };
    findings.extend(transfer_modes(d));
    findings.extend(warm::plan(d));
    findings.extend(judged_late(d));
    findings.sort_by_key(|f| f.severity);
    // A reference that leads nowhere is met by the cloud and by its cluster.
    findings.dedup();
    d.status.preflight = findings;
    match (d.status.preflight.iter().any(|f| f.severity == Severity::Blocker), waiting) {
        (_, Some(what)) => Err(Stop::waiting(what)),
        (true, None) => Err(Stop::Blocked),
        // They were left alone for something that has ended.
        (false, None) if seen.inventory.is_none() => {
            Err(Stop::waiting("looking at both clouds").again(AT_ONCE))
        }
        (false, None) => Ok(()),
    }
}

/// Records what was found. Until the claim nothing depends on it, and the spec may still change.
fn pin(d: &mut Draft<'_>, found: preflight::Preflight) {
    let seen = d.input.seen;
    let unlocked_by_us = d.source().unlock_requested_at.is_some();
    // A hook may have shut it down; it ran all the same.
    let ran = hooks::begun(&d.status, HookPhase::BeforeStop) && d.source().was_running;
    if let Some(server) = &found.server {
        seen.place(Side::Source).into_iter().for_each(|p| place::record(&mut d.status, Side::Source, p));
        let s = d.source();
        (s.server_id, s.server_name) = (server.id.clone(), server.name.clone());
        s.server_status = server.status.clone();
        s.addresses = addresses(server);
        s.was_running = ran || server.status != "SHUTOFF";
        s.was_locked = server.locked || unlocked_by_us;
        s.keeps_snapshots = found.keeps_snapshots;
        d.status.running_in = Some(if server.status == "SHUTOFF" { RunningIn::None } else { RunningIn::A });
    }
    seen.place(Side::Destination)
        .into_iter()
        .for_each(|p| place::record(&mut d.status, Side::Destination, p));
    d.status.plan = Some(found.plan);
    let mut disks = found.disks;
    disks.iter_mut().for_each(|disk| warm::carry(&d.status, d.input.spec, disk));
    d.status.disks = disks;
    d.status.fidelity = found.fidelity;
}

/// How disks leave A and enter B; what was asked for and cannot be is a blocker.
fn transfer_modes(d: &mut Draft<'_>) -> Vec<Finding> {
    let seen = d.input.seen;
    let disks = seen.inventory.iter().flat_map(|i| &i.source.volumes);
    let from: Vec<_> = disks.filter_map(|v| v.availability_zone.clone()).collect();
    let to: Vec<_> = d.input.spec.destination.availability_zone.clone().into_iter().collect();
    let mut findings = vec![];
    for (side, zones) in [(Side::Source, from), (Side::Destination, to)] {
        let Some(storage) = seen.cluster(side).view().and_then(|c| c.storage.as_ref()) else { continue };
        let cloud = d.cloud(side);
        let begun = block_storage::pinned(&d.status, side).filter(|_| d.status.copying.is_some()).cloned();
        let found = match &begun {
            Some(begun) => block_storage::resolve_again(storage, &zones, begun),
            None => block_storage::resolve(storage, &zones),
        };
        let transfer = match found {
            Ok(transfer) => Some(transfer),
            Err(why) => {
                findings.push(block_storage::blocker(side, cloud, &why));
                begun
            }
        };
        let takes_any = storage.asked.is_some_and(|t| t.takes_any_disk);
        let judges = if takes_any { Some(false) } else { seen.judges_images(side) };
        let transfer = transfer.map(|t| ResolvedTransfer { judges_images: judges, ..t });
        match side {
            Side::Source => d.source().transfer = transfer,
            Side::Destination => d.destination().transfer = transfer,
        }
    }
    findings
}

/// Image services that refuse some disks, where that is not known before the stop.
fn judged_late(d: &Draft<'_>) -> Vec<Finding> {
    let late = |side| {
        let judges = |t: &&ResolvedTransfer| t.judges_images == Some(true) && !t.is_volume();
        block_storage::pinned(&d.status, side).filter(judges).is_some() && !warm::applies(d)
    };
    let sides = SIDES.into_iter().filter(|side| late(*side));
    sides.map(|side| image_checks::late(side, d.cloud(side))).collect()
}

/// A Job on each side writes, reads and deletes in the store and speaks to its cloud. Returns what is waited for.
fn probe(d: &mut Draft<'_>, findings: &mut Vec<Finding>) -> Option<String> {
    let repository = d.status.store.as_ref()?.repository.clone();
    let mut waiting = None;
    for side in SIDES {
        let purpose = format!("probe-{side}");
        renew_probe(d, side, &purpose);
        let wanted = Wanted {
            side,
            purpose: purpose.clone(),
            task: Task::Probe(Probe { repository: repository.clone() }),
            credentials: true,
            deadline_seconds: 120,
            attempts: 1,
        };
        // A failed probe is not made again at once: its record says when it is due.
        if d.job_record(&purpose).state == "Failed" {
            findings.push(probe_failed(side, d.job_record(&purpose).message.clone().unwrap_or_default()));
            continue;
        }
        if d.job_record(&purpose).state == "Succeeded" {
            continue;
        }
        match d.job(wanted) {
            Progress::Running(why) => {
                waiting = Some(format!("Probing the store from a pod near the {side} cloud: {why}"))
            }
            Progress::Failed(why) => findings.push(probe_failed(side, why)),
            Progress::Succeeded(_) | Progress::Again => {}
        }
    }
    waiting
}

fn renew_probe(d: &mut Draft<'_>, side: Side, purpose: &str) {
    let now = d.input.now;
    let record = d.job_record(purpose);
    let age = record.finished_at.as_ref().map(|t| now.duration_since(t.0).as_secs());
    let due = match record.state.as_str() {
        "Succeeded" => age.is_some_and(|a| a > PROBE_SECONDS),
        "Failed" => age.is_none_or(|a| a > PROBE_AGAIN_SECONDS),
        _ => false,
    };
    if due {
        let old = d.input.me.job(purpose, d.job_record(purpose).attempt);
        d.next_attempt(purpose, None);
        d.step(Step::DeleteJob { side, name: old });
        // Secrets may have been corrected since.
        d.step(Step::PrepareSecrets);
    }
}

fn probe_failed(side: Side, message: String) -> Finding {
    Finding {
        id: format!("probe-{side}"),
        severity: Severity::Blocker,
        message: format!("the store or the cloud cannot be used from a pod near the {side} cloud: {message}"),
        suggestion: Some("it is probed again every 30 s".into()),
    }
}

/// References that lead nowhere, of spec and hooks.
pub(super) fn missing(d: &Draft<'_>) -> Vec<Finding> {
    let seen = d.input.seen;
    let clusters = [seen.source_cluster.problem(), seen.destination_cluster.problem()];
    let problems = seen.reference_problems.iter().chain(clusters.into_iter().flatten());
    let mut findings: Vec<_> = problems.map(Problem::blocker).chain(seen.hook_findings.clone()).collect();
    findings.dedup();
    findings
}

/// What is in the way: the first of it, and as a whole.
pub(super) fn blockers(d: &Draft<'_>) -> (String, String) {
    let blockers: Vec<_> = d.status.preflight.iter().filter(|f| f.severity == Severity::Blocker).collect();
    let first = blockers.first().map_or(String::new(), |f| {
        let hint = f.suggestion.as_ref().map_or(String::new(), |s| format!(" ({s})"));
        format!("{}{hint}", f.message)
    });
    let more = match blockers.len() {
        0 | 1 => String::new(),
        n => format!(" [and {} more: see status.preflight]", n - 1),
    };
    let whole = format!("{first}{more}");
    (first, whole)
}
