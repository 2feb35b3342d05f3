//! Finds test functions, test classes and documentation tests of Python.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex_lite::Regex;

use super::{add, expression};

/// An item of a documentation test.
static EXAMPLE: LazyLock<Regex> = LazyLock::new(|| expression(r"^\s*(>>> .*)$"));
/// The head of a function or class.
static HEAD: LazyLock<Regex> = LazyLock::new(|| expression(r"^(\s*)(?:(?:async\s+)?def|class)\s+(\w+)"));
/// An assignment to a name that may be that of a test.
static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| expression(r"^\s*(\w*[Tt]est\w*)\s*(?::[^=]*)?=[^=]"));

/// Returns the tests of a source with their texts, by name: documentation tests and, on demand,
/// functions and classes.
pub(super) fn tests(source: &str, with_functions: bool) -> BTreeMap<String, String> {
    let mut tests = BTreeMap::new();
    let lines: Vec<&str> = source.lines().collect();
    for at in 0..lines.len() {
        add_example(&mut tests, &lines, at);
    }
    if with_functions {
        tests.extend(definitions(&lines).into_iter().map(|(name, text)| (format!("test `{name}`"), text)));
    }
    tests
}

/// Returns the test functions and classes with their texts, by name.
fn definitions(lines: &[&str]) -> BTreeMap<String, String> {
    let mut definitions: BTreeMap<String, String> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = HEAD.captures(line).map(|head| head[2].to_owned()) else { continue };
        if is_test(&name, line) {
            // A later definition of a name replaces an earlier one, so all of them count.
            definitions.entry(name).or_default().push_str(&definition(lines, at));
        }
    }
    for line in lines {
        let Some(assignment) = ASSIGNMENT.captures(line) else { continue };
        if let Some(text) = definitions.get_mut(&assignment[1]) {
            text.push_str(line);
        }
    }
    definitions
}

/// Adds the example of a documentation test that begins in a line.
fn add_example(tests: &mut BTreeMap<String, String>, lines: &[&str], at: usize) {
    let Some(example) = EXAMPLE.captures(lines[at]) else { return };
    // The expected output follows up to an empty line or the next example.
    let expected = lines[at + 1..].iter().map(|line| line.trim());
    let expected = expected.take_while(|line| !line.is_empty() && !line.starts_with(">>>"));
    let expected: Vec<&str> = expected.take_while(|line| !line.contains("\"\"\"")).collect();
    let text = format!("{}\n{}", &example[1], expected.join("\n"));
    add(tests, &format!("example `{}`", example[1].trim_start_matches(">>> ")), &text);
}

/// Returns whether pytest or unittest take a function or class of this name for a test, or for one
/// that prepares tests.
fn is_test(name: &str, line: &str) -> bool {
    let is_class = line.trim_start().starts_with("class");
    let prepares = ["setUp", "tearDown", "setup_", "teardown_"].iter().any(|start| name.starts_with(start));
    if is_class {
        name.starts_with("Test") || line.contains("TestCase")
    } else {
        name.starts_with("test") || prepares
    }
}

/// Returns the text of the definition whose head is in a line: its decorators and, for a function,
/// its body. White space at the end of lines, empty lines and comments do not count.
fn definition(lines: &[&str], at: usize) -> String {
    let depth = indentation(lines[at]);
    let start = decorated_from(lines, at);
    let is_class = lines[at].trim_start().starts_with("class");
    let body = lines[at + 1..].iter().take_while(|line| {
        let is_inside = line.trim().is_empty() || indentation(line) > depth || is_closing(line);
        is_inside && !is_class
    });
    let own = lines[start..=at].iter().chain(body).map(|line| line.trim_end());
    let own = own.filter(|line| !line.trim_start().is_empty() && !line.trim_start().starts_with('#'));
    own.flat_map(|line| [line, "\n"]).collect()
}

/// Returns the line of the first decorator of a definition; the line of its head without any.
fn decorated_from(lines: &[&str], at: usize) -> usize {
    let (mut start, depth) = (at, indentation(lines[at]));
    loop {
        // The arguments of a decorator may take several lines.
        let first = lines[..start].iter().rposition(|line| {
            let is_argument = indentation(line) > depth || is_closing(line);
            line.trim().is_empty() || !is_argument
        });
        match first {
            Some(first) if lines[first].trim_start().starts_with(['@', '#']) => start = first,
            _ => return start,
        }
    }
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Returns whether a line only closes the brackets of the head or of a call in the body.
fn is_closing(line: &str) -> bool {
    line.trim_start().starts_with([')', ']', '}'])
}
