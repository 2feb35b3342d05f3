//! Decodes messages of Anthropic.

use serde::Deserialize;

use super::chat::provider_error;
use super::error::{ModelStreamError, parse};
use super::event::{FinishReason, ModelEvent, ModelUsage};
use super::tool_calls::ToolCalls;

#[derive(Debug, Default)]
pub(super) struct Messages {
    calls: ToolCalls,
    usage: ModelUsage,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum MessagesEvent {
    MessageStart {
        message: Message,
    },
    ContentBlockStart {
        index: u64,
        content_block: Block,
    },
    ContentBlockDelta {
        index: u64,
        delta: Delta,
    },
    MessageDelta {
        delta: End,
        #[serde(default)]
        usage: Option<Usage>,
    },
    MessageStop,
    Error {
        error: serde_json::Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    id: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        #[serde(default)]
        text: String,
    },
    Thinking {
        #[serde(default)]
        thinking: String,
    },
    ToolUse {
        #[serde(default)]
        id: String,
        name: String,
        #[serde(default)]
        input: serde_json::Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the names of the protocol")]
enum Delta {
    TextDelta {
        text: String,
    },
    ThinkingDelta {
        thinking: String,
    },
    InputJsonDelta {
        partial_json: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct End {
    #[serde(default)]
    stop_reason: Option<String>,
}

/// Figures are totals of the message. A later event repeats only some of them.
#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
}

impl Messages {
    pub(super) fn decode(
        &mut self,
        data: &[u8],
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelStreamError> {
        let event: MessagesEvent = parse(data)?;
        match event {
            MessagesEvent::MessageStart { message } => {
                events.push(ModelEvent::Started { id: message.id, model: message.model });
                events.extend(message.usage.map(|usage| self.usage(&usage)));
            }
            MessagesEvent::ContentBlockStart { index, content_block } => {
                self.begin(index, content_block, events);
            }
            MessagesEvent::ContentBlockDelta { index, delta } => self.push(index, delta, events),
            MessagesEvent::MessageDelta { delta, usage } => {
                events.extend(usage.map(|usage| self.usage(&usage)));
                events.extend(delta.stop_reason.map(|reason| ModelEvent::Finished(finish_reason(reason))));
            }
            MessagesEvent::MessageStop => events.push(ModelEvent::End),
            MessagesEvent::Error { error } => return Err(provider_error(&error)),
            MessagesEvent::Other => {}
        }
        Ok(())
    }

    fn usage(&mut self, usage: &Usage) -> ModelEvent {
        if let Some(input) = usage.input_tokens {
            let cached = usage.cache_read_input_tokens.unwrap_or(0);
            let created = usage.cache_creation_input_tokens.unwrap_or(0);
            self.usage.cached_tokens = cached;
            self.usage.input_tokens = input.saturating_add(cached).saturating_add(created);
        }
        self.usage.output_tokens = usage.output_tokens.unwrap_or(self.usage.output_tokens);
        ModelEvent::Usage(self.usage)
    }

    fn begin(&mut self, index: u64, block: Block, events: &mut Vec<ModelEvent>) {
        match block {
            Block::Text { text } if !text.is_empty() => events.push(ModelEvent::Text(text)),
            Block::Thinking { thinking } if !thinking.is_empty() => {
                events.push(ModelEvent::Reasoning(thinking));
            }
            Block::ToolUse { id, name, input } => {
                let call = self.calls.begin(&index.to_string(), id, name, events);
                // The protocol sends an empty object here, and the input in deltas.
                if input.as_object().is_some_and(|input| !input.is_empty()) {
                    self.calls.push(call, input.to_string(), events);
                }
            }
            _ => {}
        }
    }

    fn push(&mut self, index: u64, delta: Delta, events: &mut Vec<ModelEvent>) {
        match delta {
            Delta::TextDelta { text } if !text.is_empty() => events.push(ModelEvent::Text(text)),
            Delta::ThinkingDelta { thinking } if !thinking.is_empty() => {
                events.push(ModelEvent::Reasoning(thinking));
            }
            Delta::InputJsonDelta { partial_json } => {
                // Blocks of tools that the server runs itself have such deltas, too.
                if let Some(call) = self.calls.find(&index.to_string()) {
                    self.calls.push(call, partial_json, events);
                }
            }
            _ => {}
        }
    }
}

fn finish_reason(reason: String) -> FinishReason {
    match reason.as_str() {
        "end_turn" | "stop_sequence" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::Refused,
        _ => FinishReason::Other(reason),
    }
}
