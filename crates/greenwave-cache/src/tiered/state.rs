//! The tiers of a cache, which reads and background prefetches share.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::options::{QuarantinedRecord, TieredOptions, unix_millis};
use crate::Key;
use crate::catch_panic::catch_panic;
use crate::record::{Record, RecordError, Secret};
use crate::stats::Counter;
use crate::tier::{Tier, TierHandle};

/// Number of invalid records that are retained for inspection.
const QUARANTINED_MAX: usize = 32;
/// Maximum number of prefetched keys that are tracked until they are read.
const PREFETCHED_KEYS_MAX: usize = 4096;

/// State shared with background prefetches.
#[derive(Debug)]
pub(super) struct TieredState {
    pub(super) tiers: Vec<TierHandle>,
    pub(super) options: TieredOptions,
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) saved_us: Counter,
    pub(super) lease_failures: Counter,
    pub(super) prefetched: Counter,
    pub(super) prefetch_hits: Counter,
    pub(super) prefetched_keys: Mutex<PrefetchedKeys>,
    pub(super) prefetching: Arc<Semaphore>,
    pub(super) quarantine: Mutex<VecDeque<QuarantinedRecord>>,
}

/// Which tiers a record is copied to after it was found in a slower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backfill {
    /// All tiers before that tier.
    FasterTiers,
    /// No tier.
    None,
}

/// Prefetched keys that have not been read yet. The oldest are dropped when there are too many.
#[derive(Debug, Default)]
pub(super) struct PrefetchedKeys {
    pub(super) keys: HashSet<Key>,
    order: VecDeque<Key>,
}

impl TieredState {
    /// Returns the record from the first tier that has it, starting with the tier `first`, and
    /// copies it to the tiers before.
    pub(super) async fn find(&self, key: &Key, first: usize) -> Option<Record> {
        for (index, tier) in self.tiers.iter().enumerate().skip(first) {
            let Some(stored) = tier.read(key).await else { continue };
            if let Some(record) = self.accept(tier, key, &stored).await {
                self.backfill(index, key, &record, &stored).await;
                return Some(record);
            }
        }
        None
    }

    /// Like [`find`](Self::find), for many keys at once.
    pub(super) async fn find_many(&self, keys: &[Key], first: usize, fill: Backfill) -> Vec<Option<Record>> {
        let mut found: Vec<Option<Record>> = vec![None; keys.len()];
        for (index, tier) in self.tiers.iter().enumerate().skip(first) {
            let missing: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            let asked: Vec<Key> = missing.iter().map(|at| keys[*at]).collect();
            for (at, stored) in missing.into_iter().zip(tier.read_many(&asked).await) {
                let Some(stored) = stored else { continue };
                found[at] = self.accept(tier, &keys[at], &stored).await;
                if let (Some(record), Backfill::FasterTiers) = (&found[at], fill) {
                    self.backfill(index, &keys[at], record, &stored).await;
                }
            }
        }
        found
    }

    pub(super) async fn prefetch(&self, keys: &[Key]) {
        let mut absent = Vec::new();
        for key in keys {
            // Reads the backend directly, because a prefetch does not count as a read.
            let there = self.tiers[0].tier().backend.get(key).await;
            absent.extend(matches!(there, Ok(None)).then_some(*key));
        }
        let found = self.find_many(&absent, 1, Backfill::FasterTiers).await;
        for (key, _) in absent.iter().zip(found).filter(|(_, record)| record.is_some()) {
            self.prefetched.add(1);
            self.prefetched_keys.lock().insert(*key);
        }
    }

    pub(super) fn count_hit(&self, record: &Record) {
        self.hits.add(1);
        self.saved_us.add_saturating(u64::try_from(record.cost.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns the secrets whose seals a tier accepts.
    pub(super) fn secrets<'t>(&'t self, tier: &'t Tier) -> &'t [Secret] {
        if tier.secrets.is_empty() { self.options.secret.as_slice() } else { &tier.secrets }
    }

    /// Returns the record if it verifies and is young enough. Otherwise quarantines it and removes
    /// it from the tier, unless another user's secret may verify it.
    async fn accept(&self, tier: &TierHandle, key: &Key, stored: &Bytes) -> Option<Record> {
        let mut is_untrusted = false;
        match self.decode(tier.tier(), key, stored) {
            Ok(record) => {
                tier.counters().hits.add(1);
                return Some(record);
            }
            // The record is valid, only too old.
            Err(None) => {}
            Err(Some(reason)) => {
                let name = tier.tier().name.clone();
                is_untrusted = match reason {
                    // It belongs to those who have its secret.
                    RecordError::Untrusted { sealed: true } => true,
                    RecordError::Unsigned | RecordError::UntrustedSigner(_) | RecordError::WrongSignature => {
                        true
                    }
                    RecordError::Corrupt | RecordError::Untrusted { .. } => {
                        !tier.tier().secrets.is_empty() || !tier.tier().trusted.is_empty()
                    }
                    _ => false,
                };
                if !is_untrusted {
                    tracing::warn!(tier = name, %key, %reason, "invalid record: treated as a miss");
                } else if tier.counters().untrusted_records.get() == 0 {
                    // A server may hold thousands of them.
                    let kind = if tier.tier().trusted.is_empty() { "seal" } else { "trusted signature" };
                    tracing::warn!(tier = name, %key, %reason, "records without a valid {kind} are misses");
                }
                let bytes = stored.clone();
                self.quarantine_record(QuarantinedRecord { tier: name, key: *key, reason, bytes });
            }
        }
        tier.counters().misses.add(1);
        tier.counters().invalid_records.add(1);
        if is_untrusted {
            tier.counters().untrusted_records.add(1);
        } else {
            tier.remove(key).await;
        }
        None
    }

    /// Decodes a record, which the tier's keys must verify if there are any. The error is `None` if
    /// the record is valid and only too old.
    fn decode(&self, tier: &Tier, key: &Key, stored: &Bytes) -> Result<Record, Option<RecordError>> {
        let (key, secrets) = (tier.stored_key(key), self.secrets(tier));
        let record = Record::decode_with(&key, stored, self.options.schema, secrets, &tier.trusted)?;
        match self.remaining_life(&record) {
            Some(Duration::ZERO) => Err(None),
            _ => Ok(record),
        }
    }

    fn quarantine_record(&self, bad: QuarantinedRecord) {
        let mut quarantine = self.quarantine.lock();
        quarantine.push_back(bad);
        if quarantine.len() > QUARANTINED_MAX {
            quarantine.pop_front();
        }
    }

    /// Returns the time until a record becomes too old. `None` means never.
    pub(super) fn remaining_life(&self, record: &Record) -> Option<Duration> {
        let age_max = self.options.age_max?;
        let now_ms = catch_panic("clock", self.options.clock).unwrap_or_else(|_| unix_millis());
        Some(age_max.saturating_sub(Duration::from_millis(now_ms.saturating_sub(record.created_ms))))
    }

    async fn backfill(&self, found_in: usize, key: &Key, record: &Record, stored: &Bytes) {
        let ttl = self.remaining_life(record);
        let source = self.tiers[found_in].tier();
        if source.scope.is_some() {
            return;
        }
        let is_filled = |tier: &&TierHandle| tier.is_writable() && tier.tier().scope.is_none();
        for tier in self.tiers[..found_in].iter().filter(is_filled) {
            tier.counters().backfills.add(1);
            let stored = if tier.tier().has_own_form() || source.has_own_form() {
                tier.tier().encode(key, record, self.options.secret.as_ref())
            } else {
                stored.clone()
            };
            // The caller did not request this write, so a failure is only counted.
            let _ = tier.write(key, stored, ttl).await;
        }
    }
}

impl PrefetchedKeys {
    /// Keys that were read are removed from the set but not from the order. They only shorten it a
    /// little.
    fn insert(&mut self, key: Key) {
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > PREFETCHED_KEYS_MAX {
            self.order.pop_front().map(|oldest| self.keys.remove(&oldest));
        }
    }
}
