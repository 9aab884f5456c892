//! What real stores do that a plain one does not: versions and locks, quotas, clocks, regions, names that are made.

use std::time::{Duration, Instant};

use crate::{
    SIZE, SOURCE,
    mover_support::{
        Bed, Ended, UID, noise,
        rest::FakeRest,
        s3::{Full, Lock, Sight},
        swift::FakeSwift,
        tls::behind_tls,
    },
    ready,
};
use jiff::{SignedDuration, Timestamp};

const PURGE: [&str; 3] = ["purge", "--migration-uid", UID];

/// A bed whose store keeps versions, with a repository and a disk in it.
async fn versioned() -> Bed {
    let bed = Bed::new().await;
    bed.s3.behave(|manners| manners.versions = true);
    bed.init().await.ok();
    bed.cloud.add_active(SOURCE, noise(SIZE));
    bed.backup(SOURCE).await.ok();
    bed
}

async fn on_swift() -> (FakeSwift, Bed) {
    let (server, bed) = Bed::on_swift().await;
    bed.cloud.add_active(SOURCE, noise(SIZE));
    (server, bed)
}

async fn on_rest() -> (FakeRest, Bed) {
    let (server, bed) = Bed::on_rest().await;
    bed.cloud.add_active(SOURCE, noise(SIZE));
    (server, bed)
}

#[tokio::test]
async fn a_bucket_that_keeps_versions_is_emptied() {
    let bed = versioned().await;
    bed.s3.put(&format!("movers/team-a/{UID}x/config"), "x");
    let there = bed.s3.versions(&bed.prefix());
    assert!(there > bed.s3.keys(&bed.prefix()).len(), "restic has deleted its locks, and markers tell of it");
    let purged = bed.run(&PURGE).await;
    assert_eq!(bed.s3.versions(&bed.prefix()), 0, "{purged:?}");
    assert_eq!(purged.ok()["deletedObjects"], there);
    assert_eq!(bed.s3.keys("").len(), 1);
    assert_eq!(bed.run(&PURGE).await.ok()["deletedObjects"], 0);
}

#[tokio::test]
async fn a_probe_leaves_no_version_behind() {
    let bed = Bed::new().await;
    bed.s3.behave(|manners| manners.versions = true);
    bed.run(&["probe"]).await.ok();
    assert_eq!(bed.s3.versions(""), 0);
}

#[tokio::test]
async fn what_is_locked_stays_and_is_told_until_when() {
    for lock in [Lock::Versions(30), Lock::Bucket(30)] {
        let bed = Bed::new().await;
        bed.s3.behave(|manners| (manners.versions, manners.lock) = (true, Some(lock)));
        // Takes nothing without a digest of it.
        bed.init().await.ok();
        bed.cloud.add_active(SOURCE, noise(SIZE));
        bed.backup(SOURCE).await.ok();
        let before = bed.s3.versions(&bed.prefix());
        let purged = bed.run(&PURGE).await;
        let kept = &purged.ok()["kept"];
        let left = bed.s3.versions(&bed.prefix());
        assert!(left > 9 && left < before, "markers of deletions are not locked");
        assert_eq!(kept["objects"], left, "{purged:?}");
        let until: Timestamp = kept["until"].as_str().unwrap().parse().unwrap();
        let off = until - (Timestamp::now() + SignedDuration::from_hours(24 * 30));
        assert!(off.get_seconds().abs() < 60, "{lock:?}: {until}");
        assert!(kept["message"].as_str().unwrap().contains("object lock"), "{purged:?}");
        // It may be tried again at any time; nobody else's question is answered otherwise.
        assert_eq!(bed.run(&PURGE).await.ok()["kept"]["objects"], left);
        bed.s3.behave(|manners| manners.lock = None);
        assert!(bed.run(&PURGE).await.ok().get("kept").is_none());
        assert_eq!(bed.s3.versions(&bed.prefix()), 0);
    }
}

#[tokio::test]
async fn a_probe_tells_what_a_lock_will_keep() {
    let bed = Bed::new().await;
    bed.s3.behave(|manners| (manners.versions, manners.lock) = (true, Some(Lock::Versions(30))));
    let probed = bed.run(&["probe"]).await;
    assert_eq!(probed.ok()["storeKeeps"]["objects"], 1, "{probed:?}");
    // What cannot be removed is not seen any more, at least.
    assert!(bed.s3.keys("").is_empty());
}

#[tokio::test]
async fn versions_that_cannot_be_seen_are_told_where_there_are_any() {
    for sight in [Sight::Denied, Sight::Unknown] {
        let bed = ready().await;
        bed.s3.behave(|manners| manners.sight = sight);
        assert!(bed.run(&PURGE).await.ok().get("kept").is_none());
        assert!(bed.s3.keys("").is_empty());
    }
    let bed = versioned().await;
    bed.s3.behave(|manners| manners.sight = Sight::Denied);
    let purged = bed.run(&PURGE).await;
    assert!(bed.s3.keys("").is_empty());
    let message = purged.ok()["kept"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("s3:ListBucketVersions"), "{message}");
}

#[tokio::test]
async fn uploads_that_nobody_ended_are_removed_where_they_can_be_seen() {
    let bed = ready().await;
    let upload = |key: String| (key, "an-id".to_owned());
    let uploads = vec![upload(format!("{}data/ab", bed.prefix())), upload("other/data/cd".to_owned())];
    bed.s3.behave(|manners| manners.uploads = Some(uploads));
    bed.run(&PURGE).await.ok();
    bed.s3.behave(|manners| {
        let left: Vec<_> = manners.uploads.iter().flatten().map(|(key, _)| key.as_str()).collect();
        assert_eq!(left, ["other/data/cd"]);
        // And a store that does not tell of any.
        manners.uploads = None;
    });
    bed.init().await.ok();
    bed.run(&PURGE).await.ok();
}

#[tokio::test]
async fn a_swift_container_that_keeps_versions_is_emptied() {
    let (server, bed) = on_swift().await;
    server.behave(|manners| manners.versions = true);
    bed.run(&["probe"]).await.ok();
    assert_eq!(server.versions(), 0, "of the probe");
    bed.init().await.ok();
    bed.backup(SOURCE).await.ok();
    let purged = bed.run(&PURGE).await;
    assert_eq!((server.versions(), server.names().len()), (0, 0), "{purged:?}");
    purged.ok();
}

#[tokio::test]
async fn a_container_that_others_keep_is_told_of() {
    let (server, bed) = on_swift().await;
    server.behave(|manners| manners.archive = Some("attic".to_owned()));
    bed.init().await.ok();
    let message = bed.run(&PURGE).await.ok()["kept"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("container attic"), "{message}");
}

/// Ended with `StoreFull`, by what the store said, within a minute.
#[track_caller]
fn full(ended: &Ended, since: Instant, words: &str) {
    let message = ended.failed("StoreFull", 1);
    assert!(message.contains(words), "{message}");
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_full_bucket_is_named_in_time_however_it_says_so() {
    for (kind, words) in
        [(Full::Minio, "minimum free drive"), (Full::Ceph, "QuotaExceeded"), (Full::Swift, "exceeds quota")]
    {
        let bed = ready().await;
        bed.s3.fill_up_as(Some(kind));
        let since = Instant::now();
        full(&bed.backup(SOURCE).await, since, words);
        let since = Instant::now();
        full(&bed.run(&["probe"]).await, since, words);
    }
}

#[tokio::test]
async fn a_full_container_is_named_in_time() {
    let (server, bed) = on_swift().await;
    bed.init().await.ok();
    server.behave(|manners| manners.full = true);
    let since = Instant::now();
    full(&bed.backup(SOURCE).await, since, "Too Large Object");
    let since = Instant::now();
    full(&bed.run(&["probe"]).await, since, "Upload exceeds quota.");
}

#[tokio::test]
async fn a_full_rest_server_is_named_in_time() {
    let (server, bed) = on_rest().await;
    server.fill_up(true);
    let since = Instant::now();
    full(&bed.init().await, since, "507");
    full(&bed.run(&["probe"]).await, since, "Insufficient Storage");
    server.fill_up(false);
    bed.init().await.ok();
    server.fill_up(true);
    let since = Instant::now();
    full(&bed.backup(SOURCE).await, since, "507");
}

#[tokio::test]
async fn clocks_that_differ_are_found_and_measured() {
    // A URL that was signed too early passes; restic's signatures do not. One that was signed too late has expired.
    for (ahead, words) in [(-1200, "20 minutes behind ours"), (1200, "20 minutes ahead of ours")] {
        let bed = Bed::new().await;
        bed.s3.behave(|manners| manners.ahead = ahead);
        for line in [&["probe"][..], &["init", "--migration-uid", UID, "--object", "team-a/web-1"]] {
            let ended = bed.run(line).await;
            assert!(ended.failed("StoreError", 2).contains(words), "{ended:?}");
        }
        assert!(bed.s3.keys("").is_empty());
    }
    for ahead in [-120, 120] {
        let bed = Bed::new().await;
        bed.s3.behave(|manners| manners.ahead = ahead);
        bed.run(&["probe"]).await.ok();
        bed.init().await.ok();
    }
    // One that goes wrong later.
    let bed = ready().await;
    bed.s3.behave(|manners| manners.ahead = 1200);
    let since = Instant::now();
    let ended = bed.backup(SOURCE).await;
    assert!(ended.failed("StoreError", 2).contains("20 minutes ahead of ours"), "{ended:?}");
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
}

#[tokio::test]
async fn the_region_is_found_as_restic_finds_it() {
    let bed = Bed::new().await;
    bed.s3.behave(|manners| manners.region = Some("eu-north-7".to_owned()));
    bed.run(&["probe"]).await.ok();
    bed.init().await.ok();
    bed.cloud.add_active(SOURCE, noise(SIZE));
    bed.backup(SOURCE).await.ok();
    bed.run(&PURGE).await.ok();
    bed.secret("AWS_DEFAULT_REGION", "eu-north-7");
    bed.run(&["probe"]).await.ok();
    // One that is given is never replaced in secret.
    bed.secret("AWS_DEFAULT_REGION", "us-east-1");
    let ended = bed.run(&["probe"]).await;
    let message = ended.failed("InvalidConfiguration", 2);
    assert!(message.contains("AWS_DEFAULT_REGION") && message.contains("eu-north-7"), "{message}");
}

#[tokio::test]
async fn a_bucket_that_the_store_would_make_is_not_made() {
    let mut bed = Bed::new().await;
    bed.s3.behave(|manners| manners.makes_buckets = true);
    bed.repository = bed.repository.replace("/bucket/", "/bukcet/");
    let ended = bed.run(&["probe"]).await;
    assert!(ended.failed("NoBucket", 2).contains("LIST bukcet/"), "{ended:?}");
    bed.init().await.failed("NoBucket", 2);
    bed.s3.behave(|manners| assert!(manners.buckets.is_empty(), "{:?}", manners.buckets));
}

#[tokio::test]
async fn a_container_that_restic_would_make_is_not_made() {
    let (server, mut bed) = on_swift().await;
    bed.init().await.ok();
    server.behave(|manners| manners.containers.clear());
    bed.backup(SOURCE).await.failed("NoBucket", 2);
    bed.run(&["restore", "--disk", "0", "--image", SOURCE]).await;
    bed.repository = format!("swift:mvoes:/team/ns/{UID}");
    bed.run(&["probe"]).await.failed("NoBucket", 2);
    bed.init().await.failed("NoBucket", 2);
    assert!(server.containers().is_empty(), "{:?}", server.containers());
}

#[tokio::test]
async fn a_cluster_of_short_pages_is_emptied() {
    let (server, bed) = on_swift().await;
    // What restic asks for, and no more.
    server.behave(|manners| manners.limit = 1000);
    bed.init().await.ok();
    bed.backup(SOURCE).await.ok();
    bed.run(&PURGE).await.ok();
    assert!(server.names().is_empty());
}

#[tokio::test]
async fn a_keystone_that_is_not_there_is_no_missing_object() {
    let (server, bed) = on_swift().await;
    bed.init().await.ok();
    bed.secret("OS_AUTH_URL", &format!("{}/elsewhere", server.url));
    for line in [&["probe"][..], &["init", "--migration-uid", UID, "--object", "team-a/web-1"], &PURGE] {
        let ended = bed.run(line).await;
        assert!(ended.failed("InvalidConfiguration", 2).contains("OS_AUTH_URL"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_its_own_ca_for_us_as_for_restic() {
    let (server, mut bed) = on_rest().await;
    let tls = behind_tls(server.address, "-addext subjectAltName=IP:127.0.0.1").await;
    bed.repository = format!("rest:{}/team/{UID}", tls.address);
    let untrusted = bed.run(&["probe"]).await;
    assert!(untrusted.outcome["message"].as_str().unwrap().contains("is not trusted"), "{untrusted:?}");
    bed.secret("store-cacert", &tls.certificate);
    bed.run(&["probe"]).await.ok();
    bed.init().await.ok();
    bed.backup(SOURCE).await.ok();
}
