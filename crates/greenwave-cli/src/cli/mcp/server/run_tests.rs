//! The tool `run_tests`.

use std::future::Future;

use greenwave_testing::{Outcome, Suite, SuiteEvent};
use rmcp::model::Tool;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::{Answer, Called};
use super::arguments::Arguments;
use super::failures::Failures;
use super::progress::Progress;
use super::schema::{filters, object, runs_code, text, tool_on_project};
use super::session::{LastRun, Session};
use crate::cli::test::call::{FinishedRun, Ran, TestCall};
use crate::error::CliError;

/// Describes the tool.
pub(super) fn tool() -> Tool {
    let input = json!({
        "filters": filters(),
        "affected_since": {
            "type": "string",
            "description": "Run only tests that may read files changed since this git commit, such as HEAD.",
        },
        "last_failed": {
            "type": "boolean", "description": "Run only tests that failed when they last ran.",
        },
        "per_test": {
            "type": "boolean",
            "description": "Run each test function by itself instead of each file or test program.",
        },
        "fail_fast": {
            "type": "boolean", "description": "Start no more tests after the first failure.",
        },
    });
    let number = json!({"type": "integer", "minimum": 0});
    let output = json!({
        "success": {"type": "boolean"},
        "summary": {"type": "string"},
        "tests": number, "passed": number, "failed": number, "errors": number, "not_run": number,
        "quarantined": number, "flaky": number,
        "cached": {"type": "integer", "minimum": 0, "description": "Tests that did not need to run"},
        "wall_ms": {"type": "number"},
        "saved_ms": {"type": "number", "description": "Time that the cached tests would have taken"},
        "failures": {"type": "array", "items": failure()},
        "failures_omitted": number,
    });
    let required = [
        "success",
        "summary",
        "tests",
        "passed",
        "failed",
        "errors",
        "not_run",
        "quarantined",
        "flaky",
        "cached",
        "wall_ms",
        "saved_ms",
        "failures",
        "failures_omitted",
    ];
    let description = "Run the project's tests. Results are cached by the content of everything that a \
                       test depends on, so call this after every edit without a filter: only tests that \
                       the edit affects run. Answers with failed tests (assertion, file, line), then \
                       counts.";
    tool_on_project("run_tests", description, input, &[], object(&output, &required))
        .annotate(runs_code("Run tests"))
}

/// Returns the schema of a failed test.
fn failure() -> Value {
    let lines =
        "The lines of the output that matter, or `LINE: TEST: ASSERTION` for each failing test in `file`";
    let output = "Address of the resource with the whole output; greenwave://output/NAME where it is missing";
    object(
        &json!({
            "name": {"type": "string"},
            "problem": {"type": "string"},
            "file": {"type": "string"},
            "line": {"type": "integer", "minimum": 0},
            "text": text(lines),
            "output": text(output),
        }),
        &["name", "problem", "text"],
    )
}

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
        Ran::Finished(finished) => {
            let answer = answer(&finished, call);
            let last = LastRun { answer: answer.structured.clone(), report: finished.report };
            *session.last.lock() = Some(last);
            Called::Answered(answer)
        }
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
