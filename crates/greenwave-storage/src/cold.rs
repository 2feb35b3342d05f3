//! Where contents go that do not fit in memory. The open seam of this crate: implement [`ColdTier`] to keep them elsewhere.

mod memory;
#[cfg(feature = "object")]
mod object;
#[cfg(feature = "segment")]
mod segment;

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

pub use memory::MemoryColdTier;
#[cfg(feature = "object")]
pub use object::{ObjectColdTier, ObjectOptions};
#[cfg(feature = "segment")]
pub use segment::{SegmentColdTier, SegmentOptions};

use crate::{BoxError, ColdTierStats};

/// A key and its value, on the way into a cold tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdEntry {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// A key whose value is probably similar, such as an earlier version's, if it is there at all. A tier may store the difference, and
    /// may ignore this.
    pub base: Option<Bytes>,
}

impl From<(Bytes, Bytes)> for ColdEntry {
    fn from((key, value): (Bytes, Bytes)) -> Self {
        Self { key, value, base: None }
    }
}

/// A map from keys to bytes that is slower and larger than memory.
///
/// Keys are up to 4097 arbitrary bytes, values of any length up to [`value_bytes_max`](Self::value_bytes_max). A store calls it from
/// many tasks at once. One store uses a place at a time, unless the tier is [`SharedColdTier`].
///
/// # Contract
///
/// - *Visibility.* What a call that returned `Ok` wrote is seen by every call that starts later.
/// - *Durability.* What was written before a [`flush`](Self::flush) that returned `Ok` survives a crash and is there when the same
///   place is opened again. Nothing is promised before that.
/// - *Order.* Within one [`put_many`](Self::put_many) entries may become durable in any order. The store flushes contents before it
///   writes the names that lead to them.
/// - *Truth.* A value that is damaged is absent (`Ok(None)`), not an error and never returned. The store checks hashes once more.
/// - *Independence.* A value stays what it is when the one that it was put as [`base`](ColdEntry::base) is removed.
/// - *Cancellation.* A call whose future is dropped has happened in full, in part (some of the entries) or not at all, and never leaves
///   a half-written value visible.
/// - *Retries.* Every call may be repeated. Keys of contents are only ever given the same value again.
/// - *Errors.* An error says that the call may have had no effect. The store keeps what it could not write in memory, tries the
///   entries of a failed call one by one, and leaves out those that fail alone until its next call.
/// - *Limit.* A value of up to [`value_bytes_max`](Self::value_bytes_max) bytes is not refused for its length.
/// - *Drop.* Dropping without [`close`](Self::close) loses at most what was not flushed.
/// - *Blocking.* No call blocks the thread for longer than a memory access would; what may wait goes to a blocking pool.
///
/// The suite `conformance` (feature of the same name) tests what of this can be tested from outside.
#[async_trait]
pub trait ColdTier: Debug + Send + Sync + 'static {
    /// The value of `key`.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError>;

    /// The values of `keys`, in their order.
    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError>;

    /// Whether each of `keys` has a value, as far as that is cheaper to find out than to write it again; else `false`.
    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError>;

    /// Largest value that it takes, in bytes; `None` if it takes what fits in memory. Always the same answer. The store refuses larger
    /// contents when they are put.
    fn value_bytes_max(&self) -> Option<u64>;

    /// The same place as one that several stores may use at once, or `None`.
    fn shared(&self) -> Option<&dyn SharedColdTier>;

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
    fn stats(&self) -> ColdTierStats;
}

/// A [`ColdTier`] tier whose place several stores may use at once, in one process or in several.
///
/// # Contract
///
/// - *Visibility* among stores. What another store's call that returned `Ok` wrote is seen after the next [`refresh`](Self::refresh).
///   It may be seen before.
/// - *Atomicity.* A [`write`](Self::write) counts as a whole or not at all, after a crash and after a power cut too, except that
///   contents of one that has no effect may stay.
/// - *Order.* The puts and removals of a [`write`](Self::write) become durable no earlier than its contents.
/// - *Conditions* are compared with the newest values of all stores. Between the comparison and the changes there is no other write
///   of any store that has conditions.
/// - Everything else is as for [`ColdTier`].
#[async_trait]
pub trait SharedColdTier: ColdTier {
    /// Takes in what other stores wrote, and returns a number that changes whenever that was done, by this call or another.
    async fn refresh(&self) -> Result<u64, BoxError>;

    /// Like [`flush`](ColdTier::flush), and also makes durable what other stores wrote, as far as it has been taken in.
    async fn flush_shared(&self) -> Result<(), BoxError>;

    /// Writes if all conditions hold; returns whether they did.
    async fn write(&self, write: SharedWrite) -> Result<bool, BoxError>;

    /// A number that no store has on this place, now or later, as far as chance allows; another one in each call.
    fn new_store_id(&self) -> u64;

    /// Lets all see from now on that the store with this number is open: until what it returns is dropped, or the process ends in
    /// whatever way.
    async fn mark_open(&self, number: u64) -> Result<Box<dyn Send + Sync>, BoxError>;

    /// Whether there is such a [`hold`](Self::mark_open).
    async fn is_open(&self, number: u64) -> Result<bool, BoxError>;
}

/// Changes that [`SharedColdTier::write`] makes together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedWrite {
    /// Keys with the values that they have to have, or `None` for those that must have none.
    pub conditions: Vec<(Bytes, Option<Bytes>)>,
    /// Contents, which the puts may be about.
    pub contents: Vec<ColdEntry>,
    /// Keys to be set to these values.
    pub puts: Vec<(Bytes, Bytes)>,
    /// Keys to be removed.
    pub removals: Vec<Bytes>,
}
