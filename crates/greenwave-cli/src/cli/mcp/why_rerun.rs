//! The tool `why_rerun`.

use serde_json::json;

use super::answer::Answer;
use super::arguments::Arguments;
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
