//! What image services refuse: what a disk begins with, ranges, a second upload. With the mover's binary.

use serde_json::Value;
use sha2::{Digest, Sha512};

use super::{Bed, Ended, SEGMENT, backup_line, cloud::Mischief, noise, restore_line};

const SOURCE: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const DESTINATION: &str = "bbbbbbbb-0000-0000-0000-000000000002";
const SIZE: usize = 5 * 1024 * 1024 + 12_345;

/// A disk that begins as `cryptsetup luksFormat` leaves it.
fn luks2() -> Vec<u8> {
    let mut content = noise(SIZE);
    content[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    content
}

/// A bed with a repository and this disk in the source cloud.
async fn ready(content: Vec<u8>) -> Bed {
    let bed = Bed::new().await;
    bed.init().await.ok();
    bed.cloud.add_active(SOURCE, content);
    bed.cloud.add_queued(DESTINATION);
    bed
}

async fn backup(bed: &Bed, more: &[&str]) -> Ended {
    let line = [&["--image", SOURCE, "--segment-bytes", SEGMENT], more].concat();
    bed.run(&backup_line(&line)).await
}

async fn restore(bed: &Bed, saved: &Value) -> Ended {
    let snapshot = saved["snapshotId"].as_str().unwrap();
    bed.run(&restore_line(&["--image", DESTINATION, "--snapshot", snapshot])).await
}

#[tokio::test]
async fn a_disk_that_is_refused_there_ends_the_backup_before_it_travels() {
    let bed = ready(luks2()).await;
    for mischief in [Mischief::None, Mischief::IgnoresRanges, Mischief::RefusesRanges] {
        bed.cloud.misbehave(mischief);
        let ended = backup(&bed, &["--images", "checked"]).await;
        let message = ended.failed("DiskRefused", 2);
        assert!(message.starts_with("disk 0 begins with LUKS version 2 on the whole disk"), "{message}");
        assert!(message.contains("2025.1"), "{message}");
    }
    std::fs::write(bed.path("device"), luks2()).unwrap();
    let device = bed.path("device").to_str().unwrap().to_owned();
    let line = backup_line(&["--device", &device, "--device-id", "v", "--images", "checked"]);
    bed.run(&line).await.failed("DiskRefused", 2);
    assert_eq!((bed.snapshots(), bed.locks()), (0, 0));
    bed.cloud.misbehave(Mischief::None);
    // Where it is not known that it is refused it travels, and that is told.
    let ended = backup(&bed, &["--images", "unknown"]).await;
    assert!(ended.ok()["objection"].as_str().unwrap().contains("LUKS version 2"), "{ended:?}");
    assert!(backup(&bed, &[]).await.ok().get("objection").is_none());
}

#[tokio::test]
async fn an_upload_that_is_refused_ends_with_the_clouds_words_and_is_not_repeated() {
    let bed = ready(luks2()).await;
    let saved = backup(&bed, &[]).await.ok().clone();
    bed.cloud.misbehave(Mischief::RefusesContent);
    let ended = restore(&bed, &saved).await;
    let message = ended.failed("DiskRefused", 2);
    for part in [DESTINATION, "415", "Image failed safety checks", "the disk begins with LUKS version 2"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains('<'), "{message}");
    // Glance calls it queued again, but a second upload into it is 500.
    assert_eq!(bed.cloud.image(DESTINATION).status, "queued");
    let ended = restore(&bed, &saved).await;
    assert!(ended.failed("ImageNotReady", 2).contains("written to already"));
    assert_eq!(bed.cloud.uploads(), 1);
}

#[tokio::test]
async fn a_download_without_ranges_that_breaks_goes_on_where_it_broke() {
    let bed = ready(noise(SIZE)).await;
    bed.cloud.misbehave(Mischief::BreaksWithoutRanges);
    let ended = backup(&bed, &["--images", "checked"]).await;
    let saved = ended.ok();
    assert_eq!((saved["segments"].as_u64(), saved["bytes"].as_u64()), (Some(1), Some(SIZE as u64)));
    assert_eq!(saved["hashValue"], hex::encode(Sha512::digest(noise(SIZE))));
    bed.cloud.misbehave(Mischief::None);
    restore(&bed, saved).await.ok();
    assert!(bed.cloud.image(DESTINATION).content == noise(SIZE));
}
