//! Finds the test that ends a whole test program, by running each of its tests in a separate
//! process.
//!
//! A program that crashes prints nothing about the tests that it had not reached, and rarely which
//! test crashed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::cases;
use super::functions::{IGNORED, LIST, parse_terse};
use super::target::{CargoTarget, only, with_arguments};
use crate::harness::crash::{Crash, FinishedProcess};
use crate::harness::summary::begins_list;
use crate::plain_text::plain;
use crate::results::outcome::{ExitReason, Status};
use crate::{Error, Test};

/// The tests that ended or blocked the program.
#[derive(Default)]
struct Suspects {
    /// Tests that end the program, quoted.
    dead: Vec<String>,
    /// Tests that did not end, quoted.
    slow: Vec<String>,
    untried: usize,
}

/// Least time to run a test in.
const TIME_MIN: Duration = Duration::from_millis(50);

/// Returns the verdict of each test of a crashed program when run alone; `None` if the program did
/// not crash, or cannot list its tests.
///
/// Takes no longer than the test's own time limit: each test gets half of the remaining time. Tests
/// whose verdicts the program had not printed run first.
pub(super) async fn explain(crash: &Crash<'_>) -> Option<String> {
    let output = plain(&crash.process.output);
    let is_program = CargoTarget::is_whole_program(crash.test);
    if !is_program || !has_died(crash.process) || !has_begun(&output) {
        return None;
    }
    let (started, limit) = (Instant::now(), crash.test.time_max);
    let left = || limit.saturating_sub(started.elapsed());
    let mut names: Vec<String> = names(crash, left).await?.into_iter().collect();
    let printed = cases(&output);
    names.sort_by_key(|name| printed.contains_key(name));
    let status = crash.process.status;
    let mut text = format!("\n\nThe program {status}. Its tests again, each in a separate process:\n");
    let mut suspects = Suspects::default();
    for name in &names {
        let time = left() / 2;
        if time < TIME_MIN {
            suspects.untried += 1;
            continue;
        }
        let ran = crash.rerun.rerun(&Test { time_max: time, ..only(crash.test, name) }).await;
        let _ = writeln!(text, "test {name} ... {}", verdict(&ran));
        suspects.add(name, &ran);
    }
    text.push_str(&suspects.conclusion(names.len(), limit));
    Some(text)
}

/// Returns the tests that the program runs, as it lists them itself.
async fn names(crash: &Crash<'_>, left: impl Fn() -> Duration) -> Option<BTreeSet<String>> {
    let mut lists = Vec::new();
    for more in [None, Some(IGNORED)] {
        let test = with_arguments(crash.test, LIST.into_iter().chain(more));
        let ran = crash.rerun.rerun(&Test { time_max: left(), ..test }).await.ok()?;
        lists.push(parse_terse(&plain(&ran.output)));
        if ran.status != Status::Passed {
            return None;
        }
    }
    let names: BTreeSet<String> = lists[0].difference(&lists[1]).cloned().collect();
    (!names.is_empty()).then_some(names)
}

/// Returns whether a program ended before it could summarize its tests.
fn has_died(ran: &FinishedProcess) -> bool {
    match ran.status {
        Status::TimedOut(_) | Status::Failed(ExitReason::Signal(_)) => true,
        Status::Failed(ExitReason::Code(_) | ExitReason::Report | ExitReason::Unfinished) => {
            ran.count.is_none()
        }
        Status::Passed | Status::NoTests => false,
    }
}

/// Returns whether a program uses the Rust test harness and started its tests. Other programs may
/// not be able to list them.
fn has_begun(output: &str) -> bool {
    output.lines().any(begins_list)
}

/// Formats a result like the Rust test harness, so that it is parsed like its output.
fn verdict(ran: &Result<FinishedProcess, Error>) -> String {
    match ran {
        Ok(FinishedProcess { status: Status::Passed, .. }) => "ok".to_owned(),
        Ok(FinishedProcess { status: Status::NoTests, .. }) => {
            "not run: the program has no test of this name".to_owned()
        }
        Ok(ran) => format!("FAILED ({})", ran.status),
        Err(error) => format!("not run: {error}"),
    }
}

impl Suspects {
    fn add(&mut self, name: &str, ran: &Result<FinishedProcess, Error>) {
        match ran {
            Ok(FinishedProcess { status: Status::TimedOut(_), .. }) => self.slow.push(format!("`{name}`")),
            Ok(ran) if has_died(ran) => self.dead.push(format!("`{name}`")),
            _ => {}
        }
    }

    fn conclusion(&self, all: usize, limit: Duration) -> String {
        let mut text = String::new();
        if !self.dead.is_empty() {
            let _ =
                writeln!(text, "These tests end the program even when run alone: {}.", self.dead.join(", "));
        }
        if !self.slow.is_empty() {
            let slow = self.slow.join(", ");
            let _ = writeln!(
                text,
                "These tests did not end in half of the remaining time, even when run alone: {slow}."
            );
        }
        if text.is_empty() {
            let tried = all - self.untried;
            let _ = writeln!(
                text,
                "None of the {tried} tests ends the program when run alone: the crash needs several tests or is random."
            );
        }
        if self.untried > 0 {
            let untried = self.untried;
            let limit = humantime::format_duration(limit);
            let _ = writeln!(text, "The time limit ({limit}) left no time for {untried} of {all} tests.");
        }
        text
    }
}
