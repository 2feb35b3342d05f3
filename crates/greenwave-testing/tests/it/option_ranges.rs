//! Every numeric option at zero, one and its maximum, and fractions that are not finite: each run
//! ends, with the expected result.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::{MemoryBackend, Tier, Tiered, TieredOptions};
use greenwave_testing::{Environment, ExitReason, SCHEMA, Status, Suite, SuiteOptions, Test};
use tempfile::TempDir;

/// A project with one test, and a cache in memory.
struct OneTest {
    directory: TempDir,
    cache: Arc<MemoryBackend>,
}

impl OneTest {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("input"), "").unwrap();
        Self { directory, cache: Arc::new(MemoryBackend::new(1000, 1 << 20).unwrap()) }
    }

    /// Runs the test, and returns its status and the number of its attempts.
    async fn run(&self, test: Test, options: SuiteOptions) -> (Status, u32) {
        let shown = format!("{options:?} {test:?}");
        let tier = Tier::new("memory", self.cache.clone());
        let suite = Suite::builder(self.directory.path())
            .tests(vec![test])
            .environment(Environment::new(std::env::vars_os()))
            .cache(Some(Tiered::new(vec![tier], TieredOptions::new(SCHEMA))))
            .options(options)
            .open()
            .unwrap();
        let ids: Vec<_> = suite.ids().collect();
        // Real time, for runs that would not end.
        let run = tokio::time::timeout(Duration::from_secs(120), suite.run(&ids, |_| ()));
        let mut report = run.await.unwrap_or_else(|_| panic!("the run does not end: {shown}")).unwrap();
        let outcome = report.results.remove(0).expect("it was requested").unwrap();
        (outcome.status, outcome.attempts)
    }
}

fn script(script: &str) -> Test {
    Test::new("test", ["sh", "-c", script])
}

#[tokio::test]
async fn options_of_a_suite() {
    let project = OneTest::new();
    for workers in [0, 1, u32::MAX] {
        for follow_load in [false, true] {
            let options = SuiteOptions { workers, follow_load, ..SuiteOptions::default() };
            let (status, _) = project.run(script(&format!(": {workers} {follow_load}")), options).await;
            assert_eq!(status, Status::Passed);
        }
    }
    let shares =
        [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, f64::MIN_POSITIVE, 0.5, 1.0, f64::MAX, f64::INFINITY];
    for audit in shares {
        for audit_seed in [0, 1, u64::MAX] {
            let options = SuiteOptions { audit, audit_seed, ..SuiteOptions::default() };
            assert_eq!(project.run(script(":"), options).await.0, Status::Passed);
        }
    }
}

#[tokio::test]
async fn a_new_test_runs_at_most_1000_times() {
    for (stress_new, expected) in [(0, 1), (1, 1), (3, 3), (u32::MAX, 1000)] {
        let project = OneTest::new();
        let directory = tempfile::tempdir().unwrap();
        let runs = directory.path().join("runs");
        let options = SuiteOptions { stress_new, ..SuiteOptions::default() };
        let (status, _) = project.run(script(&format!("echo >> {}", runs.display())), options).await;
        assert_eq!(status, Status::Passed);
        assert_eq!(std::fs::read(runs).unwrap().len(), expected, "{stress_new}");
    }
}

#[tokio::test]
async fn a_failing_test_is_retried_at_most_1000_times() {
    for (retries, expected) in [(0, 1), (1, 2), (u32::MAX, 1001)] {
        let test = Test { retries, ..script("exit 3") };
        let (status, attempts) = OneTest::new().run(test, SuiteOptions::default()).await;
        assert_eq!((status, attempts), (Status::Failed(ExitReason::Code(3)), expected));
    }
}

#[tokio::test]
async fn time_limits_of_any_length() {
    for time_max in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let (seconds, expected) = match time_max {
            Duration::MAX => (0, Status::Passed),
            limit => (1000, Status::TimedOut(limit)),
        };
        let test = Test { time_max, ..script(&format!("sleep {seconds}")) };
        let (status, _) = OneTest::new().run(test, SuiteOptions::default()).await;
        assert_eq!(status, expected, "{time_max:?}");
    }
}
