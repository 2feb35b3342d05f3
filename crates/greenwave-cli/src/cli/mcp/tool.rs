//! The tools: their names, descriptions and schemas, and which code answers a call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::{Answer, Called};
use super::arguments::Arguments;
use super::list_tests::{self, ListCall};
use super::progress::Progress;
use super::run_tests;
use super::session::Session;
use super::why_rerun::{self, WhyCall};
use crate::cli::test::call::TestCall;
use crate::error::CliError;

/// A call of a tool, with its arguments.
pub(super) enum ToolCall {
    RunTests(TestCall),
    ListTests(ListCall),
    WhyRerun(WhyCall),
}

impl ToolCall {
    /// Reads the arguments of a call; `None` if no tool has the name.
    pub(super) fn read(
        session: &Session,
        name: &str,
        arguments: Option<JsonObject>,
    ) -> Option<Result<Self, String>> {
        let mut arguments = Arguments::new(arguments);
        let read = match name {
            "run_tests" => run_tests::read(session, &mut arguments).map(Self::RunTests),
            "list_tests" => list_tests::read(session, &mut arguments).map(Self::ListTests),
            "why_rerun" => why_rerun::read(session, &mut arguments).map(Self::WhyRerun),
            _ => return None,
        };
        Some(read.and_then(|call| arguments.finish().map(|()| call)))
    }

    /// Answers the call, unless `stopped` completes before.
    ///
    /// # Errors
    /// Those of the commands with the same purpose.
    pub(super) async fn answer(
        self,
        session: &Session,
        stopped: impl Future<Output = ()>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Called, CliError> {
        let answering: Pin<Box<dyn Future<Output = Result<Answer, CliError>> + '_>> = match &self {
            Self::RunTests(call) => return run_tests::run(session, call, stopped, progress).await,
            Self::ListTests(call) => Box::pin(list_tests::list(call)),
            Self::WhyRerun(call) => Box::pin(why_rerun::explain(call)),
        };
        tokio::select! {
            answer = answering => Ok(Called::Answered(answer?)),
            () = stopped => Ok(Called::Cancelled),
        }
    }
}

/// Returns the descriptions of all tools.
pub(super) fn all() -> Vec<Tool> {
    vec![run_tests_tool(), list_tests_tool(), why_rerun_tool()]
}

fn run_tests_tool() -> Tool {
    let input = json!({
        "filters": {
            "type": "array", "items": {"type": "string"},
            "description": "Run only tests whose names contain one of these texts. All tests without it.",
        },
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
        "failures": {"type": "array", "items": object(&json!({
            "name": {"type": "string"},
            "problem": {"type": "string"},
            "file": {"type": "string"},
            "line": number,
            "text": {"type": "string", "description": "The lines of the output that matter"},
        }), &["name", "problem", "text"])},
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
    let annotations = ToolAnnotations::with_title("Run tests").read_only(false).destructive(false);
    tool("run_tests", description, input, &[], object(&output, &required)).annotate(annotations)
}

fn list_tests_tool() -> Tool {
    let input = json!({
        "filters": {
            "type": "array", "items": {"type": "string"},
            "description": "List only tests whose names contain one of these texts.",
        },
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
    tool("list_tests", description, input, &[], output).annotate(read_only("List tests"))
}

fn why_rerun_tool() -> Tool {
    let input = json!({
        "test": {"type": "string", "description": "Name of a test, or a part that only one name has."},
    });
    let output = json!({
        "test": {"type": "string"},
        "cached": {"type": "boolean"},
        "depends_on_build": {"type": "boolean"},
        "over_limit": {"type": "boolean"},
        "input_files": {"type": "integer"},
        "discovered_paths": {"type": "integer"},
        "changes": {"type": "array", "items": {"type": "string"}},
        "changes_omitted": {"type": "integer"},
        "last_run": object(&json!({
            "age_ms": {"type": "number"},
            "status": {"type": "string"},
            "not_cached": {"type": "string"},
        }), &["age_ms", "status"]),
    });
    let required = [
        "test",
        "cached",
        "depends_on_build",
        "over_limit",
        "input_files",
        "discovered_paths",
        "changes",
        "changes_omitted",
    ];
    let description = "Explain why a test's result is cached, or which changes make the test run again. \
                       Runs no code.";
    let output = object(&output, &required);
    tool("why_rerun", description, input, &["test"], output).annotate(read_only("Why a test runs again"))
}

fn read_only(title: &str) -> ToolAnnotations {
    ToolAnnotations::with_title(title).read_only(true)
}

/// Returns a tool whose input also has the project.
fn tool(
    name: &'static str,
    description: &'static str,
    mut input: Value,
    required: &[&str],
    output: Value,
) -> Tool {
    input["project"] = json!({
        "type": "string",
        "description": "Directory of the project, such as a worktree. The server's own without it.",
    });
    let input = as_object(object(&input, required));
    Tool::new(name, description, input).with_raw_output_schema(as_object(output))
}

/// Returns the schema of an object with these properties and no others.
fn object(properties: &Value, required: &[&str]) -> Value {
    json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    })
}

fn as_object(schema: Value) -> Arc<JsonObject> {
    match schema {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}
