//! The metrics of a run, with bounded labels: no names of features or tests.

use std::time::Duration;

use greenwave::{Event, Usage};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;

/// Bounds of durations, in seconds: those of `/metrics`.
const DURATION_BOUNDS: [f64; 14] =
    [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

/// The instruments.
pub(super) struct Metrics {
    features: Counter<u64>,
    refused: Counter<u64>,
    tests: Counter<u64>,
    test_duration: Histogram<f64>,
    call_duration: Histogram<f64>,
    tokens: Histogram<u64>,
    cost: Counter<f64>,
}

impl Metrics {
    pub(super) fn new(provider: &SdkMeterProvider) -> Self {
        let meter = provider.meter("greenwave");
        let seconds = |name, description| seconds(&meter, name, description);
        let count = |name, unit, description| count(&meter, name, unit, description);
        Self {
            features: count("greenwave.features", "{feature}", "Features that have ended"),
            refused: count("greenwave.attempts.refused", "{attempt}", "Attempts that were refused"),
            tests: count("greenwave.tests", "{test}", "Results of test commands"),
            test_duration: seconds("greenwave.test.duration", "Duration of test commands that ran"),
            call_duration: seconds("gen_ai.client.operation.duration", "Duration of requests to agents"),
            tokens: meter
                .u64_histogram("gen_ai.client.token.usage")
                .with_unit("{token}")
                .with_description("Tokens of the agents of a feature")
                .build(),
            cost: meter
                .f64_counter("greenwave.cost")
                .with_unit("{USD}")
                .with_description("Cost of agents, as far as they report it")
                .build(),
        }
    }

    pub(super) fn event(&self, event: &Event) {
        let ended = |outcome: &'static str| self.features.add(1, &[KeyValue::new("outcome", outcome)]);
        match event {
            Event::Phase { phase: "green", .. } => ended("green"),
            Event::UpToDate { .. } => ended("up_to_date"),
            Event::Adopted { .. } => ended("adopted"),
            Event::Failed { .. } => ended("failed"),
            Event::Skipped { .. } => ended("skipped"),
            Event::Refused { .. } => self.refused.add(1, &[]),
            Event::Tests { status, cached, seconds, phase, .. } => {
                let result = if status == "passed" { "pass" } else { "fail" };
                let labels = [
                    KeyValue::new("test.case.result.status", result),
                    KeyValue::new("cached", *cached),
                    KeyValue::new("phase", *phase),
                ];
                self.tests.add(1, &labels);
                if !cached {
                    self.test_duration.record(*seconds, &labels[..1]);
                }
            }
            _ => {}
        }
    }

    /// Adds a request to an agent.
    pub(super) fn call(&self, agent: &str, duration: Duration) {
        self.call_duration.record(duration.as_secs_f64(), &labels(agent));
    }

    /// Adds the usage of a feature's agent.
    pub(super) fn usage(&self, agent: &str, usage: &Usage) {
        for (kind, tokens) in [("input", usage.input_tokens), ("output", usage.output_tokens)] {
            if tokens > 0 {
                let kind = KeyValue::new("gen_ai.token.type", kind);
                self.tokens.record(tokens, &[labels(agent).as_slice(), &[kind]].concat());
            }
        }
        if let Some(cost) = usage.cost {
            self.cost.add(cost as f64 / 1e6, &labels(agent)[1..]);
        }
    }
}

/// Creates a histogram of durations.
pub(super) fn seconds(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<f64> {
    let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
    histogram.with_boundaries(DURATION_BOUNDS.to_vec()).build()
}

/// Creates a counter.
pub(super) fn count(
    meter: &Meter,
    name: &'static str,
    unit: &'static str,
    description: &'static str,
) -> Counter<u64> {
    meter.u64_counter(name).with_unit(unit).with_description(description).build()
}

fn labels(agent: &str) -> [KeyValue; 2] {
    [
        KeyValue::new("gen_ai.operation.name", super::spans::INVOKE_AGENT),
        KeyValue::new("gen_ai.agent.name", agent.to_owned()),
    ]
}
