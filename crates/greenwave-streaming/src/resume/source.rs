//! What can be opened again when it breaks: the seam between a source and what reads it. Unaware of units and of when to try again.

use std::fmt::Debug;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::error::BoxError;

/// The bytes of an answer as they come in.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// Something that answers, and can be asked again when the answer breaks off.
///
/// # Contract
///
/// - `open` asks for the answer from `at` on, or from its start where the source can do no better; [`Opened::seam`] says what it got.
///   [`Position::is_start`] asks for the start; then the chunks begin with the first unit, whatever the seam says.
/// - The chunks are those of one answer: an error or an early end breaks it off, and nothing may be made up to hide that.
/// - Dropping the future of `open`, or the chunks, gives up that attempt and what it holds.
/// - `open` may be called any number of times, after each other. [`OpenError::Permanent`] is for what would fail again, and for what must not
///   be repeated because it has had an effect.
/// - Which way a source goes on may differ from call to call, as when a server keeps an answer for some minutes.
///
/// The suite in `conformance` (feature) checks this; `examples/custom_source.rs` is a source to start from.
#[async_trait]
pub trait Source: Debug + Send + Sync + 'static {
    /// Asks for the answer from `at` on.
    async fn open(&self, at: &Position) -> Result<Opened, OpenError>;
}

/// How far an answer has been handed on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Position {
    /// Which answer, as its reader numbers them.
    pub turn: u64,
    /// How often the answer was begun anew before.
    pub attempt: u32,
    /// How many units were handed on; the next one has this number.
    pub sequence: u64,
    /// What the last unit that has a cursor gave: an event id, say.
    pub cursor: Option<Bytes>,
    /// The contents of the last units, oldest first, as many as [`ResumeOptions::overlap_units_max`](crate::ResumeOptions) says.
    pub tail: Vec<Bytes>,
}

impl Position {
    /// Whether nothing was handed on yet.
    #[must_use]
    pub fn is_start(&self) -> bool {
        self.sequence == 0
    }
}

/// An answer that has begun, or goes on.
#[non_exhaustive]
pub struct Opened {
    /// Its bytes.
    pub chunks: Chunks,
    /// Where they begin.
    pub strategy: ResumeStrategy,
}

impl Opened {
    /// An answer whose bytes begin at `seam`.
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

/// Where the bytes of a new attempt begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResumeStrategy {
    /// With the first unit of the answer. What was handed on before is superseded.
    Start,
    /// With the unit that has the number [`Position::sequence`].
    Next,
    /// With the unit behind the one that gave [`Position::cursor`]. Units that have come since without a cursor of their own come again; if they
    /// come otherwise, the answer is begun anew.
    Cursor,
    /// Somewhere at or before the next unit: up to `units_max` of the last units may come again, whole. They are told by their contents; if
    /// it is not certain how many did, the answer is begun anew.
    Overlap {
        /// Units, at most as many as [`Position::tail`] has.
        units_max: usize,
    },
}

/// Why a source was not opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Another attempt may succeed.
    Transient(BoxError),
    /// Another attempt would fail as well, or must not be made.
    Permanent(BoxError),
}
