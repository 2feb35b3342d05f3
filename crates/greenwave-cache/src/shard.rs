//! A part of a cache: entries in numbered slots, a table from hashes to slots, and an index from tags to slots. Decides nothing about time:
//! callers say what time it is. Nothing is dropped here; whatever leaves is handed back, to be dropped outside the lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;

use crate::policy::Policy;

/// Never.
pub(crate) const NEVER: u64 = u64::MAX;

/// Something held, with what is needed to let it go. Times are milliseconds since the cache was made.
#[derive(Debug)]
pub(crate) struct Entry<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) hash: u64,
    pub(crate) weight: u64,
    pub(crate) expires_at: u64,
    /// How long it may go unread.
    pub(crate) idle_ms: u64,
    /// When it was last read. Relaxed: of two reads at once either time will do.
    pub(crate) read_at: AtomicU64,
    pub(crate) tags: Box<[Arc<str>]>,
}

impl<K, V> Entry<K, V> {
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        now >= self.expires_at || now >= self.read_at.load(Ordering::Relaxed).saturating_add(self.idle_ms)
    }
}

/// What an insertion pushed out.
#[derive(Debug)]
pub(crate) struct Displaced<K, V> {
    /// What stood under the same key.
    pub(crate) replaced: Option<Entry<K, V>>,
    /// What had to go for it.
    pub(crate) evicted: Vec<Entry<K, V>>,
}

#[derive(Debug)]
pub(crate) struct Shard<K, V, P> {
    table: HashTable<u32>,
    slots: Vec<Option<Entry<K, V>>>,
    free: Vec<u32>,
    tags: HashMap<Arc<str>, HashSet<u32>>,
    policy: P,
    pub(crate) weight: u64,
    entries_max: usize,
    weight_max: u64,
}

impl<K: Eq, V, P: Policy> Shard<K, V, P> {
    pub(crate) fn new(entries_max: usize, weight_max: u64) -> Self {
        Self {
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            tags: HashMap::new(),
            policy: P::new(entries_max),
            weight: 0,
            entries_max,
            weight_max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The entry of a key, whatever its age.
    pub(crate) fn find(&self, hash: u64, key: &K) -> Option<(u32, &Entry<K, V>)> {
        let slot = *self.table.find(hash, |slot| self.entry(*slot).key == *key)?;
        Some((slot, self.entry(slot)))
    }

    /// Takes note of a read.
    pub(crate) fn hit(&self, slot: u32) {
        self.policy.hit(slot);
    }

    /// Puts an entry in, and lets others go until it fits. One that never fits is evicted itself.
    pub(crate) fn insert(&mut self, entry: Entry<K, V>) -> Displaced<K, V> {
        let replaced = self.remove(entry.hash, &entry.key);
        let mut evicted = Vec::new();
        if entry.weight > self.weight_max || self.entries_max == 0 {
            evicted.push(entry);
            return Displaced { replaced, evicted };
        }
        while self.table.len() >= self.entries_max || self.weight + entry.weight > self.weight_max {
            let victim = self.policy.victim().expect("a shard that is full holds something");
            evicted.push(self.take(victim));
        }
        self.place(entry);
        Displaced { replaced, evicted }
    }

    /// Takes the entry of a key out.
    pub(crate) fn remove(&mut self, hash: u64, key: &K) -> Option<Entry<K, V>> {
        let (slot, _) = self.find(hash, key)?;
        self.policy.remove(slot);
        Some(self.take(slot))
    }

    /// Takes out all entries with a tag. Costs as much as they are many.
    pub(crate) fn remove_tag(&mut self, tag: &str) -> Vec<Entry<K, V>> {
        let slots: Vec<u32> = self.tags.get(tag).into_iter().flatten().copied().collect();
        slots.into_iter().map(|slot| self.remove_slot(slot)).collect()
    }

    /// Takes out all entries of which `unwanted` says so. Looks at every one.
    pub(crate) fn remove_where(&mut self, unwanted: impl Fn(&Entry<K, V>) -> bool) -> Vec<Entry<K, V>> {
        let slots = (0..).zip(&self.slots).filter(|(_, entry)| entry.as_ref().is_some_and(&unwanted));
        let slots: Vec<u32> = slots.map(|(slot, _)| slot).collect();
        slots.into_iter().map(|slot| self.remove_slot(slot)).collect()
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<K, V>> {
        self.slots.iter().flatten()
    }

    fn remove_slot(&mut self, slot: u32) -> Entry<K, V> {
        self.policy.remove(slot);
        self.take(slot)
    }

    fn entry(&self, slot: u32) -> &Entry<K, V> {
        self.slots[slot as usize].as_ref().expect("tables name slots in use")
    }

    fn place(&mut self, entry: Entry<K, V>) {
        let hash = entry.hash;
        self.weight += entry.weight;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("entries_max is 32 bits")
        });
        for tag in &entry.tags {
            self.tags.entry(tag.clone()).or_default().insert(slot);
        }
        self.slots[slot as usize] = Some(entry);
        let slots = &self.slots;
        let rehash = |slot: &u32| slots[*slot as usize].as_ref().expect("tables name slots in use").hash;
        self.table.insert_unique(hash, slot, rehash);
        self.policy.insert(slot, hash);
    }

    /// Empties a slot that the policy has forgotten.
    fn take(&mut self, slot: u32) -> Entry<K, V> {
        let entry = self.slots[slot as usize].take().expect("tables name slots in use");
        let found = self.table.find_entry(entry.hash, |other| *other == slot);
        found.expect("every slot in use is in the table").remove();
        for tag in &entry.tags {
            let slots = self.tags.get_mut(tag).expect("every tag in use is in the index");
            slots.remove(&slot);
            if slots.is_empty() {
                self.tags.remove(tag);
            }
        }
        self.weight -= entry.weight;
        self.free.push(slot);
        entry
    }
}
