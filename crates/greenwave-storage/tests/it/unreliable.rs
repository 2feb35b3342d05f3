//! A store on a cold tier whose calls fail at random, before or after they took effect, and which
//! loses a random part of the unflushed changes when the store's process ends.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_storage::{
    BoxError, ColdEntry, ColdTier, ColdTierStats, Error, MemoryColdTier, SharedColdTier, Store, StoreOptions,
};
use greenwave_testkit::random::Random;
use parking_lot::Mutex;

use crate::contents;

const NAMES: u64 = 12;

#[derive(Debug)]
struct Unreliable {
    cold: Arc<dyn ColdTier>,
    /// Values before the unflushed changes, by key. `None` if the tier makes every change durable.
    unflushed: Option<Mutex<BTreeMap<Bytes, Option<Bytes>>>>,
    random: Mutex<Random>,
    /// Probability that a call fails, in percent.
    failures: Mutex<u64>,
}

impl Unreliable {
    fn fails(&self) -> bool {
        self.random.lock().chance(*self.failures.lock())
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
        if self.fails() {
            return Err("refused".into());
        }
        let result = call.await;
        if self.fails() { Err("the answer was lost".into()) } else { result }
    }

    /// Records the value of a key that is about to change.
    async fn changes(&self, key: &Bytes) -> Result<(), BoxError> {
        let Some(unflushed) = &self.unflushed else { return Ok(()) };
        let is_first = !unflushed.lock().contains_key(key);
        if is_first {
            let old = self.cold.get(key).await?;
            unflushed.lock().insert(key.clone(), old);
        }
        Ok(())
    }

    /// Undoes some of the changes that were not flushed, in any order.
    async fn crash(&self) {
        let Some(unflushed) = &self.unflushed else { return };
        let changed = std::mem::take(&mut *unflushed.lock());
        for (key, old) in changed {
            if self.random.lock().chance(50) {
                match old {
                    Some(old) => self.cold.put_many(vec![(key, old).into()]).await.unwrap(),
                    None => self.cold.remove_many(vec![key]).await.unwrap(),
                }
            }
        }
    }
}

#[async_trait]
impl ColdTier for Unreliable {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        self.call(self.cold.get(key)).await
    }
    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        self.call(self.cold.get_many(keys)).await
    }
    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        self.call(self.cold.contains_many(keys)).await
    }
    fn value_bytes_max(&self) -> Option<u64> {
        self.cold.value_bytes_max()
    }
    fn shared(&self) -> Option<&dyn SharedColdTier> {
        None
    }
    async fn put_many(&self, mut entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        // Some of the entries are written, in any order, before the call fails.
        let fails = self.fails();
        if fails {
            let (first, retained) = {
                let mut random = self.random.lock();
                let len = entries.len() as u64;
                (random.below(len) as usize, random.below(len + 1) as usize)
            };
            entries.rotate_left(first);
            entries.truncate(retained);
        }
        for entry in entries {
            self.changes(&entry.key).await?;
            self.cold.put_many(vec![entry]).await?;
        }
        if fails { Err("refused in part".into()) } else { Ok(()) }
    }
    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        for key in keys {
            if self.fails() {
                return Err("refused in part".into());
            }
            self.changes(&key).await?;
            self.cold.remove_many(vec![key]).await?;
        }
        Ok(())
    }
    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        self.call(self.cold.list(prefix)).await
    }
    async fn flush(&self) -> Result<(), BoxError> {
        let flush = async {
            self.cold.flush().await?;
            if let Some(unflushed) = &self.unflushed {
                unflushed.lock().clear();
            }
            Ok(())
        };
        self.call(flush).await
    }
    async fn close(&self) -> Result<(), BoxError> {
        self.flush().await
    }
    fn stats(&self) -> ColdTierStats {
        self.cold.stats()
    }
}

/// Contents that each name may have.
#[derive(Debug, Default)]
struct Model {
    /// Contents of the open store.
    current: BTreeMap<u64, Option<Bytes>>,
    /// Contents that may be found after a crash.
    possible: BTreeMap<u64, BTreeSet<Option<Bytes>>>,
}

impl Model {
    fn change(&mut self, name: u64, value: Option<Bytes>) {
        self.current.insert(name, value.clone());
        self.possible.entry(name).or_insert_with(|| BTreeSet::from([None])).insert(value);
    }

    fn current(&self, name: u64) -> Option<Bytes> {
        self.current.get(&name).cloned().flatten()
    }

    fn flushed(&mut self) {
        self.possible =
            self.current.iter().map(|(name, value)| (*name, BTreeSet::from([value.clone()]))).collect();
    }
}

fn open(cold: &Arc<Unreliable>) -> Store {
    let options = StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() };
    Store::open(options, cold.clone()).unwrap()
}

/// Fails unless the error is one that the tier has injected.
fn injected(error: &Error, seed: u64) {
    assert!(matches!(error, Error::ColdTier { .. }), "seed {seed}: {error:?}");
}

async fn run(seed: u64, cold: Arc<dyn ColdTier>, loses_unflushed: bool) -> u64 {
    let mut random = Random::new(seed);
    let cold = Arc::new(Unreliable {
        cold,
        unflushed: loses_unflushed.then(Mutex::default),
        random: Mutex::new(Random::new(!seed)),
        failures: Mutex::new([0, 5, 20, 60][random.below(4) as usize]),
    });
    let (mut model, mut store, mut crashes) = (Model::default(), open(&cold), 0);
    for number in 0..120 {
        let name = random.below(NAMES);
        match random.below(100) {
            0..40 => {
                let value = contents(seed << 16 | number, [100, 5000, 20_000][random.below(3) as usize]);
                model.change(name, Some(value.clone()));
                // The contents stay readable if the tier fails.
                let put = store.put(&name.to_string(), value).await;
                put.map_or_else(|error| injected(&error, seed), drop);
            }
            40..50 => match store.remove(&name.to_string()).await {
                Ok(existed) => {
                    assert_eq!(existed, model.current(name).is_some(), "seed {seed}, {number}");
                    model.change(name, None);
                }
                Err(error) => injected(&error, seed),
            },
            50..80 => match store.get(&name.to_string()).await {
                Ok(value) => assert!(value == model.current(name), "seed {seed}, {number}, name {name}"),
                Err(error) => injected(&error, seed),
            },
            80..90 => match store.flush().await {
                Ok(()) => model.flushed(),
                Err(error) => injected(&error, seed),
            },
            90..95 => {
                let swept = store.sweep(&HashSet::new()).await;
                swept.map_or_else(|error| injected(&error, seed), drop);
            }
            _ => {
                drop(store);
                crashes += 1;
                cold.crash().await;
                store = open(&cold);
                settle(&mut model, &store, &cold, seed).await;
            }
        }
    }
    *cold.failures.lock() = 0;
    store.flush().await.unwrap();
    model.flushed();
    drop(store);
    cold.crash().await;
    settle(&mut model, &open(&cold), &cold, seed).await;
    crashes
}

/// Reads every name after a crash, and makes the result the expected one.
async fn settle(model: &mut Model, store: &Store, cold: &Unreliable, seed: u64) {
    let failures = std::mem::take(&mut *cold.failures.lock());
    for name in 0..NAMES {
        let value = store.get(&name.to_string()).await.unwrap();
        let possible = model.possible.entry(name).or_insert_with(|| BTreeSet::from([None]));
        let len = value.as_ref().map(Bytes::len);
        assert!(possible.contains(&value), "seed {seed}: name {name} has {len:?} bytes");
        // A value that was read may still be lost, as it may not have been flushed.
        model.current.insert(name, value);
    }
    *cold.failures.lock() = failures;
}

#[tokio::test]
async fn a_store_on_a_failing_tier_loses_nothing_that_was_flushed() {
    let mut crashes = 0;
    for seed in 0..u64::from(crate::rounds("GREENWAVE_UNRELIABLE_ROUNDS", 150)) {
        crashes += run(seed, Arc::new(MemoryColdTier::new()), true).await;
    }
    assert!(crashes > 100);
}

#[cfg(feature = "object")]
#[tokio::test]
async fn a_store_on_a_failing_object_store_loses_nothing_that_was_written() {
    use greenwave_storage::{ObjectColdTier, ObjectOptions};
    const NONE: [(&str, &str); 0] = [];
    for seed in 0..u64::from(crate::rounds("GREENWAVE_UNRELIABLE_ROUNDS", 150)) {
        let objects = ObjectColdTier::open("memory:///", NONE, ObjectOptions::default()).unwrap();
        run(seed, Arc::new(objects), false).await;
    }
}
