//! Metrics of the operator, in Prometheus' text form.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use std::time::Instant;

/// Labels of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: String,
    result: String,
}

/// Labels of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    kind: String,
}

/// All metrics. No label names an object: that would grow without bound.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconcile_seconds: Histogram,
    /// Reconciles that ended with an error of Kubernetes itself.
    pub reconcile_errors: Counter,
    steps: Family<StepLabels, Counter>,
    watch_errors: Family<WatchLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("vmmigration");
        let reconcile_seconds = Histogram::new([0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 90.0]);
        let (reconcile_errors, steps, watch_errors) =
            (Counter::default(), Family::default(), Family::default());
        registry.register("reconcile_seconds", "Duration of a reconcile", reconcile_seconds.clone());
        registry.register(
            "reconcile_errors",
            "Reconciles that ended with an error",
            reconcile_errors.clone(),
        );
        registry.register("steps", "Side effects by kind and result", steps.clone());
        registry.register("watch_errors", "Failures of watches by kind of object", watch_errors.clone());
        Metrics { registry, reconcile_seconds, reconcile_errors, steps, watch_errors }
    }
}

impl Metrics {
    /// Measures until it is dropped.
    pub fn time(&self) -> Timer<'_> {
        Timer { metrics: self, from: Instant::now() }
    }

    /// Counts a step.
    pub fn step(&self, step: &str, ok: bool) {
        let result = if ok { "done" } else { "failed" };
        self.steps.get_or_create(&StepLabels { step: step.into(), result: result.into() }).inc();
    }

    /// Counts a failure of a watch.
    pub fn watch_error(&self, kind: &str) {
        self.watch_errors.get_or_create(&WatchLabels { kind: kind.into() }).inc();
    }

    /// In Prometheus' text form.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Measures a reconcile until it is dropped.
pub struct Timer<'a> {
    metrics: &'a Metrics,
    from: Instant,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.metrics.reconcile_seconds.observe(self.from.elapsed().as_secs_f64());
    }
}
