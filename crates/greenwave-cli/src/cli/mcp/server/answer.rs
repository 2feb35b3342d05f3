//! The answer of a tool.

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::Value;

use crate::error::CliError;
use crate::output::error_text;

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
        let mut result = CallToolResult::success(vec![ContentBlock::text(self.text)]);
        result.structured_content = Some(self.structured);
        result
    }
}

/// Returns the result of a call that failed, so that the model can correct it.
pub(super) fn failed(error: &CliError) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(error_text(error))])
}
