//! Compares the fenced code blocks of whole documents with pulldown-cmark: inside quotes, lists and
//! HTML, with tabs and paragraphs around them.

use greenwave_streaming::conformance::units;
use greenwave_streaming::{Fences, UnitKind};
use proptest::prelude::*;
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

/// Returns the info strings and contents found by the reference. The last line ending of an
/// unclosed block is not compared.
fn reference(document: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for event in Parser::new(document) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                open = Some((info.to_string(), String::new()));
            }
            Event::Text(text) => open.iter_mut().for_each(|(_, content)| content.push_str(&text)),
            Event::End(TagEnd::CodeBlock) => found.extend(open.take()),
            _ => {}
        }
    }
    found.iter().map(|(info, content)| (info.clone(), without_end(content))).collect()
}

fn found(document: &str) -> Vec<(String, String)> {
    let (seen, error) = units(Fences::default(), [document.as_bytes()]);
    assert!(error.is_none(), "{error:?}");
    let text = |bytes: &[u8]| without_end(&String::from_utf8_lossy(bytes));
    seen.iter()
        .map(|unit| {
            assert_eq!(unit.kind, UnitKind::Code);
            (unit.info.clone().unwrap_or_default(), text(&unit.bytes))
        })
        .collect()
}

fn without_end(text: &str) -> String {
    text.strip_suffix('\n').unwrap_or(text).to_owned()
}

#[track_caller]
fn check(document: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(info, text)| (info.to_string(), text.to_string())).collect();
    assert_eq!(found(document), expected, "{document:?}");
    assert_eq!(reference(document), expected, "the reference of {document:?}");
}

/// Comments give the number of the example in the specification, 0.31.2.
#[test]
fn blocks_in_files_in_lists_and_quotes() {
    check("> ```\n> aaa\n\nbbb\n", &[("", "aaa")]); // 128
    check("> ```\naaa\n```\n", &[("", ""), ("", "")]); // 237
    check("1.  foo\n\n    ```\n    bar\n    ```\n\n    baz\n\n    > bam\n", &[("", "bar")]); // 263
    check("-\n  foo\n-\n  ```\n  bar\n  ```\n-\n      baz\n", &[("", "bar")]); // 278
    check("- a\n- ```\n  b\n\n\n  ```\n- c\n", &[("", "b\n\n")]); // 318
    check("- a\n  > b\n  ```\n  c\n  ```\n- d\n", &[("", "c")]); // 321
    check("1. ```\n   foo\n   ```\n\n   bar\n", &[("", "foo")]); // 324
    check("- ```\n  b\n  ```\n- c\n", &[("", "b")]);
    check("- ```\n  b\n- c\n", &[("", "b")]);
    check("> - ```rust\n>   a\n>\tb\n>   ```\n", &[("rust", "a\nb")]);
    check("- > ```\n  > a\n  >   b\n  > ```\n", &[("", "a\n  b")]);
    check("1. a\n\n  ```\n  b\n  ```\n", &[("", "b")]);
    check("<pre>\n```\na\n```\n</pre>\n", &[]);
    check("<div>\n```\na\n```\n\n```\nb\n```\n", &[("", "b")]);
    check("<!-- a\n\n```\nb\n```\n-->\n```\nc\n```\n", &[("", "c")]);
    check("<custom a=\"b\">\n```\na\n```\n", &[]);
    check("text\n<custom>\n```\na\n```\n", &[("", "a")]);
}

/// Generates lines that open, close and hide fences.
fn lines() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec!["```", "~~~", "````", "```rust", "~~~ a b", "``` x"]),
        4 => prop::sample::select(vec!["a", "b c", "# d", "---", "===", "***", "- - -", "10. e", "+", "-", "1.", "2) f"]),
        4 => prop::sample::select(vec!["> ", ">", "- ", "* ", "1. ", "2. ", "10) ", "-   ", "-\t", "> > ", "- - ", ">\t"]),
        4 => prop::sample::select(vec![" ", "  ", "   ", "    ", "\t", "     "]),
        1 => prop::sample::select(vec!["<div>", "</div>", "<pre>", "x</pre>", "<x>", "<!-- y", "-->", "<?z", "?>", "<b> c"]),
        1 => prop::sample::select(vec!["é", "|", "x y", "`a`", "\u{a0}"]),
    ];
    // The reference rejects a tab after a closing fence, which the specification allows, and treats
    // `\t>` after `>` as a quote, although it is indented code.
    prop::collection::vec(piece, 0..5)
        .prop_map(|pieces| pieces.concat().replace("\t>", "\t").trim_end_matches([' ', '\t']).to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn documents_match_the_reference(lines in prop::collection::vec(lines(), 0..12)) {
        let document = lines.join("\n") + "\n";
        prop_assert_eq!(found(&document), reference(&document), "{:?}", document);
    }
}
