//! Flaky tests and tests in quarantine.

use crate::program::{Finished, Program};
use crate::test_dir::TestDir;

/// Fails at every first of two calls.
const FLAKY: &str = "test -e ../second && rm ../second || { touch ../second; exit 1; }";

fn project(settings: &str, script: &str) -> TestDir {
    let test = format!("[[test]]\nname = \"t\"\ninputs = [\"/in\"]\ncommand = \"{script}\"\n");
    TestDir::empty().with("p/greenwave.toml", format!("{settings}\n{test}")).with("p/in", "")
}

fn greenwave(dir: &TestDir, args: &[&str]) -> Program {
    let args = ["test"].into_iter().chain(args.iter().copied());
    dir.greenwave(args).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache"))
}

fn contains(finished: &Finished, text: &str) {
    assert!(finished.stdout.contains(text), "lacks {text:?}:\n{}{}", finished.stdout, finished.stderr);
}

#[test]
fn flaky_tests_are_listed_and_may_fail_the_run() {
    let dir = project("[testing]\nretries = 1", FLAKY);
    let finished = greenwave(&dir, &[]).run().with_code(0);
    contains(&finished, "\nFlaky: t\n1 test: 1 passed, 1 flaky in ");
    let finished = greenwave(&dir, &["--set", "testing.flaky=fail"]).run().with_code(1);
    contains(&finished, "Flaky: t");
    let finished = greenwave(&dir, &["--set", "testing.flaky=fail", "--format", "json"]).run().with_code(1);
    contains(&finished, "\"success\":false,\"passed\":1");
    let finished = greenwave(&dir, &["--set", "testing.flaky=maybe"]).run().with_code(2);
    let message = "invalid value `\"maybe\"` for `testing.flaky`: expected \"pass\" or \"fail\"";
    assert!(finished.stderr.contains(message), "{}", finished.stderr);
}

#[test]
fn the_number_of_retries_of_a_test_counts_more() {
    let dir = project("[testing]\nretries = 1", FLAKY);
    dir.write("p/greenwave.toml", dir.read("p/greenwave.toml") + "retries = 0\n");
    greenwave(&dir, &[]).run().with_code(1);
}

#[test]
fn discovered_tests_are_retried() {
    let dir = TestDir::empty().with("p/package.json", format!("{{\"scripts\": {{\"test\": \"{FLAKY}\"}}}}"));
    contains(&greenwave(&dir, &["--set", "testing.retries=1"]).run().with_code(0), "1 flaky");
}

#[test]
fn a_failure_in_quarantine_does_not_fail_the_run() {
    let quarantine = "[[quarantine]]\ntest = \"t*\"\nuntil = 2999-12-31\nreason = \"issue 7\"";
    let dir = project(quarantine, "exit 3");
    let report = dir.path("report.xml").display().to_string();
    let finished = greenwave(&dir, &["--junit", &report]).run().with_code(0);
    contains(&finished, "failed with exit code 3  in quarantine until 2999-12-31: issue 7");
    contains(&finished, "1 test: 1 failed in quarantine in ");
    let report = dir.read("report.xml");
    assert!(report.contains("skipped=\"1\" failures=\"0\""), "{report}");
    let finished = greenwave(&dir, &["--format", "json"]).run().with_code(0);
    contains(&finished, "\"quarantine\":\"in quarantine until 2999-12-31: issue 7\"");
    contains(&finished, "\"success\":true,\"passed\":0,\"failed\":0,\"quarantined\":1");
    // Other tests still fail the run.
    let other = "[[test]]\nname = \"other\"\ncommand = \"false\"\n";
    dir.write("p/greenwave.toml", dir.read("p/greenwave.toml") + other);
    contains(&greenwave(&dir, &[]).run().with_code(1), "2 tests: 1 failed, 1 failed in quarantine in ");
}

#[test]
fn a_quarantine_ends_and_may_match_nothing() {
    let quarantine = |test, until| format!("[[quarantine]]\ntest = \"{test}\"\nuntil = \"{until}\"");
    let dir = project(&quarantine("t", "2020-02-29"), "exit 3");
    let finished = greenwave(&dir, &[]).run().with_code(1);
    assert!(finished.stderr.contains("note: the quarantine of `t` has ended"), "{}", finished.stderr);
    let dir = project(&quarantine("u", "2999-01-01"), "exit 3");
    let finished = greenwave(&dir, &[]).run().with_code(1);
    assert!(finished.stderr.contains("note: no test has the name `u`"), "{}", finished.stderr);
    for (until, message) in [
        ("2999-02-30", "invalid value `2999-02-30` for `until`: expected a day like 2030-12-31"),
        ("soon", "expected a day like 2030-12-31"),
    ] {
        let finished = greenwave(&project(&quarantine("t", until), "true"), &[]).run().with_code(2);
        assert!(finished.stderr.contains(message), "{}", finished.stderr);
    }
}
