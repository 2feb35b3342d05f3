//! Each rule of tidiness, broken by a text made for it.

use super::*;

#[track_caller]
fn check(file: &str, text: &str, expected: &[(usize, &str)]) {
    let found = check_text(Path::new(file), text);
    let lines: Vec<_> = found.iter().map(|(line, problem)| (*line, problem.as_str())).collect();
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for ((line, problem), (expected_line, part)) in lines.iter().zip(expected) {
        assert!(
            line == expected_line && problem.contains(part),
            "{line}: {problem}\nwanted {expected_line}: {part}"
        );
    }
}

#[test]
fn the_first_line_of_a_source_file_says_what_it_does() {
    check("a.rs", "//! Does something.\n", &[]);
    check("a.rs", "use std::fmt;\n", &[(1, "line 1")]);
    check("a.rs", "", &[(1, "line 1")]);
    check("crates/greenwave-cli/demo/project/crates/ast/src/lib.rs", "mod ast;\n", &[]);
}

#[test]
fn unfinished_work_is_found_everywhere() {
    let [comment, ..] = UNFINISHED;
    check("docs/a.md", &format!("Good.\n{comment}: better\n"), &[(2, "unfinished")]);
    check("tests/it/main.rs", &format!("//! Tests.\n// {comment}\n"), &[(2, "unfinished")]);
}

#[test]
fn panics_on_input_are_for_tests() {
    let panics = format!("//! Docs.\nfn f() {{ g(){PANICS} }}\n");
    check("src/a.rs", &panics, &[(2, "is for tests")]);
    check("tests/it/a.rs", &panics, &[]);
    check("src/a/tests.rs", &panics, &[]);
    check(
        "src/a.rs",
        &format!("//! Docs.\n//! g(){PANICS}\n#[cfg(test)]\nmod tests {{\n g(){PANICS}\n}}\n"),
        &[],
    );
}

#[test]
fn paths_of_one_machine_are_found() {
    let [home, ..] = ELSEWHERE;
    check("a.toml", &format!("path = \"{home}somebody/x\"\n"), &[(1, "one machine only")]);
    check("a.toml", &format!("path = \"project{home}x\"\n"), &[]);
}

#[test]
fn packages_from_other_places_are_found() {
    let line = |source: &str| format!("[[package]]\nsource = \"{source}\"\n");
    check("Cargo.lock", &line(REGISTRY), &[]);
    check("Cargo.lock", &line("registry+https://example.org/index"), &[(2, "comes from")]);
    check("Cargo.lock", &line("git+https://example.org/a"), &[(2, "comes from")]);
}

#[test]
fn manifests_that_lack_something_are_found() {
    let check = |manifest: &str, is_library, expected: &[&str]| {
        assert_eq!(check_manifest(manifest, is_library), expected);
    };
    let lints = "[lints]\nworkspace = true\n";
    check(&format!("[lib]\nbench = false\n{lints}"), true, &[]);
    check(&format!("[lib]\npath = \"x\"\n{lints}"), true, &["[lib] has no `bench = false`"]);
    check(lints, true, &["[lib] has no `bench = false`"]);
    check(lints, false, &[]);
    check(&format!("[[bin]]\nname = \"x\"\n{lints}"), false, &["[[bin]] has no `bench = false`"]);
    check("[package]\nname = \"x\"\n", false, &["[lints] has no `workspace = true`"]);
}

#[test]
fn names_that_say_nothing_are_found() {
    assert!(check_name(Path::new("src/utils.rs")).is_some());
    assert!(check_name(Path::new("src/cache/mod.rs")).is_some());
    assert!(check_name(Path::new("src/cache.rs")).is_none());
}

#[test]
fn links_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("there.md"),
        "# A title, really\n```\n# no title\n```\n## `Twice`\n## Twice\n",
    )
    .unwrap();
    let check = |text: &str, expected: usize| {
        let broken = check_links(folder.path(), Path::new("page.md"), text);
        assert_eq!(broken.len(), expected, "{text}: {broken:?}");
    };
    check("[a](there.md) and [b](there.md#a-title-really) and [c](https://example.org/x)", 0);
    check("[a](there.md#twice) [b](there.md#twice-1) [c](there.md#twice-2)", 1);
    check("[a](gone.md)", 1);
    check("[a](there.md#no-title) [b](there.md#gone)", 2);
    check("`[a](gone.md)`\n```\n[b](gone.md)\n```\n", 0);
}

#[test]
fn examples_of_the_front_page_are_excerpts() {
    let docs = "//! ```\n//! let a = 1;\n//! # hidden();\n//! let b = 2;\n//! ```\n";
    let page = "### `a-crate`\n```rust\nlet a = 1;\n\nlet b = 2;\n```\n";
    let found = examples(page);
    assert_eq!(found, [("a-crate", vec!["let a = 1;", "", "let b = 2;"])]);
    assert_eq!(first_foreign_line(&found[0].1, docs), None);
    assert_eq!(first_foreign_line(&["let b = 2;", "let a = 1;"], docs), Some("let a = 1;"));
    assert_eq!(first_foreign_line(&["let c = 3;"], docs), Some("let c = 3;"));
}
