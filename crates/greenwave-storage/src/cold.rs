//! The `ColdTier` trait, which stores contents that do not fit in memory, and its implementations.

mod guarded;
mod memory;
#[cfg(feature = "object")]
mod object;
#[cfg(feature = "segment")]
mod segment;

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

pub(crate) use guarded::{GuardedColdTier, catch_async};
pub use memory::MemoryColdTier;
#[cfg(all(feature = "conformance", feature = "object"))]
pub(crate) use object::check_object;
#[cfg(feature = "object")]
pub use object::{ObjectColdTier, ObjectOptions};
#[cfg(feature = "segment")]
pub use segment::{SegmentColdTier, SegmentOptions};

use crate::{BoxError, ColdTierStats};

/// A key and value to be written to a cold tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdEntry {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Key of a value that this one probably resembles, such as an earlier version. The key may not
    /// exist. A tier may store the value as a delta, or ignore the hint.
    pub base: Option<Bytes>,
}

impl From<(Bytes, Bytes)> for ColdEntry {
    fn from((key, value): (Bytes, Bytes)) -> Self {
        Self { key, value, base: None }
    }
}

/// A map from keys to bytes that is slower and larger than memory.
///
/// Keys are up to 4097 arbitrary bytes. Values have any length up to
/// [`value_bytes_max`](Self::value_bytes_max). A store calls from many tasks at once. Only one
/// store at a time uses a location, unless the tier implements [`SharedColdTier`].
///
/// # Contract
///
/// - *Visibility.* After a write returns `Ok`, every call that starts later sees it.
/// - *Durability.* Everything written before a [`flush`](Self::flush) that returned `Ok` survives a
///   crash, and exists when the location is opened again. Without a flush nothing is guaranteed.
/// - *Order.* The entries of a [`put_many`](Self::put_many) may become durable in any order. The
///   store flushes contents before it writes the names that refer to them.
/// - *Truth.* A corrupt value is absent (`Ok(None)`). It is neither an error nor returned. The
///   store verifies hashes as well.
/// - *Independence.* Removing the [`base`](ColdEntry::base) of a value does not affect the value.
/// - *Cancellation.* A call whose future is dropped took effect fully, for some of its entries, or
///   not at all. Partially written values are never visible.
/// - *Retries.* Every call may be repeated. Keys of contents always get the same value.
/// - *Errors.* After an error the call may have had no effect. The store keeps unwritten entries in
///   memory, tries the entries of a failed call one by one, and skips those that fail on their own
///   until its next call. A panic counts as an error, and so does a result of the wrong length.
/// - *Limit.* A value of up to [`value_bytes_max`](Self::value_bytes_max) bytes is not rejected for
///   its length.
/// - *Drop.* Dropping without [`close`](Self::close) loses at most unflushed writes.
/// - *Blocking.* No call blocks the thread for longer than a memory access. Longer work runs on a
///   blocking pool.
///
/// The module `conformance` (feature `conformance`) tests as much of this as can be tested from
/// outside.
#[async_trait]
pub trait ColdTier: Debug + Send + Sync + 'static {
    /// Returns the value of `key`.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError>;

    /// Returns the values of `keys`, in order.
    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError>;

    /// Returns whether each of `keys` has a value. May return `false` for an existing key if
    /// checking would cost more than writing again.
    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError>;

    /// Returns the maximum size of a value in bytes, or `None` without a limit. Always returns the
    /// same result. The store rejects larger contents when they are put.
    fn value_bytes_max(&self) -> Option<u64>;

    /// Returns the tier as a [`SharedColdTier`], or `None` if its location cannot be shared.
    fn shared(&self) -> Option<&dyn SharedColdTier>;

    /// Sets each key to its value, in order.
    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError>;

    /// Removes the given keys, if they exist.
    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError>;

    /// Returns the keys that begin with `prefix`, in any order.
    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError>;

    /// Makes everything written earlier durable.
    async fn flush(&self) -> Result<(), BoxError>;

    /// Flushes and releases resources. No other call follows.
    async fn close(&self) -> Result<(), BoxError>;

    /// Returns a snapshot of the tier's size.
    fn stats(&self) -> ColdTierStats;
}

/// A [`ColdTier`] whose location several stores can use at once, in one process or in several.
///
/// # Contract
///
/// - *Visibility* between stores. After a write of another store returns `Ok`, it is visible after
///   the next [`refresh`](Self::refresh). It may become visible earlier.
/// - *Atomicity.* A [`write`](Self::write) takes effect as a whole or not at all, even after a
///   crash or power failure. Only its contents may remain if it had no effect.
/// - *Order.* The puts and removals of a [`write`](Self::write) do not become durable before its
///   contents.
/// - *Conditions* are compared with the newest values of all stores. No conditional write of
///   another store happens between the comparison and the changes.
/// - Everything else is as for [`ColdTier`].
#[async_trait]
pub trait SharedColdTier: ColdTier {
    /// Picks up the changes of other stores. Returns a generation that changes whenever this call
    /// or another picked up changes.
    async fn refresh(&self) -> Result<u64, BoxError>;

    /// Like [`flush`](ColdTier::flush), but also makes the changes of other stores durable that
    /// have been picked up.
    async fn flush_shared(&self) -> Result<(), BoxError>;

    /// Performs the changes if all conditions hold, and returns whether they did.
    async fn write(&self, write: SharedWrite) -> Result<bool, BoxError>;

    /// Returns an id that no store on this location has used or will use, with high probability.
    /// Each call returns a different one.
    fn new_store_id(&self) -> u64;

    /// Marks the store with this id as open for all stores of the location, until the returned
    /// guard is dropped or the process ends.
    async fn mark_open(&self, store_id: u64) -> Result<Box<dyn Send + Sync>, BoxError>;

    /// Returns whether the store with this id is [marked as open](Self::mark_open).
    async fn is_open(&self, store_id: u64) -> Result<bool, BoxError>;
}

/// Changes that [`SharedColdTier::write`] makes atomically.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedWrite {
    /// Keys with their required values. `None` means that the key must not exist.
    pub conditions: Vec<(Bytes, Option<Bytes>)>,
    /// Contents, which the puts may refer to.
    pub contents: Vec<ColdEntry>,
    /// Keys with their new values.
    pub puts: Vec<(Bytes, Bytes)>,
    /// Keys to remove.
    pub removals: Vec<Bytes>,
}
