//! Processes that tests of a run leave behind.

use std::fs;

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// Returns whether a process with this argument runs.
fn is_running(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().any(|process| {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|found| found == argument.as_bytes())
    })
}

/// A test ends with its process. The processes that it leaves are killed, and named once.
#[test]
fn processes_that_a_test_leaves_are_killed_and_named() {
    let mark = format!("31234.{}", std::process::id());
    let dir = TestDir::with_project();
    let test = |file: &str| format!("(setsid sleep {mark} &); sleep {mark} & test -f {file}");
    let one = ShellFeature::new("one", "echo x > one.txt", &test("one.txt"));
    let two = ShellFeature::new("two", "echo x > two.txt", &test("two.txt")).after("one");
    dir.write("plan.toml", shell_plan::plan(&[one, two]));
    let finished = dir.run_plan().with_code(0);
    let notes = Report::of(&finished).notes("left-processes").join("\n");
    assert_eq!(notes.matches("left processes running, which were killed: sleep").count(), 2, "{finished:?}");
    assert!(notes.contains("test `one`") && notes.contains("test `two`"), "{notes}");
    assert!(!is_running(&mark));
}

/// So are those of a test that fails, here the red test of a feature that is never green.
#[test]
fn processes_that_a_failing_test_leaves_are_killed_and_named() {
    let mark = format!("31235.{}", std::process::id());
    let dir = TestDir::with_project();
    let test = format!("(setsid sleep {mark} &); test -f none.txt");
    dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", "echo x > one.txt", &test)]));
    let finished = dir.run_plan().with_code(1);
    let notes = Report::of(&finished).notes("left-processes").join("\n");
    assert_eq!(notes.matches("left processes running, which were killed: sleep").count(), 1, "{finished:?}");
    assert!(!is_running(&mark));
}
