//! The messages of one turn, as a state machine without input and output.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::permission::{Policy, paths_of};
use crate::output::{count, shortened, text};
use crate::{AgentEvent, Request};

/// Version of the protocol (<https://agentclientprotocol.com/protocol/initialization>).
const PROTOCOL: u64 = 1;

/// A reaction to a message.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Send a message to the agent.
    Send(Value),
    /// Report an event.
    Event(AgentEvent),
    /// The turn has ended as it should.
    Succeed,
    /// The turn has failed, for this reason.
    Fail(String),
}

/// The step whose response is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Initialize,
    OpenSession,
    /// The session of an earlier turn. A new one is opened if that fails.
    LoadSession,
    Prompt,
    Ended,
}

/// A turn from the first message to the response to the prompt.
#[derive(Debug)]
pub(super) struct Turn {
    step: Step,
    /// Id of the last request of this client.
    last_id: u64,
    directory: PathBuf,
    prompt: String,
    /// The session of an earlier turn, then that of this one.
    session: Option<String>,
    policy: Policy,
}

impl Turn {
    /// Begins a turn. Returns the first actions.
    pub(super) fn begin(request: &Request) -> (Self, Vec<Action>) {
        let mut turn = Self {
            step: Step::Initialize,
            last_id: 0,
            directory: request.directory.clone(),
            prompt: request.prompt.clone(),
            session: request.session.clone(),
            policy: Policy::new(&request.directory, [&request.root, &request.temporary]),
        };
        let parameters = json!({
            "protocolVersion": PROTOCOL,
            "clientCapabilities": {
                "fs": { "readTextFile": false, "writeTextFile": false },
                "terminal": false,
            },
            "clientInfo": { "name": "greenwave", "version": env!("CARGO_PKG_VERSION") },
        });
        let first = turn.request(Step::Initialize, "initialize", &parameters);
        (turn, vec![first])
    }

    /// Begins a further turn of the session. Returns the message with its prompt.
    pub(super) fn again(&mut self, request: &Request) -> Vec<Action> {
        self.prompt.clone_from(&request.prompt);
        self.send_prompt()
    }

    /// Returns the id of the session, once there is one.
    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Cancels the turn. Its response follows, unless the prompt was not sent yet.
    pub(super) fn cancel(&mut self) -> Vec<Action> {
        let (Step::Prompt, Some(session)) = (self.step, &self.session) else {
            return vec![Action::Fail("cancelled".to_owned())];
        };
        let parameters = json!({ "sessionId": session });
        vec![Action::Send(json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": parameters }))]
    }

    /// Takes a line of the agent's output. A line that is no message is a remark of the program.
    pub(super) fn receive(&mut self, line: &[u8]) -> Vec<Action> {
        if line.trim_ascii().is_empty() || self.step == Step::Ended {
            return Vec::new();
        }
        let message = match serde_json::from_slice::<Value>(line) {
            Ok(message) if message.is_object() => message,
            _ => {
                let text = [line, b"\n"].concat();
                return vec![Action::Event(AgentEvent::Message(text.into()))];
            }
        };
        match (text(&message, &["method"]), message.get("id")) {
            (Some("session/update"), _) => self.update(&message),
            (Some("session/request_permission"), Some(id)) => self.permission(id, &message),
            (Some(method), Some(id)) => {
                let error = json!({ "code": -32601, "message": format!("{method} is not supported") });
                vec![Action::Send(json!({ "jsonrpc": "2.0", "id": id, "error": error }))]
            }
            (None, Some(id)) if id.as_u64() == Some(self.last_id) => self.response(&message),
            // Other notifications, and responses to requests that were never sent.
            _ => Vec::new(),
        }
    }

    fn request(&mut self, step: Step, method: &str, parameters: &Value) -> Action {
        self.step = step;
        self.last_id += 1;
        let id = self.last_id;
        Action::Send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": parameters }))
    }

    fn fail(&mut self, message: String) -> Vec<Action> {
        self.step = Step::Ended;
        vec![Action::Fail(message)]
    }

    fn response(&mut self, message: &Value) -> Vec<Action> {
        if let Some(error) = message.get("error") {
            if self.step == Step::LoadSession {
                self.session = None;
                return vec![self.open_session()];
            }
            return self.fail(describe(error));
        }
        let result = message.get("result").unwrap_or(&Value::Null);
        match self.step {
            Step::Initialize => self.initialized(result),
            Step::OpenSession => match text(result, &["sessionId"]) {
                Some(session) => {
                    self.session = Some(session.to_owned());
                    self.send_prompt()
                }
                None => self.fail("the response to session/new has no sessionId".to_owned()),
            },
            Step::LoadSession => self.send_prompt(),
            Step::Prompt => self.ended(result),
            Step::Ended => Vec::new(),
        }
    }

    fn initialized(&mut self, result: &Value) -> Vec<Action> {
        let version = result.get("protocolVersion").and_then(Value::as_u64);
        if version != Some(PROTOCOL) {
            let found = version.map_or("none".to_owned(), |version| version.to_string());
            return self.fail(format!("unsupported protocol version {found}: expected {PROTOCOL}"));
        }
        let can_load = result.pointer("/agentCapabilities/loadSession") == Some(&Value::Bool(true));
        match self.session.clone().filter(|_| can_load) {
            Some(session) => {
                let directory = self.directory.to_string_lossy();
                let parameters = json!({ "sessionId": session, "cwd": directory, "mcpServers": [] });
                vec![self.request(Step::LoadSession, "session/load", &parameters)]
            }
            None => vec![self.open_session()],
        }
    }

    fn open_session(&mut self) -> Action {
        let parameters = json!({ "cwd": self.directory.to_string_lossy(), "mcpServers": [] });
        self.request(Step::OpenSession, "session/new", &parameters)
    }

    fn send_prompt(&mut self) -> Vec<Action> {
        let session = self.session.clone().unwrap_or_default();
        let prompt = json!([{ "type": "text", "text": self.prompt }]);
        let parameters = json!({ "sessionId": session, "prompt": prompt });
        let prompt = self.request(Step::Prompt, "session/prompt", &parameters);
        vec![Action::Event(AgentEvent::Started(session)), prompt]
    }

    fn ended(&mut self, result: &Value) -> Vec<Action> {
        self.step = Step::Ended;
        let mut actions = Vec::new();
        if let Some(usage) = result.get("usage").filter(|usage| usage.is_object()) {
            let cached_tokens = count(usage, &["cachedReadTokens"]);
            let written = count(usage, &["cachedWriteTokens"]);
            let read = count(usage, &["inputTokens"]).saturating_add(cached_tokens).saturating_add(written);
            let output_tokens = count(usage, &["outputTokens"]);
            let usage = AgentEvent::Usage { input_tokens: read, cached_tokens, output_tokens, cost: None };
            actions.push(Action::Event(usage));
        }
        actions.push(match text(result, &["stopReason"]) {
            Some("end_turn") => Action::Succeed,
            Some(reason) => Action::Fail(format!("the turn ended with {reason}")),
            None => Action::Fail("the response to session/prompt has no stopReason".to_owned()),
        });
        actions
    }

    fn update(&self, message: &Value) -> Vec<Action> {
        // A session that is loaded repeats its earlier turns.
        let is_own = text(message, &["params", "sessionId"]) == self.session.as_deref();
        if self.step != Step::Prompt || !is_own {
            return Vec::new();
        }
        let Some(update) = message.pointer("/params/update") else { return Vec::new() };
        let content = || text(update, &["content", "text"]).map(|text| text.to_owned().into());
        match text(update, &["sessionUpdate"]) {
            Some("agent_message_chunk") => event(content().map(AgentEvent::Message)),
            Some("agent_thought_chunk") => event(content().map(AgentEvent::Reasoning)),
            Some("tool_call") => {
                let name = text(update, &["kind"]).unwrap_or("tool").to_owned();
                let target = shortened(text(update, &["title"]).unwrap_or_default());
                let mut actions = event(Some(AgentEvent::ToolCall { name, target }));
                actions.extend(touched(update));
                actions
            }
            Some("tool_call_update") => touched(update),
            _ => Vec::new(),
        }
    }

    /// Answers a request for permission: with an option that allows it once if every path that it
    /// names is one that the agent may change.
    fn permission(&self, id: &Value, message: &Value) -> Vec<Action> {
        let call = message.pointer("/params/toolCall").unwrap_or(&Value::Null);
        let paths = paths_of(call);
        let refused = self.policy.refused(&paths);
        let kinds =
            if refused.is_none() { ["allow_once", "allow_always"] } else { ["reject_once", "reject_always"] };
        let options = message.pointer("/params/options").and_then(Value::as_array);
        let options: Vec<&Value> = options.into_iter().flatten().collect();
        let option = kinds.iter().find_map(|kind| {
            let option = options.iter().find(|option| text(option, &["kind"]) == Some(kind));
            text(option?, &["optionId"])
        });
        let outcome = match option {
            Some(option) => json!({ "outcome": "selected", "optionId": option }),
            None => json!({ "outcome": "cancelled" }),
        };
        let mut actions = Vec::new();
        if let Some(path) = refused {
            let remark = format!("permission refused: {} is outside of the copy\n", path.display());
            actions.push(Action::Event(AgentEvent::Message(remark.into())));
        }
        actions.push(Action::Send(json!({ "jsonrpc": "2.0", "id": id, "result": { "outcome": outcome } })));
        actions
    }
}

fn event(event: Option<AgentEvent>) -> Vec<Action> {
    event.map(Action::Event).into_iter().collect()
}

/// Returns the files that a tool call changes.
fn touched(update: &Value) -> Vec<Action> {
    let is_change = ["edit", "delete", "move"].iter().any(|kind| text(update, &["kind"]) == Some(kind));
    let diffs = update.get("content").and_then(Value::as_array).into_iter().flatten();
    let diffs = diffs.filter(|part| text(part, &["type"]) == Some("diff"));
    let mut paths: Vec<PathBuf> = diffs.filter_map(|diff| text(diff, &["path"])).map(PathBuf::from).collect();
    if is_change && paths.is_empty() {
        paths = paths_of(update);
    }
    paths.dedup();
    paths.into_iter().map(|path| Action::Event(AgentEvent::FileTouched(path))).collect()
}

/// Describes an error of JSON-RPC, with its details.
fn describe(error: &Value) -> String {
    let message = text(error, &["message"]).unwrap_or("it reported an error");
    match error.get("data") {
        None | Some(Value::Null) => message.to_owned(),
        Some(Value::String(details)) => format!("{message}: {details}"),
        Some(details) => format!("{message}: {details}"),
    }
}
