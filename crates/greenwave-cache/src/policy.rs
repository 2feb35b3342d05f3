//! Which entry has to go. The seam between a shard, which holds entries in numbered slots, and the policies, which see numbers only.

mod lru;
mod s3fifo;

use std::fmt::Debug;

pub use lru::Lru;
pub use s3fifo::S3Fifo;

/// Decides what a shard evicts.
///
/// # Contract
///
/// - A slot is inserted once before anything else is said of it, and again only after it was removed or was the victim.
/// - [`hit`](Self::hit) is called by many threads at once, under the shard's read lock: it should do relaxed stores and no more. A hit that is
///   lost under contention is no error.
/// - All other calls come alone, under the write lock.
/// - [`victim`](Self::victim) names a slot that is inserted and not removed, if there is one, and forgets it; it may take time in proportion
///   to what was inserted since, not to what is held.
/// - No call panics, allocates per hit, or waits.
pub trait Policy: Debug + Send + Sync + 'static {
    /// A policy for a shard of at most `capacity` entries, which is at least 1.
    fn new(capacity: usize) -> Self
    where
        Self: Sized;

    /// The entry in `slot` was read.
    fn hit(&self, slot: u32);

    /// An entry was put into `slot`; `hash` stands for its key, also when it comes back later.
    fn insert(&mut self, slot: u32, hash: u64);

    /// The entry in `slot` is gone, for reasons of its own.
    fn remove(&mut self, slot: u32);

    /// Chooses the entry to evict.
    fn victim(&mut self) -> Option<u32>;
}
