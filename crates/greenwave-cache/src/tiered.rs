//! Reads and writes several backends as one: fast tiers first, each filled from the slower ones.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::backend::MemoryBackend;
use crate::catch_panic::{catch_panic, catch_panic_async};
use crate::computation::ErrorSharing;
use crate::error::ComputeError;
use crate::lease::{Lease, Leases};
use crate::predict::{Predictor, Trail};
use crate::record::{Record, RecordError, Secret};
use crate::stats::{Counter, rate};
use crate::tier::{Tier, TierHandle, TierStats};
use crate::{
    BoxError, Cache, CacheOptions, EntryOptions, Error, IdentityHasher, Key, KeyBuilder, Lru, WarmEntry,
};

/// Number of invalid records that are retained for inspection.
const QUARANTINED_MAX: usize = 32;
/// Maximum number of concurrent prefetches.
const PREFETCHES_MAX: usize = 4;
/// Maximum number of prefetched keys that are tracked until they are read.
const PREFETCHED_KEYS_MAX: usize = 4096;

/// Configuration of a [`Tiered`].
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
    /// Predicts the next keys for [`get_with_trail`](Tiered::get_with_trail), which are then
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

/// Counters of a [`Tiered`] since it was created.
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

/// State shared with background prefetches.
#[derive(Debug)]
struct TieredState {
    tiers: Vec<TierHandle>,
    options: TieredOptions,
    hits: Counter,
    misses: Counter,
    saved_us: Counter,
    lease_failures: Counter,
    prefetched: Counter,
    prefetch_hits: Counter,
    prefetched_keys: Mutex<PrefetchedKeys>,
    prefetching: Arc<Semaphore>,
    quarantine: Mutex<VecDeque<QuarantinedRecord>>,
}

/// Which tiers a record is copied to after it was found in a slower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backfill {
    /// All tiers before that tier.
    FasterTiers,
    /// No tier.
    None,
}

/// Prefetched keys that have not been read yet. The oldest are dropped when there are too many.
#[derive(Debug, Default)]
struct PrefetchedKeys {
    keys: HashSet<Key>,
    order: VecDeque<Key>,
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
        let result =
            self.computations.compute_once(*key, &EntryOptions::default(), errors, compute_with_lease).await;
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
        let stored = encode(key, record, self.state.options.secret.as_ref());
        let ttl = self.state.remaining_life(record);
        let mut first = Ok(());
        for tier in self.writable() {
            tier.counters().puts.add(1);
            let stored = match tier.tier().secrets.first() {
                Some(secret) => record.seal(key, secret),
                None => stored.clone(),
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
            Some(WarmEntry { key, value: encode(&key, &record?, self.state.options.secret.as_ref()), heat })
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

impl TieredState {
    /// Returns the record from the first tier that has it, starting with the tier `first`, and
    /// copies it to the tiers before.
    async fn find(&self, key: &Key, first: usize) -> Option<Record> {
        for (index, tier) in self.tiers.iter().enumerate().skip(first) {
            let Some(stored) = tier.read(key).await else { continue };
            if let Some(record) = self.accept(tier, key, &stored).await {
                self.backfill(index, key, &record, &stored).await;
                return Some(record);
            }
        }
        None
    }

    /// Like [`find`](Self::find), for many keys at once.
    async fn find_many(&self, keys: &[Key], first: usize, fill: Backfill) -> Vec<Option<Record>> {
        let mut found: Vec<Option<Record>> = vec![None; keys.len()];
        for (index, tier) in self.tiers.iter().enumerate().skip(first) {
            let missing: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            let asked: Vec<Key> = missing.iter().map(|at| keys[*at]).collect();
            for (at, stored) in missing.into_iter().zip(tier.read_many(&asked).await) {
                let Some(stored) = stored else { continue };
                found[at] = self.accept(tier, &keys[at], &stored).await;
                if let (Some(record), Backfill::FasterTiers) = (&found[at], fill) {
                    self.backfill(index, &keys[at], record, &stored).await;
                }
            }
        }
        found
    }

    async fn prefetch(&self, keys: &[Key]) {
        let mut absent = Vec::new();
        for key in keys {
            // Reads the backend directly, because a prefetch does not count as a read.
            let there = self.tiers[0].tier().backend.get(key).await;
            absent.extend(matches!(there, Ok(None)).then_some(*key));
        }
        let found = self.find_many(&absent, 1, Backfill::FasterTiers).await;
        for (key, _) in absent.iter().zip(found).filter(|(_, record)| record.is_some()) {
            self.prefetched.add(1);
            self.prefetched_keys.lock().insert(*key);
        }
    }

    fn count_hit(&self, record: &Record) {
        self.hits.add(1);
        self.saved_us.add_saturating(u64::try_from(record.cost.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns the secrets whose seals a tier accepts.
    fn secrets<'t>(&'t self, tier: &'t Tier) -> &'t [Secret] {
        if tier.secrets.is_empty() { self.options.secret.as_slice() } else { &tier.secrets }
    }

    /// Returns the record if it verifies and is young enough. Otherwise quarantines it and removes
    /// it from the tier, unless another user's secret may verify it.
    async fn accept(&self, tier: &TierHandle, key: &Key, stored: &Bytes) -> Option<Record> {
        let mut is_untrusted = false;
        match self.decode(self.secrets(tier.tier()), key, stored) {
            Ok(record) => {
                tier.counters().hits.add(1);
                return Some(record);
            }
            // The record is valid, only too old.
            Err(None) => {}
            Err(Some(reason)) => {
                let name = tier.tier().name.clone();
                is_untrusted = match reason {
                    // It belongs to those who have its secret.
                    RecordError::Untrusted { sealed: true } => true,
                    RecordError::Corrupt | RecordError::Untrusted { .. } => !tier.tier().secrets.is_empty(),
                    _ => false,
                };
                if !is_untrusted {
                    tracing::warn!(tier = name, %key, %reason, "invalid record: treated as a miss");
                } else if tier.counters().untrusted_records.get() == 0 {
                    // A server may hold thousands of them.
                    tracing::warn!(tier = name, %key, "records without a valid seal are treated as misses");
                }
                let bytes = stored.clone();
                self.quarantine_record(QuarantinedRecord { tier: name, key: *key, reason, bytes });
            }
        }
        tier.counters().misses.add(1);
        tier.counters().invalid_records.add(1);
        if is_untrusted {
            tier.counters().untrusted_records.add(1);
        } else {
            tier.remove(key).await;
        }
        None
    }

    /// Decodes a record, which one of the secrets must verify if there are any. The error is `None`
    /// if the record is valid and only too old.
    fn decode(&self, secrets: &[Secret], key: &Key, stored: &Bytes) -> Result<Record, Option<RecordError>> {
        let schema = self.options.schema;
        let mut secrets = secrets.iter();
        let mut decoded = match secrets.next() {
            Some(secret) => Record::unseal(key, stored, schema, secret),
            None => Record::decode(key, stored, schema),
        };
        for secret in secrets {
            if decoded == Err(RecordError::Corrupt) {
                decoded = Record::unseal(key, stored, schema, secret);
            }
        }
        let record = decoded?;
        match self.remaining_life(&record) {
            Some(Duration::ZERO) => Err(None),
            _ => Ok(record),
        }
    }

    fn quarantine_record(&self, bad: QuarantinedRecord) {
        let mut quarantine = self.quarantine.lock();
        quarantine.push_back(bad);
        if quarantine.len() > QUARANTINED_MAX {
            quarantine.pop_front();
        }
    }

    /// Returns the time until a record becomes too old. `None` means never.
    fn remaining_life(&self, record: &Record) -> Option<Duration> {
        let age_max = self.options.age_max?;
        let now_ms = catch_panic("clock", self.options.clock).unwrap_or_else(|_| unix_millis());
        Some(age_max.saturating_sub(Duration::from_millis(now_ms.saturating_sub(record.created_ms))))
    }

    async fn backfill(&self, found_in: usize, key: &Key, record: &Record, stored: &Bytes) {
        let ttl = self.remaining_life(record);
        let has_own = |tier: &TierHandle| !tier.tier().secrets.is_empty();
        for tier in self.tiers[..found_in].iter().filter(|tier| tier.is_writable()) {
            tier.counters().backfills.add(1);
            let stored = if has_own(tier) || has_own(&self.tiers[found_in]) {
                encode(key, record, self.secrets(tier.tier()).first())
            } else {
                stored.clone()
            };
            // The caller did not request this write, so a failure is only counted.
            let _ = tier.write(key, stored, ttl).await;
        }
    }
}

fn encode(key: &Key, record: &Record, secret: Option<&Secret>) -> Bytes {
    match secret {
        Some(secret) => record.seal(key, secret),
        None => record.encode(key),
    }
}

impl PrefetchedKeys {
    /// Keys that were read are removed from the set but not from the order. They only shorten it a
    /// little.
    fn insert(&mut self, key: Key) {
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > PREFETCHED_KEYS_MAX {
            self.order.pop_front().map(|oldest| self.keys.remove(&oldest));
        }
    }
}

/// Returns the key of the record written by `save_heat`.
fn heat_key() -> Key {
    KeyBuilder::new("greenwave cache heat", 1).finish()
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
