//! A shard's policy, whose panics and invalid choices fail no call.

use crate::catch_panic::catch_panic;
use crate::policy::{Candidate, Policy};

/// The policy of a shard, until it fails.
///
/// After a panic nobody knows which slots the policy tracks. It is not called again, and the shard
/// must [replace](Self::replace) it, which requires that the shard is empty.
#[derive(Debug)]
pub(crate) struct ShardPolicy<P> {
    /// `None` if a policy could not be created. The shard then holds nothing.
    policy: Option<P>,
    has_failed: bool,
}

impl<P: Policy> ShardPolicy<P> {
    pub(crate) fn new(policy: P) -> Self {
        Self { policy: Some(policy), has_failed: false }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether the policy can be called at all.
    pub(crate) fn exists(&self) -> bool {
        self.policy.is_some()
    }

    /// Starts over with a new policy for an empty shard.
    #[cold]
    pub(crate) fn replace(&mut self, entries_max: usize) {
        let created = catch_panic("policy", || P::shards(&[entries_max]).pop());
        let old = std::mem::replace(&mut self.policy, created.ok().flatten());
        self.has_failed = false;
        // The panic is logged. The policy is gone in any case.
        let _ = catch_panic("policy", || drop(old));
    }

    /// Reports a hit. A panic loses the hit, as contention may.
    #[inline]
    pub(crate) fn hit(&self, slot: u32) {
        if let Some(policy) = self.policy.as_ref().filter(|_| !self.has_failed) {
            let _ = catch_panic("policy", || policy.hit(slot));
        }
    }

    #[inline]
    pub(crate) fn insert(&mut self, slot: u32, candidate: Candidate) {
        self.call(|policy| policy.insert(slot, candidate));
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.call(|policy| policy.remove(slot));
    }

    /// Returns the slot to empty, or `None` if the policy has failed. A policy that chooses no slot
    /// or an unused one fails.
    #[inline]
    pub(crate) fn victim(&mut self, is_used: impl Fn(u32) -> bool) -> Option<u32> {
        self.call(|policy| {
            let victim = policy.victim().expect("a full shard has an entry to evict");
            assert!(is_used(victim), "the policy chose the unused slot {victim}");
            victim
        })
    }

    /// Returns the ranking, which is empty if the policy has failed. It may name unused slots.
    pub(crate) fn ranking(&self) -> Vec<(u32, u8)> {
        let Some(policy) = self.policy.as_ref().filter(|_| !self.has_failed) else { return Vec::new() };
        catch_panic("policy", || policy.ranking()).unwrap_or_default()
    }

    #[inline]
    fn call<T>(&mut self, call: impl FnOnce(&mut P) -> T) -> Option<T> {
        let policy = self.policy.as_mut().filter(|_| !self.has_failed)?;
        let called = catch_panic("policy", || call(policy)).ok();
        self.has_failed = called.is_none();
        called
    }
}
