//! `describe`: one migration for people; what matters first, digests last.

use super::{
    cli::NamedOnly,
    connect::Session,
    end::{Done, Ended},
    text, watch,
};
use crate::{
    crd::v1alpha1::*,
    migration::present::{human, seconds},
};
use jiff::tz::TimeZone;
use kube::ResourceExt;

/// `kubectl vmmigration describe`
pub async fn run(session: Session, args: &NamedOnly) -> Done {
    let object = session.migration(&args.name).await?;
    for section in sections(&object, &TimeZone::system()) {
        if !section.title.is_empty() {
            println!("{}", text::title(section.title));
        }
        section.lines.iter().for_each(|line| println!("{}", text::fitting(line)));
    }
    Ok(Ended::Well)
}

/// A part of the description.
#[derive(Debug)]
struct Section {
    title: &'static str,
    lines: Vec<String>,
}

/// All parts that say something, in order.
fn sections(object: &VmMigration, zone: &TimeZone) -> Vec<Section> {
    let status = object.status.clone().unwrap_or_default();
    let section = |title, lines| Section { title, lines };
    let mut all = vec![
        section("", head(object, &status, zone)),
        section("In the way", findings(&status, |s| s == Severity::Blocker)),
        section("Hooks", hooks(&status, zone)),
        section("Requests", requests(&status)),
        section("Warnings", findings(&status, |s| s == Severity::Warning)),
        section("Checks in the destination", checks(&status)),
        section("Source", source(object, &status, zone)),
        section("Destination", destination(object, &status, zone)),
        section("What changes", fidelity(&status)),
        section(
            "What stays behind",
            status.retained.iter().map(|r| format!("  {}: {}", r.what, r.why)).collect(),
        ),
        section("What happened", timeline(&status, zone)),
        section("Disks", watch::bars(&status).iter().map(|b| format!("  {}  {}", b.label, b.text)).collect()),
        section("Digests", digests(&status)),
    ];
    all.retain(|s| !s.lines.is_empty());
    all
}

fn head(object: &VmMigration, status: &VmMigrationStatus, zone: &TimeZone) -> Vec<String> {
    let phase = status.phase.unwrap_or_default();
    let since = status.phase_since.as_ref().map(|t| format!(" since {}", text::date(t.0, zone)));
    let mut lines = vec![format!("{}: {phase}{}", object.name_any(), since.unwrap_or_default())];
    lines
        .push(format!("  {}", status.message.as_deref().unwrap_or("The operator has not looked at it yet.")));
    if let Some(failure) = &status.failure {
        lines.push(format!("  Failed: {} ({})", failure.message, failure.reason));
    }
    if let Some(trouble) = &status.trouble {
        let since = trouble.since.as_ref().map(|t| format!(", since {}", text::clock(t.0, zone)));
        let (what, count) = (&trouble.what, trouble.count);
        lines.push(format!(
            "  Trouble with {what}, tried {count} times{}: {}",
            since.unwrap_or_default(),
            trouble.message
        ));
    }
    if let Some(since) = &status.suspended_since {
        lines.push(format!("  Suspended since {}", text::date(since.0, zone)));
    }
    if let Some(next) = next_command(object, phase, status) {
        lines.push(format!("  Next: {next}"));
    }
    let runs = status.running_in.map(|r| format!("runs in {}", watch::place(r)));
    let down = status.down.as_ref().map(|d| format!("neither side served for {d}"));
    let facts: Vec<String> = [runs, status.progress.clone(), down].into_iter().flatten().collect();
    if !facts.is_empty() {
        lines.push(format!("  {}", facts.join(", ")));
    }
    lines
}

fn next_command(object: &VmMigration, phase: Phase, status: &VmMigrationStatus) -> Option<String> {
    let name = object.name_any();
    let waiting = status.hooks.iter().find(|h| h.state == HookState::Waiting && h.nonce.is_some());
    match (waiting, phase) {
        (Some(hook), _) => Some(format!("kubectl vmmigration attach {name} --hook {}=./SCRIPT", hook.name)),
        _ if status.suspended_since.is_some() => Some(format!("kubectl vmmigration resume {name}")),
        (_, Phase::AwaitingCutover | Phase::Copying | Phase::Stopping) if missed(status) => Some(format!(
            "kubectl vmmigration cutover {name}, or for another time: kubectl vmmigration cutover {name} --at TIME"
        )),
        (_, Phase::AwaitingCutover | Phase::Copying) if object.spec.cutover.mode == CutoverMode::Manual => {
            Some(format!("kubectl vmmigration cutover {name}"))
        }
        (_, Phase::RollingBack) if waits_for_destination(status) => Some(format!(
            "bring {to} back; if it is gone for good: kubectl vmmigration start-source {name}",
            to = object.spec.destination.cloud
        )),
        (_, Phase::Held) => {
            Some(format!("kubectl vmmigration retry {name}, or kubectl vmmigration cancel {name}"))
        }
        (_, Phase::Failed) => Some(format!("kubectl vmmigration retry {name}")),
        _ => None,
    }
}

/// Its time has passed, and does not count.
fn missed(status: &VmMigrationStatus) -> bool {
    status.cutover.as_ref().is_some_and(|c| c.missed)
}

/// The way back is stuck, since what runs in the destination cannot be seen.
fn waits_for_destination(status: &VmMigrationStatus) -> bool {
    let stuck = |w: &WayBack| w.stage == WayBackStage::Destination && w.stalled_since.is_some();
    status.way_back.as_ref().is_some_and(stuck)
}

fn findings(status: &VmMigrationStatus, wanted: impl Fn(Severity) -> bool) -> Vec<String> {
    let mut lines = vec![];
    for finding in status.preflight.iter().filter(|f| wanted(f.severity)) {
        lines.push(format!("  {}: {}", finding.id, finding.message));
        lines.extend(finding.suggestion.iter().map(|s| format!("      {s}")));
    }
    lines
}

fn hooks(status: &VmMigrationStatus, zone: &TimeZone) -> Vec<String> {
    let mut lines = vec![];
    for row in &status.hooks {
        let mut line = format!("  {} ({}): {}", row.name, row.phase, row.state);
        if row.attempts > 0 {
            line.push_str(&format!(", attempt {}", row.attempts));
        }
        line.extend(row.exit_code.map(|c| format!(", exit code {c}")));
        line.extend(row.seconds.map(|s| format!(", {}", seconds(s))));
        line.extend(row.client.as_ref().map(|c| format!(", by {c}")));
        line.extend(row.deadline.as_ref().map(|d| format!(", until {}", text::clock(d.0, zone))));
        lines.push(line);
        lines.extend(row.message.iter().map(|m| format!("      {m}")));
        let output = row.output.iter().flat_map(|o| o.lines());
        lines.extend(output.map(|l| format!("      | {l}")));
    }
    lines
}

fn requests(status: &VmMigrationStatus) -> Vec<String> {
    let line = |r: &RequestRow| format!("  {:?} {}: {:?}: {}", r.name, r.token, r.result, r.message);
    status.requests.iter().map(line).collect()
}

fn checks(status: &VmMigrationStatus) -> Vec<String> {
    let line =
        |c: &CheckRow| format!("  {} {}: {}", if c.passed { "passed" } else { "not yet" }, c.name, c.message);
    status.checks.iter().map(line).collect()
}

fn source(object: &VmMigration, status: &VmMigrationStatus, zone: &TimeZone) -> Vec<String> {
    let Some(s) = &status.source else { return vec![] };
    let mut lines = vec![format!(
        "  {} ({}) in {}: {}",
        s.server_name, s.server_id, object.spec.source.cloud, s.server_status
    )];
    lines.extend((!s.addresses.is_empty()).then(|| format!("  addresses {}", s.addresses.join(", "))));
    let moments = [("stopped", &s.stopped_at), ("locked", &s.locked_at), ("given back", &s.give_back_at)];
    lines.extend(
        moments
            .iter()
            .filter_map(|(what, at)| Some(format!("  {what} {}", text::date(at.as_ref()?.0, zone)))),
    );
    lines
}

fn destination(object: &VmMigration, status: &VmMigrationStatus, zone: &TimeZone) -> Vec<String> {
    let mut lines = vec![];
    if let Some(plan) = &status.plan {
        lines.push(format!(
            "  {} in {}, flavor {}",
            plan.server_name, object.spec.destination.cloud, plan.flavor_name
        ));
        for port in &plan.ports {
            let fixed: Vec<_> = port.fixed_ips.iter().filter_map(|f| f.ip_address.clone()).collect();
            let address =
                if fixed.is_empty() { "an address that the cloud chooses".into() } else { fixed.join(", ") };
            lines.push(format!("  port in {}: {address}", port.network_name));
        }
    }
    let Some(x) = &status.destination else { return lines };
    if let Some(id) = &x.server_id {
        lines.push(format!("  server {id}: {}", x.server_status.as_deref().unwrap_or("asked for")));
    }
    lines.extend((!x.addresses.is_empty()).then(|| format!("  addresses {}", x.addresses.join(", "))));
    let moments = [("ran first", &x.active_at), ("proven", &x.ready_at)];
    lines.extend(
        moments
            .iter()
            .filter_map(|(what, at)| Some(format!("  {what} {}", text::date(at.as_ref()?.0, zone)))),
    );
    lines
}

/// What is kept is not listed: it is what one expects.
fn fidelity(status: &VmMigrationStatus) -> Vec<String> {
    let told = |r: &&FidelityRow| r.fate != Fate::Kept;
    let line = |r: &FidelityRow| format!("  {} {:?}: {}", r.attribute, r.fate, r.why);
    status.fidelity.iter().filter(told).map(line).collect()
}

fn timeline(status: &VmMigrationStatus, zone: &TimeZone) -> Vec<String> {
    let line = |r: &TimelineRow| {
        format!("  {}  {:<15}  {}", text::clock(r.at.0, zone), r.phase.to_string(), r.message)
    };
    status.timeline.iter().map(line).collect()
}

fn digests(status: &VmMigrationStatus) -> Vec<String> {
    status.disks.iter().flat_map(disk_digests).collect()
}

/// What is proven of a disk, by whom; otherwise what was read of it so far.
fn disk_digests(disk: &DiskStatus) -> Vec<String> {
    let n = disk.index;
    let readings = || disk.readings().map(|(what, digest)| format!("      {what}: {digest}"));
    match disk.verdict() {
        Verdict::Proven(proof) => vec![
            format!("  disk {n} is proven: {}, {proof}", human(proof.bytes)),
            format!(
                "      read in the source by its {}, read back in the destination by its {}",
                words(&proof.source_read_by),
                words(&proof.destination_read_by)
            ),
        ],
        Verdict::Differs(_) => {
            let title =
                format!("  disk {n} DIFFERS: the destination does not have what was read in the source");
            [title].into_iter().chain(readings()).collect()
        }
        Verdict::Open if disk.readings().next().is_none() => vec![],
        Verdict::Open => [format!("  disk {n} is not proven yet")].into_iter().chain(readings()).collect(),
    }
}

/// `image-service` as a person says it.
pub fn words(reader: &str) -> String {
    reader.replace('-', " ")
}

#[cfg(test)]
mod tests {
    use super::{super::watch::tests::object, *};
    use serde_json::json;

    fn titles(object: &VmMigration) -> Vec<&'static str> {
        sections(object, &TimeZone::UTC).iter().map(|s| s.title).collect()
    }

    fn text(object: &VmMigration) -> String {
        sections(object, &TimeZone::UTC).into_iter().flat_map(|s| s.lines).map(|l| l + "\n").collect()
    }

    #[test]
    fn messages_come_first_and_digests_last() {
        let object = object(json!({
            "phase": "Blocked", "message": "Blocked, nothing was touched: no flavor",
            "preflight": [{"id": "flavor-not-found", "severity": "Blocker", "message": "no m1", "suggestion": "set destination.flavor"},
                {"id": "no-checks", "severity": "Warning", "message": "nothing proves the application"}],
            "source": {"serverName": "web-1", "serverId": "a1", "serverStatus": "ACTIVE", "addresses": ["10.0.0.5"]},
            "fidelity": [{"attribute": "address", "fate": "changed", "why": "no such subnet"},
                {"attribute": "name", "fate": "kept", "why": "free"}],
            "timeline": [{"at": "2026-08-29T20:00:00Z", "phase": "Pending", "message": "first seen"}],
            "disks": [{"index": 0, "sizeGib": 1, "stage": "Verified",
                "backup": {"bytes": 1024, "sha256": "5e", "hashAlgo": "sha512", "hashValue": "ab"},
                "restore": {"bytes": 1024, "sha256": "5e", "hashAlgo": "sha512", "hashValue": "ab"},
                "readback": {"bytes": 1024, "hashAlgo": "sha512", "hashValue": "ab"}}],
        }));
        assert_eq!(
            titles(&object),
            ["", "In the way", "Warnings", "Source", "What changes", "What happened", "Disks", "Digests"]
        );
        let text = text(&object);
        assert!(text.starts_with("web-1: Blocked\n  Blocked, nothing was touched: no flavor\n"), "{text}");
        assert!(text.contains("  flavor-not-found: no m1\n      set destination.flavor\n"), "{text}");
        assert!(!text.contains("name Kept") && text.contains("address Changed: no such subnet"), "{text}");
        let end = "  disk 0 is proven: 1.0KiB, sha512 ab\n      read in the source by its image service, \
                   read back in the destination by its image service\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_disk_is_proven_or_differs_or_neither() {
        let told = |backup, restore, readback| {
            let disk = json!({"index": 1, "backup": backup, "restore": restore, "readback": readback});
            disk_digests(&serde_json::from_value(disk).unwrap()).join("\n")
        };
        let segments = |value: &str| json!({"bytes": 1, "sha256": value});
        let none = json!(null);
        assert_eq!(
            told(segments("5e"), segments("5e"), segments("5e")),
            "  disk 1 is proven: 1B, sha256-of-segments 5e\n      \
             read in the source by its mover, read back in the destination by its mover"
        );
        assert_eq!(
            told(segments("5e"), segments("5e"), segments("00")),
            "  disk 1 DIFFERS: the destination does not have what was read in the source\n      \
             read in the source: 1 bytes, sha256-of-segments 5e\n      \
             written in the destination: 1 bytes, sha256-of-segments 5e\n      \
             read back in the destination: 1 bytes, sha256-of-segments 00"
        );
        assert_eq!(
            told(segments("5e"), none.clone(), none.clone()),
            "  disk 1 is not proven yet\n      read in the source: 1 bytes, sha256-of-segments 5e"
        );
        assert_eq!(told(none.clone(), none.clone(), none), "");
    }

    #[test]
    fn the_next_command_is_named() {
        let mut waiting = object(json!({"phase": "AwaitingCutover"}));
        waiting.spec.cutover.mode = CutoverMode::Manual;
        assert!(text(&waiting).contains("Next: kubectl vmmigration cutover web-1"));
        for phase in ["AwaitingCutover", "Copying", "Stopping"] {
            let mut missed = object(json!({"phase": phase, "cutover": {"missed": true}}));
            missed.spec.cutover.mode = CutoverMode::At;
            let told = text(&missed);
            assert!(told.contains("Next: kubectl vmmigration cutover web-1, or for another time:"), "{told}");
        }
        let mut awaited =
            object(json!({"phase": "AwaitingCutover", "cutover": {"awaits": "2030-08-29T20:00:00Z"}}));
        awaited.spec.cutover.mode = CutoverMode::At;
        assert!(!text(&awaited).contains("Next:"), "it goes on by itself");
        let stuck = |stage: &str| {
            let at = "2026-08-29T20:00:00Z";
            text(&object(
                json!({"phase": "RollingBack", "wayBack": {"stage": stage, "since": at, "stalledSince": at}}),
            ))
        };
        let told = stuck("Destination");
        assert!(
            told.contains(
                "Next: bring site-b back; if it is gone for good: kubectl vmmigration start-source web-1"
            ),
            "{told}"
        );
        assert!(!stuck("Source").contains("start-source"));
        let hook = object(json!({"phase": "Stopping", "hooks": [
            {"name": "stop", "phase": "BeforeStop", "state": "Waiting", "nonce": "n", "output": "a\nb"}]}));
        assert!(text(&hook).contains("Next: kubectl vmmigration attach web-1 --hook stop=./SCRIPT"));
        assert!(text(&hook).contains("      | a\n      | b\n"));
        assert!(text(&object(json!({}))).contains("has not looked at it yet"));
    }
}
