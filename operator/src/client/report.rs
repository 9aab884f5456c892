//! `report`: the evidence of a finished migration.

use super::{
    cli::{Evidence, ReportArgs},
    connect::Session,
    describe::words,
    end::{Done, Ended, Stop, explain},
    list::{json, yaml},
    table::table,
    text,
};
use crate::{
    crd::{stored::Stored, v1alpha1::*},
    migration::present::{human, seconds},
};
use jiff::tz::TimeZone;
use kube::{ResourceExt, api::ListParams};

/// `kubectl vmmigration report`
pub async fn run(session: Session, args: &ReportArgs) -> Done {
    let report = find(&session, &args.name).await?;
    let report = text::clean_object(report).map_err(|e| Stop::failed(e.to_string()))?;
    match args.output {
        Evidence::Table => print!("{}", plain(&report, &TimeZone::system())),
        Evidence::Json => println!("{}", json(&report)?),
        Evidence::Yaml => print!("{}", yaml(&report)?),
        Evidence::Markdown => print!("{}", markdown(&report, &TimeZone::system())),
    }
    Ok(Ended::Well)
}

/// The report of this name, or the newest of a migration of this name, which may be gone.
async fn find(session: &Session, name: &str) -> Result<VmMigrationReport, Stop> {
    let what = format!("listing VmMigrationReports in namespace {}", session.namespace);
    let all = session.api::<Stored<VmMigrationReport>>().list(&ListParams::default()).await;
    let (all, unreadable) = Stored::split(all.map_err(explain(what))?.items);
    unreadable.iter().for_each(|why| eprintln!("{}", text::clean(&text::unreadable(why))));
    newest(all, name).ok_or_else(|| {
        Stop::failed(format!(
            "there is no report of {name} in namespace {}: it is written when a migration has succeeded. \
             `kubectl vmmigration describe {name}` shows how far it is.",
            session.namespace
        ))
    })
}

fn newest(mut all: Vec<VmMigrationReport>, name: &str) -> Option<VmMigrationReport> {
    all.retain(|r| r.name_any() == name || r.spec.migration == name);
    all.into_iter().max_by_key(|r| (r.name_any() == name, r.spec.finished_at.0))
}

/// What both forms say, as pairs.
fn facts(report: &VmMigrationReport, zone: &TimeZone) -> Vec<(&'static str, String)> {
    let spec = &report.spec;
    let server = |s: &ReportedServer| {
        let addresses =
            if s.addresses.is_empty() { String::new() } else { format!(" at {}", s.addresses.join(", ")) };
        format!("{} ({}) in {}, project {}{addresses}", s.server_name, s.server_id, s.cloud, s.project_id)
    };
    let mut facts = vec![
        ("Outcome", spec.outcome.clone()),
        ("Source", server(&spec.source)),
        ("Destination", server(&spec.destination)),
    ];
    facts.extend(spec.started_at.as_ref().map(|t| ("Started", text::date(t.0, zone))));
    facts.push(("Finished", text::date(spec.finished_at.0, zone)));
    facts.extend(spec.downtime_seconds.map(|s| ("Down for", seconds(s))));
    let cleaned = report.status.as_ref().and_then(|s| s.cleaned_up_at.as_ref());
    facts.extend(cleaned.map(|t| ("Cleaned up", text::date(t.0, zone))));
    facts
}

/// A table's title, head and rows.
struct Part {
    title: &'static str,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

fn parts(report: &VmMigrationReport, zone: &TimeZone) -> Vec<Part> {
    let spec = &report.spec;
    let part = |title, head: &[&'static str], rows| Part { title, head: head.to_vec(), rows };
    let retained = report.status.iter().flat_map(|s| &s.retained);
    let mut all = vec![
        part(
            "Disks",
            &[
                "Disk",
                "Bytes",
                "Proven",
                "Digest",
                "Read in the source by",
                "Read back in the destination by",
            ],
            spec.disks.iter().map(disk).collect(),
        ),
        part(
            "Checks",
            &["Check", "Passed", "Answer"],
            spec.checks.iter().map(|c| vec![c.name.clone(), yes(c.passed), c.message.clone()]).collect(),
        ),
        part("Hooks", &["Hook", "Phase", "State", "Attempts", "Exit code", "Message"], hooks(report)),
        part(
            "What was kept, changed, dropped",
            &["Attribute", "Fate", "Why"],
            spec.fidelity
                .iter()
                .map(|f| vec![f.attribute.clone(), format!("{:?}", f.fate), f.why.clone()])
                .collect(),
        ),
        part(
            "What happened",
            &["When", "Phase", "What"],
            spec.timeline
                .iter()
                .map(|t| vec![text::date(t.at.0, zone), t.phase.to_string(), t.message.clone()])
                .collect(),
        ),
        part("What stays", &["What", "Why"], retained.map(|r| vec![r.what.clone(), r.why.clone()]).collect()),
    ];
    all.retain(|p| !p.rows.is_empty());
    all
}

/// Hooks of the end run after the evidence is written: the status has their last word.
fn hooks(report: &VmMigrationReport) -> Vec<Vec<String>> {
    let later = report.status.iter().flat_map(|s| &s.hooks);
    let before = report.spec.hooks.iter().filter(|h| !later.clone().any(|l| l.name == h.name));
    let row = |h: &HookRow| {
        let code = h.exit_code.map(|c| c.to_string()).unwrap_or_default();
        let (name, message) = (h.name.clone(), h.message.clone().unwrap_or_default());
        vec![name, h.phase.to_string(), h.state.to_string(), h.attempts.to_string(), code, message]
    };
    before.chain(later.clone()).map(row).collect()
}

fn disk(disk: &DiskStatus) -> Vec<String> {
    let cells = |bytes: i64, proven: &str, rest: [String; 3]| {
        [disk.index.to_string(), human(bytes), proven.to_string()].into_iter().chain(rest).collect()
    };
    let bytes = disk.backup.as_ref().map_or(0, |read| read.bytes);
    match disk.verdict() {
        Verdict::Proven(proof) => {
            let (source, destination) = (words(&proof.source_read_by), words(&proof.destination_read_by));
            cells(proof.bytes, "yes", [proof.to_string(), source, destination])
        }
        Verdict::Differs(what) => cells(bytes, "it differs", [what, String::new(), String::new()]),
        Verdict::Open => cells(bytes, "no", Default::default()),
    }
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.into()
}

/// For a terminal.
fn plain(report: &VmMigrationReport, zone: &TimeZone) -> String {
    let title = format!("{} of {}", report.name_any(), report.spec.migration);
    let mut out = format!("{}\n", text::title(&title));
    for (name, value) in facts(report, zone) {
        out.push_str(&format!("  {name:<12} {value}\n"));
    }
    for part in parts(report, zone) {
        let head: Vec<String> = part.head.iter().map(|h| h.to_uppercase()).collect();
        out.push_str(&format!("\n{}\n{}", text::title(part.title), table(&head, part.rows)));
    }
    out
}

/// For a ticket or a page.
fn markdown(report: &VmMigrationReport, zone: &TimeZone) -> String {
    let mut out = format!("# Migration of {}: {}\n\n", escape(&report.spec.migration), report.spec.outcome);
    for (name, value) in facts(report, zone) {
        out.push_str(&format!("- **{name}:** {}\n", escape(&value)));
    }
    for part in parts(report, zone) {
        out.push_str(&format!(
            "\n## {}\n\n| {} |\n|{}\n",
            part.title,
            part.head.join(" | "),
            "---|".repeat(part.head.len())
        ));
        for row in part.rows {
            let cells: Vec<String> = row.iter().map(|c| escape(c)).collect();
            out.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
    }
    out
}

/// Names may hold what Markdown takes for its own.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push(' '),
            '|' | '<' | '>' | '*' | '_' | '`' | '[' | ']' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn report(name: &str, migration: &str, finished: &str) -> VmMigrationReport {
        let server =
            |cloud: &str| json!({"cloud": cloud, "projectId": "p", "serverId": "s", "serverName": "web-1"});
        let mut destination: Value = server("site-b");
        destination["addresses"] = json!(["10.0.0.9"]);
        serde_json::from_value(json!({
            "apiVersion": "vmmigration.io/v1alpha1", "kind": "VmMigrationReport", "metadata": {"name": name},
            "spec": {
                "migration": migration, "uid": "u", "outcome": "Succeeded", "source": server("site-a"),
                "destination": destination, "finishedAt": finished, "downtimeSeconds": 190,
                "disks": [{"index": 0, "backup": {"bytes": 1_073_741_824, "hashAlgo": "sha512", "hashValue": "ab"},
                    "restore": {"bytes": 1_073_741_824, "hashAlgo": "sha512", "hashValue": "ab"},
                    "readback": {"bytes": 1_073_741_824, "hashAlgo": "sha512", "hashValue": "ab"}}],
                "checks": [{"name": "page", "passed": true, "message": "HTTP 200 | ok"}],
            },
            "status": {"retained": [{"what": "snapshot x", "why": "the source is stopped"}]},
        }))
        .unwrap()
    }

    #[test]
    fn markdown_is_a_page() {
        let text = markdown(&report("web-1-u", "web-1", "2026-08-29T20:00:00Z"), &TimeZone::UTC);
        assert_eq!(
            text,
            "# Migration of web-1: Succeeded\n\n\
             - **Outcome:** Succeeded\n\
             - **Source:** web-1 (s) in site-a, project p\n\
             - **Destination:** web-1 (s) in site-b, project p at 10.0.0.9\n\
             - **Finished:** 2026-08-29 20:00:00 +00:00\n\
             - **Down for:** 3m10s\n\
             \n## Disks\n\n\
             | Disk | Bytes | Proven | Digest | Read in the source by | Read back in the destination by |\n\
             |---|---|---|---|---|---|\n\
             | 0 | 1.0GiB | yes | sha512 ab | image service | image service |\n\
             \n## Checks\n\n| Check | Passed | Answer |\n|---|---|---|\n| page | yes | HTTP 200 \\| ok |\n\
             \n## What stays\n\n| What | Why |\n|---|---|\n| snapshot x | the source is stopped |\n"
        );
    }

    #[test]
    fn the_table_has_the_same_facts() {
        let text = plain(&report("web-1-u", "web-1", "2026-08-29T20:00:00Z"), &TimeZone::UTC);
        assert!(text.contains("Down for     3m10s") && text.contains("DISK  BYTES"), "{text}");
    }

    #[test]
    fn digests_that_differ_or_are_missing_prove_nothing() {
        let one = report("r", "m", "2026-08-29T20:00:00Z").spec.disks.remove(0);
        let missing = DiskStatus { readback: None, ..one.clone() };
        assert_eq!(disk(&missing)[2..4], ["no", ""]);
        assert_eq!(disk(&DiskStatus::default())[2], "no");
        let other = one.readback.clone().map(|back| Digest { hash_value: Some("cd".into()), ..back });
        let differs = disk(&DiskStatus { readback: other, ..one });
        assert!(differs[2] == "it differs" && differs[3].contains("sha512 cd"), "{differs:?}");
    }

    #[test]
    fn the_last_word_on_a_hook_counts() {
        let mut report = report("r", "m", "2026-08-29T20:00:00Z");
        let row = |name: &str, state| HookRow { name: name.into(), state, ..Default::default() };
        report.spec.hooks = vec![row("stop", HookState::Succeeded), row("tell", HookState::Pending)];
        report.status = Some(VmMigrationReportStatus {
            hooks: vec![row("tell", HookState::Failed)],
            ..Default::default()
        });
        let told: Vec<_> = hooks(&report).into_iter().map(|r| format!("{} {}", r[0], r[2])).collect();
        assert_eq!(told, ["stop Succeeded", "tell Failed"]);
    }

    #[test]
    fn the_newest_report_of_a_name_is_taken() {
        let all = vec![
            report("web-1-a", "web-1", "2026-08-29T20:00:00Z"),
            report("web-1-b", "web-1", "2026-08-30T20:00:00Z"),
            report("other", "other", "2026-09-30T20:00:00Z"),
        ];
        let found = |name: &str| newest(all.clone(), name).map(|r| r.name_any());
        assert_eq!(found("web-1").as_deref(), Some("web-1-b"));
        assert_eq!(found("web-1-a").as_deref(), Some("web-1-a"));
        assert_eq!(found("none"), None);
    }
}
