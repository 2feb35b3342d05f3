//! Runs the conformance suite on every splitter, and tests random chunkings of random inputs.

use greenwave_streaming::conformance::{chunked, units};
use greenwave_streaming::{
    Cap, Delimited, Fences, Files, Json, Lines, Paragraphs, Sentences, Splitter, Sse, splitter_conformance,
};
use proptest::prelude::*;

/// A response with every construct that the splitters recognize and all line endings.
const RESPONSE: &str = "Sure, here it is.\r\n\n### `src/lib.rs`\n\n```rust\nfn main() {\r\n    \"äö€😀\"\n}\n```\n\n  ~~~ toml Cargo.toml\n  \
    a = 1\n\tb\n  ~~~\n**notes.md**\r```\rend\r```\r{\"a\":[1,\"}\"]} 12\n\ndata: {}\nid: 1\n\ndata: a\ndata: b\n\n````x.rs\nopen";

const EVENTS: &str =
    "\u{feff}:hi\nid:1\ndata:a\r\n\r\nevent:e\rdata:b\rdata:ö\r\rid:2\n\ndata:c\n\nretry:5\ndata:d";

/// Files in elements, edits and diffs.
const ELEMENTS: &str = "<path>a.rs</path>\n<content>\nx\n</content>\n<file path=\"b.md\">y</file>\n<file path='c.rs'>\n```rust\nz\n```\n</file>\n\
    d.rs\n<<<<<<< SEARCH\n1\n=======\n2\n>>>>>>> REPLACE\ndiff --git a b\n+1\nend\n```\n*** Begin Patch\n```\n<source>\n";

/// Fences in lists, quotes and files.
const NESTED: &str = "1. a.rs\n   ```\n   x\n  y\n   ```\n> b.rs\n> ```\n> z\n> ```\nc.md\n```\n```sh\nq\n```\n```\n\nd.md\n```\na\n```\nb\n```\nc\n```\n- ```\n  open\nx\n";

macro_rules! suites {
    ($($name:ident: $make:expr, [$($input:expr),* $(,)?];)*) => {
        $(mod $name {
            use super::*;
            splitter_conformance! { $make, [RESPONSE.as_bytes(), EVENTS.as_bytes(), b"\xff\n\x80\x80\x80\x80\x80", $($input.as_bytes()),*] }
        })*
    };
}

suites! {
    lines: Lines::default, ["\r", "\n", "a\r\n\r\nb"];
    lines_split: || Lines::new(Cap::split(5)), ["aaaaaaaaaaa\r\n€€€€€€\n"];
    lines_capped: || Lines::new(Cap::error(40)), ["a\n"];
    delimited: || Delimited::new(b"\n\n", Cap::default()), ["\n\n\n", "\n\n\n\n"];
    delimited_split: || Delimited::new(b"--", Cap::split(4)), ["a--bcdefghij--€€€€--", "abcd-", "abcde-"];
    paragraphs: Paragraphs::default, ["\r", " \n\n", "a\r\n \t\r\nb\r\r", "a\r"];
    paragraphs_split: || Paragraphs::new(Cap::split(5)), ["ab\ncdefgh\n\n€€€€", "ab\n      \n", "abcd   x\n\n"];
    paragraphs_capped: || Paragraphs::new(Cap::error(8)), ["abc\n      \n\nd", "abcdefgh\n\n"];
    sentences: Sentences::default, ["One. Two! \"Three?\" 4. five. 6 Seven.", "a. (1) 2 b. (1) 2", "U.S. 3.14 x.\u{300} Y"];
    sentences_split: || Sentences::new(Cap::split(5)), ["abc. 1 2 3 4 B. €€€€. C", "a. 1 2 3\n"];
    sentences_capped: || Sentences::new(Cap::error(9)), ["Abc. Def. ghijkl. mn"];
    fences: Fences::default, ["```\n", "```\r", "~~~a\n~~~"];
    fences_split: || Fences::new(Cap::split(6)), ["```\nabc\nabcdefghijkl\n```\n", "  ```\n  ab\n  abcdefgh\n  c\n  ```\n"];
    fences_capped: || Fences::new(Cap::error(8)), ["```\n12345678\n```"];
    files: Files::default, ["a.rs\n```\nx\n```\n", "# a.rs\n\n\n```\nx", ELEMENTS, NESTED];
    files_split: || Files::new(Cap::split(6)), ["a.rs\n```\nabcdefghijkl\n```\n", ELEMENTS, NESTED];
    files_capped: || Files::new(Cap::error(24)), [ELEMENTS, NESTED];
    nested_fences: Fences::default, [NESTED, "> ```\n> a\nb\n", "- > ```\n  > a\n  > ```\n- b"];
    nested_fences_split: || Fences::new(Cap::split(5)), [NESTED, "> ```\n> abcdefghij\nbcdefghijk\n> ```\n"];
    json: Json::default, ["[1,2] {\"a\":\"\\\"\"} true", "]"];
    json_capped: || Json::new(8, 3), ["[[1]]", "[[[[", "[1,2,3,4,5,6]", "{\"a\":1]"];
    sse: Sse::default, ["data:a\n\n", "\r\n\r\n"];
    sse_capped: || Sse::new(12), ["data:abc\r\n\r\ndata:abcdefghi\n\n"];
}

/// Generates text with frequent fences, brackets, fields and line endings.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("```"),
        Just("~~~"),
        Just("`"),
        Just(" "),
        Just("  "),
        Just("\t"),
        Just("\n"),
        Just("\r"),
        Just("\r\n"),
        Just("a.rs"),
        Just("# "),
        Just("data:"),
        Just("id:1"),
        Just("event:e"),
        Just(":"),
        Just("\u{feff}"),
        Just("€"),
        Just("word"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just("\""),
        Just("\\"),
        Just("12"),
        Just(","),
        Just("\n\n"),
        Just(". "),
        Just("? "),
        Just(" Word"),
        Just("\0"),
        Just("> "),
        Just("\n- "),
        Just("\n> "),
        Just("```md a.md\n"),
        Just("\n```sh\n"),
        Just("\n```\n"),
        Just("<path>a.rs</path>"),
        Just("<content>"),
        Just("</content>"),
        Just("<file path='a.rs'>"),
        Just("<<<<<<< SEARCH\n"),
        Just(">>>>>>> REPLACE\n"),
        Just("diff --git a b\n"),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn same<S: Splitter>(make: impl Fn() -> S, input: &str, sizes: &[usize]) -> Result<(), TestCaseError> {
    let mut sizes = sizes.iter().copied().cycle();
    let chunks = chunked(input.as_bytes(), &mut || sizes.next().unwrap_or(1));
    let (whole, cut) = (units(make(), [input.as_bytes()]), units(make(), chunks));
    prop_assert_eq!(format!("{cut:?}"), format!("{whole:?}"));
    Ok(())
}

proptest! {
    #[test]
    fn any_chunking(input in pieces(), sizes in prop::collection::vec(1_usize..9, 1..8)) {
        same(Lines::default, &input, &sizes)?;
        same(|| Lines::new(Cap::split(5)), &input, &sizes)?;
        same(|| Delimited::new(b"\n\n", Cap::split(7)), &input, &sizes)?;
        same(Paragraphs::default, &input, &sizes)?;
        same(|| Paragraphs::new(Cap::split(6)), &input, &sizes)?;
        same(|| Paragraphs::new(Cap::error(11)), &input, &sizes)?;
        same(Sentences::default, &input, &sizes)?;
        same(|| Sentences::new(Cap::split(6)), &input, &sizes)?;
        same(Fences::default, &input, &sizes)?;
        same(|| Fences::new(Cap::split(6)), &input, &sizes)?;
        same(|| Fences::new(Cap::error(6)), &input, &sizes)?;
        same(Files::default, &input, &sizes)?;
        same(|| Files::new(Cap::split(9)), &input, &sizes)?;
        same(Json::default, &input, &sizes)?;
        same(|| Json::new(9, 2), &input, &sizes)?;
        same(Sse::default, &input, &sizes)?;
        same(|| Sse::new(16), &input, &sizes)?;
    }
}
