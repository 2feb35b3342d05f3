//! Defines the `Source` trait: a response that can be reopened when it breaks.

use std::fmt::Debug;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::error::BoxError;

/// The bytes of a response as they arrive.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// A source of responses that can be reopened when a response breaks off.
///
/// # Contract
///
/// - `open` requests the response from `at` on, or from its start if the source cannot resume;
///   [`Opened::strategy`] reports the result. If [`Position::is_start`] holds, the chunks must
///   begin with the first unit, for any strategy.
/// - The chunks are those of one response. An error or an early end breaks it off; a source must
///   not invent bytes to hide that.
/// - Dropping the future of `open`, or the chunks, cancels the attempt and releases its resources.
/// - `open` may be called any number of times, sequentially. Return [`OpenError::Permanent`] if a
///   retry would fail as well, or must not happen because the request had an effect.
/// - The strategy may differ from call to call, for example if a server caches a response for some
///   minutes.
///
/// The suite in `conformance` (feature) checks this. `examples/custom_source.rs` is a template.
#[async_trait]
pub trait Source: Debug + Send + Sync + 'static {
    /// Requests the response from `at` on.
    async fn open(&self, at: &Position) -> Result<Opened, OpenError>;
}

/// The position in a response up to which units were delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Position {
    /// Number of the response, assigned by the reader.
    pub turn: u64,
    /// Number of restarts before this position.
    pub attempt: u32,
    /// Number of units delivered, which is the number of the next unit.
    pub sequence: u64,
    /// Cursor of the last unit that has one, for example an event id.
    pub cursor: Option<Bytes>,
    /// Contents of the last units, oldest first, up to
    /// [`ResumeOptions::overlap_units_max`](crate::ResumeOptions).
    pub tail: Vec<Bytes>,
}

impl Position {
    /// Returns whether no unit was delivered yet.
    #[must_use]
    pub fn is_start(&self) -> bool {
        self.sequence == 0
    }
}

/// A response that has started or resumed.
#[non_exhaustive]
pub struct Opened {
    /// The bytes of the response.
    pub chunks: Chunks,
    /// The position at which the bytes begin.
    pub strategy: ResumeStrategy,
}

impl Opened {
    /// Creates a response whose bytes begin at the position given by `strategy`.
    pub fn new(
        chunks: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
        strategy: ResumeStrategy,
    ) -> Self {
        Self { chunks: Box::pin(chunks), strategy }
    }
}

impl Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("strategy", &self.strategy).finish_non_exhaustive()
    }
}

/// The position at which the bytes of a new attempt begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResumeStrategy {
    /// At the first unit of the response. The units delivered before are superseded.
    Start,
    /// At the unit with the number [`Position::sequence`].
    Next,
    /// After the unit that has the cursor [`Position::cursor`]. Later units without a cursor are
    /// repeated. If they differ from those delivered, the response restarts.
    Cursor,
    /// At or before the next unit: up to `units_max` of the last units may be repeated, whole. They
    /// are recognized by their contents. If the number of repeated units is ambiguous, the response
    /// restarts.
    Overlap {
        /// Maximum number of repeated units, at most the length of [`Position::tail`].
        units_max: usize,
    },
}

/// An error of [`Source::open`].
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Another attempt may succeed.
    Transient(BoxError),
    /// Another attempt would fail too, or must not be made.
    Permanent(BoxError),
}
