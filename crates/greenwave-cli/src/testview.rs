//! Shows what happens while a project's tests run: colours and one progress line on a terminal, plain lines in a pipe, JSON for programs. Knows
//! nothing of how a run works.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;

use console::{Style, measure_text_width, strip_ansi_codes, style};
use greenwave_testing::{
    Audit, CacheDecision, Harnesses, JsonLine, Outcome, RunReport, Source, Status, Suite, SuiteEvent,
    SuiteReport, Test, TestId, TestReport, TestResult, TraceStatus, UpToDateRecord,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::cli::{Format, Show};
use crate::output;

/// How often the progress line moves although nothing happens.
const TICK: Duration = Duration::from_millis(200);
/// So many of the slowest tests are named.
const SLOWEST: usize = 5;
/// What is slow enough to be named.
const SLOW: Duration = Duration::from_millis(500);

/// The one who shows.
pub(crate) struct TestView {
    view: View,
    show: Show,
    tests: Vec<Test>,
    harnesses: Harnesses,
    names: Vec<String>,
    width: usize,
    running: BTreeSet<TestId>,
    verbose: bool,
}

enum View {
    Terminal(ProgressBar),
    Plain,
    Json,
}

impl TestView {
    pub(crate) fn new(format: Format, show: Show, verbose: bool, suite: &Suite) -> Self {
        let view = match format {
            Format::Json => View::Json,
            Format::Human if std::io::stdout().is_terminal() => View::Terminal(bar()),
            Format::Human => View::Plain,
        };
        let tests = suite.tests();
        let names: Vec<String> = tests.iter().map(|test| printable(&test.name)).collect();
        let width = names.iter().map(|name| measure_text_width(name)).max().unwrap_or(0).min(50);
        Self {
            view,
            show,
            tests: tests.to_vec(),
            harnesses: suite.harnesses().clone(),
            names,
            width,
            running: BTreeSet::new(),
            verbose,
        }
    }

    pub(crate) fn event(&mut self, event: &SuiteEvent<'_>) {
        match event {
            SuiteEvent::LookedUp { cached, running } => self.looked_up(*cached, *running),
            SuiteEvent::Building(folder) => {
                let folder =
                    if folder.as_os_str().is_empty() { ".".to_owned() } else { folder.display().to_string() };
                match &self.view {
                    View::Terminal(bar) => bar.set_message(format!("building {folder}")),
                    View::Json | View::Plain => {}
                }
            }
            SuiteEvent::Started(at) => {
                self.running.insert(*at);
            }
            SuiteEvent::Cached(at, outcome) => {
                self.line(*at, Some(&Ok((*outcome).clone())));
                if self.verbose || self.show == Show::All || !outcome.passed() {
                    self.verdict(*at, outcome);
                }
            }
            SuiteEvent::Ran(at, outcome) => {
                self.running.remove(at);
                self.line(*at, Some(&Ok((*outcome).clone())));
                self.verdict(*at, outcome);
                self.advance();
            }
            SuiteEvent::Deduplicated(at, other, outcome) => {
                self.running.remove(at);
                self.line(*at, Some(&Ok((*outcome).clone())));
                self.same(*at, *other, outcome);
                self.advance();
            }
            SuiteEvent::Broken(at, error) => {
                self.running.remove(at);
                let causes = greenwave::chain(*error);
                self.broken(*at, error);
                self.say(&format!("  {}  {}", Style::new().red().bold().apply_to("broken "), causes));
                self.advance();
            }
            SuiteEvent::AuditFailed(at, audit) => self.audit_failed(*at, audit),
            _ => {}
        }
        if let View::Terminal(bar) = &self.view {
            let names: Vec<&str> =
                self.running.iter().take(4).map(|at| self.names[at.index()].as_str()).collect();
            bar.set_message(names.join(" "));
        }
    }

    fn looked_up(&self, known: usize, running: usize) {
        match &self.view {
            View::Json => {
                output::line(&JsonLine::started(std::time::SystemTime::now(), known + running).to_string());
            }
            View::Terminal(bar) => bar.set_length(running as u64),
            View::Plain => {}
        }
        if running > 0 {
            let known = if known > 0 { format!("{known} known, ") } else { String::new() };
            self.say(&format!("{}: {known}{running} to run", plural(self.names.len(), "test")));
        }
    }

    fn audit_failed(&self, at: TestId, audit: &Audit) {
        let (known, now) = (&audit.cached, &audit.actual);
        if let View::Json = self.view {
            let (name, known, now) =
                (&self.tests[at.index()].name, known.status.to_string(), now.status.to_string());
            let event = json!({"event": "audit_failed", "name": name, "known": known, "now": now});
            return output::line(&event.to_string());
        }
        self.say(&format!(
            "  {}  {}: it {} when its result was kept {}, and it {} now, although nothing that is known to matter has changed",
            Style::new().red().bold().apply_to("audit  "),
            self.names[at.index()],
            known.status,
            age(known).map_or_else(String::new, |age| format!("{} ago", lasted(age))),
            now.status,
        ));
        self.say(&difference(&known.output, &now.output));
    }

    fn advance(&self) {
        if let View::Terminal(bar) = &self.view {
            bar.inc(1);
        }
    }

    /// A test's line, and its output where that is wanted.
    fn verdict(&self, at: TestId, outcome: &Outcome) {
        if let View::Json = self.view {
            return;
        }
        let (word, colour) = match outcome.status {
            Status::Passed if outcome.is_flaky() => ("flaky  ", Style::new().yellow().bold()),
            Status::Passed if outcome.is_cached() => ("known  ", Style::new().green().dim()),
            Status::Passed => ("pass   ", Style::new().green()),
            _ => ("FAIL   ", Style::new().red().bold()),
        };
        let name = &self.names[at.index()];
        let padding = " ".repeat(self.width.saturating_sub(measure_text_width(name)));
        let mut line =
            format!("  {}  {name}{padding}  {:>8}", colour.apply_to(word), lasted(outcome.duration));
        if !outcome.passed() {
            line.push_str(&format!("  {}", outcome.status));
        }
        if outcome.is_flaky() {
            line.push_str(&format!("  passed at attempt {}", outcome.attempts));
        }
        if let Some(age) = age(outcome) {
            line.push_str(&format!("  {} ago", lasted(age)));
        }
        self.say(&line);
        self.remarks(outcome);
        let wanted = match self.show {
            Show::All => true,
            Show::Failed => !outcome.passed(),
            Show::None => false,
        };
        if wanted && !outcome.output.is_empty() {
            self.output(outcome);
        }
    }

    /// The line of a test that did not run, since another had the same to do.
    fn same(&self, at: TestId, other: TestId, outcome: &Outcome) {
        let (word, colour) = match outcome.passed() {
            true => ("pass   ", Style::new().green()),
            false => ("FAIL   ", Style::new().red().bold()),
        };
        let name = &self.names[at.index()];
        let padding = " ".repeat(self.width.saturating_sub(measure_text_width(name)));
        let word = colour.apply_to(word);
        self.say(&format!(
            "  {word}  {name}{padding}      same  as {}, which has just run",
            self.names[other.index()]
        ));
    }

    fn remarks(&self, outcome: &Outcome) {
        let remark = |text: String| self.say(&format!("           {}", Style::new().yellow().apply_to(text)));
        if let Source::Ran(stored) = &outcome.source
            && !matches!(stored, CacheDecision::Flaky | CacheDecision::TracedByOuter)
            && let Some(reason) = stored.reason()
        {
            remark(format!("not kept: {reason}"));
        }
        const NAMED: usize = 3;
        if !outcome.undeclared.is_empty() {
            let named: Vec<String> = outcome
                .undeclared
                .iter()
                .take(NAMED)
                .map(|path| printable(&path.display().to_string()))
                .collect();
            let more = outcome.undeclared.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            remark(format!("reads {}{more}, which its inputs do not name", named.join(", ")));
        }
    }

    /// The output as it came, with its colours where these can be shown.
    fn output(&self, outcome: &Outcome) {
        let text = String::from_utf8_lossy(&outcome.output);
        let text = text.trim_end_matches('\n');
        match &self.view {
            View::Terminal(bar) => bar.suspend(|| output::line(text)),
            _ => output::line(&strip_ansi_codes(text)),
        }
    }

    fn say(&self, line: &str) {
        match &self.view {
            View::Terminal(bar) => bar.println(line),
            View::Plain => output::line(line),
            View::Json => {}
        }
    }

    fn line(&self, at: TestId, result: Option<&Result<Outcome, greenwave_testing::Error>>) {
        if let View::Json = self.view {
            let report = TestReport::new(&self.tests[at.index()], result, &self.harnesses);
            output::line(&JsonLine::test(&report).to_string());
        }
    }

    fn broken(&self, at: TestId, error: &greenwave_testing::Error) {
        if let View::Json = self.view {
            let result = TestResult::Error(greenwave::chain(error));
            let report =
                TestReport { result, ..TestReport::new(&self.tests[at.index()], None, &self.harnesses) };
            output::line(&JsonLine::test(&report).to_string());
        }
    }

    /// Tells what became of everything.
    pub(crate) fn finish(&mut self, report: &SuiteReport, run: &RunReport) {
        if let View::Terminal(bar) = &self.view {
            bar.finish_and_clear();
        }
        let totals = Totals::of(report, run.tests.len());
        if let View::Json = self.view {
            output::line(&JsonLine::finished(run).to_string());
            return;
        }
        for (at, pattern) in &report.unmatched {
            output::line(&format!(
                "{}: `{}` of test {} matches no file",
                Style::new().yellow().bold().apply_to("note"),
                printable(pattern),
                self.names[at.index()]
            ));
        }
        let slowest = self.slowest(report);
        if !slowest.is_empty() {
            output::line("Slowest:");
            output::lines(&slowest);
        }
        output::lines(&untraced(&report.tracing).into_iter().collect::<Vec<_>>());
        output::line(&totals.line(report));
    }

    fn slowest(&self, report: &SuiteReport) -> Vec<String> {
        let ran = |result: &Option<Result<Outcome, _>>| match result {
            Some(Ok(outcome)) if !outcome.is_cached() => Some(outcome.duration),
            _ => None,
        };
        let all = report.results.iter().enumerate();
        let mut slow: Vec<(Duration, usize)> = all.filter_map(|(at, it)| Some((ran(it)?, at))).collect();
        // Of no more than these, each has its line above.
        if slow.len() <= SLOWEST {
            return Vec::new();
        }
        slow.retain(|(took, _)| *took >= SLOW);
        slow.sort_unstable_by(|one, other| other.cmp(one));
        slow.into_iter()
            .take(SLOWEST)
            .map(|(took, at)| {
                let name = &self.names[at];
                let padding = " ".repeat(self.width.saturating_sub(measure_text_width(name)));
                format!("           {name}{padding}  {:>8}", lasted(took))
            })
            .collect()
    }

    /// Tells that the run was stopped from outside.
    pub(crate) fn stopped(&self) {
        match &self.view {
            View::Terminal(bar) => bar.finish_and_clear(),
            View::Plain => {}
            View::Json => return output::line(&json!({"event": "stopped"}).to_string()),
        }
        output::line("Stopped. What has passed is kept.");
    }
}

/// What is to be known of a run whose tests this program does not trace, although that is wanted.
pub(crate) fn untraced(tracing: &TraceStatus) -> Option<String> {
    match tracing {
        TraceStatus::Off | TraceStatus::Traced => None,
        TraceStatus::TracedByOuter => Some(format!(
            "{}: the run that this one is a part of traces its tests; what ran is cached there, and not here",
            Style::new().yellow().bold().apply_to("note")
        )),
        TraceStatus::Unavailable(reason) => Some(format!(
            "{}: tests are not traced, so that results rest on declared inputs alone: {}",
            Style::new().yellow().bold().apply_to("warning"),
            printable(reason)
        )),
    }
}

/// Sums of a run.
pub(crate) struct Totals {
    wanted: usize,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    known: usize,
    same: usize,
    flaky: usize,
    broken: usize,
}

impl Totals {
    pub(crate) fn of(report: &SuiteReport, wanted: usize) -> Self {
        let same = report.deduplicated.len();
        let mut totals = Self { wanted, passed: 0, failed: 0, known: 0, same, flaky: 0, broken: 0 };
        for result in report.results.iter().flatten() {
            match result {
                Ok(outcome) => {
                    totals.passed += usize::from(outcome.passed());
                    totals.failed += usize::from(!outcome.passed());
                    totals.known += usize::from(outcome.is_cached());
                    totals.flaky += usize::from(outcome.is_flaky());
                }
                Err(_) => totals.broken += 1,
            }
        }
        // Known only since another of this run had just made it, which saved nothing that an earlier run had done.
        totals.known = totals.known.saturating_sub(totals.same);
        totals
    }

    /// Whether everything that was wanted has passed.
    pub(crate) fn is_good(&self) -> bool {
        self.passed == self.wanted
    }

    /// What is told if so many tests are known to pass and nothing ran.
    pub(crate) fn all_known(answer: &UpToDateRecord, wall: Duration) -> String {
        let tests = answer.tests;
        let totals =
            Self { wanted: tests, passed: tests, failed: 0, known: tests, same: 0, flaky: 0, broken: 0 };
        totals.line(&SuiteReport {
            results: Vec::new(),
            audited: 0,
            audits_failed: Vec::new(),
            wall,
            saved: answer.saved,
            deduplicated: Vec::new(),
            lower_bound: Duration::ZERO,
            looked_up: wall,
            tracing: TraceStatus::Off,
            unmatched: Vec::new(),
        })
    }

    fn line(&self, report: &SuiteReport) -> String {
        let count = |count: usize, word: &str, colour: Style| {
            (count > 0).then(|| colour.apply_to(format!("{count} {word}")).to_string())
        };
        let left = self.wanted - self.passed - self.failed - self.broken;
        let parts = [
            count(self.passed, "passed", Style::new().green().bold()),
            count(self.failed, "failed", Style::new().red().bold()),
            count(self.broken, "broken", Style::new().red().bold()),
            count(self.flaky, "flaky", Style::new().yellow()),
            count(left, "not run", Style::new().yellow()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let known = match self.known {
            0 => String::new(),
            known if known == self.wanted => format!(", all known (saved {})", lasted(report.saved)),
            known => format!(", {known} known (saved {})", lasted(report.saved)),
        };
        let same = match self.same {
            0 => String::new(),
            same => format!(", {same} the same as another"),
        };
        let audited = match (report.audited, report.audits_failed.len()) {
            (0, _) => String::new(),
            (count, 0) => format!(" {} checked again, all the same.", plural(count, "known result")),
            (count, bad) => format!(" {} checked again, {bad} not the same.", plural(count, "known result")),
        };
        let head = style(plural(self.wanted, "test")).bold();
        format!("{head}: {}{known}{same}; {}.{audited}", parts.join(", "), lasted(report.wall))
    }
}

fn age(outcome: &Outcome) -> Option<Duration> {
    match outcome.source {
        Source::Cached(age) => Some(age),
        Source::Ran(_) => None,
    }
}

/// The first line in which two outputs differ.
fn difference(known: &[u8], now: &[u8]) -> String {
    let (known, now) = (String::from_utf8_lossy(known), String::from_utf8_lossy(now));
    let mut lines =
        known.lines().map(Some).chain(std::iter::repeat(None)).zip(now.lines().map(Some).chain([None]));
    match lines.find(|(known, now)| known != now) {
        Some((known, now)) => {
            let show = |line: Option<&str>| printable(line.unwrap_or("(nothing)"));
            format!("           its output then: {}\n           its output now:  {}", show(known), show(now))
        }
        None => "           its output is the same".to_owned(),
    }
}

/// A text without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A duration in two or three figures.
pub(crate) fn lasted(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        _ if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        _ if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        _ if seconds < 100.0 => format!("{seconds:.2} s"),
        _ if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

pub(crate) fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("{count} {one}") } else { format!("{count} {one}s") }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
    let template = "{spinner} {pos} of {len} {elapsed} {wide_msg:.dim}";
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.enable_steady_tick(TICK);
    bar
}
