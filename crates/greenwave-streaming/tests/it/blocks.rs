//! Tests fenced code blocks with the examples of CommonMark 0.31.2, and files in responses.

use greenwave_streaming::conformance::units;
use greenwave_streaming::{Cap, Error, Fences, Files, UnitKind};

use crate::{marked, texts};

#[track_caller]
fn check(input: &str, expected: &[(&str, &str)]) {
    let (found, error) = units(Fences::default(), [input.as_bytes()]);
    assert!(error.is_none(), "{error:?}");
    let found: Vec<_> =
        found.iter().map(|unit| (unit.info.clone().unwrap_or_default(), marked(unit))).collect();
    let expected: Vec<_> = expected.iter().map(|(info, text)| (info.to_string(), text.to_string())).collect();
    assert_eq!(found, expected, "{input:?}");
}

/// Comments give the number of the example in the specification.
#[test]
fn commonmark_examples() {
    check("```\n<\n >\n```\n", &[("", "<\n >\n")]); // 119
    check("~~~\n<\n >\n~~~\n", &[("", "<\n >\n")]); // 120
    check("``\nfoo\n``\n", &[]); // 121
    check("```\naaa\n~~~\n```\n", &[("", "aaa\n~~~\n")]); // 122
    check("~~~\naaa\n```\n~~~\n", &[("", "aaa\n```\n")]); // 123
    check("````\naaa\n```\n``````\n", &[("", "aaa\n```\n")]); // 124
    check("~~~~\naaa\n~~~\n~~~~\n", &[("", "aaa\n~~~\n")]); // 125
    check("```\n", &[("", "…")]); // 126
    check("`````\n\n```\naaa\n", &[("", "\n```\naaa\n…")]); // 127
    check("```\n\n  \n```\n", &[("", "\n  \n")]); // 129
    check("```\n```\n", &[("", "")]); // 130
    check(" ```\n aaa\naaa\n```\n", &[("", "aaa\naaa\n")]); // 131
    check("  ```\naaa\n  aaa\naaa\n  ```\n", &[("", "aaa\naaa\naaa\n")]); // 132
    check("   ```\n   aaa\n    aaa\n  aaa\n   ```\n", &[("", "aaa\n aaa\naaa\n")]); // 133
    check("    ```\n    aaa\n    ```\n", &[]); // 134
    check("```\naaa\n  ```\n", &[("", "aaa\n")]); // 135
    check("   ```\naaa\n  ```\n", &[("", "aaa\n")]); // 136
    check("```\naaa\n    ```\n", &[("", "aaa\n    ```\n…")]); // 137
    check("``` ```\naaa\n", &[]); // 138
    check("~~~~~~\naaa\n~~~ ~~\n", &[("", "aaa\n~~~ ~~\n…")]); // 139
    check("foo\n```\nbar\n```\nbaz\n", &[("", "bar\n")]); // 140
    check("foo\n---\n~~~\nbar\n~~~\n# baz\n", &[("", "bar\n")]); // 141
    check("```ruby\ndef foo(x)\n  return 3\nend\n```\n", &[("ruby", "def foo(x)\n  return 3\nend\n")]); // 142
    check(
        "~~~~    ruby startline=3 $%@#$\ndef foo(x)\n  return 3\nend\n~~~~~~~\n",
        &[("ruby startline=3 $%@#$", "def foo(x)\n  return 3\nend\n")],
    ); // 143
    check("````;\n````\n", &[(";", "")]); // 144
    check("``` aa ```\nfoo\n", &[]); // 145
    check("~~~ aa ``` ~~~\nfoo\n~~~\n", &[("aa ``` ~~~", "foo\n")]); // 146
    check("```\n``` aaa\n```\n", &[("", "``` aaa\n")]); // 147
}

#[test]
fn other_line_endings_and_tabs() {
    check("```rust\r\na\r\n```\r\n", &[("rust", "a\r\n")]);
    check("```\ra\r```\r", &[("", "a\r")]);
    check("  ```\n\ta\n \tb\n  ```", &[("", "  a\n  b\n")]);
    check("\t```\na\n", &[]);
    check("```", &[("", "…")]);
    check("```\na\n```", &[("", "a\n")]);
    check("```\na", &[("", "a…")]);
}

#[test]
fn long_prose_is_skipped() {
    let prose = "x".repeat(1 << 20);
    check(&format!("{prose}\n```\na\n```\n{prose}"), &[("", "a\n")]);
}

#[test]
fn long_blocks_are_split_at_lines_where_possible() {
    let cap = Cap::split(8);
    let (found, _) = texts(Fences::new(cap), b"```\nabc\ndef\nghi\n```\n");
    assert_eq!(found, ["abc\ndef\n…", "…ghi\n"]);
    let (found, _) = texts(Fences::new(cap), b"```\nabcdefghijkl\nm\n```\n");
    assert_eq!(found, ["abcdefgh…", "…ijkl\nm\n"]);
    let (_, error) = texts(Fences::new(Cap::error(8)), b"```\nabc\ndef\nghi\n```\n");
    assert!(matches!(error, Some(Error::UnitTooLong { offset: 4, bytes_max: 8 })), "{error:?}");
}

#[track_caller]
fn check_files(input: &str, expected: &[(&str, Option<&str>, &str)]) {
    let (found, error) = units(Files::default(), [input.as_bytes()]);
    assert!(error.is_none(), "{error:?}");
    let found: Vec<_> = found
        .iter()
        .map(|unit| {
            assert_eq!(unit.path.is_some(), unit.kind == UnitKind::File);
            (unit.path.clone().unwrap_or_default(), unit.info.clone(), marked(unit))
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(path, info, text)| (path.to_string(), info.map(str::to_owned), text.to_string()))
        .collect();
    assert_eq!(found, expected, "{input:?}");
}

#[test]
fn files_by_info_string() {
    check_files(
        "Two files.\n\n```rust src/lib.rs\na\n```\n\nand\n\n```toml:Cargo.toml\nb\n```\n",
        &[("src/lib.rs", Some("rust src/lib.rs"), "a\n"), ("Cargo.toml", Some("toml:Cargo.toml"), "b\n")],
    );
    check_files("```../../etc/passwd\na\n```\n", &[("../../etc/passwd", Some("../../etc/passwd"), "a\n")]);
}

#[test]
fn files_by_the_line_above() {
    check_files("### `src/lib.rs`\n\n```rust\na\n```\n", &[("src/lib.rs", Some("rust"), "a\n")]);
    check_files("src/lib.rs\n```\na\n```\n", &[("src/lib.rs", None, "a\n")]);
    check_files("**src/lib.rs**\r\n```rust\r\na\r\n```", &[("src/lib.rs", Some("rust"), "a\r\n")]);
    check_files("### a.rs\n```rust b.rs\na\n```\n", &[("b.rs", Some("rust b.rs"), "a\n")]);
}

#[test]
fn blocks_without_a_path_are_code() {
    check_files("### src/lib.rs\n\n\n```rust\na\n```\n", &[("", Some("rust"), "a\n")]);
    check_files("### src/lib.rs\nAdd this at the end:\n```rust\na\n```\n", &[("", Some("rust"), "a\n")]);
    check_files("src/lib.rs\ntext\n```rust\na\n```\n", &[("", Some("rust"), "a\n")]);
    check_files("### a.rs\n```\na\n```\n```\nb\n```\n", &[("a.rs", None, "a\n"), ("", None, "b\n")]);
    check_files("Add to `Cargo.toml`:\n```\na\n```\n", &[("", None, "a\n")]);
}

#[test]
fn an_unclosed_file_is_incomplete() {
    check_files("```rust a.rs\nfn main() {", &[("a.rs", Some("rust a.rs"), "fn main() {…")]);
    check_files("```rust a.rs", &[("a.rs", Some("rust a.rs"), "…")]);
}

#[test]
fn a_longer_fence_can_enclose_fences() {
    check_files(
        "````markdown README.md\n```\ncode\n```\n````\n",
        &[("README.md", Some("markdown README.md"), "```\ncode\n```\n")],
    );
}
