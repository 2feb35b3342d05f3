//! Rate limits with buckets for each key, such as a user, an address or a host.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Rate, TokenBuckets};

/// [`TokenBuckets`] for each key, with the same rates for all keys. Clones share the buckets.
///
/// At most `keys_max` keys are held in memory. A key whose buckets are full is the same as a new
/// one, so these are removed first, without any effect on the limits. If too few are full, the keys
/// that were used least recently are removed, and start with full buckets when they return: choose
/// `keys_max` larger than the number of keys that are active within a period.
///
/// ```
/// use greenwave_pooling::{KeyedTokenBuckets, Rate};
///
/// let limits = KeyedTokenBuckets::new([Rate::per_minute(2)], 10_000);
/// assert!(limits.try_take("10.0.0.1", [1]));
/// assert!(limits.try_take("10.0.0.1", [1]));
/// assert!(!limits.try_take("10.0.0.1", [1]));
/// assert!(limits.try_take("10.0.0.2", [1]));
/// # let _: KeyedTokenBuckets<String, 1> = limits;
/// ```
pub struct KeyedTokenBuckets<K, const N: usize> {
    rates: [Rate; N],
    keys_max: usize,
    keys: Arc<Mutex<Keys<K, N>>>,
}

struct Keys<K, const N: usize> {
    buckets: HashMap<K, Entry<N>>,
    /// Number of uses of all keys.
    uses: u64,
}

struct Entry<const N: usize> {
    buckets: TokenBuckets<N>,
    /// The number of the latest use.
    used: u64,
}

impl<K: Hash + Eq, const N: usize> KeyedTokenBuckets<K, N> {
    /// Creates an empty set for at most `keys_max` keys; 0 counts as 1.
    #[must_use]
    pub fn new(rates: [Rate; N], keys_max: usize) -> Self {
        let keys = Keys { buckets: HashMap::new(), uses: 0 };
        Self { rates, keys_max: keys_max.max(1), keys: Arc::new(Mutex::new(keys)) }
    }

    /// Returns the buckets of a key, which are full for a new one. They limit the key as long as
    /// they are held, even if the key is removed here and returns with others.
    pub fn of<Q>(&self, key: &Q) -> TokenBuckets<N>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut keys = self.keys.lock();
        keys.uses += 1;
        let used = keys.uses;
        if let Some(entry) = keys.buckets.get_mut(key) {
            entry.used = used;
            return entry.buckets.clone();
        }
        if keys.buckets.len() >= self.keys_max {
            keys.make_room(self.keys_max);
        }
        let buckets = TokenBuckets::new(self.rates);
        keys.buckets.insert(key.to_owned(), Entry { buckets: buckets.clone(), used });
        buckets
    }

    /// Waits until all units of a key are available and takes them, as [`TokenBuckets::take`] does.
    /// Callers of one key are served in the order of their calls.
    ///
    /// Cancel safe: a cancelled call takes nothing.
    pub async fn take<Q>(&self, key: &Q, wanted: [u64; N])
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let buckets = self.of(key);
        buckets.take(wanted).await;
    }

    /// Takes the units of a key if all are available and no other caller of the key waits. Returns
    /// false otherwise.
    #[must_use]
    pub fn try_take<Q>(&self, key: &Q, wanted: [u64; N]) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.of(key).try_take(wanted)
    }

    /// Removes a key. Its buckets are full when it returns.
    pub fn remove<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.keys.lock().buckets.remove(key);
    }

    /// Returns the number of keys in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.lock().buckets.len()
    }

    /// Returns whether no key is in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Hash + Eq, const N: usize> Keys<K, N> {
    /// Removes at least a quarter of the keys, and at least one, so that the next calls need not
    /// look at all keys again. Keys in use are removed last.
    fn make_room(&mut self, keys_max: usize) {
        self.buckets.retain(|_, entry| entry.buckets.is_shared() || !entry.buckets.is_full());
        let rest = keys_max - (keys_max / 4).max(1);
        let excess = self.buckets.len().saturating_sub(rest);
        if excess == 0 {
            return;
        }
        let age = |entry: &Entry<N>| (entry.buckets.is_shared(), entry.used);
        let mut ages: Vec<(bool, u64)> = self.buckets.values().map(age).collect();
        let (_, last, _) = ages.select_nth_unstable(excess - 1);
        let last = *last;
        self.buckets.retain(|_, entry| age(entry) > last);
    }
}

impl<K, const N: usize> Clone for KeyedTokenBuckets<K, N> {
    fn clone(&self) -> Self {
        Self { rates: self.rates, keys_max: self.keys_max, keys: Arc::clone(&self.keys) }
    }
}

impl<K, const N: usize> fmt::Debug for KeyedTokenBuckets<K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.lock().buckets.len();
        f.debug_struct("KeyedTokenBuckets").field("rates", &self.rates).field("keys", &keys).finish()
    }
}
