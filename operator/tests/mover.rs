//! The mover's binary with a real restic, against a store and a cloud on loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must say so")]

mod mover_support;

use std::time::Duration;

use mover_support::{
    Bed, UID,
    cloud::{Image, Mischief},
    noise,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use tokio::io::{AsyncBufReadExt, BufReader};

const SOURCE: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const DESTINATION: &str = "bbbbbbbb-0000-0000-0000-000000000002";
const SIZE: usize = 5 * 1024 * 1024 + 12_345;

/// A bed with a repository and a disk in the source cloud.
async fn ready() -> Bed {
    let bed = Bed::new().await;
    bed.init().await.ok();
    bed.cloud.add_active(SOURCE, noise(SIZE));
    bed.cloud.add_queued(DESTINATION);
    bed
}

async fn restore(bed: &Bed, saved: &Value) -> mover_support::Ended {
    restore_into(bed, saved, DESTINATION).await
}

async fn restore_into(bed: &Bed, saved: &Value, image: &str) -> mover_support::Ended {
    let text = |name: &str| saved[name].as_str().unwrap_or_default().to_owned();
    let (snapshot, sha256, value) = (text("snapshotId"), text("sha256"), text("hashValue"));
    let bytes = saved["bytes"].to_string();
    let mut line =
        vec!["restore", "--snapshot", &snapshot, "--disk", "0", "--image", image, "--bytes", &bytes];
    line.extend(["--sha256", &sha256]);
    if !value.is_empty() {
        line.extend(["--hash-algo", "sha512", "--hash-value", &value]);
    }
    bed.run(&line).await
}

#[tokio::test]
async fn a_disk_travels_byte_for_byte() {
    let bed = ready().await;
    let ended = bed.backup(SOURCE).await;
    let saved = ended.ok();
    assert_eq!(saved["bytes"], SIZE);
    assert_eq!(saved["sha256"], hex::encode(Sha256::digest(noise(SIZE))));
    assert_eq!(
        (&saved["hashAlgo"], &saved["hashValue"]),
        (&json!("sha512"), &json!(hex::encode(Sha512::digest(noise(SIZE)))))
    );
    assert!(
        saved["storedBytes"].as_u64().unwrap() > SIZE as u64 / 2 && bed.snapshots() == 1 && bed.locks() == 0
    );
    let last: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["progress"]["bytes"], &last["progress"]["total"]), (&json!(SIZE), &json!(SIZE)));

    let ended = restore(&bed, saved).await;
    let restored = ended.ok();
    for field in ["bytes", "sha256", "hashAlgo", "hashValue"] {
        assert_eq!(restored[field], saved[field], "{field}");
    }
    assert_eq!(bed.cloud.image(DESTINATION).content, noise(SIZE));
    let last: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["progress"]["bytes"], SIZE);
}

#[tokio::test]
async fn a_disk_without_a_hash_has_sha256_only() {
    let bed = ready().await;
    bed.cloud.set(SOURCE, Image { status: "active".into(), content: noise(SIZE).into(), hash: None });
    let ended = bed.backup(SOURCE).await;
    assert!(ended.ok().get("hashAlgo").is_none());
    restore(&bed, ended.ok()).await.ok();
}

#[tokio::test]
async fn short_or_wrong_downloads_make_no_snapshot() {
    let bed = ready().await;
    for (mischief, reason) in [
        (Mischief::EndsEarly, "ShortRead"),
        (Mischief::Breaks, "ShortRead"),
        (Mischief::FlipsAByte, "DigestMismatch"),
    ] {
        bed.cloud.misbehave(mischief);
        let ended = bed.backup(SOURCE).await;
        let message = ended.failed(reason, 1);
        assert!(message.contains(SOURCE), "{message}");
        if reason == "ShortRead" {
            assert!(message.contains(&format!("{} of {SIZE} bytes", SIZE / 2)), "{message}");
        }
        assert_eq!((bed.snapshots(), bed.locks()), (0, 0), "{mischief:?}");
    }
    bed.cloud.misbehave(Mischief::None);
    bed.backup(SOURCE).await.ok();
}

#[tokio::test]
async fn images_that_cannot_be_saved() {
    let bed = ready().await;
    bed.backup("cccccccc-0000-0000-0000-000000000003").await.failed("ImageNotFound", 2);
    bed.backup(DESTINATION).await.failed("ImageNotReady", 1);
    bed.cloud.add_active(SOURCE, Vec::new());
    bed.backup(SOURCE).await.failed("ImageNotReady", 2);
    assert_eq!(bed.snapshots(), 0);
}

#[tokio::test]
async fn refused_restores_leave_no_active_image() {
    let bed = ready().await;
    let saved = bed.backup(SOURCE).await.ok().clone();
    let with = |name: &str, value: Value| {
        let mut changed = saved.clone();
        changed[name] = value;
        changed
    };
    let cases = [
        (with("snapshotId", json!("latest")), "InvalidArguments", 2),
        (with("snapshotId", json!("ab".repeat(32))), "SnapshotNotFound", 2),
        (with("sha256", json!("cd".repeat(32))), "DigestMismatch", 2),
        (with("hashValue", json!("cd".repeat(64))), "DigestMismatch", 2),
        (with("bytes", json!(SIZE + 1)), "DigestMismatch", 2),
        (with("bytes", json!(SIZE - 1)), "DigestMismatch", 2),
    ];
    for (n, (wrong, reason, code)) in cases.iter().enumerate() {
        // Each attempt has its own image: the cloud may notice the end of a broken upload later.
        let image = format!("bbbbbbbb-0000-0000-0001-00000000000{n}");
        bed.cloud.add_queued(&image);
        restore_into(&bed, wrong, &image).await.failed(reason, *code);
        assert_ne!(bed.cloud.image(&image).status, "active", "{reason}");
    }
}

#[tokio::test]
async fn uploads_that_go_wrong() {
    let bed = ready().await;
    let saved = bed.backup(SOURCE).await.ok().clone();
    bed.cloud.misbehave(Mischief::StoresOther);
    restore(&bed, &saved).await.failed("UploadMismatch", 1);
    // The same image again: it is used up.
    restore(&bed, &saved).await.failed("ImageNotReady", 2);
    bed.cloud.add_queued(DESTINATION);
    bed.cloud.misbehave(Mischief::RefusesUpload);
    let ended = restore(&bed, &saved).await;
    assert_eq!(ended.outcome["reason"], "CloudError", "{ended:?}");
    assert_eq!(bed.cloud.image(DESTINATION).status, "queued");
}

#[tokio::test]
async fn a_dump_with_a_lost_pack_fails() {
    let bed = ready().await;
    let saved = bed.backup(SOURCE).await.ok().clone();
    let packs = bed.s3.keys(&format!("{}data/", bed.prefix()));
    let largest = packs.iter().max_by_key(|key| bed.s3.get(key).unwrap().len()).unwrap();
    bed.s3.remove(largest);
    let child = bed.start(&[
        "restore",
        "--snapshot",
        saved["snapshotId"].as_str().unwrap(),
        "--disk",
        "0",
        "--image",
        DESTINATION,
        "--bytes",
        &SIZE.to_string(),
        "--sha256",
        saved["sha256"].as_str().unwrap(),
    ]);
    let ended = bed.end(child).await;
    ended.failed("ResticFailed", 1);
    assert_ne!(bed.cloud.image(DESTINATION).status, "active");
}

/// The restic that the mover started: its only child.
fn child_of(parent: u32) -> Option<i32> {
    let children =
        std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let all = std::fs::read_dir(format!("/proc/{parent}/task")).ok()?;
    let of =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let all: String = all.flatten().map(of).collect();
    format!("{children} {all}").split_whitespace().next()?.parse().ok()
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited 30 s in vain")
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn gone(pid: i32) -> Option<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    (status.is_empty() || status.contains("State:\tZ")).then_some(())
}

/// A backup that waits for bytes that never come, and its restic.
async fn stalled(bed: &Bed) -> (tokio::process::Child, i32) {
    bed.cloud.misbehave(Mischief::Stalls);
    let child = bed.start(&["backup", "--image", SOURCE, "--disk", "0", "--migration-uid", UID]);
    let pid = child.id().unwrap();
    until(|| (bed.locks() == 1).then_some(())).await;
    let restic = until(|| child_of(pid)).await;
    (child, restic)
}

#[tokio::test]
async fn sigterm_releases_the_lock_and_says_so() {
    let bed = ready().await;
    let (child, restic) = stalled(&bed).await;
    signal(i32::try_from(child.id().unwrap()).unwrap(), Signal::TERM);
    bed.end(child).await.failed("Terminated", 143);
    assert_eq!((bed.snapshots(), bed.locks()), (0, 0));
    until(|| gone(restic)).await;
}

#[tokio::test]
async fn a_killed_restic_is_a_failure() {
    let bed = ready().await;
    let (child, restic) = stalled(&bed).await;
    signal(restic, Signal::KILL);
    let ended = bed.end(child).await;
    assert!(ended.failed("ResticFailed", 1).contains("signal 9"));
    assert_eq!(bed.snapshots(), 0);
}

#[tokio::test]
async fn restic_does_not_outlive_a_killed_mover() {
    let bed = ready().await;
    let (mut child, restic) = stalled(&bed).await;
    let feed = until(|| child_of(u32::try_from(restic).unwrap())).await;
    child.kill().await.unwrap();
    until(|| gone(restic)).await;
    until(|| gone(feed)).await;
    assert_eq!(bed.snapshots(), 0);
}

#[tokio::test]
async fn init_may_be_repeated() {
    let bed = Bed::new().await;
    assert_eq!(bed.init().await.ok()["created"], true);
    let marker = bed.s3.get(&format!("{}vmmigration.json", bed.prefix())).unwrap();
    assert_eq!(bed.init().await.ok()["created"], false);
    assert_eq!(bed.s3.get(&format!("{}vmmigration.json", bed.prefix())).unwrap(), marker);
    let marker: Value = serde_json::from_slice(&marker).unwrap();
    assert_eq!((&marker["uid"], &marker["object"]), (&json!(UID), &json!("team-a/web-1")));
    // A predecessor that was killed between key and config.
    bed.s3.remove(&format!("{}config", bed.prefix()));
    assert_eq!(bed.init().await.ok()["created"], true);
    bed.secret("restic-password", "another-pass-word");
    bed.init().await.failed("WrongPassword", 2);
}

#[tokio::test]
async fn init_leaves_other_peoples_objects_alone() {
    let bed = Bed::new().await;
    bed.s3.put(
        &format!("{}vmmigration.json", bed.prefix()),
        r#"{"uid":"other","object":"a/b","createdAt":"x"}"#,
    );
    bed.init().await.failed("ForeignRepository", 2);
    bed.s3.put(&format!("{}vmmigration.json", bed.prefix()), "<html>");
    bed.init().await.failed("ForeignRepository", 2);
    bed.s3.remove(&format!("{}vmmigration.json", bed.prefix()));
    bed.s3.put(&format!("{}holiday.jpg", bed.prefix()), "x");
    bed.init().await.failed("ForeignRepository", 2);
    assert_eq!(bed.s3.keys("").len(), 1);
}

#[tokio::test]
async fn purge_deletes_exactly_one_repository() {
    let bed = ready().await;
    bed.backup(SOURCE).await.ok();
    let neighbours =
        [format!("movers/team-a/{UID}x/config"), format!("movers/team-a/{UID}"), "movers/config".to_owned()];
    neighbours.iter().for_each(|key| bed.s3.put(key, "x"));
    bed.s3.put(&format!("{}.probe-1", bed.prefix()), "x");
    let there = bed.s3.keys(&bed.prefix()).len();
    assert!(there > 6, "more than one page");
    assert_eq!(bed.run(&["purge", "--migration-uid", UID]).await.ok()["deletedObjects"], there);
    assert_eq!(bed.s3.keys("").len(), neighbours.len());
    assert_eq!(bed.run(&["purge", "--migration-uid", UID]).await.ok()["deletedObjects"], 0);
}

#[tokio::test]
async fn purge_refuses() {
    let bed = ready().await;
    let all = bed.s3.keys("").len();
    bed.run(&["purge", "--migration-uid", ""]).await.failed("InvalidArguments", 2);
    bed.run(&["purge", "--migration-uid", "another-uid"]).await.failed("InvalidArguments", 2);
    let marker = format!("{}vmmigration.json", bed.prefix());
    bed.s3.put(&marker, r#"{"uid":"other","object":"a/b","createdAt":"x"}"#);
    bed.run(&["purge", "--migration-uid", UID]).await.failed("ForeignRepository", 2);
    assert_eq!(bed.s3.keys("").len(), all);
    bed.s3.remove(&marker);
    bed.run(&["purge", "--migration-uid", UID]).await.failed("ForeignRepository", 2);
    assert_eq!(bed.s3.keys("").len(), all - 1);
    // Nothing but probes needs no marker.
    bed.s3.keys("").iter().for_each(|key| bed.s3.remove(key));
    bed.s3.put(&format!("{}.probe-1", bed.prefix()), "x");
    assert_eq!(bed.run(&["purge", "--migration-uid", UID]).await.ok()["deletedObjects"], 1);
}

#[tokio::test]
async fn probes() {
    let bed = Bed::new().await;
    let ended = bed.run(&["probe"]).await;
    assert!(ended.ok()["cloudConnectMs"].is_u64() && ended.ok()["storeWriteMs"].is_u64());
    assert!(bed.s3.keys("").is_empty());
    bed.secret("AWS_ACCESS_KEY_ID", "wrong-key-id");
    let ended = bed.run(&["probe"]).await;
    let message = ended.failed("StoreUnauthorized", 2);
    assert!(message.contains("InvalidAccessKeyId") && message.contains("the cloud works"), "{message}");
    bed.secret("clouds.yaml", "clouds: {}");
    bed.run(&["probe"]).await.failed("StoreUnauthorized", 2);
    bed.secret("AWS_ACCESS_KEY_ID", mover_support::s3::ACCESS_KEY);
    bed.run(&["probe"]).await.failed("InvalidConfiguration", 2);
    std::fs::remove_file(bed.path("config").join("AWS_SECRET_ACCESS_KEY")).unwrap();
    bed.run(&["probe"]).await.failed("InvalidConfiguration", 2);
}

#[tokio::test]
async fn restic_with_a_wrong_key_says_so() {
    let bed = ready().await;
    bed.secret("AWS_ACCESS_KEY_ID", "wrong-key-id");
    bed.backup(SOURCE).await.failed("StoreUnauthorized", 2);
}

#[tokio::test]
async fn loopback_is_refused_unless_allowed() {
    let bed = Bed::new().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_vmmigration"));
    command.args(["mover", "probe", "--repository", &bed.repository().replace("http://", "https://")]);
    command.arg("--config-dir").arg(bed.path("config")).arg("--termination-log").arg(bed.path("termination"));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let ended = bed.end(command.spawn().unwrap()).await;
    assert!(ended.failed("StoreError", 2).contains("loopback"));
}

#[tokio::test]
async fn checks_end_with_their_results() {
    let bed = Bed::new().await;
    let url = format!("{}/image/v2/", bed.cloud.url);
    let good =
        json!([{"name": "up", "http": {"url": url, "status": 200, "contains": "CURRENT"}}]).to_string();
    let ended = bed.run(&["check", "--checks", &good, "--deadline-seconds", "0"]).await;
    assert_eq!(ended.ok()["checks"][0]["ok"], true);
    let bad = json!([{"name": "up", "http": {"url": url}}, {"name": "down", "tcp": {"address": "127.0.0.1", "port": 1}}]);
    let ended = bed.run(&["check", "--checks", &bad.to_string(), "--deadline-seconds", "3"]).await;
    assert!(ended.failed("CheckFailed", 2).contains("down"));
    let checks = &ended.outcome["result"]["checks"];
    assert_eq!((&checks[0]["ok"], &checks[1]["ok"]), (&json!(true), &json!(false)));
    assert!(checks[1]["attempts"].as_u64().unwrap() >= 2);
    bed.run(&["check", "--checks", "[]", "--deadline-seconds", "3"]).await.failed("InvalidArguments", 2);
}

#[tokio::test]
async fn https_needs_a_certificate_of_a_known_authority() {
    let bed = Bed::new().await;
    let (key, certificate) = (bed.path("tls.key"), bed.path("tls.crt"));
    let made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=shop \
                -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    let mut openssl = tokio::process::Command::new("openssl");
    openssl.args(made.split_whitespace()).arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    assert!(openssl.output().await.unwrap().status.success());
    let mut server = tokio::process::Command::new("openssl");
    server
        .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert"])
        .arg(&certificate)
        .arg("-key")
        .arg(&key);
    server.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut server = server.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let port = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some((_, port)) = line.strip_prefix("ACCEPT ").and_then(|at| at.rsplit_once(':')) {
            break port.to_owned();
        }
    };
    let check = json!([{"name": "tls", "http": {"url": format!("https://127.0.0.1:{port}/")}}]).to_string();
    let arguments = ["check", "--checks", &check, "--deadline-seconds", "0"];
    let known = bed.command(&arguments).env("SSL_CERT_FILE", &certificate).spawn().unwrap();
    assert_eq!(bed.end(known).await.ok()["checks"][0]["ok"], true);
    let ended = bed.run(&arguments).await;
    assert!(ended.failed("CheckFailed", 2).contains("certificate"), "{ended:?}");
}
