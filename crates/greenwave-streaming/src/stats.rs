//! Defines the counters of a stream.

use std::time::Duration;

/// Counters of a stream since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Bytes read from the source.
    pub bytes: u64,
    /// Non-empty chunks read from the source.
    pub chunks: u64,
    /// Units yielded.
    pub units: u64,
    /// Batches yielded.
    pub batches: u64,
    /// Time from the first wait, for the source or the budget, to the first unit; zero if the unit
    /// was available without waiting.
    pub first_unit: Option<Duration>,
    /// Times that reading stopped because the budget was full.
    pub waits: u64,
    /// Times that a unit was split at its cap.
    pub overflows: u64,
}
