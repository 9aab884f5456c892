//! Warm migrations: a guest that writes all the time moves with its last line, and a stale copy is never used.

use crate::moves::{in_b, serves, written};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Guest, Lab, Migration, Stays, shared};
use serde_json::json;
use std::{cell::RefCell, rc::Rc, time::Duration};
use tokio::time::{Instant, sleep};
use vmmigration::{crd::v1alpha1::*, migration::names::MARK_MIGRATION};

fn warm(mut migration: Migration) -> Migration {
    migration.spec.strategy = Some(Strategy::Warm);
    migration
}

/// Lines that the guest has acknowledged, and when it did last.
struct Written {
    lines: Vec<String>,
    last: Instant,
}

/// Writes lines to every disk until the guest answers no more, and then waits for ever.
async fn write_all_the_time(guest: &Guest, written: &RefCell<Written>) -> Result<()> {
    for n in 0.. {
        let line = format!("line-{n}-");
        if guest.get(&format!("/cgi-bin/app?add={line}")).await.is_err() {
            break;
        }
        {
            let mut written = written.borrow_mut();
            written.lines.push(line);
            written.last = Instant::now();
        }
        sleep(Duration::from_millis(200)).await;
    }
    std::future::pending().await
}

/// Asks the new server from outside as soon as it has an address; when it first answered.
async fn first_answer(migration: &Migration) -> Result<Instant> {
    let address = |s: &VmMigrationStatus| s.destination.clone()?.addresses.first().cloned();
    let guest = Guest::at(&migration.wait("built in B", 600, address).await?)?;
    while !guest.answers().await {
        sleep(Duration::from_millis(100)).await;
    }
    Ok(Instant::now())
}

/// Nothing that passes made in A is left there.
async fn nothing_of_passes(lab: &Rc<Lab>, uid: &str) -> Result<()> {
    let a = &lab.a.cloud;
    let (volumes, snapshots, images) =
        futures::try_join!(a.list_volumes(), a.list_snapshots(), a.list_images())?;
    let ours =
        |m: &std::collections::BTreeMap<String, String>| m.get(MARK_MIGRATION).is_some_and(|u| u == uid);
    let volumes = volumes.iter().filter(|v| ours(&v.metadata)).map(|v| &v.id);
    let snapshots = snapshots.iter().filter(|s| ours(&s.metadata)).map(|s| &s.id);
    let images = images.iter().filter(|i| i.name.contains(uid)).map(|i| &i.id);
    let left: Vec<_> = volumes.chain(snapshots).chain(images).collect();
    ensure!(left.is_empty(), "left in A by passes: {left:?}");
    Ok(())
}

fn sent(status: &VmMigrationStatus, pass: i32) -> i64 {
    let rows = status.disks.iter().flat_map(|d| &d.passes).filter(|row| row.pass == pass);
    rows.map(|row| row.sent_bytes).sum()
}

#[test]
fn a_guest_that_writes_all_the_time_moves_with_its_last_line() -> Result<()> {
    shared("warm", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT_AND_DATA).await?;
        let guest = made.guest()?;
        guest.wait(&["/data"]).await?;
        guest.fill(8).await?;
        let written = RefCell::new(Written { lines: vec![], last: Instant::now() });
        let before = lab.a.server(&made.id).await?;
        let volumes = lab.a.volumes(&before).await?;

        let migration = warm(lab.migration(&made.name, CutoverMode::Manual)).checked()?.create().await?;
        let uid = migration.uid().await?;
        let moves = async {
            let waiting = migration.wait_phase(Phase::AwaitingCutover, 400).await?;
            let passes = waiting.copying.clone().unwrap_or_default().passes;
            ensure!(passes >= 2, "{passes} passes: {:?}", waiting.timeline);
            let message = waiting.message.clone().unwrap_or_default();
            ensure!(
                message.contains("forecast downtime") && message.contains("kubectl patch vmm"),
                "{message}"
            );
            let (first, second) = (sent(&waiting, 0), sent(&waiting, 1));
            ensure!(second > 0 && second * 4 < first, "pass 1 sent {first}, pass 2 {second}");
            ensure!(lab.a.server(&made.id).await? == before, "server A was touched before the go");
            ensure!(lab.a.volumes(&before).await? == volumes, "A's volumes were touched before the go");
            nothing_of_passes(&lab, &uid).await?;
            migration.go().await?;
            let (object, answered) =
                futures::try_join!(migration.wait_succeeded(), first_answer(&migration))?;
            println!("warm: {passes} passes, sent {first} then {second}; {:?}", waiting.copying);
            Ok((object, answered))
        };
        let (object, answered) = tokio::select! {
            moved = lab.never_both(&made, moves) => moved?,
            ended = write_all_the_time(&guest, &written) => return ended,
        };

        let Written { lines, last } = written.into_inner();
        let moved = Guest::at(&in_b(&lab, &object).await?.addresses[0].address)?;
        for ledger in ["/ledger.txt", "/data/ledger.txt"] {
            let there = moved.text(ledger).await?;
            // One that was on its way when the guest was stopped may be there, too.
            let found = there.lines().filter(|l| l.contains("line-")).count();
            let all = lines.iter().all(|line| there.contains(line));
            ensure!(all, "{ledger} lacks some of {} lines: {there}", lines.len());
            ensure!((lines.len()..=lines.len() + 1).contains(&found), "{ledger}: {found} of {}", lines.len());
        }
        let report = lab.api::<VmMigrationReport>(&lab.name).get(&format!("web-{}", &uid[..8])).await?;
        let (told, seen) =
            (report.spec.downtime_seconds.unwrap_or(0), answered.duration_since(last).as_secs());
        println!("warm: down for {seen} s as seen from outside, {told} s as reported");
        ensure!(i64::try_from(seen)? <= told + 2, "down for {seen} s, reported are {told} s");
        let status = object.status.clone().unwrap_or_default();
        ensure!(status.disks.iter().all(|d| d.pass >= 2 && d.backup.is_some()), "{:?}", status.disks);
        let left = lab.leftovers(&uid, Stays::Moved).await?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })
}

#[test]
fn a_source_started_after_the_last_pass_holds_and_a_retry_builds_on_it() -> Result<()> {
    shared("warm_held", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        written(&made, &[]).await?;
        let migration = warm(lab.migration(&made.name, CutoverMode::Now)).create().await?;
        let last = |s: &VmMigrationStatus| {
            let disk = s.disks.first().filter(|d| d.backup.is_some())?;
            Some(disk.pass)
        };
        let pass = migration.wait("past its last pass", 400, last).await?;
        lab.a.cloud.unlock_server(&made.id).await?;
        lab.a.cloud.start_server(&made.id).await?;
        lab.a.wait_server(&made.id, "ACTIVE").await?;
        migration.wait_phase(Phase::Held, 120).await?;
        let guest = made.guest()?;
        guest.wait(&[]).await?;
        guest.write("written-while-held", &[]).await?;
        let page = guest.page(&[]).await?;

        migration.patch(json!({"requests": {"retry": "1"}})).await?;
        let object = migration.wait_succeeded().await?;
        serves(&in_b(&lab, &object).await?, &[], &page).await?;
        let disk = object.status.clone().and_then(|s| s.disks.first().cloned()).context("no disk")?;
        ensure!(disk.pass > pass, "pass {} does not build on pass {pass}", disk.pass);
        ensure!(disk.passes.iter().all(|row| row.pass >= pass), "it began anew: {:?}", disk.passes);
        Ok(())
    })
}
