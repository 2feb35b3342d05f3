//! `greenwave test` on declared tests: caching, errors, concurrent runs, interruptions, reports.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Finished, Program, until};
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
        "empty `command`: expected a program and its arguments",
    );
    check(
        "[[test]]\nname = \"t\"\ncommand = \" \"\n",
        &[],
        "empty `command`: expected a program and its arguments",
    );
    check("[[test]]\nname = \"\"\ncommand = \"true\"\n", &[], "expected a non-empty name");
    check("[[test]]\ncommand = [\"true\"]\n", &[], "missing key `name` in [[test]]");
    check(&test(""), &["nothing"], "unknown test `nothing`: expected a part of one of `t`");
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
fn an_unreadable_input_breaks_the_tests_that_need_it() {
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "skipped: only root can run as another user");
        return;
    }
    let dir = two();
    for path in ["", "p", "p/one", "p/two", "p/greenwave.toml", "p/one/in.txt", "p/two/in.txt"] {
        std::os::unix::fs::chown(dir.path(path), Some(65_534), Some(65_534)).unwrap();
    }
    fs::set_permissions(dir.path("p/one/in.txt"), std::os::unix::fs::PermissionsExt::from_mode(0o000))
        .unwrap();
    let finished = greenwave(&dir, "p", []).user(65_534).run().with_code(1);
    assert!(
        finished.stdout.contains("one/in.txt") && finished.stdout.contains("Permission denied"),
        "{}",
        finished.stdout
    );
    assert!(finished.stdout.contains("2 tests: 1 passed, 1 broken"), "{}", finished.stdout);
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

/// Tests that record each of their runs through a pipe, which is not a file that a result could
/// depend on.
struct RecordedTests {
    dir: TestDir,
    runs: Arc<Mutex<Vec<usize>>>,
}

impl RecordedTests {
    fn new(count: usize, script: &str) -> Self {
        let dir = TestDir::empty();
        let pipe = dir.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut config = String::new();
        for number in 0..count {
            dir.write(&format!("p/{number}/in.txt"), number.to_string());
            config.push_str(&format!(
                "[[test]]\nname = \"t{number}\"\ncommand = \"cat {number}/in.txt; {script}; echo {number} > ../pipe\"\n\
                 inputs = [\"/{number}/**\"]\n"
            ));
        }
        let runs: Arc<Mutex<Vec<usize>>> = Arc::default();
        let into = Arc::clone(&runs);
        // Also open for writing, so that the pipe does not end between two tests.
        let pipe = fs::File::options().read(true).write(true).open(pipe).unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                into.lock().unwrap().push(line.unwrap().parse().unwrap());
            }
        });
        Self { dir: dir.with("p/greenwave.toml", config), runs }
    }

    fn sorted(&self) -> Vec<usize> {
        let mut runs = self.runs.lock().unwrap().clone();
        runs.sort_unstable();
        runs
    }
}

#[test]
fn concurrent_processes_run_each_test_once() {
    let recorded = RecordedTests::new(12, "sleep 0.05");
    let dir = &recorded.dir;
    let running: Vec<_> = (0..8).map(|_| greenwave(dir, "p", ["--format", "json"]).start()).collect();
    for running in running {
        let found = verdicts(&running.finish().with_code(0));
        assert_eq!(found.len(), 12);
        assert!(found.iter().all(|(_, passed, _)| *passed));
    }
    assert_eq!(recorded.sorted(), (0..12).collect::<Vec<_>>());
}

#[test]
fn passes_before_a_kill_are_cached() {
    let recorded = RecordedTests::new(3, "true");
    let dir = &recorded.dir;
    let config = dir.read("p/greenwave.toml") + "[[test]]\nname = \"long\"\ncommand = \"sleep 600\"\n";
    dir.write("p/greenwave.toml", config.replace("sleep 600", "echo $$ > ../started; exec sleep 600"));
    let args = ["--format", "json", "--set", "testing.follow_load=false", "--jobs", "2"];
    let mut running = greenwave(dir, "p", args).start();
    for _ in 0..3 {
        running.read_until(r#""status":"passed""#);
    }
    let started = || fs::read_to_string(dir.path("started")).is_ok_and(|text| text.ends_with('\n'));
    until("the long test runs", started);
    running.signal(Signal::KILL);
    running.wait();
    let left = dir.read("started").trim().parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    // The supervisor of the killed program ends the test.
    until("the long test has ended", || rustix::process::test_kill_process(left).is_err());
    dir.write("p/greenwave.toml", config.replace("sleep 600", "true"));
    let after = run(dir, "p");
    assert_eq!(after.iter().filter(|(_, passed, cached)| *passed && *cached).count(), 3, "{after:?}");
    assert_eq!(recorded.sorted(), [0, 1, 2]);
}

#[test]
fn an_interrupt_kills_running_tests() {
    let config = "[[test]]\nname = \"long\"\ncommand = \"echo $$ > ../id; sleep 600\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config);
    let running = greenwave(&dir, "p", ["--format", "json"]).start();
    let id = || fs::read_to_string(dir.path("id")).unwrap_or_default();
    until("the test runs", || id().ends_with('\n'));
    running.signal(Signal::INT);
    let finished = running.finish().with_code(130);
    assert!(finished.stdout.contains(r#""event":"stopped""#), "{}", finished.stdout);
    until("the test is gone", || is_gone(&id()));
}

#[test]
fn an_interrupt_kills_builds() {
    let script = "fn main() {\n    std::fs::write(\"../id\", format!(\"{}\\n\", std::process::id())).unwrap();\n    \
                  std::thread::sleep(std::time::Duration::from_secs(600));\n}\n";
    let dir = TestDir::empty()
        .with("p/Cargo.toml", "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2024\"\n")
        .with("p/build.rs", script)
        .with("p/src/lib.rs", "#[test] fn t() {}\n");
    let running = greenwave(&dir, "p", ["--format", "json"]).start();
    let id = || fs::read_to_string(dir.path("id")).unwrap_or_default();
    until("the build script runs", || id().ends_with('\n'));
    running.signal(Signal::INT);
    let finished = running.finish().with_code(130);
    assert!(finished.stdout.contains(r#""event":"stopped""#), "{}", finished.stdout);
    until("the build script is gone", || is_gone(&id()));
}

/// Returns whether a process has ended, whether its parent has waited for it or not.
fn is_gone(id: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[test]
fn a_full_disk_fails_no_test() {
    let dir = two();
    // With this limit every write to a file fails, as on a full disk.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" test", env!("CARGO_BIN_EXE_greenwave")]);
    let full = Program::of(shell).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache")).run();
    // Opening the state may need a write, which is an error.
    match full.status.code() {
        Some(0) => assert!(full.stdout.contains("2 passed"), "{}{}", full.stdout, full.stderr),
        Some(2) => assert!(full.stderr.contains("caused by: File too large"), "{}", full.stderr),
        other => panic!("{other:?}: {}{}", full.stdout, full.stderr),
    }
    assert_eq!(run(&dir, "p"), [verdict("one", true, false), verdict("two", true, false)]);
}

#[test]
fn a_damaged_cache_is_a_miss() {
    let dir = two();
    run(&dir, "p");
    let mut damaged = 0;
    for entry in fs::read_dir(dir.path("cache/greenwave/tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && fs::metadata(&path).unwrap().len() > 100 {
            let mut bytes = fs::read(&path).unwrap();
            bytes.iter_mut().skip(64).for_each(|byte| *byte ^= 0x55);
            fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    dir.write("p/one/in.txt", "7");
    assert_eq!(run(&dir, "p"), [verdict("one", false, false), verdict("two", true, false)]);
}

#[test]
fn damaged_state_of_a_project_is_ignored() {
    let dir = two();
    run(&dir, "p");
    for entry in fs::read_dir(dir.path("p/.greenwave/tests")).unwrap() {
        fs::write(entry.unwrap().path(), b"\xF5GWI garbage").unwrap();
    }
    assert_eq!(run(&dir, "p"), [verdict("one", true, true), verdict("two", true, true)]);
    dir.write("p/one/in.txt", "7");
    assert_eq!(run(&dir, "p"), [verdict("one", false, false), verdict("two", true, true)]);
}

#[test]
fn the_state_of_another_user_is_an_error() {
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "skipped: only root can change the owner of a directory");
        return;
    }
    let dir = two();
    run(&dir, "p");
    std::os::unix::fs::chown(dir.path("p/.greenwave/tests"), Some(12_345), None).unwrap();
    let finished = greenwave(&dir, "p", []).run().with_code(2);
    assert!(finished.stderr.contains("belongs to user 12345, not to user 0"), "{}", finished.stderr);
}

/// Creates nested directories from `deep` on, until the path of the last one is too long for the
/// system.
fn too_deep(project: &Path) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let name = "d".repeat(200);
    let mut at = openat(CWD, project, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for depth in 0..25 {
        let name = if depth == 0 { "deep" } else { name.as_str() };
        mkdirat(&at, name, Mode::from_raw_mode(0o755)).unwrap();
        at = openat(&at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).unwrap();
}

#[test]
fn files_with_too_long_paths_are_skipped_and_results_that_may_depend_on_them_are_not_cached() {
    let test = |name: &str, inputs: &str| {
        // Without declared inputs, a result depends on what the test looks at.
        let command = if inputs.is_empty() { "find . >/dev/null" } else { "true" };
        format!("[[test]]\nname = \"{name}\"\ncommand = \"{command}; : {name}\"\n{inputs}\n")
    };
    let config =
        test("all", "") + &test("but", "inputs = [\"!/deep/**\"]") + &test("one", "inputs = [\"/in\"]");
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in", "");
    let all = |cached: [bool; 3]| {
        ["all", "but", "one"]
            .into_iter()
            .zip(cached)
            .map(|(name, cached)| verdict(name, true, cached))
            .collect::<Vec<_>>()
    };
    until("all is cached", || run(&dir, "p") == all([true; 3]));
    too_deep(&dir.path("p"));
    // A result from before is not valid afterwards.
    assert_eq!(run(&dir, "p"), all([false, true, true]));
    assert_eq!(run(&dir, "p"), all([false, true, true]));
    let run_again = greenwave(&dir, "p", []).run().with_code(0);
    assert!(
        run_again.stderr.contains("WARN deep/ddd")
            && run_again.stderr.contains("is excluded with everything below"),
        "{}",
        run_again.stderr
    );
    assert!(run_again.stderr.lines().count() == 1 && run_again.stderr.len() < 200, "{}", run_again.stderr);
    // The second reason is that of a test without tracing.
    let reasons = ["it uses paths longer than the kernel accepts", "its path is too long"];
    assert!(
        run_again.stdout.contains("not cached: ")
            && reasons.iter().any(|reason| run_again.stdout.contains(reason)),
        "{}",
        run_again.stdout
    );
    // Discovery skips the file as well.
    let dir = TestDir::empty().with("p/package.json", r#"{"name": "web", "scripts": {"test": "true"}}"#);
    too_deep(&dir.path("p"));
    let found = greenwave(&dir, "p", ["--dry-run"]).run().with_code(0);
    assert!(found.stdout.contains("to run   npm:web"), "{}", found.stdout);
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
fn each_test_has_its_own_home_and_ports() {
    let test = |name: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\ninputs = [\"/in\"]\n\
             command = \"test -z \\\"$SECRET\\\" && test -d $HOME && echo $HOME $TMPDIR $GREENWAVE_PORT_FIRST > ../{name}; sleep 0.3\"\n"
        )
    };
    let dir = TestDir::empty().with("p/greenwave.toml", test("a") + &test("b")).with("p/in", "");
    let args = ["--jobs", "2", "--set", "testing.follow_load=false"];
    greenwave(&dir, "p", args).variable("SECRET", "x").run().with_code(0);
    let (a, b) = (dir.read("a"), dir.read("b"));
    for (one, other) in a.split_whitespace().zip(b.split_whitespace()) {
        assert_ne!(one, other);
        assert!(one.parse::<u16>().is_ok() || !Path::new(one).exists(), "{one} is left");
    }
}

#[test]
fn tests_that_are_not_parallel_safe_run_alone() {
    let script = "mkdir ../lock || exit 1; sleep 0.1; rmdir ../lock";
    let test = |name: &str, more: &str| {
        format!("[[test]]\nname = \"{name}\"\ncommand = \"{script}; : {name}\"\ninputs = [\"/in\"]\n{more}\n")
    };
    let check = |more: &str| {
        let config = ["a", "b", "c"].map(|name| test(name, more)).concat();
        let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in", "");
        let args = ["--jobs", "3", "--format", "json", "--set", "testing.follow_load=false"];
        let found = verdicts(&greenwave(&dir, "p", args).run());
        found.iter().all(|(_, passed, _)| *passed)
    };
    assert!(check("parallel_safe = false"));
    assert!(check("needs = [\"lock\"]"));
    assert!(!check(""), "they would overlap");
}

#[test]
fn an_audit_finds_untracked_dependencies() {
    let config =
        "[[test]]\nname = \"t\"\ncommand = \"grep -qx 0 /proc/self/oom_score_adj\"\ninputs = [\"/in\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in", "");
    if fs::read_to_string("/proc/self/oom_score_adj").ok().as_deref() != Some("0\n") {
        let _ = writeln!(std::io::stderr(), "skipped: oom_score_adj is not 0");
        return;
    }
    assert_eq!(run(&dir, "p"), [verdict("t", true, false)]);
    let again = greenwave(&dir, "p", ["--audit", "100%"]).run().with_code(0);
    assert!(again.stdout.contains("1 cached result audited: no difference"), "{}", again.stdout);
    let mut shell = Command::new("sh");
    let script = "echo 500 > /proc/self/oom_score_adj; exec \"$0\" test --audit 1.0";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_greenwave")]);
    let other = Program::of(shell).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache"));
    let other = other.run().with_code(1);
    assert!(other.stdout.contains("audit    t: cached as passed ("), "{}", other.stdout);
}

#[test]
fn a_test_that_exceeds_its_time_limit_is_killed_with_its_children() {
    let config =
        "[[test]]\nname = \"t\"\ntimeout = \"300ms\"\ncommand = \"sleep 600 & echo $! > ../id; wait\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config);
    let finished = greenwave(&dir, "p", []).run().with_code(1);
    assert!(finished.stdout.contains("did not end within 300ms and was killed"), "{}", finished.stdout);
    let id = dir.read("id");
    until("its child is gone", || is_gone(&id));
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

#[test]
fn the_umask_is_a_dependency() {
    let test =
        "[[test]]\nname = \"t\"\ncommand = \"touch $TMPDIR/new && test $(stat -c %a $TMPDIR/new) = 644\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", test);
    let run = |mask: &str| {
        let script = format!("umask {mask}; exec \"$0\" test --format json");
        let output = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_greenwave")])
            .current_dir(dir.path("p"))
            .env("XDG_CACHE_HOME", dir.path("cache"))
            .output()
            .unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let test = lines.lines().find(|line| line.contains("\"name\":\"t\"")).unwrap().to_owned();
        let test: Value = serde_json::from_str(&test).unwrap();
        (test["status"] == "passed", test["cached"] == true)
    };
    assert_eq!(run("022"), (true, false));
    assert_eq!(run("022"), (true, true));
    assert_eq!(run("077"), (false, false));
    assert_eq!(run("022"), (true, true));
}

#[test]
fn a_process_in_another_session_is_left_behind() {
    let test = "[[test]]\nname = \"t\"\ncommand = \"setsid sleep 3 >/dev/null 2>&1 &\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", test);
    let ran = greenwave(&dir, "p", []).run().with_code(0);
    // The process may not have started its program yet.
    let names = ["sleep", "setsid", "sh"];
    let is_named = |name| ran.stdout.contains(&format!("left processes behind: {name} (end them"));
    assert!(names.into_iter().any(is_named), "{}", ran.stdout);
    assert!(!ran.stdout.contains("clock"), "{}", ran.stdout);
}

#[test]
fn tests_run_without_a_cache_that_cannot_be_opened() {
    let dir = two().with("cache", "a file");
    let without = greenwave(&dir, "p", []).run().with_code(0);
    assert!(
        without
            .stderr
            .starts_with("warning: running without cached results: cannot open the test results in "),
        "{}",
        without.stderr
    );
    let place = format!("cannot open the test results in {}", dir.path("cache/greenwave/tests").display());
    assert!(without.stderr.contains(&place), "{}", without.stderr);
    assert!(
        without
            .stderr
            .contains("hint: pass `--set cache.directory=DIR` to use another directory, or `--no-cache`"),
        "{}",
        without.stderr
    );
    assert!(without.stdout.contains("2 tests: 2 passed in "), "{}", without.stdout);
    let disabled = greenwave(&dir, "p", ["--no-cache"]).run().with_code(0);
    assert_eq!(disabled.stderr, "");
    // The commands of the cache need it.
    for command in ["stats", "verify", "clear", "warm"] {
        let program = Program::new(["cache", command]).within(&dir.path("p"));
        let refused = program.variable("XDG_CACHE_HOME", dir.path("cache")).run().with_code(2);
        assert!(refused.stderr.starts_with("error: cannot open the test results"), "{}", refused.stderr);
    }
}

#[test]
fn lost_output_is_an_error_and_results_are_cached() {
    let dir = two();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let lost = greenwave(&dir, "p", []).stdout(full).run().with_code(2);
    assert!(lost.stderr.contains("error: cannot write to standard output"), "{}", lost.stderr);
    assert!(
        lost.stderr.contains("caused by: No space left") && lost.stderr.contains("hint: "),
        "{}",
        lost.stderr
    );
    assert_eq!(run(&dir, "p"), [verdict("one", true, true), verdict("two", true, true)]);
    // A reader that closes the pipe loses nothing.
    greenwave(&dir, "p", ["--output", "all"]).read_lines(1).run().with_code(0);
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
fn a_report_that_cannot_be_written_is_an_error_before_tests_run() {
    let config = "[[test]]\nname = \"t\"\ncommand = \"touch ../ran\"\ninputs = [\"/in\"]\n";
    for flag in ["--junit", "--summary"] {
        let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in", "").with("report", "old");
        for place in ["../no/such/dir/report", "..", "in/report"] {
            let refused = greenwave(&dir, "p", [flag, place]).run().with_code(2);
            let expected = format!("error: cannot write report {place}\n  caused by: ");
            assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
            assert!(!dir.path("ran").exists(), "{flag} {place}");
        }
        // A run that does not start changes no report.
        greenwave(&dir, "p", [flag, "../report", "no-such-test"]).run().with_code(2);
        assert_eq!(dir.read("report"), "old");
        greenwave(&dir, "p", [flag, "../new", "no-such-test"]).run().with_code(2);
        assert!(!dir.path("new").exists());
        greenwave(&dir, "p", [flag, "../new"]).run().with_code(0);
        assert!(dir.read("new").contains('t'), "{}", dir.read("new"));
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
