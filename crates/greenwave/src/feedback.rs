//! Turns the output of failing tests into short feedback for an agent.
//!
//! Pure text processing. The whole output stays with the recorded attempt.

mod changes;
mod clean;
mod cut;
mod runners;

use std::collections::BTreeSet;
use std::path::Path;

pub(crate) use changes::{FileChange, describe_progress};

/// Maximum size of the text of one failing test command, in bytes.
const TEXT_BYTES_MAX: usize = 7 * 1024;
/// Maximum number of failing tests that are named.
const NAMES_MAX: usize = 30;

/// The part of a test command's output that matters to the author of the code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Feedback {
    /// Names of the failing tests, as the runner prints them. Empty if the runner is unknown.
    pub(crate) failing: BTreeSet<String>,
    /// Lines that matter: names of failing tests, assertions, errors. At most 8 KiB.
    pub(crate) text: String,
}

impl Feedback {
    /// Extracts the feedback from the output of a test command.
    ///
    /// Removes escape sequences, progress lines and lines about passing tests. Paths below one of
    /// the `roots` become relative.
    pub(crate) fn of_output(output: &[u8], roots: &[&Path]) -> Self {
        let text = clean::relative_to(&clean::plain(&String::from_utf8_lossy(output)), roots);
        let (lines, failing) = runners::relevant(&text);
        let body = cut::to_bytes(&lines, TEXT_BYTES_MAX);
        let text = match name_list(&failing) {
            Some(names) => format!("Failing tests: {names}\n\n{body}"),
            None => body,
        };
        Self { failing, text: text.trim_end().to_owned() }
    }
}

fn name_list(names: &BTreeSet<String>) -> Option<String> {
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = match names.len().saturating_sub(shown.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!shown.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
}

#[cfg(test)]
mod tests;
