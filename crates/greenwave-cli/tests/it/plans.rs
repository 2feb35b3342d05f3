//! Plans in files: sound ones with their graphs, and others with what is said of them. A new plan in
//! `tests/plans/` is a new test; `INSTA_UPDATE=always` writes down what is said of it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use crate::folder::Folder;
use crate::shown;

const SCRIPT: &str = "{\"greenwave_script\": 1}\n";

/// The TOML files of a folder beside this one, in the order of their names.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

/// Checks every file of a folder, and fails in the end if any did not pass.
pub(crate) fn check_all(folder: &str, check: impl Fn(&str, &str)) {
    let mut failed = Vec::new();
    for path in files(folder) {
        let (name, text) = (path.file_stem().unwrap().to_str().unwrap(), fs::read_to_string(&path).unwrap());
        if catch_unwind(AssertUnwindSafe(|| check(name, &text))).is_err() {
            failed.push(name.to_owned());
        }
    }
    assert!(failed.is_empty(), "{} in tests/{folder}: {failed:?}", failed.len());
}

/// A folder with everything that the plans speak of.
fn folder(plan: &str) -> Folder {
    let folder = Folder::with_project().with("answers.jsonl", SCRIPT).with("plan.toml", plan);
    for name in ["empty", "newer", "not-json", "unknown-key", "twice", "stray-chunk"] {
        let path = format!("scripts/{name}.jsonl");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans").join(&path);
        folder.write(&path, fs::read(from).unwrap());
    }
    folder
}

#[test]
fn mistakes_are_told_with_their_place() {
    check_all("plans/invalid", |name, text| {
        let folder = folder(text);
        let finished = folder.greenwave(["run", "plan.toml", "--no-metrics"]).run();
        shown::check_beside("plans/invalid", name, &finished.stderr);
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(2), ""), "{name}");
        assert_eq!(
            fs::read_dir(folder.path("project")).unwrap().count(),
            1,
            "{name}: the project was touched"
        );
    });
}

/// A mistake is the same one whoever finds it.
#[test]
fn graph_tells_what_run_tells() {
    for name in ["cycle", "unknown-key", "project-missing", "configuration"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/plans/invalid/{name}.toml"));
        let folder = folder(&fs::read_to_string(path).unwrap());
        let [graph, run] = [["graph", "plan.toml"], ["run", "plan.toml"]]
            .map(|args| folder.greenwave(args).run().with_code(2).stderr);
        assert_eq!(graph, run, "{name}");
    }
}

#[test]
fn graphs_of_sound_plans() {
    check_all("plans/valid", |name, text| {
        let folder = folder(text);
        for format in ["mermaid", "dot"] {
            let finished = folder.greenwave(["graph", "plan.toml", "--format", format]).run().with_code(0);
            assert_eq!(finished.stderr, "");
            shown::check_beside("plans/valid", &format!("{name}.{format}"), &finished.stdout);
        }
        assert_eq!(
            fs::read_dir(folder.path("project")).unwrap().count(),
            1,
            "{name}: the project was touched"
        );
    });
}

#[test]
fn init_writes_a_plan_that_can_be_read() {
    let folder = Folder::empty();
    let finished = folder.greenwave(["init"]).run().with_code(0);
    assert_snapshot!(finished.stdout, @"Wrote plan.toml. Edit it, then: greenwave run plan.toml");
    let graph = folder.greenwave(["graph", "plan.toml"]).run().with_code(0);
    shown::check("init_graph", &graph.stdout);
    let files: Vec<_> = folder.files("").into_keys().collect();
    assert_eq!(files, ["plan.toml"]);
}

#[test]
fn init_overwrites_nothing() {
    let folder = Folder::empty().with("mine.toml", "# mine\n").with("folder/x", "");
    let finished = folder.greenwave(["init", "mine.toml"]).run().with_code(2);
    assert_snapshot!(finished.stderr, @r"
    error: mine.toml is there already, and is not overwritten
    hint: name another place
    ");
    assert_eq!(folder.read("mine.toml"), "# mine\n");
    let finished = folder.greenwave(["init", "folder"]).run().with_code(2);
    assert_snapshot!(finished.stderr, @r"
    error: folder is there already, and is not overwritten
    hint: name another place
    ");
    let finished = folder.greenwave(["init", "nowhere/plan.toml"]).run().with_code(2);
    assert_snapshot!(finished.stderr, @r"
    error: cannot write nowhere/plan.toml
      caused by: No such file or directory (os error 2)
    ");
}

/// What is said of a command line that is none.
#[test]
fn command_lines_that_are_none() {
    let folder = Folder::empty();
    for args in [
        &["rn"][..],
        &["run"],
        &["run", "a.toml", "b.toml"],
        &["graph", "plan.toml", "--format", "svg"],
        &["run", "a.toml", "--pace", "slow"],
        &["profile"],
    ] {
        let finished = folder.greenwave(args.iter().copied()).run().with_code(2);
        assert_eq!(finished.stdout, "", "{args:?}");
        assert!(
            ["error: ", "Look at "].iter().any(|start| finished.stderr.starts_with(start)),
            "{args:?}: {}",
            finished.stderr
        );
    }
}
