//! Where contents go that do not fit in memory. The open seam of this crate: implement [`Cold`] to keep them elsewhere.

mod memory;
#[cfg(feature = "object")]
mod object;
#[cfg(feature = "segment")]
mod segment;

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

pub use memory::MemoryCold;
#[cfg(feature = "object")]
pub use object::{ObjectCold, ObjectOptions};
#[cfg(feature = "segment")]
pub use segment::{SegmentCold, SegmentOptions};

use crate::{BoxError, ColdStats};

/// A key and its value, on the way into a cold tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdEntry {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// A key whose value is probably similar, such as an earlier version's, if it is there at all. A tier may store the difference, and
    /// may ignore this.
    pub like: Option<Bytes>,
}

impl From<(Bytes, Bytes)> for ColdEntry {
    fn from((key, value): (Bytes, Bytes)) -> Self {
        Self { key, value, like: None }
    }
}

/// A map from keys to bytes that is slower and larger than memory.
///
/// Keys are up to 4097 arbitrary bytes, values of any length that fits in memory. A store calls it from many tasks at once.
///
/// # Contract
///
/// - *Visibility.* What a call that returned `Ok` wrote is seen by every call that starts later.
/// - *Durability.* What was written before a [`flush`](Self::flush) that returned `Ok` survives a crash and is there when the same
///   place is opened again. Nothing is promised before that.
/// - *Order.* Within one [`put_many`](Self::put_many) a later entry becomes durable no earlier than one before it, as far as the place
///   can arrange that. The store writes contents before the names that lead to them.
/// - *Truth.* A value that is damaged is absent (`Ok(None)`), not an error and never returned. The store checks hashes once more.
/// - *Independence.* A value stays what it is when the one that it was put as [`like`](ColdEntry::like) is removed.
/// - *Cancellation.* A call whose future is dropped has happened in full, in part (some of the entries) or not at all, and never leaves
///   a half-written value visible.
/// - *Retries.* Every call may be repeated. Keys of contents are only ever given the same value again.
/// - *Errors.* An error says that the call may have had no effect. The store keeps what it could not write, in memory.
/// - *Drop.* Dropping without [`close`](Self::close) loses at most what was not flushed.
/// - *Blocking.* No call blocks the thread for longer than a memory access would; what may wait goes to a blocking pool.
///
/// The suite `conformance` (feature of the same name) tests what of this can be tested from outside.
#[async_trait]
pub trait Cold: Debug + Send + Sync + 'static {
    /// The value of `key`.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError>;

    /// The values of `keys`, in their order.
    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError>;

    /// Whether each of `keys` has a value, as far as that is cheaper to find out than to write it again; else `false`.
    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError>;

    /// Sets each key to its value, in order.
    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError>;

    /// Removes the keys that are there.
    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError>;

    /// The keys that begin with `prefix`, in any order.
    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError>;

    /// Returns when everything written before is durable.
    async fn flush(&self) -> Result<(), BoxError>;

    /// Flushes and tidies up. No other call follows.
    async fn close(&self) -> Result<(), BoxError>;

    /// What it holds.
    fn stats(&self) -> ColdStats;
}
