//! `watch`: what a follower is shown, as plain values, and the call itself.

use super::{
    cli::WatchArgs,
    connect::Session,
    end::Done,
    follow::{Follow, follow},
    text,
};
use crate::{
    crd::v1alpha1::*,
    migration::present::{human, seconds},
};
use jiff::tz::TimeZone;
use kube::ResourceExt;

/// `kubectl vmmigration watch`
pub async fn run(session: Session, args: &WatchArgs) -> Done {
    follow(&session, &args.name, Follow::of(&args.follow)).await
}

/// One disk's bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// `disk 0  1.0GiB`
    pub label: String,
    /// Bytes copied, of the transfer that runs.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// What is being done, the bytes, the rate, the time left.
    pub text: String,
}

/// A bar for each disk.
pub fn bars(status: &VmMigrationStatus) -> Vec<Bar> {
    status.disks.iter().map(bar).collect()
}

fn bar(disk: &DiskStatus) -> Bar {
    let label = format!("disk {}  {}", disk.index, human(disk.size_gib << 30));
    let number = |n: i64| n.max(0).unsigned_abs();
    match (&disk.progress, disk.verdict().proof()) {
        (_, Some(proof)) => {
            let total = number(proof.bytes).max(1);
            let text = format!("proven: {} with equal digests", human(proof.bytes));
            Bar { label, done: total, total, text }
        }
        (Some(p), None) if p.total > 0 => {
            let text = format!("{}  {}/{}{}", short(&disk.stage), human(p.bytes), human(p.total), speed(p));
            Bar { label, done: number(p.bytes.min(p.total)), total: number(p.total), text }
        }
        _ => Bar { label, done: 0, total: 1, text: short(&disk.stage).into() },
    }
}

fn speed(p: &DiskProgress) -> String {
    if p.rate <= 0 {
        return String::new();
    }
    format!("  {}/s  ETA {}", human(p.rate), seconds((p.total - p.bytes).max(0) / p.rate))
}

/// The stage without its own numbers, which the bar shows.
fn short(stage: &str) -> &str {
    stage.split(':').next().unwrap_or(stage).trim()
}

/// One line that says where it stands: phase, progress, where it runs, for how long it is down, the message.
pub fn headline(object: &VmMigration) -> String {
    let status = object.status.clone().unwrap_or_default();
    let mut parts = vec![status.phase.unwrap_or_default().to_string()];
    parts.extend(status.progress.clone());
    parts.extend(status.running_in.map(|r| format!("runs in {}", place(r))));
    parts.extend(status.down.as_ref().map(|d| format!("down {d}")));
    parts.extend(status.message.clone());
    parts.join("  ")
}

/// `A`, `B`, `none`
pub fn place(running_in: RunningIn) -> &'static str {
    match running_in {
        RunningIn::A => "A",
        RunningIn::B => "B",
        RunningIn::None => "none",
    }
}

/// What was told already.
#[derive(Clone, Debug, Default)]
pub struct Told {
    last: Option<TimelineRow>,
    message: String,
    disks: Vec<String>,
    hooks: Vec<(String, HookState, i32)>,
}

/// How much of what happened before is told at first.
const EARLIER: usize = 6;

impl Told {
    /// What has happened since the last call, as lines: the timeline, hooks, new messages.
    pub fn news(&mut self, object: &VmMigration, zone: &TimeZone) -> Vec<String> {
        let status = object.status.clone().unwrap_or_default();
        let mut lines = self.happened(&status, zone);
        lines.extend(self.hooks(&status));
        lines.extend(self.message(&status));
        lines
    }

    fn happened(&mut self, status: &VmMigrationStatus, zone: &TimeZone) -> Vec<String> {
        let rows = &status.timeline;
        let known = self.last.as_ref().and_then(|last| rows.iter().rposition(|r| r == last));
        let from = match (&self.last, known) {
            (_, Some(index)) => index + 1,
            (None, None) => rows.len().saturating_sub(EARLIER),
            (Some(_), None) => 0,
        };
        let mut lines = vec![];
        if self.last.is_none() && from > 0 {
            lines.push(format!("          {from} earlier events; `kubectl vmmigration describe` shows them"));
        }
        let line = |r: &TimelineRow| {
            format!("{}  {:<15}  {}", text::clock(r.at.0, zone), r.phase.to_string(), r.message)
        };
        lines.extend(rows[from..].iter().map(line));
        self.last = rows.last().cloned().or(self.last.take());
        lines
    }

    fn hooks(&mut self, status: &VmMigrationStatus) -> Vec<String> {
        let now: Vec<_> = status.hooks.iter().map(|r| (r.name.clone(), r.state, r.attempts)).collect();
        let is_new = |r: &&HookRow| {
            r.state != HookState::Pending && !self.hooks.contains(&(r.name.clone(), r.state, r.attempts))
        };
        let lines = status.hooks.iter().filter(is_new).map(hook_line).collect();
        self.hooks = now;
        lines
    }

    /// A message that differs from the last one in more than its numbers.
    fn message(&mut self, status: &VmMigrationStatus) -> Option<String> {
        let message = status.message.clone().filter(|m| !m.is_empty())?;
        let gist: String = message.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
        let gist = gist.replace("##", "#").replace("##", "#");
        if gist == self.message {
            return None;
        }
        self.message = gist;
        Some(format!("          {message}"))
    }

    /// One line for each disk that has got on by a tenth, or to something else.
    pub fn disks(&mut self, status: &VmMigrationStatus) -> Vec<String> {
        let bars = bars(status);
        let tenth =
            |b: &Bar| format!("{} {}", b.done * 10 / b.total.max(1), b.text.split("  ").next().unwrap_or(""));
        let now: Vec<_> = bars.iter().map(tenth).collect();
        let moved = bars.iter().zip(&now).enumerate();
        let lines = moved
            .filter(|(i, (_, mark))| self.disks.get(*i) != Some(*mark))
            .map(|(_, (bar, _))| {
                format!("          {}  {}%  {}", bar.label, bar.done * 100 / bar.total.max(1), bar.text)
            })
            .collect();
        self.disks = now;
        lines
    }
}

fn hook_line(row: &HookRow) -> String {
    let mut line = format!("          hook {} ({}): {}", row.name, row.phase, row.state);
    if let Some(code) = row.exit_code {
        line.push_str(&format!(", exit code {code}"));
    }
    if let Some(message) = &row.message {
        line.push_str(&format!(": {message}"));
    }
    line
}

/// What a migration that has ended is told with.
pub fn last_words(object: &VmMigration) -> Vec<String> {
    let status = object.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let mut lines = vec![format!("{}: {phase}", object.name_any())];
    lines.extend(status.message.clone().map(|m| format!("  {m}")));
    if let Some(failure) = &status.failure
        && status.message.as_ref().is_none_or(|m| !m.contains(&failure.message))
    {
        lines.push(format!("  Because: {}", failure.message));
    }
    lines.extend(status.down.as_ref().map(|d| format!("  Neither side served for {d}")));
    for blocker in status.preflight.iter().filter(|_| phase == Phase::Blocked) {
        lines.push(format!("  {:?} {}: {}", blocker.severity, blocker.id, blocker.message));
        lines.extend(blocker.suggestion.iter().map(|s| format!("    {s}")));
    }
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A migration in the middle of its copy.
    pub fn copying() -> VmMigration {
        let read = json!({"bytes": 1_073_741_824, "sha256": "5e"});
        object(json!({
            "phase": "Transferring", "message": "Backing up disk 0: 42% (0/2 disks done)", "progress": "21%",
            "runningIn": "none", "down": "1m10s",
            "timeline": [
                {"at": "2026-08-29T20:00:00Z", "phase": "Pending", "message": "first seen"},
                {"at": "2026-08-29T20:00:05Z", "phase": "Stopping", "message": "server web-1 is SHUTOFF"},
            ],
            "disks": [
                {"index": 0, "sizeGib": 2, "stage": "Backing up: 42%",
                    "progress": {"bytes": 450_887_680, "total": 1_073_741_824, "rate": 10_485_760}},
                {"index": 1, "sizeGib": 1, "stage": "Verified", "backup": read, "restore": read, "readback": read},
                {"index": 2, "sizeGib": 1, "stage": "Waiting"},
            ],
        }))
    }

    pub fn object(status: Value) -> VmMigration {
        serde_json::from_value(json!({
            "apiVersion": "vmmigration.io/v1alpha1", "kind": "VmMigration",
            "metadata": {"name": "web-1", "namespace": "team"},
            "spec": {"source": {"cloud": "site-a", "server": "web-1"}, "destination": {"cloud": "site-b"},
                "cutover": {"mode": "Now"}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_bar_for_each_disk() {
        let bars = bars(&copying().status.unwrap());
        let told: Vec<_> =
            bars.iter().map(|b| (b.label.as_str(), b.done * 100 / b.total, b.text.as_str())).collect();
        assert_eq!(
            told,
            [
                ("disk 0  2.0GiB", 41, "Backing up  430.0MiB/1.0GiB  10.0MiB/s  ETA 59s"),
                ("disk 1  1.0GiB", 100, "proven: 1.0GiB with equal digests"),
                ("disk 2  1.0GiB", 0, "Waiting"),
            ]
        );
    }

    #[test]
    fn the_headline_has_everything() {
        let line = headline(&copying());
        assert_eq!(
            line,
            "Transferring  21%  runs in none  down 1m10s  Backing up disk 0: 42% (0/2 disks done)"
        );
        assert_eq!(headline(&object(json!({}))), "Pending");
    }

    #[test]
    fn lines_tell_only_what_is_new() {
        let mut told = Told::default();
        let mut now = copying();
        let first = told.news(&now, &TimeZone::UTC);
        assert_eq!(
            first,
            [
                "20:00:00  Pending          first seen",
                "20:00:05  Stopping         server web-1 is SHUTOFF",
                "          Backing up disk 0: 42% (0/2 disks done)",
            ]
        );
        let status = now.status.as_mut().unwrap();
        status.message = Some("Backing up disk 0: 100% (0/2 disks done)".into());
        assert!(told.news(&now, &TimeZone::UTC).is_empty(), "only a number has changed");
        let status = now.status.as_mut().unwrap();
        status.timeline.push(TimelineRow {
            phase: Phase::Creating,
            message: "asking".into(),
            ..status.timeline[1].clone()
        });
        assert_eq!(told.news(&now, &TimeZone::UTC), ["20:00:05  Creating         asking"]);
    }

    #[test]
    fn a_long_past_is_not_told() {
        let row =
            |n| json!({"at": "2026-08-29T20:00:00Z", "phase": "Pending", "message": format!("event {n}")});
        let rows: Vec<_> = (0..20).map(row).collect();
        let lines = Told::default().news(&object(json!({"timeline": rows})), &TimeZone::UTC);
        assert_eq!(lines.len(), EARLIER + 1);
        assert!(lines[0].contains("14 earlier events") && lines[6].ends_with("event 19"), "{lines:?}");
    }

    #[test]
    fn disks_are_told_by_tenths() {
        let mut told = Told::default();
        let mut status = copying().status.unwrap();
        assert_eq!(told.disks(&status).len(), 3);
        status.disks[0].progress.as_mut().unwrap().bytes += 1 << 20;
        assert!(told.disks(&status).is_empty());
        status.disks[0].progress.as_mut().unwrap().bytes += 200 << 20;
        let lines = told.disks(&status);
        assert_eq!(lines, ["          disk 0  2.0GiB  61%  Backing up  631.0MiB/1.0GiB  10.0MiB/s  ETA 39s"]);
    }

    #[test]
    fn hooks_are_told_when_they_change() {
        let mut told = Told::default();
        let hook = |state, code: Value| {
            object(
                json!({"hooks": [{"name": "stop", "phase": "BeforeStop", "state": state, "attempts": 1, "exitCode": code}]}),
            )
        };
        assert!(told.news(&hook("Pending", Value::Null), &TimeZone::UTC).is_empty());
        let waiting = told.news(&hook("Waiting", Value::Null), &TimeZone::UTC);
        assert_eq!(waiting, ["          hook stop (BeforeStop): Waiting"]);
        assert!(told.news(&hook("Waiting", Value::Null), &TimeZone::UTC).is_empty());
        let over = told.news(&hook("Succeeded", json!(0)), &TimeZone::UTC);
        assert_eq!(over, ["          hook stop (BeforeStop): Succeeded, exit code 0"]);
    }

    #[test]
    fn an_end_says_why() {
        let failed = object(json!({"phase": "Failed", "message": "web-1 runs in site-a again", "down": "5s",
            "failure": {"reason": "X", "message": "site-b: no valid host"}}));
        let lines = last_words(&failed);
        assert_eq!(
            lines,
            [
                "web-1: Failed",
                "  web-1 runs in site-a again",
                "  Because: site-b: no valid host",
                "  Neither side served for 5s"
            ]
        );
        let blocked = object(json!({"phase": "Blocked", "preflight": [
            {"id": "flavor-not-found", "severity": "Blocker", "message": "no flavor m1", "suggestion": "set one"}]}));
        assert_eq!(last_words(&blocked)[1..], ["  Blocker flavor-not-found: no flavor m1", "    set one"]);
    }
}
