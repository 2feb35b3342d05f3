//! The results that harnesses print, and the summaries that several of them share.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use regex_lite::Regex;

/// Numbers of tests, as a harness counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TestCount {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
}

/// The summary of a finished process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Numbers of tests; `None` if the output has no summary.
    pub count: Option<TestCount>,
    /// Interpretation of the exit code.
    pub verdict: SummaryVerdict,
}

/// The interpretation of a process's exit code, in view of its summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SummaryVerdict {
    /// Exit code 0 is a pass, any other a failure.
    #[default]
    ByExitCode,
    /// Like `ByExitCode`, but no test ran: exit code 0 is
    /// [`Status::NoTests`](crate::Status::NoTests).
    NoTests,
    /// Every exit code is a pass.
    Passed,
}

/// The result of a single test inside a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseReport {
    /// Name of the single test, as its harness prints it.
    pub name: String,
    /// Result of the single test.
    pub status: CaseStatus,
    /// Duration, if the harness reports one.
    pub duration: Option<Duration>,
    /// Output of this single test, if it can be separated from the rest.
    pub output: Option<Bytes>,
}

/// The result of a single test inside a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseStatus {
    /// The test passed.
    Passed,
    /// The test failed.
    Failed,
    /// The harness skipped the test.
    Skipped,
}

impl Summary {
    /// Creates the summary of a process with this count; a count of 0 means that no test ran.
    pub fn of_count(count: Option<TestCount>) -> Self {
        let is_empty = count.is_some_and(|count| count.total() == 0);
        let verdict = if is_empty { SummaryVerdict::NoTests } else { SummaryVerdict::ByExitCode };
        Self { count, verdict }
    }
}

impl TestCount {
    /// Returns the sum of all summaries in an output; `None` if it has none.
    ///
    /// Recognizes the summaries of the Rust test harness, cargo-nextest and pytest, and what Go
    /// prints for packages without tests.
    pub fn find(output: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(output);
        let mut sum = None;
        for line in text.lines() {
            if let Some(count) = summary(line) {
                let sum: &mut TestCount = sum.get_or_insert_default();
                sum.passed = sum.passed.saturating_add(count.passed);
                sum.failed = sum.failed.saturating_add(count.failed);
            }
        }
        sum
    }

    /// Returns the number of tests that ran.
    pub fn total(self) -> u32 {
        self.passed.saturating_add(self.failed)
    }
}

/// Escape sequences of terminals (ECMA-48 control sequences), which harnesses put around their
/// figures.
static STYLE: LazyLock<Regex> = LazyLock::new(|| regex(r"\x1b\[[0-9;]*[A-Za-z]"));
static SUMMARY: LazyLock<Regex> = LazyLock::new(|| {
    // `test result: ok. 3 passed; 0 failed; …`, `Summary [ 0.1s] 4 tests run: 3 passed, 1 failed`,
    // `==== 1 failed, 3 passed in 0.02s ====`, `no tests ran in 0.01s`
    regex(
        r"^(test result: |\s*Summary \[|=+ .* in [0-9.]+s|no tests ran in |[0-9]+ (passed|failed).* in [0-9.]+s)",
    )
});
static NONE: LazyLock<Regex> = LazyLock::new(|| regex(r"\[no (tests to run|test files)\]$"));
static FIGURE: LazyLock<Regex> = LazyLock::new(|| regex(r"([0-9]+) (passed|failed|errors?)\b"));

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant, and tests compile it")
}

fn summary(line: &str) -> Option<TestCount> {
    let line = STYLE.replace_all(line, "");
    // Go prints this for a package without tests, and exits with 0.
    if (line.starts_with("ok ") || line.starts_with("ok\t") || line.starts_with("?")) && NONE.is_match(&line)
    {
        return Some(TestCount::default());
    }
    SUMMARY.find(&line)?;
    let mut count = TestCount::default();
    for figure in FIGURE.captures_iter(&line) {
        let number: u32 = figure[1].parse().ok()?;
        let sum = if &figure[2] == "passed" { &mut count.passed } else { &mut count.failed };
        *sum = sum.saturating_add(number);
    }
    Some(count)
}

/// Returns whether the last list of tests in the output of Rust's test harness has a summary.
///
/// Output without a list, such as that of another runner, counts as summarized.
pub(crate) fn is_summarized(output: &[u8]) -> bool {
    let text = String::from_utf8_lossy(output);
    let last = text.lines().rev().find(|line| line.starts_with("test result: ") || begins_list(line));
    !last.is_some_and(begins_list)
}

/// Returns whether a line of the Rust test harness announces the number of tests that follow.
pub(crate) fn begins_list(line: &str) -> bool {
    let announced = line.strip_prefix("running ").and_then(|rest| rest.split_once(' '));
    announced.is_some_and(|(number, rest)| number.parse::<u32>().is_ok() && matches!(rest, "test" | "tests"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_ends_within_a_list_of_tests_is_not_summarized() {
        for output in [
            "running 2 tests\n",
            "running 1 test\ntest result: ok. 1 passed\nrunning 2 tests\ntest a ... ok\n",
        ] {
            assert!(!is_summarized(output.as_bytes()), "{output}");
        }
        for output in [
            "",
            "running two tests\n",
            "running 2 tests for a\n",
            "running 99999999999 tests\n",
            "running 2 tests\n\ntest result: \u{1b}[32mok\u{1b}[m. 2 passed; 0 failed\n",
        ] {
            assert!(is_summarized(output.as_bytes()), "{output}");
        }
    }
}
