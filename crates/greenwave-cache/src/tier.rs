//! A single tier of a tiered cache: calls its backend, counts the outcome, and turns failures into
//! misses.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::backend::{Backend, Capabilities};
use crate::catch_panic::{catch_panic, catch_panic_async};
use crate::stats::Counter;
use crate::write_queue::{Push, QueuedWrite, WriteQueue, WriteTarget};
use crate::{BoxError, Error, Key, PublicKey, Record, Scope, Secret, SigningKey};

/// Maximum number of keys in a read-only tier that are skipped because their records do not verify.
const SKIPPED_KEYS_MAX: usize = 4096;

/// A backend and its configuration within a [`Tiered`](crate::Tiered) cache.
#[derive(Debug, Clone)]
pub struct Tier {
    /// Name of the tier in statistics and log messages.
    pub name: String,
    /// Backend of the tier.
    pub backend: Arc<dyn Backend>,
    /// Whether the tier is written to.
    pub access: AccessMode,
    /// When writes reach the tier.
    pub writes: WriteMode,
    /// Whether failed writes are reported to the caller.
    pub on_failure: OnFailure,
    /// Maximum time to live of a record in this tier, if the backend supports it. Default: `None`,
    /// until the record becomes too old.
    pub ttl_max: Option<Duration>,
    /// Maximum duration of a call. A longer call fails. With zero, every call that does not
    /// complete immediately fails. Default: `None`, the backend's own limit.
    pub timeout: Option<Duration>,
    /// Secrets of this tier, in place of [`TieredOptions::secret`](crate::TieredOptions::secret).
    /// The first one seals records on writing; a record that is sealed with any of them is accepted
    /// on reading, so that a secret can be replaced while others still use it. A record with a
    /// missing or wrong seal is a miss and stays in the backend: another user may have a newer
    /// secret. Default: empty. [`Tiered::warm`](crate::Tiered::warm) does not use them.
    pub secrets: Vec<Secret>,
    /// Signs the records of this tier on writing. Default: `None`.
    pub signing_key: Option<SigningKey>,
    /// Keys whose signatures are accepted on reading. A record that none of them has signed is a
    /// miss and stays in the backend. Default: empty, no signature is required.
    pub trusted: Vec<PublicKey>,
    /// Scope of the records, which readers without a scope or with another one do not find. The
    /// tier is not filled from slower tiers, and what is found in it is not copied to faster ones,
    /// where others would find it. Its keys cannot be listed. Default: `None`.
    pub scope: Option<Scope>,
}

impl Tier {
    /// Creates a tier that is read and written, writes through to the backend, and ignores
    /// failures.
    pub fn new(name: impl Into<String>, backend: Arc<dyn Backend>) -> Self {
        Self {
            name: name.into(),
            backend,
            access: AccessMode::ReadWrite,
            writes: WriteMode::Through,
            on_failure: OnFailure::Ignore,
            ttl_max: None,
            timeout: None,
            secrets: Vec::new(),
            signing_key: None,
            trusted: Vec::new(),
            scope: None,
        }
    }

    /// Returns the key under which the backend has the record of `key`.
    pub(crate) fn stored_key(&self, key: &Key) -> Key {
        self.scope.as_ref().map_or(*key, |scope| scope.key(key))
    }

    /// Returns whether records have another form in this tier than in one without keys.
    pub(crate) fn has_own_form(&self) -> bool {
        let has_keys = !self.secrets.is_empty() || self.signing_key.is_some() || !self.trusted.is_empty();
        has_keys || self.scope.is_some()
    }

    /// Encodes a record for this tier, sealed with the tier's secret or else with the given one.
    pub(crate) fn encode(&self, key: &Key, record: &Record, secret: Option<&Secret>) -> Bytes {
        let secret = self.secrets.first().or(secret);
        record.encode_with(&self.stored_key(key), secret, self.signing_key.as_ref())
    }
}

/// Whether a tier is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// The tier is read, written, and filled from the tiers behind it.
    ReadWrite,
    /// The tier is only read, such as a cache that somebody else maintains.
    ReadOnly,
}

/// When a write reaches a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Before the call returns.
    Through,
    /// After the call returns, in order, from a background task in the runtime of the first write.
    /// [`flush`](crate::Tiered::flush) waits for the queued writes. Writes that are still queued
    /// when the runtime ends are lost: they count as dropped, and the next flush reports a failure.
    /// Later writes are queued in their own runtime. If the runtime lives but runs no task for a
    /// second, a flush performs the queued writes in the caller's runtime; the write that was in
    /// progress is then dropped and made again. Outside of a runtime, writes go through.
    Back {
        /// Maximum number of queued writes; 0 is treated as 1. A put that finds the queue full is
        /// dropped and counted, and a removal waits.
        queued_max: usize,
    },
}

/// Whether failed writes are reported to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Failures are counted and logged.
    Ignore,
    /// Failures are counted and logged, and [`put`](crate::Tiered::put) returns the error. With
    /// [`WriteMode::Back`] it only reports writes that were not queued.
    Report,
}

/// Counters of one tier.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TierStats {
    /// Name of the tier.
    pub name: String,
    /// Reads that found a valid record.
    pub hits: u64,
    /// Reads that reached this tier and found no valid record.
    pub misses: u64,
    /// Records put by callers.
    pub puts: u64,
    /// Records copied from a slower tier.
    pub backfills: u64,
    /// Records that did not verify, had another schema, or were too old. Each also counts as a
    /// miss.
    pub invalid_records: u64,
    /// Invalid records whose seal or signature was missing or wrong in a tier with secrets or
    /// trusted keys, and sealed records in a tier without secrets.
    pub untrusted_records: u64,
    /// Calls that failed. They fail the caller only if the tier reports failures.
    pub errors: u64,
    /// Calls that were skipped because the server had failed recently.
    pub skipped: u64,
    /// Writes that were dropped because the queue was full, the record exceeded the backend's size
    /// limit, or the runtime ended before a queued write was done.
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) puts: Counter,
    pub(crate) backfills: Counter,
    pub(crate) invalid_records: Counter,
    pub(crate) untrusted_records: Counter,
    errors: Counter,
    skipped: Counter,
    dropped: Counter,
}

/// A tier in use.
#[derive(Debug)]
pub(crate) struct TierHandle {
    state: Arc<TierState>,
    /// `None` if writes go through.
    queue: Option<WriteQueue>,
    skipped_keys: Mutex<SkippedKeys>,
}

/// State shared with the background task.
#[derive(Debug)]
struct TierState {
    tier: Tier,
    counters: Counters,
    /// Whether queued writes were lost since the last flush.
    has_lost: AtomicBool,
    /// Whether a failure was logged as a warning. A server that fails again and again is one.
    has_warned: AtomicBool,
}

impl TierHandle {
    pub(crate) fn new(tier: Tier) -> Self {
        let state = Arc::new(TierState {
            tier,
            counters: Counters::default(),
            has_lost: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
        });
        let queue = match state.tier.writes {
            WriteMode::Through => None,
            WriteMode::Back { queued_max } => Some(WriteQueue::new(state.clone(), queued_max)),
        };
        Self { state, queue, skipped_keys: Mutex::default() }
    }

    pub(crate) fn tier(&self) -> &Tier {
        &self.state.tier
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.state.counters
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.state.tier.access == AccessMode::ReadWrite
    }

    pub(crate) async fn read(&self, key: &Key) -> Option<Bytes> {
        let found = if self.skipped_keys.lock().keys.contains(key) {
            None
        } else {
            let key = self.state.tier.stored_key(key);
            self.state.call("get", async { self.state.tier.backend.get(&key).await }).await.ok().flatten()
        };
        self.counters().misses.add(u64::from(found.is_none()));
        found
    }

    /// Returns the bytes stored under each of `keys`, in order.
    pub(crate) async fn read_many(&self, keys: &[Key]) -> Vec<Option<Bytes>> {
        let stored: Vec<Key> = keys.iter().map(|key| self.state.tier.stored_key(key)).collect();
        let get_many = async { self.state.tier.backend.get_many(&stored).await };
        let found = self.state.call("get many", get_many).await;
        let mut found = found.unwrap_or_default();
        found.resize(keys.len(), None);
        let skipped_keys = self.skipped_keys.lock();
        keys.iter()
            .zip(&mut found)
            .filter(|(key, _)| skipped_keys.keys.contains(key))
            .for_each(|(_, found)| *found = None);
        self.counters().misses.add(found.iter().filter(|found| found.is_none()).count() as u64);
        found
    }

    /// Writes a value, or queues the write.
    ///
    /// # Errors
    ///
    /// Returns the failure if the tier reports failures.
    pub(crate) async fn write(&self, key: &Key, value: Bytes, ttl: Option<Duration>) -> Result<(), Error> {
        let tier = &self.state.tier;
        let key = &tier.stored_key(key);
        let ttl = ttl.into_iter().chain(tier.ttl_max).min();
        let written = if self.state.capabilities().value_bytes_max.is_some_and(|max| value.len() as u64 > max)
        {
            self.counters().dropped.add(1);
            Err(format!("record of {} bytes exceeds the size limit", value.len()).into())
        } else {
            match self.enqueue(QueuedWrite::Put(*key, value.clone(), ttl)) {
                Some(queued) => queued,
                None => self.state.call("put", async { tier.backend.put(key, value, ttl).await }).await,
            }
        };
        let report = |error| Error::backend(format!("write to tier {}", tier.name))(error);
        written.map_err(report).or_else(|error| match tier.on_failure {
            OnFailure::Ignore => Ok(()),
            OnFailure::Report => Err(error),
        })
    }

    /// Removes a key, or queues the removal behind earlier writes. In a read-only tier, the key is
    /// skipped from now on.
    pub(crate) async fn remove(&self, key: &Key) {
        if !self.is_writable() {
            return self.skipped_keys.lock().insert(*key);
        }
        let key = &self.state.tier.stored_key(key);
        let is_queued = match &self.queue {
            Some(queue) => queue.push(QueuedWrite::Remove(*key)).await,
            None => false,
        };
        if !is_queued {
            let _ = self.state.call("remove", async { self.state.tier.backend.remove(key).await }).await;
        }
    }

    pub(crate) async fn flush(&self) -> bool {
        self.wait_for_queue().await;
        let has_lost = self.state.has_lost.swap(false, Ordering::Relaxed);
        let flushed = self.state.call("flush", async { self.state.tier.backend.flush().await }).await;
        flushed.is_ok() && !has_lost
    }

    pub(crate) async fn close(&self) -> bool {
        self.wait_for_queue().await;
        let has_lost = self.state.has_lost.swap(false, Ordering::Relaxed);
        let closed = self.state.call("close", async { self.state.tier.backend.close().await }).await;
        closed.is_ok() && !has_lost
    }

    pub(crate) fn stats(&self) -> TierStats {
        let TierState { tier, counters, .. } = &*self.state;
        TierStats {
            name: tier.name.clone(),
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            puts: counters.puts.get(),
            backfills: counters.backfills.get(),
            invalid_records: counters.invalid_records.get(),
            untrusted_records: counters.untrusted_records.get(),
            errors: counters.errors.get(),
            skipped: counters.skipped.get(),
            dropped: counters.dropped.get(),
        }
    }

    /// Returns all keys, or none if the backend cannot list them.
    pub(crate) async fn list(&self) -> Vec<Key> {
        let backend = &self.state.tier.backend;
        // The backend has hashes of the keys.
        if self.state.tier.scope.is_some() || !self.state.capabilities().list {
            return Vec::new();
        }
        self.state.call("list", async { backend.list().await }).await.unwrap_or_default()
    }

    /// Waits until all queued writes are done.
    pub(crate) async fn wait_for_queue(&self) {
        if let Some(queue) = &self.queue {
            queue.wait_until_drained().await;
        }
    }

    /// Queues a write. Returns `None` if writes go through.
    fn enqueue(&self, write: QueuedWrite) -> Option<Result<(), BoxError>> {
        match self.queue.as_ref()?.try_push(write) {
            Push::Queued => Some(Ok(())),
            Push::NoRuntime => None,
            Push::Full => {
                self.counters().dropped.add(1);
                Some(Err("write queue is full".into()))
            }
        }
    }
}

impl TierState {
    /// Returns the capabilities of the backend, or none if it panics.
    fn capabilities(&self) -> Capabilities {
        let found = catch_panic("backend", || self.tier.backend.capabilities());
        found.unwrap_or_else(|_| {
            self.counters.errors.add(1);
            Capabilities::default()
        })
    }

    /// Makes a call within the timeout. Counts and logs a failure.
    async fn call<T>(
        &self,
        operation: &str,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        // A panic of the backend counts as a failure.
        let call = async { catch_panic_async("backend", call).await? };
        let result = match self.tier.timeout {
            Some(timeout) => {
                tokio::time::timeout(timeout, call).await.unwrap_or_else(|late| Err(late.into()))
            }
            None => call.await,
        };
        result.inspect_err(|error| self.record_failure(operation, error))
    }

    fn record_failure(&self, operation: &str, error: &BoxError) {
        if let Some(Error::Unavailable { .. }) = error.downcast_ref() {
            // A warning was logged when the server failed.
            return self.counters.skipped.add(1);
        }
        self.counters.errors.add(1);
        let cause = error.source().map(ToString::to_string);
        // Relaxed: the flag guards no other memory.
        if self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::debug!(tier = self.tier.name, operation, %error, cause, "cache tier failed again");
        } else {
            let tier = &self.tier.name;
            tracing::warn!(tier, operation, %error, cause, "cache tier failed: continuing without it");
        }
    }
}

impl WriteTarget for TierState {
    fn perform(self: Arc<Self>, write: QueuedWrite) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let backend = &self.tier.backend;
            // Failures are counted and logged.
            match write {
                QueuedWrite::Put(key, value, ttl) => {
                    let _ = self.call("put", async { backend.put(&key, value, ttl).await }).await;
                }
                QueuedWrite::Remove(key) => {
                    let _ = self.call("remove", async { backend.remove(&key).await }).await;
                }
            }
        })
    }

    fn lose(&self, writes: u64) {
        self.counters.dropped.add(writes);
        self.has_lost.store(true, Ordering::Relaxed);
        tracing::warn!(tier = self.tier.name, writes, "the runtime ended before queued writes were done");
    }
}

/// Keys that are skipped. The oldest are dropped when there are too many.
#[derive(Debug, Default)]
struct SkippedKeys {
    keys: HashSet<Key>,
    order: VecDeque<Key>,
}

impl SkippedKeys {
    fn insert(&mut self, key: Key) {
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > SKIPPED_KEYS_MAX {
            self.order.pop_front().map(|oldest| self.keys.remove(&oldest));
        }
    }
}
