//! The tool `list_tests`.

use greenwave_testing::Inspection;
use rmcp::model::Tool;
use serde_json::{Value, json};

use super::answer::Answer;
use super::arguments::Arguments;
use super::schema::{filters, object, read_only, tool_on_project};
use super::session::Session;
use crate::cli::test::call::{Listed, TestCall};
use crate::error::CliError;
use crate::text::{plural, printable};

/// Number of tests in an answer, unless the call says otherwise.
pub(super) const LIMIT: usize = 200;
/// Maximum number of tests in an answer.
pub(super) const LIMIT_MAX: usize = 10_000;

/// A call of the tool.
pub(super) struct ListCall {
    tests: TestCall,
    offset: usize,
    limit: usize,
}

/// Describes the tool.
pub(super) fn tool() -> Tool {
    let input = json!({
        "filters": filters(),
        "offset": {"type": "integer", "minimum": 0, "description": "Skip this number of tests."},
        "limit": {
            "type": "integer", "minimum": 0, "maximum": 10_000,
            "description": "Maximum number of tests in the answer; 200 without it.",
        },
    });
    let output = json!({
        "total": {"type": "integer"},
        "cached": {"type": "integer"},
        "next_offset": {"type": "integer", "description": "The offset of the next page, if there is one"},
        "tests": {"type": "array", "items": object(&json!({
            "name": {"type": "string"},
            "state": {
                "enum": ["cached", "to_run", "to_build", "broken"],
                "description": "to_build: cached if a build changes nothing that the test reads",
            },
            "duration_ms": {"type": "number"},
            "problem": {"type": "string"},
        }), &["name", "state"])},
    });
    let description = "List the project's tests, and which of them have a cached result. Runs no code.";
    let output = object(&output, &["total", "cached", "tests"]);
    tool_on_project("list_tests", description, input, &[], output).annotate(read_only("List tests"))
}

/// Reads the arguments.
pub(super) fn read(session: &Session, arguments: &mut Arguments) -> Result<ListCall, String> {
    let call = session.call(arguments)?;
    Ok(ListCall {
        tests: TestCall { filters: arguments.texts("filters")?, ..call },
        offset: arguments.number("offset", 0, usize::MAX)?,
        limit: arguments.number("limit", LIMIT, LIMIT_MAX)?,
    })
}

/// Lists tests.
pub(super) async fn list(call: &ListCall) -> Result<Answer, CliError> {
    Ok(answer(&call.tests.list().await?, call.offset, call.limit))
}

fn answer(listed: &[Listed], offset: usize, limit: usize) -> Answer {
    let shown = listed.iter().skip(offset).take(limit);
    let mut lines: Vec<String> = Vec::new();
    let mut tests: Vec<Value> = Vec::new();
    for test in shown {
        let (state, json) = state(test);
        lines.push(format!("{state:<8} {}", printable(&test.name)));
        tests.push(json);
    }
    let cached = listed.iter().filter(|test| matches!(test.found, Ok(Inspection::Cached(_)))).count();
    lines.push(format!("{}, {cached} cached", plural(listed.len(), "test")));
    let next = offset + tests.len();
    if next < listed.len() {
        lines.push(format!("more with `offset`: {next}"));
    }
    let mut structured = json!({"total": listed.len(), "cached": cached, "tests": tests});
    if next < listed.len() {
        structured["next_offset"] = json!(next);
    }
    Answer { text: lines.join("\n"), structured }
}

/// Returns the state of a test in one word, and the test as JSON.
fn state(test: &Listed) -> (&'static str, Value) {
    let name = &test.name;
    let known = |state: &'static str, outcome: &greenwave_testing::Outcome| {
        let took = outcome.duration.as_secs_f64() * 1e3;
        (state, json!({"name": name, "state": state, "duration_ms": took}))
    };
    match &test.found {
        Ok(Inspection::Cached(outcome)) => known("cached", outcome),
        Ok(Inspection::DependsOnBuild(outcome)) => known("to_build", outcome),
        Ok(Inspection::Missing) => ("to_run", json!({"name": name, "state": "to_run"})),
        Err(error) => {
            ("broken", json!({"name": name, "state": "broken", "problem": greenwave::chain(error)}))
        }
    }
}
