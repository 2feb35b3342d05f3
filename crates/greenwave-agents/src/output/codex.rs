//! Reads the JSON lines of Codex (`codex exec --json`; the types of `codex-rs/exec`).

use serde_json::Value;

use super::{LineReader, Report, at, count, message, shortened, text};
use crate::AgentEvent;

#[derive(Debug, Default)]
pub(super) struct Codex {
    /// Sums over the turns of the session.
    input_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
}

impl LineReader for Codex {
    fn read(&mut self, line: &Value, reports: &mut Vec<Report>) {
        match text(line, &["type"]) {
            Some("thread.started") => {
                let session = text(line, &["thread_id"]);
                reports.extend(session.map(|session| Report::Event(AgentEvent::Started(session.to_owned()))));
            }
            Some("item.started") if text(line, &["item", "type"]) == Some("command_execution") => {
                let command = text(line, &["item", "command"]).unwrap_or_default();
                let (name, target) = ("command".to_owned(), shortened(command));
                reports.push(Report::Event(AgentEvent::ToolCall { name, target }));
            }
            Some("item.completed") => read_item(line, reports),
            Some("turn.completed") => {
                let usage = |key| count(line, &["usage", key]);
                self.input_tokens = self.input_tokens.saturating_add(usage("input_tokens"));
                self.cached_tokens = self.cached_tokens.saturating_add(usage("cached_input_tokens"));
                self.output_tokens = self.output_tokens.saturating_add(usage("output_tokens"));
                reports.push(Report::Event(AgentEvent::Usage {
                    input_tokens: self.input_tokens,
                    cached_tokens: self.cached_tokens,
                    output_tokens: self.output_tokens,
                    cost: None,
                }));
                reports.push(Report::Succeeded);
            }
            Some("turn.failed") => {
                let reason = text(line, &["error", "message"]).unwrap_or("the turn failed");
                reports.push(Report::Failed(reason.to_owned()));
            }
            Some("error") => {
                let reason = text(line, &["message"]).unwrap_or_default();
                // Codex tries again by itself after such an error.
                if reason.starts_with("Reconnecting") {
                    reports.push(Report::Event(AgentEvent::RateLimited { retry_after: None }));
                } else {
                    reports.push(Report::Failed(reason.to_owned()));
                }
            }
            _ => {}
        }
    }
}

fn read_item(line: &Value, reports: &mut Vec<Report>) {
    let said = || text(line, &["item", "text"]);
    match text(line, &["item", "type"]) {
        Some("agent_message") => reports.extend(said().map(message)),
        Some("reasoning") => {
            let thought = said().filter(|thought| !thought.is_empty());
            reports.extend(
                thought.map(|thought| Report::Event(AgentEvent::Reasoning(thought.to_owned().into()))),
            );
        }
        Some("file_change") => {
            let changes = at(line, &["item", "changes"]).and_then(Value::as_array);
            let paths = changes.into_iter().flatten().filter_map(|change| text(change, &["path"]));
            reports.extend(paths.map(|path| Report::Event(AgentEvent::FileTouched(path.into()))));
        }
        Some("mcp_tool_call") => {
            let name = text(line, &["item", "tool"]).unwrap_or_default().to_owned();
            let target = shortened(text(line, &["item", "server"]).unwrap_or_default());
            reports.push(Report::Event(AgentEvent::ToolCall { name, target }));
        }
        Some("web_search") => {
            let (name, query) = ("web_search".to_owned(), text(line, &["item", "query"]));
            let target = shortened(query.unwrap_or_default());
            reports.push(Report::Event(AgentEvent::ToolCall { name, target }));
        }
        // A warning.
        Some("error") => reports.extend(text(line, &["item", "message"]).map(message)),
        _ => {}
    }
}
