//! `greenwave test` on declared tests: caching, messages, flags.

mod environment;
mod failures;
mod interruptions;

use std::fs;
use std::process::Command;

use crate::program::{Finished, Program};
use crate::test_dir::TestDir;

/// Calls `greenwave test` in a project, with its own cache directory.
fn greenwave<'a>(dir: &TestDir, project: &str, args: impl IntoIterator<Item = &'a str>) -> Program {
    let args = ["test"].into_iter().chain(args);
    Program::new(args).within(&dir.path(project)).variable("XDG_CACHE_HOME", dir.path("cache"))
}

/// Returns the name of each test in the JSON output, whether it passed, and whether that was
/// cached.
pub(crate) fn verdicts(finished: &Finished) -> Vec<(String, bool, bool)> {
    let tests = finished.report().into_iter().filter(|line| line["event"] == "test");
    let mut verdicts: Vec<_> = tests
        .map(|test| {
            let name = test["name"].as_str().unwrap().to_owned();
            (name, test["status"] == "passed", test["cached"] == true)
        })
        .collect();
    verdicts.sort();
    verdicts
}

fn run(dir: &TestDir, project: &str) -> Vec<(String, bool, bool)> {
    verdicts(&greenwave(dir, project, ["--format", "json"]).run())
}

fn verdict(name: &str, passed: bool, cached: bool) -> (String, bool, bool) {
    (name.to_owned(), passed, cached)
}

/// Two tests with one input each.
const TWO: &str = r#"
[[test]]
name = "one"
command = "grep -q 1 one/in.txt"
inputs = ["/one/**"]

[[test]]
name = "two"
command = ["grep", "-q", "2", "two/in.txt"]
inputs = ["/two/**"]
"#;

fn two() -> TestDir {
    TestDir::empty().with("p/greenwave.toml", TWO).with("p/one/in.txt", "1").with("p/two/in.txt", "2")
}

#[test]
fn only_tests_that_a_change_affects_run_again() {
    let dir = two();
    assert_eq!(run(&dir, "p"), [verdict("one", true, false), verdict("two", true, false)]);
    assert_eq!(run(&dir, "p"), [verdict("one", true, true), verdict("two", true, true)]);
    dir.write("p/two/in.txt", "3");
    assert_eq!(run(&dir, "p"), [verdict("one", true, true), verdict("two", false, false)]);
    // Failures are not cached by default.
    assert_eq!(run(&dir, "p"), [verdict("one", true, true), verdict("two", false, false)]);
    for cached in [false, true] {
        let run = greenwave(&dir, "p", ["--format", "json", "--keep-failures"]).run().with_code(1);
        assert_eq!(verdicts(&run), [verdict("one", true, true), verdict("two", false, cached)]);
    }
    dir.write("p/two/in.txt", "2");
    assert_eq!(
        run(&dir, "p"),
        [verdict("one", true, true), verdict("two", true, true)],
        "the input is as it was"
    );
}

#[test]
fn errors_say_what_is_expected() {
    let check = |config: &str, args: &[&str], expected: &str| {
        let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/a", "");
        let finished = greenwave(&dir, "p", args.iter().copied()).run().with_code(2);
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
        assert!(!finished.stdout.contains("passed"), "{}", finished.stdout);
    };
    let test = |more: &str| format!("[[test]]\nname = \"t\"\ncommand = [\"true\"]\n{more}\n");
    check("", &[], "cannot find any tests");
    check("", &[], "or declare `[[test]]` in greenwave.toml");
    check(&test("inputs = [\"a[\"]"), &[], "invalid value `\"a[\"` for `inputs`: ");
    check(&test("input = [\"a\"]"), &[], "did you mean `inputs`?");
    check(&test("retries = -1"), &[], "invalid value `-1` for `retries`: expected a whole number from 0");
    check(
        &test("directory = \"/tmp\""),
        &[],
        "invalid value `\"/tmp\"` for `directory`: expected a path inside the project",
    );
    check(&test("needs = { gpu = 2 }"), &[], "invalid value `2` for `gpu` in test `t`: expected at most 1");
    check(&format!("{0}{0}", test("")), &[], "duplicate test name `t`");
    check(
        "[[test]]\nname = \"t\"\ncommand = []\n",
        &[],
        "invalid value `[]` for `command`: expected a program and its arguments",
    );
    check(
        "[[test]]\nname = \"t\"\ncommand = \" \"\n",
        &[],
        "invalid value `\" \"` for `command`: expected a program and its arguments",
    );
    check("[[test]]\nname = \"\"\ncommand = \"true\"\n", &[], "expected a non-empty name");
    check("[[test]]\ncommand = [\"true\"]\n", &[], "missing key `name` in [[test]]");
    check(&test(""), &["nothing"], "unknown test `nothing`: expected part of the name of one of `t`");
    check(&test(""), &["--remote", "ftp://x"], "an address like \"redis://host:6379\"");
    check(&test(""), &["--audit", "2"], "a number from 0 to 1");
    check(&test(""), &["--affected", "nonsense"], "cannot list changes since `nonsense`\n  caused by: ");
    check(&test(""), &["--watch", "--dry-run"], "cannot be used with");
    check(&test(""), &["--init", "t"], "cannot be used with");
    check(&test(""), &["--explain", "t", "t"], "cannot be used with");
    check(&test(""), &["--watch", "--affected", "HEAD"], "cannot be used with");
}

#[test]
fn a_commit_cannot_be_an_option_of_git() {
    let dir = two();
    let git = |args: &[&str]| {
        let done = Command::new("git").arg("-C").arg(dir.path("p")).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let affected = |commit: &str| {
        let flag = format!("--affected={commit}");
        greenwave(&dir, "p", [flag.as_str()]).run()
    };
    let outside = affected("main").with_code(2);
    assert_eq!(outside.stderr.lines().count(), 2, "git prints its help: {}", outside.stderr);
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first"]);
    let option = affected("--output=written").with_code(2);
    assert!(
        option.stderr.contains("since `--output=written`\n  caused by: no such commit"),
        "{}",
        option.stderr
    );
    assert!(!dir.path("p/written").exists());
    dir.write("p/one/in.txt", "1\n");
    let changed = affected("HEAD").with_code(0);
    assert!(
        changed.stdout.contains("  pass     one") && !changed.stdout.contains("  pass     two"),
        "{}",
        changed.stdout
    );
}

#[test]
fn a_missing_program_breaks_only_its_test() {
    let config = "[[test]]\nname = \"t\"\ncommand = [\"no-such-program\"]\n[[test]]\nname = \"u\"\ncommand = [\"true\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config);
    let finished = greenwave(&dir, "p", []).run().with_code(1);
    assert!(finished.stdout.contains("cannot find program `no-such-program`"), "{}", finished.stdout);
    assert!(finished.stdout.contains("2 tests: 1 passed, 1 broken"), "{}", finished.stdout);
}

#[test]
fn an_input_pattern_without_matches_has_a_note() {
    let config = "[[test]]\nname = \"t\"\ncommand = [\"true\"]\ninputs = [\"/in/*.txt\", \"/data/**\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in/a.txt", "");
    let finished = greenwave(&dir, "p", []).run().with_code(0);
    assert!(
        finished.stdout.contains("note: input pattern `/data/**` of test `t` matches no file"),
        "{}",
        finished.stdout
    );
}

#[test]
fn names_may_be_any_text_and_links_may_form_cycles() {
    let name = "ein Täst → \u{1F7E2} 'x' \\\"y\\\"";
    let config = format!("[[test]]\nname = \"{name}\"\ncommand = \"cat 'dätei \u{1F7E2}.txt'\"\n");
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/dätei \u{1F7E2}.txt", "x");
    std::os::unix::fs::symlink("circle", dir.path("p/circle")).unwrap();
    std::os::unix::fs::symlink("..", dir.path("p/up")).unwrap();
    for cached in [false, true] {
        let found = run(&dir, "p");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].1, found[0].2), (true, cached), "{found:?}");
    }
}

#[test]
fn worktrees_share_results() {
    let dir = two();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(args)
            .current_dir(dir.path("p"));
        assert!(git.output().unwrap().status.success(), "git {args:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "x"]);
    git(&["worktree", "add", "-q", "../other"]);
    run(&dir, "p");
    assert_eq!(run(&dir, "other"), [verdict("one", true, true), verdict("two", true, true)]);
    // Only tests that may read the changed file.
    dir.write("other/two/in.txt", "22");
    let affected = greenwave(&dir, "other", ["--format", "json", "--affected", "HEAD"]).run().with_code(0);
    assert_eq!(verdicts(&affected), [verdict("two", true, false)]);
}

#[test]
fn a_flaky_pass_is_not_cached() {
    let config = "[[test]]\nname = \"t\"\nretries = 2\ninputs = [\"/in\"]\n\
                  command = \"test -e ../second || { touch ../second; exit 1; }\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in", "");
    let first = greenwave(&dir, "p", []).run().with_code(0);
    assert!(
        first.stdout.contains("flaky    t") && first.stdout.contains("passed at attempt 2"),
        "{}",
        first.stdout
    );
    assert_eq!(run(&dir, "p"), [verdict("t", true, false)]);
}

#[test]
fn init_creates_a_settings_file_with_the_discovered_tests() {
    let dir = TestDir::empty()
        .with("p/package.json", r#"{"name": "web", "scripts": {"test": "sh check.sh"}}"#)
        .with("p/check.sh", "test \"$(cat data.txt)\" = 1")
        .with("p/data.txt", "1");
    let wrote = greenwave(&dir, "p", ["--init"]).run().with_code(0);
    assert!(wrote.stdout.contains("greenwave.toml with 1 test"), "{}", wrote.stdout);
    assert!(
        dir.read("p/greenwave.toml").contains("[[test]]\nname = \"npm:web"),
        "{}",
        dir.read("p/greenwave.toml")
    );
    greenwave(&dir, "p", ["--dry-run"]).run().with_code(0);
    let again = greenwave(&dir, "p", ["--init"]).run().with_code(2);
    assert!(again.stderr.contains("cannot create "), "{}", again.stderr);
}

#[test]
fn the_cache_has_commands() {
    let dir = two();
    run(&dir, "p");
    let cache = |command: &str| {
        let args = ["cache", command];
        let program = Program::new(args).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache"));
        program.run().with_code(0).stdout
    };
    assert!(cache("stats").contains(" records, "), "{}", cache("stats"));
    assert!(cache("verify").contains(" intact, none damaged, in "), "{}", cache("verify"));
    assert!(cache("clear").starts_with("Removed "));
    assert_eq!(run(&dir, "p"), [verdict("one", true, false), verdict("two", true, false)]);
}

/// "If an implementation encounters a relative path in any of these variables it should consider
/// the path invalid and ignore it" (<https://specifications.freedesktop.org/basedir-spec/latest/>).
#[test]
fn a_relative_cache_directory_is_ignored() {
    let dir = two().with("home/.keep", "");
    let program = Program::new(["test"]).within(&dir.path("p")).variable("HOME", dir.path("home"));
    program.variable("XDG_CACHE_HOME", "caches").run().with_code(0);
    assert!(!dir.path("p/caches").exists());
    assert!(dir.path("home/.cache/greenwave/tests").is_dir());
}

#[test]
fn inputs_outside_the_project_are_errors_with_their_location() {
    let check = |inputs: &str, expected: &str| {
        let config = format!("[[test]]\nname = \"t\"\ncommand = [\"true\"]\ninputs = [{inputs}]\n");
        let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/a", "").with("x", "");
        let refused = greenwave(&dir, "p", []).run().with_code(2);
        assert!(refused.stderr.contains("greenwave.toml:4:"), "{}", refused.stderr);
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    };
    check("\"../x\"", "inside the project");
    check("\"a\", \"!b/../../x\"", "inside the project");
    for nothing in ["\"\"", "\" \"", "\"!\"", "\"/\""] {
        check(nothing, "for `inputs`: ");
    }
}

#[test]
fn the_slowest_tests_are_listed_one_per_line() {
    let long = "n".repeat(70);
    let test = |at: usize| format!("[[test]]\nname = \"{at}{long}\"\ncommand = \"sleep 0.6; : {at}\"\n");
    let dir = TestDir::empty().with("p/greenwave.toml", (0..6).map(test).collect::<String>());
    let ran = greenwave(&dir, "p", ["--jobs", "6"]).run().with_code(0);
    let slowest: Vec<&str> = ran.stdout.lines().skip_while(|line| *line != "Slowest:").collect();
    assert_eq!(slowest.len(), 7, "{}", ran.stdout);
    assert!(slowest[1..6].iter().all(|line| line.len() < 100 && line.contains(&long)), "{}", ran.stdout);
}

#[test]
fn tests_with_the_same_command_and_inputs_run_once() {
    let test = |name: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\ncommand = \"echo x >> ../ran; sleep 0.2\"\ninputs = [\"/in\"]\n"
        )
    };
    let dir = TestDir::empty().with("p/greenwave.toml", test("a") + &test("b")).with("p/in", "");
    let jobs = ["--jobs", "2", "--set", "testing.follow_load=false"];
    let first = greenwave(&dir, "p", jobs).run().with_code(0);
    assert_eq!(dir.read("ran"), "x\n", "{}", first.stdout);
    assert!(first.stdout.contains("2 tests: 2 passed (1 deduplicated) in "), "{}", first.stdout);
    let says = |one: &str, other: &str| {
        first.stdout.contains(&format!("  pass     {one}         -  same as {other}\n"))
    };
    assert!(says("a", "b") || says("b", "a"), "{}", first.stdout);
    assert!(!first.stdout.contains("cached (saved"), "{}", first.stdout);
}

#[test]
fn a_pytest_file_whose_tests_are_all_deselected_passes() {
    let check = |summary: &str, more: &str, code: i32| {
        let test =
            format!("[[test]]\nname = \"t\"\ncommand = [\"./python\", \"-m\", \"pytest\", \"a.py\"{more}]\n");
        let script = format!("#!/bin/sh\necho\necho '{summary}'\nexit 5\n");
        let dir = TestDir::empty().with("p/greenwave.toml", &test).with("p/python", &script);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path("p/python"), mode).unwrap();
        greenwave(&dir, "p", []).run().with_code(code);
    };
    check("===== 2 deselected in 0.01s =====", "", 0);
    check("2 deselected in 0.01s", "", 0);
    check("===== no tests ran in 0.01s =====", "", 1);
    check("===== 2 deselected in 0.01s =====", ", \"-k\", \"mistyped\"", 1);
}

/// The first run creates a directory for its state in the project. That is no change by somebody
/// else, even if a test lists the project at once.
#[test]
fn the_first_result_of_a_test_that_lists_the_project_is_cached() {
    let test = "[[test]]\nname = \"list\"\ncommand = [\"ls\"]\ninputs = [\"/in.txt\"]\n";
    for round in 0..5 {
        let dir = TestDir::empty().with("p/greenwave.toml", test).with("p/in.txt", round.to_string());
        std::thread::sleep(std::time::Duration::from_millis(60));
        assert_eq!(run(&dir, "p"), [verdict("list", true, false)]);
        assert_eq!(run(&dir, "p"), [verdict("list", true, true)], "round {round}");
    }
}
