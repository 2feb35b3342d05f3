//! Decodes chat completions of OpenAI and of servers that imitate them.

use serde::Deserialize;

use super::error::{ModelStreamError, parse};
use super::event::{FinishReason, ModelEvent, ModelUsage};
use super::tool_calls::ToolCalls;

/// Data of the last event.
const DONE: &[u8] = b"[DONE]";

#[derive(Debug, Default)]
pub(super) struct Chat {
    has_started: bool,
    calls: ToolCalls,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    /// Name of vLLM, DeepSeek and llama.cpp.
    #[serde(default)]
    reasoning_content: Option<String>,
    /// Name of OpenRouter and Ollama.
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize)]
struct ToolCall {
    #[serde(default)]
    index: Option<u64>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<Function>,
}

#[derive(Deserialize, Default)]
struct Function {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

impl Chat {
    pub(super) fn decode(
        &mut self,
        data: &[u8],
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelStreamError> {
        if data.trim_ascii() == DONE {
            events.push(ModelEvent::End);
            return Ok(());
        }
        let chunk: Chunk = parse(data)?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(provider_error(&error));
        }
        if !self.has_started {
            self.has_started = true;
            let (id, model) = (chunk.id.unwrap_or_default(), chunk.model.unwrap_or_default());
            events.push(ModelEvent::Started { id, model });
        }
        let choices = chunk.choices.unwrap_or_default();
        for choice in choices.into_iter().filter(|choice| choice.index == 0) {
            self.push(choice.delta.unwrap_or_default(), events);
            events.extend(choice.finish_reason.map(|reason| ModelEvent::Finished(finish_reason(reason))));
        }
        events.extend(chunk.usage.map(|usage| {
            let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
            ModelEvent::Usage(ModelUsage {
                input_tokens: usage.prompt_tokens,
                cached_tokens: cached.unwrap_or(0),
                output_tokens: usage.completion_tokens,
            })
        }));
        Ok(())
    }

    fn push(&mut self, delta: Delta, events: &mut Vec<ModelEvent>) {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let reasoning = filled(delta.reasoning_content).or_else(|| filled(delta.reasoning));
        events.extend(reasoning.map(ModelEvent::Reasoning));
        events.extend(filled(delta.content).map(ModelEvent::Text));
        events.extend(filled(delta.refusal).map(ModelEvent::Text));
        for call in delta.tool_calls.into_iter().flatten() {
            let function = call.function.unwrap_or_default();
            let known = match (call.index, &call.id) {
                (Some(index), _) => self.calls.find(&index.to_string()),
                // Some servers send no index. A piece without an id belongs to the newest call.
                (None, Some(id)) => self.calls.find(id),
                (None, None) => self.calls.last(),
            };
            let index = known.unwrap_or_else(|| {
                let id = call.id.unwrap_or_default();
                let key = call.index.map_or_else(|| id.clone(), |index| index.to_string());
                self.calls.begin(&key, id, function.name.unwrap_or_default(), events)
            });
            self.calls.push(index, function.arguments.unwrap_or_default(), events);
        }
    }
}

/// Returns an error from its JSON value: an object with a message, or the message itself.
pub(super) fn provider_error(error: &serde_json::Value) -> ModelStreamError {
    let text = |key: &str| match error.get(key) {
        Some(serde_json::Value::String(text)) => Some(text.clone()),
        Some(serde_json::Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let kinds = [text("type"), text("status"), text("code")].into_iter().flatten();
    let kind = kinds.collect::<Vec<_>>().join(", ");
    let message = text("message").unwrap_or_else(|| match error.as_str() {
        Some(message) => message.to_owned(),
        None => error.to_string(),
    });
    ModelStreamError::Provider { kind, message }
}

fn finish_reason(reason: String) -> FinishReason {
    match reason.as_str() {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::Refused,
        _ => FinishReason::Other(reason),
    }
}
