//! The mover's binary with a real restic, against a store and a cloud on loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must say so")]

mod mover_support;

use std::time::Duration;

use mover_support::{
    Bed, SEGMENT, UID, backup_line,
    cloud::{Image, Mischief},
    noise, restore_line,
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

/// Saves other bytes under the tags of a segment, as somebody with the keys could.
async fn inject(bed: &Bed, tags: &str, content: &[u8]) {
    let mut command = tokio::process::Command::new(mover_support::restic());
    command.args([
        "-o",
        "s3.bucket-lookup=path",
        "backup",
        "--stdin",
        "--stdin-filename",
        "segment",
        "--tag",
        tags,
    ]);
    command
        .env("RESTIC_REPOSITORY", bed.repository())
        .env("RESTIC_PASSWORD", mover_support::REPOSITORY_PASSWORD)
        .env("RESTIC_CACHE_DIR", bed.path("scratch"))
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", mover_support::s3::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", mover_support::SECRET_KEY);
    write_disk(bed, "injected", content);
    command.stdin(std::fs::File::open(bed.path("injected")).unwrap());
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_wrong_segment_is_caught_and_named() {
    let bed = Bed::new().await;
    bed.init().await.ok();
    let (source, content) = disk(&bed, "source");
    let tags = format!("mig={UID},disk=0,pass=0,kind=segment,seg=1,layout={SIZE}/{SEGMENT},from={source}");
    inject(&bed, &tags, &vec![1; 1 << 20]).await;
    // The backup takes it for its own.
    let saved = device_backup(&bed, &source).await;
    assert_eq!(saved["reused"], 1);
    let target = target(&bed);
    let id = saved["snapshotId"].as_str().unwrap();
    let ended = bed.run(&restore_line(&["--device", &target, "--snapshot", id])).await;
    assert!(ended.failed("DigestMismatch", 2).contains("segment 1"));
    bed.cloud.add_queued(DESTINATION);
    let ended = restore(&bed, &saved).await;
    assert!(ended.failed("DigestMismatch", 2).contains("segment 1"));
    assert_ne!(bed.cloud.image(DESTINATION).status, "active");
    // One that arrives too late is fetched again as the manifest says.
    bed.s3.keys("").iter().for_each(|key| bed.s3.remove(key));
    bed.init().await.ok();
    device_backup(&bed, &source).await;
    inject(&bed, &tags, &vec![1; 1 << 20]).await;
    bed.run(&restore_line(&["--device", &target])).await.ok();
    assert!(std::fs::read(&target).unwrap() == content);
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
    let mut saved = Value::Null;
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
        let (pass, id) = (pass.to_string(), saved["snapshotId"].as_str().unwrap());
        let restored = ["--device", &target, "--pass", &pass, "--snapshot", id, "--verify-disk"];
        bed.run(&restore_line(&restored)).await.ok();
        assert!(std::fs::read(&target).unwrap() == content, "pass {pass}");
        // Once more does no harm.
        bed.run(&restore_line(&restored)).await.ok();
    }
    // An image is put together from all passes.
    bed.cloud.add_queued(DESTINATION);
    let id = saved["snapshotId"].as_str().unwrap();
    let sha256 = saved["sha256"].as_str().unwrap();
    bed.run(&restore_line(&["--image", DESTINATION, "--pass", "2", "--snapshot", id, "--sha256", sha256]))
        .await
        .ok();
    assert!(bed.cloud.image(DESTINATION).content == content);
    // A pass does not follow any other.
    let wrong = line(&["--pass", "2", "--base-manifest"]);
    let mut words: Vec<&str> = wrong.iter().map(String::as_str).collect();
    words.push(id);
    bed.run(&backup_line(&words)).await.failed("InvalidArguments", 2);
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
