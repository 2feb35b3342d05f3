//! Violates each rule of tidiness with a text made for it.

use super::*;

#[track_caller]
fn check(file: &str, text: &str, expected: &[(usize, &str)]) {
    let found = check_text(Path::new(file), text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, problem), (expected_line, part)) in found.iter().zip(expected) {
        assert!(
            line == expected_line && problem.contains(part),
            "{line}: {problem}\nexpected {expected_line}: {part}"
        );
    }
}

#[test]
fn the_first_line_of_a_source_file_describes_it() {
    check("a.rs", "//! Reads something.\n", &[]);
    check("a.rs", "use std::fmt;\n", &[(1, "line 1")]);
    check("a.rs", "", &[(1, "line 1")]);
    check("crates/greenwave-cli/demo/project/crates/ast/src/lib.rs", "mod ast;\n", &[]);
}

#[test]
fn unfinished_work_is_reported() {
    let [mark, ..] = UNFINISHED;
    check("docs/a.md", &format!("Good.\n{mark}: better\n"), &[(2, "file an issue")]);
    check("tests/it/main.rs", &format!("//! Tests.\n// {mark}\n"), &[(2, "file an issue")]);
}

#[test]
fn paths_of_one_machine_are_reported() {
    let [home, ..] = FOREIGN_PATHS;
    check("a.toml", &format!("path = \"{home}somebody/x\"\n"), &[(1, "one machine only")]);
    check("a.toml", &format!("path = \"project{home}x\"\n"), &[]);
}

#[test]
fn prose_is_checked_for_width_and_words() {
    let words = WordList::load().unwrap();
    let text = format!("//! A folder.\n// {}\n", "word ".repeat(25));
    let found = check_prose(&words, Path::new("a.rs"), &text);
    let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 1], "{found:?}");
}

#[test]
fn incomplete_manifests_are_reported() {
    let check = |manifest: &str, is_library, expected: &[&str]| {
        assert_eq!(check_manifest(manifest, is_library, false), expected);
    };
    let lints = "[lints]\nworkspace = true\n";
    check(&format!("[lib]\nbench = false\n{lints}"), true, &[]);
    check(&format!("[lib]\npath = \"x\"\n{lints}"), true, &["[lib] lacks `bench = false`"]);
    check(lints, true, &["[lib] lacks `bench = false`"]);
    check(lints, false, &[]);
    check(&format!("[[bin]]\nname = \"x\"\n{lints}"), false, &["[[bin]] lacks `bench = false`"]);
    check("[package]\nname = \"x\"\n", false, &["[lints] lacks `workspace = true`"]);
    let library = format!("[lib]\nbench = false\n{lints}");
    let expected = ["[package.metadata.docs.rs] lacks `all-features = true`"];
    assert_eq!(check_manifest(&library, true, true), expected);
    let documented = format!("{library}[package.metadata.docs.rs]\nall-features = true\n");
    assert!(check_manifest(&documented, true, true).is_empty());
}

#[test]
fn meaningless_file_names_are_reported() {
    assert!(check_name(Path::new("src/utils.rs")).is_some());
    assert!(check_name(Path::new("src/cache/mod.rs")).is_some());
    assert!(check_name(Path::new("src/cache.rs")).is_none());
}

#[test]
fn readme_examples_are_excerpts() {
    let docs = "//! ```\n//! let a = 1;\n//! # hidden();\n//! let b = 2;\n//! ```\n";
    let page = "# a-crate\n```rust\nlet a = 1;\n\nlet b = 2;\n```\n";
    let found = examples(page);
    assert_eq!(found, [["let a = 1;", "", "let b = 2;"]]);
    assert_eq!(first_foreign_line(&found[0], docs), None);
    assert_eq!(first_foreign_line(&["let a = 1;", "hidden();"], docs), None);
    assert_eq!(first_foreign_line(&["let b = 2;", "let a = 1;"], docs), Some("let a = 1;"));
    assert_eq!(first_foreign_line(&["let c = 3;"], docs), Some("let c = 3;"));
    assert_eq!(check_examples(page, docs), None);
    assert_eq!(
        check_examples("# a-crate\n```rust\nlet c = 3;\n```\n", docs).as_deref(),
        Some("`let c = 3;` is missing in the example of src/lib.rs")
    );
    assert_eq!(check_examples("# a-crate\n", docs).as_deref(), Some("the page has no example in Rust"));
}
