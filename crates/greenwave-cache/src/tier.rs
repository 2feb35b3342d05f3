//! One tier of several: its backend, what is asked of it, and what came of that. Whatever the backend does, a caller here gets an answer.
//! Knows nothing of records, nor of the other tiers.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::backend::Backend;
use crate::contained::contained_future;
use crate::stats::Counter;
use crate::{BoxError, Error, Key};

/// Keys of a read-only tier that are not asked for again because what is there does not verify.
const SHUNNED_MAX: usize = 4096;

/// One backend and its part in the whole.
#[derive(Debug, Clone)]
pub struct Tier {
    /// What figures and warnings call it.
    pub name: String,
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Whether it is written to.
    pub access: AccessMode,
    /// When a caller's write reaches it.
    pub writes: WriteMode,
    /// Whether a caller hears of a write that failed.
    pub on_failure: OnFailure,
    /// How long a record stays there at most, if the backend is capable of that. `None`, the default, is as long as it is good for.
    pub ttl_max: Option<Duration>,
    /// How long one call may take. One that takes longer has failed; with zero, each that is not done at
    /// once. `None`, the default, is no limit beside the backend's own.
    pub timeout: Option<Duration>,
}

impl Tier {
    /// A tier that is read and written, through to the backend, and whose failures are no caller's.
    pub fn new(name: impl Into<String>, backend: Arc<dyn Backend>) -> Self {
        Self {
            name: name.into(),
            backend,
            access: AccessMode::ReadWrite,
            writes: WriteMode::Through,
            on_failure: OnFailure::Ignore,
            ttl_max: None,
            timeout: None,
        }
    }
}

/// Whether a tier is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// Read, written, and filled from the tiers behind it.
    ReadWrite,
    /// Read only: a cache that somebody else maintains.
    ReadOnly,
}

/// When a write reaches a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Before the caller goes on.
    Through,
    /// After it, by a task of its own, in order. What was not written when the runtime ends is lost; [`flush`](crate::Tiered::flush) waits
    /// for it.
    Back {
        /// Most writes that may wait; 0 means 1. A put that finds no place is dropped and counted; a removal waits for one.
        queued_max: usize,
    },
}

/// Whether a caller hears of a write that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It is counted, and warned about.
    Ignore,
    /// That, and [`put`](crate::Tiered::put) returns the error. Of a write that is done [later](WriteMode::Back), only that it was not taken.
    Report,
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
    pub invalid_records: u64,
    /// Calls that failed. None of them failed a caller who did not ask for that.
    pub errors: u64,
    /// Calls that were not made because the server behind had failed a moment before.
    pub skipped: u64,
    /// Writes that were not made because too many waited already, or because the record is larger than what the tier takes.
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) puts: Counter,
    pub(crate) backfills: Counter,
    pub(crate) invalid_records: Counter,
    errors: Counter,
    skipped: Counter,
    dropped: Counter,
}

/// A tier at work.
#[derive(Debug)]
pub(crate) struct Layer {
    seat: Arc<Seat>,
    /// To the task that writes later, once there is one.
    queue: OnceLock<mpsc::Sender<Job>>,
    shunned: Mutex<Shunned>,
}

/// What the layer and its task share.
#[derive(Debug)]
struct Seat {
    tier: Tier,
    counters: Counters,
}

/// A write that is done later, or the wish to know when those before it are.
#[derive(Debug)]
enum Job {
    Put(Key, Bytes, Option<Duration>),
    Remove(Key),
    Flush(oneshot::Sender<()>),
}

impl Layer {
    pub(crate) fn new(tier: Tier) -> Self {
        let seat = Arc::new(Seat { tier, counters: Counters::default() });
        Self { seat, queue: OnceLock::new(), shunned: Mutex::default() }
    }

    pub(crate) fn tier(&self) -> &Tier {
        &self.seat.tier
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.seat.counters
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.seat.tier.access == AccessMode::ReadWrite
    }

    pub(crate) async fn read(&self, key: &Key) -> Option<Bytes> {
        let found = if self.shunned.lock().keys.contains(key) {
            None
        } else {
            self.seat.call("get", async { self.seat.tier.backend.get(key).await }).await.ok().flatten()
        };
        self.counters().misses.add(u64::from(found.is_none()));
        found
    }

    /// What is under each of the keys, in their order.
    pub(crate) async fn read_many(&self, keys: &[Key]) -> Vec<Option<Bytes>> {
        let found = self.seat.call("get many", async { self.seat.tier.backend.get_many(keys).await }).await;
        let mut found = found.unwrap_or_default();
        found.resize(keys.len(), None);
        let shunned = self.shunned.lock();
        keys.iter()
            .zip(&mut found)
            .filter(|(key, _)| shunned.keys.contains(key))
            .for_each(|(_, found)| *found = None);
        self.counters().misses.add(found.iter().filter(|found| found.is_none()).count() as u64);
        found
    }

    /// Writes now or later.
    ///
    /// # Errors
    ///
    /// What failed, if the tier is to report that.
    pub(crate) async fn write(&self, key: &Key, value: Bytes, ttl: Option<Duration>) -> Result<(), Error> {
        let tier = &self.seat.tier;
        let ttl = ttl.into_iter().chain(tier.ttl_max).min();
        let written =
            if tier.backend.capabilities().value_bytes_max.is_some_and(|max| value.len() as u64 > max) {
                self.counters().dropped.add(1);
                Err(format!("{} bytes are more than it takes", value.len()).into())
            } else {
                match self.queue() {
                    Some(queue) => self.enqueue(queue, Job::Put(*key, value, ttl)),
                    None => self.seat.call("put", async { tier.backend.put(key, value, ttl).await }).await,
                }
            };
        let report = |error| Error::backend(format!("put into the tier {}", tier.name))(error);
        written.map_err(report).or_else(|error| match tier.on_failure {
            OnFailure::Ignore => Ok(()),
            OnFailure::Report => Err(error),
        })
    }

    /// Removes now, or as soon as what was written before is. Not from a tier that is read only: its key is not asked for again.
    pub(crate) async fn remove(&self, key: &Key) {
        if !self.is_writable() {
            return self.shunned.lock().shun(*key);
        }
        let waiting = match self.queue() {
            Some(queue) => queue.send(Job::Remove(*key)).await.is_ok(),
            None => false,
        };
        if !waiting {
            let _ = self.seat.call("remove", async { self.seat.tier.backend.remove(key).await }).await;
        }
    }

    pub(crate) async fn flush(&self) -> bool {
        self.drained().await;
        self.seat.call("flush", async { self.seat.tier.backend.flush().await }).await.is_ok()
    }

    pub(crate) async fn close(&self) -> bool {
        self.drained().await;
        self.seat.call("close", async { self.seat.tier.backend.close().await }).await.is_ok()
    }

    pub(crate) fn stats(&self) -> TierStats {
        let Seat { tier, counters } = &*self.seat;
        TierStats {
            name: tier.name.clone(),
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            puts: counters.puts.get(),
            backfills: counters.backfills.get(),
            invalid_records: counters.invalid_records.get(),
            errors: counters.errors.get(),
            skipped: counters.skipped.get(),
            dropped: counters.dropped.get(),
        }
    }

    /// All keys, none if it cannot list them.
    pub(crate) async fn list(&self) -> Vec<Key> {
        let backend = &self.seat.tier.backend;
        if !backend.capabilities().list {
            return Vec::new();
        }
        self.seat.call("list", async { backend.list().await }).await.unwrap_or_default()
    }

    /// Waits until all writes that are to be done later are done.
    pub(crate) async fn drained(&self) {
        let Some(queue) = self.queue.get() else { return };
        let (done, drained) = oneshot::channel();
        if queue.send(Job::Flush(done)).await.is_ok() {
            // An error means that the task ended with its runtime: nobody will write any more.
            let _ = drained.await;
        }
    }

    /// The way to the task that writes later, which is started when it is first needed.
    fn queue(&self) -> Option<&mpsc::Sender<Job>> {
        let WriteMode::Back { queued_max } = self.seat.tier.writes else { return None };
        let start = || {
            let (sender, receiver) = mpsc::channel(queued_max.clamp(1, Semaphore::MAX_PERMITS));
            tokio::spawn(work(self.seat.clone(), receiver));
            sender
        };
        Some(self.queue.get_or_init(start))
    }

    fn enqueue(&self, queue: &mpsc::Sender<Job>, job: Job) -> Result<(), BoxError> {
        let refused = |refused| {
            self.counters().dropped.add(1);
            match refused {
                TrySendError::Full(_) => "too many writes wait already".into(),
                TrySendError::Closed(_) => "whoever writes later ended with its runtime".into(),
            }
        };
        queue.try_send(job).map_err(refused)
    }
}

impl Seat {
    /// Makes a call within the time limit, and a figure and a warning of its error.
    async fn call<T>(
        &self,
        operation: &str,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        // A backend that panics has failed, like one that says so.
        let call = async { contained_future("backend", call).await? };
        let result = match self.tier.timeout {
            Some(timeout) => {
                tokio::time::timeout(timeout, call).await.unwrap_or_else(|late| Err(late.into()))
            }
            None => call.await,
        };
        result.inspect_err(|error| self.note(operation, error))
    }

    fn note(&self, operation: &str, error: &BoxError) {
        if let Some(Error::Unavailable { .. }) = error.downcast_ref() {
            // It was warned about when the server failed.
            return self.counters.skipped.add(1);
        }
        self.counters.errors.add(1);
        tracing::warn!(tier = self.tier.name, operation, %error, "a cache tier failed: going on without it");
    }
}

/// Does the writes in order, until nobody can send any more.
async fn work(seat: Arc<Seat>, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.recv().await {
        let backend = &seat.tier.backend;
        match job {
            Job::Put(key, value, ttl) => {
                _ = seat.call("put", async { backend.put(&key, value, ttl).await }).await;
            }
            Job::Remove(key) => _ = seat.call("remove", async { backend.remove(&key).await }).await,
            // Nobody waits any more if it is an error.
            Job::Flush(done) => _ = done.send(()),
        }
    }
}

/// Keys that are not asked for, the first of them forgotten when there are too many.
#[derive(Debug, Default)]
struct Shunned {
    keys: HashSet<Key>,
    order: VecDeque<Key>,
}

impl Shunned {
    fn shun(&mut self, key: Key) {
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > SHUNNED_MAX {
            self.order.pop_front().map(|oldest| self.keys.remove(&oldest));
        }
    }
}
