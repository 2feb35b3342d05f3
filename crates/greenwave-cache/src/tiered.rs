//! Several backends as one: the fast first, each filled from those behind it. Whatever a backend does, the caller gets an answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::backend::Backend;
use crate::lease::{Lease, Leases};
use crate::record::{BadRecord, Record};
use crate::stats::{Counter, rate};
use crate::{BoxError, Cache, Identity, Key, Lru, Options};

/// One backend and its part in the whole.
#[derive(Debug, Clone)]
pub struct Tier {
    /// What figures and warnings call it.
    pub name: String,
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Whether it is written to.
    pub access: Access,
}

/// Whether a tier is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read, written, and filled from the tiers behind it.
    ReadWrite,
    /// Read only: a cache that somebody else maintains.
    ReadOnly,
}

/// How a [`Tiered`] reads records.
#[derive(Debug, Clone)]
pub struct TieredOptions {
    /// The schema of the payloads. Records of others are misses.
    pub schema: u32,
    /// How old a record may be. `None` is no limit, the default.
    pub age_max: Option<Duration>,
    /// Milliseconds since the Unix epoch.
    pub clock: fn() -> u64,
    /// What keeps two processes from computing the same key; `None`, the default, is nothing.
    pub leases: Option<Arc<dyn Leases>>,
    /// How long to wait for another process before computing all the same. Default 15 minutes.
    pub lease_wait_max: Duration,
}

impl TieredOptions {
    /// Records of this schema, of any age, by the system's clock.
    pub fn new(schema: u32) -> Self {
        let lease_wait_max = Duration::from_secs(15 * 60);
        Self { schema, age_max: None, clock: unix_millis, leases: None, lease_wait_max }
    }
}

/// What becomes of a computed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is put into the tiers.
    Stored,
    /// Those who wait for it in this process get it, and that is all: a failure that another run may not repeat, say.
    Shared,
}

/// What a [`Tiered`] has done since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TieredStats {
    /// Reads that some tier answered.
    pub hits: u64,
    /// Reads that none did.
    pub misses: u64,
    /// Time that the hits saved, going by what their records say they cost to make.
    pub saved: Duration,
    /// Computations that went ahead without a lease, because it could not be had or took too long.
    pub lease_failures: u64,
    /// Each tier's figures, in order.
    pub tiers: Vec<TierStats>,
}

impl TieredStats {
    /// The share of reads that were answered, 0 to 1; 0 when nothing was read.
    pub fn hit_rate(&self) -> f64 {
        rate(self.hits, self.misses)
    }
}

/// What one tier has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TierStats {
    /// Its name.
    pub name: String,
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that it was asked and did not answer.
    pub misses: u64,
    /// Records put into it by callers.
    pub puts: u64,
    /// Records put into it because a tier behind had them.
    pub backfills: u64,
    /// Records that did not verify, or were of another schema, or too old. Each counts as a miss too.
    pub bad_records: u64,
    /// Calls that failed. None of them failed a caller.
    pub errors: u64,
}

/// Any number of backends, asked in order. No call fails: a tier that does is counted, warned about, and passed over.
#[derive(Debug)]
pub struct Tiered {
    tiers: Vec<(Tier, TierCounters)>,
    options: TieredOptions,
    /// Holds nothing: only its flights are used.
    flights: Cache<Key, Record, Lru, Identity>,
    /// Flights that have landed.
    landings: Counter,
    hits: Counter,
    misses: Counter,
    saved_us: Counter,
    lease_failures: Counter,
}

#[derive(Debug, Default)]
struct TierCounters {
    hits: Counter,
    misses: Counter,
    puts: Counter,
    backfills: Counter,
    bad_records: Counter,
    errors: Counter,
}

impl Tiered {
    /// These tiers, the fastest first. Without any, every read misses.
    pub fn new(tiers: Vec<Tier>, options: TieredOptions) -> Self {
        let tiers = tiers.into_iter().map(|tier| (tier, TierCounters::default())).collect();
        let nothing = Options { entries_max: 0, ..Options::default() };
        Self {
            tiers,
            options,
            flights: Cache::with(nothing).expect("these options are valid"),
            landings: Counter::default(),
            hits: Counter::default(),
            misses: Counter::default(),
            saved_us: Counter::default(),
            lease_failures: Counter::default(),
        }
    }

    /// The record under `key` from the first tier that has it, which fills those before.
    pub async fn get(&self, key: &Key) -> Option<Record> {
        let found = self.find(key).await;
        self.misses.add(u64::from(found.is_none()));
        found
    }

    /// As [`get`](Self::get), but a miss counts for the tiers only: the same read was counted before.
    async fn find(&self, key: &Key) -> Option<Record> {
        for (index, (tier, counters)) in self.tiers.iter().enumerate() {
            let Some(stored) = self.read(tier, counters, key).await else { continue };
            match self.accept(key, &stored) {
                Ok(record) => {
                    counters.hits.add(1);
                    self.hits.add(1);
                    self.saved_us.add(u64::try_from(record.cost.as_micros()).unwrap_or(u64::MAX));
                    self.backfill(index, key, &record, stored).await;
                    return Some(record);
                }
                Err(reason) => {
                    counters.misses.add(1);
                    counters.bad_records.add(1);
                    tracing::warn!(tier = tier.name, %key, reason, "a cached record is not usable: taken as missing");
                    self.forget(tier, counters, key).await;
                }
            }
        }
        None
    }

    /// The record under `key`, computed if no tier has it: by one task of this process at a time, and with
    /// [leases](TieredOptions::leases) by one process at a time.
    ///
    /// Errors, panics and dropped futures are treated as by [`Cache::get_or_compute`].
    ///
    /// # Errors
    ///
    /// Those of `compute`.
    pub async fn get_or_compute<E, F, Fut>(&self, key: &Key, compute: F) -> Result<Record, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(Record, Keep), E>>,
    {
        let landings = self.landings.get();
        if let Some(record) = self.get(key).await {
            return Ok(record);
        }
        let lead = || async {
            let lease = self.lease(key).await;
            // Whoever was before us, in this process or another, may have put it since we looked.
            let stale = lease.is_some() || self.landings.get() != landings;
            if stale && let Some(record) = self.find(key).await {
                return Ok(record);
            }
            let (record, keep) = compute().await?;
            if keep == Keep::Stored {
                self.put(key, &record).await;
            }
            self.landings.add(1);
            Ok(record)
        };
        self.flights.get_or_compute(*key, lead).await
    }

    async fn lease(&self, key: &Key) -> Option<Lease> {
        let leases = self.options.leases.as_ref()?;
        let error: BoxError =
            match tokio::time::timeout(self.options.lease_wait_max, leases.acquire(key)).await {
                Ok(Ok(lease)) => return Some(lease),
                Ok(Err(error)) => error,
                Err(elapsed) => elapsed.into(),
            };
        self.lease_failures.add(1);
        tracing::warn!(%key, %error, "no lease: computing without, maybe twice");
        None
    }

    /// Puts a record under `key` into every tier that is written to.
    pub async fn put(&self, key: &Key, record: &Record) {
        let stored = record.encode(key);
        let ttl = self.remaining(record);
        for (tier, counters) in self.writable() {
            counters.puts.add(1);
            note(tier, counters, "put", tier.backend.put(key, stored.clone(), ttl).await);
        }
    }

    /// Forgets `key` in every tier that is written to.
    pub async fn remove(&self, key: &Key) {
        for (tier, counters) in self.writable() {
            self.forget(tier, counters, key).await;
        }
    }

    /// Returns when everything put before is as durable as each tier makes it; says whether none failed.
    pub async fn flush(&self) -> bool {
        let mut all = true;
        for (tier, counters) in self.writable() {
            all &= note(tier, counters, "flush", tier.backend.flush().await).is_some();
        }
        all
    }

    /// Flushes and closes every tier; says whether none failed. No other call follows.
    pub async fn close(&self) -> bool {
        let mut all = true;
        for (tier, counters) in &self.tiers {
            all &= note(tier, counters, "close", tier.backend.close().await).is_some();
        }
        all
    }

    /// What it has done.
    pub fn stats(&self) -> TieredStats {
        let tier = |(tier, counters): &(Tier, TierCounters)| TierStats {
            name: tier.name.clone(),
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            puts: counters.puts.get(),
            backfills: counters.backfills.get(),
            bad_records: counters.bad_records.get(),
            errors: counters.errors.get(),
        };
        TieredStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            saved: Duration::from_micros(self.saved_us.get()),
            lease_failures: self.lease_failures.get(),
            tiers: self.tiers.iter().map(tier).collect(),
        }
    }

    fn writable(&self) -> impl Iterator<Item = &(Tier, TierCounters)> {
        self.tiers.iter().filter(|(tier, _)| tier.access == Access::ReadWrite)
    }

    async fn read(&self, tier: &Tier, counters: &TierCounters, key: &Key) -> Option<Bytes> {
        let found = note(tier, counters, "get", tier.backend.get(key).await).flatten();
        if found.is_none() {
            counters.misses.add(1);
        }
        found
    }

    /// The record, if it verifies and is young enough; else why not.
    fn accept(&self, key: &Key, stored: &Bytes) -> Result<Record, &'static str> {
        let record = Record::decode(key, stored, self.options.schema).map_err(|bad| match bad {
            BadRecord::Damaged => "it is damaged",
            BadRecord::Version(_) => "it was written by a later version",
            BadRecord::Schema { .. } => "it has another schema",
        })?;
        match self.remaining(&record) {
            Some(Duration::ZERO) => Err("it is too old"),
            _ => Ok(record),
        }
    }

    /// How long a record is still good for; `None` is for ever.
    fn remaining(&self, record: &Record) -> Option<Duration> {
        let age = Duration::from_millis((self.options.clock)().saturating_sub(record.created_ms));
        Some(self.options.age_max?.saturating_sub(age))
    }

    async fn backfill(&self, found_in: usize, key: &Key, record: &Record, stored: Bytes) {
        let ttl = self.remaining(record);
        let before = self.tiers[..found_in].iter().filter(|(tier, _)| tier.access == Access::ReadWrite);
        for (tier, counters) in before {
            counters.backfills.add(1);
            note(tier, counters, "put", tier.backend.put(key, stored.clone(), ttl).await);
        }
    }

    async fn forget(&self, tier: &Tier, counters: &TierCounters, key: &Key) {
        if tier.access == Access::ReadWrite {
            note(tier, counters, "remove", tier.backend.remove(key).await);
        }
    }
}

/// Turns a tier's error into a figure and a warning.
fn note<T>(tier: &Tier, counters: &TierCounters, operation: &str, result: Result<T, BoxError>) -> Option<T> {
    let report = |error: &BoxError| {
        counters.errors.add(1);
        tracing::warn!(tier = tier.name, operation, %error, "a cache tier failed: going on without it");
    };
    result.inspect_err(report).ok()
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
