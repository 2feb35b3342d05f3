//! Tests that maintain a cache in a directory that is tagged as one, over several runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::{MemoryBackend, Tier, Tiered, TieredOptions};
use greenwave_testing::{
    Environment, RunnerOptions, SCHEMA, Suite, SuiteOptions, Test, TraceMode, TraceStatus, UserKey,
};
use greenwave_testkit::service::is_available;
use tempfile::TempDir;

use crate::{project, shell};

const TAG: (&str, &str) = ("made/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
/// Reads a number from the cache and writes it again. Fails unless it is 1.
const KEEPS: &str = "n=$(cat made/n 2>/dev/null || echo 1); echo $n > made/n; test $n = 1";

/// A project in several directories with one cache of results.
struct Project {
    results: Arc<MemoryBackend>,
    tests: Vec<Test>,
}

impl Project {
    /// Returns `None` where tests cannot be traced.
    fn new(scripts: &[&str]) -> Option<Self> {
        let traced = match TraceStatus::of(TraceMode::WhenPossible) {
            TraceStatus::Traced => Ok(()),
            other => Err(other.as_str()),
        };
        if !is_available("tracing", &traced) {
            return None;
        }
        let tests = scripts.iter().enumerate();
        let test = |(number, script): (usize, &&str)| Test { name: format!("t{number}"), ..shell(script) };
        let results = Arc::new(MemoryBackend::new(1_000, 1 << 22).unwrap());
        Some(Self { results, tests: tests.map(test).collect() })
    }

    /// Runs all tests one after another, as a new process does. Returns for each whether it passed
    /// and whether its result was cached.
    async fn run(&self, directory: &Path) -> Vec<(bool, bool)> {
        let tier = Tier::new("memory", Arc::clone(&self.results) as Arc<dyn greenwave_cache::Backend>);
        let path = ("PATH".into(), std::env::var_os("PATH").unwrap());
        let runner = RunnerOptions { trace: TraceMode::WhenPossible, ..RunnerOptions::default() };
        let suite = Suite::builder(directory)
            .tests(self.tests.clone())
            .environment(Environment::new([path]))
            .key(UserKey::new([5; 32]))
            .cache(Some(Tiered::new(vec![tier], TieredOptions::new(SCHEMA))))
            .runner(runner)
            .options(SuiteOptions { workers: 1, ..SuiteOptions::default() })
            .open()
            .unwrap();
        let ids: Vec<_> = suite.ids().collect();
        let report = suite.run(&ids, |_| {}).await.unwrap();
        let outcomes = report.results.iter().map(|result| result.as_ref().unwrap().as_ref().unwrap());
        outcomes.map(|outcome| (outcome.passed(), outcome.is_cached())).collect()
    }
}

const RAN: (bool, bool) = (true, false);
const CACHED: (bool, bool) = (true, true);
const FAILED: (bool, bool) = (false, false);

fn edit(directory: &TempDir, text: &str) {
    fs::write(directory.path().join("made/n"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tests_that_write_the_same_file_are_both_cached() {
    let counts = "cat made/n made/log; date +%s%N > made/n; echo x >> made/log; mktemp made/tmp.XXXXXX";
    let Some(suite) = Project::new(&[counts, &format!("{counts}; true")]) else { return };
    let directory = project(&[TAG, ("a", "1"), ("made/n", "1"), ("made/log", "")]);
    assert_eq!(suite.run(directory.path()).await, [RAN, RAN]);
    for _ in 0..2 {
        assert_eq!(suite.run(directory.path()).await, [CACHED, CACHED]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_by_an_edited_cache_remains_until_the_edit_is_undone() {
    let Some(suite) = Project::new(&[KEEPS]) else { return };
    let directory = project(&[TAG, ("a", "1")]);
    assert_eq!(suite.run(directory.path()).await, [RAN]);
    assert_eq!(suite.run(directory.path()).await, [CACHED]);
    edit(&directory, "2");
    // Each of these runs writes the number that the edit has left.
    assert_eq!(suite.run(directory.path()).await, [FAILED]);
    assert_eq!(suite.run(directory.path()).await, [FAILED]);
    edit(&directory, "1");
    assert_eq!(suite.run(directory.path()).await, [RAN]);
    assert_eq!(suite.run(directory.path()).await, [CACHED]);
    // The first edit once more.
    edit(&directory, "2");
    assert_eq!(suite.run(directory.path()).await, [FAILED]);
    assert_eq!(suite.run(directory.path()).await, [FAILED]);
    fs::remove_file(directory.path().join("made/n")).unwrap();
    assert_eq!(suite.run(directory.path()).await, [RAN]);
    assert_eq!(suite.run(directory.path()).await, [CACHED]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_another_test_counts_if_it_was_edited() {
    let writes = "[ -e made/n ] || echo 1 > made/n";
    let reads = "echo x > made/log; grep -q 1 made/n";
    let Some(suite) = Project::new(&[writes, reads]) else { return };
    let directory = project(&[TAG, ("a", "1")]);
    let first = suite.run(directory.path()).await;
    assert_eq!(first[0], RAN);
    suite.run(directory.path()).await;
    assert_eq!(suite.run(directory.path()).await, [CACHED, CACHED]);
    edit(&directory, "2");
    assert_eq!(suite.run(directory.path()).await[1], FAILED);
    assert_eq!(suite.run(directory.path()).await[1], FAILED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_without_the_cache_share_results() {
    let makes = format!("mkdir -p made; echo '{}' > {}; cat made/n; date > made/n", TAG.1.trim(), TAG.0);
    let Some(suite) = Project::new(&[&makes]) else { return };
    let (one, other) = (project(&[("a", "1")]), project(&[("a", "1")]));
    assert_eq!(suite.run(one.path()).await, [RAN]);
    assert_eq!(suite.run(one.path()).await, [CACHED]);
    assert_eq!(suite.run(other.path()).await, [CACHED]);
    // A copy of the cache has no record, so its files count until the test has written them.
    fs::create_dir(other.path().join("made")).unwrap();
    for name in ["CACHEDIR.TAG", "n"] {
        fs::copy(one.path().join("made").join(name), other.path().join("made").join(name)).unwrap();
    }
    assert_eq!(suite.run(other.path()).await, [RAN]);
    assert_eq!(suite.run(other.path()).await, [CACHED]);
    fs::remove_dir_all(other.path().join(".greenwave")).unwrap();
    assert_eq!(suite.run(other.path()).await, [RAN]);
    assert_eq!(suite.run(other.path()).await, [CACHED]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_inside_of_a_cache_has_ordinary_files() {
    let Some(suite) = Project::new(&["cat a; echo x > log"]) else { return };
    let directory = project(&[
        ("CACHEDIR.TAG", TAG.1),
        ("p/.gitignore", "log\n.greenwave\n"),
        ("p/a", "1"),
        ("p/other", "1"),
    ]);
    let inside = directory.path().join("p");
    // Files that have just changed make a result uncached.
    let settle = || std::thread::sleep(Duration::from_millis(100));
    settle();
    assert_eq!(suite.run(&inside).await, [RAN]);
    assert_eq!(suite.run(&inside).await, [CACHED]);
    // The trace decides, although the test has written to a directory below the tag.
    fs::write(inside.join("other"), "2").unwrap();
    settle();
    assert_eq!(suite.run(&inside).await, [CACHED]);
    fs::write(inside.join("a"), "2").unwrap();
    assert_eq!(suite.run(&inside).await, [RAN]);
    // A test that reads a file before it writes it modifies what it depends on.
    let Some(suite) = Project::new(&["cat log; echo x > log"]) else { return };
    for _ in 0..3 {
        assert_eq!(suite.run(&inside).await, [RAN]);
    }
}
