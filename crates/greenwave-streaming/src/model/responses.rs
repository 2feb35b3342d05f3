//! Decodes responses of OpenAI.

use serde::Deserialize;

use super::chat::provider_error;
use super::error::{ModelStreamError, parse};
use super::event::{FinishReason, ModelEvent, ModelUsage};
use super::tool_calls::ToolCalls;

#[derive(Debug, Default)]
pub(super) struct Responses {
    calls: ToolCalls,
    has_started: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum ResponsesEvent {
    #[serde(rename = "response.created")]
    Created { response: Response },
    #[serde(rename = "response.output_item.added")]
    ItemAdded { output_index: u64, item: Item },
    #[serde(rename = "response.output_item.done")]
    ItemDone { output_index: u64, item: Item },
    #[serde(rename = "response.output_text.delta", alias = "response.refusal.delta")]
    Text { delta: String },
    #[serde(rename = "response.reasoning_summary_text.delta", alias = "response.reasoning_text.delta")]
    Reasoning { delta: String },
    #[serde(rename = "response.function_call_arguments.delta")]
    Arguments { output_index: u64, delta: String },
    #[serde(rename = "response.completed", alias = "response.incomplete")]
    Completed { response: Response },
    #[serde(rename = "response.failed")]
    Failed { response: Response },
    #[serde(rename = "error")]
    Error {
        /// Some versions put the parts of the error beside the type.
        #[serde(default)]
        error: Option<serde_json::Value>,
        #[serde(flatten)]
        rest: serde_json::Map<String, serde_json::Value>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Response {
    id: String,
    model: String,
    incomplete_details: Option<Incomplete>,
    error: Option<serde_json::Value>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Incomplete {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Item {
    FunctionCall {
        #[serde(default)]
        call_id: String,
        #[serde(default)]
        name: String,
        #[serde(default)]
        arguments: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    input_tokens_details: Option<InputDetails>,
    #[serde(default)]
    output_tokens: u64,
}

#[derive(Deserialize)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: u64,
}

impl Responses {
    pub(super) fn decode(
        &mut self,
        data: &[u8],
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelStreamError> {
        let event: ResponsesEvent = parse(data)?;
        match event {
            ResponsesEvent::Created { response } => self.start(&response, events),
            ResponsesEvent::ItemAdded { output_index, item } => self.item(output_index, item, false, events),
            ResponsesEvent::ItemDone { output_index, item } => self.item(output_index, item, true, events),
            ResponsesEvent::Text { delta } if !delta.is_empty() => events.push(ModelEvent::Text(delta)),
            ResponsesEvent::Reasoning { delta } if !delta.is_empty() => {
                events.push(ModelEvent::Reasoning(delta));
            }
            ResponsesEvent::Arguments { output_index, delta } => {
                if let Some(call) = self.calls.find(&output_index.to_string()) {
                    self.calls.push(call, delta, events);
                }
            }
            ResponsesEvent::Completed { response } => {
                self.start(&response, events);
                self.end(response, events);
            }
            ResponsesEvent::Failed { response } => {
                return Err(provider_error(&response.error.unwrap_or_default()));
            }
            ResponsesEvent::Error { error, rest } => {
                let error = error.filter(serde_json::Value::is_object);
                return Err(provider_error(&error.unwrap_or(serde_json::Value::Object(rest))));
            }
            ResponsesEvent::Text { .. } | ResponsesEvent::Reasoning { .. } | ResponsesEvent::Other => {}
        }
        Ok(())
    }

    fn start(&mut self, response: &Response, events: &mut Vec<ModelEvent>) {
        if !self.has_started {
            self.has_started = true;
            let (id, model) = (response.id.clone(), response.model.clone());
            events.push(ModelEvent::Started { id, model });
        }
    }

    /// Begins a tool call, and takes its arguments once they are complete.
    fn item(&mut self, output_index: u64, item: Item, is_done: bool, events: &mut Vec<ModelEvent>) {
        let Item::FunctionCall { call_id, name, arguments } = item else { return };
        let key = output_index.to_string();
        let known = self.calls.find(&key);
        let call = known.unwrap_or_else(|| self.calls.begin(&key, call_id, name, events));
        if is_done {
            self.calls.complete(call, arguments, events);
        }
    }

    fn end(&mut self, response: Response, events: &mut Vec<ModelEvent>) {
        events.extend(response.usage.map(|usage| {
            ModelEvent::Usage(ModelUsage {
                input_tokens: usage.input_tokens,
                cached_tokens: usage.input_tokens_details.map_or(0, |details| details.cached_tokens),
                output_tokens: usage.output_tokens,
            })
        }));
        let reason = match response.incomplete_details {
            None if self.calls.is_empty() => FinishReason::Stop,
            None => FinishReason::ToolCalls,
            Some(Incomplete { reason }) => match reason.as_str() {
                "max_output_tokens" => FinishReason::Length,
                "content_filter" => FinishReason::Refused,
                _ => FinishReason::Other(reason),
            },
        };
        events.extend([ModelEvent::Finished(reason), ModelEvent::End]);
    }
}
