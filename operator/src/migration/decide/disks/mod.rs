//! The way of one disk: snapshot, temporary volume, image, backup; image, volume, read-back. All disks side by side,
//! and of each disk the restore beside the backup: they meet only in the repository.

mod asked;
pub(super) mod export;
mod import;
mod proof;
mod refused;
mod volume_device;
mod volume_export;
mod volume_import;

pub(super) use {
    asked::{record_asked, record_lost},
    volume_device::{release, take_away, travels},
    volume_import::fill_volume,
};

use super::{AT_ONCE, Draft, PROGRESS, next::Stop};
use crate::{
    cloud::Volume,
    contract::{Answer, DiskDigest, FailureReason, Outcome, Transfer},
    crd::v1alpha1::*,
    migration::{names::Side, observed::plausible, step::Step},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// States of an image that becomes active by itself.
const SAVING: [&str; 4] = ["queued", "saving", "uploading", "importing"];
/// States of a volume that becomes available by itself.
const MAKING: [&str; 3] = ["creating", "downloading", "uploading"];

/// Takes every disk one step further, until all are proven in the destination.
pub(super) fn all(d: &mut Draft<'_>) -> Result<(), Stop> {
    each(d, one)
}

/// Only the Jobs were looked at, and they run: how far they are.
pub(super) fn follow(d: &mut Draft<'_>) -> Stop {
    let followed = each(d, |d, i| in_hand(d, i).map_or(Ok(()), |stage| Err(Stop::waiting(stage))));
    followed.err().unwrap_or_else(Stop::as_said).again(PROGRESS)
}

fn each(d: &mut Draft<'_>, one: fn(&mut Draft<'_>, usize) -> Result<(), Stop>) -> Result<(), Stop> {
    let mut waiting: Vec<(bool, String)> = vec![];
    for i in 0..d.status.disks.len() {
        let stage = match one(d, i) {
            Ok(()) => None,
            Err(stop) => Some(stop.waits_for()?),
        };
        if d.status.failure.is_some() {
            // Trouble that has lasted too long.
            return Err(Stop::as_said());
        }
        d.status.disks[i].stage = stage.clone().unwrap_or_else(|| "Verified".into());
        waiting.extend(stage.map(|stage| (held_up(d, i).is_some(), stage)));
    }
    let count = d.status.disks.len();
    let done = count - waiting.len();
    // What does not move is told first.
    let first = waiting.iter().find(|(held_up, _)| *held_up).or(waiting.first());
    let Some((_, first)) = first else {
        return if count > 0 { Ok(()) } else { Err(Stop::as_said()) };
    };
    let since = d.status.phase_since.as_ref().map(|t| super::clock(t.0)).unwrap_or_default();
    Err(Stop::waiting(format!(
        "{first} ({done}/{count} disks done, in this phase since {since}){}",
        d.where_source_is()
    )))
}

/// How far the Job is that has a disk in hand.
pub(super) fn in_hand(d: &mut Draft<'_>, i: usize) -> Option<String> {
    show_progress(d, i);
    let disk = &d.status.disks[i];
    let (verb, side, what) = match (&disk.backup, &disk.restore) {
        (None, _) => ("Backing up", Side::Source, "backup"),
        (Some(_), None) => ("Restoring", Side::Destination, "restore"),
        (Some(_), Some(_)) => return None,
    };
    let job = d.job_seen(side, &format!("{what}-{}", disk.index));
    let why = job.and_then(|j| j.reason.as_deref()).unwrap_or("running");
    Some(format!("{verb} disk {}: {}", disk.index, with_progress(d, i, why)))
}

fn one(d: &mut Draft<'_>, i: usize) -> Result<(), Stop> {
    if d.status.disks[i].backup.is_some() && volume_device::travels(d, i, Side::Source) {
        // Nothing waits for it here; clean-up does.
        let _ = volume_device::release(d, i, Side::Source);
    }
    show_progress(d, i);
    let mut exporting = match (d.status.disks[i].backup.is_some(), d.input.seen.source.view()) {
        (true, _) => None,
        (false, None) => return Err(Stop::waiting("Waiting for the source cloud")),
        (false, Some(view)) => Some(export::export(d, i, view)),
    };
    if d.status.failure.is_some() {
        return exporting.map_or(Ok(()), Err);
    }
    if let Some(stop) = exporting.take_if(|stop| stop.is_failure() || !begun(d, i)) {
        return Err(stop);
    }
    let Some(view) = d.input.seen.destination.view() else {
        if let Some(problem) = d.input.seen.destination.problem() {
            d.stopped(problem.into());
        }
        return Err(Stop::waiting("Waiting for the destination cloud"));
    };
    let Some(restore) = d.status.disks[i].restore.clone() else {
        let importing = import::import(d, i, view);
        return Err(exporting.filter(|_| !importing.is_failure()).unwrap_or(importing));
    };
    match d.status.disks[i].kind {
        // An image-backed root's proof is the image's bytes.
        DiskKind::Image if d.status.disks[i].readback.is_some() => Ok(()),
        DiskKind::Image => proof::read_back(d, i, restore),
        DiskKind::Volume if volume_device::travels(d, i, Side::Destination) => {
            volume_import::prove(d, i, view)
        }
        DiskKind::Volume => proof::prove(d, i, view),
    }
}

/// What the backup reads: its segments carry this name.
fn origin(d: &Draft<'_>, i: usize) -> String {
    let export = &d.status.disks[i].export;
    let volume = volume_device::travels(d, i, Side::Source);
    if volume { export.volume_id.clone() } else { export.image_id.clone() }.unwrap_or_default()
}

/// Was a Job of the backup seen? From then on there is something to restore, and a later attempt ends nothing. But what
/// it reads must be known: data of an earlier try that turn out to be wrong are read again from a new copy.
fn begun(d: &Draft<'_>, i: usize) -> bool {
    if origin(d, i).is_empty() {
        return false;
    }
    let purpose = format!("backup-{}", d.status.disks[i].index);
    let again = |j: &JobRecord| j.name == purpose && j.tries() > 1;
    d.job_seen(Side::Source, &purpose).is_some()
        || d.status.disks[i].import.image_id.is_some()
        || d.status.disks[i].import.volume_id.is_some()
        || d.status.jobs.iter().any(again)
}

/// Is an object in the state that is wanted? Otherwise: what is waited for, or the failure.
fn usable(
    d: &mut Draft<'_>,
    i: usize,
    what: &str,
    (status, wanted): (&str, &str),
    passing: &[&str],
    created_at: &str,
) -> Result<(), Stop> {
    if status == wanted {
        d.status.disks[i].wait.take_if(|w| w.what == what);
        return Ok(());
    }
    if !passing.contains(&status) {
        return Err(Stop::unrecoverable(format!("{what} went to state {status:?} instead of {wanted}")));
    }
    let since = super::parse_time(created_at).unwrap_or_else(|| waited_since(d, i, what));
    let bound = d.step_bound(d.status.disks[i].size_gib);
    if d.overdue(since, bound) {
        let text = format!("{what} is still {status} since {since} (bound {bound} s)");
        return Err(Stop::unrecoverable(text));
    }
    d.wait_calmly(since);
    let until = since.checked_add(SignedDuration::from_secs(bound)).map(super::clock).unwrap_or_default();
    let text = format!("Waiting for {what}: {status} since {} (gives up {until})", super::clock(since));
    Err(Stop::waiting(text))
}

/// A finished volume in the destination gets its own name and attributes, once its id is in status: until then its name
/// is what tells that it is ours.
fn dress(d: &mut Draft<'_>, i: usize, volume: &Volume) -> Result<(), Stop> {
    if d.status.disks[i].import.dressed {
        return Ok(());
    }
    if d.input.status.made().contains(&volume.id) {
        d.step(Step::DressVolume { disk: d.status.disks[i].index, volume_id: volume.id.clone() });
    } else {
        d.recheck = Some(AT_ONCE);
    }
    Err(Stop::waiting(format!("Setting name and attributes of volume {}", volume.id)))
}

/// Is a volume there for use? Since when an upload lasts the cloud does not tell: what it tells is when it was made.
fn available(d: &mut Draft<'_>, i: usize, what: &str, volume: &Volume) -> Result<(), Stop> {
    let uploads = volume.status == "uploading";
    let created_at = if uploads { "" } else { &volume.created_at };
    usable(d, i, what, (&volume.status, "available"), &MAKING, created_at)
}

/// Since when it was seen to be waited for: a cloud need not tell when it began.
fn waited_since(d: &mut Draft<'_>, i: usize, what: &str) -> Timestamp {
    let now = d.now();
    let wait = d.status.disks[i].wait.get_or_insert_default();
    if wait.what != what {
        *wait = DiskWait { what: what.into(), since: None };
    }
    wait.since.get_or_insert(now).0
}

fn repository(d: &Draft<'_>) -> String {
    d.status.store.as_ref().map(|s| s.repository.clone()).unwrap_or_default()
}

/// The store's limits for movers.
fn limits(d: &Draft<'_>) -> Bandwidth {
    d.input.seen.store.as_ref().map(|s| s.bandwidth.clone()).unwrap_or_default()
}

/// The same for a mover.
fn bandwidth(d: &Draft<'_>) -> Transfer {
    let limits = limits(d);
    let limit = |kib: u64| Some(kib).filter(|kib| *kib > 0);
    Transfer {
        limit_upload: limit(limits.upload_kib()),
        limit_download: limit(limits.download_kib()),
        ..Default::default()
    }
}

/// The number of a disk, or of a pass, as a mover takes it.
fn number(of: i32) -> u32 {
    u32::try_from(of).unwrap_or_default()
}

/// Ten minutes and then 1 MiB a second, or half of what the store's limit allows: what one attempt to copy a disk one
/// way may take.
fn transfer_seconds(d: &Draft<'_>, bytes: i64) -> i64 {
    let limits = limits(d);
    let allowed = [limits.upload_kib(), limits.download_kib()].into_iter().filter(|kib| *kib > 0).min();
    let kib = allowed.map_or(1 << 10, |kib| (kib / 2).clamp(1, 1 << 10));
    600 + bytes / (1 << 10) / i64::try_from(kib).unwrap_or(1)
}

/// What a mover tells of a disk; nothing, where that cannot be read.
fn digest(answer: &Answer, now: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time) -> Digest {
    let told: DiskDigest = answer.read().unwrap_or_default();
    let text = |text: Option<String>| text.filter(|s| !s.is_empty());
    Digest {
        bytes: told.bytes.and_then(plausible).unwrap_or(-1),
        sha256: text(told.sha256),
        hash_algo: text(told.hash_algo),
        hash_value: text(told.hash_value),
        snapshot_id: text(told.snapshot_id),
        by: "mover".into(),
        at: Some(now),
    }
}

/// The bytes settled by the slower of the two movers that tell of any: mostly the restore, once it has begun to fill.
pub(super) fn show_progress(d: &mut Draft<'_>, i: usize) {
    let n = d.status.disks[i].index;
    let told = [(Side::Source, "backup"), (Side::Destination, "restore")]
        .map(|(side, what)| d.job_seen(side, &format!("{what}-{n}")).and_then(|j| j.progress));
    if let Some((bytes, total, rate)) = told.into_iter().flatten().min_by_key(|(bytes, ..)| *bytes) {
        d.status.disks[i].progress = Some(DiskProgress { bytes, total, rate });
    }
}

fn with_progress(d: &Draft<'_>, i: usize, why: &str) -> String {
    let how_far = match &d.status.disks[i].progress {
        Some(p) if p.total > 0 => format!("{}%", p.bytes * 100 / p.total),
        _ => why.to_string(),
    };
    match held_up(d, i) {
        Some(said) => format!("{how_far}, held up by ObjectStore {}: {said}", store_name(d)),
        None => how_far,
    }
}

/// What is said of the store that does not let a disk's copy go on.
fn held_up(d: &Draft<'_>, i: usize) -> Option<String> {
    let n = d.status.disks[i].index;
    let copies = [(Side::Source, "backup"), (Side::Destination, "restore")];
    copies.into_iter().find_map(|(side, what)| d.job_seen(side, &format!("{what}-{n}"))?.held_up.clone())
}

fn store_name<'d>(d: &'d Draft<'_>) -> &'d str {
    d.status.store.as_ref().map(|s| s.name.as_str()).unwrap_or_default()
}

/// Why a Job ended badly, in its own words for programs.
fn failed_for(d: &Draft<'_>, side: Side, purpose: &str) -> Option<FailureReason> {
    d.job_seen(side, purpose)?.outcome().as_ref().and_then(Outcome::failure).map(|f| f.reason)
}

/// A Job has ended badly for the last time. What somebody must change at the store, or in a cloud for the disk, has a reason
/// of its own.
pub(super) fn copy_failed(
    d: &Draft<'_>,
    disk: Option<usize>,
    side: Side,
    purpose: &str,
    why: String,
) -> Stop {
    let said = failed_for(d, side, purpose);
    if said == Some(FailureReason::StoreFull) {
        let text = format!("ObjectStore {}: {why}", store_name(d));
        return Stop::failed(FailureReason::StoreFull.to_string(), text);
    }
    if let Some(i) = disk
        && said == Some(FailureReason::DiskRefused)
    {
        let ways_out = refused::ways_out(d, Side::Destination, d.status.disks[i].kind);
        let text = format!("{}: {why}. {ways_out}", d.input.spec.destination.cloud);
        return Stop::failed(FailureReason::DiskRefused.to_string(), text);
    }
    Stop::unrecoverable(why)
}
