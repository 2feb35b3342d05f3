//! Finds and replaces runs of lines in a text.

use super::EditProblem;

/// A text as lines. Each line has its line ending, except possibly the last one.
pub(super) struct Lines<'t> {
    pub(super) lines: Vec<&'t str>,
    /// The line ending of most lines.
    pub(super) ending: &'static str,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let windows = lines.iter().filter(|line| line.ends_with("\r\n")).count();
        let ending = if windows * 2 > lines.len() { "\r\n" } else { "\n" };
        Self { lines, ending }
    }

    /// Returns the starts of all runs of lines, from index `from`, that equal `wanted`.
    ///
    /// Exact matches count. Without an exact match, lines that differ only in white space at their
    /// ends count.
    pub(super) fn find(&self, wanted: &[&str], from: usize) -> Vec<usize> {
        let matches = |equal: &dyn Fn(&str, &str) -> bool| -> Vec<usize> {
            let last = self.lines.len().checked_sub(wanted.len());
            let starts = (from..).take_while(|start| last.is_some_and(|last| *start <= last));
            let is_match = |start: &usize| {
                self.lines[*start..].iter().zip(wanted).all(|(line, wanted)| equal(line, wanted))
            };
            starts.filter(is_match).collect()
        };
        let exact = matches(&|line, wanted| without_ending(line) == without_ending(wanted));
        if !exact.is_empty() {
            return exact;
        }
        matches(&|line, wanted| line.trim_end() == wanted.trim_end())
    }

    /// Returns the only match, or the reason for its absence.
    pub(super) fn find_one(&self, wanted: &[&str], from: usize) -> Result<usize, EditProblem> {
        match self.find(wanted, from)[..] {
            [start] => Ok(start),
            [] => Err(not_found(wanted)),
            ref several => Err(EditProblem::Several { lines: several.iter().map(|at| at + 1).collect() }),
        }
    }
}

pub(super) fn not_found(wanted: &[&str]) -> EditProblem {
    let first = wanted.iter().map(|line| line.trim()).find(|line| !line.is_empty());
    EditProblem::NotFound { first: first.unwrap_or_default().chars().take(120).collect() }
}

/// Returns a line without its line feed, and without the carriage return before it.
pub(super) fn without_ending(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}
