//! Which test it is that ends a whole program of cargo's: its tests again, each in a process of its own. Knows nothing of results that are kept.
//!
//! A program that dies says nothing of the tests that it had not come to, and mostly not which one it was.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::cargo;
use crate::harness::functions::{IGNORED, LIST, by_line};
use crate::plain_text::plain;
use crate::results::outcome::{ExitReason, Status};
use crate::run::process::ProcessResult;
use crate::run::runner::{Prepared, Runner};
use crate::run::workspace::{LaunchSpec, Workspace};
use crate::{Error, Test};

/// A program that has ended, and what it takes to start it again.
pub(crate) struct Examination<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) workspace: &'a dyn Workspace,
    pub(crate) test: &'a Test,
    pub(crate) prepared: &'a Prepared<'a>,
    /// How to start all of it.
    pub(crate) launch: LaunchSpec,
}

/// What has come of the tests by themselves.
#[derive(Default)]
struct Found {
    /// Those that end the program, as they are named in text.
    dead: Vec<String>,
    /// Those that did not end.
    slow: Vec<String>,
    untried: usize,
}

/// With less time than this left no test is tried any more.
const TIME_MIN: Duration = Duration::from_millis(50);

impl Examination<'_> {
    /// The verdict of each test by itself, as text; `None` if the program came to an end of its own, or does not say which tests it has.
    ///
    /// Takes as long as the test may take, at most: each that runs may have half of what is left. Those whose verdicts had not been told are first.
    pub(crate) async fn of(&self, ran: &ProcessResult) -> Option<String> {
        let output = plain(&ran.output);
        if self.test.function().is_some() || !has_died(ran) || !has_begun(&output) {
            return None;
        }
        let started = Instant::now();
        let left = || self.test.time_max.saturating_sub(started.elapsed());
        let mut names: Vec<String> = self.names(left).await?.into_iter().collect();
        let told = cargo::cases(&output);
        names.sort_by_key(|name| told.contains_key(name));
        let mut text =
            format!("\n\nThe program {}. Its tests again, each in a process of its own:\n", ran.status);
        let mut found = Found::default();
        for name in &names {
            let time = left() / 2;
            if time < TIME_MIN {
                found.untried += 1;
                continue;
            }
            let single = Test { time_max: time, ..self.test.only(name) };
            let arguments = single.program_arguments().iter().map(OsString::from);
            let ran = self.run(&single, arguments).await;
            let _ = writeln!(text, "test {name} ... {}", verdict(&ran));
            found.add(name, &ran);
        }
        text.push_str(&found.conclusion(names.len(), self.test.time_max));
        Some(text)
    }

    /// The tests that the program runs, by what it says itself.
    async fn names(&self, left: impl Fn() -> Duration) -> Option<BTreeSet<String>> {
        let mut lists = Vec::new();
        for more in [None, Some(IGNORED)] {
            let test = Test { time_max: left(), ..self.test.clone() };
            let ran = self.run(&test, LIST.into_iter().chain(more).map(OsString::from)).await.ok()?;
            lists.push(by_line(&plain(&ran.output)));
            if ran.status != Status::Passed {
                return None;
            }
        }
        let names: BTreeSet<String> = lists[0].difference(&lists[1]).cloned().collect();
        (!names.is_empty()).then_some(names)
    }

    async fn run(
        &self,
        test: &Test,
        arguments: impl Iterator<Item = OsString>,
    ) -> Result<ProcessResult, Error> {
        let mut launch = self.launch.clone();
        launch.arguments.extend(arguments);
        self.runner.run_program(self.workspace, test, self.prepared, &launch).await
    }
}

/// Whether the program ended before it could say what came of its tests.
fn has_died(ran: &ProcessResult) -> bool {
    match ran.status {
        Status::TimedOut(_) | Status::Failed(ExitReason::Signal(_)) => true,
        Status::Failed(ExitReason::Code(_)) => ran.count.is_none(),
        Status::Passed | Status::NoTests => false,
    }
}

/// Whether it is one of the Rust test harness, and had come to its tests: of others it is not known how to have them list their tests.
fn has_begun(output: &str) -> bool {
    let says_so = |line: &str| {
        let number = line.strip_prefix("running ").and_then(|rest| rest.split_once(" test"));
        number.is_some_and(|(number, _)| number.parse::<u32>().is_ok())
    };
    output.lines().any(says_so)
}

/// As the Rust test harness says it, so that it is read like that.
fn verdict(ran: &Result<ProcessResult, Error>) -> String {
    match ran {
        Ok(ProcessResult { status: Status::Passed, .. }) => "ok".to_owned(),
        Ok(ProcessResult { status: Status::NoTests, .. }) => {
            "not run: the program does not know it by this name".to_owned()
        }
        Ok(ran) => format!("FAILED ({})", ran.status),
        Err(error) => format!("not run: {error}"),
    }
}

impl Found {
    fn add(&mut self, name: &str, ran: &Result<ProcessResult, Error>) {
        match ran {
            Ok(ProcessResult { status: Status::TimedOut(_), .. }) => self.slow.push(format!("`{name}`")),
            Ok(ran) if has_died(ran) => self.dead.push(format!("`{name}`")),
            _ => {}
        }
    }

    fn conclusion(&self, all: usize, limit: Duration) -> String {
        let mut text = String::new();
        if !self.dead.is_empty() {
            let _ = writeln!(text, "Alone as well, the program is ended by {}.", self.dead.join(", "));
        }
        if !self.slow.is_empty() {
            let slow = self.slow.join(", ");
            let _ = writeln!(text, "Alone as well, {slow} did not end in half of the time that was left.");
        }
        if text.is_empty() {
            let tried = all - self.untried;
            let _ = writeln!(
                text,
                "None of the {tried} ends the program alone: it takes several in one process, or chance."
            );
        }
        if self.untried > 0 {
            let untried = self.untried;
            let _ = writeln!(
                text,
                "Not tried any more, since that had taken as long as the test may ({limit:?}): {untried} of {all}."
            );
        }
        text
    }
}
