//! Reads the JSON lines of Claude Code
//! (<https://docs.claude.com/en/docs/claude-code/headless#output-formats>).

use std::time::Duration;

use serde_json::Value;

use super::{LineReader, Report, at, count, message, millionths, text, tool_call};
use crate::AgentEvent;

/// Tools that change the file that they name.
const EDITORS: [&str; 4] = ["Edit", "MultiEdit", "NotebookEdit", "Write"];

#[derive(Debug, Default)]
pub(super) struct Claude {
    has_started: bool,
}

impl LineReader for Claude {
    fn read(&mut self, line: &Value, reports: &mut Vec<Report>) {
        match (text(line, &["type"]), text(line, &["subtype"])) {
            (Some("system"), Some("init")) => {
                let session = text(line, &["session_id"]).filter(|_| !self.has_started);
                self.has_started |= session.is_some();
                reports.extend(session.map(|session| Report::Event(AgentEvent::Started(session.to_owned()))));
            }
            (Some("system"), Some("api_retry")) => {
                let delay = at(line, &["retry_delay_ms"]).and_then(Value::as_f64);
                let retry_after =
                    delay.and_then(|delay| Duration::try_from_secs_f64(delay.max(0.0) / 1000.0).ok());
                reports.push(Report::Event(AgentEvent::RateLimited { retry_after }));
            }
            (Some("assistant"), _) => {
                let parts = at(line, &["message", "content"]).and_then(Value::as_array);
                for part in parts.into_iter().flatten() {
                    read_part(part, reports);
                }
            }
            (Some("result"), subtype) => read_result(line, subtype, reports),
            _ => {}
        }
    }
}

fn read_part(part: &Value, reports: &mut Vec<Report>) {
    match text(part, &["type"]) {
        Some("text") => reports.extend(text(part, &["text"]).map(message)),
        Some("thinking") => {
            let thought = text(part, &["thinking"]).filter(|thought| !thought.is_empty());
            reports.extend(
                thought.map(|thought| Report::Event(AgentEvent::Reasoning(thought.to_owned().into()))),
            );
        }
        Some("tool_use") => {
            let name = text(part, &["name"]).unwrap_or_default();
            let input = part.get("input").unwrap_or(&Value::Null);
            tool_call(name, input, EDITORS.contains(&name), reports);
        }
        _ => {}
    }
}

fn read_result(line: &Value, subtype: Option<&str>, reports: &mut Vec<Report>) {
    let usage = |key| count(line, &["usage", key]);
    let cached_tokens = usage("cache_read_input_tokens");
    let input_tokens = [usage("input_tokens"), usage("cache_creation_input_tokens"), cached_tokens];
    let cost = at(line, &["total_cost_usd"]).and_then(Value::as_f64);
    reports.push(Report::Event(AgentEvent::Usage {
        input_tokens: input_tokens.into_iter().fold(0, u64::saturating_add),
        cached_tokens,
        output_tokens: usage("output_tokens"),
        cost: cost.map(millionths),
    }));
    // An error of the provider has the subtype `success`.
    let is_error = at(line, &["is_error"]).and_then(Value::as_bool).unwrap_or(true);
    if subtype == Some("success") && !is_error {
        return reports.push(Report::Succeeded);
    }
    let error = at(line, &["errors"]).and_then(|errors| errors.get(0)?.as_str());
    let reason = text(line, &["result"]).or(error).or(subtype).unwrap_or("it reported an error");
    let status = at(line, &["api_error_status"]).and_then(Value::as_u64);
    reports.push(Report::Failed(match status {
        Some(status) if !reason.contains(&status.to_string()) => format!("API error {status}: {reason}"),
        _ => reason.to_owned(),
    }));
}
