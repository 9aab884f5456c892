//! The pictures of the documentation: what the real client draws in a pseudo-terminal, as SVG. `make screens` writes
//! them; without it they must be what they would be written as.

use super::{Cluster, end};
use crate::svg;
use serde_json::{Value, json};
use std::{num::NonZeroU16, path::PathBuf};
use vt100::{Parser, Screen};

const ROWS: u16 = 40;
const COLUMNS: u16 = 120;

/// A picture.
struct Picture {
    /// `docs/screens/NAME.svg`
    name: &'static str,
    /// What is called.
    arguments: &'static str,
    /// With which exit code it ends.
    code: i32,
    /// The first screen that has all of it is taken.
    shows: &'static [&'static str],
    /// How the migration stands.
    status: Value,
}

fn copying() -> Value {
    let read = json!({"bytes": 1_073_741_824, "sha256": "5e"});
    json!({
        "phase": "Transferring", "progress": "38%", "runningIn": "none", "down": "1m10s",
        "message": "Backing up disk 1: 42% (1/2 disks done); A is stopped and intact",
        "timeline": [
            {"at": "2026-08-29T20:00:02Z", "phase": "AwaitingCutover", "message": "ready"},
            {"at": "2026-08-29T20:00:40Z", "phase": "Stopping", "message": "cutover granted"},
            {"at": "2026-08-29T20:00:52Z", "phase": "Stopping", "message": "server web-1 is SHUTOFF"},
            {"at": "2026-08-29T20:00:54Z", "phase": "Transferring", "message": "source stopped and locked"}],
        "hooks": [{"name": "stop-app", "phase": "BeforeStop", "state": "Succeeded", "attempts": 1, "exitCode": 0}],
        "disks": [
            {"index": 0, "sizeGib": 1, "stage": "Verified", "backup": read, "restore": read, "readback": read},
            {"index": 1, "sizeGib": 20, "stage": "Backing up: 42%",
                "progress": {"bytes": 9_019_431_321_u64, "total": 21_474_836_480_u64, "rate": 125_829_120}}],
    })
}

/// Stopped at a hook, for which somebody is needed.
fn waiting() -> Value {
    json!({
        "phase": "Stopping", "phaseSince": "2026-08-29T20:00:40Z", "runningIn": "A", "progress": "5%",
        "message": "Waiting for a client to run hook stop-app (BeforeStop) since 20:00:41Z (gives up 20:05:41Z); \
            nothing was touched: kubectl vmmigration attach web-1 -n team --hook BeforeStop=./script.sh",
        "preflight": [{"id": "nothing-proves-the-application", "severity": "Warning",
            "message": "no check is given: success means only that the server is ACTIVE",
            "suggestion": "give verification.checks what only your application can answer"}],
        "timeline": [
            {"at": "2026-08-29T20:00:02Z", "phase": "AwaitingCutover", "message": "ready"},
            {"at": "2026-08-29T20:00:40Z", "phase": "Stopping", "message": "cutover granted"}],
        "hooks": [{"name": "stop-app", "phase": "BeforeStop", "state": "Waiting", "attempts": 1, "nonce": "n1",
            "deadline": "2026-08-29T20:05:41Z"}],
        "requests": [{"name": "cancel", "token": "old", "result": "Superseded",
            "message": "it was there when the object was first seen; a new value is a request"}],
    })
}

fn pictures() -> [Picture; 2] {
    [
        Picture {
            name: "watch",
            arguments: "watch web-1 --timeout 3s",
            code: 4,
            shows: &["source stopped and locked", "hook stop-app", "equal digests", "ETA 1m38s"],
            status: copying(),
        },
        Picture {
            name: "describe",
            arguments: "describe web-1",
            code: 0,
            shows: &["web-1: Stopping", "What happened", "cutover granted"],
            status: waiting(),
        },
    ]
}

/// The first screen that has everything that is to be seen, and is drawn to its end: what follows is a control
/// character, or nothing.
fn screen(output: &str, shows: &[&str]) -> Option<Screen> {
    let size = |n| NonZeroU16::new(n).unwrap();
    let mut parser = Parser::new(size(ROWS), size(COLUMNS), 0);
    let complete = |screen: &Screen| {
        let text = screen.contents();
        shows.iter().all(|s| text.contains(s))
    };
    for byte in output.as_bytes() {
        if matches!(byte, b'\r' | b'\x1b') && complete(parser.screen()) {
            return Some(parser.screen().clone());
        }
        parser.process(&[*byte]);
    }
    complete(parser.screen()).then(|| parser.screen().clone())
}

#[tokio::test]
async fn pictures_are_what_the_client_draws() {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(repository.join("docs/client.md")).unwrap();
    for picture in pictures() {
        let hooks = json!([{"name": "stop-app", "phase": "BeforeStop", "client": {}}]);
        let cluster = Cluster::with(hooks, picture.status).await;
        let program = env!("CARGO_BIN_EXE_kubectl-vmmigration");
        let line = format!("stty cols {COLUMNS} rows {ROWS}; exec {program} {}", picture.arguments);
        let mut command = cluster.prepare("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let (code, output, errors) = end(command.spawn().unwrap()).await;
        assert_eq!(code, picture.code, "{output}{errors}");
        let screen = screen(&output, picture.shows)
            .unwrap_or_else(|| panic!("{} never shows all of {:?}: {output:?}", picture.name, picture.shows));
        let called = picture.arguments.split(" --").next().unwrap_or_default();
        let drawn = svg::draw(&screen, &format!("kubectl vmmigration {called}"));
        let path = repository.join(format!("docs/screens/{}.svg", picture.name));
        if std::env::var_os("SCREENS").is_some() {
            std::fs::write(&path, &drawn).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == drawn, "{} is not what the client draws: make screens", path.display());
        assert!(page.contains(&format!("(screens/{}.svg)", picture.name)), "docs/client.md has no picture");
    }
}
