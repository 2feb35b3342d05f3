//! Finds tests inside sources: test functions and documentation tests of Rust and Python.
//!
//! Each must still be there after an attempt, with the same text and without a new attribute that
//! keeps it from running. White space and comments do not count, so that a source can be formatted.

mod python;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex_lite::Regex;

/// Attributes of Rust's test functions: `#[test]`, `#[tokio::test]`, `#[rstest]`, and others.
static TEST: LazyLock<Regex> = LazyLock::new(|| {
    expression(r"#\[\s*(?:[\w:]*\btest(?:_case|_log)?|rstest|test_case|quickcheck|proptest)\b")
});
static FUNCTION: LazyLock<Regex> = LazyLock::new(|| expression(r"\bfn\s+(\w+)"));
static MODULE: LazyLock<Regex> = LazyLock::new(|| expression(r"\bmod\s+(\w*tests?\w*)\s*([{;])"));

/// Returns whether files of this name can hold inline tests.
pub(super) fn has_inline_tests(path: &str) -> bool {
    path.ends_with(".rs") || path.ends_with(".py")
}

/// Returns which inline test a change removes, changes or switches off. `is_named` says whether the
/// command of a test names the file: only then, pytest and unittest look for tests in it.
pub(super) fn violation(path: &str, before: &str, after: Option<&str>, is_named: bool) -> Option<String> {
    let (old, new) = match path.rsplit('.').next() {
        Some("rs") => (rust(before), after.map(rust).unwrap_or_default()),
        Some("py") => {
            let tests = |source: &str| python::tests(source, is_named);
            (tests(before), after.map(tests).unwrap_or_default())
        }
        _ => return None,
    };
    for (name, text) in &old {
        match new.get(name) {
            None => return Some(format!("no longer has the {name}")),
            Some(other) if other != text => return Some(format!("changes the {name}")),
            Some(_) => {}
        }
    }
    None
}

/// Returns the inline tests of a Rust source with their texts, by name.
fn rust(source: &str) -> BTreeMap<String, String> {
    let mut tests = BTreeMap::new();
    for found in TEST.find_iter(source) {
        // Attributes may precede this one: `#[ignore] #[test]`.
        let start = attributes_start(source, found.start());
        let Some(function) = FUNCTION.captures(&source[found.start()..]) else { continue };
        let Some(name) = function.get(1) else { continue };
        let Some(body) = block(source, found.start() + name.end()) else { continue };
        add(&mut tests, &format!("test `{}`", name.as_str()), &source[start..body.1]);
    }
    for found in MODULE.captures_iter(source) {
        let Some(whole) = found.get(0) else { continue };
        let is_test = attributes(source, whole.start()).contains("cfg(test)");
        if is_test {
            let head = &source[attributes_start(source, whole.start())..whole.start()];
            add(&mut tests, &format!("module `{}`", &found[1]), head);
        }
    }
    for (at, code) in rust_doctests(source).into_iter().enumerate() {
        add(&mut tests, &format!("documentation test {}", at + 1), &code);
    }
    // Documentation tests have no names, so they are compared as a set.
    rename_by_text(tests)
}

/// Returns the code blocks in documentation comments that run as tests.
fn rust_doctests(source: &str) -> Vec<String> {
    let (mut blocks, mut open): (Vec<String>, Option<(String, bool)>) = (Vec::new(), None);
    for line in source.lines().map(str::trim_start) {
        let Some(text) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            open = None;
            continue;
        };
        let text = text.trim();
        match (&mut open, text.strip_prefix("```")) {
            (None, Some(language)) => {
                let runs = language.split(',').all(|word| {
                    matches!(word.trim(), "" | "rust" | "should_panic" | "no_run" | "compile_fail")
                        || word.trim().starts_with("edition")
                });
                open = Some((String::new(), runs));
            }
            (Some(_), Some(_)) => {
                if let Some((code, true)) = open.take() {
                    blocks.push(code);
                }
            }
            (Some((code, _)), None) => {
                code.push_str(text);
                code.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Gives tests without names the name of their text, so that their order does not count.
fn rename_by_text(tests: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let rename = |(name, text): (String, String)| {
        if !name.starts_with("documentation test") {
            return (name, text);
        }
        let first: String = text.chars().take(40).collect();
        (format!("documentation test `{first}`"), text)
    };
    tests.into_iter().map(rename).collect()
}

/// Adds a test. Tests of the same name in several modules are numbered.
fn add(tests: &mut BTreeMap<String, String>, name: &str, text: &str) {
    let mut unique = name.to_owned();
    let mut count = 1;
    while tests.contains_key(&unique) {
        count += 1;
        unique = format!("{name} ({count})");
    }
    tests.insert(unique, normalised(text));
}

/// Returns a text without white space, line comments and commas before closing brackets.
fn normalised(text: &str) -> String {
    let lines = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    let mut compact: String =
        lines.flat_map(str::chars).filter(|character| !character.is_whitespace()).collect();
    for bracket in [")", "]", "}"] {
        compact = compact.replace(&format!(",{bracket}"), bracket);
    }
    compact
}

/// Returns the attributes directly in front of a position.
fn attributes(source: &str, at: usize) -> &str {
    &source[attributes_start(source, at)..at]
}

fn attributes_start(source: &str, at: usize) -> usize {
    let mut start = at;
    loop {
        let before = source[..start].trim_end();
        let before =
            before.strip_suffix("pub(crate)").or(before.strip_suffix("pub")).unwrap_or(before).trim_end();
        if !before.ends_with(']') {
            return start;
        }
        let Some(open) = before.rfind("#[") else { return start };
        // Code may end with a bracket, too.
        if before[open..].contains(['{', ';']) {
            return start;
        }
        start = open;
    }
}

/// Returns the range of the first block in braces after a position. Skips strings and comments.
fn block(source: &str, from: usize) -> Option<(usize, usize)> {
    let (mut depth, mut start) = (0usize, None);
    let mut characters = source[from..].char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                while let Some((_, inside)) = characters.next() {
                    match inside {
                        '\\' => drop(characters.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '/' if characters.peek().is_some_and(|(_, next)| *next == '/') => {
                for (_, inside) in characters.by_ref() {
                    if inside == '\n' {
                        break;
                    }
                }
            }
            // A character literal of a brace or a quotation mark.
            '\'' => {
                let rest = &source[from + at + 1..];
                if let Some(end) =
                    rest.char_indices().nth(1).filter(|(_, end)| *end == '\'').map(|(end, _)| end)
                {
                    while characters.peek().is_some_and(|(next, _)| *next <= at + 1 + end) {
                        characters.next();
                    }
                }
            }
            ';' if depth == 0 => return None,
            '{' => {
                start = start.or(Some(from + at));
                depth += 1;
            }
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some((start?, from + at + 1));
                }
            }
            _ => {}
        }
    }
    None
}

fn expression(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant, and tests compile it")
}
