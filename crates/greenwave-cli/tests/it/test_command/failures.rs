//! Directories, files and outputs that cannot be read or written.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::{greenwave, run, two, verdict};
use crate::program::{Program, until};
use crate::test_dir::TestDir;

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
