//! `greenwave history`: tests that became slower, tests that are flaky, and the time that cached
//! results have saved.

mod page;

use std::cmp::Reverse;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use greenwave_testing::{ProjectHistory, TestHistory};
use serde_json::{Value, json};

use crate::dirs::project_dir;
use crate::error::CliError;
use crate::exit::Exit;
use crate::format::Format;
use crate::output;
use crate::report_file;
use crate::text::{duration, plural, printable};
use crate::user_key::user_key;

/// Maximum number of tests in each list.
const LIST_MAX: usize = 10;
/// A test became slower if its last run took this many times as long as the average before it.
const SLOWER_FACTOR: f64 = 1.5;
/// Minimum difference of a test that became slower.
const SLOWER_MIN: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// Project directory [default: the nearest directory with a greenwave.toml at or above the
    /// current one, or else the current one].
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Write a page with the history of each test to a file.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn history(args: &HistoryArgs) -> Result<Exit, CliError> {
    let project = project_dir(args.project.as_deref())?;
    let history = read(&project)?;
    if let Some(path) = &args.page {
        // The project may come with a clone, and with it links.
        let file = report_file::open(&[&project], path, false);
        let written = file.and_then(|mut file| file.write_all(page::page(&history).as_bytes()));
        written.map_err(|source| CliError::Report { path: path.clone(), source })?;
    }
    match args.format {
        Format::Human => output::answer(&lines(&history).join("\n"))?,
        Format::Json => output::answer(&json(&history).to_string())?,
    }
    Ok(Exit::SUCCESS)
}

/// Reads the history of a project.
///
/// # Errors
/// If the project does not exist.
pub(super) fn read(project: &Path) -> Result<ProjectHistory, CliError> {
    Ok(ProjectHistory::read(project, &user_key(project)?)?)
}

/// Returns whether the last run of a test took noticeably longer than those before it.
pub(super) fn is_slower(test: &TestHistory) -> bool {
    let is_much = test.last.as_secs_f64() >= test.earlier.as_secs_f64() * SLOWER_FACTOR;
    is_much && test.last.saturating_sub(test.earlier) >= SLOWER_MIN
}

/// Returns the lines that show a history.
pub(super) fn lines(history: &ProjectHistory) -> Vec<String> {
    if history.tests.is_empty() {
        return vec!["No test has run in this directory".to_owned()];
    }
    let all: Duration = history.tests.iter().map(|test| test.average).sum();
    let tests = plural(history.tests.len(), "test");
    let mut lines = vec![format!("{tests}: {} one after another", duration(all))];
    let mut add = |title: &str, mut found: Vec<&TestHistory>, show: &dyn Fn(&TestHistory) -> String| {
        if found.is_empty() {
            return;
        }
        let more = found.len().saturating_sub(LIST_MAX);
        found.truncate(LIST_MAX);
        lines.push(format!("{title}:"));
        lines.extend(found.into_iter().map(|test| format!("  {}: {}", printable(&test.name), show(test))));
        lines.extend((more > 0).then(|| format!("  and {more} more")));
    };
    let select = |is_one: fn(&TestHistory) -> bool| {
        history.tests.iter().filter(|test| is_one(test)).collect::<Vec<_>>()
    };
    let mut slower = select(is_slower);
    slower.sort_by_key(|test| Reverse(test.last.saturating_sub(test.earlier)));
    add("Slower than before", slower, &|test| {
        format!("{} in the last run, {} on average before", duration(test.last), duration(test.earlier))
    });
    let mut flaky = select(|test| test.flaky > 0.0);
    flaky.sort_by(|one, other| other.flaky.total_cmp(&one.flaky));
    add("Flaky", flaky, &|test| {
        format!("passed only after a retry in {} of the recent runs", share(test.flaky, test.runs))
    });
    add("Dependent on other tests", select(|test| test.runs_alone || test.depends_on_order), &|test| {
        let beside = "fails while other tests run beside it";
        let order = "its result depends on the tests before it in one process";
        (if test.runs_alone { beside } else { order }).to_owned()
    });
    add("Failed in their last run", select(|test| test.failed_last), &|test| {
        format!("failed in {} of the recent runs", share(test.failures, test.runs))
    });
    let mut slowest = select(|_| true);
    slowest.sort_by_key(|test| Reverse(test.average));
    slowest.truncate(LIST_MAX / 2);
    add("Slowest", slowest, &|test| duration(test.average));
    lines.extend(saved(history));
    lines
}

fn saved(history: &ProjectHistory) -> Option<String> {
    let results = plural(usize::try_from(history.cached).unwrap_or(usize::MAX), "cached result");
    let saved = duration(history.saved);
    (history.cached > 0).then(|| format!("{results} saved {saved} in runs in which other tests ran"))
}

/// Returns a share of runs in percent. A test that could never be run has no runs.
fn share(part: f64, runs: f64) -> String {
    format!("{:.0}%", if runs > 0.0 { (100.0 * part / runs).min(100.0) } else { 100.0 })
}

/// Returns the history as JSON.
pub(super) fn json(history: &ProjectHistory) -> Value {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let test = |test: &TestHistory| {
        json!({
            "name": test.name,
            "average_ms": ms(test.average),
            "earlier_ms": ms(test.earlier),
            "last_ms": ms(test.last),
            "slower": is_slower(test),
            "runs": test.runs,
            "failures": test.failures,
            "flaky": test.flaky,
            "failed_last": test.failed_last,
            "runs_alone": test.runs_alone,
            "depends_on_order": test.depends_on_order,
        })
    };
    let tests: Vec<Value> = history.tests.iter().map(test).collect();
    json!({"tests": tests, "cached": history.cached, "saved_ms": ms(history.saved)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_trouble_is_listed_with_its_figure() {
        let ms = Duration::from_millis;
        let calm = |name: &str| TestHistory {
            name: name.to_owned(),
            average: ms(200),
            earlier: ms(200),
            last: ms(210),
            runs: 4.0,
            ..TestHistory::default()
        };
        let history = ProjectHistory {
            tests: vec![
                calm("calm"),
                TestHistory { last: ms(400), average: ms(260), ..calm("slower") },
                TestHistory { last: ms(9), earlier: ms(2), average: ms(4), ..calm("tiny") },
                TestHistory { flaky: 1.0, ..calm("flaky") },
                TestHistory { runs_alone: true, ..calm("alone") },
                TestHistory { failed_last: true, failures: 2.0, ..calm("broken") },
            ],
            saved: Duration::from_secs(125),
            cached: 40,
        };
        let expected = "\
6 tests: 1.1 s one after another
Slower than before:
  slower: 400 ms in the last run, 200 ms on average before
Flaky:
  flaky: passed only after a retry in 25% of the recent runs
Dependent on other tests:
  alone: fails while other tests run beside it
Failed in their last run:
  broken: failed in 50% of the recent runs
Slowest:
  slower: 260 ms
  calm: 200 ms
  flaky: 200 ms
  alone: 200 ms
  broken: 200 ms
40 cached results saved 2 min 5 s in runs in which other tests ran";
        assert_eq!(lines(&history).join("\n"), expected);
    }

    #[test]
    fn long_lists_are_cut() {
        let test = |number: usize| TestHistory {
            name: format!("t{number}"),
            failed_last: true,
            ..TestHistory::default()
        };
        let history = ProjectHistory { tests: (0..30).map(test).collect(), ..ProjectHistory::default() };
        let lines = lines(&history);
        assert!(lines.contains(&"  and 20 more".to_owned()), "{lines:?}");
        assert_eq!(lines.len(), 1 + 1 + LIST_MAX + 1 + 1 + LIST_MAX / 2);
    }
}
