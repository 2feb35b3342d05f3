//! Small crates with and without circles.

use super::*;

/// Checks the circles of a crate, given as files and their text.
#[track_caller]
fn check(files: &[(&str, &str)], expected: &[&str]) {
    let texts: Vec<_> = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
    let found: Vec<_> = circles_of(&texts).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

#[test]
fn files_in_one_direction_pass() {
    check(
        &[
            ("lib.rs", "mod a;\nmod b;\npub use a::A;\n"),
            ("a.rs", "use crate::b::B;\npub struct A(B);\n"),
            ("b.rs", "use std::fmt;\npub struct B;\n"),
        ],
        &[],
    );
}

#[test]
fn two_files_that_import_each_other_are_a_circle() {
    check(
        &[
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a.rs", "use crate::b::B;\npub struct A(B);\n"),
            ("b.rs", "pub struct B;\n\nfn f() -> crate::a::A { todo() }\n"),
        ],
        &["a.rs -> b.rs -> a.rs (closed by `a::A` at b.rs:3)"],
    );
}

#[test]
fn longer_circles_are_found_and_the_shortest_is_shown() {
    check(
        &[
            ("main.rs", "mod a;\nmod b;\nmod c;\nmod d;\n"),
            ("a.rs", "use crate::{b::B, d};\npub struct A;\n"),
            ("b.rs", "use super::c;\npub struct B;\n"),
            ("c.rs", "use crate::d::D as Renamed;\npub fn c() { super::a::f() }\n"),
            ("d.rs", "use crate::a::A;\npub struct D;\n"),
        ],
        &["a.rs -> d.rs -> a.rs (closed by `a::A` at d.rs:1; one of several circles among 4 files)"],
    );
    check(
        &[
            ("main.rs", "mod a;\nmod b;\nmod c;\n"),
            ("a.rs", "use crate::b::B;\npub struct A;\n"),
            ("b.rs", "use super::c;\npub struct B;\n"),
            ("c.rs", "\npub fn c() { super::a::f() }\n"),
        ],
        &["a.rs -> b.rs -> c.rs -> a.rs (closed by `a::f` at c.rs:2)"],
    );
}

#[test]
fn a_parent_and_its_children_may_import_each_other() {
    check(
        &[
            ("lib.rs", "mod a;\npub struct Root;\n"),
            ("a.rs", "mod b;\nmod c;\npub use b::B;\nuse crate::Root;\npub struct A;\n"),
            ("a/b.rs", "use super::A;\nuse super::c::C;\npub struct B;\n"),
            ("a/c.rs", "use crate::a::A;\npub struct C;\n"),
        ],
        &[],
    );
    // The children among themselves may not.
    check(
        &[
            ("a.rs", "mod b;\nmod c;\npub struct A;\n"),
            ("a/b.rs", "use super::{A, c::C};\npub struct B;\n"),
            ("a/c.rs", "use super::B;\npub struct C;\n"),
            ("a/c/d.rs", ""),
        ],
        &[],
    );
    check(
        &[
            ("a.rs", "mod b;\nmod c;\npub use b::B;\npub struct A;\n"),
            ("a/b.rs", "use super::{A, c::C};\npub struct B;\n"),
            ("a/c.rs", "use super::B;\npub struct C;\n"),
        ],
        &["a/b.rs -> a/c.rs -> a/b.rs (closed by `a::b::B` at a/c.rs:1)"],
    );
}

#[test]
fn a_circle_through_a_parent_and_another_module_is_found() {
    check(
        &[
            ("lib.rs", "mod a;\nmod q;\n"),
            ("a.rs", "mod b;\nuse b::B;\npub struct A;\n"),
            ("a/b.rs", "use crate::q::Q;\nuse super::A;\npub struct B;\n"),
            ("q.rs", "use crate::a::A;\npub struct Q;\n"),
        ],
        &["a.rs -> a/b.rs -> q.rs -> a.rs (closed by `a::A` at q.rs:1)"],
    );
}

#[test]
fn reexports_lead_to_the_file_that_defines_the_item() {
    // `b` imports the error through the root, which takes it from a file that imports nothing.
    check(
        &[
            ("lib.rs", "mod a;\nmod b;\nmod error;\npub use error::*;\npub use a::A;\n"),
            ("a.rs", "use crate::b::B;\nuse crate::Error;\npub struct A;\n"),
            ("b.rs", "use crate::Error;\npub struct B;\n"),
            ("error.rs", "pub struct Error;\n"),
        ],
        &[],
    );
    check(
        &[
            ("lib.rs", "mod a;\nmod b;\npub use a::A;\n"),
            ("a.rs", "use crate::b::B;\npub struct A;\n"),
            ("b.rs", "use crate::A;\npub struct B;\n"),
        ],
        &["a.rs -> b.rs -> a.rs (closed by `a::A` at b.rs:1)"],
    );
}

#[test]
fn macro_arguments_and_inline_modules_count() {
    check(
        &[
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a.rs", "mod inner {\n    use super::super::b::B;\n}\npub struct A;\n"),
            ("b.rs", "pub struct B;\nfn f() {\n    assert!(true, \"{}\", [crate::a::A]);\n}\n"),
        ],
        &["a.rs -> b.rs -> a.rs (closed by `a::A` at b.rs:3)"],
    );
}

#[test]
fn test_code_and_visibility_do_not_count() {
    check(
        &[
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a.rs", "use crate::b::B;\npub(in crate::a) struct A;\n"),
            (
                "b.rs",
                "pub struct B;\n#[cfg(test)]\nuse crate::a::A;\n#[cfg(test)]\nmod tests {\n use crate::a::A;\n}\n",
            ),
        ],
        &[],
    );
}

#[test]
fn invalid_rust_is_an_error() {
    let texts = [(PathBuf::from("a.rs"), "fn {".to_owned())];
    assert!(circles_of(&texts).unwrap_err().to_string().starts_with("cannot parse a.rs:1: "));
}
