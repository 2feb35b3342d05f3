//! The answer of a tool.

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::Value;

use crate::error::CliError;
use crate::output::error_text;
use crate::terminal_text::plain;

/// Keys of names, which clients pass back and so need as they are.
const NAMES: [&str; 4] = ["name", "test", "feature", "output"];

/// The answer of a tool: text for a model, and the same as JSON for programs.
pub(super) struct Answer {
    /// The text, which has a limited size.
    pub(super) text: String,
    /// JSON that conforms to the output schema of the tool.
    pub(super) structured: Value,
}

/// The end of a call.
pub(super) enum Called {
    Answered(Answer),
    /// The client has cancelled the call, and expects no answer.
    Cancelled,
}

impl Answer {
    /// Returns the result of a call. Both parts are about equally long, and clients pass one of
    /// them to the model.
    pub(super) fn into_result(self) -> CallToolResult {
        let mut result = CallToolResult::success(vec![ContentBlock::text(plain(&self.text))]);
        result.structured_content = Some(visible(self.structured));
        result
    }
}

/// Makes the texts in a value [`plain`], except for names: clients show answers on terminals.
fn visible(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(plain(&text)),
        Value::Array(values) => Value::Array(values.into_iter().map(visible).collect()),
        Value::Object(members) => {
            let member = |(key, value): (String, Value)| {
                let is_name = NAMES.contains(&key.as_str()) && value.is_string();
                let value = if is_name { value } else { visible(value) };
                (key, value)
            };
            Value::Object(members.into_iter().map(member).collect())
        }
        other => other,
    }
}

/// Returns the result of a call that failed, so that the model can correct it.
pub(super) fn failed(error: &CliError) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(plain(&error_text(error)))])
}
