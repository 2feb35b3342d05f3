//! Files that git ignores and that tests need.

use crate::program::Finished;
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

fn dir(feature: ShellFeature) -> TestDir {
    TestDir::with_project()
        .with("plan.toml", shell_plan::plan(&[feature]))
        .with("project/.ignore", ".env\ngen/\nprivate.key\n")
        .with("project/.env", "KEY=1\n")
        .with("project/gen/schema.txt", "schema\n")
        .with("project/private.key", "secret\n")
}

fn notes(finished: &Finished) -> Vec<String> {
    let events = finished.events();
    let notes = events.iter().filter(|event| event["code"] == "ignored-file-needed");
    notes.map(|event| format!("{}; {}", event["message"], event["hint"])).collect()
}

#[test]
fn ignored_files_that_a_test_misses_before_the_agent_is_asked_are_copied() {
    let test = "cat gen/schema.txt && cat .env && test -f one.txt";
    let dir = dir(ShellFeature::new(
        "one",
        "test ! -e private.key && test -e gen/schema.txt && test ! -e .env && answer one.txt x",
        test,
    ));
    let finished = dir.run_plan().with_code(0);
    assert_eq!(Report::of(&finished).requests(), 1);
    let notes = notes(&finished);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("needs `gen/schema.txt`, which git ignores: copied"), "{notes:?}");
    assert!(notes[1].contains("[\\\".env\\\"] to `include`"), "{notes:?}");
    assert!(notes[1].contains("copied for tests, not for agents"), "{notes:?}");
}

/// The code of the agent could name any file.
#[test]
fn ignored_files_that_the_code_of_an_agent_names_are_only_reported() {
    let script = "if test -e private.key; then answer stolen.txt x; else answer one.txt x; fi";
    let dir = dir(ShellFeature::new("one", script, "test -f one.txt && cat private.key").attempts(2));
    let finished = dir.run_plan().with_code(1);
    assert!(!dir.path("project/stolen.txt").exists());
    let notes = notes(&finished);
    assert!(notes[0].contains("needs `private.key`, which git ignores and working copies lack"), "{notes:?}");
}
