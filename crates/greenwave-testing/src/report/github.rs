//! Renders a run as Markdown for its page on GitHub (`$GITHUB_STEP_SUMMARY`).

use std::fmt::Write as _;
use std::time::Duration;

use super::{RunReport, TestReport};
use crate::plain_text::{one_line, plain};

/// Size limit of the summary, in bytes. GitHub rejects more than 1 MiB
/// (<https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>).
const SUMMARY_BYTES_MAX: usize = 1000 * 1024;
/// Bytes of a failed test's output that are shown: the end, where most harnesses summarise
/// failures.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
const SLOWEST_MAX: usize = 10;
const REASONS_MAX: usize = 20;

/// Returns the summary of a run: failures with the end of their output, then the slowest tests,
/// passes that were not stored, and results that depend on all files of the project.
///
/// Names and outputs are escaped, so that they appear literally. The summary stays below GitHub's
/// limit of 1 MiB: failures that do not fit are replaced by their number.
pub fn github_summary(run: &RunReport) -> String {
    let mut text = head(run);
    failures(run, &mut text);
    slowest(run, &mut text);
    not_cached(run, &mut text);
    coarse(run, &mut text);
    text
}

fn head(run: &RunReport) -> String {
    let stats = run.stats();
    let sign = if stats.is_success() { "✅" } else { "❌" };
    let parts = [
        (stats.failed, "failed"),
        (stats.quarantined, "failed in quarantine"),
        (stats.errors, "could not be run"),
        (stats.not_run, "not run"),
        (stats.flaky, "flaky"),
    ];
    let mut text = format!("## {sign} {} of {} passed", stats.passed, plural(run.tests.len(), "test"));
    for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, ", {count} {what}");
    }
    let _ = write!(text, "\n\nIn {}.", time(run.wall));
    if stats.cached > 0 {
        let cached = plural(stats.cached, "cached result");
        let _ = write!(text, " {cached} saved {}.", time(run.saved));
    }
    text.push('\n');
    if let Some(reason) = run.tracing.reason() {
        let _ = writeln!(
            text,
            "\n⚠️ Tests were not traced, results depend on declared inputs only: {}",
            cell(&one_line(reason))
        );
    }
    text
}

fn failures(run: &RunReport, text: &mut String) {
    let failed: Vec<(&TestReport, String)> =
        run.tests.iter().filter_map(|test| Some((test, test.problem()?))).collect();
    if failed.is_empty() {
        return;
    }
    text.push_str("\n### Failures\n");
    for (at, (test, problem)) in failed.iter().enumerate() {
        let mut block = format!(
            "\n<details><summary><b>{}</b> {}",
            html(&one_line(&test.name)),
            html(&one_line(problem))
        );
        if !test.duration.is_zero() {
            let _ = write!(block, " after {}", time(test.duration));
        }
        block.push_str("</summary>\n\n");
        if !test.output.is_empty() {
            let _ = writeln!(block, "<pre>{}</pre>\n", html(&end(&plain(&test.output))));
        }
        block.push_str("</details>\n");
        // Leaves room for the two tables below.
        if text.len() + block.len() > SUMMARY_BYTES_MAX - 128 * 1024 {
            let left = plural(failed.len() - at, "failure");
            let _ = writeln!(text, "\n{left} more, omitted because of GitHub's size limit.");
            return;
        }
        text.push_str(&block);
    }
}

fn slowest(run: &RunReport, text: &mut String) {
    let mut ran: Vec<&TestReport> = run.tests.iter().filter(|test| test.attempts > 0).collect();
    ran.sort_by_key(|test| std::cmp::Reverse(test.duration));
    if ran.is_empty() {
        return;
    }
    text.push_str("\n### Slowest\n\n| test | time | attempts |\n| --- | ---: | ---: |\n");
    for test in ran.into_iter().take(SLOWEST_MAX) {
        let _ = writeln!(text, "| {} | {} | {} |", cell(&test.name), time(test.duration), test.attempts);
    }
}

fn not_cached(run: &RunReport, text: &mut String) {
    reasons(run, text, "Passed but not cached", |test| test.not_cached.as_ref());
}

fn coarse(run: &RunReport, text: &mut String) {
    reasons(run, text, "Cached with a coarse key", |test| test.coarse.as_ref());
}

/// Appends a table of the tests that have a reason.
fn reasons(run: &RunReport, text: &mut String, title: &str, reason: impl Fn(&TestReport) -> Option<&String>) {
    let tests: Vec<_> = run.tests.iter().filter_map(|test| Some((test, reason(test)?))).collect();
    if tests.is_empty() {
        return;
    }
    let _ = write!(text, "\n### {title}\n\n| test | reason |\n| --- | --- |\n");
    for (test, reason) in tests.iter().take(REASONS_MAX) {
        let _ = writeln!(text, "| {} | {} |", cell(&test.name), cell(reason));
    }
    if tests.len() > REASONS_MAX {
        let _ = writeln!(text, "\nAnd {} more.", tests.len() - REASONS_MAX);
    }
}

/// Escapes text for an HTML element.
fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Escapes text for a cell of a Markdown table, and truncates it to 300 characters.
fn cell(text: &str) -> String {
    const CHARACTERS_MAX: usize = 300;
    let mut escaped = String::with_capacity(text.len());
    for (at, character) in one_line(text).chars().enumerate() {
        if at == CHARACTERS_MAX {
            escaped.push('…');
            break;
        }
        match character {
            // Entities, since a backslash before `|` stays visible in code, and one before `<` in
            // HTML.
            '|' | '<' | '>' | '&' | '`' | '*' | '_' | '[' | ']' | '~' | '\\' | '#' | '@' | '$' => {
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// Returns the end of a text, starting at a line break, with a note about the bytes omitted.
fn end(text: &str) -> String {
    if text.len() <= OUTPUT_BYTES_MAX {
        return text.to_owned();
    }
    let from = text.len() - OUTPUT_BYTES_MAX;
    let from = (from..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let from = text[from..].find('\n').map_or(from, |line| from + line + 1);
    format!("[… {from} bytes omitted …]\n{}", &text[from..])
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Formats a duration with a unit that suits its length.
fn time(time: Duration) -> String {
    let (seconds, ms) = (time.as_secs(), time.as_millis());
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
