//! `greenwave clean`, and copies that killed runs leave.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::program::{Running, until};
use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::{STATE, TestDir};

/// Returns the directories of working copies.
fn copies(dir: &TestDir) -> Vec<PathBuf> {
    let base = dir.path(STATE).join("greenwave");
    let entries = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.join(".git").is_file()).collect()
}

/// Starts a run of a plan whose agent never ends, and waits until it works.
fn working(dir: &TestDir, project: &str, plan: &str) -> Running {
    let feature = ShellFeature::new("one", "echo partly > one.txt; sleep 1000", "test -f one.txt");
    dir.write(&format!("{project}/keep.txt"), "keep\n");
    dir.write(plan, shell_plan::plan(&[feature]).replace("\"project\"", &format!("{project:?}")));
    let running = dir.greenwave(["run", plan, "--no-metrics", "--format", "json"]).start();
    until("the agent works in its copy", || {
        copies(dir).iter().any(|path| has_file(path, "one.txt", project))
    });
    running
}

fn has_file(copies: &std::path::Path, name: &str, project: &str) -> bool {
    let plans = fs::read_dir(copies).into_iter().flatten().flatten();
    let is_of = copies.file_name().is_some_and(|name| name.to_string_lossy().starts_with(project));
    // The layer of an overlay is seen from outside of the run, its mount is not.
    let directories = ["one", ".layers/of/one/upper"];
    is_of
        && plans.flat_map(|plan| directories.map(|it| plan.path().join(it).join(name))).any(|it| it.exists())
}

fn kill(running: Running) {
    running.signal(Signal::KILL);
    running.finish();
}

#[test]
fn copies_of_a_killed_run_are_listed_and_removed() {
    let dir = TestDir::empty();
    kill(working(&dir, "project", "plan.toml"));
    assert_eq!(copies(&dir).len(), 1);
    let listed = dir.greenwave(["clean", "plan.toml", "--dry-run"]).run().with_code(0).stdout;
    assert!(listed.contains("working copies") && listed.contains("\nWould remove "), "{listed}");
    assert_eq!(copies(&dir).len(), 1, "a dry run removes nothing");
    let removed = dir.greenwave(["clean", "plan.toml"]).run().with_code(0).stdout;
    assert!(removed.contains("B  working copies") && removed.contains("\nRemoved "), "{removed}");
    assert_eq!(copies(&dir), Vec::<PathBuf>::new());
    let again = dir.greenwave(["clean", "plan.toml"]).run().with_code(0).stdout;
    assert_eq!(again, "Nothing to remove\n");
    assert!(dir.path("project/.greenwave/journal").exists(), "the state stays");
    let state = dir.greenwave(["clean", "plan.toml", "--state"]).run().with_code(0).stdout;
    assert!(state.contains("B  state  project/.greenwave\n"), "{state}");
    let attempts = dir.greenwave(["attempts", "plan.toml"]).run().with_code(0).stdout;
    assert_eq!(attempts, "No attempts are stored\n");
    assert!(!dir.path("project/.greenwave/journal").exists() && dir.path("project/keep.txt").exists());
}

#[test]
fn copies_in_use_stay() {
    let dir = TestDir::empty();
    let running = working(&dir, "project", "plan.toml");
    for arguments in [&["clean", "--all"][..], &["clean", "plan.toml", "--state"]] {
        let kept = dir.greenwave(arguments.iter().copied()).run().with_code(0).stdout;
        assert!(kept.contains("(in use by a run, kept)") && kept.ends_with("Nothing to remove\n"), "{kept}");
    }
    assert_eq!(copies(&dir).len(), 1);
    assert!(dir.path("project/.greenwave/journal").exists());
    kill(running);
}

/// The copies of a project that is never run again are removed as well.
#[test]
fn a_run_removes_copies_of_killed_runs_of_other_projects() {
    let dir = TestDir::empty();
    kill(working(&dir, "dead", "dead.toml"));
    let alive = working(&dir, "alive", "alive.toml");
    until("the copies of the killed run are gone", || copies(&dir).len() == 1);
    let left = copies(&dir)[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(left.starts_with("alive-"), "{left}");
    kill(alive);
}

#[test]
fn other_directories_are_never_removed() {
    let dir = TestDir::empty();
    kill(working(&dir, "project", "plan.toml"));
    for name in ["green", "keys", "mine-0123456789abcdef"] {
        dir.write(&format!("{STATE}/greenwave/{name}/file"), "mine");
    }
    dir.greenwave(["clean", "--all"]).run().with_code(0);
    assert_eq!(copies(&dir), Vec::<PathBuf>::new());
    for name in ["green", "keys", "mine-0123456789abcdef"] {
        assert_eq!(dir.read(&format!("{STATE}/greenwave/{name}/file")), "mine");
    }
}
