//! Shortens each failure in the output of common test runners to one line: place, test, assertion.

mod jest;
mod node;

use super::LOCATION;
use super::runners::Runner;

/// Maximum number of lines of a message.
const LINES_MAX: usize = 4;
/// Maximum length of a message, in characters.
const CHARS_MAX: usize = 160;

/// Returns a line for each failure. Empty if the runner is unknown, or its output has no failure.
pub(super) fn lines(text: &str) -> Vec<String> {
    match super::runners::recognise(text) {
        Runner::Pytest => pytest(text),
        Runner::Cargo => cargo(text),
        Runner::Go => go(text),
        // Files that share a process print results without headings.
        Runner::Unknown if text.lines().any(|line| failed_in_pytest(line).is_some()) => pytest(text),
        Runner::Node => node::lines(text),
        Runner::Jest => jest::lines(text),
        Runner::Unknown => Vec::new(),
    }
}

/// The parts of a failure that were found.
#[derive(Default)]
struct Failure<'t> {
    place: &'t str,
    test: &'t str,
    message: Vec<&'t str>,
}

impl Failure<'_> {
    fn line(&self) -> String {
        let message = self.message.iter().take(LINES_MAX).map(|line| line.trim()).collect::<Vec<_>>();
        let message = message.join("; ");
        let mut short: String = message.chars().take(CHARS_MAX).collect();
        if short.len() < message.len() {
            short.push('…');
        }
        let parts = [self.place, self.test, &short];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    }
}

/// The names of tests are in headings or in the lines with their results. The first line with `E`
/// is the assertion, and the place follows.
fn pytest(text: &str) -> Vec<String> {
    let (mut lines, mut failure) = (Vec::new(), Failure::default());
    for line in text.lines() {
        let heading = line.strip_prefix("___").and_then(|line| line.strip_suffix("___"));
        let heading = heading.map(|line| line.trim_matches(|c| c == '_' || c == ' '));
        if let Some(test) = heading.or_else(|| failed_in_pytest(line)).filter(|test| !test.is_empty()) {
            lines.extend((!failure.message.is_empty()).then(|| failure.line()));
            failure = Failure { test, ..Failure::default() };
        } else if let Some(message) = line.strip_prefix("E  ") {
            if failure.message.is_empty() {
                failure.message.push(message);
            }
        } else if !failure.message.is_empty()
            && let Some(place) = place_at_start(line)
        {
            failure.place = place;
            lines.push(failure.line());
            failure.message.clear();
        }
    }
    lines.extend((!failure.message.is_empty()).then(|| failure.line()));
    lines
}

/// Returns the name of the test in `FILE::TEST FAILED`.
fn failed_in_pytest(line: &str) -> Option<&str> {
    Some(line.strip_suffix(" FAILED")?.split_once(".py::")?.1)
}

/// The message of a panic follows its place. A compiler's place follows the message.
fn cargo(text: &str) -> Vec<String> {
    let (mut lines, mut rest) = (Vec::new(), text.lines());
    let mut error = None;
    while let Some(line) = rest.next() {
        if let Some((thread, place)) = line.split_once(" panicked at ") {
            let test = thread.split('\'').nth(1).unwrap_or_default();
            let place = place_in(place).unwrap_or(place);
            let is_end = |line: &str| line.starts_with("note: ") || line == "stack backtrace:";
            let is_message = |line: &&str| !line.trim().is_empty() && !is_end(line);
            let message = rest.by_ref().take_while(is_message).filter_map(without_equality).collect();
            lines.push(Failure { place, test, message }.line());
        } else if line.starts_with("error") {
            error = Some(line);
        } else if let Some(place) = line.trim_start().strip_prefix("--> ")
            && let Some(error) = error.take()
        {
            let place = place_in(place).unwrap_or(place);
            lines.push(Failure { place, message: vec![error], ..Failure::default() }.line());
        }
    }
    lines
}

/// Leaves out the first line of a failed `assert_eq`, up to its own message: the values follow.
fn without_equality(line: &str) -> Option<&str> {
    match line.strip_prefix("assertion `left == right` failed") {
        Some(rest) => rest.strip_prefix(": "),
        None => Some(line),
    }
}

/// The message of a test follows its place, and its name stands in a line before.
fn go(text: &str) -> Vec<String> {
    let (mut lines, mut test) = (Vec::new(), "");
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(name) = trimmed.strip_prefix("--- FAIL: ").or_else(|| trimmed.strip_prefix("=== RUN ")) {
            test = name.trim_start().split(' ').next().unwrap_or_default();
        } else if let Some(place) = place_at_start(trimmed) {
            let message = trimmed[place.len()..].trim_start_matches(':');
            // The column of a compiler's message.
            let message = message.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(':');
            lines.push(Failure { place, test, message: vec![message] }.line());
        }
    }
    lines
}

fn place_in(text: &str) -> Option<&str> {
    LOCATION.find(text).map(|found| found.as_str())
}

/// Returns the file and line that a line begins with, before a colon.
fn place_at_start(line: &str) -> Option<&str> {
    let found = LOCATION.find(line).filter(|found| found.start() == 0)?;
    line[found.end()..].starts_with(':').then_some(found.as_str())
}

/// Returns the place in the project of a line of a JavaScript stack, which begins with `at` unless
/// it stands in TAP.
fn place_in_stack(line: &str) -> Option<&str> {
    let is_foreign = |part| line.contains(part);
    let is_inside = !["(node:", "at node:", "node_modules/"].into_iter().any(is_foreign);
    place_in(line).filter(|place| is_inside && !line.trim_start().starts_with("node:") && !place.is_empty())
}

/// Leaves out the parts of a difference that are equal, and the lines that explain its signs.
fn without_equal_lines(message: Vec<&str>) -> Vec<&str> {
    let is_explanation = |line: &str| {
        line == "+ actual - expected" || line.starts_with("- Expected ") || line.starts_with("+ Received ")
    };
    let is_different = |line: &&&str| line.trim().starts_with(['+', '-']) && !is_explanation(line.trim());
    if !message.iter().any(|line| is_different(&line)) {
        return message;
    }
    let heading = message.iter().take(1).filter(|line| !is_different(line));
    heading.chain(message.iter().skip(1).filter(is_different)).copied().collect()
}
