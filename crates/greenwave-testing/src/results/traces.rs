//! Looks up and stores results by the complete trace of a run.
//!
//! A test has a list of traces of earlier runs. A trace holds every path that its run observed, so
//! its result is valid wherever all of these paths have the same states.
//! [design/0011](../../../../docs/design/0011-results-by-the-trace-alone.md) says which traces are
//! complete.

use std::collections::HashMap;
use std::sync::Arc;

use greenwave_cache::Key;
use greenwave_inputs::{DiscoveredDeps, PathStates};

use crate::results::key;
use crate::results::key_chain::KeyChain;
use crate::results::lookup::{LookupQuery, ResultCache};
use crate::results::outcome::Outcome;
use crate::results::record::{self, StoredRecord};
use crate::results::written::first_written;

/// Maximum number of traces of one test. The oldest is dropped.
const TRACES_MAX: usize = 16;

/// A test whose traces are tried one after another.
struct Candidate {
    /// Index of the query.
    at: usize,
    /// First key of the test.
    first: Key,
    /// Key of its list of traces.
    list: Key,
    traces: Vec<Key>,
}

impl ResultCache {
    /// Returns the results of those queries for which an earlier trace still holds. Each comes with
    /// the index of its query.
    pub(crate) async fn lookup_traces(
        &self,
        misses: &[(usize, KeyChain)],
        queries: &[LookupQuery<'_>],
    ) -> Vec<(usize, Outcome, KeyChain)> {
        let with_list = |(at, chain): &(usize, KeyChain)| Some((*at, *chain.first(), queries[*at].traces?));
        let wanted: Vec<(usize, Key, Key)> = misses.iter().filter_map(with_list).collect();
        let mut found = Vec::new();
        if wanted.is_empty() {
            return found;
        }
        let lists: Vec<Key> = wanted.iter().map(|(.., list)| *list).collect();
        let lists = self.tiers().get_many(&lists).await;
        let mut open: Vec<Candidate> = Vec::new();
        for ((at, first, list), record) in wanted.into_iter().zip(lists) {
            if let Some(StoredRecord::Traces(traces)) = record.as_ref().and_then(StoredRecord::decode) {
                open.push(Candidate { at, first, list, traces });
            }
        }
        let mut sets = HashMap::new();
        for turn in 0..TRACES_MAX {
            open.retain(|candidate| candidate.traces.len() > turn);
            if open.is_empty() {
                break;
            }
            self.load_traces(open.iter().map(|candidate| candidate.traces[turn]), &mut sets).await;
            self.reject_written(&open, turn, &mut sets, queries).await;
            let hits = self.results_of(&open, turn, &sets, queries).await;
            open.retain(|candidate| !hits.iter().any(|(at, ..)| *at == candidate.at));
            found.extend(hits);
        }
        found
    }

    /// Returns the latest trace in the list with this key.
    pub(crate) async fn latest_trace(&self, list: &Key) -> Option<Arc<DiscoveredDeps>> {
        let StoredRecord::Traces(traces) = StoredRecord::decode(&self.tiers().get(list).await?)? else {
            return None;
        };
        match StoredRecord::decode(&self.tiers().get(traces.first()?).await?)? {
            StoredRecord::Dependencies(set) => Some(set),
            _ => None,
        }
    }

    /// Loads traces that are not loaded yet. Tests that ran in one process share a trace.
    async fn load_traces(
        &self,
        wanted: impl Iterator<Item = Key>,
        sets: &mut HashMap<Key, Option<Arc<DiscoveredDeps>>>,
    ) {
        let mut new: Vec<Key> = wanted.filter(|trace| !sets.contains_key(trace)).collect();
        new.sort_unstable();
        new.dedup();
        let records = self.tiers().get_many(&new).await;
        for (trace, record) in new.into_iter().zip(records) {
            let set = match record.as_ref().and_then(StoredRecord::decode) {
                Some(StoredRecord::Dependencies(set)) => Some(set),
                _ => None,
            };
            sets.insert(trace, set);
        }
    }

    /// Removes traces with files that tests of the project write: if the test that writes a file
    /// runs again, the file can have other content afterwards.
    async fn reject_written(
        &self,
        open: &[Candidate],
        turn: usize,
        sets: &mut HashMap<Key, Option<Arc<DiscoveredDeps>>>,
        queries: &[LookupQuery<'_>],
    ) {
        // All queries of a lookup are about one project.
        let Some(first) = open.first() else { return };
        let written = self.written.of(self.tiers(), &queries[first.at].written).await;
        for candidate in open {
            if let Some(set) = sets.get_mut(&candidate.traces[turn]) {
                set.take_if(|set| first_written(set, &written).is_some());
            }
        }
    }

    /// Returns the results that are stored for the current states of one trace of each candidate.
    async fn results_of(
        &self,
        open: &[Candidate],
        turn: usize,
        sets: &HashMap<Key, Option<Arc<DiscoveredDeps>>>,
        queries: &[LookupQuery<'_>],
    ) -> Vec<(usize, Outcome, KeyChain)> {
        let with_key = |candidate: &Candidate| {
            let trace = candidate.traces[turn];
            let set = sets.get(&trace)?.as_ref()?;
            let states = queries[candidate.at].states.digest(set);
            let result = key::by_trace(&candidate.list, &trace, &states);
            Some((candidate.at, KeyChain::by_trace(candidate.first, result, Arc::clone(set))))
        };
        let chains: Vec<(usize, KeyChain)> = open.iter().filter_map(with_key).collect();
        let keys: Vec<Key> = chains.iter().map(|(_, chain)| *chain.last()).collect();
        let records = self.tiers().get_many(&keys).await;
        let (mut targets, mut referring) = (Vec::new(), Vec::new());
        for (chain, record) in chains.into_iter().zip(records) {
            if let Some(StoredRecord::SameAs(target)) = record.as_ref().and_then(StoredRecord::decode) {
                targets.push(target);
                referring.push(chain);
            }
        }
        if targets.is_empty() {
            return Vec::new();
        }
        let records = self.tiers().get_many(&targets).await;
        let results = referring.into_iter().zip(targets).zip(records);
        let decoded = |(((at, chain), target), record): (((usize, KeyChain), Key), Option<_>)| {
            match StoredRecord::decode(&record?)? {
                StoredRecord::Result(stored) => Some((at, queries[at].outcome(stored, &target)?, chain)),
                _ => None,
            }
        };
        results.filter_map(decoded).collect()
    }

    /// Stores that the result under the key `result` is valid wherever the paths of a complete
    /// trace have their current states. `list` is the key of the test's list of traces.
    pub(crate) async fn put_trace(
        &self,
        list: &Key,
        trace: &Arc<DiscoveredDeps>,
        states: &PathStates,
        result: &Key,
    ) {
        let key = key::trace(trace);
        let record = self.tiers().get(list).await;
        let mut traces = match record.as_ref().and_then(StoredRecord::decode) {
            Some(StoredRecord::Traces(traces)) => traces,
            _ => Vec::new(),
        };
        self.put(&key::by_trace(list, &key, &states.digest(trace)), &record::same_as(result)).await;
        // Tests that ran in one process share the trace.
        if self.tiers().get(&key).await.is_none() {
            self.put(&key, &record::dependencies(trace)).await;
        }
        if traces.first() == Some(&key) {
            return;
        }
        traces.retain(|other| *other != key);
        traces.insert(0, key);
        traces.truncate(TRACES_MAX);
        self.put(list, &record::traces(&traces)).await;
    }
}
