//! What people and programs read: printer columns and conditions, derived from the rest of the status.

use crate::crd::{
    conditions::{kind, reason, set},
    v1alpha1::*,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{Timestamp, Unit},
};

/// Derives printer columns and conditions. Pure; calling it twice changes nothing.
pub fn present(status: &mut VmMigrationStatus, generation: Option<i64>, now: Timestamp) {
    columns(status, now);
    conditions(status, generation, now);
}

fn columns(status: &mut VmMigrationStatus, now: Timestamp) {
    let copying = status.copying.as_ref().is_some_and(|c| c.began_at.is_some());
    let transferring = copying || matches!(status.phase, Some(Phase::Transferring | Phase::Creating));
    let running: Vec<&DiskProgress> = status.disks.iter().filter_map(|d| d.progress.as_ref()).collect();
    let rate: i64 = running.iter().map(|p| p.rate).sum();
    let left: i64 = running.iter().map(|p| (p.total - p.bytes).max(0)).sum();
    status.progress = progress(status);
    status.bytes = bytes(status);
    status.rate = (transferring && rate > 0).then(|| format!("{}/s", human(rate)));
    status.eta = (transferring && rate > 0).then(|| seconds(left / rate.max(1)));
    status.down = down(status, now).map(seconds);
}

/// Every byte is read once and written once.
fn progress(status: &VmMigrationStatus) -> Option<String> {
    match status.phase? {
        phase if phase.succeeded() => return Some("100%".into()),
        Phase::Copying | Phase::AwaitingCutover => return pass(status),
        Phase::Transferring | Phase::Creating | Phase::Verifying => {}
        _ => return None,
    }
    let total: i64 = status.disks.iter().map(|d| 2 * size(d)).sum();
    let done: i64 = status.disks.iter().map(copied).sum();
    (total > 0).then(|| format!("{}%", (done * 100 / total).clamp(0, 100)))
}

/// A pass reads all volumes, while the server runs.
fn pass(status: &VmMigrationStatus) -> Option<String> {
    status.copying.as_ref().filter(|c| c.began_at.is_some())?;
    let volumes = status.disks.iter().filter(|d| d.kind == DiskKind::Volume);
    let read = |d: &DiskStatus| if d.copied { size(d) } else { d.progress.as_ref().map_or(0, |p| p.bytes) };
    let (done, total) = volumes.fold((0, 0), |(done, total), d| (done + read(d), total + size(d)));
    (total > 0).then(|| format!("{}%", (done * 100 / total).clamp(0, 100)))
}

fn size(d: &DiskStatus) -> i64 {
    d.backup.as_ref().map(|b| b.bytes).filter(|b| *b > 0).unwrap_or_else(|| d.size_gib.max(1) << 30)
}

fn copied(d: &DiskStatus) -> i64 {
    let now = d.progress.as_ref().map_or(0, |p| p.bytes.min(size(d)));
    match (&d.backup, &d.restore) {
        (_, Some(_)) => 2 * size(d),
        (Some(_), None) => size(d) + now,
        _ => now,
    }
}

fn bytes(status: &VmMigrationStatus) -> Option<String> {
    let done: i64 = status.disks.iter().filter_map(|d| d.restore.as_ref()).map(|r| r.bytes).sum();
    let all: i64 = status.disks.iter().filter_map(|d| d.backup.as_ref()).map(|r| r.bytes).sum();
    (all > 0).then(|| format!("{}/{}", human(done), human(all)))
}

/// Seconds that neither side served, so far; known once the source was stopped by us.
pub fn down(status: &VmMigrationStatus, now: Timestamp) -> Option<i64> {
    let s = status.source.as_ref().filter(|s| s.was_running)?;
    let from = s.served_until.as_ref()?.0;
    // One that was given up before all its checks had passed did not serve.
    let counts = |x: &&DestinationStatus| x.ready_at.is_some() || status.failure.is_none();
    let served = status.destination.as_ref().filter(counts).and_then(|x| x.served_from.as_ref()).map(|t| t.0);
    let back = status.failure.as_ref().and(status.finished_at.as_ref()).map(|t| t.0);
    let until = served.or(back).unwrap_or_else(|| rounded(now));
    let down = until.duration_since(from).round(Unit::Second).ok()?;
    Some(down.as_secs().max(0))
}

/// A clock value that changes on every pass would wake us on every pass.
fn rounded(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second() / 10 * 10).unwrap_or(now)
}

/// `1m05s`.
pub fn seconds(s: i64) -> String {
    match s {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}

/// `1.5GiB`.
pub fn human(bytes: i64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    let mut rest = 0;
    while value >= 1024 && unit < units.len() - 1 {
        rest = value % 1024 * 10 / 1024;
        value /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{value}B") } else { format!("{value}.{rest}{}", units[unit]) }
}

fn conditions(status: &mut VmMigrationStatus, generation: Option<i64>, now: Timestamp) {
    let mut c = std::mem::take(&mut status.conditions);
    let message = status.message.clone().unwrap_or_default();
    for (kind, value, reason, text) in overall(status, &message) {
        set(&mut c, kind, value, reason, text, generation, now);
    }
    for (kind, value, text) in milestones(status) {
        let reason = match (value, &status.failure) {
            (Some(true), _) => reason::SUCCESS,
            (_, Some(f)) if f.cancelled => reason::CANCELLED,
            (_, Some(f)) if f.reason == reason::ROLLED_BACK => reason::ROLLED_BACK,
            (_, Some(f)) => given_up(f),
            (Some(false), None) if kind == kind::PREFLIGHT_PASSED => reason::INVALID_CONFIGURATION,
            _ => reason::PROGRESSING,
        };
        set(&mut c, kind, value, reason, text, generation, now);
    }
    let (retired, why, text) = source_retired(status);
    set(&mut c, kind::SOURCE_RETIRED, retired, why, text, generation, now);
    let (cleaned, why, text) = cleaned_up(status);
    set(&mut c, kind::CLEANED_UP, cleaned, why, text, generation, now);
    let phase = status.phase.unwrap_or_default();
    set(&mut c, kind::FINISHED, Some(status.finished()), phase.into(), how_it_ended(status), generation, now);
    status.conditions = c;
}

/// The last status of an object that is deleted before its end: whoever waits for that is told, and waits no longer.
/// `None`: it has ended.
pub fn last_word(
    status: &VmMigrationStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> Option<VmMigrationStatus> {
    if status.finished() {
        return None;
    }
    let mut last = status.clone();
    (last.phase, last.finished_at) = (Some(Phase::Deleting), Some(Time(now)));
    present(&mut last, generation, now);
    Some(last)
}

fn how_it_ended(status: &VmMigrationStatus) -> String {
    let phase = status.phase.unwrap_or_default();
    if !status.finished() {
        return if phase.gave_up() { "it is to be tried again" } else { "it has not ended yet" }.into();
    }
    let why = status.failure.as_ref().map(|f| format!(": {}", f.message)).unwrap_or_default();
    match phase {
        Phase::Failed => format!("it has failed{why}"),
        Phase::Cancelled => "it was cancelled".into(),
        Phase::RolledBack => "it was rolled back; the source is in use again".into(),
        Phase::Deleting => "it was deleted before it had succeeded".into(),
        _ => "it has succeeded".into(),
    }
}

type Row = (&'static str, Option<bool>, &'static str, String);

/// `Ready`, `Reconciling`, `Stalled`, `Succeeded`.
fn overall(status: &VmMigrationStatus, message: &str) -> Vec<Row> {
    let phase = status.phase.unwrap_or_default();
    let m = message.to_string();
    let failed = status.failure.as_ref();
    let (ready, reconciling, stalled, why) = match phase {
        // A way back was asked for and does not begin.
        Phase::Succeeded if stuck(status) => (true, false, true, reason::STUCK),
        Phase::Succeeded | Phase::Retired => (true, false, false, reason::SUCCESS),
        Phase::Retiring => (true, true, false, reason::PROGRESSING),
        phase if phase.gave_up() && status.retry_requested_at.is_some() => {
            (false, true, false, reason::PROGRESSING)
        }
        Phase::RolledBack => (false, false, true, reason::ROLLED_BACK),
        Phase::Failed | Phase::Cancelled => {
            (false, false, true, failed.map_or(reason::UNRECOVERABLE_ERROR, given_up))
        }
        _ if status.suspended_since.is_some() => (false, true, false, reason::SUSPENDED),
        Phase::RollingBack | Phase::Deleting if stuck(status) => match &status.trouble {
            Some(t) if t.what == "destination-unreachable" => {
                (false, false, true, reason::DESTINATION_UNREACHABLE)
            }
            _ => (false, false, true, reason::STUCK),
        },
        // It looks again by itself: what is missing may come with the same rollout.
        Phase::Blocked => (false, true, false, reason::INVALID_CONFIGURATION),
        Phase::Held | Phase::AwaitingCutover => (false, true, false, reason::WAITING_FOR_YOU),
        _ if status.trouble.as_ref().is_some_and(|t| t.stalled) => {
            (false, false, true, reason::WAITING_FOR_YOU)
        }
        Phase::Stopping if missed(status) => (false, true, false, reason::WAITING_FOR_YOU),
        _ if status.hooks.iter().any(|h| h.state == HookState::Waiting) => {
            (false, true, false, reason::WAITING_FOR_YOU)
        }
        _ => match &status.trouble {
            Some(t) if t.what == "destination-unreachable" => {
                (false, true, false, reason::DESTINATION_UNREACHABLE)
            }
            Some(_) => (false, true, false, reason::TRANSIENT_ERROR),
            None => (false, true, false, reason::PROGRESSING),
        },
    };
    let succeeded = match phase {
        phase if phase.succeeded() => (Some(true), reason::SUCCESS),
        phase if phase.gave_up() && status.finished() => (Some(false), why),
        _ => (None, why),
    };
    vec![
        (kind::READY, Some(ready), why, m.clone()),
        (kind::RECONCILING, Some(reconciling), why, if reconciling { m.clone() } else { String::new() }),
        (kind::STALLED, Some(stalled), why, if stalled { m.clone() } else { String::new() }),
        (kind::SUCCEEDED, succeeded.0, succeeded.1, m),
    ]
}

/// Why it was given up, as far as that tells somebody what to do.
fn given_up(failure: &Failure) -> &'static str {
    match failure.reason.as_str() {
        _ if failure.cancelled => reason::CANCELLED,
        reason::STORE_FULL => reason::STORE_FULL,
        _ => reason::UNRECOVERABLE_ERROR,
    }
}

/// The way back has taken too long.
fn stuck(status: &VmMigrationStatus) -> bool {
    status.way_back.as_ref().is_some_and(|w| w.stalled_since.is_some())
}

/// Its time has passed before the source was asked to stop.
fn missed(status: &VmMigrationStatus) -> bool {
    status.cutover.as_ref().is_some_and(|c| c.missed)
}

fn milestones(status: &VmMigrationStatus) -> Vec<(&'static str, Option<bool>, String)> {
    let phase = status.phase.unwrap_or_default();
    let ended = status.failure.is_some();
    let reached = |yes: bool| {
        if yes {
            Some(true)
        } else if ended {
            Some(false)
        } else {
            None
        }
    };
    let s = status.source.clone().unwrap_or_default();
    let x = status.destination.clone().unwrap_or_default();
    let disks = status.disks.len();
    let count = |f: fn(&DiskStatus) -> bool| status.disks.iter().filter(|d| f(d)).count();
    let (moved, proven) = (count(|d| d.restore.is_some()), count(DiskStatus::proven));
    let passed = match phase {
        Phase::Pending | Phase::Preflight => None,
        Phase::Blocked => Some(false),
        _ => Some(true),
    };
    let stopped =
        s.locked_at.as_ref().map(|t| format!("{} is SHUTOFF and locked since {}", s.server_name, t.0));
    let created = x.server_id.clone().filter(|_| x.active_at.is_some());
    let ready = x.ready_at.is_some() && !ended;
    let blockers = status.preflight.iter().filter(|f| f.severity == Severity::Blocker).count();
    vec![
        (kind::PREFLIGHT_PASSED, passed, format!("{blockers} blockers")),
        (
            kind::SOURCE_STOPPED,
            reached(stopped.is_some() && s.give_back_at.is_none()),
            stopped.unwrap_or_default(),
        ),
        (kind::DATA_TRANSFERRED, reached(disks > 0 && moved == disks), format!("{moved} of {disks} disks")),
        (
            kind::DATA_VERIFIED,
            reached(disks > 0 && proven == disks),
            format!("{proven} of {disks} disks have equal digests"),
        ),
        (kind::DESTINATION_CREATED, reached(created.is_some()), created.unwrap_or_default()),
        (
            kind::DESTINATION_READY,
            reached(ready),
            format!("{} checks passed", status.checks.iter().filter(|c| c.passed).count()),
        ),
    ]
}

fn source_retired(status: &VmMigrationStatus) -> (Option<bool>, &'static str, String) {
    let r = status.retirement.clone().unwrap_or_default();
    match (r.retired_at, r.refused) {
        (Some(at), _) => {
            (Some(true), reason::SUCCESS, format!("the old server and its volumes are gone since {}", at.0))
        }
        (None, Some(why)) => (Some(false), reason::INVALID_CONFIGURATION, why),
        _ => (None, reason::PROGRESSING, "the source is there".into()),
    }
}

/// Is the repository kept for a new try?
fn keeps_repository(status: &VmMigrationStatus) -> bool {
    let kept = |store: &StoreStatus| status.retained.iter().any(|r| r.is_repository(&store.repository));
    status.store.as_ref().is_some_and(kept)
}

fn cleaned_up(status: &VmMigrationStatus) -> (Option<bool>, &'static str, String) {
    let retained: Vec<_> = status.retained.iter().map(|r| format!("{} ({})", r.what, r.why)).collect();
    let phase = status.phase.unwrap_or_default();
    let ended = phase.succeeded() || phase.gave_up() || matches!(phase, Phase::Deleting | Phase::RollingBack);
    match (status.cleaned_up_at.is_some(), &status.trouble) {
        (true, _) if !retained.is_empty() => (Some(true), reason::RETAINED, retained.join("; ")),
        (true, _) => (Some(true), reason::SUCCESS, "nothing temporary is left".into()),
        (false, Some(t)) if ended => (Some(false), reason::TRANSIENT_ERROR, t.message.clone()),
        (false, _) if ended && keeps_repository(status) => {
            (Some(false), reason::RETAINED, retained.join("; "))
        }
        (false, _) if ended => (Some(false), reason::PROGRESSING, "removing what was temporary".into()),
        _ => (None, reason::PROGRESSING, "at the end".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([seconds(5), seconds(65), seconds(3725)], ["5s", "1m05s", "1h02m"]);
        assert_eq!([human(12), human(1536), human(3 << 30)], ["12B", "1.5KiB", "3.0GiB"]);
    }

    #[test]
    fn a_pass_has_a_progress_of_its_own() {
        let disk = |copied, bytes| DiskStatus {
            size_gib: 1,
            copied,
            progress: Some(DiskProgress { bytes, total: 1 << 30, rate: 1 << 20 }),
            ..Default::default()
        };
        let root = DiskStatus { kind: DiskKind::Image, size_gib: 100, ..Default::default() };
        let mut s = VmMigrationStatus {
            phase: Some(Phase::Copying),
            copying: Some(CopyingStatus {
                began_at: Some(Time(Timestamp::UNIX_EPOCH)),
                ..Default::default()
            }),
            disks: vec![root, disk(true, 0), disk(false, 1 << 29)],
            ..Default::default()
        };
        s.disks[1].progress = None;
        columns(&mut s, Timestamp::UNIX_EPOCH);
        assert_eq!((s.progress.as_deref(), s.eta.as_deref()), (Some("75%"), Some("8m32s")));
        s.copying = Some(CopyingStatus::default());
        columns(&mut s, Timestamp::UNIX_EPOCH);
        assert_eq!((s.progress, s.eta), (None, None), "nothing is under way");
    }

    #[test]
    fn after_success_it_stays_a_success_until_it_is_rolled_back() {
        let of = |phase, failure: Option<&str>, kinds: &[&str]| -> Vec<Option<bool>> {
            let failure = failure.map(|r| Failure { reason: r.into(), ..Default::default() });
            let mut s = VmMigrationStatus { phase: Some(phase), failure, ..Default::default() };
            present(&mut s, Some(1), Timestamp::from_second(100).unwrap());
            kinds.iter().map(|k| crate::crd::conditions::status(&s.conditions, k)).collect()
        };
        let kinds = [kind::SUCCEEDED, kind::READY, kind::RECONCILING, kind::STALLED];
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(of(Phase::Succeeded, None, &kinds), [yes, yes, no, no]);
        assert_eq!(of(Phase::Retiring, None, &kinds), [yes, yes, yes, no]);
        assert_eq!(of(Phase::Retired, None, &kinds), [yes, yes, no, no]);
        assert_eq!(of(Phase::RollingBack, Some(reason::ROLLED_BACK), &kinds), [None, no, yes, no]);
        assert_eq!(of(Phase::RolledBack, Some(reason::ROLLED_BACK), &kinds), [no, no, no, yes]);
    }

    /// `kubectl wait --for=condition=Finished` ends at either end.
    #[test]
    fn finished_is_true_at_either_end_and_says_which() {
        let of = |mut s: VmMigrationStatus| {
            present(&mut s, Some(7), Timestamp::from_second(100).unwrap());
            let c = s.conditions.into_iter().find(|c| c.type_ == kind::FINISHED).unwrap();
            (c.status, c.reason, c.message)
        };
        let with = |phase| VmMigrationStatus { phase: Some(phase), ..Default::default() };
        let told = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
        for phase in <Phase as strum::IntoEnumIterator>::iter() {
            let ended = phase.succeeded() || phase.gave_up();
            let (status, reason, _) = of(with(phase));
            assert_eq!(status, if ended { "True" } else { "False" }, "{phase}");
            assert_eq!(reason, phase.to_string());
        }
        let failure = Some(Failure { message: "no valid host".into(), ..Default::default() });
        let failed = VmMigrationStatus { failure, ..with(Phase::Failed) };
        assert_eq!(of(failed.clone()), told("True", "Failed", "it has failed: no valid host"));
        let again =
            VmMigrationStatus { retry_requested_at: Some(Time(Timestamp::UNIX_EPOCH)), ..failed.clone() };
        assert_eq!(of(again), told("False", "Failed", "it is to be tried again"));
        assert_eq!(of(with(Phase::Retiring)), told("True", "Retiring", "it has succeeded"));
        assert_eq!(of(with(Phase::Blocked)), told("False", "Blocked", "it has not ended yet"));

        // Deletion is an end, too: the object goes, and a wait for a condition would not notice.
        let now = Timestamp::from_second(100).unwrap();
        let last = last_word(&with(Phase::Transferring), Some(7), now).unwrap();
        assert_eq!(of(last.clone()), told("True", "Deleting", "it was deleted before it had succeeded"));
        assert_eq!(last_word(&last, Some(7), now), None, "told once");
        assert_eq!(last_word(&failed, Some(7), now), None);
    }

    #[test]
    fn conditions_of_each_phase() {
        let cancelled = Failure { cancelled: true, ..Default::default() };
        let trouble = Trouble { what: "x".into(), ..Default::default() };
        let with = |phase| VmMigrationStatus { phase: Some(phase), ..Default::default() };
        let table = [
            (with(Phase::Preflight), [Some(false), Some(true), Some(false), None], reason::PROGRESSING),
            (
                with(Phase::Blocked),
                [Some(false), Some(true), Some(false), None],
                reason::INVALID_CONFIGURATION,
            ),
            (
                with(Phase::AwaitingCutover),
                [Some(false), Some(true), Some(false), None],
                reason::WAITING_FOR_YOU,
            ),
            (with(Phase::Held), [Some(false), Some(true), Some(false), None], reason::WAITING_FOR_YOU),
            (
                VmMigrationStatus { trouble: Some(trouble), ..with(Phase::Transferring) },
                [Some(false), Some(true), Some(false), None],
                reason::TRANSIENT_ERROR,
            ),
            (with(Phase::Succeeded), [Some(true), Some(false), Some(false), Some(true)], reason::SUCCESS),
            (
                VmMigrationStatus { failure: Some(Failure::default()), ..with(Phase::Failed) },
                [Some(false), Some(false), Some(true), Some(false)],
                reason::UNRECOVERABLE_ERROR,
            ),
            (
                VmMigrationStatus { failure: Some(cancelled), ..with(Phase::Cancelled) },
                [Some(false), Some(false), Some(true), Some(false)],
                reason::CANCELLED,
            ),
        ];
        for (mut status, wanted, why) in table {
            present(&mut status, Some(7), Timestamp::from_second(100).unwrap());
            let find = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).cloned().unwrap();
            let kinds = [kind::READY, kind::RECONCILING, kind::STALLED, kind::SUCCEEDED];
            for (kind, wanted) in kinds.into_iter().zip(wanted) {
                let text = wanted.map_or("Unknown", |yes| if yes { "True" } else { "False" });
                assert_eq!(find(kind).status, text, "{kind} in {:?}", status.phase);
                assert_eq!(find(kind).observed_generation, Some(7));
            }
            assert_eq!(find(kind::READY).reason, why, "{:?}", status.phase);
        }
    }

    #[test]
    fn presenting_twice_changes_nothing() {
        let mut s = VmMigrationStatus { phase: Some(Phase::Transferring), ..Default::default() };
        present(&mut s, Some(3), Timestamp::from_second(100).unwrap());
        let first = s.clone();
        present(&mut s, Some(3), Timestamp::from_second(109).unwrap());
        assert_eq!(s, first);
    }
}
