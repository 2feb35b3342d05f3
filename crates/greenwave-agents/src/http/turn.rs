//! Reads one streamed response of a model server.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use greenwave_streaming::{
    BufferedSplitter, CHUNK_BYTES_MAX, FinishReason, ModelDecoder, ModelEvent, ModelProtocol, ModelUsage,
    Sse, UnitBatch,
};

use super::conversation::ToolCall;
use super::failure::Failures;
use super::reply::Reply;
use crate::Error;

/// Maximum number of tool calls in one response.
const CALLS_MAX: usize = 256;
/// Time that the answer waits for the end of a response after its last event.
const END_WAIT_MAX: Duration = Duration::from_millis(20);
/// Time that a response has to end, so that its connection can be used again.
const END_MAX: Duration = Duration::from_secs(1);
/// Maximum size of the arguments of all of them, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 16 << 20;

/// A piece of a response that can be handed on.
#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    Reasoning(String),
}

/// A response that is being read. Dropping it closes the connection.
pub(super) struct Turn {
    reply: Reply,
    splitter: BufferedSplitter<Sse>,
    decoder: ModelDecoder,
    failures: Failures,
    arguments_bytes: usize,
    /// Empty between calls.
    events: Vec<ModelEvent>,
    pub(super) calls: Vec<ToolCall>,
    /// The usage that was reported up to now.
    pub(super) usage: Option<ModelUsage>,
    pub(super) finish: Option<FinishReason>,
}

impl Turn {
    /// Begins to read a response.
    ///
    /// # Errors
    /// [`Error::InvalidAnswer`] if it is not a stream of events.
    pub(super) async fn new(
        reply: Reply,
        protocol: ModelProtocol,
        failures: Failures,
    ) -> Result<Self, Error> {
        Ok(Self {
            reply: failures.of_content_type(reply).await?,
            splitter: BufferedSplitter::new(Sse::default()),
            decoder: ModelDecoder::new(protocol),
            failures,
            arguments_bytes: 0,
            events: Vec::new(),
            calls: Vec::new(),
            usage: None,
            finish: None,
        })
    }

    /// Returns whether the response is complete.
    pub(super) fn has_ended(&self) -> bool {
        self.decoder.has_ended()
    }

    /// Reads the next chunk, and appends its pieces.
    pub(super) async fn read(&mut self, pieces: &mut VecDeque<Piece>) -> Result<(), Error> {
        match self.reply.chunk().await {
            Ok(Some(chunk)) => self.feed(chunk, pieces),
            Ok(None) => self.decoder.finish().map_err(|error| self.failures.of_stream(&error)),
            Err(error) => Err(self.failures.of_body(&error)),
        }
    }

    /// Ends the response after its last event. Servers send the end of the body separately, and a
    /// connection whose response was not read to its end is closed.
    pub(super) async fn release(self) {
        let mut reply = self.reply;
        if tokio::time::timeout(END_WAIT_MAX, drain(&mut reply)).await.is_err() {
            tokio::spawn(async move { tokio::time::timeout(END_MAX, drain(&mut reply)).await });
        }
    }

    fn feed(&mut self, mut chunk: Bytes, pieces: &mut VecDeque<Piece>) -> Result<(), Error> {
        while !chunk.is_empty() {
            let part = chunk.split_to(chunk.len().min(CHUNK_BYTES_MAX));
            let batch = self.splitter.feed(part).map_err(|error| self.failures.of_bytes(&error))?;
            let mut events = std::mem::take(&mut self.events);
            for unit in batch.iter().flat_map(UnitBatch::iter) {
                let decoded = self.decoder.decode_into(&unit.content(), &mut events);
                decoded.map_err(|error| self.failures.of_stream(&error))?;
                for event in events.drain(..) {
                    self.take(event, pieces)?;
                }
            }
            self.events = events;
        }
        Ok(())
    }

    fn take(&mut self, event: ModelEvent, pieces: &mut VecDeque<Piece>) -> Result<(), Error> {
        match event {
            ModelEvent::Text(text) => {
                let text = self.failures.masked(text);
                match pieces.back_mut() {
                    Some(Piece::Text(last)) => last.push_str(&text),
                    _ => pieces.push_back(Piece::Text(text)),
                }
            }
            ModelEvent::Reasoning(text) => {
                let text = self.failures.masked(text);
                match pieces.back_mut() {
                    Some(Piece::Reasoning(last)) => last.push_str(&text),
                    _ => pieces.push_back(Piece::Reasoning(text)),
                }
            }
            ModelEvent::Usage(usage) => self.usage = Some(usage),
            ModelEvent::Finished(reason) => self.finish = Some(reason),
            ModelEvent::ToolCall { id, name, .. } => {
                // Some servers send no ids, and results refer to them.
                let id = if id.is_empty() { format!("call_{}", self.calls.len()) } else { id };
                self.calls.push(ToolCall { id, name, arguments: String::new() });
            }
            ModelEvent::ToolArguments { index, json } => {
                self.arguments_bytes = self.arguments_bytes.saturating_add(json.len());
                if let Some(call) = self.calls.get_mut(index) {
                    call.arguments.push_str(&json);
                }
            }
            _ => {}
        }
        if self.calls.len() > CALLS_MAX || self.arguments_bytes > ARGUMENTS_BYTES_MAX {
            return Err(self.failures.of_size("the tool calls of the response are too many or too long"));
        }
        Ok(())
    }
}

/// Reads a response to its end. Cancel safe.
async fn drain(reply: &mut Reply) {
    while matches!(reply.chunk().await, Ok(Some(_))) {}
}
