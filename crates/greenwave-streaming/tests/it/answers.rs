//! Tests complete answers in the habits of coding tools and chat models. They were written from the
//! formats of the tools before the splitter was read.
//!
//! In the tables, `%%% name` begins an answer and `%%+ kind path` begins a unit that is expected of
//! it, followed by the content of a file. `%%+ none` expects no unit but code blocks.

use greenwave_streaming::conformance::{UnitRecord, chunked, units};
use greenwave_streaming::{Files, UnitKind};

const TABLES: [&str; 5] = [
    include_str!("answers/labels.txt"),
    include_str!("answers/forms.txt"),
    include_str!("answers/containers.txt"),
    include_str!("answers/more.txt"),
    include_str!("answers/later.txt"),
];

/// The units of an answer other than code blocks: kind with path, and content.
type Seen = Vec<(String, String)>;

/// Returns the units of an answer, which must not depend on how it is chunked.
#[track_caller]
fn seen(answer: &str) -> Seen {
    let (whole, error) = units(Files::default(), [answer.as_bytes()]);
    assert!(error.is_none(), "{error:?} in {answer}");
    for size in [1, 2, 3, 7] {
        let (cut, _) = units(Files::default(), chunked(answer.as_bytes(), &mut || size));
        assert_eq!(cut, whole, "chunks of {size} of {answer}");
    }
    whole.iter().filter(|unit| unit.kind != UnitKind::Code).map(describe).collect()
}

fn describe(unit: &UnitRecord) -> (String, String) {
    let kind = match unit.kind {
        UnitKind::File if unit.complete => "file",
        UnitKind::File => "incomplete",
        UnitKind::Edit => "edit",
        UnitKind::Diff => "diff",
        _ => "ambiguous",
    };
    let path = unit.path.as_deref().or(unit.edited_path.as_deref()).unwrap_or_default();
    (format!("{kind} {path}"), String::from_utf8_lossy(&unit.bytes).into_owned())
}

/// Returns whether the units are those that a table expects.
fn is_expected(seen: &Seen, expected: &[(&str, &str)]) -> bool {
    match expected {
        [("none", _)] => seen.is_empty(),
        [("anything-but-file", _)] => seen.iter().all(|(what, _)| !what.starts_with("file")),
        _ => {
            seen.len() == expected.len()
                && seen.iter().zip(expected).all(|((what, text), (wanted, content))| {
                    what == wanted && (text == content || !what.starts_with("file"))
                })
        }
    }
}

#[test]
fn answers_give_the_expected_units() {
    let (mut count, mut wrong) = (0, Vec::new());
    for case in TABLES.iter().flat_map(|table| table.split("%%% ").skip(1)) {
        let (name, rest) = case.split_once('\n').expect("a name");
        let mut parts = rest.split("%%+ ");
        let answer = parts.next().expect("an answer");
        let expected: Vec<_> = parts.map(|part| part.split_once('\n').expect("a line")).collect();
        let seen = seen(answer);
        if !is_expected(&seen, &expected) {
            wrong.push(format!("{name}: {seen:?}, expected {expected:?}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count} answers:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 336, "{count} answers");
}

#[test]
fn lines_above_a_block_name_its_file() {
    for line in include_str!("answers/file-lines.txt").lines() {
        let seen = seen(&format!("Intro.\n\n{line}\n\n```python\nx = 1\n```\n"));
        let [(what, text)] = &seen[..] else { panic!("{line}: {seen:?}") };
        let is_file = ["file src/app.py", "file /src/app.py"].contains(&what.as_str());
        assert!(is_file && text == "x = 1\n", "{line}: {seen:?}");
    }
}

#[test]
fn other_lines_above_a_block_name_no_file() {
    for line in include_str!("answers/other-lines.txt").lines() {
        for language in ["python", ""] {
            let seen = seen(&format!("Intro.\n\n{line}\n\n```{language}\nx = 1\n```\n"));
            assert!(seen.iter().all(|(what, _)| !what.starts_with("file")), "{line}: {seen:?}");
        }
    }
}

#[test]
fn info_strings_with_and_without_a_file() {
    for case in include_str!("answers/info-strings.txt").lines() {
        let (sign, info) = case.split_once(' ').expect("a sign");
        let seen = seen(&format!("Intro.\n\n```{info}\nx = 1\n```\n"));
        let files: Vec<_> = seen.iter().filter(|(what, _)| what.starts_with("file")).collect();
        match (sign, &files[..]) {
            ("-", []) => {}
            ("+", [(what, _)]) if ["file src/app.py", "file ./src/app.py"].contains(&what.as_str()) => {}
            _ => panic!("{info}: {seen:?}"),
        }
    }
}
