//! The right to compute a missing value, as a guard.

use std::fmt;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::computation::ComputationOutcome;
use crate::hashing::{KeyHasher, SeededHasher};
use crate::options::EntryOptions;
use crate::policy::{Adaptive, Policy};
use crate::sync::time_since;
use crate::waiter::Waiter;

/// The right to insert the missing value of a key, which others wait for. Returned by
/// [`Cache::get_or_reserve`].
///
/// [`insert`](Self::insert) caches the value and gives it to all who wait. If the reservation is
/// dropped instead, the next one who waits gets it.
#[must_use = "others wait for the value until the reservation is dropped"]
pub struct Reservation<'a, K, V, P = Adaptive, S = SeededHasher> {
    cache: &'a Cache<K, V, P, S>,
    key: K,
    started: Instant,
    // Before the waiter, so that the lock passes on before the waiter leaves.
    outcome: OwnedMutexGuard<ComputationOutcome<V>>,
    waiter: Waiter<'a, K, V, P>,
}

impl<K: Eq + Clone, V: Clone, P: Policy, S: KeyHasher<K>> Cache<K, V, P, S> {
    /// Returns the cached value of `key`, or the right to insert it. While one task has the right,
    /// others that ask for the key wait, here and in [`get_or_compute`](Self::get_or_compute).
    ///
    /// Use it where a closure does not fit, for example because the value is computed in several
    /// steps of the caller. A task that holds a reservation must not ask for the same key, which
    /// would deadlock. Counts as a hit or a miss like `get_or_compute`. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Returns a [`Reservation`] if the key has no value.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use greenwave_cache::{Cache, CacheOptions};
    ///
    /// let cache: Cache<u32, String> = Cache::new(CacheOptions::default())?;
    /// let page = match cache.get_or_reserve(7).await {
    ///     Ok(page) => page,
    ///     Err(reservation) => reservation.insert("page 7".into()),
    /// };
    /// assert_eq!(page, "page 7");
    /// # Ok::<(), greenwave_cache::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_or_reserve(&self, key: K) -> Result<V, Reservation<'_, K, V, P, S>> {
        if let Some(value) = self.get_counting_hits(&key, &[]) {
            return Ok(value);
        }
        let waiter = Waiter::join(self.shard_for(self.hashing.hash_key(&key)), &key);
        // Declared after the waiter, so that the lock passes on before the waiter leaves.
        let outcome = waiter.lock_owned().await;
        if let Some(value) = &outcome.value {
            self.count_access(&key, &[], Some(0));
            return Ok(value.clone());
        }
        // The previous computation may have finished between the lookup and the join.
        if let Some(value) = self.get_counting_hits(&key, &[]) {
            return Ok(value);
        }
        self.count_access(&key, &[], None);
        Err(Reservation { cache: self, key, started: Instant::now(), outcome, waiter })
    }
}

impl<K: Eq + Clone, V: Clone, P: Policy, S: KeyHasher<K>> Reservation<'_, K, V, P, S> {
    /// Returns the reserved key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Inserts the value, gives it to all who wait, and returns it.
    pub fn insert(self, value: V) -> V {
        self.insert_with(value, &EntryOptions::default())
    }

    /// Like [`insert`](Self::insert), with options for the new entry. Unless they have a cost, the
    /// time since the reservation counts.
    pub fn insert_with(self, value: V, options: &EntryOptions<'_>) -> V {
        let Self { cache, key, started, mut outcome, waiter } = self;
        let cost = options.cost.or_else(|| Some(time_since(started)));
        outcome.value = Some(value.clone());
        cache.publish(key, value.clone(), &EntryOptions { cost, ..options.clone() }, &waiter);
        drop(outcome);
        value
    }
}

impl<K: fmt::Debug, V, P, S> fmt::Debug for Reservation<'_, K, V, P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("key", &self.key).finish_non_exhaustive()
    }
}
