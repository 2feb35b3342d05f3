//! Plans in files: valid ones with their graphs, and invalid ones with their errors.
//!
//! Each file in `tests/plans/` is a test. `INSTA_UPDATE=always` writes the snapshot of a new one.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use crate::snapshots;
use crate::test_dir::TestDir;

const SCRIPT: &str = "{\"greenwave_script\": 1}\n";

/// Returns the TOML files of a directory in `tests/`, sorted by name.
pub(crate) fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(dir);
    let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{}", dir.display());
    files
}

/// Checks every file of a directory, and fails at the end if any check failed.
pub(crate) fn check_all(dir: &str, check: impl Fn(&str, &str)) {
    let mut failed = Vec::new();
    for path in files(dir) {
        let (name, text) = (path.file_stem().unwrap().to_str().unwrap(), fs::read_to_string(&path).unwrap());
        if catch_unwind(AssertUnwindSafe(|| check(name, &text))).is_err() {
            failed.push(name.to_owned());
        }
    }
    assert!(failed.is_empty(), "{} in tests/{dir}: {failed:?}", failed.len());
}

/// Creates a directory with everything that the plans refer to.
fn dir(plan: &str) -> TestDir {
    let dir = TestDir::with_project().with("answers.jsonl", SCRIPT).with("plan.toml", plan);
    for name in ["empty", "newer", "not-json", "unknown-key", "twice", "stray-chunk"] {
        let path = format!("scripts/{name}.jsonl");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans").join(&path);
        dir.write(&path, fs::read(from).unwrap());
    }
    dir
}

#[test]
fn errors_show_their_location() {
    check_all("plans/invalid", |name, text| {
        let dir = dir(text);
        let finished = dir.greenwave(["run", "plan.toml", "--no-metrics"]).run();
        snapshots::check_beside("plans/invalid", name, &finished.stderr);
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(2), ""), "{name}");
        assert_eq!(fs::read_dir(dir.path("project")).unwrap().count(), 1, "{name}: the project was changed");
    });
}

#[test]
fn graph_and_run_report_the_same_errors() {
    for name in ["cycle", "unknown-key", "project-missing", "settings-file"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/plans/invalid/{name}.toml"));
        let dir = dir(&fs::read_to_string(path).unwrap());
        let [graph, run] = [["graph", "plan.toml"], ["run", "plan.toml"]]
            .map(|args| dir.greenwave(args).run().with_code(2).stderr);
        assert_eq!(graph, run, "{name}");
    }
}

#[test]
fn valid_plans_have_graphs() {
    check_all("plans/valid", |name, text| {
        let dir = dir(text);
        for format in ["mermaid", "dot"] {
            let finished = dir.greenwave(["graph", "plan.toml", "--format", format]).run().with_code(0);
            assert_eq!(finished.stderr, "");
            snapshots::check_beside("plans/valid", &format!("{name}.{format}"), &finished.stdout);
        }
        assert_eq!(fs::read_dir(dir.path("project")).unwrap().count(), 1, "{name}: the project was changed");
    });
}

#[test]
fn init_creates_a_valid_plan() {
    let dir = TestDir::empty();
    let finished = dir.greenwave(["init"]).run().with_code(0);
    assert_snapshot!(finished.stdout, @"Created plan.toml. Edit it, then run: greenwave run plan.toml");
    let graph = dir.greenwave(["graph", "plan.toml"]).run().with_code(0);
    snapshots::check("init_graph", &graph.stdout);
    let files: Vec<_> = dir.files("").into_keys().collect();
    assert_eq!(files, ["plan.toml"]);
}

#[test]
fn init_overwrites_no_file() {
    let dir = TestDir::empty().with("mine.toml", "# mine\n").with("dir/x", "");
    let finished = dir.greenwave(["init", "mine.toml"]).run().with_code(2);
    assert_snapshot!(finished.stderr, @r"
    error: cannot create mine.toml
      caused by: File exists (os error 17)
    hint: edit or remove the existing file
    ");
    assert_eq!(dir.read("mine.toml"), "# mine\n");
    let finished = dir.greenwave(["init", "dir"]).run().with_code(2);
    assert_snapshot!(finished.stderr, @r"
    error: cannot create dir
      caused by: File exists (os error 17)
    hint: edit or remove the existing file
    ");
    let finished = dir.greenwave(["init", "nowhere/plan.toml"]).run().with_code(2);
    assert_snapshot!(finished.stderr, @r"
    error: cannot create nowhere/plan.toml
      caused by: No such file or directory (os error 2)
    hint: create the parent directory first
    ");
}
