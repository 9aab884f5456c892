//! Half answers at each phase: Nova's cells that are down, lists that leave things out or are cut, images that cannot be
//! deleted. Nothing is concluded from them: nothing is doubled, and the migration succeeds, or the source is given back.

use super::faults::then_heal;
use crate::{
    every_phase::remove_kept,
    hooks::answer,
    killed::nothing_doubled,
    moves::{in_b, serves, written},
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, MadeServer, Migration, Stays, exclusive, fault, until};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use std::{future::Future, rc::Rc};
use vmmigration::crd::v1alpha1::*;

/// Where a hook holds the migration.
const PLACES: [HookPhase; 4] =
    [HookPhase::AfterStop, HookPhase::BeforeCreate, HookPhase::AfterStart, HookPhase::AfterVerification];

/// `testbed fault half SITE API HOW`.
type Half = [&'static str; 3];
const SOURCE_IN_A_CELL: Half = ["site-a", "nova", "cell"];
const DESTINATION_IN_A_CELL: Half = ["site-b", "nova", "cell"];
const IN_B: [Half; 4] = [
    DESTINATION_IN_A_CELL,
    ["site-b", "nova", "short"],
    ["site-b", "nova", "cut"],
    ["site-b", "neutron", "cut"],
];

/// For so long each of them is watched, in seconds: several looks.
const WATCHED: u64 = 10;

/// For how long images that cannot be deleted are asked for, and trouble is borne, in seconds. No fault lasts so long.
const BOUND: u64 = 90;

#[test]
#[ignore = "long"]
fn half_answers_at_each_phase_are_borne() -> Result<()> {
    exclusive("half_answers", |lab| async move {
        let values = format!("operator.troubleDeadlineSeconds={BOUND}");
        let in_use = ["half", "site-b", "glance", "in-use", "3600"];
        lab.operator_with(&values, async {
            fault(&in_use).await?;
            then_heal(&["heal"], through_all_phases(&lab)).await
        })
        .await
    })
}

async fn through_all_phases(lab: &Rc<Lab>) -> Result<()> {
    let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
    let page = written(&made, &[]).await?;
    let migration = held_at(lab, &made, "web", &PLACES).await?;
    for place in PLACES {
        waits(&migration, place).await?;
        // Before anything is in B nobody asks it.
        let in_b = if place == HookPhase::AfterStop { &[][..] } else { &IN_B[..] };
        for half in [&[SOURCE_IN_A_CELL][..], in_b].concat() {
            during(half, borne(&migration, place)).await.with_context(|| format!("{half:?} at {place}"))?;
            waits(&migration, place).await?;
        }
        answer(lab, &migration, &hook(place)).await?;
        // What comes next begins with it.
        during(SOURCE_IN_A_CELL, borne(&migration, place)).await.with_context(|| format!("after {place}"))?;
    }
    let object = migration.wait_succeeded().await?;
    nothing_doubled(lab, &made).await?;
    serves(&in_b(lab, &object).await?, &[], &page).await?;
    images_are_retained(lab, &object).await?;
    lab.left_only(&migration.uid().await?, Stays::Moved).await
}

/// The images that could not be deleted are named, with the answer; then somebody deletes them.
async fn images_are_retained(lab: &Rc<Lab>, object: &VmMigration) -> Result<()> {
    let uid = object.metadata.uid.clone().context("no UID")?;
    let retained = object.status.clone().unwrap_or_default().retained;
    let images = lab.b.cloud.list_images().await?;
    let ours: Vec<_> = images.iter().filter(|i| i.name.contains(&uid)).collect();
    ensure!(!ours.is_empty(), "no image was kept");
    for image in &ours {
        let told = |r: &RetainedRow| r.what.contains(&image.id) && r.why.contains("409");
        ensure!(retained.iter().any(told), "image {} is not in {retained:?}", image.id);
    }
    fault(&["half", "site-b", "glance", "off"]).await?;
    for image in ours {
        lab.b.cloud.delete_image(&image.id).await?;
    }
    Ok(())
}

#[test]
#[ignore = "long"]
fn half_answers_on_the_way_back_at_each_phase_are_waited_for() -> Result<()> {
    exclusive("half_way_back", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let page = written(&made, &[]).await?;
        for place in PLACES {
            let migration = held_at(&lab, &made, &hook(place), &[place]).await?;
            waits(&migration, place).await?;
            let status = cancelled_half_blind(&lab, &made, &migration, place)
                .await
                .with_context(|| format!("cancelled at {place}"))?;
            ensure!(status.phase == Some(Phase::Cancelled), "{place}: it is {:?}", status.phase);
            lab.a.runs_as_before(&made).await.with_context(|| format!("cancelled at {place}"))?;
            ensure!(made.guest()?.page(&[]).await? == page, "{place}: A does not serve as before");
            let stays = if runs_in_b(place) { Stays::ServerInB } else { Stays::Nothing };
            lab.left_only(&migration.uid().await?, stays).await?;
            if runs_in_b(place) {
                remove_kept(&lab, &status).await?;
            }
        }
        Ok(())
    })
}

/// Cancelled while neither server can be seen whole; then A is seen, and in the end B.
async fn cancelled_half_blind(
    lab: &Rc<Lab>,
    made: &MadeServer,
    migration: &Migration,
    place: HookPhase,
) -> Result<VmMigrationStatus> {
    let blind_for_b = async {
        during(SOURCE_IN_A_CELL, async {
            migration.patch(json!({"requests": {"cancel": "now"}})).await?;
            until("the way back", 60, || async {
                Ok((migration.status().await?.phase == Some(Phase::RollingBack)).then_some(()))
            })
            .await?;
            still_going_back(migration).await
        })
        .await?;
        if runs_in_b(place) {
            // B's server may be running: A waits for it.
            still_going_back(migration).await?;
            let a = lab.a.server(&made.id).await?;
            ensure!(a.status == "SHUTOFF", "A is {} while B cannot be seen", a.status);
        }
        Ok(())
    };
    during(DESTINATION_IN_A_CELL, blind_for_b).await?;
    migration.wait_failed(300).await
}

fn runs_in_b(place: HookPhase) -> bool {
    matches!(place, HookPhase::AfterStart | HookPhase::AfterVerification)
}

fn hook(place: HookPhase) -> String {
    place.to_string().to_lowercase()
}

/// A migration that a client's hook holds at each of these places.
async fn held_at(lab: &Rc<Lab>, made: &MadeServer, name: &str, places: &[HookPhase]) -> Result<Migration> {
    let mut migration = lab.migration(&made.name, CutoverMode::Now).named(name);
    let hooks = places
        .iter()
        .map(|place| json!({"name": hook(*place), "phase": place, "timeout": "20m", "client": {}}));
    migration.spec.hooks = serde_json::from_value(hooks.collect())?;
    migration.create().await
}

async fn waits(migration: &Migration, place: HookPhase) -> Result<()> {
    let waits = |s: &VmMigrationStatus| {
        let row = s.hooks.iter().find(|h| h.phase == place)?;
        (row.state == HookState::Waiting && s.trouble.is_none()).then_some(())
    };
    migration.wait(&format!("held at {place}"), 400, waits).await
}

/// Runs `body` while a cloud gives half its answers.
async fn during<T>([site, api, how]: Half, body: impl Future<Output = Result<T>>) -> Result<T> {
    fault(&["half", site, api, how, "300"]).await?;
    // Another one may be meant to go on.
    then_heal(&["half", site, api, "off"], body).await
}

/// Nobody is taken for one who has the source back, and nothing is given up.
async fn borne(migration: &Migration, place: HookPhase) -> Result<()> {
    let goes_on = |s: &VmMigrationStatus| s.failure.is_none() && s.phase != Some(Phase::Held);
    let status = watched(migration, place.to_string(), goes_on).await?;
    ensure!(goes_on(&status), "it is {:?}: {:?}", status.phase, status.message);
    Ok(())
}

/// It has not ended, and waits.
async fn still_going_back(migration: &Migration) -> Result<()> {
    let goes_on = |s: &VmMigrationStatus| s.phase == Some(Phase::RollingBack);
    let status = watched(migration, "the way back".into(), goes_on).await?;
    ensure!(goes_on(&status), "it is {:?}: {:?}", status.phase, status.message);
    Ok(())
}

/// Its status after a while, or as soon as it is not as it should be.
async fn watched(
    migration: &Migration,
    what: String,
    goes_on: impl Fn(&VmMigrationStatus) -> bool,
) -> Result<VmMigrationStatus> {
    let begun = Timestamp::now();
    until(&format!("{WATCHED} s of {what}"), WATCHED + 60, || async {
        let status = migration.status().await?;
        let long = Timestamp::now().duration_since(begun).as_secs().unsigned_abs() > WATCHED;
        Ok((long || !goes_on(&status)).then_some(status))
    })
    .await
}
