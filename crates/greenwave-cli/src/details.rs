//! Shows what tests and agents said, bounded and indented.

use greenwave::AttemptDetails;

use crate::text::printable;

/// Maximum number of lines of each text under an event.
const LINES_MAX: usize = 20;

/// Returns the lines of an attempt's details. `hint` is the command that shows them as a whole.
pub(crate) fn lines(details: &AttemptDetails, hint: &str) -> Vec<String> {
    let AttemptDetails { test_output, words, stderr, exit } = details;
    let mut lines = section("test output", &tail(test_output), LINES_MAX);
    lines.extend(section("agent's messages", words, LINES_MAX));
    lines.extend(section("agent's standard error", &tail(stderr), LINES_MAX));
    if !exit.is_empty() && exit != "exit status: 0" {
        lines.extend(section("agent's exit", exit, LINES_MAX));
    }
    if !lines.is_empty() {
        lines.push(format!("      hint: show all of it with `{hint}`"));
    }
    lines
}

/// Returns a text under its title, with at most `lines_max` lines. Nothing for an empty text.
pub(crate) fn section(title: &str, text: &str, lines_max: usize) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("      {title}:")];
    lines.extend(text.lines().take(lines_max).map(|line| {
        let line = line.replace('\t', "    ");
        format!("        | {}", printable(&line)).trim_end().to_owned()
    }));
    let left_out = text.lines().count().saturating_sub(lines_max);
    if left_out > 0 {
        lines.push(format!("        … {left_out} more lines"));
    }
    lines
}

/// Returns the last lines of a text, where tests and programs say what went wrong.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    match lines.len().checked_sub(LINES_MAX) {
        Some(more @ 1..) => {
            let rest = lines[more + 1..].join("\n");
            format!("… {} lines above\n{rest}", more + 1)
        }
        _ => lines.join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_bounded_at_the_right_end() {
        let text: String = (1..=30).map(|line| format!("line {line}\n")).collect();
        let details = AttemptDetails { test_output: text.clone(), words: text, ..AttemptDetails::default() };
        let lines = lines(&details, "greenwave attempts");
        assert_eq!(lines[0], "      test output:");
        assert_eq!(lines[1], "        | … 11 lines above");
        assert_eq!(lines[20], "        | line 30");
        assert_eq!(lines[21], "      agent's messages:");
        assert_eq!(lines[22], "        | line 1");
        assert_eq!(lines[42], "        … 10 more lines");
        assert_eq!(lines[43], "      hint: show all of it with `greenwave attempts`");
        assert_eq!(lines.len(), 44);
    }

    #[test]
    fn empty_texts_and_control_characters_are_not_shown() {
        assert!(lines(&AttemptDetails::default(), "x").is_empty());
        assert_eq!(section("t", "a\tb\x1b[31m", 9)[1], "        | a    b\u{fffd}[31m");
    }
}
