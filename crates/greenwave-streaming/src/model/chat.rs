//! Decodes chat completions of OpenAI and of servers that imitate them.

use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::{ModelStreamError, parse};
use super::event::{FinishReason, ModelEvent, ModelUsage};
use super::text::Text;
use super::tool_calls::ToolCalls;

/// Data of the last event.
const DONE: &[u8] = b"[DONE]";

#[derive(Debug, Default)]
pub(super) struct Chat {
    has_started: bool,
    calls: ToolCalls,
}

/// `N` is the type of names that all chunks repeat.
#[derive(Deserialize)]
struct Chunk<'d, N> {
    #[serde(default = "Option::default")]
    id: Option<N>,
    #[serde(default = "Option::default")]
    model: Option<N>,
    #[serde(borrow, default)]
    choices: Option<Choices<'d>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

/// The first choice of a chunk. The others are checked and left out.
#[derive(Default)]
struct Choices<'d> {
    first: Option<Choice<'d>>,
}

impl<'de: 'd, 'd> Deserialize<'de> for Choices<'d> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ChoicesVisitor)
    }
}

struct ChoicesVisitor;

impl<'d> Visitor<'d> for ChoicesVisitor {
    type Value = Choices<'d>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of choices")
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut choices: A) -> Result<Choices<'d>, A::Error> {
        let mut first = None;
        while let Some(choice) = choices.next_element::<Choice<'d>>()? {
            if choice.index == 0 && first.is_none() {
                first = Some(choice);
            }
        }
        Ok(Choices { first })
    }
}

#[derive(Deserialize)]
struct Choice<'d> {
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    delta: Option<Delta<'d>>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'d>>,
}

#[derive(Deserialize, Default)]
struct Delta<'d> {
    #[serde(borrow, default)]
    content: Option<Text<'d>>,
    #[serde(borrow, default)]
    refusal: Option<Text<'d>>,
    /// Name of vLLM, DeepSeek and llama.cpp.
    #[serde(borrow, default)]
    reasoning_content: Option<Text<'d>>,
    /// Name of OpenRouter and Ollama.
    #[serde(borrow, default)]
    reasoning: Option<Text<'d>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCall<'d>>>,
}

#[derive(Deserialize)]
struct ToolCall<'d> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    id: Option<Text<'d>>,
    #[serde(borrow, default)]
    function: Option<Function<'d>>,
}

#[derive(Deserialize, Default)]
struct Function<'d> {
    #[serde(borrow, default)]
    name: Option<Text<'d>>,
    #[serde(borrow, default)]
    arguments: Option<Text<'d>>,
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
        if self.has_started {
            return self.take(parse::<Chunk<'_, IgnoredAny>>(data)?, events);
        }
        let mut chunk: Chunk<'_, Text<'_>> = parse(data)?;
        if chunk.error.as_ref().is_none_or(serde_json::Value::is_null) {
            self.has_started = true;
            let (id, model) = (owned(chunk.id.take()), owned(chunk.model.take()));
            events.push(ModelEvent::Started { id, model });
        }
        self.take(chunk, events)
    }

    fn take<N>(&mut self, chunk: Chunk<'_, N>, events: &mut Vec<ModelEvent>) -> Result<(), ModelStreamError> {
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(provider_error(&error));
        }
        if let Some(choice) = chunk.choices.unwrap_or_default().first {
            self.push(choice.delta.unwrap_or_default(), events);
            events.extend(
                choice.finish_reason.map(|reason| ModelEvent::Finished(finish_reason(reason.into_owned()))),
            );
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

    fn push(&mut self, delta: Delta<'_>, events: &mut Vec<ModelEvent>) {
        fn filled(text: Option<Text<'_>>) -> Option<String> {
            text.filter(|text| !text.is_empty()).map(Text::into_owned)
        }
        let reasoning = filled(delta.reasoning_content).or_else(|| filled(delta.reasoning));
        events.extend(reasoning.map(ModelEvent::Reasoning));
        events.extend(filled(delta.content).map(ModelEvent::Text));
        events.extend(filled(delta.refusal).map(ModelEvent::Text));
        for call in delta.tool_calls.into_iter().flatten() {
            let function = call.function.unwrap_or_default();
            let known = match (call.index, &call.id) {
                (Some(index), _) => self.calls.find(&index.to_string()),
                // Some servers send no index. A piece without an id belongs to the newest call.
                (None, Some(id)) => self.calls.find(&id.0),
                (None, None) => self.calls.last(),
            };
            let index = known.unwrap_or_else(|| {
                let id = owned(call.id);
                let key = call.index.map_or_else(|| id.clone(), |index| index.to_string());
                self.calls.begin(&key, id, owned(function.name), events)
            });
            self.calls.push(index, owned(function.arguments), events);
        }
    }
}

fn owned(text: Option<Text<'_>>) -> String {
    text.map(Text::into_owned).unwrap_or_default()
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
