//! Counts durations in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of buckets that suit tests, merges and answers of agents: from five milliseconds to
/// ten minutes, in seconds.
pub const DURATION_BOUNDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Counts durations in buckets with fixed bounds, for a [histogram](crate::MetricFamily::histogram).
///
/// An observation takes no lock and allocates nothing: it searches the bounds and adds to two
/// counters. Several threads may observe at once.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// Number of observations in each bucket. The last one has no upper bound.
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

/// The counts of a [`Histogram`] at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSnapshot {
    pub(crate) bounds: &'static [f64],
    pub(crate) counts: Vec<u64>,
    pub(crate) sum: f64,
}

impl Histogram {
    /// Creates a histogram whose buckets have these upper bounds in seconds, inclusive. A further
    /// bucket counts longer durations.
    ///
    /// # Panics
    /// If the bounds are not finite or not strictly increasing.
    pub fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.iter().all(|bound| bound.is_finite()), "bounds are finite: {bounds:?}");
        assert!(bounds.is_sorted_by(|low, high| low < high), "bounds increase: {bounds:?}");
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_nanos: AtomicU64::new(0) }
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        // Scrapes read the counters without order between them, so relaxed accesses suffice.
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let add = |sum: u64| Some(sum.saturating_add(nanos));
        let _ = self.sum_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Returns the counts. While other threads observe, the sum may contain a duration that is not
    /// counted yet, or lack one that is.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let sum = self.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9;
        HistogramSnapshot { bounds: self.bounds, counts, sum }
    }
}

impl Default for Histogram {
    /// Creates a histogram with [`DURATION_BOUNDS`].
    fn default() -> Self {
        Self::new(&DURATION_BOUNDS)
    }
}

impl HistogramSnapshot {
    /// Returns the number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of the observed durations, in seconds.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Returns the number of observations up to each bound, and the bound in seconds. The last
    /// bound is infinite.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(&self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }
}
