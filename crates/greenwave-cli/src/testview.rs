//! Shows the progress of a test run and its closing line.

mod agent;
mod remarks;
mod totals;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use console::{Style, StyledObject, measure_text_width};
use greenwave_testing::{
    Audit, CacheDecision, Error, JsonLine, Outcome, Quarantine, QuarantineEntry, RunReport, Source, Status,
    Suite, SuiteEvent, SuiteReport, TestId, TestReport, TestResult, TraceStatus,
};

#[cfg(feature = "mcp")]
pub(crate) use self::agent::{NAMES_MAX, TEST_BYTES_MAX};
pub(crate) use self::totals::SuiteTotals;

use self::agent::AgentFailures;
use self::remarks::NotCached;
use crate::format::{Format, Show};
use crate::printer::Printer;
use crate::text::{duration, plural, printable};

/// The progress line on a terminal.
const TEMPLATE: &str = "{spinner} {pos} of {len} {elapsed} {wide_msg:.dim}";
/// Maximum number of slow tests that are listed at the end.
const SLOWEST_MAX: usize = 5;
/// Minimum duration of a slow test.
const SLOW: Duration = Duration::from_millis(500);
/// Maximum number of running tests in the progress line.
const RUNNING_MAX: usize = 4;
/// Maximum width that names are padded to, in terminal columns.
const NAME_WIDTH_MAX: usize = 50;
/// Maximum number of paths in a remark.
const PATHS_MAX: usize = 3;
/// Indentation of lines below the line of a test.
const INDENT: &str = "           ";

/// Shows the events of a test run.
pub(crate) struct TestView {
    printer: Printer,
    show: Show,
    verbose: bool,
    /// Number of tests to run or look up.
    selected: usize,
    suite: Arc<Suite>,
    quarantine: Quarantine,
    /// Printable names of the tests.
    names: Vec<String>,
    /// Width of the longest name, in terminal columns.
    width: usize,
    running: BTreeSet<TestId>,
    /// Failures as a coding agent reads them, if the output is for one.
    agent: Option<AgentFailures>,
    not_cached: NotCached,
}

impl TestView {
    /// Creates a view of a run of `selected` tests of the suite. If `verbose`, cached results have
    /// a line each.
    pub(crate) fn new(
        format: Format,
        show: Show,
        verbose: bool,
        suite: &Arc<Suite>,
        quarantine: &Quarantine,
        selected: usize,
    ) -> Self {
        let is_plain = matches!(show, Show::Agent | Show::Live);
        let names: Vec<String> = suite.tests().iter().map(|test| printable(&test.name)).collect();
        let width = names.iter().map(|name| measure_text_width(name)).max().unwrap_or(0).min(NAME_WIDTH_MAX);
        Self {
            printer: if is_plain {
                Printer::without_bar(format)
            } else {
                Printer::new(format, TEMPLATE, None)
            },
            show,
            verbose,
            selected,
            suite: Arc::clone(suite),
            quarantine: quarantine.clone(),
            names,
            width,
            running: BTreeSet::new(),
            agent: (show == Show::Agent).then(|| AgentFailures::new(suite.project())),
            not_cached: NotCached::default(),
        }
    }

    /// Shows an event.
    pub(crate) fn event(&mut self, event: &SuiteEvent<'_>) {
        match event {
            SuiteEvent::LookedUp { cached, running } => self.looked_up(*cached, *running),
            SuiteEvent::Building(dir) => {
                let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
                return self.printer.message(format!("building {}", dir.display()));
            }
            SuiteEvent::Started(test) => {
                self.running.insert(*test);
            }
            SuiteEvent::Cached(test, outcome) => {
                self.json(*test, outcome);
                if self.verbose || self.show == Show::All || !outcome.passed() {
                    self.outcome(*test, outcome);
                }
            }
            SuiteEvent::Ran(test, outcome) => {
                self.json(*test, outcome);
                self.outcome(*test, outcome);
                self.ended(*test);
            }
            SuiteEvent::Deduplicated(test, other, outcome) => {
                self.json(*test, outcome);
                self.deduplicated(*test, *other, outcome);
                self.ended(*test);
            }
            SuiteEvent::Broken(test, error) => {
                self.broken(*test, error);
                self.ended(*test);
            }
            SuiteEvent::AuditFailed(test, audit) => self.audit_failed(*test, audit),
            _ => {}
        }
        let names: Vec<&str> =
            self.running.iter().take(RUNNING_MAX).map(|test| self.names[test.index()].as_str()).collect();
        self.printer.message(names.join(" "));
    }

    fn looked_up(&self, cached: usize, running: usize) {
        self.printer.json(|| JsonLine::started(SystemTime::now(), cached + running));
        if let Some(bar) = self.printer.bar() {
            bar.set_length(running as u64);
        }
        if running > 0 && self.agent.is_none() {
            let cached = if cached > 0 { format!("{cached} cached, ") } else { String::new() };
            self.printer.line(&format!("{}: {cached}{running} to run", plural(self.selected, "test")));
        }
    }

    fn json(&self, test: TestId, outcome: &Outcome) {
        self.printer.json(|| {
            let report = self.report(test, Some(&Ok(outcome.clone())));
            JsonLine::test(&report).to_string()
        });
    }

    fn report(&self, test: TestId, result: Option<&Result<Outcome, Error>>) -> TestReport {
        let report = TestReport::new(&self.suite.tests()[test.index()], result, self.suite.harnesses());
        report.with_quarantine(&self.quarantine)
    }

    /// Returns the quarantine of a test that failed.
    fn quarantined(&self, test: TestId, outcome: &Outcome) -> Option<&QuarantineEntry> {
        let entry = self.quarantine.entry(&self.suite.tests()[test.index()].name);
        entry.filter(|_| !outcome.passed())
    }

    fn ended(&mut self, test: TestId) {
        self.running.remove(&test);
        if let Some(bar) = self.printer.bar() {
            bar.inc(1);
        }
    }

    /// Shows the line of a test, remarks, and its output if the user wants it.
    fn outcome(&mut self, test: TestId, outcome: &Outcome) {
        let quarantine = self.quarantined(test, outcome).map(|entry| printable(&entry.to_string()));
        if let Some(agent) = &mut self.agent {
            if !outcome.passed() && quarantine.is_none() {
                let lines = agent.failed(&self.names[test.index()], &outcome.status, &outcome.output);
                lines.iter().for_each(|line| self.printer.line(line));
            }
            return;
        }
        let word = match outcome.status {
            Status::Passed if outcome.is_flaky() => Style::new().yellow().bold().apply_to("flaky  "),
            Status::Passed if outcome.is_cached() => Style::new().green().dim().apply_to("cached "),
            Status::Passed => Style::new().green().apply_to("pass   "),
            _ if quarantine.is_some() => Style::new().yellow().bold().apply_to("fail   "),
            _ => Style::new().red().bold().apply_to("FAIL   "),
        };
        let mut line = self.line(test, &word, &duration(outcome.duration));
        if !outcome.passed() {
            line.push_str(&format!("  {}", outcome.status));
        }
        if let Some(quarantine) = quarantine {
            line.push_str(&format!("  {quarantine}"));
        }
        if outcome.is_flaky() {
            line.push_str(&format!("  passed at attempt {}", outcome.attempts));
        }
        if let Some(age) = age(outcome) {
            line.push_str(&format!("  {} ago", duration(age)));
        }
        self.printer.line(&line);
        self.remarks(outcome);
        let is_shown = match self.show {
            Show::All => true,
            Show::Failed => !outcome.passed(),
            // The output of a test that ran has been shown.
            Show::Live => !outcome.passed() && outcome.is_cached(),
            Show::None | Show::Agent => false,
        };
        if is_shown && !outcome.output.is_empty() {
            let text = String::from_utf8_lossy(&outcome.output);
            self.printer.program_output(text.trim_end_matches('\n'));
        }
    }

    /// Shows the line of a test whose result is that of another test of this run.
    fn deduplicated(&self, test: TestId, other: TestId, outcome: &Outcome) {
        if self.agent.is_some() && outcome.passed() {
            return;
        }
        let word = if outcome.passed() {
            Style::new().green().apply_to("pass   ")
        } else {
            Style::new().red().bold().apply_to("FAIL   ")
        };
        self.printer.line(&format!("{}  same as {}", self.line(test, &word, "-"), self.names[other.index()]));
    }

    fn line(&self, test: TestId, word: &StyledObject<&str>, time: &str) -> String {
        let name = &self.names[test.index()];
        let padding = " ".repeat(self.width.saturating_sub(measure_text_width(name)));
        format!("  {word}  {name}{padding}  {time:>8}")
    }

    fn remarks(&mut self, outcome: &Outcome) {
        let not_cached = match &outcome.source {
            Source::Ran(CacheDecision::Flaky | CacheDecision::TracedByOuter) | Source::Cached(_) => None,
            Source::Ran(decision) => self.not_cached.remark(decision, self.verbose),
        };
        let remark =
            |text: String| self.printer.line(&format!("{INDENT}{}", Style::new().yellow().apply_to(text)));
        not_cached.into_iter().for_each(remark);
        if let Some(reason) = &outcome.coarse {
            remark(format!("cached with a coarse key: {}", printable(reason)));
        }
        if let Some(interference) = outcome.interference {
            remark(interference.to_string());
        }
        if !outcome.undeclared.is_empty() {
            let paths = outcome.undeclared.iter().take(PATHS_MAX);
            let paths: Vec<String> = paths.map(|path| printable(&path.display().to_string())).collect();
            let more = outcome.undeclared.len().saturating_sub(PATHS_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            remark(format!("reads files that are not among its inputs: {}{more}", paths.join(", ")));
        }
    }

    /// Shows the line of a test that could not be run.
    fn broken(&mut self, test: TestId, error: &Error) {
        let reason = greenwave::chain(error);
        self.printer.json(|| {
            let result = TestResult::Error(reason.clone());
            let report = TestReport { result, ..self.report(test, None) };
            JsonLine::test(&report).to_string()
        });
        if self.agent.as_mut().is_some_and(|agent| !agent.is_new_reason(&reason)) {
            return;
        }
        let word = Style::new().red().bold().apply_to("broken ");
        self.printer.line(&format!("  {word}  {}", printable(&reason)));
    }

    fn audit_failed(&self, test: TestId, audit: &Audit) {
        let (cached, actual) = (&audit.cached, &audit.actual);
        let failed = &self.suite.tests()[test.index()];
        self.printer.json(|| JsonLine::audit_failed(failed, audit).to_string());
        let word = Style::new().red().bold().apply_to("audit  ");
        let age = age(cached).map_or_else(String::new, |age| format!(" ({} ago)", duration(age)));
        self.printer.line(&format!(
            "  {word}  {}: cached as {}{age} but now {}, with no tracked input changed",
            self.names[test.index()],
            cached.status,
            actual.status
        ));
        for line in first_difference(&cached.output, &actual.output) {
            self.printer.line(&format!("{INDENT}{line}"));
        }
    }

    /// Shows the notes, the slowest tests and the closing line of a run.
    pub(crate) fn finish(&self, report: &SuiteReport, run: &RunReport, totals: &SuiteTotals) {
        self.printer.close();
        self.printer.json(|| JsonLine::finished(run));
        for (test, pattern) in &report.unmatched {
            self.printer.line(&format!(
                "{}: input pattern `{}` of test `{}` matches no file",
                Style::new().yellow().bold().apply_to("note"),
                printable(pattern),
                self.names[test.index()]
            ));
        }
        if !report.stressed.is_empty() {
            let tests = plural(report.stressed.len(), "new test");
            self.printer.line(&format!("{tests} ran several times"));
        }
        self.flaky(run);
        if self.agent.is_none() {
            self.not_cached.closing(self.suite.project()).iter().for_each(|line| self.printer.line(line));
        }
        let omitted = self.agent.as_ref().and_then(AgentFailures::omitted);
        omitted.iter().for_each(|line| self.printer.line(line));
        let slowest = self.slowest(report);
        if !slowest.is_empty() && self.agent.is_none() {
            self.printer.line("Slowest:");
            slowest.iter().for_each(|line| self.printer.line(line));
        }
        tracing_note(&report.tracing).iter().for_each(|line| self.printer.line(line));
        self.printer.line(&totals.to_string());
        audit_line(report).iter().for_each(|line| self.printer.line(line));
    }

    /// Lists the flaky tests.
    fn flaky(&self, run: &RunReport) {
        let flaky: Vec<String> =
            run.tests.iter().filter(|test| test.is_flaky()).map(|test| printable(&test.name)).collect();
        if !flaky.is_empty() {
            self.printer.line(&format!("Flaky: {}", flaky.join(", ")));
        }
    }

    /// Returns the lines of the slowest tests, unless so few ran that they are easy to find above.
    fn slowest(&self, report: &SuiteReport) -> Vec<String> {
        let ran = |result: &Option<Result<Outcome, _>>| match result {
            Some(Ok(outcome)) if !outcome.is_cached() => Some(outcome.duration),
            _ => None,
        };
        let all = report.results.iter().enumerate();
        let mut slow: Vec<(Duration, TestId)> =
            all.filter_map(|(test, result)| Some((ran(result)?, TestId::new(test)))).collect();
        if slow.len() <= SLOWEST_MAX {
            return Vec::new();
        }
        slow.retain(|(took, _)| *took >= SLOW);
        slow.sort_unstable_by(|one, other| other.cmp(one));
        let line = |(took, test)| self.line(test, &Style::new().apply_to("       "), &duration(took));
        slow.into_iter().take(SLOWEST_MAX).map(line).collect()
    }

    /// Shows that a signal stopped the run.
    pub(crate) fn stopped(&self) {
        self.printer.close();
        self.printer.json(|| JsonLine::Stopped.to_string());
        self.printer.line("Stopped; tests that have passed are cached");
    }
}

/// Returns a note for runs whose tests should be traced and are not traced by this process.
pub(crate) fn tracing_note(tracing: &TraceStatus) -> Option<String> {
    let head = |word| Style::new().yellow().bold().apply_to(word);
    match tracing {
        TraceStatus::Off | TraceStatus::Traced => None,
        TraceStatus::TracedByOuter => Some(format!(
            "{}: the outer run traces these tests and caches their results; this run stores none",
            head("note")
        )),
        TraceStatus::Unavailable(reason) => Some(format!(
            "{}: tests are not traced, so results depend on declared inputs only: {}",
            head("warning"),
            printable(reason)
        )),
    }
}

/// Returns the line about audited results, if there were any.
fn audit_line(report: &SuiteReport) -> Option<String> {
    let audited = plural(report.audited, "cached result");
    match (report.audited, report.audits_failed.len()) {
        (0, _) => None,
        (_, 0) => Some(format!("{audited} audited: no difference")),
        (_, 1) => Some(format!("{audited} audited: 1 differs")),
        (_, failed) => Some(format!("{audited} audited: {failed} differ")),
    }
}

/// Returns the age of a cached result.
fn age(outcome: &Outcome) -> Option<Duration> {
    match outcome.source {
        Source::Cached(age) => Some(age),
        Source::Ran(_) => None,
    }
}

/// Returns the first line in which two outputs differ, once of each.
fn first_difference(cached: &[u8], actual: &[u8]) -> Vec<String> {
    let (cached, actual) = (String::from_utf8_lossy(cached), String::from_utf8_lossy(actual));
    let cached = cached.lines().map(Some).chain(std::iter::repeat(None));
    let mut lines = cached.zip(actual.lines().map(Some).chain([None]));
    match lines.find(|(cached, actual)| cached != actual) {
        Some((cached, actual)) => {
            let show = |line: Option<&str>| printable(line.unwrap_or("(end)"));
            vec![format!("cached output: {}", show(cached)), format!("actual output: {}", show(actual))]
        }
        None => vec!["the output is the same".to_owned()],
    }
}
