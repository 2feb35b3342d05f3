//! Compares two recorded runs: duration, features, results of tests, cost, and tests that became
//! slower.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use greenwave_telemetry::Dashboard;
use serde_json::{Value, json};

use crate::attempt_log::AttemptLog;
use crate::run_record::RecordedRun;

/// Maximum number of tests and of features in a comparison.
const ROWS_MAX: usize = 50;
/// Minimum factor by which a test is slower than before.
const SLOWER_FACTOR: f64 = 1.25;
/// Minimum time by which a test is slower than before, in seconds: less is chance.
const SLOWER_SECONDS: f64 = 0.05;

/// The figures of a recorded run.
#[derive(Debug, Default, PartialEq)]
struct Figures {
    seconds: f64,
    cost: Option<f64>,
    tests_run: u64,
    tests_cached: u64,
    attempts: u64,
    features: BTreeMap<String, Feature>,
    /// The longest duration of each test that ran, in seconds.
    tests: BTreeMap<String, f64>,
}

/// The end of a feature in a run.
#[derive(Debug, Clone, Default, PartialEq)]
struct Feature {
    phase: String,
    attempts: u64,
    /// Time from its first phase to its end, in seconds.
    seconds: f64,
    start: Option<f64>,
}

impl RecordedRun {
    /// Returns a [`dashboard`](Self::dashboard) that also compares the run with an earlier one.
    #[must_use]
    pub fn compared_with(&self, before: &Self, log: Option<AttemptLog>) -> Dashboard {
        self.show(log, Some(comparison(before, self)))
    }
}

/// Returns the comparison of a run with an earlier one, as an event of the dashboard.
fn comparison(before: &RecordedRun, after: &RecordedRun) -> Value {
    let (old, new) = (Figures::of(before), Figures::of(after));
    json!({
        "event": "comparison",
        "runs": [old.json(before), new.json(after)],
        "slower": slower(&old, &new),
        "features": features(&old, &new),
    })
}

impl Figures {
    fn of(run: &RecordedRun) -> Self {
        let mut figures = Self::default();
        for (at, event) in run.timed_events() {
            figures.seconds = at;
            figures.add(at, &event);
        }
        figures
    }

    fn add(&mut self, at: f64, event: &Value) {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        match text("event") {
            "plan" => {
                for feature in event["features"].as_array().into_iter().flatten() {
                    let id = feature["id"].as_str().unwrap_or_default();
                    self.feature(id).phase = "waiting".to_owned();
                }
            }
            "phase" => {
                let feature = self.feature(text("feature"));
                let start = *feature.start.get_or_insert(at);
                feature.seconds = at - start;
                text("phase").clone_into(&mut feature.phase);
                let attempt = event["attempt"].as_u64().unwrap_or(0);
                let more = attempt.saturating_sub(feature.attempts);
                feature.attempts += more;
                self.attempts += more;
            }
            ended @ ("failed" | "skipped" | "up_to_date" | "adopted") => {
                let feature = self.feature(text("feature"));
                feature.seconds = feature.start.map_or(0.0, |start| at - start);
                let phase = if matches!(ended, "failed" | "skipped") { ended } else { "green" };
                phase.clone_into(&mut feature.phase);
            }
            "tests" if event["cached"] == true => self.tests_cached += 1,
            "tests" => {
                self.tests_run += 1;
                let longest = self.tests.entry(text("test").to_owned()).or_default();
                *longest = longest.max(event["seconds"].as_f64().unwrap_or(0.0));
            }
            "finished" => self.cost = event["figures"]["run"]["cost_usd"].as_f64(),
            _ => {}
        }
    }

    fn feature(&mut self, id: &str) -> &mut Feature {
        self.features.entry(id.to_owned()).or_default()
    }

    fn count(&self, phase: &str) -> usize {
        self.features.values().filter(|feature| feature.phase == phase).count()
    }

    fn json(&self, run: &RecordedRun) -> Value {
        let started = run.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let results = self.tests_run + self.tests_cached;
        let hit_rate = (results > 0).then(|| 100.0 * self.tests_cached as f64 / results as f64);
        json!({
            "plan": run.plan,
            "started_ms": u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
            "finished": run.has_finished,
            "seconds": self.seconds,
            "features": self.features.len(),
            "green": self.count("green"),
            "failed": self.count("failed"),
            "skipped": self.count("skipped"),
            "attempts": self.attempts,
            "tests_run": self.tests_run,
            "tests_cached": self.tests_cached,
            "hit_rate": hit_rate,
            "cost_usd": self.cost,
        })
    }
}

/// Returns the tests that ran in both runs and became slower, those with the largest difference
/// first.
fn slower(old: &Figures, new: &Figures) -> Vec<Value> {
    let both = new.tests.iter().filter_map(|(test, after)| Some((test, *old.tests.get(test)?, *after)));
    let is_slower = |(_, before, after): &(&String, f64, f64)| {
        after - before >= SLOWER_SECONDS && *after >= before * SLOWER_FACTOR
    };
    let mut slower: Vec<_> = both.filter(is_slower).collect();
    slower.sort_by(|one, other| (other.2 - other.1).total_cmp(&(one.2 - one.1)));
    let json = |(test, before, after)| json!({"test": test, "before": before, "after": after});
    slower.into_iter().take(ROWS_MAX).map(json).collect()
}

/// Returns the features whose end or number of attempts differs.
fn features(old: &Figures, new: &Figures) -> Vec<Value> {
    let json = |feature: Option<&Feature>| {
        feature.map(|it| json!({"phase": it.phase, "attempts": it.attempts, "seconds": it.seconds}))
    };
    let ids: BTreeSet<&String> = old.features.keys().chain(new.features.keys()).collect();
    let rows = ids.into_iter().map(|id| (id, old.features.get(id), new.features.get(id)));
    let end = |feature: Option<&Feature>| feature.map(|it| (it.phase.clone(), it.attempts));
    let differ = rows.filter(|(_, before, after)| end(*before) != end(*after));
    let row = |(id, before, after)| json!({"feature": id, "before": json(before), "after": json(after)});
    differ.take(ROWS_MAX).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: &[(f64, Value)]) -> RecordedRun {
        let lines = events.iter().map(|(at, event)| json!({"at": at, "event": event}).to_string() + "\n");
        RecordedRun::parse(UNIX_EPOCH, &lines.collect::<String>())
    }

    fn plan() -> (f64, Value) {
        (0.0, json!({"event": "plan", "name": "p", "features": [{"id": "a"}, {"id": "b"}]}))
    }

    fn phase(at: f64, feature: &str, phase: &str, attempt: u32) -> (f64, Value) {
        (at, json!({"event": "phase", "feature": feature, "phase": phase, "attempt": attempt}))
    }

    fn test(at: f64, test: &str, cached: bool, seconds: f64) -> (f64, Value) {
        (at, json!({"event": "tests", "feature": "a", "test": test, "cached": cached, "seconds": seconds}))
    }

    #[test]
    fn figures_features_and_slower_tests_are_compared() {
        let figures = json!({"run": {"cost_usd": 0.5}});
        let before = run(&[
            plan(),
            phase(1.0, "a", "red", 0),
            test(1.5, "one", false, 0.5),
            test(1.6, "two", false, 0.5),
            phase(2.0, "a", "yellow", 1),
            phase(4.0, "a", "green", 1),
            (5.0, json!({"event": "skipped", "feature": "b", "because": "x"})),
            (6.0, json!({"event": "finished", "figures": figures})),
        ]);
        let after = run(&[
            plan(),
            phase(1.0, "a", "red", 0),
            test(1.5, "one", false, 1.5),
            test(1.6, "two", false, 0.52),
            test(1.6, "three", true, 9.0),
            phase(2.0, "a", "yellow", 1),
            phase(3.0, "a", "yellow", 2),
            (9.0, json!({"event": "failed", "feature": "a", "reason": "no"})),
        ]);
        let compared = comparison(&before, &after);
        let runs = &compared["runs"];
        assert_eq!(
            (&runs[0]["seconds"], &runs[0]["green"], &runs[0]["skipped"], &runs[0]["cost_usd"]),
            (&json!(6.0), &json!(1), &json!(1), &json!(0.5))
        );
        assert_eq!(
            (&runs[1]["seconds"], &runs[1]["failed"], &runs[1]["attempts"], &runs[1]["finished"]),
            (&json!(9.0), &json!(1), &json!(2), &json!(false))
        );
        assert_eq!((&runs[0]["hit_rate"], &runs[1]["tests_cached"]), (&json!(0.0), &json!(1)));
        assert_eq!(compared["slower"], json!([{"test": "one", "before": 0.5, "after": 1.5}]));
        let expected = json!([
            {"feature": "a", "before": {"phase": "green", "attempts": 1, "seconds": 3.0},
             "after": {"phase": "failed", "attempts": 2, "seconds": 8.0}},
            {"feature": "b", "before": {"phase": "skipped", "attempts": 0, "seconds": 0.0},
             "after": {"phase": "waiting", "attempts": 0, "seconds": 0.0}},
        ]);
        assert_eq!(compared["features"], expected);
    }

    #[test]
    fn equal_runs_differ_in_nothing() {
        let one = run(&[plan(), test(1.0, "one", false, 1.0)]);
        let compared = comparison(&one, &one);
        assert_eq!((&compared["slower"], &compared["features"]), (&json!([]), &json!([])));
    }

    #[test]
    fn records_with_odd_values_are_compared() {
        let odd = run(&[
            (f64::MAX, json!({"event": "phase", "feature": 3, "attempt": -1})),
            (0.0, json!({"event": "tests", "test": [], "seconds": "x"})),
            (1.0, json!({"event": "plan", "features": [1, {"id": 2}]})),
        ]);
        let compared = comparison(&odd, &run(&[]));
        assert_eq!(compared["runs"][1]["features"], 0, "{compared}");
    }
}
