//! Several backends as one: the fast first, each filled from those behind it. Whatever a backend does, the caller gets an answer.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::backend::MemoryBackend;
use crate::contained::{contained, contained_future};
use crate::lease::{Lease, Leases};
use crate::load::Errors;
use crate::predict::{Predictor, Trail};
use crate::record::{Record, RecordError, Secret};
use crate::stats::{Counter, rate};
use crate::tier::{Layer, Tier, TierStats};
use crate::{
    BoxError, Cache, CacheOptions, EntryOptions, Error, IdentityHasher, Key, KeyBuilder, Lru, WarmEntry,
};

/// What did not verify, as kept for whoever wants to know why.
const QUARANTINED_MAX: usize = 32;
/// Fetches that go on at once because somebody will probably ask.
const PREFETCHES_MAX: usize = 4;
/// Keys that were fetched so and not asked for yet, as far as they are remembered.
const FORETOLD_MAX: usize = 4096;

/// How a [`Tiered`] reads records.
#[derive(Debug, Clone)]
pub struct TieredOptions {
    /// The schema of the payloads. Records of others are misses.
    pub schema: u32,
    /// How old a record may be; with zero, every record is too old. `None` is no limit, the default.
    pub age_max: Option<Duration>,
    /// Milliseconds since the Unix epoch. If it panics, that is logged, and the system's clock counts.
    pub clock: fn() -> u64,
    /// What keeps two processes from computing the same key; `None`, the default, is nothing.
    pub leases: Option<Arc<dyn Leases>>,
    /// How long to wait for another process before computing all the same. Default 15 minutes.
    pub lease_wait_max: Duration,
    /// Seals records that are put, and refuses others: for tiers that people write to who are not trusted. `None` is the default.
    pub secret: Option<Secret>,
    /// Fetches what will probably be asked for next from slow tiers into the first, for [`get_with_trail`](Tiered::get_with_trail). `None` is the default.
    pub predictor: Option<Arc<Predictor>>,
}

impl TieredOptions {
    /// Records of this schema, of any age, by the system's clock.
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

/// What becomes of a computed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persist {
    /// It is put into the tiers.
    Yes,
    /// Those who wait for it in this process get it, and that is all: a failure that another run may not repeat, say.
    No,
}

/// What a [`Tiered`] has done since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TieredStats {
    /// Reads answered: by some tier, or by a computation of another task that they waited for.
    pub hits: u64,
    /// Reads not answered.
    pub misses: u64,
    /// Time that the hits saved, going by what their records say they cost to make.
    pub saved: Duration,
    /// Computations that went ahead without a lease, because it could not be had or took too long.
    pub lease_failures: u64,
    /// Records fetched into the first tier before anybody asked.
    pub prefetched: u64,
    /// Of those, how many were asked for afterwards. The rest are wasted, or yet to be asked for.
    pub prefetch_hits: u64,
    /// Each tier's figures, in order.
    pub tiers: Vec<TierStats>,
}

impl TieredStats {
    /// The share of reads that were answered, 0 to 1; 0 when nothing was read.
    pub fn hit_rate(&self) -> f64 {
        rate(self.hits, self.misses)
    }
}

/// What was found in a tier and is no record for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRecord {
    /// The tier's name.
    pub tier: String,
    /// The key that it stood under.
    pub key: Key,
    /// What is wrong with it.
    pub reason: RecordError,
    /// All of it.
    pub bytes: Bytes,
}

/// Any number of backends, asked in order. Reads do not fail: a tier that does is counted, warned about, and passed over. Writes fail only
/// where a tier is to [report](crate::OnFailure::Report) that.
#[derive(Debug)]
pub struct Tiered {
    inner: Arc<Inner>,
    /// Holds nothing: only its flights are used.
    flights: Cache<Key, Record, Lru, IdentityHasher>,
    /// Flights that have landed.
    landings: Counter,
}

/// What fetches in the background share with their owner.
#[derive(Debug)]
struct Inner {
    layers: Vec<Layer>,
    options: TieredOptions,
    hits: Counter,
    misses: Counter,
    saved_us: Counter,
    lease_failures: Counter,
    prefetched: Counter,
    prefetch_hits: Counter,
    foretold: Mutex<Foretold>,
    prefetching: Arc<Semaphore>,
    quarantine: Mutex<VecDeque<QuarantinedRecord>>,
}

/// What becomes of a record that a tier had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// It is put into the tiers before that one.
    Before,
    /// Nothing.
    Nothing,
}

/// Keys that were fetched before they were asked for, the first of them forgotten when there are too many.
#[derive(Debug, Default)]
struct Foretold {
    keys: HashSet<Key>,
    order: VecDeque<Key>,
}

impl Tiered {
    /// These tiers, the fastest first. Without any, every read misses.
    pub fn new(tiers: Vec<Tier>, options: TieredOptions) -> Self {
        let nothing = CacheOptions { entries_max: 0, ..CacheOptions::default() };
        let inner = Inner {
            layers: tiers.into_iter().map(Layer::new).collect(),
            options,
            hits: Counter::default(),
            misses: Counter::default(),
            saved_us: Counter::default(),
            lease_failures: Counter::default(),
            prefetched: Counter::default(),
            prefetch_hits: Counter::default(),
            foretold: Mutex::default(),
            prefetching: Arc::new(Semaphore::new(PREFETCHES_MAX)),
            quarantine: Mutex::default(),
        };
        let flights = Cache::with(nothing).expect("these options are valid");
        Self { inner: Arc::new(inner), flights, landings: Counter::default() }
    }

    /// The record under `key` from the first tier that has it, which fills those before.
    pub async fn get(&self, key: &Key) -> Option<Record> {
        let found = self.find(key).await;
        self.inner.misses.add(u64::from(found.is_none()));
        found
    }

    /// Like [`get`](Self::get), by somebody who asks for one key after another: with a [predictor](TieredOptions::predictor), what will
    /// probably follow is fetched into the first tier meanwhile.
    pub async fn get_with_trail(&self, trail: &mut Trail, key: &Key) -> Option<Record> {
        if let Some(predictor) = &self.inner.options.predictor {
            self.prefetch(predictor.observe(trail, key));
        }
        self.get(key).await
    }

    /// The record under each of `keys`, in their order, with as few calls to each tier as it needs.
    pub async fn get_many(&self, keys: &[Key]) -> Vec<Option<Record>> {
        let found = self.inner.find_many(keys, 0, Fill::Before).await;
        for record in &found {
            match record {
                Some(record) => self.inner.count_hit(record),
                None => self.inner.misses.add(1),
            }
        }
        found
    }

    /// As [`get`](Self::get), but a miss counts for the tiers only: the same read was counted before.
    async fn find(&self, key: &Key) -> Option<Record> {
        let record = self.inner.find(key, 0).await?;
        self.inner.count_hit(&record);
        if self.inner.foretold.lock().keys.remove(key) {
            self.inner.prefetch_hits.add(1);
        }
        Some(record)
    }

    /// Has slow tiers asked for these keys in the background, unless enough is fetched already.
    fn prefetch(&self, keys: Vec<Key>) {
        let fresh: Vec<Key> = {
            let foretold = self.inner.foretold.lock();
            keys.into_iter().filter(|key| !foretold.keys.contains(key)).collect()
        };
        if fresh.is_empty() || self.inner.layers.len() < 2 {
            return;
        }
        let Ok(permit) = self.inner.prefetching.clone().try_acquire_owned() else { return };
        let inner = self.inner.clone();
        tokio::spawn(async move {
            inner.prefetch(&fresh).await;
            drop(permit);
        });
    }

    /// The record under `key`, computed if no tier has it: by one task of this process at a time, and with
    /// [leases](TieredOptions::leases) by one process at a time.
    ///
    /// Tasks that wait get the record or the error, as with [`Cache::get_or_compute`], which also says
    /// what becomes of panics and dropped futures, and who counts as a hit. A tier counts each read
    /// that it was asked for.
    ///
    /// # Errors
    ///
    /// That of `compute`, or of the computation that the task waited for.
    pub async fn get_or_compute<E, F, Fut>(&self, key: &Key, compute: F) -> Result<Record, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(Record, Persist), E>>,
    {
        self.fly(key, &Errors::SHARED, compute).await
    }

    /// Like [`get_or_compute`](Self::get_or_compute), but an error goes only to the caller whose
    /// computation failed, as with [`Cache::get_or_compute_retrying`].
    ///
    /// # Errors
    ///
    /// Those of `compute`.
    pub async fn get_or_compute_retrying<E, F, Fut>(&self, key: &Key, compute: F) -> Result<Record, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(Record, Persist), E>>,
    {
        self.fly(key, &Errors::RETRIED, compute).await
    }

    async fn fly<E, Out, F, Fut>(&self, key: &Key, errors: &Errors<E, Out>, compute: F) -> Result<Record, Out>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(Record, Persist), E>>,
    {
        let landings = self.landings.get();
        if let Some(record) = self.find(key).await {
            return Ok(record);
        }
        // Whether this read was counted by the computation. A `Cell` would keep futures from being sent.
        let is_counted = AtomicBool::new(false);
        let lead = || async {
            let lease = self.lease(key).await;
            is_counted.store(true, Ordering::Relaxed);
            // Whoever was before us, in this process or another, may have put it since we looked.
            let stale = lease.is_some() || self.landings.get() != landings;
            if stale && let Some(record) = self.find(key).await {
                return Ok(record);
            }
            self.inner.misses.add(1);
            let (record, keep) = compute().await?;
            if keep == Persist::Yes
                && let Err(error) = self.put(key, &record).await
            {
                // The result is there, and its caller gets it. A tier that failed was warned about; one that did not take it was not.
                tracing::warn!(%key, %error, "a computed record is not kept everywhere");
            }
            if lease.is_some() {
                // Whoever has the lease next looks before computing, and is to find it.
                for layer in self.writable() {
                    layer.drained().await;
                }
            }
            self.landings.add(1);
            Ok(record)
        };
        let result = self.flights.fly(*key, &EntryOptions::default(), errors, lead).await;
        if !is_counted.into_inner() {
            let counter = if result.is_ok() { &self.inner.hits } else { &self.inner.misses };
            counter.add(1);
        }
        result
    }

    async fn lease(&self, key: &Key) -> Option<Lease> {
        let options = &self.inner.options;
        let leases = options.leases.as_ref()?;
        let acquire = async { contained_future("leases", async { leases.acquire(key).await }).await? };
        let error: BoxError = match tokio::time::timeout(options.lease_wait_max, acquire).await {
            Ok(Ok(lease)) => return Some(lease),
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        self.inner.lease_failures.add(1);
        tracing::warn!(%key, %error, "no lease: computing without, maybe twice");
        None
    }

    /// Puts a record under `key` into every tier that is written to, whatever becomes of the others.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`], the first of those that tiers are to [report](crate::OnFailure::Report).
    pub async fn put(&self, key: &Key, record: &Record) -> Result<(), Error> {
        let stored = self.inner.encode(key, record);
        let ttl = self.inner.remaining(record);
        let mut first = Ok(());
        for layer in self.writable() {
            layer.counters().puts.add(1);
            let written = layer.write(key, stored.clone(), ttl).await;
            first = first.and(written);
        }
        first
    }

    /// Forgets `key` in every tier that is written to.
    pub async fn remove(&self, key: &Key) {
        for layer in self.writable() {
            layer.remove(key).await;
        }
    }

    /// Forgets everything in the tiers that are written to and can list their keys, after a change that nothing is likely to survive;
    /// returns how many entries there were, in all tiers together. Others forget what is old in time.
    pub async fn clear(&self) -> usize {
        let mut cleared = 0;
        for layer in self.writable() {
            let keys = layer.list().await;
            for key in &keys {
                layer.remove(key).await;
            }
            cleared += keys.len();
        }
        cleared
    }

    /// Returns when everything put before is as durable as each tier makes it, and nothing waits to be written; says whether none failed.
    pub async fn flush(&self) -> bool {
        let mut all = true;
        for layer in self.writable() {
            all &= layer.flush().await;
        }
        all
    }

    /// Flushes and closes every tier; says whether none failed. No other call follows.
    pub async fn close(&self) -> bool {
        let mut all = true;
        for layer in &self.inner.layers {
            all &= layer.close().await;
        }
        all
    }

    /// Notes which of a memory tier's records are in use, and how much, for [`warm`](Self::warm) after a restart. At most so many.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    pub async fn save_heat(&self, memory: &MemoryBackend, records_max: usize) -> Result<(), Error> {
        let mut payload = BytesMut::new();
        for (key, heat) in memory.heat(records_max) {
            payload.put_slice(key.as_bytes());
            payload.put_u8(heat);
        }
        let options = &self.inner.options;
        let record = Record {
            schema: options.schema,
            created_ms: contained("clock", options.clock).unwrap_or_else(|_| unix_millis()),
            cost: Duration::ZERO,
            tags: Vec::new(),
            payload: payload.freeze(),
        };
        self.put(&heat_key(), &record).await
    }

    /// Fetches what [`save_heat`](Self::save_heat) noted from the other tiers into a memory tier, as hot as it was; returns how many records
    /// that were. Read once, from the tiers that have them, in as few calls as they need.
    pub async fn warm(&self, memory: &MemoryBackend) -> usize {
        let Some(noted) = self.inner.find(&heat_key(), 0).await else { return 0 };
        let mut payload = noted.payload;
        let mut heats = Vec::new();
        while payload.remaining() > size_of::<Key>() {
            let mut key = [0; size_of::<Key>()];
            payload.copy_to_slice(&mut key);
            heats.push((Key::from_bytes(key), payload.get_u8()));
        }
        let keys: Vec<Key> = heats.iter().map(|(key, _)| *key).collect();
        // What comes into memory here comes with its heat, and not as if it were new.
        let found = self.inner.find_many(&keys, 0, Fill::Nothing).await;
        let records = heats.into_iter().zip(found).filter_map(|((key, heat), record)| {
            Some(WarmEntry { key, value: self.inner.encode(&key, &record?), heat })
        });
        memory.warm(records.collect())
    }

    /// What did not verify lately, the latest last, at most 32.
    pub fn quarantined(&self) -> Vec<QuarantinedRecord> {
        self.inner.quarantine.lock().iter().cloned().collect()
    }

    /// What it has done.
    pub fn stats(&self) -> TieredStats {
        let inner = &self.inner;
        TieredStats {
            hits: inner.hits.get(),
            misses: inner.misses.get(),
            saved: Duration::from_micros(inner.saved_us.get()),
            lease_failures: inner.lease_failures.get(),
            prefetched: inner.prefetched.get(),
            prefetch_hits: inner.prefetch_hits.get(),
            tiers: inner.layers.iter().map(Layer::stats).collect(),
        }
    }

    fn writable(&self) -> impl Iterator<Item = &Layer> {
        self.inner.layers.iter().filter(|layer| layer.is_writable())
    }
}

impl Inner {
    /// The record from the first tier that has it, beginning with the one of this number; those before are filled.
    async fn find(&self, key: &Key, first: usize) -> Option<Record> {
        for (index, layer) in self.layers.iter().enumerate().skip(first) {
            let Some(stored) = layer.read(key).await else { continue };
            if let Some(record) = self.accept(layer, key, &stored).await {
                self.backfill(index, key, &record, &stored).await;
                return Some(record);
            }
        }
        None
    }

    /// The same for many keys at once.
    async fn find_many(&self, keys: &[Key], first: usize, fill: Fill) -> Vec<Option<Record>> {
        let mut found: Vec<Option<Record>> = vec![None; keys.len()];
        for (index, layer) in self.layers.iter().enumerate().skip(first) {
            let missing: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            let asked: Vec<Key> = missing.iter().map(|at| keys[*at]).collect();
            for (at, stored) in missing.into_iter().zip(layer.read_many(&asked).await) {
                let Some(stored) = stored else { continue };
                found[at] = self.accept(layer, &keys[at], &stored).await;
                if let (Some(record), Fill::Before) = (&found[at], fill) {
                    self.backfill(index, &keys[at], record, &stored).await;
                }
            }
        }
        found
    }

    async fn prefetch(&self, keys: &[Key]) {
        let mut absent = Vec::new();
        for key in keys {
            // Straight from the backend: this is no read of anybody's.
            let there = self.layers[0].tier().backend.get(key).await;
            absent.extend(matches!(there, Ok(None)).then_some(*key));
        }
        let found = self.find_many(&absent, 1, Fill::Before).await;
        for (key, _) in absent.iter().zip(found).filter(|(_, record)| record.is_some()) {
            self.prefetched.add(1);
            self.foretold.lock().remember(*key);
        }
    }

    fn count_hit(&self, record: &Record) {
        self.hits.add(1);
        self.saved_us.add_saturating(u64::try_from(record.cost.as_micros()).unwrap_or(u64::MAX));
    }

    fn encode(&self, key: &Key, record: &Record) -> Bytes {
        match &self.options.secret {
            Some(secret) => record.seal(key, secret),
            None => record.encode(key),
        }
    }

    /// The record, if it verifies and is young enough. Otherwise it is put aside, and taken out of the tier.
    async fn accept(&self, layer: &Layer, key: &Key, stored: &Bytes) -> Option<Record> {
        match self.decode(key, stored) {
            Ok(record) => {
                layer.counters().hits.add(1);
                return Some(record);
            }
            // Nothing is wrong with it.
            Err(None) => {}
            Err(Some(reason)) => {
                let tier = layer.tier().name.clone();
                tracing::warn!(tier, %key, %reason, "a cached record is not usable: taken as missing");
                self.put_aside(QuarantinedRecord { tier, key: *key, reason, bytes: stored.clone() });
            }
        }
        layer.counters().misses.add(1);
        layer.counters().invalid_records.add(1);
        layer.remove(key).await;
        None
    }

    /// The record, or what is wrong with it: nothing but its age, if it is `None`.
    fn decode(&self, key: &Key, stored: &Bytes) -> Result<Record, Option<RecordError>> {
        let schema = self.options.schema;
        let record = match &self.options.secret {
            Some(secret) => Record::unseal(key, stored, schema, secret)?,
            None => Record::decode(key, stored, schema)?,
        };
        match self.remaining(&record) {
            Some(Duration::ZERO) => Err(None),
            _ => Ok(record),
        }
    }

    fn put_aside(&self, bad: QuarantinedRecord) {
        let mut quarantine = self.quarantine.lock();
        quarantine.push_back(bad);
        if quarantine.len() > QUARANTINED_MAX {
            quarantine.pop_front();
        }
    }

    /// How long a record is still good for; `None` is for ever.
    fn remaining(&self, record: &Record) -> Option<Duration> {
        let age_max = self.options.age_max?;
        let now_ms = contained("clock", self.options.clock).unwrap_or_else(|_| unix_millis());
        Some(age_max.saturating_sub(Duration::from_millis(now_ms.saturating_sub(record.created_ms))))
    }

    async fn backfill(&self, found_in: usize, key: &Key, record: &Record, stored: &Bytes) {
        let ttl = self.remaining(record);
        for layer in self.layers[..found_in].iter().filter(|layer| layer.is_writable()) {
            layer.counters().backfills.add(1);
            // Nobody asked for this write: that it failed is counted, and no more.
            let _ = layer.write(key, stored.clone(), ttl).await;
        }
    }
}

impl Foretold {
    /// Those that were asked for left the set but not the order; they only make the memory a little shorter.
    fn remember(&mut self, key: Key) {
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > FORETOLD_MAX {
            self.order.pop_front().map(|oldest| self.keys.remove(&oldest));
        }
    }
}

/// Where the heat of records stands among them.
fn heat_key() -> Key {
    KeyBuilder::new("greenwave cache heat", 1).finish()
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
