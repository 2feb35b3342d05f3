//! The tool `test_history`.

use rmcp::model::Tool;
use serde_json::{Value, json};

use super::answer::Answer;
use super::arguments::Arguments;
use super::list_tests::{LIMIT, LIMIT_MAX};
use super::schema::{count, filters, list, object, read_only, tool_on_project};
use super::session::Session;
use crate::cli::history;
use crate::cli::test::call::TestCall;
use crate::error::CliError;

/// A call of the tool.
pub(super) struct HistoryCall {
    tests: TestCall,
    limit: usize,
}

/// Describes the tool.
pub(super) fn tool() -> Tool {
    let input = json!({
        "filters": filters(),
        "limit": count("Maximum number of tests in the structured answer; 200 without it."),
    });
    let (number, flag) = (json!({"type": "number"}), json!({"type": "boolean"}));
    let test = object(
        &json!({
            "name": {"type": "string"},
            "average_ms": number,
            "earlier_ms": number,
            "last_ms": number,
            "slower": flag,
            "runs": {"type": "number", "description": "Runs, each weighted by 0.9 for each later one"},
            "failures": number,
            "flaky": number,
            "failed_last": flag,
            "runs_alone": flag,
            "depends_on_order": flag,
        }),
        &["name", "average_ms", "last_ms", "runs", "failures", "flaky", "failed_last"],
    );
    let output = json!({
        "tests": list(&test),
        "tests_omitted": count("Tests beyond the limit"),
        "cached": count("Cached results that runs used in which other tests ran"),
        "saved_ms": number,
    });
    let output = object(&output, &["tests", "tests_omitted", "cached", "saved_ms"]);
    let description = "Show slower, flaky and failing tests of earlier runs, and the time that cached \
                       results have saved. Runs no code.";
    tool_on_project("test_history", description, input, &[], output).annotate(read_only("Test history"))
}

/// Reads the arguments.
pub(super) fn read(session: &Session, arguments: &mut Arguments) -> Result<HistoryCall, String> {
    let call = session.call(arguments)?;
    let tests = TestCall { filters: arguments.texts("filters")?, ..call };
    Ok(HistoryCall { tests, limit: arguments.number("limit", LIMIT, LIMIT_MAX)? })
}

/// Shows the history of tests.
pub(super) fn tell(call: &HistoryCall) -> Result<Answer, CliError> {
    let mut history = history::read(&call.tests.project)?;
    let filters = &call.tests.filters;
    let is_named = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
    history.tests.retain(|test| is_named(&test.name));
    let text = history::lines(&history).join("\n");
    let omitted = history.tests.len().saturating_sub(call.limit);
    history.tests.truncate(call.limit);
    let mut structured = history::json(&history);
    structured["tests_omitted"] = Value::from(omitted);
    Ok(Answer { text, structured })
}
