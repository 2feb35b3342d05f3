//! Counts the events of a run, and measures how long its parts take.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use greenwave_telemetry::Histogram;
use parking_lot::Mutex;

use crate::event::Event;

/// Phases of features in the order of a feature's life, as in events.
pub(crate) const PHASES: [&str; 11] = [
    "waiting", "checking", "tests", "red", "yellow", "review", "held", "merging", "green", "failed",
    "skipped",
];

/// Counters and histograms of a run.
#[derive(Debug, Default)]
pub(crate) struct RunMetrics {
    /// Durations of tests that ran.
    pub(crate) test_duration: Histogram,
    /// Times from a request to the end of the agent's answer.
    pub(crate) agent_turn: Histogram,
    /// Times from a request to the first complete part of the answer.
    pub(crate) first_unit: Histogram,
    /// Times for which stages that are ready wait for resources.
    pub(crate) queue_wait: Histogram,
    /// Durations of merged batches.
    pub(crate) merge: Histogram,
    pub(crate) tests: TestCounts,
    /// Number of refused attempts.
    pub(crate) refused: AtomicU64,
    /// Number of files in answers.
    pub(crate) files: AtomicU64,
    /// Current phase of each feature that has begun or ended.
    phases: Mutex<BTreeMap<String, &'static str>>,
}

/// Numbers of test results.
#[derive(Debug, Default)]
pub(crate) struct TestCounts {
    pub(crate) passed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) passed_cached: AtomicU64,
    pub(crate) failed_cached: AtomicU64,
}

impl RunMetrics {
    /// Counts an event.
    pub(crate) fn observe(&self, event: &Event) {
        let add = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match event {
            Event::Phase { feature, phase, .. } => self.set_phase(feature, phase),
            Event::UpToDate { feature } | Event::Adopted { feature } => self.set_phase(feature, "green"),
            Event::Waiting { feature, .. } => self.set_phase(feature, "waiting"),
            Event::Failed { feature, .. } => self.set_phase(feature, "failed"),
            Event::Skipped { feature, .. } => self.set_phase(feature, "skipped"),
            Event::Refused { .. } => add(&self.refused),
            Event::File { .. } => add(&self.files),
            Event::Tests { status, cached, .. } => add(match (status == "passed", cached) {
                (true, false) => &self.tests.passed,
                (false, false) => &self.tests.failed,
                (true, true) => &self.tests.passed_cached,
                (false, true) => &self.tests.failed_cached,
            }),
            _ => {}
        }
    }

    fn set_phase(&self, feature: &str, phase: &'static str) {
        let mut phases = self.phases.lock();
        match phases.get_mut(feature) {
            Some(current) => *current = phase,
            None => {
                phases.insert(feature.to_owned(), phase);
            }
        }
    }

    /// Returns the number of features in each of [`PHASES`], of `features` in all. Those that have
    /// not begun are waiting.
    pub(crate) fn phases(&self, features: usize) -> [usize; PHASES.len()] {
        let phases = self.phases.lock();
        let mut counts = PHASES.map(|phase| phases.values().filter(|current| **current == phase).count());
        counts[0] += features.saturating_sub(phases.len());
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_counted_by_phase() {
        let metrics = RunMetrics::default();
        let phase = |feature: &str, phase| Event::Phase { feature: feature.to_owned(), phase, attempt: 1 };
        for event in [
            phase("a", "red"),
            phase("b", "yellow"),
            phase("a", "green"),
            Event::Skipped { feature: "c".to_owned(), because: "b".to_owned() },
        ] {
            metrics.observe(&event);
        }
        // The fourth feature has not begun.
        assert_eq!(metrics.phases(4), [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1]);
    }

    #[test]
    fn every_phase_is_counted_and_on_the_dashboard() {
        use crate::phase::Phase as P;
        let page = include_str!("../../greenwave-telemetry/src/dashboard.html");
        let listed = format!("const PHASES = {PHASES:?};");
        assert!(page.contains(&listed), "dashboard.html needs {listed}");
        let phases = [
            P::Waiting,
            P::Checking,
            P::Writing(1),
            P::WritingPaused(1),
            P::Confirming(1),
            P::Red,
            P::Prompting(1),
            P::Paused(1),
            P::Testing(1),
            P::Reviewing(1),
            P::ReviewPaused(1),
            P::Held(1),
            P::Queued(1),
            P::Merging(1),
            P::Blocked(1),
            P::Green(1),
            P::Failed,
            P::Skipped,
        ];
        for phase in phases {
            // Add a new phase to the list above.
            match phase {
                P::Writing(_) | P::WritingPaused(_) | P::Confirming(_) => {}
                P::Waiting | P::Checking | P::Red | P::Prompting(_) | P::Paused(_) | P::Testing(_) => {}
                P::Reviewing(_)
                | P::ReviewPaused(_)
                | P::Held(_)
                | P::Queued(_)
                | P::Merging(_)
                | P::Blocked(_) => {}
                P::Green(_) | P::Failed | P::Skipped => {}
            }
            let label = phase.label();
            assert!(PHASES.contains(&label), "{label}");
            assert!(page.contains(&format!("\n.{label} {{ fill: var(--{label});")), "no colour of {label}");
        }
    }
}
