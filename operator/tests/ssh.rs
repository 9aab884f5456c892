//! `mover ssh`, the binary as it is, against a real SSH server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod ssh_support;

use std::{
    process::{Output, Stdio},
    sync::atomic::Ordering,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use ssh_support::Guest;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const DOCUMENT: &str = r#"{"phase":"BeforeStop"}"#;

/// The mover with a good line for everything that `options` do not name.
fn mover(guest: &Guest, script: &str, options: &[(&str, &str)]) -> Command {
    let file = |name: &str, text: &str| {
        std::fs::write(guest.path(name), text).unwrap();
        guest.path(name).to_string_lossy().into_owned()
    };
    let (script, document) = (file("script", script), file("context.json", DOCUMENT));
    let (port, key) = (guest.address.port().to_string(), guest.path("user").to_string_lossy().into_owned());
    let log = guest.path("termination").to_string_lossy().into_owned();
    let good = [
        ("--user", guest.user.as_str()),
        ("--host", "127.0.0.1"),
        ("--port", &port),
        ("--key-file", &key),
        ("--host-key", &guest.host_key),
        ("--script-file", &script),
        ("--context-file", &document),
        ("--timeout-seconds", "60"),
        ("--termination-log", &log),
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmmigration"));
    command.args(["mover", "ssh", "--allow-loopback"]);
    for (name, value) in good.iter().filter(|(name, _)| options.iter().all(|(n, _)| n != name)).chain(options)
    {
        command.args([name, value]);
    }
    command
        .env("TMPDIR", guest.directory.path())
        .env("VMM_SERVER", "it's web-1")
        .env("OTHER", "not for the guest");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    /// Of the termination message.
    message: String,
}

async fn run(guest: &Guest, script: &str, options: &[(&str, &str)]) -> Ended {
    let Output { status, stdout, stderr } = mover(guest, script, options).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let private = std::fs::read_to_string(guest.path("user")).unwrap();
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(private.lines().all(|line| !stdout.contains(line) && !stderr.contains(line)));
    let left = std::fs::read_dir(guest.directory.path()).unwrap().flatten();
    let left: Vec<_> =
        left.map(|e| e.file_name()).filter(|n| n.to_string_lossy().starts_with(".tmp")).collect();
    assert!(left.is_empty(), "the private directory is gone: {left:?}");
    Ended { code: status.code(), stdout, stderr, message: message(guest) }
}

fn message(guest: &Guest) -> String {
    let text = std::fs::read_to_string(guest.path("termination")).unwrap_or_default();
    let outcome: Value = serde_json::from_str(&text).unwrap_or_default();
    assert_ne!(outcome["ok"], true);
    outcome["message"].as_str().unwrap_or_default().to_string()
}

#[tokio::test]
async fn a_script_gets_variables_and_document_and_gives_output_and_exit_code() {
    let guest = Guest::start();
    let ended = run(&guest, "cat; echo; echo \"$VMM_SERVER|$OTHER|\"; echo oops >&2; exit 7\n", &[]).await;
    assert_eq!(ended.stdout, format!("{DOCUMENT}\nit's web-1||\n"), "{}", ended.stderr);
    assert_eq!((ended.code, ended.stderr.as_str(), ended.message.as_str()), (Some(7), "oops\n", ""));
    // Longer than dropbear lets a command be.
    let long = format!("{}echo done", "# It's a long way.\n".repeat(1700));
    let ended = run(&guest, &long, &[]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "done\n"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_server_with_another_host_key_is_told_nothing() {
    let guest = Guest::start();
    let stranger = std::fs::read_to_string(guest.path("stranger.pub")).unwrap();
    let script = format!("touch {}", guest.path("was-run").display());
    let ended = run(&guest, &script, &[("--host-key", &stranger)]).await;
    assert_eq!(ended.code, Some(255));
    assert!(
        ended.message.contains("nothing was sent") && ended.stderr.contains(&ended.message),
        "{}",
        ended.stderr
    );
    assert!(!guest.path("was-run").exists());
    // One good key among others is enough.
    let ended = run(&guest, &script, &[("--host-key", &stranger), ("--host-key", &guest.host_key)]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ended = run(&guest, &script, &[("--host-key", "ssh-ed25519 AAAA")]).await;
    assert!(ended.code == Some(255) && ended.message.contains("no public key"), "{}", ended.message);
}

#[tokio::test]
async fn a_key_that_the_guest_does_not_know_is_said_to_be_refused() {
    let guest = Guest::start();
    let stranger = guest.path("stranger").to_string_lossy().into_owned();
    let ended = run(&guest, "true", &[("--key-file", &stranger)]).await;
    assert!(ended.code == Some(255) && ended.message.contains("authorized_keys"), "{}", ended.stderr);
    std::fs::write(guest.path("broken"), "rubbish").unwrap();
    let ended = run(&guest, "true", &[("--key-file", &guest.path("broken").to_string_lossy())]).await;
    assert!(ended.code == Some(255) && ended.message.contains("cannot be used"), "{}", ended.stderr);
    let ended = run(&guest, "true", &[("--key-file", "/nowhere/key")]).await;
    assert!(ended.code == Some(255) && ended.message.contains("/nowhere/key"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_server_that_is_not_up_yet_is_waited_for() {
    let guest = Guest::start();
    guest.refusals.store(1, Ordering::SeqCst);
    let ended = run(&guest, "echo up", &[]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "up\n"), "{}", ended.stderr);
}

#[tokio::test]
async fn time_is_bounded() {
    let guest = Guest::start();
    let ended = run(&guest, "sleep 600", &[("--timeout-seconds", "3")]).await;
    assert!(ended.code == Some(124) && ended.message.contains("may still run"), "{}", ended.stderr);
    guest.refusals.store(usize::MAX, Ordering::SeqCst);
    let ended = run(&guest, "true", &[("--timeout-seconds", "1")]).await;
    assert!(ended.code == Some(124) && ended.message.contains("no SSH session"), "{}", ended.stderr);
}

#[tokio::test]
async fn sigterm_ends_ssh() {
    let guest = Guest::start();
    let mut child = mover(&guest, "echo up; sleep 600", &[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("up"));
    kill_process(Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(143));
    // ssh holds the same output: its end is the end of ssh.
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert!(message(&guest).contains("SIGTERM"));
}

#[tokio::test]
async fn a_refused_address_is_not_connected_to() {
    let guest = Guest::start();
    std::fs::write(guest.path("script"), "true").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmmigration"));
    let line = format!(
        "mover ssh --user u --host 127.0.0.1 --port {} --timeout-seconds 5 --termination-log /dev/null",
        guest.address.port()
    );
    command.args(line.split(' ')).args(["--host-key", &guest.host_key]);
    command.arg("--key-file").arg(guest.path("user")).arg("--script-file").arg(guest.path("script"));
    let ended = command.output().await.unwrap();
    assert_eq!(ended.status.code(), Some(255));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("loopback"));
}

#[tokio::test]
async fn a_check_over_ssh_is_the_commands_exit_code() {
    let guest = Guest::start();
    let ssh = |key: &str, host_key: &str, command: &str| {
        json!({"user": guest.user, "address": "127.0.0.1", "port": guest.address.port(), "keyFile": guest.path(key),
            "hostKeys": [host_key], "command": command})
    };
    let stranger = std::fs::read_to_string(guest.path("stranger.pub")).unwrap();
    let checks = json!([
        {"name": "good", "ssh": ssh("user", &guest.host_key, "echo secret-output")},
        {"name": "bad", "ssh": ssh("user", &guest.host_key, "echo secret-output; exit 3")},
        {"name": "host", "ssh": ssh("user", &stranger, "true")},
        {"name": "key", "ssh": ssh("stranger", &guest.host_key, "true")},
    ]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmmigration"));
    command.args([
        "mover",
        "check",
        "--allow-loopback",
        "--deadline-seconds",
        "0",
        "--checks",
        &checks.to_string(),
    ]);
    command.arg("--termination-log").arg(guest.path("termination")).env("TMPDIR", guest.directory.path());
    let ended = command.output().await.unwrap();
    let text = std::fs::read_to_string(guest.path("termination")).unwrap();
    let outcome: Value = serde_json::from_str(&text).unwrap();
    let results = outcome["result"]["checks"].as_array().unwrap();
    let expected = [
        (true, "exit code 0"),
        (false, "exit code 3"),
        (false, "nothing was sent"),
        (false, "authorized_keys"),
    ];
    for (result, (ok, message)) in results.iter().zip(expected) {
        assert!(result["ok"] == ok && result["message"].as_str().unwrap().contains(message), "{result}");
    }
    assert_eq!((ended.status.code(), results.len()), (Some(2), 4));
    for shown in [text, String::from_utf8(ended.stderr).unwrap(), String::from_utf8(ended.stdout).unwrap()] {
        assert!(!shown.contains("secret-output"), "{shown}");
    }
}
