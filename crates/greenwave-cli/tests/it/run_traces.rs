//! `greenwave run --trace`: the file that Perfetto opens.

use rustix::process::Signal;
use serde_json::Value;

use crate::program::Program;
use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::TestDir;

fn dir(features: &[ShellFeature]) -> TestDir {
    TestDir::with_project().with("plan.toml", shell_plan::plan(features))
}

fn traced(dir: &TestDir) -> Program {
    dir.greenwave(["run", "plan.toml", "--format", "json", "--no-metrics", "--trace", "trace.json"])
}

/// Returns names and tracks of the slices, in the order of the file.
fn slices(trace: &[Value], group: &str) -> Vec<(String, String)> {
    let named = |kind: &str, event: &Value| {
        let is_name = |it: &&Value| {
            it["name"] == kind
                && it["pid"] == event["pid"]
                && (kind == "process_name" || it["tid"] == event["tid"])
        };
        trace.iter().find(is_name).unwrap()["args"]["name"].as_str().unwrap().to_owned()
    };
    let slices = trace.iter().filter(|event| event["ph"] == "X" && named("process_name", event) == group);
    slices.map(|event| (named("thread_name", event), event["name"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_trace_has_phases_tests_and_refusals() {
    let first = ShellFeature::new("first", "answer first.txt 1", "test -f first.txt");
    let second =
        ShellFeature::new("second", "answer x.txt 1", "test -f second.txt").after("first").attempts(2);
    let dir = dir(&[first, second]);
    traced(&dir).run().with_code(1);
    let trace: Vec<Value> = serde_json::from_str(&dir.read("trace.json")).unwrap();
    let phases: Vec<_> = slices(&trace, "features");
    let of = |feature: &str| -> Vec<&str> {
        phases.iter().filter(|(track, _)| track == feature).map(|(_, name)| name.as_str()).collect()
    };
    assert_eq!(of("first"), ["red", "yellow 1", "merging 1", "green 1"]);
    assert_eq!(of("second"), ["red", "yellow 1", "yellow 2"]);
    assert!(slices(&trace, "tests").iter().any(|(track, test)| track == "worker 1" && test == "first"));
    let refused: Vec<&Value> = trace.iter().filter(|event| event["name"] == "refused").collect();
    assert_eq!(refused.len(), 2);
}

#[test]
fn a_stopped_run_leaves_a_whole_trace() {
    let dir = dir(&[ShellFeature::new("one", "exec sleep 50", "test -f one.txt")]);
    let mut running = traced(&dir).start();
    running.read_until(r#""event":"phase","feature":"one","phase":"yellow""#);
    running.signal(Signal::INT);
    running.finish().with_code(130);
    let trace: Vec<Value> = serde_json::from_str(&dir.read("trace.json")).unwrap();
    assert!(slices(&trace, "features").contains(&("one".to_owned(), "yellow 1".to_owned())));
}

#[test]
fn a_trace_that_cannot_be_written_is_an_error_before_the_run() {
    let dir = dir(&[ShellFeature::new("one", "answer one.txt 1", "test -f one.txt")]);
    std::fs::create_dir(dir.path("trace.json")).unwrap();
    let failed = traced(&dir).run().with_code(2);
    assert!(failed.stderr.contains("cannot write trace trace.json"), "{}", failed.stderr);
    assert!(!failed.stdout.contains("started"), "{}", failed.stdout);
}
