//! Reads and writes several backends as one: fast tiers first, each filled from the slower ones.

mod options;
mod state;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::backend::MemoryBackend;
use crate::catch_panic::{catch_panic, catch_panic_async};
use crate::computation::ErrorSharing;
use crate::error::ComputeError;
use crate::lease::Lease;
use crate::predict::Trail;
use crate::record::Record;
use crate::stats::Counter;
use crate::tier::{Tier, TierHandle};
use crate::{
    BoxError, Cache, CacheOptions, EntryOptions, Error, IdentityHasher, Key, KeyBuilder, Lru, WarmEntry,
};

use options::unix_millis;
pub use options::{Persist, QuarantinedRecord, TieredOptions, TieredStats};
use state::{Backfill, TieredState};

/// Maximum number of concurrent prefetches.
const PREFETCHES_MAX: usize = 4;

/// A list of backends, read in order. Reads never fail: a tier that fails is counted, logged and
/// skipped. Writes fail only if a tier is set to [report](crate::OnFailure::Report) failures.
#[derive(Debug)]
pub struct Tiered {
    state: Arc<TieredState>,
    /// An empty cache, used only for its pending computations.
    computations: Cache<Key, Record, Lru, IdentityHasher>,
    /// Number of finished computations.
    completions: Counter,
}

impl Tiered {
    /// Creates a cache with the given tiers, the fastest first. Without tiers, every read is a
    /// miss.
    pub fn new(tiers: Vec<Tier>, options: TieredOptions) -> Self {
        let nothing = CacheOptions { entries_max: 0, ..CacheOptions::default() };
        let state = TieredState {
            tiers: tiers.into_iter().map(TierHandle::new).collect(),
            options,
            hits: Counter::default(),
            misses: Counter::default(),
            saved_us: Counter::default(),
            lease_failures: Counter::default(),
            prefetched: Counter::default(),
            prefetch_hits: Counter::default(),
            prefetched_keys: Mutex::default(),
            prefetching: Arc::new(Semaphore::new(PREFETCHES_MAX)),
            quarantine: Mutex::default(),
        };
        let computations = Cache::with(nothing).expect("these options are valid");
        Self { state: Arc::new(state), computations, completions: Counter::default() }
    }

    /// Returns the record of `key` from the first tier that has it, and copies it to the tiers
    /// before.
    pub async fn get(&self, key: &Key) -> Option<Record> {
        let found = self.find(key).await;
        self.state.misses.add(u64::from(found.is_none()));
        found
    }

    /// Like [`get`](Self::get), for a caller that reads one key after another. With a
    /// [predictor](TieredOptions::predictor), the likely next records are prefetched into the first
    /// tier in the background.
    pub async fn get_with_trail(&self, trail: &mut Trail, key: &Key) -> Option<Record> {
        if let Some(predictor) = &self.state.options.predictor {
            self.prefetch(predictor.observe(trail, key));
        }
        self.get(key).await
    }

    /// Returns the record of each of `keys`, in the order of `keys`, with as few calls to each tier
    /// as possible.
    pub async fn get_many(&self, keys: &[Key]) -> Vec<Option<Record>> {
        let found = self.state.find_many(keys, 0, Backfill::FasterTiers).await;
        for record in &found {
            match record {
                Some(record) => self.state.count_hit(record),
                None => self.state.misses.add(1),
            }
        }
        found
    }

    /// Like [`get`](Self::get), but a miss is counted for the tiers only. The caller counts it for
    /// the whole.
    async fn find(&self, key: &Key) -> Option<Record> {
        let record = self.state.find(key, 0).await?;
        self.state.count_hit(&record);
        if self.state.prefetched_keys.lock().keys.remove(key) {
            self.state.prefetch_hits.add(1);
        }
        Some(record)
    }

    /// Starts a background prefetch of these keys from the slow tiers, unless too many are running.
    fn prefetch(&self, keys: Vec<Key>) {
        let fresh: Vec<Key> = {
            let prefetched_keys = self.state.prefetched_keys.lock();
            keys.into_iter().filter(|key| !prefetched_keys.keys.contains(key)).collect()
        };
        if fresh.is_empty() || self.state.tiers.len() < 2 {
            return;
        }
        let Ok(permit) = self.state.prefetching.clone().try_acquire_owned() else { return };
        let state = self.state.clone();
        tokio::spawn(async move {
            state.prefetch(&fresh).await;
            drop(permit);
        });
    }

    /// Returns the record of `key`, or computes it if no tier has it. One task of this process
    /// computes at a time, and with [leases](TieredOptions::leases) one process at a time.
    ///
    /// Waiting tasks receive the record or the error, as with [`Cache::get_or_compute`], which also
    /// documents panics, dropped futures and counting. Each tier counts the reads that reach it.
    ///
    /// # Errors
    ///
    /// Returns [`ComputeError::Failed`] with the error of `compute`, or of the computation that the
    /// task waited for, and [`ComputeError::Panicked`] if the latter panicked.
    pub async fn get_or_compute<E, F, Fut>(&self, key: &Key, compute: F) -> Result<Record, ComputeError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(Record, Persist), E>>,
    {
        self.compute_once(key, &ErrorSharing::SHARED, compute).await
    }

    /// Like [`get_or_compute`](Self::get_or_compute), but returns an error only to the caller whose
    /// own computation failed, as [`Cache::get_or_compute_retrying`] does.
    ///
    /// # Errors
    ///
    /// Returns the error of `compute`.
    pub async fn get_or_compute_retrying<E, F, Fut>(&self, key: &Key, compute: F) -> Result<Record, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(Record, Persist), E>>,
    {
        self.compute_once(key, &ErrorSharing::RETRIED, compute).await
    }

    async fn compute_once<E, Out, F, Fut>(
        &self,
        key: &Key,
        errors: &ErrorSharing<E, Out>,
        compute: F,
    ) -> Result<Record, Out>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(Record, Persist), E>>,
    {
        let completions = self.completions.get();
        if let Some(record) = self.find(key).await {
            return Ok(record);
        }
        // Whether the computation counted this read. With a `Cell` the future would not be `Send`.
        let is_counted = AtomicBool::new(false);
        let compute_with_lease = || async {
            let lease = self.lease(key).await;
            is_counted.store(true, Ordering::Relaxed);
            // A previous holder of the lease or computation may have stored the record since the
            // first lookup.
            let stale = lease.is_some() || self.completions.get() != completions;
            if stale && let Some(record) = self.find(key).await {
                return Ok(record);
            }
            self.state.misses.add(1);
            let (record, persist) = compute().await?;
            if persist == Persist::Yes
                && let Err(error) = self.put(key, &record).await
            {
                // The result is valid, so the caller gets it. A failing tier has already logged a
                // warning; a tier that rejected the record has not.
                tracing::warn!(%key, %error, "a computed record was not stored in every tier");
            }
            if lease.is_some() {
                // The next holder of the lease looks the record up before computing, and must find
                // it.
                for tier in self.writable() {
                    tier.wait_for_queue().await;
                }
            }
            self.completions.add(1);
            Ok(record)
        };
        let result = self
            .computations
            .compute_once(Cow::Borrowed(key), &EntryOptions::default(), errors, compute_with_lease)
            .await;
        if !is_counted.into_inner() {
            let counter = if result.is_ok() { &self.state.hits } else { &self.state.misses };
            counter.add(1);
        }
        result
    }

    async fn lease(&self, key: &Key) -> Option<Lease> {
        let options = &self.state.options;
        let leases = options.leases.as_ref()?;
        let acquire = async { catch_panic_async("leases", async { leases.acquire(key).await }).await? };
        let error: BoxError = match tokio::time::timeout(options.lease_wait_max, acquire).await {
            Ok(Ok(lease)) => return Some(lease),
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        self.state.lease_failures.add(1);
        tracing::warn!(%key, %error, "cannot acquire lease: computing without it, possibly twice");
        None
    }

    /// Stores a record under `key` in every writable tier, even if some of them fail.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] if the record has another [schema](TieredOptions::schema), so that
    /// it would not be found. Otherwise the first [`Error::Backend`] of the tiers that
    /// [report](crate::OnFailure::Report) failures.
    pub async fn put(&self, key: &Key, record: &Record) -> Result<(), Error> {
        if record.schema != self.state.options.schema {
            return Err(Error::InvalidOption {
                option: "schema",
                value: record.schema.to_string(),
                expected: "the schema in the options of the cache",
            });
        }
        let secret = self.state.options.secret.as_ref();
        // Tiers without keys of their own share the bytes.
        let stored = record.encode_with(key, secret, None);
        let ttl = self.state.remaining_life(record);
        let mut first = Ok(());
        for tier in self.writable() {
            tier.counters().puts.add(1);
            let stored = if tier.tier().has_own_form() {
                tier.tier().encode(key, record, secret)
            } else {
                stored.clone()
            };
            let written = tier.write(key, stored, ttl).await;
            first = first.and(written);
        }
        first
    }

    /// Removes `key` from every writable tier.
    pub async fn remove(&self, key: &Key) {
        for tier in self.writable() {
            tier.remove(key).await;
        }
    }

    /// Removes everything from the writable tiers that can list their keys, and returns the number
    /// of removed entries over all tiers. Use it after a change that invalidates most results;
    /// other tiers drop old entries in time.
    pub async fn clear(&self) -> usize {
        let mut cleared = 0;
        for tier in self.writable() {
            let keys = tier.list().await;
            for key in &keys {
                tier.remove(key).await;
            }
            cleared += keys.len();
        }
        cleared
    }

    /// Waits for all queued writes, and makes everything stored as durable as each tier can.
    /// Returns whether all tiers succeeded.
    pub async fn flush(&self) -> bool {
        let mut all = true;
        for tier in self.writable() {
            all &= tier.flush().await;
        }
        all
    }

    /// Flushes and closes every tier. Returns whether all succeeded. No other call may follow.
    pub async fn close(&self) -> bool {
        let mut all = true;
        for tier in &self.state.tiers {
            all &= tier.close().await;
        }
        all
    }

    /// Saves the keys and access counts of up to `records_max` of the hottest records of a memory
    /// tier, for [`warm`](Self::warm) after a restart.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`put`](Self::put).
    pub async fn save_heat(&self, memory: &MemoryBackend, records_max: usize) -> Result<(), Error> {
        let mut payload = BytesMut::new();
        for (key, heat) in memory.heat(records_max) {
            payload.put_slice(key.as_bytes());
            payload.put_u8(heat);
        }
        let options = &self.state.options;
        let record = Record {
            schema: options.schema,
            created_ms: catch_panic("clock", options.clock).unwrap_or_else(|_| unix_millis()),
            cost: Duration::ZERO,
            tags: Vec::new(),
            payload: payload.freeze(),
        };
        self.put(&heat_key(), &record).await
    }

    /// Loads the records saved by [`save_heat`](Self::save_heat) from the other tiers into a memory
    /// tier, with their access counts. Returns the number of records loaded. Reads each tier in as
    /// few calls as possible.
    pub async fn warm(&self, memory: &MemoryBackend) -> usize {
        let Some(saved) = self.state.find(&heat_key(), 0).await else { return 0 };
        let mut payload = saved.payload;
        let mut heats = Vec::new();
        while payload.remaining() > size_of::<Key>() {
            let mut key = [0; size_of::<Key>()];
            payload.copy_to_slice(&mut key);
            heats.push((Key::from_bytes(key), payload.get_u8()));
        }
        let keys: Vec<Key> = heats.iter().map(|(key, _)| *key).collect();
        // Not backfilled: `warm` inserts the records with their heat, and a backfill would insert
        // them as new.
        let found = self.state.find_many(&keys, 0, Backfill::None).await;
        let records = heats.into_iter().zip(found).filter_map(|((key, heat), record)| {
            let secret = self.state.options.secret.as_ref();
            Some(WarmEntry { key, value: record?.encode_with(&key, secret, None), heat })
        });
        memory.warm(records.collect())
    }

    /// Returns the last records that failed to verify, up to 32, the newest last.
    pub fn quarantined(&self) -> Vec<QuarantinedRecord> {
        self.state.quarantine.lock().iter().cloned().collect()
    }

    /// Returns a snapshot of the counters.
    pub fn stats(&self) -> TieredStats {
        let state = &self.state;
        TieredStats {
            hits: state.hits.get(),
            misses: state.misses.get(),
            saved: Duration::from_micros(state.saved_us.get()),
            lease_failures: state.lease_failures.get(),
            prefetched: state.prefetched.get(),
            prefetch_hits: state.prefetch_hits.get(),
            tiers: state.tiers.iter().map(TierHandle::stats).collect(),
        }
    }

    fn writable(&self) -> impl Iterator<Item = &TierHandle> {
        self.state.tiers.iter().filter(|tier| tier.is_writable())
    }
}

/// Returns the key of the record written by `save_heat`.
fn heat_key() -> Key {
    KeyBuilder::new("greenwave cache heat", 1).finish()
}
