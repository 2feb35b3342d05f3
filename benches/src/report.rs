//! The page of a suite: what was expected, what was measured, what was lost. Knows nothing of how it was measured.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use criterion::Criterion;

use crate::Machine;
use crate::machine::first_line;

/// Set by `cargo xtask bench`: write the page, do not only print it.
const WRITE: &str = "BENCH_PAGES";

/// A suite's results.
#[derive(Debug)]
pub struct Page {
    /// The suite's name: that of its file.
    pub suite: &'static str,
    /// What is measured and how, in Markdown; with what speaks against us, above all.
    pub about: &'static str,
    /// The figures.
    pub rows: Vec<Row>,
}

/// One figure.
#[derive(Debug, Clone)]
pub struct Row {
    what: String,
    unit: &'static str,
    samples: Vec<f64>,
    at_most: Option<f64>,
    /// Why there is no figure.
    absent: Option<&'static str>,
}

impl Row {
    /// A figure with all its samples.
    ///
    /// # Panics
    /// If there is no sample.
    pub fn new(what: impl Into<String>, unit: &'static str, samples: impl IntoIterator<Item = f64>) -> Self {
        let mut samples: Vec<f64> = samples.into_iter().collect();
        assert!(!samples.is_empty(), "a figure needs a sample");
        samples.sort_by(f64::total_cmp);
        Self { what: what.into(), unit, samples, at_most: None, absent: None }
    }

    /// A figure that could not be had, and why: what is not measured is seen.
    pub fn absent(what: impl Into<String>, why: &'static str) -> Self {
        Self { what: what.into(), unit: "", samples: Vec::new(), at_most: None, absent: Some(why) }
    }

    /// What was expected of the median before it was measured. Lower is better.
    #[must_use]
    pub fn at_most(self, limit: f64) -> Self {
        Self { at_most: Some(limit), ..self }
    }

    /// The sample in the middle; of an even number, the lower of the two.
    ///
    /// # Panics
    /// If the figure is absent.
    pub fn median(&self) -> f64 {
        self.samples[(self.samples.len() - 1) / 2]
    }

    /// The median as a multiple of what was expected; 0 where nothing was.
    fn excess(&self) -> f64 {
        self.at_most.map_or(0.0, |limit| self.median() / limit)
    }

    fn to_markdown(&self) -> String {
        let Self { what, unit, samples, at_most, absent } = self;
        if let Some(why) = absent {
            return format!("| {what} | nothing | {why} | | 0 | |");
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
        format!("| {what} | {expected} | {median} {unit} | {least} to {most} | {} | {held} |", samples.len())
    }
}

impl Page {
    /// The page: losses first, then what is closest to its limit.
    pub fn to_markdown(&self) -> String {
        let machine = Machine::here();
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by(|a, b| b.excess().total_cmp(&a.excess()));
        let lost = rows.iter().filter(|row| row.excess() > 1.0).count();
        let expected = rows.iter().filter(|row| row.at_most.is_some()).count();
        let mut page = format!("# {}\n\n{}\n\n", self.suite, self.about.trim());
        let _ = writeln!(
            page,
            "{lost} of {expected} expectations were not met. They were stated before measuring.\n"
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

    /// Prints the page, and writes it where `cargo xtask bench` wants it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn publish(&self) {
        let page = self.to_markdown();
        println!("\n{page}");
        if std::env::var_os(WRITE).is_none() {
            return;
        }
        let folder = format!("results/{}-{}", today(), Machine::here().class());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        fs::create_dir_all(&folder).expect("the folder for results can be made");
        fs::write(folder.join(format!("{}.md", self.suite)), page).expect("a page of results can be written");
    }
}

/// Whether this is a run of `cargo bench`. `cargo test` runs suites too, to see that they start.
pub fn is_measuring() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// Criterion with the flags of the command line, and a place that [`samples`] finds.
pub fn criterion() -> Criterion {
    Criterion::default().configure_from_args().output_directory(&measured())
}

/// What criterion measured last under an id (`group/function/parameter`): nanoseconds of one iteration each.
/// `None` if it did not run, as with a filter.
pub fn samples(id: &str) -> Option<Vec<f64>> {
    let text = fs::read_to_string(measured().join(id).join("new/sample.json")).ok()?;
    let sample: serde_json::Value = serde_json::from_str(&text).ok()?;
    let numbers =
        |key: &str| Some(sample[key].as_array()?.iter().filter_map(serde_json::Value::as_f64).collect());
    let (iterations, times): (Vec<f64>, Vec<f64>) = (numbers("iters")?, numbers("times")?);
    Some(times.iter().zip(&iterations).map(|(time, count)| time / count).collect())
}

/// Where criterion keeps what it measured: beside the folder of the suite's own executable.
fn measured() -> PathBuf {
    let executable = std::env::current_exe().expect("a running program has an executable");
    executable.ancestors().nth(3).unwrap_or(Path::new(".")).join("criterion")
}

/// The commit that is checked out, and whether the files are as it has them.
fn commit() -> String {
    let git =
        |args: &[&str]| first_line(Command::new("git").args(args).current_dir(env!("CARGO_MANIFEST_DIR")));
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "none".to_owned() };
    // Pages of results do not change what is measured.
    match git(&["status", "--porcelain", "--", ":/", ":(exclude,top)benches/results"]) {
        Some(_) => format!("{commit}, with changes that are not committed"),
        None => commit,
    }
}

/// The day in UTC, as `2026-11-23`, by Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let day = seconds / 86_400 + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    // Its years begin in March.
    let (year, month) = (era * 400 + year + month / 10, (month + 2) % 12 + 1);
    format!("{year}-{month:02}-{of_month:02}")
}

/// A number with as many digits as are worth reading: three, so that a ratio cannot hide a loss by rounding.
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
    fn losses_stand_first() {
        let page = Page {
            suite: "x",
            about: "About.",
            rows: vec![
                Row::new("unasked", "ms", [5.0]),
                Row::new("kept", "ms", [1.0, 3.0, 2.0]).at_most(4.0),
                Row::new("lost", "ms", [120.0]).at_most(100.0),
            ],
        };
        let text = page.to_markdown();
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
        assert_eq!(
            rows,
            [
                "| lost | at most 100 ms | 120 ms | 120 to 120 | 1 | **no** |",
                "| kept | at most 4.00 ms | 2.00 ms | 1.00 to 3.00 | 3 | yes |",
                "| unasked | nothing | 5.00 ms | 5.00 to 5.00 | 1 |  |",
            ]
        );
        assert!(text.contains("1 of 2 expectations were not met"));
    }

    #[test]
    fn days_have_dates() {
        let date = today();
        let parts: Vec<u32> = date.split('-').map(|part| part.parse().unwrap()).collect();
        assert!(parts[0] >= 2026 && (1..=12).contains(&parts[1]) && (1..=31).contains(&parts[2]), "{date}");
    }
}
