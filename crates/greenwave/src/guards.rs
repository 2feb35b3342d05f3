//! Guards: tests that pass at the start of a run and must pass after every merge.
//!
//! They are found and run when the first merge needs them, so a run that merges nothing pays
//! nothing. Their results are cached by their inputs like those of all tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use greenwave_testing::{Outcome, Test};
use humantime::format_duration;
use tokio::time::Instant;

use crate::cases::Cases;
use crate::context::RunContext;
use crate::error::FeatureError;
use crate::event::Event;
use crate::plan::{FeatureId, Guards};
use crate::protection;
use crate::report::FeatureReport;
use crate::test_results::{discovered_tests, run_test};

/// Maximum duration of the first run of all guards that were discovered.
const DISCOVERED_TIME_MAX: Duration = Duration::from_secs(300);
/// Maximum number of tests that a note names.
const NAMES_MAX: usize = 5;

/// The guards of a run. `None` until the first merge.
#[derive(Debug, Default)]
pub(crate) struct GuardSet(Option<BTreeMap<String, Guard>>);

/// A guard, and the single tests that it ran.
#[derive(Debug)]
struct Guard {
    test: Test,
    cases: Cases,
}

/// The feature whose merge runs guards.
pub(crate) struct GuardRun<'a> {
    pub(crate) ctx: &'a RunContext,
    pub(crate) id: FeatureId,
    pub(crate) report: &'a mut FeatureReport,
    /// Directory with the project's files without the feature's changes.
    pub(crate) root: &'a Path,
}

impl GuardSet {
    /// Returns whether the guards have been found and run.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the tests of all guards, ordered by name.
    pub(crate) fn tests(&self) -> Vec<Test> {
        self.0.iter().flatten().map(|(_, guard)| guard.test.clone()).collect()
    }

    /// Removes a guard that fails without the changes of any feature.
    pub(crate) fn remove(&mut self, test: &Test) {
        if let Some(guards) = &mut self.0 {
            guards.remove(&test.name);
        }
    }

    /// Returns which single test a passing guard no longer runs.
    pub(crate) fn missing_case(&self, test: &Test, outcome: &Outcome) -> Option<String> {
        self.0.as_ref()?.get(&test.name)?.cases.missing_in(&Cases::of(outcome))
    }

    /// Stores which single tests a guard has run in a merge that succeeded.
    pub(crate) fn record(&mut self, test: &Test, outcome: &Outcome) {
        if let Some(guard) = self.0.as_mut().and_then(|guards| guards.get_mut(&test.name)) {
            guard.cases = Cases::of(outcome);
        }
    }

    /// Finds the guards of the plan, and runs them on the project's files. Tests that fail are not
    /// guards, which is reported.
    ///
    /// # Errors
    /// Fails if a test of the plan cannot be run at all.
    pub(crate) async fn prepare(&mut self, run: GuardRun<'_>) -> Result<(), FeatureError> {
        let (tests, is_discovered) = match &run.ctx.plan.guards {
            Guards::Off => (Vec::new(), false),
            Guards::Tests(tests) => (tests.clone(), false),
            Guards::Auto => (find(&run).await, true),
        };
        let (mut guards, mut failing, mut skipped) = (BTreeMap::new(), Vec::new(), Vec::new());
        let started = Instant::now();
        for mut test in tests {
            if is_discovered {
                let left = DISCOVERED_TIME_MAX.saturating_sub(started.elapsed());
                if left.is_zero() {
                    skipped.push(test.name);
                    continue;
                }
                test.time_max = test.time_max.min(left);
            }
            match first_run(run.ctx, run.id, run.report, &test, run.root).await {
                Ok(Some((test, outcome))) => {
                    drop(guards.insert(test.name.clone(), Guard { test, cases: Cases::of(&outcome) }));
                }
                Ok(None) => failing.push(test.name),
                // A discovered test may need a program that is not installed.
                Err(FeatureError::Test(_)) if is_discovered => failing.push(test.name),
                Err(error) => return Err(error),
            }
        }
        self.0 = Some(guards);
        report(run.ctx, &failing, &skipped).await;
        Ok(())
    }
}

/// Runs a test for the first time. Returns the test that guards the project, if it passes.
async fn first_run(
    ctx: &RunContext,
    id: FeatureId,
    report: &mut FeatureReport,
    test: &Test,
    root: &Path,
) -> Result<Option<(Test, Outcome)>, FeatureError> {
    let outcome = run_test(ctx, id, report, test, root, "baseline").await?;
    if outcome.passed() {
        return Ok(Some((test.clone(), outcome)));
    }
    let Some(program) = ctx.tests.harness(test).as_program(test, root) else { return Ok(None) };
    let outcome = run_test(ctx, id, report, &program, root, "baseline").await?;
    Ok(outcome.passed().then_some((program, outcome)))
}

/// Finds the tests that `greenwave test` runs in the project, except the tests of features of the
/// plan.
async fn find(run: &GuardRun<'_>) -> Vec<Test> {
    let declared = &run.ctx.plan.declared;
    let found = if declared.is_empty() { discover(run).await } else { declared.clone() };
    let features = || run.ctx.ids().flat_map(|id| run.ctx.tests_of(id));
    let named: Vec<String> = features().flat_map(protection::named_tests).collect();
    let targets: Vec<&[String]> = features().filter_map(|test| cargo_target(&test.command)).collect();
    let is_of_feature = |test: &Test| {
        protection::named_tests(test).any(|path| named.contains(&path))
            || cargo_target(&test.command).is_some_and(|target| targets.contains(&target))
            || features().any(|other| other.command == test.command && other.directory == test.directory)
    };
    let may_have_tests = |test: &Test| run.ctx.tests.harness(test).may_have_tests(test, run.root);
    found.into_iter().filter(|test| !is_of_feature(test) && may_have_tests(test)).collect()
}

/// Discovers the tests of the project.
async fn discover(run: &GuardRun<'_>) -> Vec<Test> {
    match discovered_tests(run.ctx, run.root).await {
        Ok(tests) => tests,
        Err(message) => {
            note(run.ctx, "guards-not-found", message).await;
            Vec::new()
        }
    }
}

/// Returns the arguments of cargo that select one test program.
fn cargo_target(command: &[String]) -> Option<&[String]> {
    let at = command.iter().position(|word| word == "--test")?;
    command.get(at..at + 2)
}

async fn report(ctx: &RunContext, failing: &[String], skipped: &[String]) {
    if !failing.is_empty() {
        let message = match failing {
            [name] => format!("test `{name}` fails before any change, so it does not guard the project"),
            names => format!(
                "{} tests fail before any change, so they do not guard the project: {}",
                names.len(),
                list(names)
            ),
        };
        note(ctx, "guards-failing", message).await;
    }
    if !skipped.is_empty() {
        let message = format!(
            "the project's tests take longer than {}, so {} of them do not guard it: {}; \
             name those that matter in [[guards]]",
            format_duration(DISCOVERED_TIME_MAX),
            skipped.len(),
            list(skipped)
        );
        note(ctx, "guards-slow", message).await;
    }
}

fn list(names: &[String]) -> String {
    let mut text =
        names.iter().take(NAMES_MAX).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMES_MAX));
    }
    text
}

async fn note(ctx: &RunContext, code: &'static str, message: String) {
    ctx.emit(Event::Note { code, feature: None, message, hint: None }).await;
}
