//! The tool `affected`.

use rmcp::model::Tool;
use serde_json::json;

use super::answer::Answer;
use super::arguments::Arguments;
use super::list_tests::{LIMIT, LIMIT_MAX};
use super::schema::{count, filters, list as list_of, object, read_only, text, tool_on_project};
use super::session::Session;
use crate::cli::test::call::TestCall;
use crate::error::CliError;
use crate::text::{plural, printable};

/// A call of the tool.
pub(super) struct AffectedCall {
    tests: TestCall,
    since: String,
    limit: usize,
}

/// Describes the tool.
pub(super) fn tool() -> Tool {
    let input = json!({
        "since": text("A git commit; HEAD without it."),
        "filters": filters(),
        "limit": count("Maximum number of tests in the answer; 200 without it."),
    });
    let output = json!({
        "since": {"type": "string"},
        "total": count("Tests that are affected"),
        "tests": list_of(&json!({"type": "string"})),
        "tests_omitted": count("Tests beyond the limit"),
    });
    let output = object(&output, &["since", "total", "tests", "tests_omitted"]);
    let description = "List the tests that may read files changed since a git commit. Runs no code.";
    tool_on_project("affected", description, input, &[], output).annotate(read_only("Affected tests"))
}

/// Reads the arguments.
pub(super) fn read(session: &Session, arguments: &mut Arguments) -> Result<AffectedCall, String> {
    let call = session.call(arguments)?;
    let since = arguments.text("since")?.unwrap_or_else(|| "HEAD".to_owned());
    let tests = TestCall { affected: Some(since.clone()), filters: arguments.texts("filters")?, ..call };
    Ok(AffectedCall { tests, since, limit: arguments.number("limit", LIMIT, LIMIT_MAX)? })
}

/// Lists the tests that may read files changed since a commit.
pub(super) async fn list(call: &AffectedCall) -> Result<Answer, CliError> {
    let names: Vec<String> = call.tests.list().await?.into_iter().map(|test| test.name).collect();
    let shown = &names[..names.len().min(call.limit)];
    let mut lines: Vec<String> = shown.iter().map(|name| printable(name)).collect();
    let omitted = names.len() - shown.len();
    lines.push(format!("{} may read files changed since {}", plural(names.len(), "test"), call.since));
    let structured = json!({
        "since": call.since, "total": names.len(), "tests": shown, "tests_omitted": omitted,
    });
    Ok(Answer { text: lines.join("\n"), structured })
}
