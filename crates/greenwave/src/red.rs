//! Decides whether a failed test proves that a feature is missing, or could not run at all.
//!
//! A test is **red** if it ran and failed, or if it misses something that the project's own sources
//! could provide: a symbol, a module, a package. A test **could not run** if its program or file is
//! missing, its command is misused, it was killed, its own files do not parse, or it misses
//! something from outside the project. No agent can cure that, so none is asked.
//!
//! An output can hold several failures. One genuine failure is enough for red.

mod go;
mod node;
mod process;
mod project;
mod python;
mod rust;
mod tools;

use std::sync::LazyLock;

use greenwave_testing::{Outcome, Status};
use regex_lite::Regex;

pub(crate) use process::{has_port_conflict, is_broken_command};
pub(crate) use project::{ProjectNames, is_manifest};

/// Maximum number of characters of an output's line in a message.
const LINE_MAX: usize = 200;

/// A failed test as the rules see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailedTest<'a> {
    pub(crate) command: &'a [String],
    pub(crate) status: Status,
    /// Output without escape sequences.
    pub(crate) output: &'a str,
}

/// Reason why a test could not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Missing thing or other reason, as a fragment that follows the test's name.
    pub(crate) problem: String,
    /// Instruction that would remove the cause.
    pub(crate) hint: Option<String>,
    /// Whether the test ended before it could say anything, so that its output proves nothing.
    is_killed: bool,
}

/// Meaning of one failure in an output.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// A failure that the feature can cure.
    Genuine,
    /// Something that keeps the test from running.
    Obstacle(Obstacle),
}

impl Obstacle {
    fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self { problem: problem.into(), hint: Some(hint).filter(|hint| !hint.is_empty()), is_killed: false }
    }

    fn killed(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { is_killed: true, ..Self::new(problem, hint) }
    }
}

impl From<Obstacle> for Finding {
    fn from(obstacle: Obstacle) -> Self {
        Finding::Obstacle(obstacle)
    }
}

/// Returns why a failed test could not run; `None` if it is red.
///
/// `red` is the feature's own expression, which the output of a red test must match. A match
/// overrides the rules below, except for a test that was killed.
pub(crate) fn obstacle(
    failed: &FailedTest<'_>,
    project: &ProjectNames,
    red: Option<&str>,
) -> Option<Obstacle> {
    let found = by_rules(failed, project);
    let Some(red) = red.and_then(|red| Regex::new(red).ok()) else { return found };
    match (found, red.is_match(failed.output)) {
        (Some(found), true) => Some(found).filter(|found| found.is_killed),
        (None, true) => None,
        (Some(found), false) => Some(found),
        (None, false) => {
            let problem = format!("failed, and its output does not match `red` ({red})");
            Some(Obstacle::new(problem, "change `red`, or the test, so that they agree"))
        }
    }
}

/// Escape sequences of terminals.
static STYLE: LazyLock<Regex> = LazyLock::new(|| expression(r"\x1b\[[0-9;?]*[A-Za-z]"));

/// Returns the output of a test as text without escape sequences.
pub(crate) fn plain_output(outcome: &Outcome) -> String {
    STYLE.replace_all(&String::from_utf8_lossy(&outcome.output), "").into_owned()
}

fn by_rules(failed: &FailedTest<'_>, project: &ProjectNames) -> Option<Obstacle> {
    if let Some(finding) = process::finding(failed, project) {
        return match finding {
            Finding::Genuine => None,
            Finding::Obstacle(obstacle) => Some(obstacle),
        };
    }
    let scans = [python::findings, rust::findings, node::findings, go::findings, tools::findings];
    let findings: Vec<Finding> = scans.iter().flat_map(|scan| scan(failed, project)).collect();
    if findings.contains(&Finding::Genuine) {
        return None;
    }
    let obstacle = findings.into_iter().find_map(|finding| match finding {
        Finding::Obstacle(obstacle) => Some(obstacle),
        Finding::Genuine => None,
    });
    obstacle.or_else(|| has_port_conflict(failed.output).then(port_in_use))
}

/// Returns the finding for a file that a command names and that does not exist.
///
/// The feature may be the program that the command runs: then its prompt names the file.
fn missing_operand(path: &str, project: &ProjectNames) -> Finding {
    let path = project.relative(path);
    if project.mentions_path(&path) && !crate::test_files::is_test_script(&path) {
        return Finding::Genuine;
    }
    Obstacle::new(
        format!("cannot run: `{path}` does not exist"),
        "correct the path in the test's command, or create the file before the run",
    )
    .into()
}

/// Returns a syntax error in a file: an obstacle in a test, which the agent may not change.
fn syntax_error(path: &str, project: &ProjectNames, failed: &FailedTest<'_>) -> Finding {
    let path = project.relative(path);
    let is_operand = failed.command.iter().any(|word| word.trim_start_matches("./") == path);
    if crate::test_files::is_test_file(&path) || is_operand {
        let hint = "correct the test: agents may not change it";
        return Obstacle::new(format!("cannot run: `{path}` has a syntax error"), hint).into();
    }
    Finding::Genuine
}

/// Returns the obstacle that another process holds a port.
fn port_in_use() -> Obstacle {
    let hint = "end the program that uses the port, or share the port as one of `[resources]`";
    Obstacle::new("cannot run: a port that it binds is in use", hint)
}

/// Returns an obstacle that quotes a line of the output.
fn quoted(line: &str, hint: &str) -> Finding {
    let line: String = line.trim().chars().take(LINE_MAX).collect();
    Obstacle::new(format!("cannot run: {line}"), hint).into()
}

fn expression(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant, and tests compile it")
}

#[cfg(test)]
mod tests;
