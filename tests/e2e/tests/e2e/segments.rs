//! What segments are for: whatever is killed in the middle, only what was under way travels twice; wrong bytes in the
//! store are caught, named and sent again; disks of all sizes. Bytes are counted at the store.

use crate::volume_mode::modes;
use anyhow::{Context, Result, ensure};
use e2e::{Addresses, Content, Lab, MadeServer, Migration, Victim, shared};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::rc::Rc;
use vmmigration::{crd::v1alpha1::*, openstack::Server};

const MIB: u64 = 1 << 20;
/// The length of a segment of all disks here, by the product's own rule.
const SEGMENT: u64 = 256 * MIB;
/// How many segments of a disk are under way at once.
const AT_ONCE: u64 = 2;

/// What a copy of so many bytes takes on the wire at most: packets, TLS, restic's own bytes, listings, manifests.
pub fn on_the_wire(bytes: u64) -> u64 {
    bytes + bytes / 25 + 16 * MIB
}

/// Slow enough that a copy can be met in its middle.
pub async fn slowly(lab: &Rc<Lab>, limit: &str) -> Result<()> {
    let stores: Api<ObjectStore> = lab.api(&lab.name);
    let limits = json!({"spec": {"bandwidth": {"upload": limit, "download": limit}}});
    stores.patch("transfer", &PatchParams::default(), &Patch::Merge(limits)).await?;
    Ok(())
}

/// B's server has the volumes of a server with that content; none of them is the root's.
pub async fn holds(lab: &Rc<Lab>, object: &VmMigration, contents: &[Content]) -> Result<()> {
    let server: Server = crate::moves::in_b(lab, object).await?;
    let volumes = lab.b.volumes(&server).await?;
    ensure!(volumes.len() == contents.len() + 1, "B has {volumes:?}");
    for (volume, content) in volumes.iter().skip(1).zip(contents) {
        lab.b.holds(&volume.id, content).await?;
    }
    Ok(())
}

/// Kills a process of the mover for a purpose when that has moved so much of a disk.
async fn killed_at(
    lab: &Rc<Lab>,
    migration: &Migration,
    (purpose, victim): (&str, Victim),
    bytes: u64,
) -> Result<()> {
    let client = if purpose.starts_with("backup") { &lab.kube } else { &lab.kube_b };
    migration.wait_moved(client, purpose, bytes).await?;
    migration.kill_process(purpose, victim).await
}

/// The backup's bytes arrived once, but for segments that were under way.
async fn sent_once(addresses: &Addresses, purpose: &str, bytes: u64) -> Result<()> {
    let (found, most) = (addresses.traffic(purpose).await?, on_the_wire(bytes + AT_ONCE * SEGMENT));
    println!("{purpose}: the store received {} MiB, sent {} MiB", found.received / MIB, found.sent / MIB);
    let most_of = if purpose.starts_with("backup") { found.received } else { found.sent };
    ensure!((bytes..=most).contains(&most_of), "{purpose}: {found:?}, of {bytes} bytes at most {most}");
    Ok(())
}

fn attempts(object: &VmMigration, job: &str) -> i32 {
    let jobs = object.status.iter().flat_map(|s| &s.jobs);
    jobs.filter(|j| j.name == job).map(|j| j.attempt).max().unwrap_or_default()
}

/// Two disks: the first loses the agent of its backup, the second a restic of its backup and the agent of its restore.
async fn killed_everywhere(lab: Rc<Lab>, mode: &str, percent: u64) -> Result<()> {
    modes(&lab, mode, mode).await?;
    slowly(&lab, "48Mi").await?;
    let contents = [Content::full(1).await?, Content::full(1).await?];
    let made = lab.a.make_stopped(&lab.name, &contents).await?;
    let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
    let bytes = contents[0].random;
    let kill = |purpose, victim| killed_at(&lab, &migration, (purpose, victim), bytes * percent / 100);
    let work = async {
        let kills = futures::future::try_join3(
            kill("backup-1", Victim::Agent),
            kill("backup-2", Victim::Restic),
            kill("restore-2", Victim::Agent),
        );
        kills.await?;
        migration.wait_succeeded().await
    };
    let (object, addresses) = migration.addresses_during(&lab, work).await?;
    let tried = ["backup-1", "backup-2", "restore-2"].map(|job| attempts(&object, job));
    // Who loses a restic starts another.
    ensure!(tried == [2, 1, 2], "attempts {tried:?}");
    sent_once(&addresses, "backup-1", bytes).await?;
    sent_once(&addresses, "backup-2", bytes).await?;
    if mode == "Volume" {
        // An image is begun again; a device keeps what is right.
        sent_once(&addresses, "restore-2", bytes).await?;
    }
    holds(&lab, &object, &contents).await
}

/// Long: `make test-long`. Short, without clouds: `a_backup_may_be_killed_at_any_time` in `operator/tests/mover.rs`.
macro_rules! killed_everywhere {
    ($($name:ident, $mode:literal, $percent:literal;)*) => {$(
        #[test]
        #[ignore = "long"]
        fn $name() -> Result<()> {
            shared(stringify!($name), |lab| killed_everywhere(lab, $mode, $percent))
        }
    )*};
}

killed_everywhere! {
    killed_at_10_percent_as_devices, "Volume", 10;
    killed_at_50_percent_as_devices, "Volume", 50;
    killed_at_90_percent_as_devices, "Volume", 90;
    killed_at_10_percent_as_images, "Image", 10;
    killed_at_50_percent_as_images, "Image", 50;
    killed_at_90_percent_as_images, "Image", 90;
}

/// Saves other bytes under the tags of the first segment of disk 1, as somebody with the repository's password could.
async fn inject(lab: &Lab, migration: &Migration, volume: &str, content: &Content) -> Result<()> {
    let (uid, layout) = (migration.uid().await?, format!("{}/{SEGMENT}", content.gib << 30));
    let tags = format!("mig={uid},disk=1,pass=0,kind=segment,seg=0,layout={layout},from={volume}");
    let save = format!(
        "restic backup --no-cache -o s3.bucket-lookup=path --stdin --stdin-filename segment --tag {tags}"
    );
    migration.restic(lab, &format!("head -c {SEGMENT} /dev/zero | {save}")).await.map(drop)
}

#[test]
#[ignore = "long"]
fn wrong_bytes_in_the_store_are_caught_named_and_sent_again() -> Result<()> {
    shared("wrong_segment", |lab| async move {
        modes(&lab, "Volume", "Volume").await?;
        // Two segments with bytes, two without.
        let contents = [Content::new(1, &[(0, 300)]).await?];
        let made = lab.a.make_stopped(&lab.name, &contents).await?;
        let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
        let work = async {
            let copy = |s: &VmMigrationStatus| s.disks.get(1)?.export.volume_id.clone();
            let volume = migration.wait("making the copy that is read", 300, copy).await?;
            migration.patch(json!({"suspend": true})).await?;
            let begun = migration.status().await?.jobs.iter().any(|j| j.name == "backup-1");
            ensure!(!begun, "the backup has begun already");
            inject(&lab, &migration, &volume, &contents[0]).await?;
            migration.patch(json!({"suspend": false})).await?;
            migration.wait_succeeded().await
        };
        let (object, addresses) = migration.addresses_during(&lab, work).await?;
        let said = |r: &&TimelineRow| r.message.contains("sending it again");
        let row =
            object.status.iter().flat_map(|s| &s.timeline).find(said).context("nothing was sent again")?;
        let named = row.message.contains("segment 0 of disk 1") && row.message.contains("SHA-256");
        ensure!(named, "it is called {:?}", row.message);
        let tried = ["backup-0", "backup-1", "restore-1"].map(|job| attempts(&object, job));
        ensure!(tried == [1, 2, 2], "attempts {tried:?}");
        // The first attempt sends the second segment, the other one only the first.
        let (bytes, found) = (contents[0].random, addresses.traffic("backup-1").await?.received);
        ensure!((bytes..=on_the_wire(bytes)).contains(&found), "of {bytes} bytes the store received {found}");
        holds(&lab, &object, &contents).await
    })
}

/// Disks with that content arrive as they were; nothing of what is empty is sent.
async fn of_sizes(lab: Rc<Lab>, mode: &str, contents: Vec<Content>) -> Result<()> {
    modes(&lab, mode, mode).await?;
    let made: MadeServer = lab.a.make_stopped(&lab.name, &contents).await?;
    let migration = lab.migration(&made.name, CutoverMode::Now).create().await?;
    let (object, addresses) = migration.addresses_during(&lab, migration.wait_succeeded()).await?;
    for (n, content) in contents.iter().enumerate() {
        let purpose = format!("backup-{}", n + 1);
        let (found, most) = (addresses.traffic(&purpose).await?.received, on_the_wire(content.random));
        ensure!((content.random..=most).contains(&found), "{purpose}: {found}, at most {most}");
    }
    holds(&lab, &object, &contents).await
}

async fn empty_and_full(lab: Rc<Lab>, mode: &str) -> Result<()> {
    let contents = vec![Content::new(1, &[]).await?, Content::full(1).await?];
    of_sizes(lab, mode, contents).await
}

/// 8 GiB with something at its beginning, across the end of a segment, and in its last MiB.
async fn large(lab: Rc<Lab>, mode: &str) -> Result<()> {
    let contents = vec![Content::new(8, &[(0, 40), (1000, 100), (8191, 1)]).await?];
    of_sizes(lab, mode, contents).await
}

#[test]
#[ignore = "long"]
fn an_empty_and_a_full_disk_as_devices() -> Result<()> {
    shared("sizes_devices", |lab| empty_and_full(lab, "Volume"))
}

#[test]
#[ignore = "long"]
fn an_empty_and_a_full_disk_as_images() -> Result<()> {
    shared("sizes_images", |lab| empty_and_full(lab, "Image"))
}

#[test]
#[ignore = "long"]
fn a_large_disk_as_a_device() -> Result<()> {
    shared("large_device", |lab| large(lab, "Volume"))
}

#[test]
#[ignore = "long"]
fn a_large_disk_as_an_image() -> Result<()> {
    shared("large_image", |lab| large(lab, "Image"))
}
