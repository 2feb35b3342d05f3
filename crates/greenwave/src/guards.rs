//! Guards: tests that pass at the start of a run and must pass after every merge.
//!
//! They are found and run when the first merge needs them, so a run that merges nothing pays
//! nothing. Their results are cached by their inputs like those of all tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use greenwave_dir::read_regular_text;
use greenwave_testing::{HarnessName, Outcome, Test};
use humantime::format_duration;
use tokio::time::{Instant, timeout};

use crate::cases::Cases;
use crate::context::RunContext;
use crate::error::FeatureError;
use crate::event::Event;
use crate::plan::{FeatureId, Guards};
use crate::protection;
use crate::report::FeatureReport;
use crate::test_results::run_test;

/// Maximum size of a source file that is searched for tests, in bytes.
const SOURCE_BYTES_MAX: u64 = 64 << 20;
/// Maximum duration of the first run of all guards that were discovered.
const DISCOVERED_TIME_MAX: Duration = Duration::from_secs(300);
/// Maximum duration of the discovery.
const DISCOVERY_TIME_MAX: Duration = Duration::from_secs(60);
/// Maximum depth at which sources are searched for tests.
const DEPTH_MAX: usize = 12;
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
    let Some(script) = as_script(test, root) else { return Ok(None) };
    let outcome = run_test(ctx, id, report, &script, root, "baseline").await?;
    Ok(outcome.passed().then_some((script, outcome)))
}

/// Returns a test that runs a Python file by itself, if pytest would find no test in it.
fn as_script(test: &Test, root: &Path) -> Option<Test> {
    let (interpreter, file) = (test.command.first()?, test.command.last()?);
    if test.harness.as_str() != "pytest" || !file.ends_with(".py") {
        return None;
    }
    let text = read_regular_text(root.join(&test.directory).join(file), SOURCE_BYTES_MAX).ok()?;
    let has_tests = text.lines().any(|line| {
        let line = line.trim_start();
        ["def test", "async def test", "class "].iter().any(|start| line.starts_with(start))
    });
    let command = vec![interpreter.clone(), file.clone()];
    (!has_tests && text.contains("assert")).then(|| Test {
        command,
        harness: HarnessName::default(),
        ..test.clone()
    })
}

/// Finds the tests that `greenwave test` runs in the project, except the tests of features of the
/// plan.
async fn find(run: &GuardRun<'_>) -> Vec<Test> {
    let declared = &run.ctx.plan.declared;
    let found = if declared.is_empty() { discover(run).await } else { declared.clone() };
    let features = || run.ctx.plan.features.iter().flat_map(|feature| &feature.tests);
    let named: Vec<String> = features().flat_map(protection::named_tests).collect();
    let targets: Vec<&[String]> = features().filter_map(|test| cargo_target(&test.command)).collect();
    let is_of_feature = |test: &Test| {
        protection::named_tests(test).any(|path| named.contains(&path))
            || cargo_target(&test.command).is_some_and(|target| targets.contains(&target))
            || features().any(|other| other.command == test.command && other.directory == test.directory)
    };
    found.into_iter().filter(|test| !is_of_feature(test) && may_have_tests(test, run.root)).collect()
}

/// Discovers the tests of the project.
async fn discover(run: &GuardRun<'_>) -> Vec<Test> {
    // Only the project, if the copy is the repository or workspace around it.
    let root = &run.ctx.copies.root;
    let project = run.root.join(&root.project);
    match timeout(DISCOVERY_TIME_MAX, run.ctx.tests.discover(&project)).await {
        Ok(Ok(mut tests)) => {
            tests.iter_mut().for_each(|test| root.place(test));
            tests
        }
        Ok(Err(error)) => {
            note(run.ctx, "guards-not-found", format!("cannot discover the project's tests: {error}")).await;
            Vec::new()
        }
        Err(_) => {
            let time_max = format_duration(DISCOVERY_TIME_MAX);
            let message = format!("discovering the project's tests took longer than {time_max}");
            note(run.ctx, "guards-not-found", message).await;
            Vec::new()
        }
    }
}

/// Returns whether a test of cargo without test programs can run any test: whether the sources that
/// it is built from have test functions, or examples in their documentation.
///
/// Building a library only to find that it has no test would cost more than all other guards.
fn may_have_tests(test: &Test, root: &Path) -> bool {
    let has = |flag: &str| test.command.iter().any(|word| word == flag);
    if test.harness.as_str() != "cargo" || has("--test") || test.directories.is_empty() {
        return true;
    }
    let mark = if has("--doc") { "```" } else { "test" };
    test.directories.iter().any(|directory| has_source_with(&root.join(directory), mark, DEPTH_MAX))
}

/// Returns whether a Rust file at or below a path has a line that marks a test.
fn has_source_with(path: &Path, mark: &str, depth: usize) -> bool {
    if path.is_dir() {
        let is_left_out = path.file_name().is_some_and(|name| name == "target" || name == "tests");
        let mut entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        return depth > 0
            && !is_left_out
            && entries.any(|entry| has_source_with(&entry.path(), mark, depth - 1));
    }
    if path.extension().is_none_or(|extension| extension != "rs") {
        return false;
    }
    let is_mark = |line: &str| {
        let line = line.trim_start();
        line.contains(mark) && ["///", "//!", "#[", "#!["].iter().any(|start| line.starts_with(start))
    };
    read_regular_text(path, SOURCE_BYTES_MAX).is_ok_and(|text| text.lines().any(is_mark))
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
