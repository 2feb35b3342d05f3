//! What a stream has counted. A plain snapshot.

use std::time::Duration;

/// Counters of one stream since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Bytes read from the source.
    pub bytes: u64,
    /// Chunks read from the source, empty ones left out.
    pub chunks: u64,
    /// Units handed on.
    pub units: u64,
    /// Batches handed on.
    pub batches: u64,
    /// From the first wait, for the source or for room, to the first unit; zero if it came without one.
    pub first_unit: Option<Duration>,
    /// How often reading stopped because the budget was full.
    pub waits: u64,
    /// How often a unit was split at its cap.
    pub overflows: u64,
}
