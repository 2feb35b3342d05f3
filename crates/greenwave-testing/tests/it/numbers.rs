//! Tests of every number in the options of tests and suites, at its limits.

use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::{Backend, MemoryBackend, Tier, Tiered, TieredOptions};
use greenwave_testing::{
    Environment, SCHEMA, Shard, Status, Suite, SuiteOptions, SuiteReport, Test, UserKey,
};
use tempfile::TempDir;

/// Runs tests with options, in a project where they may have run before.
async fn run(
    project: &TempDir,
    backend: &Arc<dyn Backend>,
    tests: &[Test],
    options: SuiteOptions,
) -> SuiteReport {
    let path = [("PATH".into(), std::env::var_os("PATH").unwrap())];
    let tier = Tier::new("memory", Arc::clone(backend));
    let cache = Tiered::new(vec![tier], TieredOptions::new(SCHEMA));
    let suite = Suite::builder(project.path())
        .tests(tests.to_vec())
        .environment(Environment::new(path))
        .key(UserKey::new([5; 32]))
        .cache(Some(cache))
        .options(options)
        .open()
        .unwrap();
    let ids: Vec<_> = suite.ids().collect();
    // Real time, for runs that would not end.
    let report = tokio::time::timeout(Duration::from_secs(300), suite.run(&ids, |_| {}));
    report.await.expect("the run ends").unwrap()
}

fn backend() -> Arc<dyn Backend> {
    Arc::new(MemoryBackend::new(100, 1 << 20).unwrap())
}

fn shell(name: &str, script: &str) -> Test {
    Test { inputs: vec!["input".to_owned()], ..Test::new(name, ["sh", "-c", script]) }
}

fn statuses(report: &SuiteReport) -> Vec<Status> {
    report.results.iter().map(|result| result.as_ref().unwrap().as_ref().unwrap().status.clone()).collect()
}

#[tokio::test]
async fn any_number_of_workers_runs_all_tests() {
    let tests = ["a", "b", "c"].map(|name| shell(name, "cat input"));
    for follow_load in [false, true] {
        for workers in [0, 1, u32::MAX] {
            let project = super::project(&[("input", "1")]);
            let options = SuiteOptions { workers, follow_load, ..SuiteOptions::default() };
            let report = run(&project, &backend(), &tests, options).await;
            assert_eq!(statuses(&report), [Status::Passed, Status::Passed, Status::Passed], "{workers}");
        }
    }
}

#[tokio::test]
async fn any_number_of_units_runs_all_tests() {
    let project = super::project(&[("input", "1")]);
    let test = Test { needs: [("db".to_owned(), 1)].into(), ..shell("a", "cat input") };
    for units in [1, u32::MAX] {
        let options =
            SuiteOptions { resources: [("db".to_owned(), units)].into(), ..SuiteOptions::default() };
        let report = run(&project, &backend(), std::slice::from_ref(&test), options).await;
        assert_eq!(statuses(&report), [Status::Passed], "{units}");
    }
}

/// A share that is not a number, or negative, selects nothing. One above 1 selects everything.
#[tokio::test]
async fn every_share_of_audits_has_a_meaning() {
    let project = super::project(&[("input", "1")]);
    let (tests, backend) = (["a", "b", "c"].map(|name| shell(name, "cat input")), backend());
    run(&project, &backend, &tests, SuiteOptions::default()).await;
    let shares = [
        (0.0, 0),
        (-1.0, 0),
        (f64::NAN, 0),
        (f64::NEG_INFINITY, 0),
        (f64::MIN_POSITIVE, 0),
        (1.0, 3),
        (2.0, 3),
        (f64::MAX, 3),
        (f64::INFINITY, 3),
    ];
    for (audit, expected) in shares {
        for audit_seed in [0, 1, u64::MAX] {
            let options = SuiteOptions { audit, audit_seed, ..SuiteOptions::default() };
            let report = run(&project, &backend, &tests, options).await;
            assert_eq!(report.audited, expected, "{audit}, seed {audit_seed}");
        }
    }
}

#[tokio::test]
async fn any_number_of_runs_of_new_tests_and_of_retries_has_a_meaning() {
    // Passes once, then fails.
    let flaky = [shell("a", "cat input; test ! -e ran && touch ran")];
    for (stress_new, passes) in [(0, true), (1, true), (2, false), (u32::MAX, false)] {
        let project = super::project(&[("input", "1")]);
        let options = SuiteOptions { stress_new, ..SuiteOptions::default() };
        let report = run(&project, &backend(), &flaky, options).await;
        assert_eq!(statuses(&report)[0] == Status::Passed, passes, "{stress_new}");
    }
    // Fails once, then passes.
    for (retries, passes) in [(0, false), (1, true), (u32::MAX, true)] {
        let project = super::project(&[("input", "1")]);
        let test = Test { retries, ..shell("a", "cat input; test -e ran || { touch ran; exit 1; }") };
        let report = run(&project, &backend(), &[test], SuiteOptions::default()).await;
        assert_eq!(statuses(&report)[0] == Status::Passed, passes, "{retries}");
    }
}

#[tokio::test]
async fn any_time_limit_has_a_meaning() {
    let project = super::project(&[("input", "1")]);
    for (time_max, passes) in
        [(Duration::ZERO, false), (Duration::from_nanos(1), false), (Duration::MAX, true)]
    {
        let script = if passes { "cat input" } else { "cat input; sleep 1000" };
        let test = Test { time_max, ..shell("a", script) };
        let report = run(&project, &backend(), &[test], SuiteOptions::default()).await;
        let expected = if passes { Status::Passed } else { Status::TimedOut(time_max) };
        assert_eq!(statuses(&report), [expected], "{time_max:?}");
    }
}

#[test]
fn shards_outside_of_their_range_are_refused() {
    let tests =
        [("a", Some(Duration::MAX)), ("b", None), ("c", Some(Duration::ZERO)), ("d", Some(Duration::MAX))];
    for refused in ["0/1", "1/0", "0/0", "2/1", "-1/1", "4294967296/4294967296", "1", "/", "NaN/1"] {
        assert!(refused.parse::<Shard>().is_err(), "{refused}");
    }
    let all: Vec<usize> = (0..tests.len()).collect();
    assert_eq!("1/1".parse::<Shard>().unwrap().select(&tests), all);
    let mut parts: Vec<usize> = (1..=4)
        .flat_map(|part| format!("{part}/{}", u32::MAX).parse::<Shard>().unwrap().select(&tests))
        .collect();
    parts.sort_unstable();
    assert_eq!(parts, all);
    assert_eq!(format!("{0}/{0}", u32::MAX).parse::<Shard>().unwrap().select(&tests), [] as [usize; 0]);
}
