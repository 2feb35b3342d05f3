//! Pages of results, which compare measurements with expectations.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use criterion::Criterion;

use crate::Machine;
use crate::machine::first_line;

/// Variable that `cargo xtask bench` sets to have pages written to files.
const WRITE: &str = "BENCH_PAGES";

/// The results of a suite.
#[derive(Debug)]
pub struct Page {
    /// Name of the suite, which is also the name of its file.
    pub suite: &'static str,
    /// Description of the measurement and its caveats, in Markdown.
    pub about: &'static str,
    /// The measurements.
    pub rows: Vec<Row>,
}

/// A measurement: a median with its samples and, optionally, an expectation.
#[derive(Debug, Clone)]
pub struct Row {
    name: String,
    unit: &'static str,
    samples: Vec<f64>,
    at_most: Option<f64>,
    /// Reason why a measurement is missing.
    absent: Option<&'static str>,
}

impl Row {
    /// Creates a row from all samples of a measurement.
    ///
    /// # Panics
    /// If `samples` is empty.
    pub fn new(name: impl Into<String>, unit: &'static str, samples: impl IntoIterator<Item = f64>) -> Self {
        let mut samples: Vec<f64> = samples.into_iter().collect();
        assert!(!samples.is_empty(), "a row needs at least one sample");
        samples.sort_by(f64::total_cmp);
        Self { name: name.into(), unit, samples, at_most: None, absent: None }
    }

    /// Creates a row for something that was not measured, with the reason. The page shows the gap.
    pub fn absent(name: impl Into<String>, reason: &'static str) -> Self {
        Self { name: name.into(), unit: "", samples: Vec::new(), at_most: None, absent: Some(reason) }
    }

    /// Sets the largest median that was expected before measuring. Lower is better.
    #[must_use]
    pub fn at_most(self, limit: f64) -> Self {
        Self { at_most: Some(limit), ..self }
    }

    /// Returns the median: the middle sample, or the lower of the two middle samples.
    ///
    /// # Panics
    /// If the row is [absent](Self::absent).
    pub fn median(&self) -> f64 {
        self.samples[(self.samples.len() - 1) / 2]
    }

    /// Returns the median divided by the expectation, or 0 without an expectation.
    fn excess(&self) -> f64 {
        self.at_most.map_or(0.0, |limit| self.median() / limit)
    }

    fn to_markdown(&self) -> String {
        let Self { name, unit, samples, at_most, absent } = self;
        if let Some(reason) = absent {
            return format!("| {name} | nothing | {reason} | | 0 | |");
        }
        let (least, most) = (samples[0], samples[samples.len() - 1]);
        let expected =
            at_most.map_or("nothing".to_owned(), |limit| format!("at most {} {unit}", shown(limit)));
        let held = match at_most {
            None => "",
            Some(_) if self.excess() > 1.0 => "**no**",
            Some(_) => "yes",
        };
        let (median, least, most) = (shown(self.median()), shown(least), shown(most));
        format!("| {name} | {expected} | {median} {unit} | {least} to {most} | {} | {held} |", samples.len())
    }
}

impl Page {
    /// Renders the page: missed expectations first, then by distance from the expectation.
    pub fn to_markdown(&self) -> String {
        let machine = Machine::current();
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by(|a, b| b.excess().total_cmp(&a.excess()));
        let missed = rows.iter().filter(|row| row.excess() > 1.0).count();
        let expected = rows.iter().filter(|row| row.at_most.is_some()).count();
        let mut page = format!("# {}\n\n{}\n\n", self.suite, self.about.trim());
        let _ = writeln!(
            page,
            "{missed} of {expected} expectations were not met. They were stated before measuring.\n"
        );
        page.push_str("| what | expected | median | least to most | samples | met |\n| --- | --- | --- | --- | --- | --- |\n");
        rows.iter().for_each(|row| page.push_str(&(row.to_markdown() + "\n")));
        let _ = write!(
            page,
            "\n- command: `cargo xtask bench {}`\n- commit: {}\n- date: {}\n- machine: {}, {} cores, {} GB; Linux {}\n- load, average of the last 15 minutes: {}\n- compiler: {}\n",
            self.suite,
            commit(),
            today(),
            machine.processor,
            machine.cores,
            machine.memory_gb,
            machine.kernel,
            machine.load,
            machine.compiler
        );
        page
    }

    /// Prints the page. If `cargo xtask bench` runs the suite, also writes it to a file.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn publish(&self) {
        let page = self.to_markdown();
        println!("\n{page}");
        if std::env::var_os(WRITE).is_none() {
            return;
        }
        let directory = format!("results/{}-{}", today(), Machine::current().class());
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        fs::create_dir_all(&directory).expect("the directory of results can be created");
        fs::write(directory.join(format!("{}.md", self.suite)), page).expect("the page can be written");
    }
}

/// Returns whether `cargo bench` runs this program. `cargo test` runs suites too, to check that
/// they start.
pub fn is_measuring() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// Returns criterion, configured by the command line, with an output directory that [`samples`]
/// reads.
pub fn criterion() -> Criterion {
    Criterion::default().configure_from_args().output_directory(&criterion_directory())
}

/// Returns the last samples of criterion for an id (`group/function/parameter`), in nanoseconds per
/// iteration. Returns `None` if the benchmark did not run, for example because of a filter.
pub fn samples(id: &str) -> Option<Vec<f64>> {
    let text = fs::read_to_string(criterion_directory().join(id).join("new/sample.json")).ok()?;
    let sample: serde_json::Value = serde_json::from_str(&text).ok()?;
    let numbers =
        |key: &str| Some(sample[key].as_array()?.iter().filter_map(serde_json::Value::as_f64).collect());
    let (iterations, times): (Vec<f64>, Vec<f64>) = (numbers("iters")?, numbers("times")?);
    Some(times.iter().zip(&iterations).map(|(time, count)| time / count).collect())
}

/// Returns criterion's output directory, which is next to the directory of the suite's executable.
fn criterion_directory() -> PathBuf {
    let executable = std::env::current_exe().expect("a running program has an executable");
    executable.ancestors().nth(3).unwrap_or(Path::new(".")).join("criterion")
}

/// Returns the commit that is checked out, and whether the worktree differs from it.
fn commit() -> String {
    let git =
        |args: &[&str]| first_line(Command::new("git").args(args).current_dir(env!("CARGO_MANIFEST_DIR")));
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "none".to_owned() };
    // Pages of results do not influence measurements.
    match git(&["status", "--porcelain", "--", ":/", ":(exclude,top)benches/results"]) {
        Some(_) => format!("{commit}, with uncommitted changes"),
        None => commit,
    }
}

/// Returns the date in UTC, such as `2026-11-23`, by Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let day = seconds / 86_400 + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    // Years of the algorithm begin in March.
    let (year, month) = (era * 400 + year + month / 10, (month + 2) % 12 + 1);
    format!("{year}-{month:02}-{of_month:02}")
}

/// Formats a number with three significant digits, so that rounding cannot hide a missed
/// expectation.
fn shown(number: f64) -> String {
    match number.abs() {
        below if below < 10.0 => format!("{number:.2}"),
        below if below < 100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_expectations_come_first() {
        let page = Page {
            suite: "x",
            about: "About.",
            rows: vec![
                Row::new("unexpected", "ms", [5.0]),
                Row::new("met", "ms", [1.0, 3.0, 2.0]).at_most(4.0),
                Row::new("missed", "ms", [120.0]).at_most(100.0),
            ],
        };
        let text = page.to_markdown();
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
        assert_eq!(
            rows,
            [
                "| missed | at most 100 ms | 120 ms | 120 to 120 | 1 | **no** |",
                "| met | at most 4.00 ms | 2.00 ms | 1.00 to 3.00 | 3 | yes |",
                "| unexpected | nothing | 5.00 ms | 5.00 to 5.00 | 1 |  |",
            ]
        );
        assert!(text.contains("1 of 2 expectations were not met"));
    }

    #[test]
    fn today_is_a_valid_date() {
        let date = today();
        let parts: Vec<u32> = date.split('-').map(|part| part.parse().unwrap()).collect();
        assert!(parts[0] >= 2026 && (1..=12).contains(&parts[1]) && (1..=31).contains(&parts[2]), "{date}");
    }
}
