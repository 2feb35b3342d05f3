//! The figures at one moment, in the shape they are served in. Knows nothing of where they come from.

use serde::Serialize;

/// Figures at one moment. Its JSON has these three objects, and `extra`'s entries beside them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MetricsSnapshot {
    /// Results found instead of computed.
    pub cache: CacheMetrics,
    /// Work at the same time.
    pub parallel: ParallelMetrics,
    /// Memory of this process.
    pub memory: MemoryMetrics,
    /// Whatever else is worth telling.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// Results found instead of computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct CacheMetrics {
    /// Hits in percent of all look-ups; 0 before the first.
    pub hit_rate: f64,
    /// Look-ups that found a result.
    pub total_hits: u64,
    /// Look-ups that did not.
    pub total_misses: u64,
}

/// Work at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ParallelMetrics {
    /// Workers busy now.
    pub active_workers: u64,
    /// Stages that could run if a worker or another resource were free.
    pub queue_depth: u64,
    /// Workers' busy time in percent of workers times wall time.
    pub efficiency: f64,
}

/// Memory of this process, in units of 10⁶ bytes, rounded up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct MemoryMetrics {
    /// Resident now.
    pub used_mb: u64,
    /// Most ever resident.
    pub peak_mb: u64,
    /// Whether cold data has been moved to disk to stay within the budget.
    pub spillover_active: bool,
}

impl MetricsSnapshot {
    /// The figures as one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("maps with text keys and plain numbers always serialise")
    }
}

impl CacheMetrics {
    /// The figures for so many hits and misses.
    pub fn new(total_hits: u64, total_misses: u64) -> Self {
        let all = total_hits + total_misses;
        let hit_rate = if all == 0 { 0.0 } else { percent(total_hits as f64 / all as f64) };
        Self { hit_rate, total_hits, total_misses }
    }
}

impl ParallelMetrics {
    /// The figures, with the efficiency given as a share from 0 to 1.
    pub fn new(active_workers: u64, queue_depth: u64, efficiency: f64) -> Self {
        Self { active_workers, queue_depth, efficiency: percent(efficiency) }
    }
}

/// A share as percent with one decimal.
fn percent(share: f64) -> f64 {
    (share * 1000.0).round() / 10.0
}
