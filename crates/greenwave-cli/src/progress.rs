//! Shows the progress of a plan and its closing summary.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use console::{Term, measure_text_width, style, truncate_str};
use greenwave::{Event, FeatureReport, FileChange, Plan, Report, RunControl, StoredAttempt, format_dollars};
use serde_json::json;

use crate::board::Board;
use crate::board_keys::{BoardKeys, Demand};
use crate::colors::color;
use crate::details;
use crate::format::Format;
use crate::key_input::Key;
use crate::output;
use crate::printer::Printer;
use crate::pull_request::PullRequest;
use crate::terminal_text::safe;
use crate::text::{duration, plural, printable};

/// The progress line on a terminal, with the board below.
const TEMPLATE: &str = "{bar:20.green} {pos}/{len} green  {elapsed}{msg}";

/// Number of rows of a terminal that the board leaves to other lines.
const ROWS_ABOVE: usize = 3;

/// Shows the events of a run.
pub(crate) struct Progress {
    printer: Printer,
    /// Width of the longest feature id, in terminal columns.
    width: usize,
    board: Board,
    keys: Option<BoardKeys>,
    /// Features with a refused attempt that was shown.
    refused: BTreeSet<String>,
    green: usize,
    /// The file of the plan, for hints.
    plan: String,
}

impl Progress {
    pub(crate) fn new(format: Format, plan: &Plan, path: &Path) -> Self {
        let printer = Printer::new(format, TEMPLATE, Some(plan.features.len() as u64));
        let width = plan.features.iter().map(|feature| measure_text_width(&feature.id)).max().unwrap_or(0);
        let (refused, plan) = (BTreeSet::new(), path.display().to_string());
        Self { printer, width, board: Board::new(width), keys: None, refused, green: 0, plan }
    }

    /// Shows the profile (in JSON), the address of the metrics and the URL of the dashboard.
    pub(crate) fn settings(&self, profile: &str, served: Option<(SocketAddr, &str)>) {
        let metrics = served.map(|(address, _)| format!("http://{address}/metrics"));
        let dashboard = served.map(|(_, url)| url);
        self.printer.json(
            || json!({"event": "settings", "profile": profile, "metrics": metrics, "dashboard": dashboard}),
        );
        if let Some(url) = metrics {
            self.printer.line(&format!("Metrics: {url}"));
        }
        if let Some(url) = dashboard {
            self.printer.line(&format!("Dashboard: {url}"));
        }
    }

    /// Shows an event.
    pub(crate) fn event(&mut self, event: &Event) {
        self.count(event);
        self.printer.json(|| {
            serde_json::to_string(event).expect("events have string keys and values that JSON can represent")
        });
        if let Some(line) = self.describe(event) {
            self.printer.line(&line);
        }
        self.show_details(event);
        self.update_bar();
    }

    /// Shows that a signal stopped the run, and how to continue it.
    pub(crate) fn stopped(&self, plan: &Path) {
        self.printer.close();
        self.printer.json(|| json!({"event": "stopped"}));
        self.printer.line(&format!(
            "Stopped; green features stay green. To continue: greenwave run {}",
            plan.display()
        ));
    }

    /// Shows how a run continues that needs the user's approval.
    pub(crate) fn needs_approval(&self, plan: &Path) {
        self.printer.line(&format!(
            "Waiting for your approval. To continue after your decision: greenwave run {}",
            plan.display()
        ));
    }

    /// Shows where the pull request of a run is.
    pub(crate) fn pull_request(&self, request: &PullRequest) {
        let (file, url) = (request.file.display().to_string(), request.url.as_deref());
        self.printer.json(|| json!({"event": "pull_request", "file": file, "url": url}));
        self.printer.line(&format!("Pull request: {}", url.unwrap_or(&file)));
    }

    /// Shows the table of features and the summary.
    pub(crate) fn finish(&self, report: &Report) {
        self.printer.close();
        self.printer.json(|| {
            let mut value = serde_json::to_value(report)
                .expect("reports have string keys and values that JSON can represent");
            value["event"] = json!("finished");
            value
        });
        if !self.printer.is_json() {
            output::line("");
            output::lines(table(report));
            output::line("");
            output::lines(summary(report));
        }
    }

    /// Shows the messages of a refused attempt, once.
    fn show_details(&mut self, event: &Event) {
        let (feature, details) = match event {
            Event::Refused { feature, details, .. } => {
                self.refused.insert(feature.clone());
                (feature, details)
            }
            Event::Failed { feature, details, .. } if !self.refused.contains(feature) => (feature, details),
            _ => return,
        };
        let hint = format!("greenwave attempts {} {feature}", self.plan);
        for line in details::lines(details, &hint) {
            self.printer.line(&line);
        }
    }

    fn count(&mut self, event: &Event) {
        self.board.observe(event, Instant::now());
        let is_green = matches!(event, Event::Phase { phase: "green", .. } | Event::UpToDate { .. });
        self.green += usize::from(is_green);
    }

    /// Returns whether the output has a board.
    pub(crate) fn has_board(&self) -> bool {
        self.printer.bar().is_some()
    }

    /// Lets keys steer a run.
    pub(crate) fn take_keys(&mut self, control: RunControl) {
        self.keys = Some(BoardKeys::new(control));
    }

    /// Takes a key. Returns the work that it demands.
    pub(crate) fn press(&mut self, key: Key) -> Demand {
        let Some(keys) = &mut self.keys else { return Demand::Nothing };
        let demand = keys.press(key, &self.board.features());
        self.update_bar();
        demand
    }

    /// Returns the attempt that the details show, which changes while the run lasts.
    pub(crate) fn wanted_attempt(&self) -> Demand {
        self.keys.as_ref().map_or(Demand::Nothing, BoardKeys::wanted)
    }

    /// Shows an attempt in the details.
    pub(crate) fn show_attempt(&mut self, attempt: Option<StoredAttempt>) {
        if let Some(keys) = &mut self.keys {
            keys.show(attempt);
        }
        self.update_bar();
    }

    /// Draws the progress line and the board, whose times pass.
    pub(crate) fn update_bar(&self) {
        let Some(bar) = self.printer.bar() else { return };
        bar.set_position(self.green as u64);
        let (rows, columns) = Term::stdout().size();
        let mut lines = self.board.lines(Instant::now(), usize::from(columns), self.keys.as_ref());
        if let Some(keys) = &self.keys {
            let left = usize::from(rows).saturating_sub(lines.len() + ROWS_ABOVE);
            let below = keys.lines(&self.board.features(), left);
            let cut = |line: String| truncate_str(&line, usize::from(columns), "…").into_owned();
            lines.extend(below.into_iter().map(cut));
        }
        let lines: Vec<String> = lines.into_iter().map(|line| format!("\n{}", safe(&line))).collect();
        bar.set_message(lines.concat());
    }

    /// Returns the line for an event; `None` if another line covers it.
    fn describe(&self, event: &Event) -> Option<String> {
        let line = |feature: &str, word: &str, text: String| {
            let padding = " ".repeat(self.width.saturating_sub(measure_text_width(feature)));
            let word = color(word).apply_to(format!("{word:<8}")).to_string();
            Some(format!("  {feature}{padding}  {word}  {text}").trim_end().to_owned())
        };
        match event {
            Event::Started { .. } => Some(started_text(event)),
            Event::Confinement { .. } => confinement_text(event),
            Event::Copies { method } => Some(copies_text(method)),
            Event::Tracing { status } => Some(tracing_text(status)),
            Event::Base { commit, uncommitted, note } => {
                Some(base_text(commit.as_deref(), *uncommitted, note))
            }
            Event::UpToDate { feature } => line(feature, "green", "up to date".to_owned()),
            Event::Phase { feature, phase, attempt } => line(feature, phase, phase_text(phase, *attempt)),
            Event::File { feature, .. } => line(feature, "file", file_text(event)),
            Event::NotTaken { feature, path, reason, .. } => {
                let path = path.as_ref().filter(|path| !reason.contains(*path));
                let path = path.map(|path| format!("{}: ", printable(path))).unwrap_or_default();
                line(feature, "ignored", format!("{path}{reason}"))
            }
            // The line of the merge sums up its cached tests.
            Event::Tests { phase: "merging", cached: true, .. } => None,
            // A note names the tests that fail before the first merge.
            Event::Tests { phase: "baseline", .. } => None,
            Event::Tests { feature, .. } => line(feature, "tests", tests_text(event)),
            Event::Continued { feature, attempt, answered, new_round } => {
                line(feature, "resumed", continued_text(*attempt, *answered, *new_round))
            }
            Event::Waiting { feature, .. } => line(feature, "waiting", waiting_text(event)),
            Event::Fallback { feature, agent, instead_of, reason, .. } => {
                line(feature, "fallback", format!("agent `{agent}` takes over from `{instead_of}`: {reason}"))
            }
            Event::Candidate { feature, .. } => line(feature, "answer", candidate_text(event)),
            Event::Chosen { feature, candidate, of, agent, reason, .. } => {
                line(feature, "chosen", format!("candidate {candidate} of {of}, agent `{agent}`: {reason}"))
            }
            Event::TestsWritten { feature, .. } => line(feature, "written", written_text(event)),
            Event::Reviewed { feature, .. } => line(feature, "reviewed", reviewed_text(event)),
            Event::NeedsYou { feature, .. } => line(feature, "needs you", needs_text(event)),
            Event::Adopted { feature } => line(feature, "adopted", "its tests pass".to_owned()),
            Event::Refused { feature, attempt, reason, .. } => {
                line(feature, "rejected", format!("attempt {attempt}: {reason}"))
            }
            Event::Merged { feature, files, retested, cached } => line(
                feature,
                "merged",
                format!("{}; regression tests: {retested} run, {cached} cached", plural(*files, "file")),
            ),
            Event::Failed { feature, reason, .. } => line(feature, "failed", reason.clone()),
            Event::Skipped { feature, because } => line(feature, "skipped", format!("depends on {because}")),
            Event::Note { feature, message, hint, .. } => {
                let hint = hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                match feature {
                    Some(feature) => line(feature, "note", format!("{message}{hint}")),
                    None => Some(format!("  note: {message}{hint}")),
                }
            }
            other => Some(format!("  {other:?}")),
        }
    }
}

/// Returns the size of a run and its limits.
fn started_text(event: &Event) -> String {
    let Event::Started { plan, features, workers, agents, agent_kinds } = event else { return String::new() };
    format!(
        "{plan}: {}, {} agents ({}), {}",
        plural(*features, "feature"),
        agent_kinds.join(" and "),
        plural(*agents as usize, "concurrent request"),
        plural(*workers as usize, "test worker"),
    )
}

/// Returns the reason why a feature waits, and for how long.
fn waiting_text(event: &Event) -> String {
    let Event::Waiting { reason, seconds, .. } = event else { return String::new() };
    let delay = seconds.filter(|seconds| *seconds > 0.0);
    let delay = delay.map(|seconds| format!("; next try in {seconds:.0} s"));
    format!("{reason}{}", delay.unwrap_or_default())
}

/// Returns the description of one of several answers.
fn candidate_text(event: &Event) -> String {
    let Event::Candidate { candidate, of, agent, status, reason, .. } = event else { return String::new() };
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("candidate {candidate} of {of}, agent `{agent}`: {status}{reason}")
}

/// Returns the description of tests that an agent has written.
fn written_text(event: &Event) -> String {
    let Event::TestsWritten { agent, files, .. } = event else { return String::new() };
    let files: Vec<String> = files.iter().map(|file| printable(file)).collect();
    format!("tests of agent `{agent}`: {}", files.join(", "))
}

/// Returns the decision of a reviewer.
fn reviewed_text(event: &Event) -> String {
    let Event::Reviewed { agent, approved, reason, .. } = event else { return String::new() };
    let verdict = if *approved { "approves".to_owned() } else { format!("refuses: {reason}") };
    format!("agent `{agent}` {verdict}")
}

/// Returns the reason why a feature needs the user, and what helps.
fn needs_text(event: &Event) -> String {
    let Event::NeedsYou { reason, action, .. } = event else { return String::new() };
    format!("{reason}: {action}")
}

/// Returns the description of a file of an agent's work.
fn file_text(event: &Event) -> String {
    let Event::File { path, bytes, change, from, executable, .. } = event else { return String::new() };
    let (path, from) = (printable(path), from.as_deref().map(printable));
    match (change, from) {
        (FileChange::Deleted, _) => format!("{path} (deleted)"),
        (_, Some(from)) => format!("{path} (renamed from {from})"),
        _ if *executable => format!("{path} ({bytes} bytes, executable)"),
        _ => format!("{path} ({bytes} bytes)"),
    }
}

/// Returns the description of where a feature of an earlier run continues.
fn continued_text(attempt: u32, answered: bool, new_round: bool) -> String {
    match (answered, new_round) {
        (true, _) => format!("testing the stored answer to attempt {attempt}"),
        (false, true) => format!("new round from attempt {attempt}: earlier runs used up the attempts"),
        (false, false) => format!("at attempt {attempt}"),
    }
}

/// The version of Landlock that keeps signals inside.
const SIGNALS_FROM: u32 = 6;

/// Returns the description of how agents and tests are confined.
fn confinement_text(event: &Event) -> Option<String> {
    let Event::Confinement { strength, landlock, reason, shared_processes, agents } = event else {
        return None;
    };
    let mut text = match (*strength, landlock, reason) {
        (_, _, Some(reason)) => format!("Confinement: none ({reason})"),
        ("mount", ..) => "Confinement: mounts".to_owned(),
        (_, Some(version), _) => {
            let signals = if *version < SIGNALS_FROM { "signals to other programs and " } else { "" };
            format!(
                "Confinement: Landlock {version}, which does not stop {signals}changes of modes and times of \
                 files"
            )
        }
        (other, ..) => format!("Confinement: {other}"),
    };
    if let Some(reason) = shared_processes {
        text.push_str(&format!("; the user's processes are visible ({reason})"));
    }
    for (agent, strength) in agents.iter().filter(|(_, own)| *own != strength) {
        let own = if *strength == "off" { "is not confined" } else { strength };
        text.push_str(&format!("; agent `{agent}` {own}"));
    }
    Some(text)
}

/// Returns the description of whether tests are traced, and of its consequence.
pub(crate) fn tracing_text(status: &str) -> String {
    format!("Tracing: {status} (a cached result depends on the test's inputs only)")
}

/// Returns the description of how working copies are made.
pub(crate) fn copies_text(method: &str) -> String {
    match method {
        "overlay" => "Copies: overlay (files are shared until they are written)".to_owned(),
        "reflink" => "Copies: reflink (files share their blocks with the project's)".to_owned(),
        other => format!("Copies: {other}"),
    }
}

/// Returns the description of the state of the project that copies start from.
fn base_text(commit: Option<&str>, uncommitted: usize, note: &Option<String>) -> String {
    let commit = commit.map(|commit| commit.get(..10).unwrap_or(commit));
    let base = match (commit, uncommitted) {
        (Some(commit), 0) => format!("Base: commit {commit}"),
        (Some(commit), count) => {
            format!("Base: commit {commit} with uncommitted work in {}", plural(count, "file"))
        }
        (None, 0) => "Base: the files of the project".to_owned(),
        (None, 1) => "Base: 1 file that is not committed".to_owned(),
        (None, count) => format!("Base: {} that are not committed", plural(count, "file")),
    };
    note.as_ref().map_or_else(|| base.clone(), |note| format!("{base}; {note}"))
}

fn phase_text(phase: &str, attempt: u32) -> String {
    match phase {
        "red" => "running tests, which must fail".to_owned(),
        "yellow" => format!("attempt {attempt}"),
        "tests" => format!("an agent writes the tests, attempt {attempt}"),
        "held" => "before the merge".to_owned(),
        "green" if attempt > 0 => format!("after {}", plural(attempt as usize, "attempt")),
        _ => String::new(),
    }
}

fn tests_text(event: &Event) -> String {
    let Event::Tests { feature, test, phase, status, passed, failed, cached, seconds } = event else {
        return String::new();
    };
    let counts = match (passed, failed) {
        (Some(passed), Some(0)) => format!("{passed} passed"),
        (Some(passed), Some(failed)) => format!("{passed} passed, {failed} failed"),
        _ => status.clone(),
    };
    let name = if feature == test { String::new() } else { format!("{}: ", printable(test)) };
    let time = if *cached { "cached".to_owned() } else { format!("{seconds:.1} s") };
    let as_expected = if *phase == "red" && status != "passed" { ", as expected" } else { "" };
    format!("{name}{counts}{as_expected} ({time})")
}

/// Returns the lines of the closing table: one row per feature, followed by the reason if it
/// failed.
fn table(report: &Report) -> Vec<String> {
    let head = ["feature", "phase", "attempts", "tests", "time", "cache"].map(str::to_owned);
    let rows: Vec<[String; 6]> = report.features.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).map(|row| measure_text_width(&row[column]));
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &[String; 6]| {
        let cell = |(column, text): (usize, &String)| {
            let padding = " ".repeat(widths[column] - measure_text_width(text));
            let is_number = matches!(column, 2..=4);
            if is_number { format!("{padding}{text}") } else { format!("{text}{padding}") }
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![style(line(&head)).bold().to_string()];
    for (feature, row) in report.features.iter().zip(&rows) {
        lines.push(line(row));
        lines.extend(feature.reason.as_ref().map(|reason| format!("  {reason}")));
        lines.extend(feature.hint.as_ref().map(|hint| format!("  hint: {hint}")));
    }
    lines
}

fn row(feature: &FeatureReport) -> [String; 6] {
    let phase = color(feature.phase).apply_to(feature.phase).to_string();
    let dash = || "-".to_owned();
    let lookups = feature.tests_run + feature.tests_cached;
    [
        feature.feature.clone(),
        phase,
        if feature.attempts == 0 { dash() } else { feature.attempts.to_string() },
        feature.tests.map_or_else(dash, |tests| tests.to_string()),
        format!("{:.1} s", feature.busy.as_secs_f64()),
        if lookups == 0 { dash() } else { format!("{} of {lookups} cached", feature.tests_cached) },
    ]
}

fn summary(report: &Report) -> Vec<String> {
    let totals = &report.totals;
    let count = |phase: &str| report.features.iter().filter(|feature| feature.phase == phase).count();
    let mut first = format!("{} of {} green", count("green"), plural(report.features.len(), "feature"));
    for phase in ["held", "waiting", "failed", "skipped"] {
        if count(phase) > 0 {
            first.push_str(&format!(", {} {phase}", count(phase)));
        }
    }
    let mut lines = vec![format!("{first} in {}", duration(totals.wall))];
    if totals.sequential > totals.wall {
        let times = totals.sequential.as_secs_f64() / totals.wall.as_secs_f64();
        let saved = duration(totals.sequential - totals.wall);
        let sequential = duration(totals.sequential);
        lines.push(format!("Sequential {sequential}, parallel execution saved {saved} ({times:.1}x)"));
    }
    let saved = match totals.tests_cached {
        0 => String::new(),
        _ => format!(" (saved {})", duration(totals.time_saved)),
    };
    lines.push(format!(
        "{}, {} {} run, {} cached{saved}",
        plural(totals.requests as usize, "agent request"),
        plural(totals.tests_run as usize, "test command"),
        if totals.tests_run == 1 { "was" } else { "were" },
        totals.tests_cached
    ));
    lines.extend(usage(report));
    lines
}

/// Returns lines about the tokens and the money that agents used, if they reported any.
fn usage(report: &Report) -> Vec<String> {
    let total = report.totals.usage;
    if total.is_empty() {
        return Vec::new();
    }
    let cached = match total.cached_tokens {
        0 => String::new(),
        cached => format!(" ({} of them cached)", thousands(cached)),
    };
    let (read, written) = (thousands(total.input_tokens), thousands(total.output_tokens));
    let cost = total.cost.map_or_else(String::new, |cost| format!(", {}", format_dollars(cost)));
    let mut lines = vec![format!("Agents read {read} tokens{cached} and wrote {written}{cost}")];
    let costs = report.features.iter().filter_map(|feature| {
        let cost = feature.usage.cost.filter(|cost| *cost > 0)?;
        Some(format!("{} {}", feature.feature, format_dollars(cost)))
    });
    let costs: Vec<_> = costs.collect();
    if costs.len() > 1 {
        lines.push(format!("Cost by feature: {}", costs.join(", ")));
    }
    lines
}

/// Formats a number with separators.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> =
        digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_separators() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_start_of_a_run_says_what_each_version_of_landlock_does_not_stop() {
        for (version, signals) in [(5, "signals to other programs and "), (6, ""), (7, "")] {
            let event = Event::Confinement {
                strength: "landlock",
                landlock: Some(version),
                reason: None,
                shared_processes: None,
                agents: [("a".to_owned(), "off"), ("b".to_owned(), "landlock")].into(),
            };
            let expected = format!(
                "Confinement: Landlock {version}, which does not stop {signals}changes of modes and times of \
                 files; agent `a` is not confined"
            );
            assert_eq!(confinement_text(&event), Some(expected));
        }
    }
}
