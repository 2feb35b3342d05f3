//! The output of `greenwave test` and `greenwave cache` for people, as snapshots.

use std::fs;

use rustix::process::Signal;

use crate::program::{Finished, Program, until};
use crate::snapshots::check;
use crate::test_dir::TestDir;

/// Tests with a result of each kind, apart from timeouts and flaky passes.
const TESTS: &str = r#"
[[test]]
name = "broken"
command = ["no-such-program"]

[[test]]
name = "fails"
command = "echo 'expected 1, found 2'; exit 3"
inputs = ["/in.txt"]

[[test]]
name = "passes"
command = "grep -q 1 in.txt"
inputs = ["/in.txt"]

[[test]]
name = "writes its input"
command = "echo 2 >> out.txt"
inputs = ["/out.txt", "/missing/**"]
"#;

fn project(tests: &str) -> TestDir {
    TestDir::empty().with("p/greenwave.toml", tests).with("p/in.txt", "1\n").with("p/out.txt", "1\n")
}

fn greenwave<'a>(dir: &TestDir, args: impl IntoIterator<Item = &'a str>) -> Program {
    Program::new(args).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache"))
}

/// Runs the tests one by one, in the order of the file.
fn test(dir: &TestDir, args: &[&str]) -> Finished {
    let serial = ["test", "--jobs", "1", "--set", "testing.follow_load=false"];
    greenwave(dir, serial.into_iter().chain(args.iter().copied())).run()
}

/// The output of both streams, with the lines of tests sorted, since tests run in any order.
fn output(finished: &Finished) -> String {
    let is_test = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let mut lines: Vec<&str> = finished.stdout.lines().filter(|line| !line.is_empty()).collect();
    let first = lines.iter().position(is_test).unwrap_or(lines.len());
    let end = lines.iter().rposition(is_test).map_or(first, |last| last + 1);
    // A remark or an output belongs to the line of its test.
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    for line in lines.drain(first..end) {
        match blocks.last_mut() {
            Some(block) if !is_test(&line) => block.push(line),
            _ => blocks.push(vec![line]),
        }
    }
    blocks.sort();
    lines.splice(first..first, blocks.concat());
    lines.join("\n") + "\n" + &finished.stderr
}

#[test]
fn a_run_prints_results_remarks_and_a_closing_line() {
    let dir = project(TESTS);
    check("test_first_run", &output(&test(&dir, &[]).with_code(1)));
    check("test_verbose", &output(&test(&dir, &["--verbose", "passes"]).with_code(0)));
    check(
        "test_output_all",
        &output(&test(&dir, &["--output", "all", "--keep-failures", "fails"]).with_code(1)),
    );
    check("test_output_none", &output(&test(&dir, &["--output", "none", "fails"]).with_code(1)));
    check("test_dry_run", &output(&test(&dir, &["--dry-run"]).with_code(0)));
    check(
        "test_fail_fast",
        &output(&test(&dir, &["--fail-fast", "--no-cache", "fails", "passes"]).with_code(1)),
    );
}

#[test]
fn an_unchanged_project_prints_only_the_closing_line() {
    let dir = project("[[test]]\nname = \"t\"\ncommand = \"grep -q 1 in.txt\"\ninputs = [\"/in.txt\"]\n");
    test(&dir, &[]).with_code(0);
    check("test_second_run", &test(&dir, &[]).with_code(0).stdout);
}

#[test]
fn explain_prints_why_a_result_is_cached_or_what_has_changed() {
    let dir = project(TESTS);
    let explain = |name: &str| test(&dir, &["--explain", name]).with_code(0).stdout;
    check("test_explain_never_run", &explain("passes"));
    test(&dir, &[]).with_code(1);
    check("test_explain_cached", &explain("passes"));
    check("test_explain_failed", &explain("fails"));
    check("test_explain_not_cached", &explain("writes"));
    dir.write("p/in.txt", "1 2\n");
    check("test_explain_changed", &explain("passes"));
    greenwave(&dir, ["cache", "clear"]).run().with_code(0);
    dir.write("p/in.txt", "1\n");
    check("test_explain_removed", &explain("passes"));
    check("test_explain_ambiguous", &test(&dir, &["--explain", "s"]).with_code(2).stderr);
}

#[test]
fn special_results_have_words_and_reasons() {
    let tests = r#"
[[test]]
name = "flaky"
retries = 1
inputs = ["/in.txt"]
command = "test -e ../second || { touch ../second; exit 1; }"

[[test]]
name = "leaves a process"
inputs = ["/in.txt"]
command = "setsid sleep 3 >/dev/null 2>&1 & sleep 0.3"

[[test]]
name = "slow"
timeout = "200ms"
inputs = ["/in.txt"]
command = "sleep 600"

[[test]]
name = "killed"
inputs = ["/in.txt"]
command = "kill -9 $$"
"#;
    check("test_special_results", &output(&test(&project(tests), &[]).with_code(1)));
}

#[test]
fn equal_tests_are_deduplicated() {
    let test_of = |name: &str| {
        format!("[[test]]\nname = \"{name}\"\ncommand = \"sleep 0.1\"\ninputs = [\"/in.txt\"]\n")
    };
    let dir = project(&(test_of("one") + &test_of("other")));
    // Which of the two runs is up to chance.
    let stdout = test(&dir, &[]).with_code(0).stdout;
    let stdout = stdout.replace("same as one", "same as [OTHER]").replace("same as other", "same as [OTHER]");
    let mut lines: Vec<String> =
        stdout.lines().map(|line| line.replace("pass     other", "pass     one  ")).collect();
    lines[1..3].sort();
    check("test_deduplicated", &lines.join("\n"));
}

#[test]
fn commands_without_tests_to_run_say_so() {
    let dir = project(TESTS);
    let git = |args: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.arg("-C").arg(dir.path("p")).args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(args);
        assert!(git.output().unwrap().status.success());
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "x"]);
    check("test_affected_none", &test(&dir, &["--affected", "HEAD", "passes"]).with_code(0).stdout);
    check("test_no_such_test", &test(&dir, &["nothing", "never"]).with_code(2).stderr);
    check("test_unknown_commit", &test(&dir, &["--affected", "nonsense"]).with_code(2).stderr);
    check("test_no_tests", &test(&project(""), &[]).with_code(2).stderr);
    let outside = test(&dir, &["--junit", "missing/report.xml"]).with_code(2).stderr;
    check("test_report_error", &outside);
    let package = project("").with("p/package.json", r#"{"name": "web", "scripts": {"test": "true"}}"#);
    fs::remove_file(package.path("p/greenwave.toml")).unwrap();
    check("test_init", &test(&package, &["--init"]).with_code(0).stdout);
    check("test_init_exists", &test(&package, &["--init"]).with_code(2).stderr);
}

#[test]
fn watch_prints_each_round_and_waits() {
    let dir = project("[[test]]\nname = \"t\"\ncommand = \"grep -q 1 in.txt\"\ninputs = [\"/in.txt\"]\n");
    let mut running = greenwave(&dir, ["test", "--watch"]).start();
    running.read_until("Waiting for changes");
    dir.write("p/in.txt", "2\n");
    running.read_until("Waiting for changes");
    running.signal(Signal::INT);
    check("test_watch", &running.finish().with_code(130).stdout);
}

#[test]
fn watch_ends_at_each_signal() {
    for (signal, code) in [(Signal::HUP, 129), (Signal::INT, 130), (Signal::TERM, 143)] {
        let dir = project("[[test]]\nname = \"t\"\ncommand = \"true\"\ninputs = [\"/in.txt\"]\n");
        let mut running = greenwave(&dir, ["test", "--watch"]).start();
        running.read_until("Waiting for changes");
        running.signal(signal);
        running.finish().with_code(code);
    }
}

#[test]
fn a_stopped_run_says_what_is_cached() {
    let dir = project("[[test]]\nname = \"long\"\ncommand = \"echo > ../started; sleep 600\"\n");
    let running = greenwave(&dir, ["test"]).start();
    until("the test runs", || dir.path("started").exists());
    running.signal(Signal::INT);
    check("test_stopped", &running.finish().with_code(130).stdout);
}

#[test]
fn the_cache_commands_print_one_line() {
    let dir = project("[[test]]\nname = \"t\"\ncommand = \"grep -q 1 in.txt\"\ninputs = [\"/in.txt\"]\n");
    test(&dir, &[]).with_code(0);
    let print = |command: &str| greenwave(&dir, ["cache", command]).run().with_code(0).stdout;
    let lines = ["stats", "warm", "verify", "clear", "warm", "stats"].map(print);
    check("cache_commands", &lines.concat());
}

#[test]
fn an_unusable_cache_is_a_warning_for_runs_and_an_error_for_cache_commands() {
    let dir =
        project("[[test]]\nname = \"t\"\ncommand = \"true\"\ninputs = [\"/in.txt\"]\n").with("cache", "");
    check("cache_warning", &test(&dir, &[]).with_code(0).stderr);
    check("cache_error", &greenwave(&dir, ["cache", "stats"]).run().with_code(2).stderr);
    let nowhere = Program::new(["cache", "stats"]).within(&dir.path("p")).variable("HOME", "");
    check("cache_no_directory", &nowhere.run().with_code(2).stderr);
}
