//! The closing line of a test run.

use std::fmt;
use std::time::Duration;

use console::{Style, style};
use greenwave_testing::{RunReport, SuiteReport};

use crate::text::{duration, plural};

/// The numbers in the closing line of a run, which `Display` writes.
#[derive(Debug, Default)]
pub(crate) struct SuiteTotals {
    selected: usize,
    passed: usize,
    failed: usize,
    /// Tests in quarantine that failed.
    quarantined: usize,
    /// Tests that could not be run.
    broken: usize,
    /// Tests that passed at a later attempt. They also count as passed.
    flaky: usize,
    /// Tests with a cached result. They also count as passed or failed.
    cached: usize,
    /// Tests that share the result of another test of this run. They also count as passed or
    /// failed.
    deduplicated: usize,
    /// Time that the tests with a cached result would have taken.
    saved: Duration,
    wall: Duration,
}

impl SuiteTotals {
    /// Counts the results of a run.
    pub(crate) fn of(report: &SuiteReport, run: &RunReport) -> Self {
        let (stats, deduplicated) = (run.stats(), report.deduplicated.len());
        Self {
            selected: run.tests.len(),
            passed: stats.passed,
            failed: stats.failed,
            quarantined: stats.quarantined,
            broken: stats.errors,
            flaky: stats.flaky,
            // The result of a deduplicated test was not cached when the run began.
            cached: stats.cached.saturating_sub(deduplicated),
            deduplicated,
            saved: report.saved,
            wall: report.wall,
        }
    }

    /// The numbers of a project whose tests all have cached passes.
    pub(crate) fn all_cached(tests: usize, saved: Duration, wall: Duration) -> Self {
        Self { selected: tests, passed: tests, cached: tests, saved, wall, ..Self::default() }
    }
}

impl fmt::Display for SuiteTotals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: usize, word: &str, style: Style| {
            (count > 0).then(|| style.apply_to(format!("{count} {word}")).to_string())
        };
        let not_run = self.selected - self.passed - self.failed - self.quarantined - self.broken;
        let counts: Vec<String> = [
            count(self.passed, "passed", Style::new().green().bold()),
            count(self.failed, "failed", Style::new().red().bold()),
            count(self.quarantined, "failed in quarantine", Style::new().yellow()),
            count(self.broken, "broken", Style::new().red().bold()),
            count(self.flaky, "flaky", Style::new().yellow()),
            count(not_run, "not run", Style::new().yellow()),
        ]
        .into_iter()
        .flatten()
        .collect();
        write!(out, "{}: {}", style(plural(self.selected, "test")).bold(), counts.join(", "))?;
        if self.deduplicated > 0 {
            write!(out, " ({} deduplicated)", self.deduplicated)?;
        }
        match self.cached {
            0 => {}
            cached if cached == self.selected => {
                write!(out, ", all cached (saved {})", duration(self.saved))?;
            }
            cached => write!(out, ", {cached} cached (saved {})", duration(self.saved))?,
        }
        write!(out, " in {}", duration(self.wall))
    }
}
