//! Failures of Jest.

use super::{Failure, place_in_stack, without_equal_lines};

/// The name of a test precedes the message, the source and the stack. With many failures, all
/// follow a second time as a summary.
pub(super) fn lines(text: &str) -> Vec<String> {
    let (mut lines, mut file) = (Vec::new(), "");
    let mut rest = text.lines().peekable();
    while let Some(line) = rest.next() {
        if line.starts_with("Summary of all failing tests") {
            break;
        }
        if let Some(path) = line.strip_prefix("FAIL ") {
            file = path.trim().trim_start_matches("./");
        }
        let Some(test) = heading(line) else { continue };
        let mut failure = Failure { place: file, test, message: Vec::new() };
        let (mut in_message, mut has_place) = (true, false);
        while let Some(line) = rest.next_if(|line| !is_end(line)) {
            let is_stack = line.trim_start().starts_with("at ");
            in_message &= !is_stack && !is_source(line);
            if in_message && !line.trim().is_empty() {
                failure.message.push(line);
            }
            if is_stack
                && !has_place
                && let Some(place) = place_in_stack(line)
            {
                (failure.place, has_place) = (place, true);
            }
        }
        failure.message = without_equal_lines(failure.message);
        lines.push(failure.line());
    }
    lines
}

fn heading(line: &str) -> Option<&str> {
    line.strip_prefix("  ● ").filter(|name| !name.starts_with("Console"))
}

fn is_end(line: &str) -> bool {
    let ends = ["FAIL ", "PASS ", "Test Suites:", "Summary of all failing tests"];
    line.starts_with("  ● ") || ends.iter().any(|end| line.starts_with(end))
}

/// Returns whether a line shows the source, as `  > 2 |   expect(1)` does.
fn is_source(line: &str) -> bool {
    let number = line.trim_start().trim_start_matches('>').trim_start();
    let rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < number.len() && rest.trim_start().starts_with('|')
}
