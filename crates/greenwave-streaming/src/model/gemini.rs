//! Decodes streamed responses of Gemini.

use serde::Deserialize;

use super::chat::provider_error;
use super::error::{ModelStreamError, parse};
use super::event::{FinishReason, ModelEvent, ModelUsage};
use super::tool_calls::ToolCalls;

#[derive(Debug, Default)]
pub(super) struct Gemini {
    has_started: bool,
    calls: ToolCalls,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk {
    #[serde(default)]
    candidates: Vec<Candidate>,
    #[serde(default)]
    prompt_feedback: Option<Feedback>,
    #[serde(default)]
    usage_metadata: Option<Usage>,
    #[serde(default)]
    model_version: String,
    #[serde(default)]
    response_id: String,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    #[serde(default)]
    index: u64,
    #[serde(default)]
    content: Content,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(default)]
    text: Option<String>,
    /// Whether the text is reasoning.
    #[serde(default)]
    thought: bool,
    #[serde(default)]
    function_call: Option<FunctionCall>,
}

#[derive(Deserialize)]
struct FunctionCall {
    #[serde(default)]
    id: Option<String>,
    name: String,
    #[serde(default)]
    args: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    #[serde(default)]
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Usage {
    prompt_token_count: u64,
    cached_content_token_count: u64,
    candidates_token_count: u64,
    thoughts_token_count: u64,
}

impl Gemini {
    pub(super) fn decode(
        &mut self,
        data: &[u8],
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelStreamError> {
        let chunk: Chunk = parse(data)?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(provider_error(&error));
        }
        if !self.has_started {
            self.has_started = true;
            events.push(ModelEvent::Started { id: chunk.response_id, model: chunk.model_version });
        }
        let mut reason =
            chunk.prompt_feedback.and_then(|feedback| feedback.block_reason).map(|_| FinishReason::Refused);
        for candidate in chunk.candidates.into_iter().filter(|candidate| candidate.index == 0) {
            for part in candidate.content.parts {
                self.push(part, events);
            }
            let finished = candidate.finish_reason.map(|reason| finish_reason(reason, &self.calls));
            reason = finished.or(reason);
        }
        events.extend(chunk.usage_metadata.map(|usage| {
            ModelEvent::Usage(ModelUsage {
                input_tokens: usage.prompt_token_count,
                cached_tokens: usage.cached_content_token_count,
                output_tokens: usage.candidates_token_count.saturating_add(usage.thoughts_token_count),
            })
        }));
        if let Some(reason) = reason {
            events.extend([ModelEvent::Finished(reason), ModelEvent::End]);
        }
        Ok(())
    }

    fn push(&mut self, part: Part, events: &mut Vec<ModelEvent>) {
        if let Some(text) = part.text.filter(|text| !text.is_empty()) {
            events.push(if part.thought { ModelEvent::Reasoning(text) } else { ModelEvent::Text(text) });
        }
        if let Some(call) = part.function_call {
            let id = call.id.unwrap_or_default();
            let index = self.calls.begin("", id, call.name, events);
            let arguments = call.args.map_or_else(|| "{}".to_owned(), |args| args.to_string());
            self.calls.push(index, arguments, events);
        }
    }
}

fn finish_reason(reason: String, calls: &ToolCalls) -> FinishReason {
    match reason.as_str() {
        "STOP" if calls.is_empty() => FinishReason::Stop,
        "STOP" => FinishReason::ToolCalls,
        "MAX_TOKENS" => FinishReason::Length,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "IMAGE_SAFETY" => {
            FinishReason::Refused
        }
        _ => FinishReason::Other(reason),
    }
}
