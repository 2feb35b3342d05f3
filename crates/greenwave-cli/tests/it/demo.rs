//! The demo, end to end, with compilers and tests. All tests check the same runs.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use insta::assert_snapshot;
use serde_json::Value;

use crate::program::{COMPILING_BOUND, Finished, Program};
use crate::snapshots;
use crate::test_dir::{Files, TestDir};

/// Features of the demo, in the order of its plan.
pub(crate) const FEATURES: [&str; 10] =
    ["ast", "lexer", "functions", "format", "units", "parser", "eval", "simplify", "derive", "calc"];

/// The results of a first run of the demo and of the runs after it.
pub(crate) struct Demo {
    /// The first run, with JSON output.
    first: Finished,
    /// Files of the project after the first run.
    pub(crate) files: Files,
    /// Answer of the calculator.
    answer: String,
    /// The second run.
    second: Finished,
    /// Files of the project after the second run.
    files_after_second: Files,
    /// A run in another directory, with the test results of the first run.
    other: Finished,
}

/// Returns the one demo that all tests check.
pub(crate) fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    // Poisoned by a panic, so that a failing demo runs once and not once per test.
    static RUNNING: Mutex<()> = Mutex::new(());
    let _guard = RUNNING.lock().expect("the demo failed; another test shows the error");
    DEMO.get_or_init(run)
}

fn run() -> Demo {
    let dir = TestDir::empty();
    let results = dir.path("results");
    let shared = format!("cache.directory={}", results.display());
    let start = |name: &str, more: &[&str]| {
        let args = ["demo", "--dir", name, "--metrics-port", "0", "--pace", "0", "--set", &shared];
        dir.greenwave(args.into_iter().chain(more.iter().copied())).bound(COMPILING_BOUND).run()
    };
    let first = start("demo", &["--format", "json"]).with_code(0);
    let files = dir.files("demo/project");
    let answer = calculate(&dir, "1 + 2 * 3\n");
    let second = start("demo", &[]);
    let files_after_second = dir.files("demo/project");
    let other = start("other", &[]);
    Demo { first, files, answer, second, files_after_second, other }
}

/// Runs the calculator that the agents have written.
fn calculate(dir: &TestDir, line: &str) -> String {
    dir.write("question", line);
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--offline", "-p", "calc"]);
    let program = Program::of(cargo).within(&dir.path("demo/project")).bound(COMPILING_BOUND);
    let question = std::fs::File::open(dir.path("question")).unwrap();
    program.stdin(question).run().with_code(0).stdout
}

fn named<'a>(events: &'a [Value], name: &str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["event"] == name)
}

#[test]
fn every_feature_becomes_green() {
    let events = demo().first.events();
    let finished = events.last().unwrap();
    assert_eq!(finished["event"], "finished");
    assert_eq!(named(&events, "finished").count(), 1);
    let features = finished["features"].as_array().unwrap();
    let phases: Vec<_> =
        features.iter().map(|f| (f["feature"].as_str().unwrap(), f["phase"].as_str().unwrap())).collect();
    assert_eq!(phases, FEATURES.map(|feature| (feature, "green")));
    assert!(features.iter().all(|feature| feature["reason"].is_null() && feature["up_to_date"] == false));
    let attempts: BTreeMap<_, _> =
        features.iter().map(|f| (f["feature"].as_str().unwrap(), f["attempts"].as_u64().unwrap())).collect();
    let twice: Vec<_> = attempts.iter().filter(|(_, attempts)| **attempts != 1).collect();
    assert_eq!(twice, [(&"simplify", &2)]);
}

#[test]
fn the_first_events_describe_the_run() {
    let events = demo().first.events();
    assert_eq!(events[0]["event"], "settings");
    assert_eq!(events[0]["profile"], "development");
    assert!(events[0]["metrics"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert_eq!(events[1]["event"], "started");
    assert_eq!((&events[1]["plan"], &events[1]["features"]), (&"calculator".into(), &10.into()));
    assert_eq!(events[1]["agent_kinds"], Value::from(vec!["scripted"]));
}

#[test]
fn every_feature_is_red_then_yellow_then_green() {
    let events = demo().first.events();
    for feature in FEATURES {
        let own: Vec<&Value> = events.iter().filter(|event| event["feature"] == feature).collect();
        let at = |wanted: &dyn Fn(&Value) -> bool| {
            own.iter().position(|event| wanted(event)).unwrap_or_else(|| panic!("{feature}: {own:?}"))
        };
        let phase = |label: &'static str| {
            at(&move |event: &Value| event["event"] == "phase" && event["phase"] == label)
        };
        let failed_first = at(&|event| event["event"] == "tests" && event["phase"] == "red");
        assert_ne!(own[failed_first]["status"], "passed", "{feature}");
        let file = at(&|event| event["event"] == "file");
        let passed = at(&|event| {
            event["event"] == "tests" && event["phase"] == "yellow" && event["status"] == "passed"
        });
        assert!(own[passed]["passed"].as_u64().unwrap() > 0 && own[passed]["failed"] == 0);
        let merged = at(&|event| event["event"] == "merged");
        let order = [phase("red"), failed_first, phase("yellow"), file, passed, merged, phase("green")];
        assert!(order.is_sorted(), "{feature}: {order:?}");
    }
    let refused: Vec<_> = named(&events, "refused").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["feature"], "simplify");
    let reason = refused[0]["reason"].as_str().unwrap();
    assert_eq!(reason, "test `simplify` failed with exit code 101 (1 of 5 tests)");
}

#[test]
fn an_answer_can_have_several_files() {
    let events = demo().first.events();
    let files_of = |feature: &str| -> Vec<_> {
        let own = named(&events, "file").filter(|event| event["feature"] == feature);
        own.map(|event| event["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(files_of("derive"), ["crates/ast/src/lib.rs", "crates/derive/src/lib.rs"]);
    assert_eq!(files_of("calc").len(), 3);
    for event in named(&events, "file") {
        let path = event["path"].as_str().unwrap();
        assert!(demo().files.contains_key(path), "{path}");
    }
}

#[test]
fn features_run_in_parallel_after_their_dependencies() {
    let events = demo().first.events();
    let at = |feature: &str, phase: &str| {
        let is = |event: &Value| {
            event["event"] == "phase" && event["feature"] == feature && event["phase"] == phase
        };
        events.iter().position(is).unwrap()
    };
    let overlap = |a: &str, b: &str| at(a, "red") < at(b, "green") && at(b, "red") < at(a, "green");
    let pairs = FEATURES.iter().flat_map(|a| FEATURES.iter().map(move |b| (a, b)));
    assert!(pairs.filter(|(a, b)| a < b && overlap(a, b)).count() > 0);
    assert_eq!(events.last().unwrap()["totals"]["workers_peak"], 2);
    for (feature, before) in [("parser", "lexer"), ("eval", "functions"), ("derive", "ast"), ("calc", "eval")]
    {
        assert!(at(before, "green") < at(feature, "red"), "{feature} and {before}");
    }
}

#[test]
fn the_calculator_works() {
    assert_eq!(demo().answer.trim(), "7");
}

#[test]
fn the_project_has_only_the_files_of_the_answers() {
    let unexpected: Vec<_> = demo()
        .files
        .keys()
        .filter(|path| !path.starts_with("crates/"))
        .filter(|path| ![".gitignore", "Cargo.toml", "Cargo.lock"].contains(&path.as_str()))
        .collect();
    assert_eq!(unexpected, Vec::<&String>::new());
    assert!(demo().files.keys().all(|path| !path.contains(".greenwave")));
}

#[test]
fn the_second_run_is_answered_from_the_cache() {
    let second = &demo().second;
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    assert!(second.stdout.contains("0 agent requests, 0 test commands were run, 10 cached (saved "));
    assert_eq!(demo().files, demo().files_after_second);
    snapshots::check("second_run", &second.stdout);
}

/// The order of features differs between runs, and so do the tests of other features that a merge
/// runs. The other lines of each feature are always the same.
#[test]
fn the_first_run_prints_the_progress_of_each_feature() {
    let other = &demo().other;
    assert_eq!(other.status.code(), Some(0), "{other:?}");
    let (progress, table) = other.stdout.split_once("\n\n").expect("a blank line precedes the table");
    let mut by_feature = BTreeMap::<&str, Vec<&str>>::new();
    let is_same = |one: &str, other: &str| {
        let without_time = |line: &str| line.rsplit_once('(').map(|(text, _)| text.to_owned());
        without_time(one).is_some() && without_time(one) == without_time(other)
    };
    for line in progress.lines().filter(|line| line.starts_with("  ")) {
        // The messages of a rejected attempt.
        if line.starts_with("      ") {
            continue;
        }
        let (feature, rest) = line.trim_start().split_once(' ').unwrap();
        let is_other_feature = rest.trim_start().starts_with("tests") && rest.contains(": ");
        if is_other_feature {
            continue;
        }
        let lines = by_feature.entry(feature).or_default();
        // A test of the attempt may run again for the merge, if another feature is merged with it.
        let is_test = rest.trim_start().starts_with("tests");
        let follows = |word: &str| lines.last().is_some_and(|last| last.trim_end().ends_with(word));
        let is_rerun =
            is_test && (follows("merging") || lines.last().is_some_and(|last| is_same(last, line)));
        if !is_rerun {
            lines.push(line);
        }
    }
    let progress: Vec<&str> = by_feature.into_values().flatten().collect();
    snapshots::check_first_run("first_run", &format!("{}\n\n{table}", progress.join("\n")));
}

#[test]
fn results_are_shared_between_copies_of_a_project() {
    let cached = demo().other.stdout.lines().filter(|line| line.ends_with("passed (cached)")).count();
    assert!(cached >= FEATURES.len(), "{}", demo().other.stdout);
}

#[test]
fn a_directory_with_other_files_is_left_alone() {
    let dir = TestDir::empty().with("mine/notes.txt", "mine\n");
    let finished = dir.greenwave(["demo", "--dir", "mine", "--no-metrics"]).run().with_code(2);
    assert_eq!(dir.files(""), [("mine/notes.txt".to_owned(), "mine\n".to_owned())].into());
    assert_snapshot!(finished.stderr, @r"
    error: cannot create a demo in mine: the directory is not empty and holds no demo
    hint: choose an empty directory
    ");
}
