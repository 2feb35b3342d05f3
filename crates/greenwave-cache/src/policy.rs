//! The `Policy` trait, which decides what a shard evicts, and its implementations. A shard holds
//! entries in numbered slots; policies see only the numbers.

mod adaptive;
mod lru;
mod queue;
mod regions;
mod s3fifo;
mod simulation;
mod sketch;

use std::fmt::Debug;

pub use adaptive::Adaptive;
pub use lru::Lru;
pub use s3fifo::S3Fifo;

/// Decides which entry a shard evicts.
///
/// # Contract
///
/// - The first call for a slot is `insert`. A slot is inserted again only after it was removed or
///   evicted.
/// - [`hit`](Self::hit) is called concurrently by many threads, under the shard's read lock. It
///   should do no more than relaxed stores. Losing a hit under contention is acceptable.
/// - All other calls are exclusive, under the write lock.
/// - [`victim`](Self::victim) returns a slot that was inserted and not removed, if one exists, and
///   stops tracking it. It may take time proportional to the insertions since the last call, but
///   not to the number of entries.
/// - No call panics, waits, or allocates for a hit.
///
/// A policy that breaks the contract costs entries, but no call. After a panic of `insert`,
/// `remove` or `victim`, or the choice of an unused slot, the panic is logged, and the shard evicts
/// all its entries and starts over with a policy from [`shards`](Self::shards).
///
/// `policy_conformance!` in the module `conformance` (feature `conformance`) tests this.
pub trait Policy: Debug + Send + Sync + 'static {
    /// Creates one policy per shard of a cache, with the given maximum numbers of entries. The
    /// policies may share what they learn.
    fn shards(capacities: &[usize]) -> Vec<Self>
    where
        Self: Sized;

    /// Records that the entry in `slot` was read.
    fn hit(&self, slot: u32);

    /// Records that an entry was inserted into `slot`.
    fn insert(&mut self, slot: u32, candidate: Candidate);

    /// Records that the entry in `slot` was removed, but not evicted.
    fn remove(&mut self, slot: u32);

    /// Chooses the entry to evict.
    fn victim(&mut self) -> Option<u32>;

    /// Returns all slots in order of eviction, each with its heat: the recent access count, or 0 if
    /// the policy does not count. May be slow.
    fn ranking(&self) -> Vec<(u32, u8)>;
}

/// Properties of an entry that a policy can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Candidate {
    /// Hash of the key. A key that is inserted again has the same hash.
    pub hash: u64,
    /// Weight of the entry; 0 without a weigher.
    pub weight: u64,
    /// Time that it took to compute the value, in microseconds; 0 if unspecified.
    pub cost_us: u64,
    /// Access count before the insertion, from an earlier process; 0 for a new entry.
    pub heat: u8,
}
