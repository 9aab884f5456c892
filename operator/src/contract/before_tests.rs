//! Outcomes as movers of the release before wrote them, word by word: they are read as they were.

use super::*;

/// No `version`, and of all kinds.
const WRITTEN: [&str; 13] = [
    r#"{"ok":true,"result":{"snapshotId":"6f1d","bytes":1073741824,"sha256":"9c56","hashAlgo":"sha512","hashValue":"d4","segments":4,"skippedSegments":1,"reused":0,"changedBytes":805306368,"storedBytes":1234,"seconds":12}}"#,
    r#"{"ok":true,"result":{"snapshotId":"6f1d","bytes":1073741824,"sha256":"9c56","seconds":9}}"#,
    r#"{"ok":true,"result":{"snapshotId":"6f1d","file":"disk-0.raw","storedBytes":1234,"seconds":12}}"#,
    r#"{"ok":true,"result":{"storeWriteMs":1,"storeReadMs":2,"storeDeleteMs":3,"cloudConnectMs":4,"cloudImageMs":5}}"#,
    r#"{"ok":true,"result":{"created":true}}"#,
    r#"{"ok":true,"result":{"deletedObjects":7}}"#,
    r#"{"ok":true,"result":{"checks":[{"name":"page","ok":true,"attempts":3,"message":"answered 200 OK"}],"firstPassedAt":"2026-11-29T22:00:01.5Z"}}"#,
    r#"{"ok":false,"reason":"CheckFailed","message":"1 of 1 checks did not pass in time: page: refused","retryable":false,"result":{"checks":[{"name":"page","ok":false,"attempts":3,"message":"refused"}]}}"#,
    r#"{"ok":false,"reason":"StoreFull","message":"the store has no room: 507","retryable":true}"#,
    r#"{"ok":true,"result":{"snapshotId":"6f1d","bytes":1073741824,"sha256":"9c56","segments":4,"skippedSegments":1,"reused":0,"changedBytes":805306368,"storedBytes":1234,"seconds":12,"objection":"LUKS version 2 on the whole disk: Glance refuses that"}}"#,
    r#"{"ok":true,"result":{"storeWriteMs":1,"storeReadMs":2,"storeDeleteMs":3,"cloudConnectMs":4,"cloudImageMs":5,"storeKeeps":{"objects":1,"message":"the bucket keeps old versions"}}}"#,
    r#"{"ok":true,"result":{"deletedObjects":7,"kept":{"objects":3,"until":"2026-12-29T22:00:00Z","message":"object lock"}}}"#,
    r#"{"ok":false,"reason":"DiskRefused","message":"LUKS version 2 on the whole disk","retryable":false}"#,
];

fn told(n: usize) -> Outcome<Answer> {
    Outcome::told(WRITTEN[n]).unwrap()
}

fn result<T: serde::de::DeserializeOwned>(n: usize) -> T {
    told(n).answer().unwrap().read().unwrap()
}

#[test]
fn results_of_the_release_before() {
    let backup: BackupResult = result(0);
    assert_eq!(
        (backup.snapshot_id.as_str(), backup.bytes, backup.changed_bytes),
        ("6f1d", 1 << 30, 805_306_368)
    );
    assert_eq!((backup.stored_bytes, backup.seconds, backup.segments), (1234, 12, 4));
    let of_image: DiskDigest = result(0);
    assert_eq!((of_image.bytes, of_image.hash_value.as_deref()), (Some(1 << 30), Some("d4")));
    let of_device: DiskDigest = result(1);
    assert_eq!((of_device.sha256.as_deref(), of_device.hash_algo), (Some("9c56"), None));
    assert_eq!(result::<RestoreResult>(1).seconds, 9);
    assert_eq!(result::<SealResult>(2).file, "disk-0.raw");
    assert_eq!(result::<ProbeResult>(3).cloud_image_ms, 5);
    assert!(result::<InitResult>(4).created);
    assert_eq!(result::<PurgeResult>(5), PurgeResult { deleted_objects: 7, kept: None });
    let checks: ChecksResult = result(6);
    assert_eq!(checks.first_passed_at.unwrap().to_string(), "2026-11-29T22:00:01.5Z");
    assert_eq!((checks.checks[0].name.as_str(), checks.checks[0].ok), ("page", true));
}

#[test]
fn what_a_store_keeps_and_what_a_disk_begins_with() {
    let objection = "LUKS version 2 on the whole disk: Glance refuses that";
    assert_eq!(result::<BackupResult>(9).objection.as_deref(), Some(objection));
    assert_eq!(result::<BackupResult>(0).objection, None);
    let keeps = result::<ProbeResult>(10).store_keeps.unwrap();
    assert_eq!((keeps.objects, keeps.until), (1, None));
    assert_eq!(result::<ProbeResult>(3).store_keeps, None);
    let kept = result::<PurgeResult>(11).kept.unwrap();
    let until = kept.until.map(|until| until.to_string());
    assert_eq!((kept.objects, until.as_deref()), (3, Some("2026-12-29T22:00:00Z")));
}

#[test]
fn failures_of_the_release_before() {
    let table = [
        (7, FailureReason::CheckFailed, false),
        (8, FailureReason::StoreFull, true),
        (12, FailureReason::DiskRefused, false),
    ];
    for (n, reason, retryable) in table {
        let outcome = told(n);
        let failure = outcome.failure().unwrap();
        assert_eq!((failure.reason, failure.retryable), (reason, retryable));
        assert!(!failure.message.is_empty());
    }
    assert!(!result::<ChecksResult>(7).checks[0].ok, "a failure of checks tells all of them");
    for text in table.map(|(n, ..)| WRITTEN[n]) {
        let strict = Outcome::<ChecksResult>::parse(text).unwrap();
        assert!(matches!(strict, Outcome::Failed(_)), "the mover's own reading agrees");
    }
}

/// What else is found in a termination message, for whatever reason: it may pass, unless it says that it may not.
#[test]
fn what_is_no_outcome_is_a_failure_that_may_pass() {
    let log = r#"{"timestamp":"2026-11-29T22:00:00Z","level":"ERROR","fields":{"message":"out of memory"}}"#;
    for text in ["null", "5", "[]", "{}", r#"{"ok":"yes"}"#, r#"{"reason":7,"message":7}"#, log] {
        let outcome = Outcome::told(text).unwrap();
        let failure = outcome.failure().unwrap_or_else(|| panic!("{text}"));
        assert_eq!((failure.reason, failure.retryable), (FailureReason::Unknown, true), "{text}");
        assert_eq!(failure.message, "", "{text}");
    }
    assert_eq!(Outcome::told(""), None);
    assert_eq!(Outcome::told("killed\n"), None);
    let later = Outcome::told(r#"{"ok":false,"version":9,"reason":"Later","message":"m","retryable":false}"#)
        .unwrap();
    let failure = later.failure().unwrap();
    assert_eq!(
        (failure.reason, failure.message.as_str(), failure.retryable),
        (FailureReason::Unknown, "m", false)
    );
    // A success without a result is one: a task may have nothing to tell.
    assert_eq!(Outcome::told(r#"{"ok":true}"#).unwrap().answer().unwrap().to_string(), "null");
}

#[test]
fn progress_of_the_release_before() {
    let log = "starting\n{\"progress\":{\"bytes\":1,\"total\":10,\"rate\":1}}\n\
               {\"progress\":{\"bytes\":5,\"total\":10,\"rate\":2},\"heldUp\":\"no answer\"}\nnoise\n";
    let newest = ProgressLine::newest(log).unwrap();
    assert_eq!(newest.progress, Progress { bytes: 5, total: 10, rate: 2 });
    assert_eq!(newest.held_up.as_deref(), Some("no answer"));
    assert_eq!(ProgressLine::newest(&newest.line().unwrap()), Some(newest));
}

#[test]
fn exit_codes_say_what_the_outcome_says() {
    let failed = |reason, retryable| {
        Outcome::<Answer>::Failed(Failure { reason, message: String::new(), retryable, result: None })
    };
    assert_eq!(exit::code(&told(4)), 0);
    assert_eq!(exit::code(&failed(FailureReason::CloudError, true)), 1);
    assert_eq!(exit::code(&failed(FailureReason::CloudError, false)), 2);
    assert_eq!(exit::code(&failed(FailureReason::Terminated, true)), 143);
}
