//! Traces of `greenwave test`: the file that Perfetto opens, and spans for a collector of
//! OpenTelemetry.

use serde_json::Value;

use crate::clock::{Clocked, HOUR};
use crate::otel::{attribute, collector, is_error, received};
use crate::program::{COMPILING_BOUND, Finished};
use crate::test_dir::TestDir;

/// A package with a library that passes its tests, and a test file that fails one of two.
fn dir() -> TestDir {
    TestDir::empty()
        .with(
            "p/Cargo.toml",
            "[package]\nname = \"p\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[lib]\ndoctest = false\n",
        )
        .with("p/src/lib.rs", "#[test]\nfn right() {}\n")
        .with("p/tests/t.rs", "#[test]\nfn good() {}\n#[test]\nfn bad() { assert_eq!(1, 2); }\n")
}

fn test(dir: &TestDir, arguments: &[&str], collector: &str) -> Finished {
    let arguments = ["test", "--project", "p"].iter().chain(arguments).copied();
    let program = dir.greenwave(arguments).variable("XDG_CACHE_HOME", dir.path("cache"));
    program.variable("OTEL_EXPORTER_OTLP_ENDPOINT", collector).bound(COMPILING_BOUND).run()
}

fn trace(dir: &TestDir, arguments: &[&str]) -> Vec<Value> {
    let file = dir.path("trace.json");
    test(dir, &[&["--trace", file.to_str().unwrap()], arguments].concat(), "");
    serde_json::from_str(&dir.read("trace.json")).unwrap()
}

/// Returns the names of events of a kind in a group.
fn named<'a>(trace: &'a [Value], kind: &str, group: u64) -> Vec<&'a str> {
    let found = trace.iter().filter(|event| event["ph"] == kind && event["pid"] == group);
    found.map(|event| event["name"].as_str().unwrap()).collect()
}

#[test]
fn a_trace_has_the_steps_of_a_run_and_its_tests() {
    let dir = dir();
    let first = trace(&dir, &[]);
    assert_eq!(named(&first, "X", 1), ["discover", "look up", "build ."]);
    let mut tests = named(&first, "X", 2);
    tests.sort_unstable();
    assert_eq!(tests.len(), 2, "{first:#?}");
    let failed = first.iter().find(|event| event["args"]["status"] == "failed with exit code 101").unwrap();
    assert_eq!(failed["args"]["passed"], false);
    assert_eq!((&failed["args"]["cached"], &failed["args"]["cases"]), (&false.into(), &2.into()));
    let lookup = |trace: &[Value]| -> (u64, u64) {
        let lookup = trace.iter().find(|event| event["name"] == "look up").unwrap();
        let number = |key: &str| lookup["args"][key].as_u64().unwrap();
        (number("cached"), number("to_run"))
    };
    assert_eq!(lookup(&first), (0, 2));
    // The second run has a cached result, and needs a build to know that.
    let second = trace(&dir, &[]);
    assert_eq!(lookup(&second), (1, 1));
    assert_eq!(named(&second, "i", 1).len(), 1, "{second:#?}");
    assert_eq!(named(&second, "X", 2).len(), 1);
    let mut steps = named(&second, "X", 1);
    steps.sort_unstable();
    assert_eq!(steps, ["build .", "discover", "look up"]);
}

#[test]
fn a_trace_file_that_cannot_be_written_is_an_error_before_anything_runs() {
    let dir = dir();
    let finished = test(&dir, &["--trace", "/proc/none/trace.json"], "");
    assert!(finished.stderr.contains("/proc/none/trace.json"), "{}", finished.describe());
    assert!(!dir.path("p/target").exists());
}

#[test]
fn a_real_collector_receives_the_spans_and_metrics_of_tests() {
    let Some((mut collector, url)) = collector() else { return };
    let dir = dir();
    test(&dir, &[], &url).with_code(1);
    let (spans, mut metrics) = received(&mut collector);
    let named = |name: &str| {
        let found: Vec<&Value> = spans.iter().filter(|span| span["name"] == name).collect();
        assert_eq!(found.len(), 1, "spans {name}: {spans:#?}");
        found[0]
    };
    let run = named("run");
    assert!(spans.iter().all(|span| span["traceId"] == run["traceId"]), "{spans:#?}");
    for step in ["discover", "look up", "build ."] {
        assert_eq!(named(step)["parentSpanId"], run["spanId"], "{step}");
    }
    let tests: Vec<&Value> =
        spans.iter().filter(|span| span["name"].as_str().unwrap().starts_with("test ")).collect();
    assert_eq!(tests.len(), 2, "{spans:#?}");
    let (failed, passed): (Vec<&Value>, Vec<&Value>) = tests.into_iter().partition(|span| is_error(span));
    assert_eq!(attribute(passed[0], "test.case.result.status"), Some("pass".into()));
    assert_eq!(attribute(failed[0], "test.case.result.status"), Some("fail".into()));
    assert_eq!(attribute(failed[0], "greenwave.cached"), Some(false.into()));
    let case = &failed[0]["events"][0];
    assert_eq!((&case["name"], attribute(case, "test.case.name")), (&"case".into(), Some("bad".into())));
    assert!(is_error(run));
    while !metrics.iter().any(|line| line.contains("greenwave.build.duration")) {
        metrics.push(collector.line().expect("the collector runs"));
    }
    // The result of the library is cached, and found after a build.
    test(&dir, &[], &url).with_code(1);
    let (spans, _) = received(&mut collector);
    let cached = spans.iter().find(|span| attribute(span, "greenwave.cached") == Some(true.into()));
    assert!(cached.is_some_and(|span| !is_error(span)), "{spans:#?}");
    assert_eq!(spans.iter().filter(|span| span["name"] == "build .").count(), 1, "{spans:#?}");
}

fn up_to_date_project() -> TestDir {
    TestDir::empty()
        .with("p/a.txt", "")
        .with("p/greenwave.toml", "[[test]]\nname = \"a\"\ncommand = [\"true\"]\ninputs = [\"a.txt\"]\n")
}

#[test]
fn a_collector_receives_the_run_that_an_up_to_date_record_answers() {
    let Some((mut collector, url)) = collector() else { return };
    // Files that were just written are not racy for a clock that is ahead.
    let Some(clocked) = Clocked::of(up_to_date_project()) else { return };
    clocked.set(HOUR);
    let summary = |spans: &[Value]| {
        let run = spans.iter().find(|span| span["name"] == "run").unwrap();
        let number = |key: &str| attribute(run, key).unwrap().to_string().replace('"', "");
        (spans.len(), number("greenwave.tests.selected"), number("greenwave.tests.cached"))
    };
    let mut summaries = Vec::new();
    // The third run needs neither discovery nor lookup.
    for _ in 0..3 {
        let program = clocked.greenwave(["test"]).variable("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
        let finished = program.run().with_code(0);
        assert!(!finished.stderr.contains("telemetry"), "{}", finished.describe());
        summaries.push(summary(&received(&mut collector).0));
    }
    let expected = [(4, "0"), (4, "1"), (1, "1")];
    let expected = expected.map(|(spans, cached)| (spans, "1".to_owned(), cached.to_owned()));
    assert_eq!(summaries, expected);
}
