//! Runs public projects' tests by their own runners and by Greenwave, and compares each verdict.
//!
//! `xtask/field.toml` lists the projects. Sources, installed packages and results are in
//! `target/field`, and are used again.

mod checkout;
mod edits;
mod list;
mod projects;
mod trial;
mod verdicts;

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Result;
use crate::process::{cargo, output_of, root, run_visibly};
use checkout::{Checkout, base};
use list::{Project, projects};
use trial::{Findings, Trial, adopt_orphans};

/// The page whose table has a row for each trial.
const PAGE: &str = "docs/field.md";
/// First run of Greenwave by the time of the project's own runner, at most.
const RATIO_MAX: f64 = 1.05;

/// Runs the named projects, or those without a result of this commit, until `minutes` have passed.
///
/// With `check`, compares verdicts with a debug build and measures nothing: the projects for CI,
/// unless some are named.
///
/// # Errors
/// If a name is unknown, a project cannot be prepared, or a verdict differs.
pub(crate) fn field(wanted: &[String], minutes: u64, check: bool) -> Result<String> {
    let all = projects()?;
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|project| project.name == **name)) {
        let names: Vec<_> = all.iter().map(|project| project.name.as_str()).collect();
        return Err(format!("unknown project `{unknown}`: expected one of {}", names.join(", ")).into());
    }
    let is_wanted = |project: &&Project| match wanted {
        [] => !check || project.quick,
        names => names.contains(&project.name),
    };
    adopt_orphans()?;
    let run = Run { greenwave: build(check)?, commit: commit()?, check };
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let (mut done, mut problems, mut left) = (0, 0, Vec::new());
    for project in all.iter().filter(is_wanted) {
        if wanted.is_empty() && !check && run.is_done(project) {
            continue;
        }
        if Instant::now() >= end {
            left.push(project.name.as_str());
            continue;
        }
        done += 1;
        match run.project(project) {
            Ok(0) => {}
            Ok(differences) => problems += differences,
            Err(error) => {
                println!("{}: {error}", project.name);
                problems += 1;
            }
        }
    }
    let mut summary = format!("field: {done} projects");
    if !left.is_empty() {
        let _ = write!(summary, ", not reached in {minutes} min: {}", left.join(", "));
    }
    if problems == 0 { Ok(summary) } else { Err(format!("{summary}, {problems} differences").into()) }
}

/// Edits small projects, and checks that no result is stale and that few tests run again. Projects
/// with a result of this commit are skipped.
///
/// # Errors
/// If a result is stale, too many tests run again, or a project cannot be run.
pub(crate) fn field_edits() -> Result<String> {
    Ok(format!("field --edits: {}", edits::edits(&build(true)?, &commit()?)?))
}

/// The program that is tried.
struct Run {
    greenwave: PathBuf,
    commit: String,
    check: bool,
}

impl Run {
    /// Tries one project, and returns the number of differences.
    fn project(&self, project: &Project) -> Result<usize> {
        println!("{} {}", project.name, project.version);
        let checkout = Checkout::prepare(project)?;
        let workers = project.runner.workers(std::thread::available_parallelism()?.get());
        let trial = Trial { project, checkout: &checkout, greenwave: &self.greenwave, workers };
        let findings = if self.check { trial.check()? } else { trial.measure()? };
        for difference in &findings.differences {
            println!("  {difference}");
        }
        for reason in &findings.not_stored {
            println!("  not cached: {reason}");
        }
        if self.check {
            println!("  {} tests, {} differences", findings.tests, findings.differences.len());
        } else {
            println!("  {}", row(project, workers, &findings));
            self.append(project, workers, &findings)?;
            fs::write(self.marker(project), &self.commit)?;
        }
        Ok(findings.differences.len())
    }

    fn marker(&self, project: &Project) -> PathBuf {
        base().join(&project.name).join("done")
    }

    fn is_done(&self, project: &Project) -> bool {
        fs::read_to_string(self.marker(project)).is_ok_and(|commit| commit == self.commit)
    }

    /// Appends a row to the page, whose table is at its end.
    fn append(&self, project: &Project, workers: usize, findings: &Findings) -> Result<()> {
        let date = output_of(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?;
        let version = output_of(Command::new(&self.greenwave).arg("--version"))?;
        let version = version.split_whitespace().nth(1).unwrap_or_default();
        let start = format!("| {} | {version} | {} ", date.trim(), self.commit);
        let mut page = OpenOptions::new().append(true).open(root().join(PAGE))?;
        writeln!(page, "{start}{}", row(project, workers, findings))?;
        Ok(())
    }
}

/// Formats the columns of a table's row that belong to the project.
fn row(project: &Project, workers: usize, findings: &Findings) -> String {
    let Findings { tests, flaky, own, first, second, units, cached, .. } = findings;
    let seconds = |duration: Duration| format!("{:.2}", duration.as_secs_f64());
    let ratio = |one: Duration, other: Duration| match other.as_secs_f64() {
        0.0 => "-".to_owned(),
        other => format!("{:.2}", one.as_secs_f64() / other),
    };
    let wall = ratio(first.wall, own.wall);
    let mark = if wall.parse::<f64>().is_ok_and(|wall| wall > RATIO_MAX) { " (over)" } else { "" };
    format!(
        "| {} {} | {}, {workers} | {tests} | {} | {flaky} | {} | {} | {wall}{mark} | {} | {} | {cached} of {units} |",
        project.name,
        project.version,
        project.runner.name(),
        findings.differences.len(),
        seconds(own.wall),
        seconds(first.wall),
        ratio(first.cpu, own.cpu),
        seconds(second.wall),
    )
}

/// Builds the program, and returns its path.
fn build(check: bool) -> Result<PathBuf> {
    let profile = if check { "dev" } else { "release" };
    run_visibly(&mut cargo(["build", "--quiet", "--package=greenwave-cli", "--profile", profile]))?;
    let target = base().parent().map(Path::to_owned).unwrap_or_default();
    Ok(target.join(if check { "debug" } else { "release" }).join("greenwave"))
}

/// Returns the commit, and whether files differ from it. The page itself does not count.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| output_of(Command::new("git").current_dir(root()).args(arguments));
    let changed = git(&["status", "--porcelain", "--", ".", ":!docs/field.md"])?;
    let mark = if changed.trim().is_empty() { "" } else { "+" };
    Ok(format!("{}{mark}", git(&["rev-parse", "--short", "HEAD"])?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_as_many_columns_as_the_page() {
        let project = projects().expect("the list is valid").remove(0);
        let row = format!("| d | v | c {}", row(&project, 1, &Findings::default()));
        let page = fs::read_to_string(root().join(PAGE)).expect("the page is there");
        let head = page.lines().find(|line| line.starts_with("| date")).expect("the page has a table");
        assert_eq!(row.matches('|').count(), head.matches('|').count(), "{row}\n{head}");
        assert!(page.ends_with("|\n"), "the table is at the end of the page");
    }
}
