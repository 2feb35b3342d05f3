//! Failures in a form for coding agents, whose attention is limited: the lines that matter.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use greenwave_testing::{FailureText, Status};

/// Maximum size of the lines of one failed test, in bytes.
pub(crate) const TEST_BYTES_MAX: usize = 3 * 1024;
/// Maximum size of the lines of all failed tests, in bytes. The names follow without lines.
const ALL_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of failed tests that are named.
pub(crate) const NAMES_MAX: usize = 100;

/// The failures of a run, within size limits.
pub(super) struct AgentFailures {
    /// The project and its canonical path, which are removed from paths.
    roots: Vec<PathBuf>,
    /// Bytes left for the lines of failed tests.
    bytes_left: usize,
    /// Number of failed tests.
    failed: usize,
    /// Reasons of tests that could not be run.
    reasons: HashSet<String>,
}

impl AgentFailures {
    /// Creates an empty list for a project.
    pub(super) fn new(project: &Path) -> Self {
        Self {
            roots: vec![project.to_owned()],
            bytes_left: ALL_BYTES_MAX,
            failed: 0,
            reasons: HashSet::new(),
        }
    }

    /// Returns the lines of a failed test: its name and status, and what matters of its output.
    pub(super) fn failed(&mut self, name: &str, status: &Status, output: &[u8]) -> Vec<String> {
        self.failed += 1;
        if self.failed > NAMES_MAX {
            return Vec::new();
        }
        let mut lines = vec![format!("FAIL {name}: {status}")];
        let bytes_max = TEST_BYTES_MAX.min(self.bytes_left);
        if bytes_max > 0 {
            let roots: Vec<&Path> = self.roots.iter().map(PathBuf::as_path).collect();
            let text = FailureText::of_output(output, &roots, bytes_max).text;
            self.bytes_left = self.bytes_left.saturating_sub(text.len());
            lines.extend(text.lines().map(|line| format!("  {line}")));
        }
        lines
    }

    /// Returns whether the reason of a test that could not be run is new. Tests of one program that
    /// does not compile share theirs.
    pub(super) fn is_new_reason(&mut self, reason: &str) -> bool {
        self.reasons.insert(reason.to_owned())
    }

    /// Returns a line about the failed tests that are not named, if there are any.
    pub(super) fn omitted(&self) -> Option<String> {
        let omitted = self.failed.checked_sub(NAMES_MAX).filter(|count| *count > 0)?;
        Some(format!("{omitted} more failed (`--output failed` shows all)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenwave_testing::ExitReason;

    #[test]
    fn the_size_of_all_failures_is_limited() {
        let mut failures = AgentFailures::new(Path::new("/project"));
        let output = "want 1, got 2 in /project/src/a.c:7\n".repeat(1000);
        let status = Status::Failed(ExitReason::Code(1));
        let all: Vec<String> = (0..150)
            .flat_map(|test| failures.failed(&format!("test {test}"), &status, output.as_bytes()))
            .collect();
        assert_eq!(all[0], "FAIL test 0: failed with exit code 1");
        assert_eq!(all[1], "  want 1, got 2 in src/a.c:7");
        assert!(all.iter().map(String::len).sum::<usize>() < ALL_BYTES_MAX + 100 * 100);
        assert_eq!(all.iter().filter(|line| line.starts_with("FAIL")).count(), NAMES_MAX);
        assert_eq!(failures.omitted().unwrap(), "50 more failed (`--output failed` shows all)");
    }

    #[test]
    fn equal_reasons_appear_once() {
        let mut failures = AgentFailures::new(Path::new("/project"));
        assert!(failures.is_new_reason("cannot build x"));
        assert!(!failures.is_new_reason("cannot build x"));
        assert_eq!(failures.omitted(), None);
    }
}
