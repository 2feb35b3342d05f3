//! The demonstration, end to end: compilers, tests and all. Run once, and looked at from many sides.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use insta::assert_snapshot;
use serde_json::Value;

use crate::folder::{Files, Folder};
use crate::program::{COMPILING_BOUND, Finished, Program};
use crate::shown;

/// The features of the demonstration, in the order of its plan.
pub(crate) const FEATURES: [&str; 10] =
    ["ast", "lexer", "functions", "format", "units", "parser", "eval", "simplify", "derive", "calc"];

/// What the first run of a fresh demonstration and what followed it came to.
pub(crate) struct Demo {
    /// The first run, in JSON.
    first: Finished,
    /// The project's files after it.
    pub(crate) files: Files,
    /// What the calculator answers.
    answer: String,
    /// The second run, for people.
    second: Finished,
    /// The project's files after that.
    files_in_the_end: Files,
    /// A run in another folder that may use the test results of the first.
    other: Finished,
}

/// The one demonstration that all tests look at.
pub(crate) fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    // Where the first attempt panics, the others shall not try it again.
    static TRIED: Mutex<()> = Mutex::new(());
    let _one = TRIED.lock().expect("the demonstration failed; another test says how");
    DEMO.get_or_init(run)
}

fn run() -> Demo {
    let folder = Folder::empty();
    let results = folder.path("results");
    let shared = format!("cache.directory={}", results.display());
    let start = |dir: &str, more: &[&str]| {
        let args = ["demo", "--dir", dir, "--metrics-port", "0", "--pace", "0", "--set", &shared];
        folder.greenwave(args.into_iter().chain(more.iter().copied())).bound(COMPILING_BOUND).run()
    };
    let first = start("demo", &["--format", "json"]).with_code(0);
    let files = folder.files("demo/project");
    let answer = calculate(&folder, "1 + 2 * 3\n");
    let second = start("demo", &[]);
    let files_in_the_end = folder.files("demo/project");
    let other = start("other", &[]);
    Demo { first, files, answer, second, files_in_the_end, other }
}

/// Asks the calculator that the agents have written.
fn calculate(folder: &Folder, line: &str) -> String {
    folder.write("question", line);
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--offline", "-p", "calc"]);
    let program = Program::of(cargo).within(&folder.path("demo/project")).bound(COMPILING_BOUND);
    let question = std::fs::File::open(folder.path("question")).unwrap();
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
fn the_first_lines_say_what_is_run() {
    let events = demo().first.events();
    assert_eq!(events[0]["event"], "settings");
    assert_eq!(events[0]["profile"], "development");
    assert!(events[0]["metrics"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert_eq!(events[1]["event"], "started");
    assert_eq!((&events[1]["plan"], &events[1]["features"]), (&"calculator".into(), &10.into()));
    assert_eq!(events[1]["agent_kinds"], Value::from(vec!["scripted"]));
}

/// Red is seen before yellow, yellow before green, and the failure of the one refused attempt is told.
#[test]
fn every_feature_is_seen_to_fail_first() {
    let events = demo().first.events();
    for feature in FEATURES {
        let own: Vec<&Value> = events.iter().filter(|event| event["feature"] == feature).collect();
        let at = |wanted: &dyn Fn(&Value) -> bool| {
            own.iter().position(|event| wanted(event)).unwrap_or_else(|| panic!("{feature}: {own:?}"))
        };
        let phase = |light: &'static str| {
            at(&move |event: &Value| event["event"] == "phase" && event["phase"] == light)
        };
        let seen_red = at(&|event| event["event"] == "tests" && event["phase"] == "red");
        assert_ne!(own[seen_red]["status"], "passed", "{feature}");
        let file = at(&|event| event["event"] == "file");
        let passed = at(&|event| {
            event["event"] == "tests" && event["phase"] == "yellow" && event["status"] == "passed"
        });
        assert!(own[passed]["passed"].as_u64().unwrap() > 0 && own[passed]["failed"] == 0);
        let merged = at(&|event| event["event"] == "merged");
        let order = [phase("red"), seen_red, phase("yellow"), file, passed, merged, phase("green")];
        assert!(order.is_sorted(), "{feature}: {order:?}");
    }
    let refused: Vec<_> = named(&events, "refused").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["feature"], "simplify");
    let reason = refused[0]["reason"].as_str().unwrap();
    assert_eq!(reason, "test `simplify` failed with exit code 101 (1 of 5 tests)");
}

#[test]
fn an_answer_may_have_several_files() {
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
fn features_go_side_by_side() {
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
    // And nobody begins before what it depends on is green.
    for (feature, before) in [("parser", "lexer"), ("eval", "functions"), ("derive", "ast"), ("calc", "eval")]
    {
        assert!(at(before, "green") < at(feature, "red"), "{feature} and {before}");
    }
}

#[test]
fn the_calculator_calculates() {
    assert_eq!(demo().answer.trim(), "7");
}

#[test]
fn nothing_but_the_answers_is_left_in_the_project() {
    let strange: Vec<_> = demo()
        .files
        .keys()
        .filter(|path| !path.starts_with("crates/"))
        .filter(|path| ![".gitignore", "Cargo.toml", "Cargo.lock"].contains(&path.as_str()))
        .collect();
    assert_eq!(strange, Vec::<&String>::new());
    assert!(demo().files.keys().all(|path| !path.contains(".greenwave")));
}

#[test]
fn the_second_run_asks_nobody_and_tests_nothing() {
    let second = &demo().second;
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    assert!(second.stdout.contains("No agent was asked, no test was run, 10 results were known"));
    assert_eq!(demo().files, demo().files_in_the_end);
    shown::check("second_run", &second.stdout);
}

/// In which order features are told differs from run to run; what is told of each does not, but for the tests
/// of others that it meets when it is merged.
#[test]
fn the_first_run_is_told_feature_by_feature() {
    let other = &demo().other;
    assert_eq!(other.status.code(), Some(0), "{other:?}");
    let (told, table) = other.stdout.split_once("\n\n").expect("a blank line stands before the table");
    let mut by_feature = BTreeMap::<&str, Vec<&str>>::new();
    for line in told.lines().filter(|line| line.starts_with("  ")) {
        let (feature, rest) = line.trim_start().split_once(' ').unwrap();
        let is_of_another = rest.trim_start().starts_with("tests") && rest.contains(": ");
        if is_of_another {
            continue;
        }
        let lines = by_feature.entry(feature).or_default();
        // What was tested for the attempt may be tested once more for the merge.
        let without_time = |line: &str| line.rsplit_once('(').map(|(text, _)| text.to_owned());
        if lines
            .last()
            .is_none_or(|last| without_time(last).is_none() || without_time(last) != without_time(line))
        {
            lines.push(line);
        }
    }
    let told: Vec<&str> = by_feature.into_values().flatten().collect();
    shown::check_first_run("first_run", &format!("{}\n\n{table}", told.join("\n")));
}

/// Test results of one project are known in its copy.
#[test]
fn results_are_shared_between_copies_of_a_project() {
    let known = demo().other.stdout.lines().filter(|line| line.ends_with("passed (known)")).count();
    assert!(known >= FEATURES.len(), "{}", demo().other.stdout);
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let folder = Folder::empty().with("mine/notes.txt", "mine\n");
    let finished = folder.greenwave(["demo", "--dir", "mine", "--no-metrics"]).run().with_code(2);
    assert_eq!(folder.files(""), [("mine/notes.txt".to_owned(), "mine\n".to_owned())].into());
    assert_snapshot!(finished.stderr, @r"
    error: mine has files in it that are no demo
    hint: name another place
    ");
}
