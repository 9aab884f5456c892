//! `strategy: Warm`: passes over the source's volumes while its server runs, and whether one more is of use.
//!
//! A pass leaves manifests in the repository: what it made in the source cloud is gone before it has ended, while the
//! server still runs. So the way on, and the way back, begin where those of a cold migration begin. Where disks enter
//! the destination as block devices, the new volumes are there from the first pass on and follow each pass.

use super::{
    AT_ONCE, Decision, Draft, Flow, PROGRESS, cleanup, clock,
    cutover::{self, granted},
    deletions,
    disks::{self, export, in_hand, show_progress},
    forward, gone,
};
use crate::{
    crd::v1alpha1::*,
    migration::{
        block_storage::{fills_while_copying, pinned},
        names::Side,
        observed::{Seen, SourceView, number_in},
        present::{human, seconds},
        step::Step,
    },
    mover::result::FailureReason,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// So many passes are enough, whatever the forecast says.
const ENOUGH: usize = 5;
/// So many are made at most: each is a layer of its own when the disk is put together.
const MOST: i32 = 10;
/// How long after a pass the next one is made while the go is waited for, in seconds; twice as long each time.
const CALM_SECONDS: i64 = 900;
/// So many passes in a row may fail before the go is waited for.
const FAILURES: i32 = 3;
/// How long after a pass that failed the next one is made, in seconds.
const AGAIN_SECONDS: i64 = 60;
/// How much later than planned a pass may begin, in seconds.
const SLACK_SECONDS: i64 = 30;
/// What a guest takes to shut down and to serve again, in seconds; assumed.
const STOP_AND_START: i64 = 90;

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

/// Preflight has passed.
pub(super) fn enter(mut d: Draft<'_>) -> Decision {
    if d.status.copying.is_none() {
        let by_itself = d.input.spec.cutover.mode == CutoverMode::Now;
        d.status.copying = Some(CopyingStatus { by_itself, ..Default::default() });
    }
    // In status before anything is made, so that a clean-up knows that there may be something.
    d.enter(Phase::Copying, "preflight passed");
    tell(&mut d, Some("making the repository".into()));
    d.recheck = Some(AT_ONCE);
    d.decided()
}

/// Copying.
pub(super) fn copy(mut d: Draft<'_>) -> Decision {
    if let Flow::Wait = forward::init_repository(&mut d) {
        return d.decided();
    }
    if let Flow::Wait = pass(&mut d) {
        return d.decided();
    }
    let copying = d.status.copying.clone().unwrap_or_default();
    // A go that was given before the first pass means: as soon as passes have done what they can.
    if granted(&d) && !copying.by_itself {
        return cutover::grant(d);
    }
    let allowed = d.input.spec.max_downtime.as_ref().map(Period::seconds);
    let stopped = d.status.running_in != Some(RunningIn::A);
    let why = enough(&copying.forecasts, allowed)
        .or_else(|| stopped.then(|| "no pass is made while the server does not run".to_string()));
    if let Some(why) = why {
        d.enter(Phase::AwaitingCutover, why);
        return forward::await_cutover(d);
    }
    let again = copying.ended_at.filter(|_| copying.failures > 0);
    match again.and_then(|ended| later(ended.0, AGAIN_SECONDS * i64::from(copying.failures))) {
        Some(next) if next > d.input.now => {
            d.say(format!("The last pass failed; the next one begins at {}", clock(next)));
        }
        _ => begin(&mut d),
    }
    d.decided()
}

/// While the go is waited for: begins the next pass when its time has come.
pub(super) fn next(d: &mut Draft<'_>) {
    let Some(due) = next_at(d) else { return };
    let left = due.duration_since(d.input.now).as_secs();
    if left <= 0 {
        begin(d);
    } else {
        let left = std::time::Duration::from_secs(left.unsigned_abs());
        d.recheck = Some(d.recheck.map_or(left, |r| r.min(left)));
    }
}

fn next_at(d: &Draft<'_>) -> Option<Timestamp> {
    let at = match cutover::word(d) {
        cutover::Word::At(at) => Some(at),
        _ => None,
    };
    due(d.status.copying.as_ref()?, at, d.input.now)
}

/// When the next pass is to be begun: the longer the go is waited for, the calmer. Before a known time one ends
/// shortly before it, and none is begun that would not.
fn due(copying: &CopyingStatus, at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let ended = copying.ended_at.as_ref()?.0;
    if copying.passes >= MOST {
        return None;
    }
    let calm = CALM_SECONDS << copying.while_waiting.clamp(0, 20);
    let regular = later(ended, calm.max(4 * copying.seconds))?;
    let Some(at) = at else { return Some(regular) };
    let lead = copying.seconds * 5 / 4 + 2 * SLACK_SECONDS;
    let latest = later(at, -lead)?;
    let in_time = now <= later(latest, SLACK_SECONDS)?;
    (in_time && ended < later(latest, -copying.seconds)?).then(|| regular.min(latest))
}

fn later(t: Timestamp, seconds: i64) -> Option<Timestamp> {
    t.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Have passes done what they can? If so, why.
fn enough(forecasts: &[i64], allowed: Option<i64>) -> Option<String> {
    let last = *forecasts.last()?;
    let before = forecasts.len().checked_sub(2).and_then(|n| forecasts.get(n));
    if let Some(allowed) = allowed.filter(|a| last <= *a) {
        return Some(format!(
            "the forecast downtime, {}, is within spec.maxDowntime, {}",
            seconds(last),
            seconds(allowed)
        ));
    }
    if before.is_some_and(|before| last * 10 > before * 9) {
        return Some(format!(
            "one more pass would hardly shorten the downtime, {} by forecast",
            seconds(last)
        ));
    }
    let made = forecasts.len();
    (made >= ENOUGH).then(|| format!("{made} passes were made; the forecast downtime is {}", seconds(last)))
}

/// For how long neither side would serve for the sake of one disk, if the source were stopped after this pass.
///
/// The last pass, with the server stopped, is another one like it: snapshot, temporary volume, perhaps an image, reading
/// all of the disk, sending what changed. A block device in the destination gets that while it comes, and is then read
/// as a whole. Otherwise the whole disk is put together and uploaded there, as many bytes as were read; a volume is made
/// of it and read back, as a volume and an image were made in the source.
fn forecast(row: &PassRow, follows: bool) -> i64 {
    let prepare = (row.seconds - row.read_seconds).max(0);
    let in_source = prepare + row.read_seconds;
    let in_destination = row.read_seconds + if follows { 0 } else { prepare };
    STOP_AND_START + in_source + in_destination
}

fn begin(d: &mut Draft<'_>) {
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

/// Takes the pass that is under way further. `On`: there is none.
pub(super) fn pass(d: &mut Draft<'_>) -> Flow {
    if d.status.copying.as_ref().is_none_or(|c| c.began_at.is_none()) {
        return Flow::On;
    }
    let view = match &d.input.seen.source {
        Seen::View(view) => view,
        Seen::Unseen(p) => {
            let p = p.clone();
            d.trouble(&p.id, &p.message);
            return Flow::Wait;
        }
        Seen::NotLooked if d.left_clouds_alone() => {
            follow(d);
            return Flow::Wait;
        }
        Seen::NotLooked => {
            d.recheck = Some(AT_ONCE);
            return Flow::Wait;
        }
    };
    if !source_is_there(d) {
        return Flow::Wait;
    }
    give_up_in_time(d);
    let reading = read(d, view);
    if d.status.failure.is_some() {
        return Flow::Wait;
    }
    let filling = fill_volumes(d);
    d.removing = !past_is_written(d) || remove(d, view);
    if reading.is_none() && filling.is_none() && !d.removing {
        return end(d);
    }
    tell(d, reading.or(filling));
    Flow::Wait
}

/// What is seen of the source; without it there is nothing to copy.
fn source_is_there(d: &mut Draft<'_>) -> bool {
    let server = match gone::source(d) {
        gone::Source::Found(_, server) => server,
        gone::Source::Gone => {
            d.fail("UnrecoverableError", "the source server is gone");
            return false;
        }
        gone::Source::Wait => return false,
    };
    d.source().server_status = server.status.clone();
    d.status.running_in = Some(if server.status == "SHUTOFF" { RunningIn::None } else { RunningIn::A });
    let begun = d.status.disks.iter().any(|k| k.copied || k.export.snapshot_id.is_some());
    // A snapshot of a stopped server's volume cannot be removed on every storage.
    if server.status == "SHUTOFF" && !begun {
        leave_all(d);
    }
    true
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
fn read(d: &mut Draft<'_>, view: &SourceView) -> Option<String> {
    let mut waiting = vec![];
    for i in 0..d.status.disks.len() {
        if !is_volume(&d.status.disks[i]) || d.status.disks[i].copied {
            continue;
        }
        show_progress(d, i);
        let stage = export::export(d, i, view);
        if given_up(d) {
            return None;
        }
        d.status.disks[i].stage = stage.clone();
        if !d.status.disks[i].copied {
            waiting.push(stage);
        }
    }
    waiting.into_iter().next()
}

/// Brings the volumes in the destination to the last complete pass. Returns what is waited for.
fn fill_volumes(d: &mut Draft<'_>) -> Option<String> {
    let problem = d.status.copying.as_ref().is_some_and(|c| c.problem.is_some());
    if problem || !fills_while_copying(&d.status) {
        return None;
    }
    let view = match &d.input.seen.destination {
        Seen::View(view) => view,
        Seen::Unseen(p) => {
            let p = p.clone();
            d.trouble(&p.id, &p.message);
            return Some(p.message);
        }
        Seen::NotLooked => return Some("looking at the destination cloud".into()),
    };
    let mut waiting = vec![];
    for i in 0..d.status.disks.len() {
        if !is_volume(&d.status.disks[i]) {
            continue;
        }
        let stage = disks::fill_volume(d, i, view);
        if given_up(d) {
            return None;
        }
        if let Some(stage) = stage {
            d.status.disks[i].stage = stage.clone();
            waiting.push(stage);
        }
    }
    waiting.into_iter().next()
}

/// What would end the migration ends only this pass; but no later pass carries a disk that a cloud refuses for what it
/// begins with, and the source still runs.
fn given_up(d: &mut Draft<'_>) -> bool {
    let refused = FailureReason::DiskRefused.to_string();
    let Some(failure) = d.status.failure.take_if(|failure| failure.reason != refused) else {
        return d.status.failure.is_some();
    };
    // Its row in the timeline tells of an end; this is none.
    d.status.timeline.pop();
    give_up(d, failure.message);
    true
}

/// Only the Jobs were looked at, and they run: how far they are.
fn follow(d: &mut Draft<'_>) {
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
    tell(d, waiting);
    d.recheck = Some(PROGRESS);
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
pub(super) fn record(d: &mut Draft<'_>, i: usize, digest: &Digest, result: &Value) -> bool {
    if !is_warm(d.input.spec) || !is_volume(&d.status.disks[i]) {
        return false;
    }
    let last = d.phase() == Phase::Transferring;
    let copying = d.status.copying.as_ref().and_then(|c| c.began_at.clone());
    let began = copying.filter(|_| !last).or_else(|| d.status.phase_since.clone());
    let number = |key: &str| number_in(result, key).unwrap_or_default();
    let mut row = PassRow {
        pass: d.status.disks[i].pass,
        snapshot_id: digest.snapshot_id.clone().unwrap_or_default(),
        bytes_read: digest.bytes,
        changed_bytes: number("changedBytes"),
        sent_bytes: number("storedBytes"),
        seconds: began.map_or(0, |t| d.input.now.duration_since(t.0).as_secs()),
        read_seconds: number("seconds"),
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

/// Is all that belongs to the past recorded as that? A Job alone knows its result until it is in status.
fn past_is_written(d: &mut Draft<'_>) -> bool {
    let past = |s: &VmMigrationStatus| {
        let disks = s.disks.iter().map(|k| k.export.earlier);
        disks.chain(s.jobs.iter().map(|j| j.earlier)).filter(|n| *n > 0).collect::<Vec<_>>()
    };
    let written = past(&d.status) == past(d.input.status);
    if !written {
        d.recheck = Some(AT_ONCE);
    }
    written
}

/// Removes what passes made and do not need any more. `true`: something has to be waited for.
fn remove(d: &mut Draft<'_>, view: &SourceView) -> bool {
    let earlier: BTreeMap<i32, i32> = d.status.disks.iter().map(|k| (k.index, k.export.earlier)).collect();
    let held = let_go(d);
    d.status.retained.clear();
    let goes = |n: i32, attempt: i32| !held.contains(&n) && earlier.get(&n).is_some_and(|e| attempt <= *e);
    let objects = cleanup::source_objects(d, view, &|t| goes(t.index, t.attempt));
    let mut jobs = remove_jobs(d, Side::Source);
    if fills_while_copying(&d.status) {
        jobs |= remove_jobs(d, Side::Destination);
    }
    objects || jobs || !held.is_empty()
}

/// Takes temporary volumes that were read out of the source's cluster. Returns the disks whose it still has.
fn let_go(d: &mut Draft<'_>) -> BTreeSet<i32> {
    let mut held = BTreeSet::new();
    for i in 0..d.status.disks.len() {
        if d.status.disks[i].copied
            && disks::travels(d, i, Side::Source)
            && disks::release(d, i, Side::Source).is_err()
        {
            held.insert(d.status.disks[i].index);
        }
    }
    held
}

/// Jobs of passes on one side.
fn purposes(d: &Draft<'_>, side: Side) -> Vec<String> {
    let what = match side {
        Side::Source => "backup",
        Side::Destination => "restore",
    };
    d.status.disks.iter().filter(|k| is_volume(k)).map(|k| format!("{what}-{}", k.index)).collect()
}

/// Removes the Jobs of attempts that count no more. `true`: there are some.
fn remove_jobs(d: &mut Draft<'_>, side: Side) -> bool {
    let cluster = match d.input.seen.cluster(side) {
        Seen::View(cluster) => cluster,
        Seen::Unseen(p) => {
            let p = p.clone();
            d.trouble(&p.id, &p.message);
            return true;
        }
        Seen::NotLooked => return true,
    };
    let mut waiting = false;
    for purpose in purposes(d, side) {
        let counts = d.status.jobs.iter().find(|j| j.name == purpose).map_or(0, |j| j.earlier);
        for name in (1..=counts).map(|attempt| d.input.me.job(&purpose, attempt)) {
            let Some(job) = cluster.jobs.get(&name) else { continue };
            waiting = true;
            let step = Step::DeleteJob { side, name };
            if !job.deleting && !d.steps.contains(&step) {
                d.step(step);
            }
        }
    }
    waiting
}

/// All volumes were read, and what that made is gone.
fn end(d: &mut Draft<'_>) -> Flow {
    let now = d.now();
    let made: Vec<PassRow> = d.status.disks.iter().filter_map(|k| k.passes.last().cloned()).collect();
    let copying = d.status.copying.get_or_insert_default();
    let began = copying.began_at.take();
    copying.ended_at = Some(now.clone());
    if let Some(problem) = copying.problem.take() {
        copying.failures += 1;
        if d.phase() == Phase::Copying && d.status.copying.as_ref().is_some_and(|c| c.failures >= FAILURES) {
            d.fail("UnrecoverableError", format!("{problem} ({FAILURES} passes failed)"));
            return Flow::Wait;
        }
        return Flow::On;
    }
    // None was made of a server that does not run.
    let (Some(began), Some(longest)) = (began, made.iter().filter_map(|r| r.forecast_downtime_seconds).max())
    else {
        return Flow::On;
    };
    if made.iter().all(|row| row.at.as_ref().is_none_or(|at| at.0 < began.0)) {
        return Flow::On;
    }
    copying.failures = 0;
    copying.passes += 1;
    copying.seconds = now.0.duration_since(began.0).as_secs();
    copying.forecasts.push(longest);
    let extra = copying.forecasts.len().saturating_sub(ENOUGH + 1);
    copying.forecasts.drain(..extra);
    let text = last_pass(d);
    d.note(text);
    Flow::On
}

/// Bytes that the pass which ended then has read, found changed, and sent; some volumes may be through the next one.
fn brought(disks: &[DiskStatus], ended: Timestamp) -> [i64; 3] {
    let by_then = |row: &&PassRow| row.at.as_ref().is_none_or(|at| at.0 <= ended);
    let rows = disks.iter().filter_map(|k| k.passes.iter().rfind(by_then));
    rows.map(|r| [r.bytes_read, r.changed_bytes, r.sent_bytes])
        .fold([0; 3], |sums, row| std::array::from_fn(|n| sums[n] + row[n]))
}

/// What the last pass brought.
pub(super) fn last_pass(d: &Draft<'_>) -> String {
    let Some(copying) = &d.status.copying else { return String::new() };
    let (Some(forecast), Some(ended)) = (copying.forecasts.last(), &copying.ended_at) else {
        return "no pass has ended yet".into();
    };
    let [read, changed, sent] = brought(&d.status.disks, ended.0).map(human);
    format!(
        "pass {} ended at {}: {read} read, {changed} changed, {sent} sent; forecast downtime {}, {}",
        copying.passes,
        clock(ended.0),
        seconds(*forecast),
        if fills_while_copying(&d.status) {
            "most of it to read the volumes once in A and once in B"
        } else {
            "most of it to put the disks together in B"
        }
    )
}

/// The message while a pass is under way.
fn tell(d: &mut Draft<'_>, waiting: Option<String>) {
    let copying = d.status.copying.clone().unwrap_or_default();
    let volumes = d.status.disks.iter().filter(|k| is_volume(k));
    let (done, all) = (volumes.clone().filter(|k| k.copied).count(), volumes.count());
    let doing = match (&copying.problem, waiting) {
        (Some(problem), _) => format!("removing what a failed pass made ({problem})"),
        (None, Some(stage)) => format!("{stage} ({done}/{all} volumes done)"),
        (None, None) => {
            format!("removing its snapshots and temporary volumes{}", deletions::refusal(d))
        }
    };
    let go = if copying.by_itself {
        "the source is stopped when passes have done what they can".into()
    } else {
        format!("to go now: {}", cutover::go(d))
    };
    d.say(format!(
        "Pass {}, {} runs in A: {doing}; {}; {go}",
        copying.passes + 1,
        d.input.spec.source.server,
        last_pass(d)
    ));
}

/// Half a sentence about passes while the go is waited for.
pub(super) fn told(d: &Draft<'_>) -> String {
    if d.status.copying.is_none() {
        return String::new();
    }
    let next = match next_at(d) {
        Some(next) => format!("the next one begins at {}", clock(next)),
        None => "none follows before the stop".into(),
    };
    format!(" ({}; {next})", last_pass(d))
}

/// What the way into the destination means for the downtime, for preflight.
pub(super) fn plan(d: &Draft<'_>) -> Option<Finding> {
    let transfer = pinned(&d.status, Side::Destination).filter(|_| applies(d))?;
    let to = &d.input.spec.destination.cloud;
    let message = if transfer.is_volume() {
        format!(
            "{to} takes volumes as block devices: they are made with the first pass and follow each pass, so that after \
             the stop the last pass is written and each whole volume is read once"
        )
    } else {
        format!(
            "{to} takes images: after the stop it puts each whole disk together, makes a volume of it and reads it back; \
             no pass shortens that part of the downtime"
        )
    };
    Some(Finding { id: "warm-destination".into(), severity: Severity::Info, message, suggestion: None })
}

/// What earlier passes over the same disk left, in this try or in one before it.
pub(super) fn carry(status: &VmMigrationStatus, spec: &VmMigrationSpec, disk: &mut DiskStatus) {
    if !is_warm(spec) || disk.source_volume_id.is_none() {
        return;
    }
    let id = (disk.index, disk.source_volume_id.clone(), disk.size_gib);
    let same = |k: &&DiskStatus| (k.index, k.source_volume_id.clone(), k.size_gib) == id;
    if let Some(known) = status.disks.iter().find(same) {
        (disk.pass, disk.passes) = (known.pass, known.passes.clone());
        (disk.export, disk.copied) = (known.export.clone(), known.copied);
        disk.import = known.import.clone();
        return;
    }
    let kept = status.kept.iter().flat_map(|k| &k.volumes);
    let same = |v: &&KeptVolume| (v.index, Some(v.volume_id.clone()), v.size_gib) == id;
    if let Some(kept) = kept.clone().find(same) {
        let snapshot_id = kept.backup.snapshot_id.clone().unwrap_or_default();
        disk.passes = vec![PassRow {
            pass: kept.pass,
            snapshot_id,
            bytes_read: kept.backup.bytes,
            ..Default::default()
        }];
        disk.pass = kept.pass + 1;
    }
}

/// What a new try may build on: the last pass, or the last one while the source ran.
pub(super) fn kept(disk: &DiskStatus) -> Option<KeptVolume> {
    let (index, size_gib, volume_id) = (disk.index, disk.size_gib, disk.source_volume_id.clone()?);
    if let Some(backup) = disk.backup.clone() {
        return Some(KeptVolume { index, volume_id, size_gib, backup, pass: disk.pass, running: false });
    }
    let row = disk.base()?;
    let backup = Digest {
        bytes: row.bytes_read,
        snapshot_id: Some(row.snapshot_id.clone()),
        by: "mover".into(),
        at: row.at.clone(),
        ..Default::default()
    };
    Some(KeptVolume { index, volume_id, size_gib, backup, pass: row.pass, running: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn a_forecast_is_the_last_pass_again_and_the_destinations_part() {
        let table = [
            // Nothing measured: what a guest takes.
            ((0, 0), 90, 90),
            // 40 s to prepare, 60 s to read; the same in the destination, or only to read there.
            ((100, 60), 290, 250),
            // A clock of the pod that ran ahead.
            ((50, 60), 210, 210),
        ];
        for ((seconds, read_seconds), put_together, followed) in table {
            let row = PassRow { seconds, read_seconds, ..Default::default() };
            let got = (forecast(&row, false), forecast(&row, true));
            assert_eq!(got, (put_together, followed), "{seconds} {read_seconds}");
        }
    }

    #[test]
    fn what_a_pass_brought_is_told_without_what_the_next_one_brings() {
        let row = |at, bytes| PassRow {
            at: Timestamp::from_second(at).ok().map(Time),
            bytes_read: bytes,
            sent_bytes: 1,
            ..Default::default()
        };
        let disk = |passes: &[PassRow]| DiskStatus { passes: passes.to_vec(), ..Default::default() };
        // The first volume is through the second pass already.
        let disks = [disk(&[row(90, 10), row(120, 1000)]), disk(&[row(100, 20)]), disk(&[])];
        for (ended, wanted) in [(100, [30, 0, 2]), (120, [1020, 0, 2]), (95, [10, 0, 1])] {
            assert_eq!(brought(&disks, Timestamp::from_second(ended).unwrap()), wanted, "{ended}");
        }
    }

    #[test]
    fn passes_end_when_one_more_is_of_no_use() {
        let table: [(&[i64], Option<i64>, Option<&str>); 9] = [
            (&[], Some(60), None),
            (&[500], None, None),
            (&[500], Some(499), None),
            (&[500], Some(500), Some("within spec.maxDowntime")),
            (&[500, 449], None, None),
            (&[500, 451], None, Some("hardly shorten")),
            (&[500, 700], Some(60), Some("hardly shorten")),
            (&[900, 700, 500, 400], Some(60), None),
            (&[900, 700, 500, 400, 300], Some(60), Some("5 passes")),
        ];
        for (forecasts, allowed, wanted) in table {
            let why = enough(forecasts, allowed);
            assert_eq!(why.is_some(), wanted.is_some(), "{forecasts:?} {allowed:?}: {why:?}");
            assert!(why.unwrap_or_default().contains(wanted.unwrap_or_default()), "{forecasts:?}");
        }
    }

    #[test]
    fn passes_get_calmer_and_the_last_one_ends_before_a_known_time() {
        let at = |s: i64| Timestamp::from_second(s).ok();
        let copying = |while_waiting, seconds, passes| CopyingStatus {
            ended_at: at(10_000).map(Time),
            while_waiting,
            seconds,
            passes,
            ..Default::default()
        };
        let table = [
            ("never began", CopyingStatus::default(), None, 10_000, None),
            ("calm", copying(0, 60, 2), None, 10_000, Some(10_900)),
            ("calmer", copying(3, 60, 5), None, 10_000, Some(17_200)),
            ("long passes", copying(0, 1000, 2), None, 10_000, Some(14_000)),
            ("as many as may be", copying(9, 60, MOST), None, 10_000, None),
            ("a time far off", copying(0, 60, 2), at(50_000), 10_000, Some(10_900)),
            ("a time that is near", copying(4, 80, 2), at(11_000), 10_000, Some(10_840)),
            ("too near for one more", copying(0, 80, 2), at(10_200), 10_000, None),
            ("we were away", copying(4, 80, 2), at(11_000), 10_900, None),
        ];
        for (what, copying, cutover, now, wanted) in table {
            assert_eq!(due(&copying, cutover, at(now).unwrap()), wanted.and_then(at), "{what}");
        }
    }
}
