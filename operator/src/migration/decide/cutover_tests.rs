//! A server is stopped at its hour or not at all: times that are past when first seen, and times that were missed.

use super::{
    Step,
    tests::{World, ask},
};
use crate::crd::v1alpha1::*;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

fn after(w: &World, seconds: i64) -> Timestamp {
    w.now.checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

/// The time of the cutover, in so many seconds.
fn at_in(w: &mut World, seconds: i64) {
    let time = after(w, seconds);
    ask(w, at(time));
}

fn at(time: impl ToString) -> Value {
    json!({"cutover": {"mode": "At", "at": time.to_string()}})
}

/// Time goes by, and nobody looks.
fn sleep(w: &mut World, seconds: i64) {
    w.now = after(w, seconds);
}

/// Looks for a while, and keeps status as the API server does.
fn look(w: &mut World, passes: u32) {
    for _ in 0..passes {
        w.pass(false);
        w.status = serde_json::from_value(serde_json::to_value(&w.status).unwrap()).unwrap();
    }
}

fn message(w: &World) -> String {
    w.status.message.clone().unwrap_or_default()
}

#[track_caller]
fn assert_waits(w: &mut World, phase: Phase) {
    look(w, 60);
    assert_eq!((w.phase(), w.source.status.as_str()), (Some(phase), "ACTIVE"), "{}", message(w));
    assert!(message(w).contains("waits for you: kubectl patch vmm"), "{}", message(w));
    assert!(w.status.cutover.as_ref().is_some_and(|c| c.missed));
}

#[track_caller]
fn assert_stops(w: &mut World) {
    look(w, 60);
    assert_ne!(w.source.status, "ACTIVE", "{:?} {}", w.phase(), message(w));
}

/// Tried with the release before: `2026-11-29T22:00:00.123Z`, applied the next day, was in Stopping ten seconds later.
#[test]
fn a_fraction_of_a_second_makes_no_time_new() {
    let mut w = World::new();
    let past = w.now.checked_sub(SignedDuration::new(86_400, -123_000_000)).unwrap();
    ask(&mut w, at(past));
    assert_waits(&mut w, Phase::AwaitingCutover);
    let soon = w.now.checked_add(SignedDuration::new(60, 123_000_000)).unwrap();
    ask(&mut w, at(soon));
    assert_stops(&mut w);
}

#[test]
fn a_time_that_is_patched_into_the_past_stops_nothing() {
    let mut w = World::new();
    at_in(&mut w, 86_400);
    look(&mut w, 40);
    assert_eq!(w.phase(), Some(Phase::AwaitingCutover));
    // Meant was another zone.
    at_in(&mut w, -60);
    assert_waits(&mut w, Phase::AwaitingCutover);
    // A time that it had awaited once, too.
    let first = after(&w, 300);
    ask(&mut w, at(first));
    look(&mut w, 1);
    ask(&mut w, json!({"cutover": {"mode": "Manual"}}));
    look(&mut w, 1);
    sleep(&mut w, 400);
    ask(&mut w, at(first));
    assert_waits(&mut w, Phase::AwaitingCutover);
    ask(&mut w, json!({"cutover": {"mode": "Now"}}));
    assert_stops(&mut w);
}

#[test]
fn a_window_that_was_missed_waits_for_a_person() {
    // For how long something was in the way from the time on, until when it was allowed, and whether that is too late.
    let table = [(1800, None, false), (3700, None, true), (600, Some(500), true), (3700, Some(7200), false)];
    for (late, latest, missed) in table {
        for how in ["blocked", "suspended", "down"] {
            let mut w = World::new();
            let time = after(&w, 300);
            let latest = latest.map(|s| time.checked_add(SignedDuration::from_secs(s)).unwrap().to_string());
            ask(&mut w, json!({"cutover": {"mode": "At", "at": time.to_string(), "notAfter": latest}}));
            if how == "blocked" {
                w.source.status = "PAUSED".into();
            }
            look(&mut w, 40);
            if how == "suspended" {
                ask(&mut w, json!({"suspend": true}));
            }
            w.now = time;
            sleep(&mut w, late);
            if how != "down" {
                look(&mut w, 3);
            }
            w.source.status = "ACTIVE".into();
            ask(&mut w, json!({"suspend": false}));
            match missed {
                true => assert_waits(&mut w, Phase::AwaitingCutover),
                false => assert_stops(&mut w),
            }
        }
    }
}

/// Suspended right after the go: what it was given for has passed when it goes on.
#[test]
fn a_go_does_not_outlast_its_time() {
    let stopping = |claimed: bool, hook: bool| {
        let mut w = World::new();
        if hook {
            let job = json!([{"name": "quiet", "phase": "BeforeStop", "job": {"script": "true"}}]);
            ask(&mut w, json!({"hooks": job}));
        }
        at_in(&mut w, 120);
        w.run(
            200,
            |w| {
                let here = match (claimed, hook) {
                    (true, _) => w.status.source.as_ref().is_some_and(|s| s.claimed_at.is_some()),
                    (false, true) => w.jobs.keys().any(|name| name.contains("-hook-")),
                    _ => true,
                };
                w.phase() == Some(Phase::Stopping) && here
            },
            || false,
        );
        assert_eq!(w.source.status, "ACTIVE");
        ask(&mut w, json!({"suspend": true}));
        look(&mut w, 2);
        sleep(&mut w, 5 * 3600);
        ask(&mut w, json!({"suspend": false}));
        w
    };
    assert_waits(&mut stopping(false, false), Phase::AwaitingCutover);
    let mut w = stopping(false, true);
    assert_waits(&mut w, Phase::Stopping);
    assert!(message(&w).contains("Hooks BeforeStop have run"), "{}", message(&w));
    assert!(w.source.metadata.is_empty(), "nor is it claimed");
    let mut w = stopping(true, false);
    assert_waits(&mut w, Phase::Stopping);
    ask(&mut w, json!({"cutover": {"mode": "Now"}}));
    assert_stops(&mut w);
}

#[test]
fn a_retry_with_an_old_time_waits() {
    let mut w = World::new();
    at_in(&mut w, 120);
    w.broken = Some(Step::CreateServer.name());
    w.run(3000, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    w.broken = None;
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    assert_waits(&mut w, Phase::AwaitingCutover);
}
