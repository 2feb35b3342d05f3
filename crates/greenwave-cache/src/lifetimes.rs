//! Deadlines of entries of a cache with an [`Expiry`](crate::Expiry).

use std::time::Duration;

use crate::cache::Cache;
use crate::catch_panic::catch_panic;
use crate::deadline::Deadline;
use crate::hashing::KeyHasher;
use crate::locked_shard::LockedShard;
use crate::options::millis;
use crate::policy::Policy;
use crate::shard::{Entry, Shard};

impl<K: Eq, V, P: Policy, S: KeyHasher<K>> Cache<K, V, P, S> {
    /// Sets the deadline of an entry that is about to be inserted into `shard`, unless it has one.
    #[cold]
    pub(crate) fn begin_life(
        &self,
        locked: &LockedShard<K, V, P>,
        shard: &Shard<K, V, P>,
        entry: &mut Entry<K, V>,
    ) {
        let Some(expiry) = self.state.options.expiry.as_ref().filter(|_| entry.expires_at.is_undecided())
        else {
            return;
        };
        let now = self.now().unwrap_or(0);
        let previous = shard.find(entry.hash, &entry.key).map(|(_, previous)| previous);
        let previous = previous.filter(|previous| !previous.is_expired(now));
        let _reading = locked.reading();
        let life = catch_panic("expiry", || match previous {
            Some(previous) => {
                let left = previous.expires_at.left(now).map(Duration::from_millis);
                expiry.after_update(&entry.key, &entry.value, left)
            }
            None => expiry.after_create(&entry.key, &entry.value),
        });
        entry.expires_at = Deadline::never();
        if let Ok(life) = life {
            entry.expires_at.set(now, life.map(millis));
        }
    }

    /// Sets the deadline of an entry that was read. The caller holds the lock of its shard.
    #[inline]
    pub(crate) fn extend_life(&self, locked: &LockedShard<K, V, P>, entry: &Entry<K, V>, now: u64) {
        let Some(expiry) = &self.state.options.expiry else { return };
        let _reading = locked.reading();
        let left = entry.expires_at.left(now).map(Duration::from_millis);
        let life = catch_panic("expiry", || expiry.after_read(&entry.key, &entry.value, left));
        if let Ok(life) = life
            && life != left
        {
            entry.expires_at.set(now, life.map(millis));
        }
    }
}
