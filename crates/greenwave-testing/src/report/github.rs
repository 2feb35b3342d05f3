//! A run as Markdown for the page of a run on GitHub (`$GITHUB_STEP_SUMMARY`). Knows nothing of where it goes.

use std::fmt::Write as _;
use std::time::Duration;

use super::{RunReport, TestReport, one_line, plain};

/// GitHub refuses a step's summary of more than 1 MiB (<https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>).
const SUMMARY_BYTES_MAX: usize = 1000 * 1024;
/// Most of an output that is shown: its end, where failures are told.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
const SLOWEST_MAX: usize = 10;
const NOT_KEPT_MAX: usize = 20;

/// The summary of a run: failures first, with what they printed, then the slowest tests, and passes that were not kept.
///
/// Names and outputs are shown as they are, whatever characters are in them. It stays below GitHub's limit of 1 MiB, by leaving out the
/// last failures' outputs, and says so.
pub fn github_summary(run: &RunReport) -> String {
    let mut text = head(run);
    failures(run, &mut text);
    slowest(run, &mut text);
    not_kept(run, &mut text);
    text
}

fn head(run: &RunReport) -> String {
    let tally = run.tally();
    let sign = if tally.is_success() { "✅" } else { "❌" };
    let parts = [
        (tally.failed, "failed"),
        (tally.errors, "could not be run"),
        (tally.not_run, "not run"),
        (tally.flaky, "flaky"),
    ];
    let mut text = format!("## {sign} {} of {} passed", tally.passed, plural(run.tests.len(), "test"));
    for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, ", {count} {what}");
    }
    let _ = write!(text, "\n\nIn {}.", time(run.wall));
    if tally.known > 0 {
        let known = plural(tally.known, "result");
        let _ = write!(text, " {known} known already, which saved {} of running.", time(run.saved));
    }
    text.push('\n');
    if let Some(reason) = run.tracing.reason() {
        let _ = writeln!(
            text,
            "\n⚠️ Tests were not traced, so that results rest on declared inputs alone: {}",
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
        if let Some(explanation) = &test.explanation {
            let _ = writeln!(block, "{}\n", cell(explanation));
        }
        if !test.output.is_empty() {
            let _ = writeln!(block, "<pre>{}</pre>\n", html(&end(&plain(&test.output))));
        }
        block.push_str("</details>\n");
        // With room for what follows.
        if text.len() + block.len() > SUMMARY_BYTES_MAX - 128 * 1024 {
            let left = plural(failed.len() - at, "failure");
            let _ = writeln!(text, "\n{left} more, left out since GitHub takes no more text.");
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

fn not_kept(run: &RunReport, text: &mut String) {
    let not_kept: Vec<_> =
        run.tests.iter().filter_map(|test| Some((test, test.not_kept.as_ref()?))).collect();
    if not_kept.is_empty() {
        return;
    }
    text.push_str("\n### Passed, and will run again\n\n| test | since |\n| --- | --- |\n");
    for (test, reason) in not_kept.iter().take(NOT_KEPT_MAX) {
        let _ = writeln!(text, "| {} | {} |", cell(&test.name), cell(reason));
    }
    if not_kept.len() > NOT_KEPT_MAX {
        let _ = writeln!(text, "\nAnd {} more.", not_kept.len() - NOT_KEPT_MAX);
    }
}

/// Text inside HTML, on which Markdown has no say.
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

/// Text in a table's cell, where every sign of Markdown stands for itself. Long texts are cut.
fn cell(text: &str) -> String {
    const CHARACTERS_MAX: usize = 300;
    let mut escaped = String::with_capacity(text.len());
    for (at, character) in one_line(text).chars().enumerate() {
        if at == CHARACTERS_MAX {
            escaped.push('…');
            break;
        }
        match character {
            // As entities: a backslash before a bar is not undone in code, and one before `<` not in HTML.
            '|' | '<' | '>' | '&' | '`' | '*' | '_' | '[' | ']' | '~' | '\\' | '#' | '@' | '$' => {
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// The end of a text, from the beginning of a line on.
fn end(text: &str) -> String {
    if text.len() <= OUTPUT_BYTES_MAX {
        return text.to_owned();
    }
    let from = text.len() - OUTPUT_BYTES_MAX;
    let from = (from..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let from = text[from..].find('\n').map_or(from, |line| from + line + 1);
    format!("[… {from} bytes left out …]\n{}", &text[from..])
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A time as people say it.
fn time(time: Duration) -> String {
    let (seconds, ms) = (time.as_secs(), time.as_millis());
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
