//! Which entry has to go. The seam between a shard, which holds entries in numbered slots, and the policies, which see numbers only.

mod adaptive;
mod cost_aware;
mod lru;
mod queue;
mod regions;
mod s3fifo;
mod simulation;
mod sketch;

use std::fmt::Debug;

pub use adaptive::Adaptive;
pub use cost_aware::CostAware;
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
///
/// The suite `conformance` (feature of the same name) tests this: `policy_conformance!`.
pub trait Policy: Debug + Send + Sync + 'static {
    /// A policy for each shard of one cache, of at most so many entries each. They may share what they learn.
    fn shards(capacities: &[usize]) -> Vec<Self>
    where
        Self: Sized;

    /// The entry in `slot` was read.
    fn hit(&self, slot: u32);

    /// An entry was put into `slot`.
    fn insert(&mut self, slot: u32, candidate: Candidate);

    /// The entry in `slot` is gone, for reasons of its own.
    fn remove(&mut self, slot: u32);

    /// Chooses the entry to evict.
    fn victim(&mut self) -> Option<u32>;

    /// All slots, those that would go first at the beginning, each with its heat: how often it was read lately, 0 if the policy keeps no
    /// count. May take its time.
    fn ranking(&self) -> Vec<(u32, u8)>;
}

/// What a policy may know of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Candidate {
    /// Stands for its key, also when it comes back later.
    pub hash: u64,
    /// What it weighs; 0 without a weigher.
    pub weight: u64,
    /// What it cost to make, in microseconds; 0 if nobody said.
    pub cost_us: u64,
    /// How often it was read before it came, in another life of the cache; 0 for what is new.
    pub heat: u8,
}
