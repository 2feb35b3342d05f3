//! The `Backend` trait, which stores records outside of one cache, and its implementations.

#[cfg(feature = "disk")]
mod disk;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;
#[cfg(feature = "object")]
mod object;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "redis", feature = "memcached", feature = "object"))]
mod remote;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(feature = "disk")]
pub use disk::{DiskBackend, DiskOptions};
#[cfg(feature = "memcached")]
pub use memcached::MemcachedBackend;
pub use memory::MemoryBackend;
#[cfg(feature = "object")]
pub use object::ObjectBackend;
#[cfg(feature = "redis")]
pub use redis::{RedisBackend, RedisLeases};
#[cfg(any(feature = "redis", feature = "memcached", feature = "object"))]
pub use remote::RemoteOptions;

use crate::{BoxError, Key};

/// A lossy map from keys to bytes.
///
/// # Contract
///
/// - *Truth.* `get` returns exactly the bytes of a `put` of the same key, or `None`. A damaged
///   value is `None`. Callers verify records anyway, because other programs may write to the
///   backend.
/// - *Forgetting.* A backend may drop any entry at any time to stay within its limits.
/// - *Visibility.* After a `put` returns `Ok`, every later `get` on the same value sees it, unless
///   the entry was dropped. Other processes that use the same location see it too if
///   [`Capabilities::shared`] is set.
/// - *Durability.* If [`Capabilities::durable`] is set, everything put before a `flush` that
///   returned `Ok` survives a crash.
/// - *Cancellation.* A call whose future is dropped took effect completely or not at all. Partial
///   writes are never visible.
/// - *Retries.* Every call may be repeated.
/// - *Concurrency.* Any number of tasks may call at once.
/// - *Blocking.* No call blocks the thread for longer than a memory access.
/// - *Errors* report conditions that need attention, such as a full disk or an unreachable server.
///   [`Tiered`](crate::Tiered) counts them, logs a warning, and continues without the backend.
///
/// The module `conformance` (feature `conformance`) tests as much of this as can be tested from
/// outside.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Returns the bytes stored under `key`.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError>;

    /// Returns the bytes stored under each of `keys`, in the order of `keys`, in as few round trips
    /// as possible.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError>;

    /// Stores bytes under `key`. They expire after `ttl` if the backend supports it.
    async fn put(&self, key: &Key, value: Bytes, ttl: Option<Duration>) -> Result<(), BoxError>;

    /// Removes `key`.
    async fn remove(&self, key: &Key) -> Result<(), BoxError>;

    /// Returns all keys, in no particular order. Returns an error if the backend does not support
    /// listing.
    async fn list(&self) -> Result<Vec<Key>, BoxError>;

    /// Makes everything put earlier as durable as the backend can.
    async fn flush(&self) -> Result<(), BoxError>;

    /// Flushes and releases resources. No other call follows.
    async fn close(&self) -> Result<(), BoxError>;

    /// Returns the capabilities of the backend, which never change.
    fn capabilities(&self) -> Capabilities;
}

/// Optional capabilities of a [`Backend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// The backend can list its keys.
    pub list: bool,
    /// Entries expire at the end of their time to live.
    pub ttl: bool,
    /// Other processes that use the same location see the entries.
    pub shared: bool,
    /// Flushed entries survive a crash.
    pub durable: bool,
    /// Maximum size of a value in bytes. `None` means no limit.
    pub value_bytes_max: Option<u64>,
}
