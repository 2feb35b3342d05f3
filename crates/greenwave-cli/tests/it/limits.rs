//! Inputs that are too large or nested too deeply: each is an error that names the limit, in
//! bounded memory.

use std::fs::File;
use std::process::Command;

use crate::program::{Finished, Program};
use crate::test_dir::TestDir;

/// Maximum address space of the program, in KiB. Reading one of the larger inputs as a whole would
/// exceed it.
const MEMORY_KIB: u64 = 4_000_000;

/// Runs the program, which must end with an error and write little.
#[track_caller]
fn refused(dir: &TestDir, args: &[&str]) -> Finished {
    let finished = limited(dir, args).with_code(2);
    assert!(finished.stderr.len() < 4_000, "{} bytes of errors", finished.stderr.len());
    finished
}

/// Runs the program with a limit on its memory.
fn limited(dir: &TestDir, args: &[&str]) -> Finished {
    let mut command = Command::new("sh");
    let script = format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_greenwave")]).args(args);
    Program::of(command).within(&dir.path("")).variable("HOME", dir.path("home")).run()
}

#[track_caller]
fn check(dir: &TestDir, args: &[&str], expected: &str) {
    let finished = refused(dir, args);
    assert!(finished.stderr.contains(expected), "{expected}: {}", finished.stderr);
}

/// A plan of features in a chain, which a recorded agent builds.
fn plan(features: usize) -> String {
    let feature = |at: usize| {
        let above = if at == 0 { String::new() } else { format!("depends_on = [\"f{}\"]\n", at - 1) };
        format!(
            "[[features]]\nid = \"f{at}\"\nprompt = \"p\"\nagent = \"a\"\n{above}\
             [[features.tests]]\nname = \"t\"\ncommand = [\"test\", \"-f\", \"x\"]\n"
        )
    };
    let head = "project = \"project\"\n[agents.a]\nkind = \"scripted\"\nscript = \"s.jsonl\"\n";
    head.to_owned() + &(0..features).map(feature).collect::<String>()
}

fn dir(plan: &str) -> TestDir {
    TestDir::with_project().with("plan.toml", plan).with("s.jsonl", "{\"greenwave_script\": 1}\n")
}

/// Makes a file longer without using space on the disk.
fn extend(dir: &TestDir, path: &str, bytes: u64) {
    File::options().write(true).open(dir.path(path)).unwrap().set_len(bytes).unwrap();
}

#[test]
fn a_plan_has_a_limited_number_of_features() {
    let dir = dir(&plan(20_000));
    for args in [&["graph", "plan.toml"][..], &["run", "--check", "plan.toml"]] {
        check(&dir, args, "too many features (20000): expected at most 10000");
    }
}

#[test]
fn files_have_a_limited_size() {
    let dir = dir(&plan(1));
    extend(&dir, "s.jsonl", 500 << 30);
    check(&dir, &["run", "plan.toml", "--no-metrics"], "the script is larger than 67108864 bytes");
    extend(&dir, "plan.toml", 500 << 30);
    check(&dir, &["graph", "plan.toml"], "the file is larger than 16777216 bytes");
    let dir = TestDir::empty().with("greenwave.toml", "").with("Cargo.toml", "");
    // Discovery hashes it first, and continues without it.
    extend(&dir, "Cargo.toml", 100 << 20);
    let finished = limited(&dir, &["test", "--dry-run"]).with_code(0);
    let note = "Cargo.toml is skipped: the file is larger than 67108864 bytes";
    assert!(finished.stderr.contains(note), "{}", finished.stderr);
    extend(&dir, "greenwave.toml", 500 << 30);
    check(&dir, &["test", "--dry-run"], "the file is larger than 16777216 bytes");
}

#[test]
fn manifests_have_a_limited_size() {
    for manifest in ["package.json", "pyproject.toml", "setup.cfg", "tox.ini", "go.mod", "Cargo.toml"] {
        let dir = TestDir::empty().with(&format!("project/{manifest}"), "").with("project/test_a.py", "");
        // Discovery hashes it first, and continues without it.
        extend(&dir, &format!("project/{manifest}"), 100 << 20);
        let finished = limited(&dir, &["test", "--dry-run", "--project", "project"]);
        let note = format!("{manifest} is skipped: the file is larger than 67108864 bytes");
        assert!(finished.stderr.contains(&note), "{manifest}: {}", finished.describe());
    }
}

/// Files of state that are too long count as damaged, so that everything runs again.
#[test]
fn state_has_a_limited_size() {
    let tests = "[[test]]\nname = \"t\"\ncommand = [\"sh\", \"-c\", \"exit 3\"]\ninputs = []\n";
    let made = || {
        let dir = dir(&plan(1)).with("project/greenwave.toml", tests);
        assert_eq!(limited(&dir, &["test", "--project", "project"]).status.code(), Some(1));
        assert_eq!(limited(&dir, &["run", "plan.toml", "--no-metrics"]).status.code(), Some(1));
        dir
    };
    let count = files_of_state(&made()).len();
    assert!(count > 5, "{count} files of state");
    for at in 0..count {
        // Some names differ between runs.
        let dir = made();
        let Some(file) = files_of_state(&dir).into_iter().nth(at) else { continue };
        let path = format!("project/.greenwave/{file}");
        extend(&dir, &path, 500 << 30);
        let test = limited(&dir, &["test", "--project", "project"]);
        assert_eq!(test.status.code(), Some(1), "{file}: {}", test.describe());
        let run = limited(&dir, &["run", "plan.toml", "--no-metrics"]);
        assert!(matches!(run.status.code(), Some(1 | 2)), "{file}: {}", run.describe());
        assert!(run.stderr.len() + test.stderr.len() < 4_000, "{file}: {}", run.describe());
    }
}

/// Returns the regular files below the state directory.
fn files_of_state(dir: &TestDir) -> Vec<String> {
    let mut find = Command::new("find");
    find.arg(dir.path("project/.greenwave")).args(["-type", "f", "-printf", "%P\\n"]);
    let found = String::from_utf8(find.output().unwrap().stdout).unwrap();
    let mut files: Vec<String> = found.lines().map(str::to_owned).collect();
    files.sort();
    files
}

#[test]
fn files_have_a_limited_depth() {
    let nested = "[".repeat(1_000_000);
    let dir = dir(&plan(1));
    dir.write("s.jsonl", format!("{{\"greenwave_script\": 1}}\n{{\"feature\": {nested}\n"));
    check(&dir, &["run", "plan.toml", "--no-metrics"], "cannot parse script");
    dir.write("plan.toml", format!("name = {nested}"));
    check(&dir, &["graph", "plan.toml"], "max recursion depth met");
    dir.write("project/package.json", format!("{{\"scripts\": {nested}"));
    check(&dir, &["test", "--dry-run", "--project", "project"], "recursion limit exceeded");
}

#[test]
fn a_long_chain_of_features_is_refused_before_it_is_followed() {
    let dir = dir(&plan(100_000));
    for args in [&["graph", "plan.toml"][..], &["run", "--check", "plan.toml"]] {
        check(&dir, args, "too many features (100000): expected at most 10000");
    }
    dir.write("plan.toml", plan(10_000));
    limited(&dir, &["graph", "plan.toml"]).with_code(0);
}
