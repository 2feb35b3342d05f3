//! Tests of cold tiers and callbacks that panic: the call fails with a named error, and the store
//! continues.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_storage::{
    BoxError, ColdEntry, ColdTier, ColdTierStats, Error, MemoryColdTier, SegmentColdTier, SegmentOptions,
    SharedColdTier, SharedWrite, Store, StoreOptions,
};
use parking_lot::Mutex;

/// A tier that panics in one of its methods.
#[derive(Debug)]
struct Panicking {
    tier: Arc<dyn ColdTier>,
    /// The method, and whether it returns too few results instead of panicking.
    fault: Mutex<(&'static str, bool)>,
}

impl Panicking {
    fn is_faulty(&self, method: &str) -> bool {
        self.fault.lock().0 == method
    }

    fn check(&self, method: &str) {
        let (faulty, is_short) = *self.fault.lock();
        assert!(faulty != method || is_short, "a bad {method}");
    }

    /// Panics when it is polled again, as a call that waits does.
    async fn wait(&self, method: &str) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.check(method);
    }

    fn shared_tier(&self) -> &dyn SharedColdTier {
        self.tier.shared().unwrap()
    }
}

#[async_trait]
impl ColdTier for Panicking {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        self.wait("get").await;
        self.tier.get(key).await
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        self.wait("get_many").await;
        let keys = if self.is_faulty("get_many") { Vec::new() } else { keys };
        self.tier.get_many(keys).await
    }

    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        self.wait("contains_many").await;
        let keys = if self.is_faulty("contains_many") { Vec::new() } else { keys };
        self.tier.contains_many(keys).await
    }

    fn value_bytes_max(&self) -> Option<u64> {
        self.check("value_bytes_max");
        self.tier.value_bytes_max()
    }

    fn shared(&self) -> Option<&dyn SharedColdTier> {
        self.check("shared");
        self.tier.shared().map(|_| self as _)
    }

    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        self.wait("put_many").await;
        self.tier.put_many(entries).await
    }

    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        self.wait("remove_many").await;
        self.tier.remove_many(keys).await
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        self.wait("list").await;
        let mut keys = self.tier.list(prefix).await?;
        keys.push(Bytes::new());
        Ok(keys)
    }

    async fn flush(&self) -> Result<(), BoxError> {
        self.wait("flush").await;
        self.tier.flush().await
    }

    async fn close(&self) -> Result<(), BoxError> {
        self.wait("close").await;
        self.tier.close().await
    }

    fn stats(&self) -> ColdTierStats {
        self.check("stats");
        self.tier.stats()
    }
}

#[async_trait]
impl SharedColdTier for Panicking {
    async fn refresh(&self) -> Result<u64, BoxError> {
        self.wait("refresh").await;
        self.shared_tier().refresh().await
    }

    async fn flush_shared(&self) -> Result<(), BoxError> {
        self.wait("flush_shared").await;
        self.shared_tier().flush_shared().await
    }

    async fn write(&self, write: SharedWrite) -> Result<bool, BoxError> {
        self.wait("write").await;
        self.shared_tier().write(write).await
    }

    fn new_store_id(&self) -> u64 {
        self.check("new_store_id");
        self.shared_tier().new_store_id()
    }

    async fn mark_open(&self, store_id: u64) -> Result<Box<dyn Send + Sync>, BoxError> {
        self.wait("mark_open").await;
        self.shared_tier().mark_open(store_id).await
    }

    async fn is_open(&self, store_id: u64) -> Result<bool, BoxError> {
        self.wait("is_open").await;
        self.shared_tier().is_open(store_id).await
    }
}

/// Methods that a tier is asked for when a store is opened.
const PROPERTIES: [&str; 3] = ["value_bytes_max", "shared", "new_store_id"];

const CALLS: [&str; 12] = [
    "get",
    "get_many",
    "contains_many",
    "put_many",
    "remove_many",
    "list",
    "flush",
    "stats",
    "refresh",
    "flush_shared",
    "write",
    "mark_open",
];

/// Makes every kind of call, and returns the messages of their errors.
async fn call_everything(store: &Store) -> Vec<String> {
    let mut failed = Vec::new();
    let mut note = |error: Option<Error>| {
        if let Some(error) = error {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            failed.push(source.unwrap_or_else(|| error.to_string()));
        }
    };
    for number in 0..8 {
        let contents = super::contents(number, 20 << 10);
        note(store.put(&format!("name{number}"), contents.clone()).await.err());
        note(store.put_blob(contents).await.err());
    }
    let unnamed = store.put_blob(Bytes::from_static(b"unnamed")).await;
    note(store.flush().await.err());
    note(store.get("name0").await.err());
    note(store.get("other").await.err());
    let ids: Vec<_> = unnamed.ok().into_iter().chain([greenwave_storage::BlobId::of(b"other")]).collect();
    note(store.get_many(&ids).await.err());
    note(store.list("").await.err());
    note(store.remove("name1").await.err());
    note(store.flush().await.err());
    note(store.sweep(&HashSet::new()).await.err());
    store.stats();
    failed
}

fn tiers(directory: &std::path::Path) -> [Arc<dyn ColdTier>; 2] {
    let segment = SegmentColdTier::open(directory, SegmentOptions::default()).unwrap();
    [Arc::<MemoryColdTier>::default(), Arc::new(segment)]
}

/// Makes every kind of call of a store with a fault in its cold tier. Returns whether one failed.
async fn fails_only_its_calls(tier: Arc<dyn ColdTier>, fault: (&'static str, bool)) -> bool {
    let cold = Arc::new(Panicking { tier, fault: Mutex::new(("", false)) });
    let options = StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() };
    let store = Store::open(options, cold.clone()).unwrap();
    *cold.fault.lock() = fault;
    let messages = call_everything(&store).await;
    for message in &messages {
        let expected = match fault {
            (method, false) => format!("cold tier panicked: a bad {method}"),
            _ => "the cold tier returned 0 results for ".to_owned(),
        };
        assert!(message.starts_with(&expected), "{fault:?}: {message}");
    }
    *cold.fault.lock() = ("", false);
    assert_eq!(call_everything(&store).await, Vec::<String>::new(), "after {fault:?}");
    assert_eq!(store.get("name7").await.unwrap(), Some(super::contents(7, 20 << 10)));
    store.close().await.unwrap();
    !messages.is_empty()
}

#[tokio::test]
async fn a_panicking_tier_fails_only_its_calls() {
    // A store waits for the disk most of the time.
    let mut trials = tokio::task::JoinSet::new();
    let faults = CALLS.map(|method| (method, false));
    for fault in faults.into_iter().chain([("get_many", true), ("contains_many", true)]) {
        for number in 0..2 {
            trials.spawn(async move {
                let directory = tempfile::tempdir().unwrap();
                let [memory, segment] = tiers(directory.path());
                let tier = if number == 0 { memory } else { segment };
                fails_only_its_calls(tier, fault).await.then_some(fault)
            });
        }
    }
    let has_failed: HashSet<_> = trials.join_all().await.into_iter().flatten().collect();
    assert_eq!(has_failed.len(), CALLS.len() + 1, "statistics never fail: {has_failed:?}");
}

#[tokio::test]
async fn a_tier_that_panics_at_first_is_an_error() {
    for method in PROPERTIES {
        let directory = tempfile::tempdir().unwrap();
        let [_, tier] = tiers(directory.path());
        let cold = Arc::new(Panicking { tier, fault: Mutex::new((method, false)) });
        let error = Store::open(StoreOptions::default(), cold).unwrap_err();
        assert_eq!(error.to_string(), format!("cold tier panicked: a bad {method}"));
    }
}

#[tokio::test]
async fn a_panic_in_keep_fails_the_sweep() {
    let store = super::small(Arc::default());
    store.put("a", Bytes::from_static(b"a")).await.unwrap();
    let keep = || async { panic!("a bad keep") };
    let error = store.sweep_with(keep).await.unwrap_err();
    assert_eq!(error.to_string(), "`keep` panicked: a bad keep");
    assert_eq!(store.sweep(&HashSet::new()).await.unwrap(), 0);
    assert_eq!(store.get("a").await.unwrap(), Some(Bytes::from_static(b"a")));
}
