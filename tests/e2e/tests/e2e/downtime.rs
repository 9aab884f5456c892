//! A warm migration's downtime: a guest that writes all the time moves with its last line, by block devices that follow
//! its passes; what is reported is what was seen from outside.

use crate::{
    moves::in_b,
    volume_mode::{devices, modes, taken},
    warm::warm,
};
use anyhow::{Result, ensure};
use e2e::{Disks, Guest, Migration, Stays, shared};
use std::{cell::RefCell, time::Duration};
use tokio::time::{Instant, sleep};
use vmmigration::crd::v1alpha1::*;

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

fn sent(status: &VmMigrationStatus, pass: i32) -> i64 {
    let rows = status.disks.iter().flat_map(|d| &d.passes).filter(|row| row.pass == pass);
    rows.map(|row| row.sent_bytes).sum()
}

#[test]
fn a_guest_that_writes_all_the_time_moves_with_its_last_line() -> Result<()> {
    shared("warm", |lab| async move {
        modes(&lab, "Volume", "Volume").await?;
        let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
        let guest = made.guest()?;
        guest.wait(&[]).await?;
        guest.fill(8).await?;
        let written = RefCell::new(Written { lines: vec![], last: Instant::now() });
        let before = lab.a.server(&made.id).await?;
        let volumes = lab.a.volumes(&before).await?;

        let migration = warm(lab.migration(&made.name, CutoverMode::Manual)).checked()?.create().await?;
        let uid = migration.uid().await?;
        let moves = async {
            // The go comes while a third pass runs, or afterwards.
            let two = |s: &VmMigrationStatus| s.copying.as_ref().filter(|c| c.passes >= 2).map(|_| s.clone());
            let waiting = migration.wait("two passes", 600, two).await?;
            let passes = waiting.copying.clone().unwrap_or_default().passes;
            let message = waiting.message.clone().unwrap_or_default();
            ensure!(
                message.contains("forecast downtime") && message.contains("kubectl patch vmm"),
                "{message}"
            );
            let (first, second) = (sent(&waiting, 0), sent(&waiting, 1));
            ensure!(second > 0 && second * 4 < first, "pass 1 sent {first}, pass 2 {second}");
            ensure!(lab.a.server(&made.id).await? == before, "server A was touched before the go");
            ensure!(lab.a.volumes(&before).await? == volumes, "A's volumes were touched before the go");
            let followed = |d: &DiskStatus| {
                let passes: Vec<_> = d.passes.iter().map(|row| Some(row.snapshot_id.as_str())).collect();
                d.import.holds.is_some() && passes.contains(&d.import.holds.as_deref())
            };
            ensure!(waiting.disks.iter().all(followed), "B does not follow: {:?}", waiting.disks);
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
        let there = moved.text("/ledger.txt").await?;
        // One that was on its way when the guest was stopped may be there, too.
        let found = there.lines().filter(|l| l.contains("line-")).count();
        let all = lines.iter().all(|line| there.contains(line));
        ensure!(all, "lacking some of {} lines: {there}", lines.len());
        ensure!((lines.len()..=lines.len() + 1).contains(&found), "{found} of {} lines", lines.len());
        let report = lab.api::<VmMigrationReport>(&lab.name).get(&format!("web-{}", &uid[..8])).await?;
        let (told, seen) = (report.spec.downtime_seconds.unwrap_or(0), answered.duration_since(last));
        println!("warm: down for {seen:?} as seen from outside, {told} s as reported");
        // A busy machine is late with both ends.
        let (seen_ms, most) = (i64::try_from(seen.as_millis())?, 1000 + told * 50);
        ensure!((seen_ms - told * 1000).abs() <= most, "down for {seen:?}, reported are {told} s");
        let status = object.status.clone().unwrap_or_default();
        ensure!(status.disks.iter().all(|d| d.pass >= 2 && d.backup.is_some()), "{:?}", status.disks);
        ensure!(taken(&status) == ("Volume".into(), "Volume".into()), "it took {:?}", taken(&status));
        let left = (lab.leftovers(&uid, Stays::Moved).await?, devices(&lab, &uid).await?);
        ensure!(left.0.is_empty() && left.1.is_empty(), "left behind: {left:?}");
        Ok(())
    })
}
