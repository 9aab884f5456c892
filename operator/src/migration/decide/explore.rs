//! Random sequences of requests, changes of the spec, failures, crashes, humans in both clouds and jumps in time,
//! against the model of both clouds. The model itself refuses what must never happen; here it is seen that every
//! sequence comes to an end once the world is calm, and to which.
//!
//! `EXPLORE_SEEDS=10000` explores more; `EXPLORE_SEED=17` explores that one and tells what happens in it.

use super::{
    never,
    tests::{Mirage, World, everywhere, me},
    trace::Trace,
};
use crate::{crd::v1alpha1::*, migration::names::MARK_CLAIM};
use k8s_openapi::jiff::ToSpan;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::collections::BTreeMap;

/// What is explored when nothing else is said.
pub(super) const SEEDS: u64 = 250;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_sequence_ends_and_nothing_happens_that_must_not() {
    explore_all(SEEDS, Explorer::new);
}

/// Steps of one pass act on different objects, and the operator may be killed after any of them.
#[test]
fn every_sequence_ends_when_passes_are_cut_in_the_middle() {
    explore_all(SEEDS / 2, |seed| Explorer { cut: true, ..Explorer::new(seed) }.unrecorded());
}

fn explore_all(seeds: u64, explorer: impl Fn(u64) -> Explorer) {
    let seeds = match number("EXPLORE_SEED") {
        Some(one) => one..one + 1,
        None => 0..number("EXPLORE_SEEDS").unwrap_or(seeds),
    };
    let (count, mut ends) = (seeds.end - seeds.start, BTreeMap::<String, u32>::new());
    for seed in seeds {
        // Seen with every failure: the test's output is shown then.
        println!("EXPLORE_SEED={seed}");
        *ends.entry(explorer(seed).explore().to_string()).or_default() += 1;
    }
    println!("{ends:?}");
    let all = ["Succeeded", "Retired", "RolledBack", "Cancelled", "Failed", "Deleting"];
    let missing: Vec<_> = all.iter().filter(|end| !ends.contains_key(**end)).collect();
    assert!(count < SEEDS || missing.is_empty(), "nothing ended in {missing:?}: {ends:?}");
}

struct Explorer {
    seed: u64,
    rng: StdRng,
    w: World,
    /// Requests so far: tokens are never used twice.
    tokens: u32,
    /// Somebody changed the source or its claim.
    touched: bool,
    /// The source's owner had locked it.
    locked: bool,
    /// A crash comes after any prefix of a pass's steps, or any others of them, not only after all.
    cut: bool,
    loud: bool,
}

impl Explorer {
    fn new(seed: u64) -> Self {
        let mut w = World::new();
        w.trace = Trace::of_seed(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        if rng.random_bool(0.2) {
            w.source.status = "SHUTOFF".into();
        }
        for side in super::SIDES {
            if rng.random_bool(0.4) {
                w.modes.insert(side, TransferMode::Volume);
            }
        }
        if rng.random_bool(0.3) {
            w.spec.hooks = serde_json::from_value(everywhere()).unwrap();
            for hook in w.spec.hooks.iter().filter(|_| rng.random_bool(0.1)) {
                w.scripts.insert(hook.name.clone(), vec![1]);
            }
        }
        if rng.random_bool(0.4) {
            w.spec.strategy = Some(Strategy::Warm);
            if rng.random_bool(0.5) {
                w.spec.cutover.mode = CutoverMode::Manual;
            }
        }
        w.slow = [0, 0, 3, 40][rng.random_range(0..4)];
        let locked = rng.random_bool(0.2);
        w.source.locked = locked;
        let loud = number("EXPLORE_SEED").is_some();
        Explorer { seed, rng, w, tokens: 0, touched: false, locked, cut: false, loud }
    }

    fn unrecorded(mut self) -> Self {
        self.w.trace = Trace::of_nothing();
        self
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    fn explore(&mut self) -> Phase {
        let events = self.rng.random_range(1..8);
        for _ in 0..events {
            self.event();
            for _ in 0..self.rng.random_range(1..25) {
                self.pass();
            }
        }
        self.calm();
        self.w.phase().unwrap_or_default()
    }

    /// One reconcile; sometimes killed after its steps.
    fn pass(&mut self) {
        if self.w.released {
            return;
        }
        let crash = self.one_in(6).then(|| self.steps_done());
        let before = self.w.phase();
        for (_, job) in self.w.jobs.values_mut() {
            job.output = Some(never::SECRET.into());
        }
        self.w.pass_with(crash);
        let after = self.w.phase();
        if self.loud && before != after {
            println!("  {before:?} -> {after:?}: {:?}", self.w.status.message);
        }
        self.check(before);
    }

    /// What was done of a pass that is killed, a bit for each step.
    fn steps_done(&mut self) -> u64 {
        match (self.cut, self.cut && self.rng.random_bool(0.5)) {
            (false, _) => u64::MAX,
            (_, true) => (1 << self.rng.random_range(0..6)) - 1,
            _ => self.rng.random(),
        }
    }

    fn check(&self, before: Option<Phase>) {
        let (w, seed) = (&self.w, self.seed);
        let status = &w.status;
        if let Err(what) = never::has_happened(w) {
            panic!("seed {seed}: {what}");
        }
        if !before.unwrap_or_default().succeeded() && w.phase().is_some_and(Phase::succeeded) {
            assert!(status.failure.is_none() && w.report, "seed {seed}: success without a report");
        }
        for row in &status.requests {
            let rows = status.requests.iter().filter(|r| r.name == row.name).count();
            assert!(rows == 1 && !row.message.is_empty(), "seed {seed}: {row:?}");
        }
        assert!(status.timeline.len() <= 64, "seed {seed}: the timeline is bounded");
    }

    fn event(&mut self) {
        let event = self.rng.random_range(0..15);
        if self.loud {
            println!("  event {event} in {:?}", self.w.phase());
        }
        match event {
            0..=4 => self.request(),
            5 => {
                let (on, mode) = (self.rng.random_bool(0.5), ["Now", "Manual"][self.rng.random_range(0..2)]);
                self.spec(json!({"suspend": on, "cutover": {"mode": mode}}));
            }
            6 => {
                let policy = if self.one_in(2) {
                    json!({"action": "Keep"})
                } else {
                    json!({"action": "Delete", "after": "10m"})
                };
                self.spec(json!({"sourcePolicy": policy}));
            }
            7 => {
                let keep = ["10m", "1h"][self.rng.random_range(0..2)];
                self.spec(json!({"onFailure": {"keepData": keep}}));
            }
            8 => {
                let seconds: i64 = [60, 700, 4000, 90_000][self.rng.random_range(0..4)];
                self.w.now = self.w.now.checked_add(seconds.seconds()).unwrap();
            }
            9 => self.w.unreachable = !self.w.unreachable,
            10 if self.one_in(2) => self.w.job_fails = true,
            10 => self.w.wrong_segment = true,
            11 => {
                let steps = [
                    "create-server",
                    "create-volume",
                    "create-port",
                    "start-source",
                    "lock-source",
                    "create-snapshot",
                ];
                let step = steps[self.rng.random_range(0..steps.len())];
                // What is on the way back must work some day; it is repaired when the world is calm.
                self.w.broken = if self.w.broken.is_some() { None } else { Some(step) };
            }
            12 => self.human_in_a(),
            13 => self.human_in_b(),
            _ => self.half_answers(),
        }
    }

    /// From one look to the next a cloud gives half an answer, for as long as it likes.
    fn half_answers(&mut self) {
        let half = |on: bool| on.then_some(Mirage::Half);
        self.w.mirage_in_a = half(self.rng.random_bool(0.5));
        self.w.mirage_in_b = half(self.rng.random_bool(0.5));
    }

    fn spec(&mut self, change: serde_json::Value) {
        let mut spec = serde_json::to_value(&self.w.spec).unwrap();
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.w.spec = serde_json::from_value(spec).unwrap();
        self.w.generation += 1;
    }

    fn request(&mut self) {
        self.tokens += 1;
        let mut requests = serde_json::to_value(self.w.spec.requests.clone().unwrap_or_default()).unwrap();
        let verbs = ["cancel", "rollback", "retry", "retire"];
        for verb in verbs {
            if self.one_in(3) {
                requests[verb] = json!(format!("t{}", self.tokens));
            }
        }
        self.spec(json!({"requests": requests}));
    }

    fn human_in_a(&mut self) {
        self.touched = true;
        self.w.humans = true;
        match self.rng.random_range(0..6) {
            0 | 1 => {
                self.w.source.locked = false;
                self.w.act("unlock");
                self.w.source.status = "ACTIVE".into();
                self.w.act("start");
            }
            2 => {
                self.w.source.locked = false;
                self.w.act("unlock");
            }
            3 if !self.w.source.locked => {
                self.w.source.status = "SHUTOFF".into();
                self.w.act("stop");
            }
            4 => drop(self.w.source.metadata.insert(MARK_CLAIM.into(), "another".into())),
            5 if self.one_in(3) => {
                self.w.source_gone = true;
                self.w.own.iter_mut().for_each(|v| v.status = "available".into());
            }
            _ => {}
        }
    }

    fn human_in_b(&mut self) {
        self.w.humans = true;
        let gone = self.one_in(3);
        match self.w.servers.first_mut() {
            Some(_) if gone => self.w.servers.clear(),
            Some(s) if s.status == "ACTIVE" => s.status = "SHUTOFF".into(),
            Some(s) if s.status == "SHUTOFF" => s.status = "ACTIVE".into(),
            _ => {}
        }
    }

    /// Nothing is broken any more and nobody acts: it comes to an end, by itself.
    fn calm(&mut self) {
        (self.w.unreachable, self.w.broken, self.w.job_fails) = (false, None, false);
        (self.w.mirage_in_a, self.w.mirage_in_b) = (None, None);
        self.spec(json!({"suspend": false, "cutover": {"mode": "Now"}}));
        if self.one_in(4) {
            self.w.deleting = true;
        }
        let mut passes = 0;
        while !self.settled() {
            passes += 1;
            if matches!(self.w.phase(), Some(Phase::Held | Phase::Blocked | Phase::Stopping))
                && passes % 100 == 50
            {
                self.person();
            }
            assert!(
                passes < 3000,
                "seed {}: it never ends: {:?} {:?}\n{:#?}",
                self.seed,
                self.w.phase(),
                self.w.status.message,
                self.w.status.timeline
            );
            self.pass();
            if self.settled() {
                break;
            }
            // As long as it says that it waits for a time, that time comes.
            let recheck = self.w.recheck.unwrap_or_else(|| {
                panic!("seed {}: it sleeps in {:?}: {:?}", self.seed, self.w.phase(), self.w.status.message)
            });
            if recheck.as_secs() > 2 {
                let recheck = i64::try_from(recheck.as_secs()).unwrap();
                self.w.now = self.w.now.checked_add(recheck.seconds()).unwrap();
            }
        }
        self.end();
    }

    /// Held and Blocked wait for a person, who decides; so does a stop that something is in the way of.
    fn person(&mut self) {
        self.tokens += 1;
        let verb = if self.w.phase() == Some(Phase::Held) && self.one_in(2) { "retry" } else { "cancel" };
        let mut requests = serde_json::to_value(self.w.spec.requests.clone().unwrap_or_default()).unwrap();
        requests[verb] = json!(format!("t{}", self.tokens));
        self.spec(json!({"requests": requests}));
    }

    fn settled(&self) -> bool {
        let w = &self.w;
        let due = w.spec.source_policy.as_ref().is_some_and(|p| p.action == SourceAction::Delete);
        let refused = w.status.retirement.as_ref().is_some_and(|r| r.refused.is_some());
        match w.phase() {
            _ if w.deleting => w.released,
            Some(Phase::Succeeded) => {
                w.clean() && (!due || refused) && w.recheck.is_none_or(|r| r.as_secs() > 1)
            }
            Some(Phase::Retired) => w.clean(),
            Some(Phase::Failed | Phase::Cancelled | Phase::RolledBack) => w.clean() && !self.stranded(),
            _ => false,
        }
    }

    /// It ended while the source was believed to be gone: that is not the end of it.
    fn stranded(&self) -> bool {
        !self.w.source_gone && self.w.source.metadata.get(MARK_CLAIM) == Some(&me().uid)
    }

    /// Where it ended is where it may end.
    fn end(&self) {
        let (w, seed) = (&self.w, self.seed);
        let status = &w.status;
        let phase = w.phase().unwrap_or_default();
        let claimed = status.source.as_ref().is_some_and(|s| s.claimed_at.is_some());
        if phase.gave_up() || phase == Phase::Deleting {
            let claim = w.source.metadata.get(MARK_CLAIM);
            assert!(w.source_gone || claim != Some(&me().uid), "seed {seed}: our claim stays");
            if claimed && !self.touched {
                let was_running = status.source.as_ref().is_some_and(|s| s.was_running);
                let wanted = if was_running { "ACTIVE" } else { "SHUTOFF" };
                assert_eq!(
                    (w.source.status.as_str(), w.source.locked),
                    (wanted, self.locked),
                    "seed {seed}: A is not as before"
                );
            }
            assert!(w.own.len() == 2, "never 1, seed {seed}");
            let kept = status.destination.as_ref().is_some_and(|x| x.active_at.is_some());
            assert!(
                kept || w.servers.is_empty() && w.made.is_empty() && w.ports.is_empty(),
                "seed {seed}: left in B"
            );
        }
        assert!(w.devices.is_empty(), "seed {seed}: a cluster still has volumes");
        assert!(w.volumes.is_empty() && w.images.is_empty(), "seed {seed}: temporary objects are left");
        // Of a stopped server's volumes those of the last pass stay, and of every try that stopped it.
        let most = if w.source.status == "ACTIVE" { 0 } else { 2 * status.attempts.max(1) };
        let left = i32::try_from(w.snapshots.len()).unwrap();
        // Somebody who stops it in the middle of a pass keeps that one's, too.
        assert!(left <= most || w.humans, "seed {seed}: {left} snapshots are left: {:?}", w.snapshots);
        let secrets = w.vault || w.anchors;
        assert!(
            !secrets && w.jobs.is_empty() && !w.repository,
            "seed {seed}: Secrets ({} {}), Jobs {:?} or data ({}) are left",
            w.vault,
            w.anchors,
            w.jobs.keys(),
            w.repository
        );
        if phase == Phase::Retired {
            assert!(
                w.source_gone && w.own.is_empty() && w.snapshots.is_empty(),
                "seed {seed}: {:?}",
                status.retained
            );
        }
    }
}
