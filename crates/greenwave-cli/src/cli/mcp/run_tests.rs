//! The tool `run_tests`.

use std::future::Future;

use greenwave_testing::{Outcome, Suite, SuiteEvent};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::{Answer, Called};
use super::arguments::Arguments;
use super::failures::Failures;
use super::progress::Progress;
use super::session::Session;
use crate::cli::test::call::{FinishedRun, Ran, TestCall};
use crate::error::CliError;

/// Reads the arguments.
pub(super) fn read(session: &Session, arguments: &mut Arguments) -> Result<TestCall, String> {
    let call = session.call(arguments)?;
    Ok(TestCall {
        filters: arguments.texts("filters")?,
        affected: arguments.text("affected_since")?,
        last_failed: arguments.flag("last_failed")?,
        per_test: arguments.flag("per_test")?,
        fail_fast: arguments.flag("fail_fast")?,
        ..call
    })
}

/// Runs tests until the client cancels the call.
pub(super) async fn run(
    session: &Session,
    call: &TestCall,
    stopped: impl Future<Output = ()>,
    progress: &watch::Sender<Progress>,
) -> Result<Called, CliError> {
    let mut stopped = std::pin::pin!(stopped);
    let _running = tokio::select! {
        running = session.running.lock() => running,
        () = &mut stopped => return Ok(Called::Cancelled),
    };
    let observe = |_: &Suite, event: SuiteEvent<'_>| progress.send_modify(|it| observe(it, &event));
    Ok(match call.run(stopped, observe).await? {
        Ran::Stopped => Called::Cancelled,
        Ran::Nothing(reason) => Called::Answered(nothing(&reason)),
        Ran::Finished(finished) => Called::Answered(answer(&finished, call)),
    })
}

fn observe(progress: &mut Progress, event: &SuiteEvent<'_>) {
    let add = |progress: &mut Progress, outcome: Option<&Outcome>| {
        progress.done += 1;
        progress.failed += usize::from(!outcome.is_some_and(Outcome::passed));
    };
    match event {
        SuiteEvent::LookedUp { cached, running } => progress.total = cached + running,
        SuiteEvent::Cached(_, outcome)
        | SuiteEvent::Ran(_, outcome)
        | SuiteEvent::Deduplicated(_, _, outcome) => add(progress, Some(outcome)),
        SuiteEvent::Broken(..) => add(progress, None),
        _ => {}
    }
}

fn nothing(reason: &str) -> Answer {
    let numbers = json!({
        "success": true, "summary": reason, "tests": 0, "passed": 0, "failed": 0, "errors": 0,
        "not_run": 0, "quarantined": 0, "flaky": 0, "cached": 0, "wall_ms": 0.0, "saved_ms": 0.0,
        "failures": [], "failures_omitted": 0,
    });
    Answer { text: reason.to_owned(), structured: numbers }
}

fn answer(finished: &FinishedRun, call: &TestCall) -> Answer {
    let failures = finished.report.as_ref().map(|run| Failures::of(run, &call.project)).unwrap_or_default();
    let summary = finished.totals.to_string();
    let mut lines = failures.lines();
    lines.push(summary.clone());
    Answer { text: lines.join("\n"), structured: structured(finished, &failures, &summary) }
}

fn structured(finished: &FinishedRun, failures: &Failures, summary: &str) -> Value {
    let stats = finished.stats;
    json!({
        "success": finished.is_success,
        "summary": summary,
        "tests": stats.passed + stats.failed + stats.errors + stats.not_run + stats.quarantined,
        "passed": stats.passed,
        "failed": stats.failed,
        "errors": stats.errors,
        "not_run": stats.not_run,
        "quarantined": stats.quarantined,
        "flaky": stats.flaky,
        "cached": stats.cached,
        "wall_ms": finished.wall.as_secs_f64() * 1e3,
        "saved_ms": finished.saved.as_secs_f64() * 1e3,
        "failures": failures.json(),
        "failures_omitted": failures.omitted,
    })
}
