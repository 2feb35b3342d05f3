//! Where results are kept beyond one cache. The open seam of this crate: implement [`Backend`] to keep them elsewhere.

#[cfg(feature = "disk")]
mod disk;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "redis", feature = "memcached"))]
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
#[cfg(feature = "redis")]
pub use redis::{RedisBackend, RedisLeases};
#[cfg(any(feature = "redis", feature = "memcached"))]
pub use remote::RemoteOptions;

use crate::{BoxError, Key};

/// A map from keys to bytes that may forget.
///
/// # Contract
///
/// - *Truth.* A `get` returns exactly what some `put` of the same key was given, or `None`. Damage is `None`. Callers check records all the
///   same, since a backend may be written by others.
/// - *Forgetting.* A backend may drop any entry at any time, to stay within its limits.
/// - *Visibility.* What a `put` that returned `Ok` wrote is seen by every later `get` on the same value, unless forgotten; by other
///   processes on the same place too, if [`Capabilities::shared`] says so.
/// - *Durability.* If [`Capabilities::durable`] says so, what was put before a `flush` that returned `Ok` survives a crash.
/// - *Cancellation.* A call whose future is dropped has happened or has not; it leaves nothing half-written visible.
/// - *Retries.* Every call may be repeated.
/// - *Concurrency.* Any number of tasks may call at once.
/// - *Blocking.* No call blocks the thread for longer than a memory access would.
/// - *Errors* are for what a person should know of: a disk that is full, a server that is gone. [`Tiered`](crate::Tiered) counts them,
///   warns, and goes on without.
///
/// The suite `conformance` (feature of the same name) tests what of this can be tested from outside.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// The bytes under `key`.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError>;

    /// The bytes under each of `keys`, in their order, in as few round trips as the backend can.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError>;

    /// Puts bytes under `key`, to be forgotten after `ttl` if the backend is capable of that.
    async fn put(&self, key: &Key, value: Bytes, ttl: Option<Duration>) -> Result<(), BoxError>;

    /// Forgets `key`.
    async fn remove(&self, key: &Key) -> Result<(), BoxError>;

    /// All keys, in no order; an error if the backend is not capable of that.
    async fn list(&self) -> Result<Vec<Key>, BoxError>;

    /// Returns when everything put before is as durable as it gets.
    async fn flush(&self) -> Result<(), BoxError>;

    /// Flushes and tidies up. No other call follows.
    async fn close(&self) -> Result<(), BoxError>;

    /// What it can do. Always the same answer.
    fn capabilities(&self) -> Capabilities;
}

/// What a [`Backend`] can do beyond getting and putting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Lists its keys.
    pub list: bool,
    /// Forgets entries when their time is up.
    pub ttl: bool,
    /// Shows other processes on the same place what was put.
    pub shared: bool,
    /// Keeps what was flushed through a crash.
    pub durable: bool,
    /// Largest value that it takes, in bytes.
    pub value_bytes_max: Option<u64>,
}
