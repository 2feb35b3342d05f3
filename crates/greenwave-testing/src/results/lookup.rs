//! Looks up and stores the results of tests in the cache.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::{Key, Record, Tiered};
use greenwave_inputs::{DiscoveredDeps, PathStates, now_ms};

use crate::Test;
use crate::results::key;
use crate::results::key_chain::{KeyChain, STEPS_MAX};
use crate::results::more_reads::MoreReads;
use crate::results::outcome::Outcome;
use crate::results::record::{self, StoredRecord, StoredResult};
use crate::results::written::{WrittenFiles, WrittenSet};

/// The cache of results.
#[derive(Debug)]
pub(crate) struct ResultCache {
    tiers: Tiered,
    pub(super) written: WrittenFiles,
    /// Whether failures are stored and looked up like passes.
    cache_failures: bool,
}

/// A test to look up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LookupQuery<'a> {
    /// First key of the test.
    pub(crate) key: Key,
    /// Key of the list of the test's complete traces, if its result may depend on nothing else.
    pub(crate) traces: Option<Key>,
    /// Key of the record of the files that tests of the project write.
    pub(crate) written: Key,
    /// Current states of paths.
    pub(crate) states: &'a PathStates,
    /// Time limit of the test. A result that took longer is no hit.
    pub(crate) time_max: Duration,
    /// Retries of the test. A failure after fewer of them is no hit.
    pub(crate) retries: u32,
}

/// The outcome of a lookup.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all lookups are hits, which a box would only slow down"
)]
pub(crate) enum Lookup {
    /// The result, stored under the last key of the chain.
    Hit(Outcome, KeyChain),
    /// No record is stored under the last key.
    Miss(KeyChain),
    /// The result under the last key was determined under other limits, and could differ under the
    /// current ones.
    OverLimit(KeyChain),
    /// The result must not be used, for example because its record cannot be decoded.
    Corrupt,
}

impl LookupQuery<'_> {
    /// Returns the outcome of a stored result; `None` if the test could end in another
    /// way under its current limits.
    pub(crate) fn outcome(&self, stored: StoredResult, key: &Key) -> Option<Outcome> {
        stored.outcome_under(key, self.time_max, self.retries)
    }
}

impl ResultCache {
    /// Creates the cache of results in these tiers.
    pub(crate) fn new(tiers: Tiered, cache_failures: bool) -> Self {
        Self { tiers, written: WrittenFiles::default(), cache_failures }
    }

    /// Returns the tiers.
    pub(crate) fn tiers(&self) -> &Tiered {
        &self.tiers
    }

    /// Looks up many tests at once, with as few calls to the tiers as possible. The results have
    /// the order of the queries.
    pub(crate) async fn lookup(&self, queries: &[LookupQuery<'_>]) -> Vec<Lookup> {
        let mut found: Vec<Option<Lookup>> = queries.iter().map(|_| None).collect();
        let start = |(at, query): (usize, &LookupQuery<'_>)| (at, KeyChain::new(query.key));
        let mut open: Vec<(usize, KeyChain)> = queries.iter().enumerate().map(start).collect();
        let mut misses = Vec::new();
        let mut decoder = Decoder::default();
        // The bound ends a cycle, which another writer of the cache could have created.
        for _ in 0..=STEPS_MAX {
            let keys: Vec<Key> = open.iter().map(|(_, chain)| *chain.last()).collect();
            let records = self.tiers.get_many(&keys).await;
            for ((at, chain), record) in std::mem::take(&mut open).into_iter().zip(records) {
                match record.map(|record| decoder.decode(&record)) {
                    None => misses.push((at, chain)),
                    Some(Some(StoredRecord::Result(stored))) => {
                        found[at] = Some(match queries[at].outcome(stored, chain.last()) {
                            Some(outcome) => Lookup::Hit(outcome, chain),
                            None => Lookup::OverLimit(chain),
                        });
                    }
                    Some(Some(StoredRecord::Dependencies(set))) => {
                        open.push((at, chain.then(set, queries[at].states)));
                    }
                    Some(Some(StoredRecord::Traces(_) | StoredRecord::SameAs(_)) | None) => {
                        found[at] = Some(Lookup::Corrupt);
                    }
                }
            }
            if open.is_empty() {
                break;
            }
        }
        for (at, outcome, chain) in self.lookup_traces(&misses, queries).await {
            found[at] = Some(Lookup::Hit(outcome, chain));
        }
        misses.retain(|(at, _)| found[*at].is_none());
        for (at, failure) in self.failures(misses, queries).await {
            found[at] = Some(failure);
        }
        for (at, chain) in open {
            found[at] = Some(Lookup::Miss(chain));
        }
        found.into_iter().flatten().collect()
    }

    /// Looks up one test.
    pub(crate) async fn lookup_one(&self, query: LookupQuery<'_>) -> Lookup {
        self.lookup(&[query]).await.pop().unwrap_or(Lookup::Corrupt)
    }

    /// Looks up failures where no pass is stored. Their keys differ from those of passes, and only
    /// runs that cache failures look them up.
    async fn failures(
        &self,
        misses: Vec<(usize, KeyChain)>,
        queries: &[LookupQuery<'_>],
    ) -> Vec<(usize, Lookup)> {
        let mut records = Vec::new();
        if self.cache_failures && !misses.is_empty() {
            let keys: Vec<Key> = misses.iter().map(|(_, chain)| key::failure(chain.last())).collect();
            records = self.tiers.get_many(&keys).await;
        }
        let mut records = records.into_iter();
        let resolve = |(at, chain): (usize, KeyChain)| {
            let record = records.next().flatten();
            let outcome = match record.as_ref().and_then(StoredRecord::decode) {
                Some(StoredRecord::Result(stored)) => queries[at].outcome(stored, chain.last()),
                _ => None,
            };
            match outcome {
                Some(outcome) => (at, Lookup::Hit(outcome, chain)),
                None => (at, Lookup::Miss(chain)),
            }
        };
        misses.into_iter().map(resolve).collect()
    }

    /// Stores a record. Errors are ignored because the tiers log them.
    pub(crate) async fn put(&self, key: &Key, record: &Record) {
        let _ = self.tiers.put(key, record).await;
    }

    /// Stores a failure with the dependencies that were discovered after the last key of its chain.
    pub(crate) async fn put_failure(
        &self,
        chain: &KeyChain,
        set: &DiscoveredDeps,
        states: [u8; 32],
        result: &Record,
    ) {
        if set.is_empty() {
            return self.put(&key::failure(chain.last()), result).await;
        }
        self.put(&key::failure(&key::next(chain.last(), &states)), result).await;
        self.put(chain.last(), &record::dependencies(set)).await;
    }

    /// Adds files that a test of a project has written, relative to the project. Returns all files
    /// that its tests write.
    pub(crate) async fn add_written(
        &self,
        project: &Key,
        written: impl Iterator<Item = PathBuf>,
    ) -> Arc<WrittenSet> {
        self.written.add(&self.tiers, project, written).await
    }

    /// Stores reads of a test beyond its declared inputs.
    pub(crate) async fn put_more_reads(&self, test: &Test, reads: &MoreReads) {
        let mut all = reads.clone();
        let key = key::reads_more(test);
        if let Some(stored) = self.tiers.get(&key).await.as_ref().and_then(decode_reads) {
            all.extend(stored);
        }
        self.put(&key, &record::dependencies(&all.to_dependencies())).await;
    }

    /// Returns for each test what traced runs have stored about its reads beyond its declared
    /// inputs, with the age of the record.
    pub(crate) async fn more_reads(&self, tests: &[&Test]) -> Vec<Option<(MoreReads, Duration)>> {
        let keys: Vec<Key> = tests.iter().map(|test| key::reads_more(test)).collect();
        let records = self.tiers.get_many(&keys).await;
        let decoded = |record: Option<Record>| {
            let record = record?;
            let age = Duration::from_millis(now_ms().saturating_sub(record.created_ms));
            Some((decode_reads(&record)?, age))
        };
        records.into_iter().map(decoded).collect()
    }
}

fn decode_reads(record: &Record) -> Option<MoreReads> {
    match StoredRecord::decode(record)? {
        StoredRecord::Dependencies(set) => Some(MoreReads::from_dependencies(&set)),
        _ => None,
    }
}

/// Decodes records. Tests often share a set of dependencies, so each set is decoded only once.
#[derive(Default)]
struct Decoder {
    /// Decoded sets by the BLAKE3 hashes of their records, which are several kilobytes each.
    sets: HashMap<[u8; 32], Arc<DiscoveredDeps>>,
}

impl Decoder {
    fn decode(&mut self, record: &Record) -> Option<StoredRecord> {
        let hash = *blake3::hash(&record.payload).as_bytes();
        if let Some(set) = self.sets.get(&hash) {
            return Some(StoredRecord::Dependencies(Arc::clone(set)));
        }
        let decoded = StoredRecord::decode(record)?;
        if let StoredRecord::Dependencies(set) = &decoded {
            self.sets.insert(hash, Arc::clone(set));
        }
        Some(decoded)
    }
}
