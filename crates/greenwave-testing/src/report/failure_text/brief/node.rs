//! Failures of the test runner of Node.js, in TAP or in the format `spec`.

use super::{Failure, place_in, place_in_stack, without_equal_lines};

/// Heading of the failures in the format `spec`, which the results precede.
const FAILURES: &str = "✖ failing tests:";

pub(super) fn lines(text: &str) -> Vec<String> {
    match text.split_once(FAILURES) {
        Some((_, failures)) => spec(failures),
        None => tap(text),
    }
}

/// The place, the name and the message follow each other, and then the stack.
fn spec(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for part in text.split("\ntest at ").skip(1) {
        let mut rest = part.lines();
        let declared = rest.next().and_then(place_in).unwrap_or_default();
        let name = rest.next().unwrap_or_default().trim().trim_start_matches("✖ ");
        let test = name.rsplit_once(" (").map_or(name, |(name, _)| name);
        let is_stack = |line: &&str| line.trim_start().starts_with("at ");
        let message = rest.clone().take_while(|line| !is_stack(line)).filter(|line| !line.trim().is_empty());
        let message = without_equal_lines(message.map(message_of).collect());
        let place = rest.filter(is_stack).find_map(place_in_stack).unwrap_or(declared);
        lines.push(Failure { place, test, message }.line());
    }
    lines
}

/// Returns a line of a message without what each assertion has.
fn message_of(line: &str) -> &str {
    let line = line.trim();
    let line = line.strip_prefix("AssertionError [ERR_ASSERTION]: ").unwrap_or(line);
    line.strip_prefix('\'').and_then(|line| line.strip_suffix('\'')).unwrap_or(line)
}

/// The name precedes the details, which are YAML between `---` and `...`.
fn tap(text: &str) -> Vec<String> {
    let (mut lines, mut rest) = (Vec::new(), text.lines());
    while let Some(line) = rest.next() {
        let Some(result) = line.trim_start().strip_prefix("not ok ") else { continue };
        let test = result.split_once(" - ").map_or(result, |(_, name)| name);
        let details: Vec<&str> = rest.by_ref().take_while(|line| line.trim() != "...").collect();
        // A group fails with its tests, which have lines themselves.
        if !details.iter().any(|line| line.trim() == "failureType: 'subtestsFailed'") {
            lines.push(of_details(test, &details).line());
        }
    }
    lines
}

fn of_details<'t>(test: &'t str, details: &[&'t str]) -> Failure<'t> {
    let mut failure = Failure { test, ..Failure::default() };
    let block = |key: &str| {
        let start = details.iter().position(|line| line.trim() == key)?;
        let depth = |line: &str| line.len() - line.trim_start().len();
        let is_inside = |line: &&&str| line.trim().is_empty() || depth(line) > depth(details[start]);
        let lines = details[start + 1..].iter().take_while(is_inside);
        Some(lines.copied().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>())
    };
    let value = |key: &str| details.iter().find_map(|line| line.trim().strip_prefix(key)).map(message_of);
    failure.message = match block("error: |-") {
        Some(message) => without_equal_lines(message),
        None => value("error: ").into_iter().collect(),
    };
    let in_stack = || block("stack: |-")?.into_iter().find_map(place_in_stack);
    failure.place = in_stack().or_else(|| place_in(value("location: ")?)).unwrap_or_default();
    failure
}
