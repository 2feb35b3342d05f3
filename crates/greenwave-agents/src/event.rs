//! Defines the response stream and its events.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitStatus;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

use crate::{Error, callback};

/// An event of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentEvent {
    /// The agent has begun to work, in a session with this id.
    Started(String),
    /// The next bytes of the answer, in chunks of any size.
    Text(Bytes),
    /// The next bytes of the agent's remarks on its work, in chunks of any size. They are not part
    /// of the answer.
    Message(Bytes),
    /// The next bytes of the model's reasoning, in chunks of any size.
    Reasoning(Bytes),
    /// The agent uses a tool.
    ToolCall {
        /// Name of the tool, as the agent spells it.
        name: String,
        /// The file, command or query that the call is about, on one line, possibly cut off, or
        /// nothing.
        target: String,
    },
    /// The agent has changed a file, or is about to.
    FileTouched(PathBuf),
    /// Totals of the response up to now, as reported by the agent.
    Usage {
        /// Tokens that the model has read, including cached ones.
        input_tokens: u64,
        /// Those of them that came from the provider's cache.
        cached_tokens: u64,
        /// Tokens that the model has written, including those of its reasoning.
        output_tokens: u64,
        /// Cost in millionths of a US dollar, if the agent reports it.
        cost: Option<u64>,
    },
    /// The provider limits requests or is overloaded, and the agent itself sends the request again.
    RateLimited {
        /// Time until then, if the agent reports it.
        retry_after: Option<Duration>,
    },
    /// The next bytes that the agent's program wrote to standard error, in chunks of any size.
    Stderr(Bytes),
    /// The agent's program exited. The end of the response, or an error, follows.
    Exit(ExitStatus),
    /// The response is complete, and no event follows. A stream that ends without this event has
    /// broken off.
    End,
}

type BoxedEvents = Pin<Box<dyn Stream<Item = Result<AgentEvent, Error>> + Send>>;

/// A response as a stream of events.
///
/// Dropping it stops the work on the response. If the agent's code panics, the stream fails with
/// [`Error::Panicked`] and ends.
pub struct ResponseStream {
    /// `None` after a panic.
    events: Option<BoxedEvents>,
}

impl ResponseStream {
    /// Creates a response from its events, for implementations of [`Session`](crate::Session).
    pub fn new(events: impl Stream<Item = Result<AgentEvent, Error>> + Send + 'static) -> Self {
        Self { events: Some(Box::pin(events)) }
    }

    /// Returns the text as a stream of chunks. The stream fails with [`Error::BrokeOff`] if the
    /// response is incomplete.
    pub fn into_text(self) -> TextStream {
        TextStream { events: self, bytes: 0, ended: false }
    }
}

impl Stream for ResponseStream {
    type Item = Result<AgentEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(events) = &mut self.events else { return Poll::Ready(None) };
        callback::call("poll_next", || events.as_mut().poll_next(context)).unwrap_or_else(|error| {
            let panicked = self.events.take();
            // A second panic has nothing to add.
            let _ = callback::call("drop", || drop(panicked));
            Poll::Ready(Some(Err(error)))
        })
    }
}

impl fmt::Debug for ResponseStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ResponseStream").finish_non_exhaustive()
    }
}

/// The text of a [`ResponseStream`], chunk by chunk. Fails with [`Error::BrokeOff`] if the response
/// ends without [`AgentEvent::End`].
pub struct TextStream {
    events: ResponseStream,
    bytes: u64,
    ended: bool,
}

impl Stream for TextStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            match ready!(Pin::new(&mut self.events).poll_next(context)) {
                Some(Ok(AgentEvent::Text(text))) => {
                    self.bytes += text.len() as u64;
                    return Poll::Ready(Some(Ok(text)));
                }
                Some(Ok(AgentEvent::End)) => self.ended = true,
                Some(Ok(_)) => {}
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
