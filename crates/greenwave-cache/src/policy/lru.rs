//! Least recently used, based on the crate `lru`.

use std::hash::{BuildHasherDefault, Hasher};

use lru::LruCache;

use super::{Candidate, Policy};
use crate::sync::Mutex;

/// Evicts the least recently used entry. The order is exact if hits come one at a time. Concurrent
/// hits in one shard may be lost, because waiting to reorder the list would cost more than it
/// gains.
#[derive(Debug)]
pub struct Lru {
    order: Mutex<LruCache<u32, (), BuildHasherDefault<SlotHasher>>>,
}

impl Policy for Lru {
    fn shards(capacities: &[usize]) -> Vec<Self> {
        // The list is unbounded because the shard enforces the limit.
        let empty = || LruCache::unbounded_with_hasher(BuildHasherDefault::default());
        capacities.iter().map(|_| Self { order: Mutex::new(empty()) }).collect()
    }

    fn hit(&self, slot: u32) {
        if let Some(mut order) = self.order.try_lock() {
            order.promote(&slot);
        }
    }

    fn insert(&mut self, slot: u32, _: Candidate) {
        self.order.get_mut().put(slot, ());
    }

    fn remove(&mut self, slot: u32) {
        self.order.get_mut().pop(&slot);
    }

    fn victim(&mut self) -> Option<u32> {
        Some(self.order.get_mut().pop_lru()?.0)
    }

    fn ranking(&self) -> Vec<(u32, u8)> {
        self.order.lock().iter().rev().map(|(slot, ())| (*slot, 0)).collect()
    }
}

/// Spreads small numbers over the bits that the hash table uses.
#[derive(Debug, Default)]
struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, slot: u32) {
        self.0 = (self.0 ^ u64::from(slot)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
