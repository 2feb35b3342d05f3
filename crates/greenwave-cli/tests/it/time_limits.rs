//! `greenwave test` after the time limit of a test, or the number of its retries, has changed.

use crate::program::{Finished, Program, until};
use crate::test_dir::TestDir;

/// A test that takes a second, unless the file `fast` exists. Without `inputs`, its complete trace
/// decides what its result depends on.
fn declare(dir: &TestDir, limit: &str, inputs: &str) {
    dir.write(
        "p/greenwave.toml",
        format!("[[test]]\nname = \"t\"\ncommand = [\"sh\", \"test.sh\"]\ntimeout = \"{limit}\"\n{inputs}"),
    );
}

fn project() -> TestDir {
    TestDir::empty().with("p/test.sh", "sleep 1\n").with("p/.git/HEAD", "ref: refs/heads/main\n")
}

fn run(dir: &TestDir, more: &[&str]) -> Finished {
    let program = Program::new(["test", "--format", "json"].iter().chain(more)).within(&dir.path("p"));
    program.variable("XDG_CACHE_HOME", dir.path("cache")).run()
}

/// Returns status and origin of each test, by name.
fn verdicts(finished: &Finished) -> Vec<(String, bool)> {
    let tests = finished.report().into_iter().filter(|line| line["event"] == "test");
    tests.map(|test| (test["status"].as_str().unwrap().to_owned(), test["cached"] == true)).collect()
}

#[track_caller]
fn check(dir: &TestDir, more: &[&str], status: &str, is_cached: bool) {
    assert_eq!(verdicts(&run(dir, more)), [(status.to_owned(), is_cached)]);
}

/// Runs the test until its result is cached.
#[track_caller]
fn cache(dir: &TestDir, more: &[&str], status: &str) {
    until("the result is cached", || {
        let found = verdicts(&run(dir, more));
        assert_eq!(found[0].0, status);
        found[0].1
    });
}

#[test]
fn a_pass_that_took_longer_than_a_lowered_limit_is_not_used() {
    for inputs in ["inputs = [\"test.sh\"]\n", ""] {
        let dir = project();
        declare(&dir, "60s", inputs);
        cache(&dir, &[], "passed");
        declare(&dir, "500ms", inputs);
        check(&dir, &[], "timed_out", false);
        check(&dir, &[], "timed_out", false);
        declare(&dir, "50s", inputs);
        cache(&dir, &[], "passed");
    }
}

#[test]
fn a_slow_result_is_replaced_by_that_of_a_faster_run() {
    let dir = project();
    // The state of the counter is no dependency.
    dir.write("p/test.sh", "echo x >> count; if [ $(wc -l < count) = 1 ]; then sleep 1; fi\n");
    let inputs = "inputs = [\"test.sh\"]\noutputs = [\"count\"]\n";
    declare(&dir, "60s", inputs);
    check(&dir, &[], "passed", false);
    declare(&dir, "900ms", inputs);
    check(&dir, &[], "passed", false);
    check(&dir, &[], "passed", true);
}

#[test]
fn a_timeout_is_not_used_after_the_limit_was_raised() {
    let dir = project();
    let (keep, inputs) = (["--keep-failures"], "inputs = [\"test.sh\"]\n");
    declare(&dir, "500ms", inputs);
    check(&dir, &keep, "timed_out", false);
    check(&dir, &keep, "timed_out", true);
    declare(&dir, "400ms", inputs);
    check(&dir, &keep, "timed_out", true);
    declare(&dir, "60s", inputs);
    check(&dir, &keep, "passed", false);
}

#[test]
fn equal_tests_with_different_limits_have_their_own_verdicts() {
    let dir = project();
    let test = |name: &str, limit: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\ncommand = [\"sh\", \"test.sh\"]\ninputs = [\"test.sh\"]\n\
             timeout = \"{limit}\"\n"
        )
    };
    dir.write("p/greenwave.toml", test("long", "60s") + &test("short", "500ms"));
    for _ in 0..2 {
        let report = run(&dir, &[]).with_code(1).report();
        let status = |name: &str| {
            let test = report.iter().find(|line| line["event"] == "test" && line["name"] == name);
            test.unwrap()["status"].as_str().unwrap().to_owned()
        };
        assert_eq!([status("long"), status("short")], ["passed", "timed_out"]);
    }
}

#[test]
fn a_failure_is_not_used_after_retries_were_added() {
    let (dir, keep) = (project(), ["--keep-failures"]);
    let with_retries = |retries: u32| {
        declare(
            &dir,
            "60s",
            &format!("inputs = [\"test.sh\"]\noutputs = [\"count\"]\nretries = {retries}\n"),
        );
    };
    // The state of the counter is no dependency.
    dir.write("p/test.sh", "echo x >> count; [ $(wc -l < count) = 4 ]\n");
    with_retries(0);
    check(&dir, &keep, "failed", false);
    check(&dir, &keep, "failed", true);
    with_retries(1);
    check(&dir, &keep, "failed", false);
    check(&dir, &keep, "failed", true);
    with_retries(0);
    check(&dir, &keep, "failed", true);
    with_retries(2);
    check(&dir, &keep, "passed", false);
}
