//! Decodes the streams of model servers into typed events.

mod chat;
mod error;
mod event;
mod gemini;
mod messages;
mod responses;
mod text;
mod tool_calls;

use crate::unit::Unit;
pub use error::ModelStreamError;
pub use event::{FinishReason, ModelEvent, ModelUsage};

/// Format of the server-sent events of a model server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelProtocol {
    /// Chat completions of OpenAI
    /// (<https://platform.openai.com/docs/api-reference/chat-streaming>), which most model servers
    /// offer. Only the first choice is decoded.
    OpenAiChat,
    /// Responses of OpenAI (<https://platform.openai.com/docs/api-reference/responses-streaming>).
    OpenAiResponses,
    /// Messages of Anthropic (<https://docs.anthropic.com/en/docs/build-with-claude/streaming>).
    AnthropicMessages,
    /// `streamGenerateContent` of Gemini with `alt=sse`
    /// (<https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent>).
    Gemini,
}

/// Decodes one response of a model server.
///
/// Takes the events that the splitter [`Sse`](crate::Sse) finds, and returns the deltas that they
/// contain. Kinds of events that the decoder does not know are skipped, as the protocols require.
/// Memory is bounded by one event and the number of tool calls.
///
/// ```
/// use greenwave_streaming::{BufferedSplitter, ModelDecoder, ModelEvent, ModelProtocol, Sse};
///
/// let mut splitter = BufferedSplitter::new(Sse::default());
/// let mut decoder = ModelDecoder::new(ModelProtocol::OpenAiChat);
/// let mut text = String::new();
/// for chunk in [
///     "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\nda",
///     "ta: {\"choices\":[{\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}]}\n\n",
///     "data: [DONE]\n\n",
/// ] {
///     for unit in splitter.feed_slice(chunk.as_bytes())?.iter().flat_map(|batch| batch.iter()) {
///         for event in decoder.decode_unit(&unit)? {
///             if let ModelEvent::Text(delta) = event {
///                 text.push_str(&delta);
///             }
///         }
///     }
/// }
/// assert_eq!(text, "Hello");
/// decoder.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ModelDecoder {
    state: ProtocolDecoder,
    has_ended: bool,
}

#[derive(Debug)]
enum ProtocolDecoder {
    Chat(chat::Chat),
    Responses(responses::Responses),
    Messages(messages::Messages),
    Gemini(gemini::Gemini),
}

impl ModelDecoder {
    /// Creates a decoder for one response.
    #[must_use]
    pub fn new(protocol: ModelProtocol) -> Self {
        let state = match protocol {
            ModelProtocol::OpenAiChat => ProtocolDecoder::Chat(chat::Chat::default()),
            ModelProtocol::OpenAiResponses => ProtocolDecoder::Responses(responses::Responses::default()),
            ModelProtocol::AnthropicMessages => ProtocolDecoder::Messages(messages::Messages::default()),
            ModelProtocol::Gemini => ProtocolDecoder::Gemini(gemini::Gemini::default()),
        };
        Self { state, has_ended: false }
    }

    /// Decodes the data of one server-sent event. The events of a response are passed in order.
    /// Events after the last one of the protocol are skipped.
    ///
    /// # Errors
    /// [`ModelStreamError::Malformed`] if the data is not what the protocol defines, and
    /// [`ModelStreamError::Provider`] if the server reports an error. Both end the response.
    pub fn decode(&mut self, data: &[u8]) -> Result<Vec<ModelEvent>, ModelStreamError> {
        let mut events = Vec::new();
        self.decode_into(data, &mut events)?;
        Ok(events)
    }

    /// Decodes like [`decode`](Self::decode), and appends the deltas to `events`, whose memory can
    /// be used again for the next event.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn decode_into(&mut self, data: &[u8], events: &mut Vec<ModelEvent>) -> Result<(), ModelStreamError> {
        if self.has_ended {
            return Ok(());
        }
        let before = events.len();
        match &mut self.state {
            ProtocolDecoder::Chat(state) => state.decode(data, events)?,
            ProtocolDecoder::Responses(state) => state.decode(data, events)?,
            ProtocolDecoder::Messages(state) => state.decode(data, events)?,
            ProtocolDecoder::Gemini(state) => state.decode(data, events)?,
        }
        self.has_ended = events.len() > before && events.last() == Some(&ModelEvent::End);
        Ok(())
    }

    /// Decodes a unit of the splitter [`Sse`](crate::Sse).
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn decode_unit(&mut self, unit: &Unit<'_>) -> Result<Vec<ModelEvent>, ModelStreamError> {
        self.decode(&unit.content())
    }

    /// Returns whether the last event of the protocol was decoded.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Checks at the end of the stream that the response is complete.
    ///
    /// # Errors
    /// [`ModelStreamError::Truncated`] if the last event of the protocol is missing.
    pub fn finish(&self) -> Result<(), ModelStreamError> {
        if self.has_ended { Ok(()) } else { Err(ModelStreamError::Truncated) }
    }
}
