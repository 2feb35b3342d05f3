//! Shortens the output of failing tests to the lines that matter.

mod brief;
mod clean;
mod cut;
mod runners;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use regex_lite::Regex;

/// Maximum number of failing tests that are named.
const NAMES_MAX: usize = 30;

/// `src/lib.rs:3`, in a text without the project's path.
static LOCATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"([A-Za-z0-9_@+./-]+\.[A-Za-z0-9]+):([0-9]{1,7})\b").expect("the pattern is a constant")
});

/// The part of a test command's output that matters to the author of the code.
///
/// Recognizes the output of cargo, cargo-nextest, pytest, Go, Node.js and Jest. That of other
/// programs is only cleaned and shortened.
///
/// ```
/// use greenwave_testing::FailureText;
///
/// let output = b"running 2 tests\ntest a ... ok\ntest b ... FAILED\n\ntest result: FAILED. 1 passed; 1 failed;\n";
/// let failure = FailureText::of_output(output, &[], 1024);
/// assert!(failure.failing.contains("b"));
/// assert!(!failure.text.contains("test a"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureText {
    /// Names of the failing tests, as the runner prints them. Empty if the runner is unknown.
    pub failing: BTreeSet<String>,
    /// Lines that matter: names of failing tests, assertions, errors.
    pub text: String,
}

impl FailureText {
    /// Extracts the text from the output of a test command, with at most `bytes_max` bytes of lines
    /// and a list of up to 30 names.
    ///
    /// Removes escape sequences, progress lines and lines about passing tests. Paths below one of
    /// the `roots` become relative.
    pub fn of_output(output: &[u8], roots: &[&Path], bytes_max: usize) -> Self {
        let text = clean::relative_to(&clean::plain(&String::from_utf8_lossy(output)), roots);
        let (lines, failing) = runners::relevant(&text);
        let body = cut::to_bytes(&lines, bytes_max);
        let text = match name_list(&failing) {
            Some(names) => format!("Failing tests: {names}\n\n{body}"),
            None => body,
        };
        Self { failing, text: text.trim_end().to_owned() }
    }

    /// Like [`of_output`](Self::of_output), with one line for each failing test: its place, its
    /// name and the assertion. If the lines have more than `bytes_max` bytes, the first ones stay.
    ///
    /// Recognizes the output of cargo, pytest, Go, Node.js and Jest. That of other runners is
    /// shortened as in `of_output`.
    pub fn brief(output: &[u8], roots: &[&Path], bytes_max: usize) -> Self {
        let text = clean::relative_to(&clean::plain(&String::from_utf8_lossy(output)), roots);
        let lines = brief::lines(&text);
        if lines.is_empty() {
            return Self::of_output(output, roots, bytes_max);
        }
        let (_, failing) = runners::relevant(&text);
        Self { failing, text: cut::to_lines(&lines, bytes_max) }
    }

    /// Returns the first file of a project that the text names with a line. The path is relative to
    /// the project, which must have been one of the roots.
    pub fn location(&self, project: &Path) -> Option<(PathBuf, u32)> {
        LOCATION.captures_iter(&self.text).find_map(|found| {
            let path = PathBuf::from(&found[1]);
            let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
            (is_inside && project.join(&path).is_file()).then_some((path, found[2].parse().ok()?))
        })
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
