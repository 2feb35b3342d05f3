//! Runs the tests of a feature, counts their results and publishes them.

use std::path::Path;
use std::time::Duration;

use greenwave_testing::{Outcome, Test};
use humantime::format_duration;
use tokio::time::timeout;

use crate::context::RunContext;
use crate::error::{FeatureError, chain};
use crate::event::Event;
use crate::plan::FeatureId;
use crate::report::FeatureReport;

/// Maximum duration of a discovery.
const DISCOVERY_TIME_MAX: Duration = Duration::from_secs(60);

/// Runs a test for a feature in `root`, or takes its cached result, and reports the result.
///
/// `phase` is the label under which the result is reported.
pub(crate) async fn run_test(
    ctx: &RunContext,
    id: FeatureId,
    report: &mut FeatureReport,
    test: &Test,
    root: &Path,
    phase: &'static str,
) -> Result<Outcome, FeatureError> {
    ctx.steps.pass("run a test").await;
    let outcome = start(ctx, id, test, root, false).await?;
    count(ctx, id, report, test, outcome, phase).await
}

/// Runs a test for a feature in `root` even if its result is cached, and reports the result.
pub(crate) async fn repeat_test(
    ctx: &RunContext,
    id: FeatureId,
    report: &mut FeatureReport,
    test: &Test,
    root: &Path,
    phase: &'static str,
) -> Result<Outcome, FeatureError> {
    ctx.steps.pass("repeat a test").await;
    let outcome = start(ctx, id, test, root, true).await?;
    count(ctx, id, report, test, outcome, phase).await
}

/// Runs a test for a feature in `root`, or takes its cached result, without reporting it.
pub(crate) async fn try_test(
    ctx: &RunContext,
    id: FeatureId,
    test: &Test,
    root: &Path,
) -> Result<Outcome, FeatureError> {
    ctx.steps.pass("try a test").await;
    start(ctx, id, test, root, false).await
}

/// Discovers the tests of the project in a copy.
///
/// # Errors
/// The reason why they cannot be discovered.
pub(crate) async fn discovered_tests(ctx: &RunContext, copy: &Path) -> Result<Vec<Test>, String> {
    // Only the project, if the copy is the repository or workspace around it.
    let root = &ctx.copies.root;
    let project = copy.join(&root.project);
    match timeout(DISCOVERY_TIME_MAX, ctx.tests.discover(&project)).await {
        Ok(Ok(mut tests)) => {
            tests.iter_mut().for_each(|test| root.place(test));
            Ok(tests)
        }
        Ok(Err(error)) => Err(format!("cannot discover the project's tests: {}", chain(&error))),
        Err(_) => {
            let time_max = format_duration(DISCOVERY_TIME_MAX);
            Err(format!("discovering the project's tests took longer than {time_max}"))
        }
    }
}

/// Runs a test beside others, or alone if it binds a fixed port.
async fn start(
    ctx: &RunContext,
    id: FeatureId,
    test: &Test,
    root: &Path,
    is_repetition: bool,
) -> Result<Outcome, FeatureError> {
    let tests = &ctx.tests;
    let run = || async move {
        if is_repetition { tests.run_again(root, test).await } else { tests.run(root, test).await }
    };
    let (outcome, is_new) = ctx.ports.run(test, run).await?;
    if is_new {
        let event = Event::Note {
            code: "port-in-use",
            feature: Some(ctx.feature(id).id.clone()),
            message: format!("test `{}` found its port in use; it runs alone from now on", test.name),
            hint: Some("name the port as one of `[resources]`, or let the test bind port 0".to_owned()),
        };
        ctx.emit(event).await;
    }
    Ok(outcome)
}

async fn count(
    ctx: &RunContext,
    id: FeatureId,
    report: &mut FeatureReport,
    test: &Test,
    outcome: Outcome,
    phase: &'static str,
) -> Result<Outcome, FeatureError> {
    publish(ctx, id, test, &outcome, phase).await;
    note_left_processes(ctx, id, test, &outcome).await;
    if outcome.is_cached() {
        report.tests_cached += 1;
    } else {
        report.tests_run += 1;
    }
    Ok(outcome)
}

/// Publishes a note, once per run, if a test has left processes running.
async fn note_left_processes(ctx: &RunContext, id: FeatureId, test: &Test, outcome: &Outcome) {
    if outcome.left_behind.is_empty() {
        return;
    }
    let programs = outcome.left_behind.join(", ");
    if !ctx.left_processes.lock().insert(test.name.clone()) {
        return;
    }
    let event = Event::Note {
        code: "left-processes",
        feature: Some(ctx.feature(id).id.clone()),
        message: format!("test `{}` left processes running, which were killed: {programs}", test.name),
        hint: Some("let the test end the processes that it starts".to_owned()),
    };
    ctx.emit(event).await;
}

/// Reports a cached result that an earlier run left for an up-to-date feature.
pub(crate) async fn report_cached(
    ctx: &RunContext,
    id: FeatureId,
    report: &mut FeatureReport,
    test: &Test,
    outcome: &Outcome,
) {
    publish(ctx, id, test, outcome, "checking").await;
    report.tests_cached += 1;
    report.tests = add_counts(report.tests, outcome.count.map(|count| count.passed));
}

/// Adds the tests that one command counted to a sum. Stays `None` while no command has counted.
pub(crate) fn add_counts(sum: Option<u32>, count: Option<u32>) -> Option<u32> {
    count.map(|count| sum.unwrap_or(0) + count).or(sum)
}

async fn publish(ctx: &RunContext, id: FeatureId, test: &Test, outcome: &Outcome, phase: &'static str) {
    {
        let mut totals = ctx.totals.lock();
        if outcome.is_cached() {
            totals.tests_cached += 1;
            totals.time_saved += outcome.duration;
        } else {
            totals.tests_run += 1;
            ctx.metrics.test_duration.observe(outcome.duration);
        }
    }
    let event = Event::Tests {
        feature: ctx.feature(id).id.clone(),
        test: test.name.clone(),
        phase,
        status: outcome.status.to_string(),
        passed: outcome.count.map(|count| count.passed),
        failed: outcome.count.map(|count| count.failed),
        cached: outcome.is_cached(),
        seconds: (outcome.duration.as_secs_f64() * 1000.0).round() / 1000.0,
    };
    ctx.emit(event).await;
}
