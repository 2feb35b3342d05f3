//! The tests that `docs/run-tests.md` names for the promises of runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Adds `file::test` for each function in the source files below a directory. A file `tests.rs`
/// has its directory's name as well, and other files may be named with theirs.
fn add_tests(directory: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            if entry.file_name() != "target" {
                add_tests(&path, tests);
            }
            continue;
        }
        let Some(stem) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".rs")) else {
            continue;
        };
        let above = directory.file_name().unwrap_or_default().to_string_lossy();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("async ").unwrap_or(line);
            if let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('(')) {
                tests.insert(format!("{stem}::{name}"));
                tests.insert(format!("{above}/{stem}::{name}"));
            }
        }
    }
}

fn headings(text: &str) -> BTreeSet<&str> {
    let headings = text.lines().filter(|line| line.starts_with("## ") || line.starts_with("### "));
    headings.map(|line| line.trim_start_matches('#').trim()).collect()
}

#[test]
fn each_section_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut tests = BTreeSet::new();
    add_tests(&root.join("crates"), &mut tests);
    let read = |name: &str| fs::read_to_string(root.join("docs").join(name)).unwrap();
    let claims = read("run-tests.md");
    let named: Vec<&str> = claims.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
    assert!(named.len() > 100, "{}", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(missing.is_empty(), "tests that do not exist: {missing:#?}");
    for page in ["run.md", "confinement.md"] {
        let page = read(page);
        let without: Vec<&str> = headings(&page).difference(&headings(&claims)).copied().collect();
        assert!(without.is_empty(), "sections without tests: {without:?}");
    }
}
