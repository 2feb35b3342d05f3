//! Defines the metrics and their JSON form.

use serde::Serialize;

use crate::MetricFamily;

/// The metrics at one moment. The JSON object has these three objects and the entries of `extra`.
/// The formats of Prometheus have them as metrics, and those of `families`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MetricsSnapshot {
    /// Cache lookups.
    pub cache: CacheMetrics,
    /// Parallel work.
    pub parallel: ParallelMetrics,
    /// Memory of this process.
    pub memory: MemoryMetrics,
    /// Additional entries of the JSON object.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// Additional metrics for Prometheus, each with another name.
    #[serde(skip)]
    pub families: Vec<MetricFamily>,
}

/// Cache lookups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct CacheMetrics {
    /// Cache hits in percent of all lookups; 0 before the first lookup.
    pub hit_rate: f64,
    /// Number of cache hits.
    pub total_hits: u64,
    /// Number of cache misses.
    pub total_misses: u64,
}

/// Parallel work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ParallelMetrics {
    /// Number of busy workers.
    pub active_workers: u64,
    /// Number of stages that are ready but wait for a worker or another resource.
    pub queue_depth: u64,
    /// Busy time of all workers, in percent of workers times wall time.
    pub efficiency: f64,
}

/// Memory of this process, in units of 10⁶ bytes, rounded up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct MemoryMetrics {
    /// Resident memory now.
    pub used_mb: u64,
    /// Peak resident memory.
    pub peak_mb: u64,
    /// Whether cold data was moved to disk to stay within the memory budget.
    pub spillover_active: bool,
}

impl MetricsSnapshot {
    /// Returns the metrics as a JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("maps with text keys and plain numbers always serialise")
    }

    /// Returns the metrics for Prometheus: those of the three objects, then `families`.
    pub(crate) fn into_families(self) -> Vec<MetricFamily> {
        let Self { cache, parallel, memory, families, .. } = self;
        let counter = |name, help, value: u64| MetricFamily::counter(name, help).sample(&[], value as f64);
        let gauge = |name, help, value: f64| MetricFamily::gauge(name, help).sample(&[], value);
        let bytes = |megabytes: u64| megabytes as f64 * 1e6;
        let mut all = vec![
            counter("greenwave_cache_hits", "Cache lookups that hit.", cache.total_hits),
            counter("greenwave_cache_misses", "Cache lookups that missed.", cache.total_misses),
            gauge("greenwave_workers_busy", "Workers that are busy.", parallel.active_workers as f64),
            gauge(
                "greenwave_queue_depth",
                "Stages that are ready and wait for a worker or another resource.",
                parallel.queue_depth as f64,
            ),
            gauge(
                "greenwave_workers_efficiency_ratio",
                "Busy time of all workers, as a share of workers times wall time.",
                parallel.efficiency / 100.0,
            ),
            gauge(
                "greenwave_memory_resident_bytes",
                "Resident memory of the program, rounded up to 10^6 bytes.",
                bytes(memory.used_mb),
            ),
            gauge("greenwave_memory_peak_bytes", "Peak of the resident memory.", bytes(memory.peak_mb)),
            gauge(
                "greenwave_spillover_active",
                "1 if cold data was moved to disk to stay within the memory budget, otherwise 0.",
                f64::from(u8::from(memory.spillover_active)),
            ),
        ];
        all.extend(families);
        all
    }
}

impl CacheMetrics {
    /// Creates the metrics and computes the hit rate.
    pub fn new(total_hits: u64, total_misses: u64) -> Self {
        let all = total_hits as f64 + total_misses as f64;
        let hit_rate = percent(total_hits as f64 / all);
        Self { hit_rate, total_hits, total_misses }
    }
}

impl ParallelMetrics {
    /// Creates the metrics; `efficiency` is a fraction from 0 to 1, and anything that is no finite
    /// number counts as 0.
    pub fn new(active_workers: u64, queue_depth: u64, efficiency: f64) -> Self {
        Self { active_workers, queue_depth, efficiency: percent(efficiency) }
    }
}

/// Converts a fraction to percent with one decimal. JSON has no number for others.
fn percent(share: f64) -> f64 {
    let percent = (share * 1000.0).round() / 10.0;
    if percent.is_finite() { percent } else { 0.0 }
}
