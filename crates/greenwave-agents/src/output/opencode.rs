//! Reads the JSON lines of OpenCode (`opencode run --format json`).

use serde_json::Value;

use super::{LineReader, Report, at, count, message, millionths, text, tool_call};
use crate::AgentEvent;

/// Tools that change the file that they name.
const EDITORS: [&str; 4] = ["edit", "multiedit", "patch", "write"];

#[derive(Debug, Default)]
pub(super) struct Opencode {
    has_started: bool,
    /// Sums over the steps of the session.
    input_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    cost: u64,
}

impl LineReader for Opencode {
    fn read(&mut self, line: &Value, reports: &mut Vec<Report>) {
        if let Some(session) = text(line, &["sessionID"]).filter(|_| !self.has_started) {
            self.has_started = true;
            reports.push(Report::Event(AgentEvent::Started(session.to_owned())));
        }
        match text(line, &["type"]) {
            Some("text") => reports.extend(text(line, &["part", "text"]).map(message)),
            Some("reasoning") => {
                let thought = text(line, &["part", "text"]).filter(|thought| !thought.is_empty());
                reports.extend(
                    thought.map(|thought| Report::Event(AgentEvent::Reasoning(thought.to_owned().into()))),
                );
            }
            Some("tool_use") => {
                let name = text(line, &["part", "tool"]).unwrap_or_default();
                let input = at(line, &["part", "state", "input"]).unwrap_or(&Value::Null);
                tool_call(name, input, EDITORS.contains(&name), reports);
            }
            Some("step_finish") => self.finish_step(line, reports),
            Some("error") => {
                let reason = text(line, &["error", "data", "message"]);
                let reason = reason.or_else(|| text(line, &["error", "name"])).unwrap_or("unknown error");
                let status = at(line, &["error", "data", "statusCode"]).and_then(Value::as_u64);
                reports.push(Report::Failed(match status {
                    Some(status) => format!("API error {status}: {reason}"),
                    None => reason.to_owned(),
                }));
            }
            _ => {}
        }
    }
}

impl Opencode {
    fn finish_step(&mut self, line: &Value, reports: &mut Vec<Report>) {
        let tokens = |path: &[&str]| count(line, &[&["part", "tokens"], path].concat());
        let cached = tokens(&["cache", "read"]);
        let inputs = [tokens(&["input"]), tokens(&["cache", "write"]), cached];
        self.input_tokens = inputs.into_iter().fold(self.input_tokens, u64::saturating_add);
        self.cached_tokens = self.cached_tokens.saturating_add(cached);
        let outputs = [tokens(&["output"]), tokens(&["reasoning"])];
        self.output_tokens = outputs.into_iter().fold(self.output_tokens, u64::saturating_add);
        let cost = at(line, &["part", "cost"]).and_then(Value::as_f64).map_or(0, millionths);
        self.cost = self.cost.saturating_add(cost);
        reports.push(Report::Event(AgentEvent::Usage {
            input_tokens: self.input_tokens,
            cached_tokens: self.cached_tokens,
            output_tokens: self.output_tokens,
            cost: Some(self.cost).filter(|cost| *cost > 0),
        }));
        match text(line, &["part", "reason"]) {
            // Another step follows.
            Some("tool-calls") => {}
            Some("stop") => reports.push(Report::Succeeded),
            other => {
                let reason = format!("the last step ended with {:?}", other.unwrap_or_default());
                reports.push(Report::Failed(reason));
            }
        }
    }
}
