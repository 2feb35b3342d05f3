//! Edits small projects one file at a time, and checks after each edit that no result is stale and
//! that few tests run again.
//!
//! Each edit states how many tests read what it changes. A run with cached results must have the
//! verdicts of a run without, and over all edits of a project it may run a fifth more tests than
//! that, and one for each edit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::checkout::{base, in_directory};
use super::projects::{Change, Edit, LOCAL, LocalProject};
use super::verdicts::Report;
use crate::Result;
use crate::process::output_of;

/// A result is stored only if the files that its test reads are no longer racy: their timestamps
/// prove then that they have not changed since.
const REST: Duration = Duration::from_millis(2100);

/// Findings of one project.
#[derive(Debug, Default)]
struct Tally {
    /// Tests that read what was edited, over all edits.
    needed: usize,
    /// Tests that ran.
    ran: usize,
    edits: usize,
    stale: Vec<String>,
}

impl Tally {
    /// Returns whether at most 1.2 × (needed + 1 for each edit) tests ran.
    fn is_narrow(&self) -> bool {
        self.ran * 10 <= (self.needed + self.edits) * 12
    }
}

/// Edits each project whose result of this commit is missing.
///
/// # Errors
/// If a project cannot be written or run, a result is stale, or too many tests run again.
pub(super) fn edits(greenwave: &Path, commit: &str) -> Result<String> {
    // Most of the time passes while files age.
    let found: Vec<Result<Findings, String>> = std::thread::scope(|scope| {
        let all = LOCAL.each_ref().map(|project| {
            scope.spawn(|| Findings::of(project, greenwave, commit).map_err(|error| error.to_string()))
        });
        all.into_iter().map(|it| it.join().expect("an error is returned")).collect()
    });
    let mut lines = Vec::new();
    let mut problems = Vec::new();
    for findings in found {
        let Findings { line, problems: own } = findings?;
        println!("{line}");
        lines.push(line);
        problems.extend(own);
    }
    if problems.is_empty() { Ok(lines.join("; ")) } else { Err(problems.join("\n").into()) }
}

/// A line about the edits of one project, and what is wrong with them.
struct Findings {
    line: String,
    problems: Vec<String>,
}

impl Findings {
    fn of(project: &LocalProject, greenwave: &Path, commit: &str) -> Result<Self> {
        let home = base().join("edits").join(project.name);
        let marker = home.join("done");
        let done = fs::read_to_string(&marker).unwrap_or_default();
        if let Some(line) = done.strip_prefix(commit).and_then(|rest| rest.strip_prefix('\n')) {
            return Ok(Self { line: format!("{line} (before)"), problems: Vec::new() });
        }
        let tally = Trial::prepare(project, &home, greenwave)?.run()?;
        let Tally { needed, ran, edits, .. } = tally;
        let line = format!("{}: {edits} edits, {needed} tests needed, {ran} ran", project.name);
        let mut problems: Vec<String> =
            tally.stale.iter().map(|stale| format!("{}: {stale}", project.name)).collect();
        if !tally.is_narrow() {
            problems.push(format!("{line}: expected at most 1.2 x (needed + 1 for each edit)"));
        }
        if problems.is_empty() && !commit.ends_with('+') {
            fs::write(marker, format!("{commit}\n{line}"))?;
        }
        Ok(Self { line, problems })
    }
}

/// A project that was written to a directory.
struct Trial<'a> {
    project: &'a LocalProject,
    directory: PathBuf,
    cache: PathBuf,
    greenwave: &'a Path,
}

impl<'a> Trial<'a> {
    fn prepare(project: &'a LocalProject, home: &Path, greenwave: &'a Path) -> Result<Self> {
        let _ = fs::remove_dir_all(home);
        let (directory, cache) = (home.join("project"), home.join("cache"));
        for (path, text) in project.files {
            write(&directory.join(path), text)?;
        }
        let trial = Self { project, directory, cache, greenwave };
        trial.git(&["init", "--quiet"])?;
        trial.commit()?;
        Ok(trial)
    }

    fn run(&self) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut failing: BTreeSet<String> = BTreeSet::new();
        std::thread::sleep(REST);
        // The first run stores results, and the second one finds them all.
        self.greenwave(&[])?;
        for edit in std::iter::once(&Edit { name: "nothing", change: Change::Nothing, needed: 0 })
            .chain(self.project.edits)
        {
            self.apply(&edit.change)?;
            std::thread::sleep(REST);
            let cached = self.greenwave(&[])?;
            let true_verdicts = verdicts(&self.greenwave(&["--no-cache"])?);
            // A failure is not cached, so a test that has failed runs until it passes.
            let has_run = |test: &&Value| test["cached"] != true && !failing.contains(&name_of(test));
            let ran = cached.tests.iter().filter(has_run).count();
            println!("  {}, {}: {} needed, {ran} ran", self.project.name, edit.name, edit.needed);
            let found = verdicts(&cached);
            if found != true_verdicts {
                tally.stale.push(format!("after {}: {found:?} instead of {true_verdicts:?}", edit.name));
            }
            tally.needed += edit.needed;
            tally.ran += ran;
            tally.edits += 1;
            failing =
                found.into_iter().filter(|(_, status)| status != "passed").map(|(name, _)| name).collect();
        }
        Ok(tally)
    }

    fn apply(&self, change: &Change) -> Result<()> {
        let at = |path: &str| self.directory.join(path);
        match change {
            Change::Nothing => {}
            Change::Write(path, text) => write(&at(path), text)?,
            Change::Replace(path, old, new) => {
                let text = fs::read_to_string(at(path))?;
                if !text.contains(old) {
                    return Err(format!("{path} does not contain `{old}`").into());
                }
                fs::write(at(path), text.replace(old, new))?;
            }
            Change::Remove(path) => fs::remove_file(at(path))?,
            Change::Rename(from, to) => fs::rename(at(from), at(to))?,
            Change::Commit => self.commit()?,
        }
        Ok(())
    }

    fn commit(&self) -> Result<()> {
        self.git(&["add", "--all"])?;
        let author = ["-c", "user.name=field", "-c", "user.email=field@localhost"];
        self.git(&[&author[..], &["commit", "--quiet", "--allow-empty", "-m", "State"]].concat())
    }

    fn git(&self, arguments: &[&str]) -> Result<()> {
        output_of(Command::new("git").current_dir(&self.directory).args(arguments)).map(drop)
    }

    fn greenwave(&self, arguments: &[&str]) -> Result<Report> {
        let mut command = in_directory(&self.greenwave.to_string_lossy(), &self.directory);
        command.args(["test", "--format", "json"]).args(arguments);
        command.arg(format!("--set=cache.directory={}", self.cache.display()));
        let output = command.output()?;
        Report::parse(&String::from_utf8_lossy(&output.stdout)).map_err(|error| {
            format!("{}: {error}: {}", self.project.name, String::from_utf8_lossy(&output.stderr)).into()
        })
    }
}

/// Returns the status of each test.
fn verdicts(report: &Report) -> BTreeMap<String, String> {
    let status_of = |test: &Value| test["status"].as_str().unwrap_or_default().to_owned();
    report.tests.iter().map(|test| (name_of(test), status_of(test))).collect()
}

fn name_of(test: &Value) -> String {
    test["name"].as_str().unwrap_or_default().to_owned()
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    Ok(fs::write(path, text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_more_tests_than_needed_may_run() {
        let tally = |needed, edits, ran| Tally { needed, edits, ran, stale: Vec::new() };
        assert!(tally(4, 6, 12).is_narrow() && !tally(4, 6, 13).is_narrow());
        assert!(tally(0, 1, 1).is_narrow() && !tally(0, 1, 2).is_narrow());
    }

    #[test]
    fn edits_change_files_that_the_projects_have() {
        for project in &LOCAL {
            assert!(project.edits.len() >= 6, "{}", project.name);
            for edit in project.edits {
                let Change::Replace(path, old, _) = &edit.change else { continue };
                let has = |(other, text): &(&str, &str)| other == path && text.contains(old);
                assert!(project.files.iter().any(has), "{}: {}", project.name, edit.name);
            }
        }
    }
}
