//! Selections: which files patterns and directories include.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;

use greenwave_inputs::{InputSpec, Manifest, Selection, check_pattern};

use crate::support::{Project, paths};

#[track_caller]
fn check(inputs: &[&str], directories: &[&str], outputs: &[&str], expected: &[&str]) {
    let project = Project::new(&[
        (".gitignore", "*.log\n"),
        ("a/x.c", ""),
        ("a/x.h", ""),
        ("a/deep/y.c", ""),
        ("a/run.log", ""),
        ("a-b/x.c", ""),
        ("b/x.c", ""),
        ("top.c", ""),
    ]);
    let texts = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect();
    let spec = InputSpec {
        inputs: texts(inputs),
        directories: directories.iter().map(Into::into).collect(),
        outputs: texts(outputs),
    };
    let found = paths(&Manifest::read(project.root(), &spec).unwrap());
    assert_eq!(found, expected, "{inputs:?} {directories:?} {outputs:?}");
}

#[test]
fn an_empty_specification_includes_all_files_that_are_not_ignored() {
    let all = [".gitignore", "a-b/x.c", "a/deep/y.c", "a/x.c", "a/x.h", "b/x.c", "top.c"];
    check(&[], &[], &[], &all);
    check(&["!a/**"], &[], &[], &[".gitignore", "a-b/x.c", "b/x.c", "top.c"]);
    check(&[], &[], &["*.c"], &[".gitignore", "a/x.h"]);
}

#[test]
fn patterns_include_ignored_files_and_directories_do_not() {
    check(&["/a/**"], &[], &[], &["a/deep/y.c", "a/run.log", "a/x.c", "a/x.h"]);
    check(&["*.log"], &[], &[], &["a/run.log"]);
    check(&[], &["a"], &[], &["a/deep/y.c", "a/x.c", "a/x.h"]);
    check(&[], &["./a/deep"], &[], &["a/deep/y.c"]);
}

#[test]
fn the_last_matching_pattern_decides_and_outputs_are_never_inputs() {
    check(&["*.c", "!/a/**", "/a/x.c"], &[], &[], &["a-b/x.c", "a/x.c", "b/x.c", "top.c"]);
    check(&["!x.c"], &["a", "b"], &[], &["a/deep/y.c", "a/x.h"]);
    check(&["/a/**"], &[], &["a/x.*"], &["a/deep/y.c", "a/run.log"]);
}

#[test]
fn wrong_patterns_are_explained() {
    assert_eq!(check_pattern("src/**"), Ok(()));
    assert_eq!(check_pattern("!*.md"), Ok(()));
    for nothing in ["", "/", "!", " !/"] {
        let message = check_pattern(nothing).unwrap_err();
        assert_eq!(message, "it matches no file; use `**` for every file of the project", "{nothing:?}");
    }
    assert_eq!(check_pattern("../x").unwrap_err(), "expected a path inside the project, without `..`");
    assert!(check_pattern("a[").is_err());
}

#[test]
fn a_pattern_of_an_output_directory_matches_the_directory_itself() {
    let is_output = |pattern: &str, path: &str| {
        // With the second pattern, both are matched as globs.
        let outputs = vec![pattern.to_owned(), "*.log".to_owned()];
        let spec = InputSpec { outputs, ..InputSpec::default() };
        Selection::of(&spec).unwrap().is_output(Path::new(path))
    };
    for pattern in ["build/out/", "/build/out", "build/out/**", "out/"] {
        assert!(is_output(pattern, "build/out"), "{pattern}");
        assert!(is_output(pattern, "build/out/a"), "{pattern}");
        assert!(!is_output(pattern, "build"), "{pattern}");
        assert!(!is_output(pattern, "build/outer"), "{pattern}");
    }
    assert!(is_output("out/**", "out") && !is_output("out/**", "build/out"));
}
