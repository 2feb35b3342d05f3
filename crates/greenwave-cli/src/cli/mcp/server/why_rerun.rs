//! The tool `why_rerun`.

use rmcp::model::Tool;
use serde_json::json;

use super::answer::Answer;
use super::arguments::Arguments;
use super::schema::{object, read_only, tool_on_project};
use super::session::Session;
use crate::cli::test::call::TestCall;
use crate::error::CliError;

/// Maximum number of changes in an answer.
const CHANGES_MAX: usize = 50;

/// A call of the tool.
pub(super) struct WhyCall {
    tests: TestCall,
    test: String,
}

/// Describes the tool.
pub(super) fn tool() -> Tool {
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
    tool_on_project("why_rerun", description, input, &["test"], output)
        .annotate(read_only("Why a test runs again"))
}

/// Reads the arguments.
pub(super) fn read(session: &Session, arguments: &mut Arguments) -> Result<WhyCall, String> {
    Ok(WhyCall { tests: session.call(arguments)?, test: arguments.required_text("test")? })
}

/// Explains why a test has a cached result, or lists the changes since the last one.
pub(super) async fn explain(call: &WhyCall) -> Result<Answer, CliError> {
    let explained = call.tests.explain(&call.test).await?;
    let explanation = &explained.explanation;
    let changes: Vec<&String> = explained.changes.iter().take(CHANGES_MAX).collect();
    let mut structured = json!({
        "test": explained.name,
        "cached": explanation.cached.is_some(),
        "depends_on_build": explanation.depends_on_build,
        "over_limit": explanation.over_limit,
        "input_files": explanation.inputs,
        "discovered_paths": explanation.discovered.len(),
        "changes": changes,
        "changes_omitted": explained.changes.len().saturating_sub(CHANGES_MAX),
    });
    if let Some((age, status, reason)) = &explanation.last {
        structured["last_run"] = json!({"age_ms": age.as_secs_f64() * 1e3, "status": status.to_string()});
        if let Some(reason) = reason {
            structured["last_run"]["not_cached"] = json!(reason);
        }
    }
    Ok(Answer { text: explained.lines.join("\n"), structured })
}
