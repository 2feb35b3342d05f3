//! Shows what happens while a plan runs: colours and one progress line on a terminal, plain lines in a pipe,
//! JSON for programs. Knows nothing of how a run works.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use console::{Style, measure_text_width, style};
use greenwave::{Event, FeatureReport, Plan, Report};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::cli::Format;
use crate::output;

/// How often the progress line moves although nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// The one who shows.
pub(crate) struct Progress {
    view: View,
    width: usize,
    phases: BTreeMap<String, &'static str>,
    green: usize,
}

enum View {
    /// A terminal: lines above one progress line.
    Terminal(ProgressBar),
    Plain,
    Json,
}

impl Progress {
    pub(crate) fn new(format: Format, plan: &Plan) -> Self {
        let view = match format {
            Format::Json => View::Json,
            Format::Human if std::io::stdout().is_terminal() => View::Terminal(bar(plan.features.len())),
            Format::Human => View::Plain,
        };
        let width = plan.features.iter().map(|feature| measure_text_width(&feature.id)).max().unwrap_or(0);
        Self { view, width, phases: BTreeMap::new(), green: 0 }
    }

    /// Tells what the run goes by.
    pub(crate) fn profile(&mut self, profile: &str, metrics: Option<SocketAddr>) {
        let url = metrics.map(|address| format!("http://{address}/metrics"));
        if let View::Json = self.view {
            output::line(&json!({"event": "settings", "profile": profile, "metrics": url}).to_string());
        } else if let Some(url) = url {
            self.say(&format!("Live figures: {url}"));
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        self.keep_count(event);
        if let View::Json = self.view {
            let text = serde_json::to_string(event);
            output::line(&text.expect("events have text keys and plain values"));
            return;
        }
        let line = match event {
            Event::Started { .. } => self.started(event),
            // The line of the merge sums them up.
            Event::Tests { phase: "merging", cached: true, .. } => return,
            other => self.told(other),
        };
        self.say(&line);
        self.move_bar();
    }

    /// Tells that the run was stopped from outside, and how to go on with it.
    pub(crate) fn stopped(&mut self, plan: &Path) {
        self.close();
        match &self.view {
            View::Json => output::line(&json!({"event": "stopped"}).to_string()),
            _ => {
                output::line(&format!(
                    "Stopped. What is green stays green; to go on: greenwave run {}",
                    plan.display()
                ));
            }
        }
    }

    /// Tells what became of everything.
    pub(crate) fn finish(&mut self, report: &Report) {
        self.close();
        if let View::Json = self.view {
            let mut value = serde_json::to_value(report).expect("reports have text keys and plain values");
            value["event"] = json!("finished");
            output::line(&value.to_string());
            return;
        }
        output::line("");
        output::lines(&table(report));
        output::line("");
        output::lines(&summary(report));
    }

    fn close(&self) {
        if let View::Terminal(bar) = &self.view {
            bar.finish_and_clear();
        }
    }

    fn say(&self, line: &str) {
        match &self.view {
            View::Terminal(bar) => bar.println(line),
            _ => output::line(line),
        }
    }

    fn keep_count(&mut self, event: &Event) {
        match event {
            Event::Phase { feature, phase, .. } => {
                self.phases.insert(feature.clone(), phase);
                self.green += usize::from(*phase == "green");
            }
            Event::UpToDate { .. } => self.green += 1,
            Event::Failed { feature, .. } => drop(self.phases.insert(feature.clone(), "failed")),
            _ => {}
        }
    }

    fn move_bar(&self) {
        let View::Terminal(bar) = &self.view else { return };
        bar.set_position(self.green as u64);
        let at_work = self.phases.iter().filter(|(_, phase)| !matches!(**phase, "green" | "failed"));
        let at_work: Vec<_> =
            at_work.map(|(feature, phase)| colour(phase).apply_to(feature).to_string()).collect();
        bar.set_message(at_work.join(" "));
    }

    fn started(&self, event: &Event) -> String {
        let Event::Started { plan, features, workers, agents, agent_kinds } = event else {
            return String::new();
        };
        let kinds = agent_kinds.join(" and ");
        format!(
            "{plan}: {features} features, {kinds} agents ({agents} questions at once), {workers} workers for tests"
        )
    }

    fn told(&self, event: &Event) -> String {
        let line = |feature: &str, word: &str, text: String| {
            let padding = " ".repeat(self.width.saturating_sub(measure_text_width(feature)));
            let word = colour(word).apply_to(format!("{word:<8}")).to_string();
            format!("  {feature}{padding}  {word}  {text}").trim_end().to_owned()
        };
        match event {
            Event::Started { .. } => String::new(),
            Event::UpToDate { feature } => line(feature, "green", "as an earlier run left it".to_owned()),
            Event::Phase { feature, phase: "yellow", attempt } => {
                line(feature, "yellow", format!("attempt {attempt}"))
            }
            Event::Phase { feature, phase: "red", .. } => {
                line(feature, "red", "the tests run first, and must fail".to_owned())
            }
            Event::Phase { feature, phase: "green", attempt } => {
                let attempts =
                    if *attempt == 1 { "1 attempt".to_owned() } else { format!("{attempt} attempts") };
                line(
                    feature,
                    "green",
                    if *attempt == 0 { String::new() } else { format!("after {attempts}") },
                )
            }
            Event::Phase { feature, phase, .. } => line(feature, phase, String::new()),
            Event::File { feature, path, bytes, .. } => {
                line(feature, "file", format!("{path} ({bytes} bytes)"))
            }
            Event::Tests { feature, .. } => line(feature, "tests", self.tests(event)),
            Event::Refused { feature, attempt, reason } => {
                line(feature, "refused", format!("attempt {attempt}: {reason}"))
            }
            Event::Merged { feature, files, retested, cached } => {
                let files = plural(*files, "file", "files");
                line(
                    feature,
                    "merged",
                    format!("{files}; tests of green features: {retested} run, {cached} known"),
                )
            }
            Event::Failed { feature, reason } => line(feature, "failed", reason.clone()),
            Event::Skipped { feature, because } => line(feature, "skipped", format!("depends on {because}")),
            other => format!("  {other:?}"),
        }
    }

    fn tests(&self, event: &Event) -> String {
        let Event::Tests { feature, test, phase, status, passed, failed, cached, seconds } = event else {
            return String::new();
        };
        let counts = match (passed, failed) {
            (Some(passed), Some(0)) => format!("{passed} passed"),
            (Some(passed), Some(failed)) => format!("{passed} passed, {failed} failed"),
            _ => status.clone(),
        };
        let whose = if feature == test { String::new() } else { format!("{test}: ") };
        let when = if *cached { "known".to_owned() } else { format!("{seconds:.1} s") };
        let as_expected = if *phase == "red" && status != "passed" { ", as they should" } else { "" };
        format!("{whose}{counts}{as_expected} ({when})")
    }
}

fn bar(features: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:20.green} {pos}/{len} green  {elapsed}  {wide_msg}");
    let bar = ProgressBar::with_draw_target(Some(features as u64), ProgressDrawTarget::stdout());
    bar.set_style(style.expect("the template is a constant, and tests draw it"));
    bar.enable_steady_tick(TICK);
    bar
}

fn colour(word: &str) -> Style {
    match word {
        "red" | "failed" | "refused" => Style::new().red(),
        "yellow" | "review" => Style::new().yellow(),
        "green" | "merged" => Style::new().green(),
        "merging" | "checking" => Style::new().cyan(),
        _ => Style::new().dim(),
    }
}

/// The features' end, a row each.
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
    }
    lines
}

fn row(feature: &FeatureReport) -> [String; 6] {
    let phase = colour(feature.phase).apply_to(feature.phase).to_string();
    let dash = || "-".to_owned();
    let asked = feature.tests_run + feature.tests_cached;
    [
        feature.feature.clone(),
        phase,
        if feature.attempts == 0 { dash() } else { feature.attempts.to_string() },
        feature.tests.map_or_else(dash, |tests| tests.to_string()),
        format!("{:.1} s", feature.busy.as_secs_f64()),
        if asked == 0 { dash() } else { format!("{} of {asked} known", feature.tests_cached) },
    ]
}

fn summary(report: &Report) -> Vec<String> {
    let totals = &report.totals;
    let count = |phase: &str| report.features.iter().filter(|feature| feature.phase == phase).count();
    let wall = totals.wall.as_secs_f64();
    let mut first =
        format!("{} of {} features green in {}", count("green"), report.features.len(), seconds(wall));
    for phase in ["failed", "skipped"] {
        if count(phase) > 0 {
            first.push_str(&format!(", {} {phase}", count(phase)));
        }
    }
    let alone = totals.sequential.as_secs_f64();
    let mut lines = vec![first + "."];
    if alone > wall {
        let (saved, times) = (alone - wall, alone / wall);
        let (alone, saved) = (seconds(alone), seconds(saved));
        lines.push(format!(
            "One stage after another: {alone}; side by side saved {saved} ({times:.1} times as fast)."
        ));
    }
    let saved = match totals.tests_cached {
        0 => String::new(),
        _ => format!(" (saved {})", seconds(totals.time_saved.as_secs_f64())),
    };
    let questions = match totals.requests {
        0 => "No agent was asked".to_owned(),
        asked => format!(
            "Agents were asked {}",
            if asked == 1 { "once".to_owned() } else { format!("{asked} times") }
        ),
    };
    let tests = match totals.tests_run {
        0 => "no test was run".to_owned(),
        run => format!("{} run", plural(run as usize, "test command was", "test commands were")),
    };
    let known = plural(totals.tests_cached as usize, "result was", "results were");
    lines.push(format!("{questions}, {tests}, {known} known{saved}."));
    lines
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
