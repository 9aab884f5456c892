//! `strategy: Warm`: passes over the source's volumes while its server runs.
//!
//! A pass leaves manifests in the repository: what it made in the source cloud is gone before it has ended, while the
//! server still runs. So the way on, and the way back, begin where those of a cold migration begin. Where disks enter
//! the destination as block devices, the new volumes are there from the first pass on and follow each pass.

mod kept;
mod leftovers;
mod plan;
mod words;

pub(super) use {
    kept::{carry, kept},
    plan::{after_a_failure, enough, next},
    words::{plan, told},
};

use super::{
    AT_ONCE, Draft, PROGRESS,
    disks::{self, export, in_hand, show_progress},
    next::{Stop, seen},
    source,
};
use crate::{
    contract::{Answer, BackupResult, FailureReason},
    crd::v1alpha1::*,
    migration::{
        block_storage::fills_while_copying,
        names::Side,
        observed::{Seen, SourceView, plausible},
    },
};
use leftovers::{past_is_written, purposes, remove};
use plan::forecast;
use words::{last_pass, tell};

/// So many passes in a row may fail before the go is waited for.
const FAILURES: i32 = 3;

/// Is there anything that passes can copy before the stop?
pub(super) fn applies(d: &Draft<'_>) -> bool {
    let runs = d.status.source.as_ref().is_some_and(|s| s.was_running);
    is_warm(d.input.spec) && runs && d.status.disks.iter().any(is_volume)
}

/// Is this the wanted strategy?
pub(super) fn is_warm(spec: &VmMigrationSpec) -> bool {
    spec.strategy == Some(Strategy::Warm)
}

/// An image of a running server's local disk is made as a whole each time: it travels after the stop.
fn is_volume(disk: &DiskStatus) -> bool {
    disk.kind == DiskKind::Volume
}

/// Preflight has passed. In status before anything is made, so that a clean-up knows that there may be something.
pub(super) fn prepare(d: &mut Draft<'_>) {
    if d.status.copying.is_none() {
        let by_itself = d.input.spec.cutover.mode == CutoverMode::Now;
        d.status.copying = Some(CopyingStatus { by_itself, ..Default::default() });
    }
    let making = tell(d, Some("making the repository".into()));
    d.say(making);
}

/// Begins a pass.
pub(super) fn begin(d: &mut Draft<'_>) {
    let (now, waiting) = (d.now(), d.phase() == Phase::AwaitingCutover);
    d.status.disks.iter_mut().for_each(|k| k.copied = false);
    let copying = d.status.copying.get_or_insert_default();
    copying.began_at = Some(now);
    copying.while_waiting += i32::from(waiting);
    d.recheck = Some(AT_ONCE);
    if !waiting {
        d.say("Beginning a pass over all volumes; the server runs in A");
    }
}

/// Takes the pass that is under way further, until there is none.
pub(super) fn pass(d: &mut Draft<'_>) -> Result<(), Stop> {
    if d.status.copying.as_ref().is_none_or(|c| c.began_at.is_none()) {
        return Ok(());
    }
    let view = match &d.input.seen.source {
        Seen::NotLooked if d.left_clouds_alone() => return Err(follow(d)),
        Seen::NotLooked => return Err(Stop::as_said().again(AT_ONCE)),
        other => seen(other)?,
    };
    source_is_there(d)?;
    give_up_in_time(d);
    let reading = read(d, view)?;
    let filling = fill_volumes(d)?;
    d.removing = !past_is_written(d) || remove(d, view);
    if reading.is_none() && filling.is_none() && !d.removing {
        return end(d);
    }
    Err(Stop::waiting(tell(d, reading.or(filling))))
}

/// What is seen of the source; without it there is nothing to copy.
fn source_is_there(d: &mut Draft<'_>) -> Result<(), Stop> {
    let (_, server) = source::server(d)?;
    d.source().server_status = server.status.clone();
    d.status.running_in = Some(if server.status == "SHUTOFF" { RunningIn::None } else { RunningIn::A });
    let begun = d.status.disks.iter().any(|k| k.copied || k.export.snapshot_id.is_some());
    // A snapshot of a stopped server's volume cannot be removed on every storage.
    if server.status == "SHUTOFF" && !begun {
        leave_all(d);
    }
    Ok(())
}

/// A step that the cloud refuses for too long ends the pass.
fn give_up_in_time(d: &mut Draft<'_>) {
    let Some(trouble) = d.status.trouble.clone().filter(|t| t.count > 0) else { return };
    if d.past(&trouble.since, d.input.limits.trouble_seconds) {
        give_up(d, format!("{} (tried {} times)", trouble.message, trouble.count));
        d.status.trouble = None;
    }
}

/// Reads each volume that was not read in this pass. Returns what is waited for.
fn read(d: &mut Draft<'_>, view: &SourceView) -> Result<Option<String>, Stop> {
    let mut waiting = None;
    for i in 0..d.status.disks.len() {
        if !is_volume(&d.status.disks[i]) || d.status.disks[i].copied {
            continue;
        }
        show_progress(d, i);
        let stage = match export::export(d, i, view).waits_for() {
            Ok(stage) => stage,
            Err(stop) => return given_up(d, stop).map(|()| None),
        };
        d.status.disks[i].stage = stage.clone();
        if !d.status.disks[i].copied {
            waiting = waiting.or(Some(stage));
        }
    }
    Ok(waiting)
}

/// Brings the volumes in the destination to the last complete pass. Returns what is waited for.
fn fill_volumes(d: &mut Draft<'_>) -> Result<Option<String>, Stop> {
    let problem = d.status.copying.as_ref().is_some_and(|c| c.problem.is_some());
    if problem || !fills_while_copying(&d.status) {
        return Ok(None);
    }
    let view = match &d.input.seen.destination {
        Seen::View(view) => view,
        Seen::Unseen(p) => {
            d.stopped(p.into());
            return Ok(Some(p.message.clone()));
        }
        Seen::NotLooked => return Ok(Some("looking at the destination cloud".into())),
    };
    let mut waiting = None;
    for i in 0..d.status.disks.len() {
        if !is_volume(&d.status.disks[i]) {
            continue;
        }
        let stage = match disks::fill_volume(d, i, view).map_err(Stop::waits_for) {
            Ok(()) => continue,
            Err(Ok(stage)) => stage,
            Err(Err(stop)) => return given_up(d, stop).map(|()| None),
        };
        d.status.disks[i].stage = stage.clone();
        waiting = waiting.or(Some(stage));
    }
    Ok(waiting)
}

/// What would end the migration ends only this pass; but no later pass carries a disk that a cloud refuses for what it
/// begins with, and the source still runs.
fn given_up(d: &mut Draft<'_>, stop: Stop) -> Result<(), Stop> {
    match stop {
        Stop::Failed { reason, message } if reason != FailureReason::DiskRefused.to_string() => {
            d.steps.clear();
            d.recheck = Some(AT_ONCE);
            give_up(d, message);
            Ok(())
        }
        other => Err(other),
    }
}

/// Only the Jobs were looked at, and they run: how far they are.
fn follow(d: &mut Draft<'_>) -> Stop {
    let mut waiting = None;
    for i in 0..d.status.disks.len() {
        if is_volume(&d.status.disks[i]) && !d.status.disks[i].copied {
            let stage = in_hand(d, i);
            d.status.disks[i].stage = stage.clone().unwrap_or_default();
            waiting = waiting.or(stage);
        } else if fills_while_copying(&d.status) && !d.status.disks[i].followed() {
            waiting = waiting.or(Some(d.status.disks[i].stage.clone()));
        }
    }
    Stop::waiting(tell(d, waiting)).again(PROGRESS)
}

/// Nothing more is read in this pass; what it made goes.
fn give_up(d: &mut Draft<'_>, problem: String) {
    d.note(format!("this pass is given up: {problem}"));
    leave_all(d);
    for purpose in purposes(d, Side::Destination) {
        d.renew_job(&purpose);
    }
    for import in d.status.disks.iter_mut().map(|k| &mut k.import) {
        // By a Job that is not looked at any more.
        import.written |= import.volume_id.is_some();
    }
    d.status.copying.get_or_insert_default().problem = Some(problem);
}

/// No volume has a part in this pass any more. What somebody of us made, and was killed before it was recorded, is of
/// the past, too: nothing that was made while the server ran may be taken for what is made after the stop.
fn leave_all(d: &mut Draft<'_>) {
    for i in 0..d.status.disks.len() {
        if is_volume(&d.status.disks[i]) && !d.status.disks[i].copied {
            leave(d, i);
        }
    }
}

/// A volume has no more part in this pass.
fn leave(d: &mut Draft<'_>, i: usize) {
    let disk = &mut d.status.disks[i];
    (disk.copied, disk.progress, disk.wait) = (true, None, None);
    disk.export.renew();
    disk.stage = "Copied; the server runs".into();
    let purpose = format!("backup-{}", disk.index);
    d.renew_job(&purpose);
}

/// A volume is in the repository. `true`: as part of a pass while the server runs.
pub(super) fn record(d: &mut Draft<'_>, i: usize, digest: &Digest, answer: &Answer) -> bool {
    if !is_warm(d.input.spec) || !is_volume(&d.status.disks[i]) {
        return false;
    }
    let last = d.phase() == Phase::Transferring;
    let copying = d.status.copying.as_ref().and_then(|c| c.began_at.clone());
    let began = copying.filter(|_| !last).or_else(|| d.status.phase_since.clone());
    let told: Option<BackupResult> = answer.read().ok();
    let number = |of: fn(&BackupResult) -> u64| told.as_ref().map(of).and_then(plausible).unwrap_or_default();
    let mut row = PassRow {
        pass: d.status.disks[i].pass,
        snapshot_id: digest.snapshot_id.clone().unwrap_or_default(),
        bytes_read: digest.bytes,
        changed_bytes: number(|r| r.changed_bytes),
        sent_bytes: number(|r| r.stored_bytes),
        seconds: began.map_or(0, |t| d.input.now.duration_since(t.0).as_secs()),
        read_seconds: number(|r| r.seconds),
        forecast_downtime_seconds: None,
        at: Some(d.now()),
    };
    if !last {
        row.forecast_downtime_seconds = Some(forecast(&row, fills_while_copying(&d.status)));
    }
    d.status.disks[i].add_pass(row);
    if !last {
        d.status.disks[i].pass += 1;
        leave(d, i);
    }
    !last
}

/// All volumes were read, and what that made is gone.
fn end(d: &mut Draft<'_>) -> Result<(), Stop> {
    let now = d.now();
    let made: Vec<PassRow> = d.status.disks.iter().filter_map(|k| k.passes.last().cloned()).collect();
    let copying = d.status.copying.get_or_insert_default();
    let began = copying.began_at.take();
    copying.ended_at = Some(now.clone());
    if let Some(problem) = copying.problem.take() {
        copying.failures += 1;
        if d.phase() == Phase::Copying && d.status.copying.as_ref().is_some_and(|c| c.failures >= FAILURES) {
            return Err(Stop::unrecoverable(format!("{problem} ({FAILURES} passes failed)")));
        }
        return Ok(());
    }
    // None was made of a server that does not run.
    let (Some(began), Some(longest)) = (began, made.iter().filter_map(|r| r.forecast_downtime_seconds).max())
    else {
        return Ok(());
    };
    if made.iter().all(|row| row.at.as_ref().is_none_or(|at| at.0 < began.0)) {
        return Ok(());
    }
    copying.failures = 0;
    copying.passes += 1;
    copying.seconds = now.0.duration_since(began.0).as_secs();
    copying.forecasts.push(longest);
    let extra = copying.forecasts.len().saturating_sub(plan::KEPT);
    copying.forecasts.drain(..extra);
    let text = last_pass(d);
    d.note(text);
    Ok(())
}
