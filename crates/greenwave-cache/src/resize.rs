//! Limits that change while a cache is in use.

use crate::Error;
use crate::cache::{Cache, capacities};
use crate::catch_panic::catch_panic;
use crate::hashing::KeyHasher;
use crate::policy::Policy;
use crate::shard::Displaced;

impl<K: Eq, V, P: Policy, S: KeyHasher<K>> Cache<K, V, P, S> {
    /// Changes the maximum number of entries. If there are more, the policy evicts the
    /// surplus. A new policy replaces the old one, and gets the entries in its order of eviction.
    ///
    /// The number of shards stays. For a cache that will grow a lot, set
    /// [`CacheOptions::shards`](crate::CacheOptions::shards).
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if the number exceeds 32 bits, or is neither 0 nor enough
    /// for one entry in each shard, and [`Error::Panicked`] if the policy panics. The limit is
    /// unchanged then.
    pub fn set_entries_max(&self, entries_max: usize) -> Result<(), Error> {
        let refuse = |expected| {
            let value = entries_max.to_string();
            Err(Error::InvalidOption { option: "entries_max", value, expected })
        };
        if u32::try_from(entries_max).is_err() {
            return refuse("at most 4294967295");
        }
        if entries_max != 0 && entries_max < self.shards.len() {
            return refuse("0, or at least one entry for each shard");
        }
        let capacities = capacities(entries_max, self.shards.len());
        let policies = catch_panic("policy", || P::shards(&capacities))?;
        if policies.len() != self.shards.len() {
            let value = format!("{} for {} shards", policies.len(), self.shards.len());
            return Err(Error::InvalidOption { option: "policies", value, expected: "one per shard" });
        }
        let _resizing = self.state.resizing.lock();
        for ((locked, capacity), policy) in self.shards.iter().zip(capacities).zip(policies) {
            let mut displaced = Displaced::NONE;
            locked.write().resize(capacity, policy, &mut displaced);
            self.notify_displaced(&displaced);
        }
        Ok(())
    }

    /// Changes the maximum weight. If the entries weigh more, the policy evicts the surplus.
    /// Values above 2^63 are treated as 2^63.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if the cache was created without
    /// [`CacheOptions::weight_max`](crate::CacheOptions::weight_max).
    pub fn set_weight_max(&self, weight_max: u64) -> Result<(), Error> {
        let Some(budget) = &self.state.budget else {
            let (option, value) = ("weight_max", weight_max.to_string());
            return Err(Error::InvalidOption { option, value, expected: "a cache with a weight limit" });
        };
        budget.set_weight_max(weight_max);
        let mut displaced = Displaced::NONE;
        self.evict_over_budget(0, &mut displaced);
        self.notify_displaced(&displaced);
        Ok(())
    }
}
