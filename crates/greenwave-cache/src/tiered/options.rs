//! Configuration and counters of tiered caches.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::Key;
use crate::lease::Leases;
use crate::predict::Predictor;
use crate::record::{RecordError, Secret};
use crate::stats::rate;
use crate::tier::TierStats;

/// Configuration of a [`Tiered`](super::Tiered).
#[derive(Debug, Clone)]
pub struct TieredOptions {
    /// Schema of the payloads. Records with another schema are misses.
    pub schema: u32,
    /// Maximum age of a record. With zero, every record is too old. Default: `None`, no limit.
    pub age_max: Option<Duration>,
    /// Returns the current time in milliseconds since the Unix epoch. If it panics, the panic is
    /// logged and the system clock is used.
    pub clock: fn() -> u64,
    /// Prevents two processes from computing the same key. Default: `None`.
    pub leases: Option<Arc<dyn Leases>>,
    /// Maximum time to wait for another process that computes the same key, before computing it
    /// anyway. Default: 15 minutes.
    pub lease_wait_max: Duration,
    /// Seals records on writing, and rejects unsealed ones on reading. Set it if untrusted users
    /// can write to a tier. Default: `None`.
    pub secret: Option<Secret>,
    /// Predicts the next keys for [`get_with_trail`](super::Tiered::get_with_trail), which are then
    /// prefetched from slow tiers into the first one. Default: `None`.
    pub predictor: Option<Arc<Predictor>>,
}

impl TieredOptions {
    /// Creates options for records of this schema and any age, with the system clock.
    pub fn new(schema: u32) -> Self {
        let lease_wait_max = Duration::from_secs(15 * 60);
        Self {
            schema,
            age_max: None,
            clock: unix_millis,
            leases: None,
            lease_wait_max,
            secret: None,
            predictor: None,
        }
    }
}

/// Whether a computed record is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persist {
    /// The record is stored in the tiers.
    Yes,
    /// The record is returned to the waiting tasks of this process and not stored. Use it for
    /// results that another run might not reproduce, such as failures.
    No,
}

/// Counters of a [`Tiered`](super::Tiered) since it was created.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TieredStats {
    /// Reads that found a record in a tier, or waited for another task that computed it.
    pub hits: u64,
    /// Reads that found no record.
    pub misses: u64,
    /// Time saved by hits: the sum of the records' costs.
    pub saved: Duration,
    /// Computations that ran without a lease because acquiring it failed or timed out.
    pub lease_failures: u64,
    /// Records prefetched into the first tier.
    pub prefetched: u64,
    /// Prefetched records that were read afterwards. The others were wasted, or have not been read
    /// yet.
    pub prefetch_hits: u64,
    /// Counters of each tier, in order.
    pub tiers: Vec<TierStats>,
}

impl TieredStats {
    /// Returns the share of reads that were hits, from 0 to 1. Returns 0 without reads.
    pub fn hit_rate(&self) -> f64 {
        rate(self.hits, self.misses)
    }
}

/// Bytes found in a tier that are not a valid record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRecord {
    /// Name of the tier.
    pub tier: String,
    /// Key under which the bytes were stored.
    pub key: Key,
    /// Reason why the record is invalid.
    pub reason: RecordError,
    /// The stored bytes.
    pub bytes: Bytes,
}

pub(super) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
