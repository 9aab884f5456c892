//! The mover's binary with a real restic, against a store and a cloud on loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must say so")]

mod mover_stores;
mod mover_support;

use std::{os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio, time::Duration};

use mover_support::{
    Bed, SEGMENT, UID, backup_line,
    cloud::{Image, Mischief},
    noise, rest, restore_line, swift,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::ChildStdout,
};

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

/// What the mover calls the digest of a disk: SHA-256 over its segments' digests.
fn root(content: &[u8], segment: usize) -> String {
    let mut root = Sha256::new();
    content.chunks(segment).for_each(|segment| root.update(Sha256::digest(segment)));
    hex::encode(root.finalize())
}

#[tokio::test]
async fn a_disk_travels_byte_for_byte() {
    let bed = ready().await;
    let ended = bed.backup(SOURCE).await;
    let saved = ended.ok();
    assert_eq!(saved["bytes"], SIZE);
    assert_eq!(saved["sha256"], root(&noise(SIZE), 1 << 20));
    assert_eq!(
        (&saved["hashAlgo"], &saved["hashValue"]),
        (&json!("sha512"), &json!(hex::encode(Sha512::digest(noise(SIZE)))))
    );
    assert_eq!(
        (&saved["segments"], &saved["skippedSegments"], &saved["reused"]),
        (&json!(6), &json!(0), &json!(0))
    );
    assert!(saved["storedBytes"].as_u64().unwrap() > SIZE as u64 / 2);
    // One for each segment, and the manifest.
    assert!(bed.snapshots() >= 7 && bed.locks() == 0);
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
    // Nothing is sent twice, whoever asks once more.
    let written = bed.s3.written();
    let again = bed.backup(SOURCE).await;
    assert_eq!((&again.ok()["snapshotId"], bed.s3.written()), (&saved["snapshotId"], written));
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
async fn short_downloads_make_no_snapshot() {
    let bed = ready().await;
    for mischief in [Mischief::EndsEarly, Mischief::Breaks] {
        bed.cloud.misbehave(mischief);
        let ended = bed.run(&backup_line(&["--image", SOURCE])).await;
        let message = ended.failed("ShortRead", 1);
        assert!(message.contains(&format!("{} of {SIZE} bytes", SIZE / 2)), "{message}");
        assert!(message.contains(SOURCE), "{message}");
        assert_eq!((bed.snapshots(), bed.locks()), (0, 0), "{mischief:?}");
    }
    bed.cloud.misbehave(Mischief::BreaksOften);
    bed.run(&backup_line(&["--image", SOURCE])).await.ok();
}

#[tokio::test]
async fn an_image_that_was_read_wrongly_is_not_made() {
    let bed = ready().await;
    bed.cloud.misbehave(Mischief::FlipsAByte);
    let saved = bed.backup(SOURCE).await.ok().clone();
    bed.cloud.misbehave(Mischief::None);
    let ended = restore(&bed, &saved).await;
    assert!(ended.failed("DigestMismatch", 2).contains("read wrongly"));
    assert_ne!(bed.cloud.image(DESTINATION).status, "active");
}

#[tokio::test]
async fn an_image_service_without_ranges_gives_one_segment() {
    for mischief in [Mischief::IgnoresRanges, Mischief::RefusesRanges] {
        let bed = ready().await;
        bed.cloud.misbehave(mischief);
        let saved = bed.backup(SOURCE).await.ok().clone();
        assert_eq!(saved["segments"], 1);
        bed.cloud.misbehave(Mischief::None);
        restore(&bed, &saved).await.ok();
        assert_eq!(bed.cloud.image(DESTINATION).content, noise(SIZE));
    }
}

#[tokio::test]
async fn images_that_cannot_be_saved() {
    let bed = ready().await;
    bed.run(&backup_line(&["--image", SOURCE, "--base-manifest", "latest"]))
        .await
        .failed("InvalidArguments", 2);
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

fn keys(bed: &Bed) -> Vec<String> {
    bed.s3.keys(&format!("{}keys/", bed.prefix()))
}

/// Whether exactly one key file is there, and costs nothing.
fn is_cheap(bed: &Bed) -> bool {
    let keys = keys(bed);
    let file: Value = serde_json::from_slice(&bed.s3.get(&keys[0]).unwrap()).unwrap();
    keys.len() == 1 && file["N"] == 2
}

#[tokio::test]
async fn a_repository_is_cheap_to_open_and_plain_restics_own() {
    let bed = ready().await;
    assert!(is_cheap(&bed));
    let saved = bed.backup(SOURCE).await.ok().clone();
    restore(&bed, &saved).await.ok();
    bed.restic(&["check", "--read-data"], Stdio::null()).await;
    let id = saved["snapshotId"].as_str().unwrap();
    let manifest = bed.restic(&["dump", id, "/manifest.json"], Stdio::null()).await.stdout;
    assert_eq!(serde_json::from_slice::<Value>(&manifest).unwrap()["bytes"], SIZE);
}

#[tokio::test]
async fn an_init_that_was_cut_short_is_finished() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let marker = format!("{}vmmigration.json", bed.prefix());
    bed.s3.keys("").iter().filter(|key| **key != marker).for_each(|key| bed.s3.remove(key));
    // After restic's own part.
    bed.restic(&["init"], Stdio::null()).await;
    let expensive = keys(&bed).remove(0);
    let file = bed.s3.get(&expensive).unwrap();
    assert!(!is_cheap(&bed));
    assert_eq!(bed.init().await.ok()["created"], false);
    assert!(is_cheap(&bed));
    // Between the new key file and the end of the old one.
    let cheap = keys(&bed);
    bed.s3.put(&expensive, std::str::from_utf8(&file).unwrap());
    bed.init().await.ok();
    assert_eq!(keys(&bed), cheap);
    bed.restic(&["cat", "config"], Stdio::null()).await;
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
    let child = bed.start(&backup_line(&["--image", SOURCE]));
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
async fn a_restic_that_is_always_killed_is_a_failure() {
    let bed = ready().await;
    let (child, mut restic) = stalled(&bed).await;
    let pid = child.id().unwrap();
    // As often as a segment is tried.
    for _ in 0..2 {
        signal(restic, Signal::KILL);
        restic = until(|| child_of(pid).filter(|other| *other != restic)).await;
    }
    signal(restic, Signal::KILL);
    let ended = bed.end(child).await;
    assert!(ended.failed("ResticFailed", 1).contains("signal 9"));
    assert_eq!(bed.snapshots(), 0);
}

#[tokio::test]
async fn a_restic_that_is_killed_once_is_replaced() {
    let bed = ready().await;
    let (child, restic) = stalled(&bed).await;
    bed.cloud.misbehave(Mischief::None);
    signal(restic, Signal::KILL);
    let saved = bed.end(child).await.ok().clone();
    restore(&bed, &saved).await.ok();
    assert_eq!(bed.cloud.image(DESTINATION).content, noise(SIZE));
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

/// A disk of odd length with data, zeros and half-zero segments, as a file.
fn disk(bed: &Bed, name: &str) -> (String, Vec<u8>) {
    let mut content = noise(SIZE);
    content[1_500_000..4_300_000].fill(0);
    write_disk(bed, name, &content);
    (bed.path(name).to_str().unwrap().to_owned(), content)
}

fn write_disk(bed: &Bed, name: &str, content: &[u8]) {
    std::fs::write(bed.path(name), content).unwrap();
}

/// An empty file that becomes a disk.
fn target(bed: &Bed) -> String {
    // Something else was there before: zeros must be written, too.
    write_disk(bed, "target", &noise(SIZE + 4096)[4096..]);
    bed.path("target").to_str().unwrap().to_owned()
}

async fn device_backup(bed: &Bed, device: &str) -> Value {
    bed.run(&backup_line(&["--device", device, "--segment-bytes", SEGMENT])).await.ok().clone()
}

#[tokio::test]
async fn a_device_travels_while_it_is_read() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, content) = disk(&bed, "source");
    let target = target(&bed);
    // The restore begins before there is anything.
    let restoring = bed.start_beside(&restore_line(&[
        "--device",
        &target,
        "--verify-disk",
        "--sha256",
        &root(&content, 1 << 20),
    ]));
    let saved = device_backup(&bed, &source).await;
    assert_eq!(
        (&saved["sha256"], &saved["segments"], &saved["skippedSegments"]),
        (&json!(root(&content, 1 << 20)), &json!(6), &json!(2))
    );
    let restored = bed.end_beside(restoring).await;
    assert_eq!(restored.ok()["sha256"], saved["sha256"]);
    assert!(std::fs::read(&target).unwrap() == content);
    // And into an image, from the manifest.
    bed.cloud.add_queued(DESTINATION);
    restore(&bed, &saved).await.ok();
    assert!(bed.cloud.image(DESTINATION).content == content);
}

#[tokio::test]
async fn an_empty_disk_costs_nothing() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    write_disk(&bed, "source", &vec![0; SIZE]);
    let saved = device_backup(&bed, bed.path("source").to_str().unwrap()).await;
    assert_eq!(
        (&saved["skippedSegments"], &saved["changedBytes"], bed.snapshots()),
        (&json!(6), &json!(0), 1)
    );
    let target = target(&bed);
    bed.run(&restore_line(&["--device", &target, "--snapshot", saved["snapshotId"].as_str().unwrap()]))
        .await
        .ok();
    assert!(std::fs::read(&target).unwrap() == vec![0; SIZE]);
}

#[tokio::test]
async fn devices_that_cannot_be_used() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    for device in ["/dev/null", "/nowhere"] {
        bed.run(&backup_line(&["--device", device])).await.failed("DeviceError", 2);
    }
    let (source, _) = disk(&bed, "source");
    let saved = device_backup(&bed, &source).await;
    let id = saved["snapshotId"].as_str().unwrap();
    bed.run(&restore_line(&["--device", "/dev/null", "--snapshot", id])).await.failed("DeviceError", 2);
    bed.run(&restore_line(&["--device", &source, "--snapshot", id, "--pass", "1"]))
        .await
        .failed("InvalidArguments", 2);
    bed.run(&restore_line(&["--device", &source, "--pass", "1", "--patience-seconds", "0"]))
        .await
        .failed("NothingArrives", 1);
}

#[tokio::test]
async fn a_killed_backup_sends_nothing_twice_but_what_was_under_way() {
    let bed = ready().await;
    bed.s3.slow(Duration::from_millis(700));
    let line = backup_line(&["--image", SOURCE, "--segment-bytes", SEGMENT]);
    let (mut killed, mut seen) = (0, 0);
    let saved = loop {
        let mut child = bed.start(&line);
        // Killed as soon as another segment is complete, until none is left.
        let more = until(|| {
            let count = bed.snapshots();
            if count > seen { Some(true) } else { child.try_wait().unwrap().map(|_| false) }
        });
        if !more.await || killed == 3 {
            break bed.end(child).await.ok().clone();
        }
        (killed, seen) = (killed + 1, bed.snapshots());
        child.kill().await.unwrap();
    };
    assert!(killed > 1 && saved["reused"].as_u64().unwrap() > 0, "{saved}");
    // At every kill two segments were under way, and as many may have begun since the look.
    let most = SIZE + killed * 4 * (1 << 20) + (1 << 20);
    assert!(bed.s3.written() < most, "{} of at most {most}", bed.s3.written());
    assert_eq!(saved["sha256"], root(&noise(SIZE), 1 << 20));
    restore(&bed, &saved).await.ok();
    assert_eq!(bed.cloud.image(DESTINATION).content, noise(SIZE));
}

#[tokio::test]
async fn a_killed_restore_goes_on() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, content) = disk(&bed, "source");
    let saved = device_backup(&bed, &source).await;
    let target = target(&bed);
    let id = saved["snapshotId"].as_str().unwrap();
    let mut child = bed.start(&restore_line(&["--device", &target, "--snapshot", id]));
    until(|| (std::fs::read(&target).unwrap()[..4096] == content[..4096]).then_some(())).await;
    child.kill().await.unwrap();
    bed.run(&restore_line(&["--device", &target, "--snapshot", id, "--resume"])).await.ok();
    assert!(std::fs::read(&target).unwrap() == content);
}

#[tokio::test]
async fn a_store_in_trouble_is_asked_again() {
    let bed = ready().await;
    bed.s3.trouble(2, 2);
    let saved = bed.backup(SOURCE).await.ok().clone();
    restore(&bed, &saved).await.ok();
    assert_eq!(bed.cloud.image(DESTINATION).content, noise(SIZE));
}

#[tokio::test]
async fn a_full_store_is_named_in_time() {
    let bed = ready().await;
    bed.s3.fill_up(true);
    let message = bed.backup(SOURCE).await.failed("StoreFull", 1).to_owned();
    assert!(message.contains("minimum free drive threshold"), "{message}");
    assert_eq!((bed.snapshots(), bed.locks()), (0, 0));
    let probed = bed.run(&["probe"]).await;
    assert!(probed.failed("StoreFull", 1).contains("minimum free drive threshold"), "{probed:?}");
    assert!(bed.s3.keys("").iter().all(|key| !key.contains(".probe-")), "{:?}", bed.s3.keys(""));
    bed.s3.fill_up(false);
    bed.backup(SOURCE).await.ok();
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_named_while_it_lasts() {
    let bed = ready().await;
    bed.s3.slow(Duration::from_millis(300));
    let mut child = bed.start(&backup_line(&["--image", SOURCE, "--segment-bytes", SEGMENT]));
    until(|| (bed.s3.written() > 0).then_some(())).await;
    bed.s3.refuse_all(usize::MAX);
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let said = loop {
        if let Some(said) = held_up(&mut lines).await {
            break said;
        }
    };
    assert!(!said.is_empty() && !said.contains("retrying after"), "{said}");
    bed.s3.refuse_all(0);
    let ended = bed.end(child).await;
    ended.ok();
    assert!(!ended.stdout.lines().last().unwrap().contains("heldUp"), "{}", ended.stdout);
}

/// What the next line of progress says holds it up.
async fn held_up(lines: &mut Lines<BufReader<&mut ChildStdout>>) -> Option<String> {
    let line = lines.next_line().await.unwrap().unwrap();
    serde_json::from_str::<Value>(&line).unwrap()["heldUp"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_restore_outlives_a_store_that_is_switched_off() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, content) = disk(&bed, "source");
    let target = target(&bed);
    // So much of the disk is there that the restore has begun, and cannot end.
    bed.s3.slow(Duration::from_millis(300));
    let mut backup = bed.start(&backup_line(&["--device", &source, "--segment-bytes", SEGMENT]));
    until(|| (bed.snapshots() > 0).then_some(())).await;
    backup.kill().await.unwrap();
    bed.s3.slow(Duration::ZERO);
    let mut restoring = bed.start_beside(&restore_line(&["--device", &target, "--verify-disk"]));
    let mut lines = BufReader::new(restoring.stdout.as_mut().unwrap()).lines();
    assert_eq!(held_up(&mut lines).await, None);
    bed.s3.leave();
    let mut told = 0;
    // A line comes every two seconds: for longer than a few looks in a row.
    while told < 4 {
        let said = held_up(&mut lines).await;
        assert!(told == 0 || said.is_some(), "after {told} lines it says nothing");
        if let Some(said) = said {
            assert!(said.contains("the store cannot be reached"), "{said}");
            told += 1;
        }
    }
    bed.s3.come_back();
    let saved = device_backup(&bed, &source).await;
    let restored = bed.end_beside(restoring).await;
    assert_eq!(restored.ok()["sha256"], saved["sha256"]);
    assert!(std::fs::read(&target).unwrap() == content);
}

#[tokio::test]
async fn small_calls_are_made_again_too() {
    let bed = Bed::new().await;
    bed.s3.refuse_all(2);
    bed.init().await.ok();
    bed.s3.refuse_all(1000);
    let message = bed.run(&["probe"]).await.failed("StoreError", 1).to_owned();
    assert!(message.contains("503 Service Unavailable, SlowDown"), "{message}");
    bed.s3.refuse_all(0);
}

/// What SIGKILL hits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Agent,
    Restic,
}

/// A backup that loses a process when so much of the disk is in the store.
async fn killed_backup(victim: Victim, percent: usize) {
    let bed = ready().await;
    bed.s3.slow(Duration::from_millis(300));
    let line = backup_line(&["--image", SOURCE, "--segment-bytes", SEGMENT]);
    let mut child = bed.start(&line);
    until(|| (bed.s3.written() >= SIZE * percent / 100).then_some(())).await;
    let saved = match victim {
        Victim::Agent => {
            child.kill().await.unwrap();
            bed.run(&line).await
        }
        Victim::Restic => {
            if let Some(restic) = child.id().and_then(child_of) {
                let _ = kill_process(Pid::from_raw(restic).unwrap(), Signal::KILL);
            }
            bed.end(child).await
        }
    };
    let saved = saved.ok().clone();
    // Two segments were under way; trees, manifests and the encryption's own bytes come on top.
    let most = SIZE + 2 * (1 << 20) + (1 << 18);
    assert!(bed.s3.written() <= most, "{victim:?} at {percent} %: {} of at most {most}", bed.s3.written());
    restore(&bed, &saved).await.ok();
    assert!(bed.cloud.image(DESTINATION).content == noise(SIZE));
}

#[tokio::test]
async fn a_backup_may_be_killed_at_any_time() {
    let cases = [Victim::Agent, Victim::Restic]
        .into_iter()
        .flat_map(|victim| [10, 50, 90].map(|percent| killed_backup(victim, percent)));
    futures::future::join_all(cases).await;
}

#[tokio::test]
async fn a_restore_may_be_killed_at_any_time() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let content = noise(SIZE);
    write_disk(&bed, "source", &content);
    let saved = device_backup(&bed, bed.path("source").to_str().unwrap()).await;
    let id = saved["snapshotId"].as_str().unwrap();
    for percent in [10, 50, 90] {
        let target = target(&bed);
        let (read, part) = (bed.s3.read(), SIZE * percent / 100);
        let mut child = bed.start(&restore_line(&["--device", &target, "--snapshot", id]));
        until(|| {
            (std::fs::read(&target).unwrap()[part - 4096..part] == content[part - 4096..part]).then_some(())
        })
        .await;
        child.kill().await.unwrap();
        bed.run(&restore_line(&["--device", &target, "--snapshot", id, "--resume"])).await.ok();
        assert!(std::fs::read(&target).unwrap() == content);
        let (read, most) = (bed.s3.read() - read, SIZE + 2 * (1 << 20) + (1 << 18));
        assert!(read <= most, "at {percent} %: {read} of at most {most}");
    }
}

#[tokio::test]
async fn disks_of_any_length() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let segment = 1 << 20;
    for (n, bytes) in
        [512, segment - 512, segment, segment + 512, 3 * segment, 3 * segment + 4096].into_iter().enumerate()
    {
        let content = noise(bytes);
        let (source, target) = (format!("source-{n}"), format!("target-{n}"));
        write_disk(&bed, &source, &content);
        write_disk(&bed, &target, &vec![7; bytes]);
        let (source, target) = (bed.path(&source), bed.path(&target));
        let disk = n.to_string();
        let backup =
            ["backup", "--migration-uid", UID, "--disk", &disk, "--device", source.to_str().unwrap()];
        let saved = bed.run(&[&backup[..], &["--segment-bytes", SEGMENT]].concat()).await.ok().clone();
        assert_eq!(saved["segments"], bytes.div_ceil(segment));
        bed.run(&["restore", "--disk", &disk, "--device", target.to_str().unwrap(), "--verify-disk"])
            .await
            .ok();
        assert!(std::fs::read(&target).unwrap() == content, "{bytes}");
    }
}

#[tokio::test]
async fn images_of_any_length() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let segment = 1 << 20;
    for (n, bytes) in [1, segment - 1, segment + 1, 2 * segment + 4095].into_iter().enumerate() {
        let content = noise(bytes);
        let (source, target, disk) = (format!("source-{n}"), format!("target-{n}"), n.to_string());
        bed.cloud.add_active(&source, content.clone());
        bed.cloud.add_queued(&target);
        let backup = ["backup", "--migration-uid", UID, "--disk", &disk, "--image", &source];
        let saved = bed.run(&[&backup[..], &["--segment-bytes", SEGMENT]].concat()).await.ok().clone();
        assert_eq!(saved["segments"], bytes.div_ceil(segment));
        bed.run(&["restore", "--disk", &disk, "--image", &target, "--origin", &source]).await.ok();
        assert!(bed.cloud.image(&target).content == content, "{bytes}");
    }
}

/// A whole way through a store of another kind.
async fn through(bed: &Bed) {
    bed.run(&["probe"]).await.ok();
    assert_eq!(bed.init().await.ok()["created"], true);
    assert_eq!(bed.init().await.ok()["created"], false);
    bed.cloud.add_active(SOURCE, noise(SIZE));
    bed.cloud.add_queued(DESTINATION);
    let saved = bed.backup(SOURCE).await.ok().clone();
    restore(bed, &saved).await.ok();
    assert!(bed.cloud.image(DESTINATION).content == noise(SIZE));
}

#[tokio::test]
async fn a_disk_travels_through_rest_server() {
    let (server, mut bed) = Bed::on_rest().await;
    through(&bed).await;
    let keys: Vec<String> = server.names().into_iter().filter(|name| name.contains("/keys/")).collect();
    assert_eq!(keys.len(), 1);
    // What our password does not open is somebody else's.
    server.put("/team/other/config", "x");
    bed.secret("restic-password", "another-pass-word");
    bed.init().await.failed("ForeignRepository", 2);
    bed.run(&["purge", "--migration-uid", UID]).await.failed("ForeignRepository", 2);
    bed.secret("restic-password", mover_support::REPOSITORY_PASSWORD);
    assert!(bed.run(&["purge", "--migration-uid", UID]).await.ok()["deletedObjects"].as_u64().unwrap() > 9);
    assert_eq!(server.names(), ["/team/other/config"]);
    assert_eq!(bed.run(&["purge", "--migration-uid", UID]).await.ok()["deletedObjects"], 0);
    // An init that was killed between key and config.
    bed.init().await.ok();
    server.remove(&format!("/team/{UID}/config"));
    assert_eq!(bed.init().await.ok()["created"], true);
    bed.secret("RESTIC_REST_PASSWORD", "wrong-pass-word");
    bed.run(&["probe"]).await.failed("StoreUnauthorized", 2);
    bed.secret("RESTIC_REST_PASSWORD", rest::PASSWORD);
    bed.repository = format!("rest:{}/too/many/{UID}", server.url);
    assert!(bed.run(&["probe"]).await.failed("StoreError", 2).contains("two folders"));
}

#[tokio::test]
async fn a_disk_travels_through_swift() {
    let (server, mut bed) = Bed::on_swift().await;
    through(&bed).await;
    server.put(&format!("moves/team/ns/{UID}x/config"), "x");
    let there = server.names().len() as u64 - 1;
    assert!(there > 9, "more than one page");
    assert_eq!(bed.run(&["purge", "--migration-uid", UID]).await.ok()["deletedObjects"], there);
    assert_eq!(server.names().len(), 1);
    // By password, too; and with a wrong one.
    std::fs::remove_file(bed.path("config").join("OS_APPLICATION_CREDENTIAL_ID")).unwrap();
    for (name, value) in
        [("OS_USERNAME", swift::ID), ("OS_PASSWORD", swift::SECRET), ("OS_PROJECT_NAME", "moves")]
    {
        bed.secret(name, value);
    }
    bed.run(&["probe"]).await.ok();
    bed.secret("OS_PASSWORD", "wrong-pass-word");
    bed.run(&["probe"]).await.failed("StoreUnauthorized", 2);
    bed.secret("OS_PASSWORD", swift::SECRET);
    bed.repository = format!("swift:nowhere:/team/ns/{UID}");
    bed.run(&["probe"]).await.failed("NoBucket", 2);
}

/// Saves other bytes under the tags of a segment, as somebody with the keys could.
async fn inject(bed: &Bed, tags: &str, content: &[u8]) {
    write_disk(bed, "injected", content);
    let content = std::fs::File::open(bed.path("injected")).unwrap();
    bed.restic(&["backup", "--stdin", "--stdin-filename", "segment", "--tag", tags], content.into()).await;
}

fn segment_tags(index: usize, source: &str) -> String {
    format!("mig={UID},disk=0,pass=0,kind=segment,seg={index},layout={SIZE}/{SEGMENT},from={source}")
}

#[tokio::test]
async fn a_wrong_segment_is_caught_named_and_sent_again() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, content) = disk(&bed, "source");
    inject(&bed, &segment_tags(1, &source), &vec![1; 1 << 20]).await;
    // The backup takes it for its own.
    let wrong = device_backup(&bed, &source).await;
    assert_eq!(wrong["reused"], 1);
    let target = target(&bed);
    let id = wrong["snapshotId"].as_str().unwrap();
    let ended = bed.run(&restore_line(&["--device", &target, "--snapshot", id])).await;
    assert!(ended.failed("WrongSegment", 2).contains("segment 1 of disk 0"));
    bed.cloud.add_queued(DESTINATION);
    let ended = restore(&bed, &wrong).await;
    assert!(ended.failed("WrongSegment", 2).contains("segment 1 of disk 0"));
    assert_ne!(bed.cloud.image(DESTINATION).status, "active");
    bed.run(&["seal", "--disk", "0", "--snapshot", id]).await.failed("WrongSegment", 2);
    // A restore that takes segments as they come waits for the right one; the backup sends that one only.
    let waiting = bed.start_beside(&restore_line(&["--device", &target, "--verify-disk"]));
    let written = bed.s3.written();
    let right = device_backup(&bed, &source).await;
    assert_ne!(right["snapshotId"], wrong["snapshotId"]);
    assert_eq!((&right["sha256"], &right["reused"]), (&wrong["sha256"], &json!(3)));
    let sent = bed.s3.written() - written;
    assert!(sent > 450_000 && sent < 700_000, "{sent}");
    bed.end_beside(waiting).await.ok();
    assert!(std::fs::read(&target).unwrap() == content);
    bed.cloud.add_queued(DESTINATION);
    restore(&bed, &right).await.ok();
    assert!(bed.cloud.image(DESTINATION).content == content);
}

/// The real restic, which once tells of another number of bytes than it was given, of segment 1.
fn miscounting(bed: &Bed) -> PathBuf {
    let (program, told, real) = (bed.path("restic.sh"), bed.path("told"), &bed.program);
    let script = format!(
        r#"#!/bin/bash
case "$*" in *,seg=1,*) if ! [ -e {told:?} ]; then
  : >{told:?}; {real:?} "$@" | sed 's/"total_bytes_processed":[0-9]*/"total_bytes_processed":1/'; exit "${{PIPESTATUS[0]}}"
fi ;; esac
exec {real:?} "$@"
"#
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}

#[tokio::test]
async fn a_segment_of_another_length_than_was_sent_is_condemned() {
    let mut bed = Bed::new().await;
    bed.init().await.ok();
    let (source, content) = disk(&bed, "source");
    bed.program = miscounting(&bed);
    // Within the same Job it is sent again; what lies there already is taken by nobody.
    device_backup(&bed, &source).await;
    let list = async |tag: &str| {
        let found = bed.restic(&["snapshots", "--json", "--tag", tag], Stdio::null()).await.stdout;
        serde_json::from_slice::<Vec<Value>>(&found).unwrap()
    };
    let (all, notes) = (list("seg=1").await, list("kind=condemned").await);
    assert_eq!((all.len(), notes.len()), (2, 1), "{all:?} {notes:?}");
    let names = |id: &Value| notes[0].to_string().contains(id.as_str().unwrap());
    assert!(names(&all[0]["id"]) && !names(&all[1]["id"]), "{all:?} {notes:?}");
    let target = target(&bed);
    bed.run(&restore_line(&["--device", &target])).await.ok();
    assert!(std::fs::read(&target).unwrap() == content);
}

#[tokio::test]
async fn a_wrong_segment_that_nobody_names_is_fetched_again() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, content) = disk(&bed, "source");
    device_backup(&bed, &source).await;
    inject(&bed, &segment_tags(1, &source), &vec![1; 1 << 20]).await;
    let target = target(&bed);
    bed.run(&restore_line(&["--device", &target])).await.ok();
    assert!(std::fs::read(&target).unwrap() == content);
}

/// Snapshots of whole disks that plain restic finds.
async fn whole_disks(bed: &Bed) -> usize {
    let list = bed.restic(&["snapshots", "--json", "--tag", "kind=whole"], Stdio::null()).await.stdout;
    serde_json::from_slice::<Value>(&list).unwrap().as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_disk_that_was_found_wrong_is_never_handed_out_as_the_whole() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, _) = disk(&bed, "source");
    // Its last segment: all of its bytes have been sent before they are judged.
    inject(&bed, &segment_tags(5, &source), &[1; 12_345]).await;
    let wrong = device_backup(&bed, &source).await;
    assert_eq!(wrong["reused"], 1);
    let line = ["seal", "--disk", "0", "--snapshot", wrong["snapshotId"].as_str().unwrap()];
    for _ in 0..2 {
        let ended = bed.run(&line).await;
        assert!(ended.failed("WrongSegment", 2).contains("segment 5 of disk 0"));
        assert_eq!(whole_disks(&bed).await, 0);
    }
    // The hash that the source's image service states is judged after the last segment.
    bed.cloud.add_active(SOURCE, noise(SIZE));
    bed.cloud.misbehave(Mischief::FlipsAByte);
    let wrong = bed.backup(SOURCE).await.ok().clone();
    bed.cloud.misbehave(Mischief::None);
    let line = ["seal", "--disk", "0", "--snapshot", wrong["snapshotId"].as_str().unwrap()];
    for _ in 0..2 {
        assert!(bed.run(&line).await.failed("DigestMismatch", 2).contains("read wrongly"));
        assert_eq!(whole_disks(&bed).await, 0);
    }
}

#[tokio::test]
async fn a_whole_disk_about_which_no_note_says_that_it_was_proven_is_made_again() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, content) = disk(&bed, "source");
    let saved = device_backup(&bed, &source).await;
    let manifest = saved["snapshotId"].as_str().unwrap();
    // As a mover of an earlier version left it, or one that was killed before it was done.
    inject(&bed, &format!("mig={UID},disk=0,pass=0,kind=whole,of={manifest}"), &[1; SIZE]).await;
    let line = ["seal", "--disk", "0", "--snapshot", manifest];
    let sealed = bed.run(&line).await.ok().clone();
    let id = sealed["snapshotId"].as_str().unwrap();
    assert!(bed.restic(&["dump", id, "/disk-0.raw"], Stdio::null()).await.stdout == content);
    assert_eq!(bed.run(&line).await.ok()["snapshotId"], id);
}

#[tokio::test]
async fn a_sealed_disk_needs_nothing_of_ours() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, content) = disk(&bed, "source");
    let saved = device_backup(&bed, &source).await;
    let line = ["seal", "--disk", "0", "--snapshot", saved["snapshotId"].as_str().unwrap()];
    let sealed = bed.run(&line).await.ok().clone();
    let id = sealed["snapshotId"].as_str().unwrap();
    assert_eq!(sealed["file"], "disk-0.raw");
    assert!(bed.restic(&["dump", id, "/disk-0.raw"], Stdio::null()).await.stdout == content);
    // Once more, it is found; a pass that goes on takes it for no segment.
    assert_eq!(bed.run(&line).await.ok()["snapshotId"], id);
    let target = target(&bed);
    bed.run(&restore_line(&["--device", &target])).await.ok();
    assert!(std::fs::read(&target).unwrap() == content);
    let before = bed.snapshots();
    bed.run(&["seal", "--disk", "0", "--snapshot", &"ab".repeat(32)]).await.failed("SnapshotNotFound", 2);
    assert_eq!(bed.snapshots(), before);
}

/// The commands of docs/stores.md, word for word.
#[tokio::test]
async fn the_documentation_restores_with_plain_restic() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/stores.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> =
        page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, content) = disk(&bed, "source");
    let saved = device_backup(&bed, &source).await;
    let manifest = saved["snapshotId"].as_str().unwrap();
    std::os::unix::fs::symlink("config", bed.path("secret")).unwrap();
    let restic = mover_support::restic();
    let path =
        format!("{}:{}", restic.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    // The store is on loopback here, which the real command line refuses.
    let ours = concat!(
        "vmmigration() { [ \"$1 $2\" = 'mover seal' ] && shift 2; ",
        env!("CARGO_BIN_EXE_vmmigration"),
        " mover seal --allow-loopback \"$@\"; }\n"
    );
    for block in blocks {
        let mut shell = tokio::process::Command::new("sh");
        shell.arg("-euc").arg(format!("{ours}{block}")).current_dir(bed.directory.path());
        shell.env("PATH", &path).env("MANIFEST", manifest).env("DISK", "0").env("PASS", "0");
        let output = bed.plain_environment(&mut shell).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let disk = bed.path("disk.raw");
        assert!(std::fs::read(&disk).unwrap() == content, "{block}");
        std::fs::remove_file(disk).unwrap();
    }
}

/// Some writes, some zeros, nothing in most places.
fn change(content: &mut [u8], seed: u8) {
    for at in [10, 70_000, 1_048_575, 1_048_576, 2_500_000, SIZE - 1] {
        content[at] = content[at].wrapping_add(seed);
    }
    content[4_400_000..4_700_000].fill(0);
    content[3_000_000..3_400_000].fill(seed);
}

#[tokio::test]
async fn later_passes_send_what_changed() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, mut content) = disk(&bed, "source");
    let target = target(&bed);
    let line = |more: &[&'static str]| {
        let start =
            ["--device", &source, "--segment-bytes", SEGMENT, "--patch-bytes", "131072"].map(str::to_owned);
        [start.to_vec(), more.iter().map(|word| (*word).to_owned()).collect()].concat()
    };
    let (mut saved, mut contents, mut ids) = (Value::Null, vec![], vec![]);
    for pass in 0..3_u8 {
        let mut words = line(&["--keep-digests"]);
        if pass > 0 {
            change(&mut content, pass);
            write_disk(&bed, "source", &content);
            words.extend(["--pass".into(), pass.to_string(), "--base-manifest".into()]);
            words.push(saved["snapshotId"].as_str().unwrap().to_owned());
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let written = bed.s3.written();
        saved = bed.run(&backup_line(&words)).await.ok().clone();
        assert_eq!(saved["sha256"], root(&content, 1 << 20), "{saved}");
        if pass > 0 {
            assert!(bed.s3.written() - written < 1_200_000, "{}", bed.s3.written() - written);
            assert!(saved["changedBytes"].as_u64().unwrap() < 1_300_000, "{saved}");
        }
        let (number, id) = (pass.to_string(), saved["snapshotId"].as_str().unwrap().to_owned());
        let mut restored = vec!["--device", &target, "--pass", &number, "--snapshot", &id, "--verify-disk"];
        let held: Option<&String> = ids.last();
        restored.extend(held.iter().flat_map(|held| ["--holds", held.as_str()]));
        let read = bed.s3.read();
        bed.run(&restore_line(&restored)).await.ok();
        assert!(std::fs::read(&target).unwrap() == content, "pass {pass}");
        assert!(pass == 0 || bed.s3.read() - read < 1_200_000, "a later pass is its patches");
        // Once more does no harm.
        bed.run(&restore_line(&restored)).await.ok();
        contents.push(content.clone());
        ids.push(id);
    }
    from_whatever_is_there(&bed, &target, &contents, &ids).await;
    // An image is put together from all passes.
    bed.cloud.add_queued(DESTINATION);
    let id = saved["snapshotId"].as_str().unwrap();
    let sha256 = saved["sha256"].as_str().unwrap();
    bed.run(&restore_line(&["--image", DESTINATION, "--pass", "2", "--snapshot", id, "--sha256", sha256]))
        .await
        .ok();
    assert!(bed.cloud.image(DESTINATION).content == content);
    // The last state, for plain restic.
    let sealed = bed.run(&["seal", "--disk", "0", "--pass", "2", "--snapshot", id]).await.ok().clone();
    let id = sealed["snapshotId"].as_str().unwrap();
    assert!(bed.restic(&["dump", id, "/disk-0.raw"], Stdio::null()).await.stdout == content);
    let id = saved["snapshotId"].as_str().unwrap();
    // A pass does not follow any other.
    let wrong = line(&["--pass", "2", "--base-manifest"]);
    let mut words: Vec<&str> = wrong.iter().map(String::as_str).collect();
    words.push(id);
    bed.run(&backup_line(&words)).await.failed("InvalidArguments", 2);
}

/// A device is brought to the last of three passes from an earlier one, from what it only is said to hold, and after
/// it was broken off amid the patches.
async fn from_whatever_is_there(bed: &Bed, target: &str, contents: &[Vec<u8>], ids: &[String]) {
    let last = ["--device", target, "--pass", "2", "--snapshot", &ids[2], "--verify-disk"];
    let restored = async |before: &[u8], more: &[&str]| {
        write_disk(bed, "target", before);
        bed.run(&restore_line(&[&last, more].concat())).await.ok();
        assert!(std::fs::read(target).unwrap() == contents[2], "{more:?}");
    };
    restored(&contents[0], &["--holds", &ids[0]]).await;
    restored(&contents[1], &["--holds", &ids[1]]).await;
    restored(&noise(SIZE + 4096)[4096..], &[]).await;
    restored(&contents[1], &["--resume"]).await;
    // It is not what it was said to be, and that pass is not one of those before.
    restored(&contents[0], &["--holds", &ids[1]]).await;
    restored(&contents[0], &["--holds", &"ab".repeat(32)]).await;
    // Some of each pass, as one that was killed leaves it.
    let mut torn = contents[0].clone();
    torn[..1 << 20].copy_from_slice(&contents[2][..1 << 20]);
    torn[2 << 20..3 << 20].copy_from_slice(&contents[1][2 << 20..3 << 20]);
    restored(&torn, &["--holds", &ids[0]]).await;
    let words = [&last[..], &["--holds", &ids[0], "--target-is-zero"]].concat();
    assert!(bed.run(&restore_line(&words)).await.code != Some(0), "what was written is no zero");
}

#[tokio::test]
async fn patches_that_were_broken_off_are_written_again() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, mut content) = disk(&bed, "source");
    let target = target(&bed);
    let line = ["--device", &source, "--segment-bytes", SEGMENT, "--patch-bytes", "65536", "--keep-digests"];
    let first = bed.run(&backup_line(&line)).await.ok()["snapshotId"].as_str().unwrap().to_owned();
    bed.run(&restore_line(&["--device", &target, "--snapshot", &first])).await.ok();
    change(&mut content, 1);
    write_disk(&bed, "source", &content);
    let line = [&line[..], &["--pass", "1", "--base-manifest", &first]].concat();
    let second = bed.run(&backup_line(&line)).await.ok()["snapshotId"].as_str().unwrap().to_owned();
    let restored =
        ["--device", &target, "--pass", "1", "--snapshot", &second, "--holds", &first, "--verify-disk"];
    // At the first change, in the middle, and at the last one.
    for at in [10, 3_000_000, SIZE - 1] {
        let before = std::fs::read(&target).unwrap();
        let mut child = bed.start(&restore_line(&restored));
        until(|| {
            let now = std::fs::read(&target).unwrap();
            (now[at] == content[at] || child.try_wait().unwrap().is_some()).then_some(())
        })
        .await;
        child.kill().await.unwrap();
        bed.run(&restore_line(&restored)).await.ok();
        assert!(std::fs::read(&target).unwrap() == content, "killed at {at}");
        // As the first pass left it.
        write_disk(&bed, "target", &before);
    }
}

/// As in Image mode: every pass reads an image of its own, and the disk is put together into one.
#[tokio::test]
async fn later_passes_over_images_send_what_changed() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let mut content = noise(SIZE);
    content[1_500_000..4_300_000].fill(0);
    let mut saved = Value::Null;
    for pass in 0..3_u8 {
        let image = format!("aaaaaaaa-0000-0000-0001-00000000000{pass}");
        if pass > 0 {
            change(&mut content, pass);
        }
        bed.cloud.add_active(&image, content.clone());
        let (number, base) = (pass.to_string(), saved["snapshotId"].as_str().unwrap_or_default().to_owned());
        let mut line = vec!["--image", &image, "--segment-bytes", SEGMENT, "--keep-digests"];
        line.extend(["--patch-bytes", "131072"]);
        if pass > 0 {
            line.extend(["--pass", &number, "--base-manifest", &base]);
        }
        let written = bed.s3.written();
        saved = bed.run(&backup_line(&line)).await.ok().clone();
        assert_eq!(saved["sha256"], root(&content, 1 << 20), "{saved}");
        assert_eq!(saved["hashValue"], hex::encode(Sha512::digest(&content)), "the image's own hash");
        if pass > 0 {
            assert!(bed.s3.written() - written < 1_200_000, "{}", bed.s3.written() - written);
            assert!(saved["changedBytes"].as_u64().unwrap() < 1_300_000, "{saved}");
        }
        if pass == 0 {
            continue;
        }
        let (target, id) =
            (format!("bbbbbbbb-0000-0000-0001-00000000000{pass}"), saved["snapshotId"].as_str());
        bed.cloud.add_queued(&target);
        let (id, sha256, hash) =
            (id.unwrap(), saved["sha256"].as_str().unwrap(), saved["hashValue"].as_str().unwrap());
        let proof = ["--sha256", sha256, "--hash-algo", "sha512", "--hash-value", hash];
        let line = [&["--image", &target, "--pass", &number, "--snapshot", id][..], &proof].concat();
        let restored = bed.run(&restore_line(&line)).await.ok().clone();
        assert_eq!(restored["hashValue"], saved["hashValue"]);
        assert!(bed.cloud.image(&target).content == content, "pass {pass}");
    }
    // What was read of another pass's image is no part of this one.
    bed.cloud.add_queued(DESTINATION);
    let id = saved["snapshotId"].as_str().unwrap();
    bed.run(&restore_line(&["--image", DESTINATION, "--pass", "1", "--snapshot", id]))
        .await
        .failed("InvalidArguments", 2);
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
    command.args(["mover", "probe", "--repository", &bed.repository.replace("http://", "https://")]);
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

#[tokio::test]
async fn a_restore_takes_nothing_that_an_earlier_try_left_of_another_image() {
    let bed = ready().await;
    let other = "aaaaaaaa-0000-0000-0000-000000000003";
    let old = bed.backup(SOURCE).await.ok().clone();
    let line = |origin: &'static str, image: &'static str| {
        restore_line(&["--image", image, "--origin", origin, "--patience-seconds", "0"])
    };
    bed.run(&line(other, DESTINATION)).await.failed("NothingArrives", 1);
    let content: Vec<u8> = noise(SIZE).into_iter().rev().collect();
    bed.cloud.add_active(other, content.clone());
    let new = bed.backup(other).await.ok().clone();
    let restored = bed.run(&line(other, DESTINATION)).await.ok().clone();
    assert_eq!((&restored["snapshotId"], &restored["sha256"]), (&new["snapshotId"], &new["sha256"]));
    assert!(bed.cloud.image(DESTINATION).content == content);
    // The newest is not simply taken.
    let second = "bbbbbbbb-0000-0000-0000-000000000004";
    bed.cloud.add_queued(second);
    let restored = bed.run(&line(SOURCE, second)).await.ok().clone();
    assert_eq!(restored["snapshotId"], old["snapshotId"]);
    assert!(bed.cloud.image(second).content == noise(SIZE));
}
