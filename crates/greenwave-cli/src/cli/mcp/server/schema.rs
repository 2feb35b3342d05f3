//! Describes tools, with the JSON Schemas of their arguments and answers.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

/// Returns a tool whose arguments include the project.
pub(super) fn tool_on_project(
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
    tool(name, description, &input, required, output)
}

/// Returns a tool.
pub(super) fn tool(
    name: &'static str,
    description: &'static str,
    input: &Value,
    required: &[&str],
    output: Value,
) -> Tool {
    let input = as_object(object(input, required));
    Tool::new(name, description, input).with_raw_output_schema(as_object(output))
}

/// Returns the notes of a tool that changes nothing.
pub(super) fn read_only(title: &str) -> ToolAnnotations {
    ToolAnnotations::with_title(title).read_only(true)
}

/// Returns the notes of a tool that runs code of the project.
pub(super) fn runs_code(title: &str) -> ToolAnnotations {
    ToolAnnotations::with_title(title).read_only(false).destructive(false)
}

/// Returns the schema of an object with these properties and no others.
pub(super) fn object(properties: &Value, required: &[&str]) -> Value {
    json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    })
}

/// Returns the schema of a list.
pub(super) fn list(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

/// Returns the schema of a text.
pub(super) fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

/// Returns the schema of a count.
pub(super) fn count(description: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": description})
}

/// Returns the schema of the argument that selects tests by name.
pub(super) fn filters() -> Value {
    json!({
        "type": "array", "items": {"type": "string"},
        "description": "Only tests whose names contain one of these texts. All tests without it.",
    })
}

fn as_object(schema: Value) -> Arc<JsonObject> {
    match schema {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}
