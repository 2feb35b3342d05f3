//! Reads the JSON lines of Gemini CLI (`gemini --output-format stream-json`).

use serde_json::Value;

use super::{LineReader, Report, count, text, tool_call};
use crate::AgentEvent;

/// Tools that change the file that they name.
const EDITORS: [&str; 3] = ["edit", "replace", "write_file"];

#[derive(Debug)]
pub(super) struct Gemini;

impl LineReader for Gemini {
    fn read(&mut self, line: &Value, reports: &mut Vec<Report>) {
        match text(line, &["type"]) {
            Some("init") => {
                let session = text(line, &["session_id"]);
                reports.extend(session.map(|session| Report::Event(AgentEvent::Started(session.to_owned()))));
            }
            Some("message") if text(line, &["role"]) == Some("assistant") => {
                // A part of a message, in which words may be cut.
                let content = text(line, &["content"]).unwrap_or_default();
                reports.push(Report::Event(AgentEvent::Message(content.to_owned().into())));
            }
            Some("tool_use") => {
                let name = text(line, &["tool_name"]).unwrap_or_default();
                let input = line.get("parameters").unwrap_or(&Value::Null);
                tool_call(name, input, EDITORS.contains(&name), reports);
            }
            Some("error") => {
                let reason = text(line, &["message"]).unwrap_or("it reported an error");
                reports.push(Report::Failed(reason.to_owned()));
            }
            Some("result") => {
                reports.push(Report::Event(AgentEvent::Usage {
                    input_tokens: count(line, &["stats", "input_tokens"]),
                    cached_tokens: count(line, &["stats", "cached"]),
                    output_tokens: count(line, &["stats", "output_tokens"]),
                    cost: None,
                }));
                if text(line, &["status"]) == Some("success") {
                    return reports.push(Report::Succeeded);
                }
                let reason = text(line, &["error", "message"]).unwrap_or("it reported an error");
                reports.push(Report::Failed(reason.to_owned()));
            }
            _ => {}
        }
    }
}
