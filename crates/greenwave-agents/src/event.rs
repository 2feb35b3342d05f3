//! What an answer consists of: events, ended by a word that it is complete. Knows of no particular agent.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use crate::Error;

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentEvent {
    /// The next bytes of the answer's text, cut wherever the transport cut them.
    Text(Bytes),
    /// What the answer has cost so far, by the agent's own account.
    Usage {
        /// Tokens of the question.
        input_tokens: u64,
        /// Tokens of the answer.
        output_tokens: u64,
    },
    /// The answer is whole. Nothing follows. A stream that ends without it has broken off.
    End,
}

/// An answer on its way: a stream of events.
///
/// Dropping it ends the work on it.
pub struct ResponseStream {
    events: Pin<Box<dyn Stream<Item = Result<AgentEvent, Error>> + Send>>,
}

impl ResponseStream {
    /// An answer from its events, for authors of backends.
    pub fn new(events: impl Stream<Item = Result<AgentEvent, Error>> + Send + 'static) -> Self {
        Self { events: Box::pin(events) }
    }

    /// The answer's text alone, as a stream that ends well only if the answer was whole.
    pub fn into_text(self) -> TextStream {
        TextStream { events: self.events, bytes: 0, ended: false }
    }
}

impl Stream for ResponseStream {
    type Item = Result<AgentEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(context)
    }
}

impl fmt::Debug for ResponseStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ResponseStream").finish_non_exhaustive()
    }
}

/// The text of an [`ResponseStream`], chunk by chunk; [`Error::BrokeOff`] where the answer stops without an end.
pub struct TextStream {
    events: Pin<Box<dyn Stream<Item = Result<AgentEvent, Error>> + Send>>,
    bytes: u64,
    ended: bool,
}

impl Stream for TextStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            match ready!(self.events.as_mut().poll_next(context)) {
                Some(Ok(AgentEvent::Text(text))) => {
                    self.bytes += text.len() as u64;
                    return Poll::Ready(Some(Ok(text)));
                }
                Some(Ok(AgentEvent::End)) => self.ended = true,
                Some(Ok(AgentEvent::Usage { .. })) => {}
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(Error::BrokeOff { bytes: self.bytes })));
                }
            }
        }
        Poll::Ready(None)
    }
}

impl fmt::Debug for TextStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TextStream").field("bytes", &self.bytes).field("ended", &self.ended).finish()
    }
}
