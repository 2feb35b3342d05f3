//! A cold tier that survives the removal of its directory.
//!
//! Every call first compares the directory with the one that was opened. If it was removed, its
//! contents are still readable through the files that the old tier has open. They are copied into a
//! new directory, with the keys by which stores share the tier.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_storage::{
    BoxError, ColdEntry, ColdTier, ColdTierStats, SegmentColdTier, SegmentOptions, SharedColdTier,
    SharedWrite,
};
use parking_lot::{Mutex, RwLock};

use crate::state_home::{StateHome, StatePart};

/// Name of the tier's directory in the state directory.
const NAME: &str = "store";
/// Size of the contents that are copied at once, in bytes.
const COPIED_BYTES_MAX: usize = 8 << 20;
/// Number of bits of a generation that count the changes within one directory.
const GENERATION_BITS: u32 = 48;

/// A [`SegmentColdTier`] in the state directory of a project.
#[derive(Debug)]
pub(crate) struct RecoveringTier {
    home: Arc<StateHome>,
    options: SegmentOptions,
    current: RwLock<Arc<Opened>>,
    /// Held while the contents are copied.
    recovering: tokio::sync::Mutex<()>,
    /// Stores that are marked as open.
    marked: Mutex<BTreeSet<u64>>,
}

/// A tier and its directory.
struct Opened {
    tier: SegmentColdTier,
    part: StatePart,
    /// Number of directories before this one.
    recoveries: u64,
    /// Marks that the stores do not hold themselves.
    marks: Mutex<Vec<Box<dyn Send + Sync>>>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Opened").field("tier", &self.tier).field("part", &self.part).finish()
    }
}

impl RecoveringTier {
    /// Opens the tier in a state directory.
    ///
    /// # Errors
    /// Those of the directory and of the tier.
    pub(crate) fn open(home: Arc<StateHome>, options: SegmentOptions) -> Result<Self, BoxError> {
        let current = RwLock::new(Arc::new(open(&home, options, 0)?));
        Ok(Self {
            home,
            options,
            current,
            recovering: tokio::sync::Mutex::default(),
            marked: Mutex::default(),
        })
    }

    fn current(&self) -> Arc<Opened> {
        Arc::clone(&self.current.read())
    }

    /// Returns the tier, which is in a new directory if its own was removed.
    async fn recovered(&self) -> Result<Arc<Opened>, BoxError> {
        if !self.current().part.is_gone() {
            return Ok(self.current());
        }
        let _recovering = self.recovering.lock().await;
        let before = self.current();
        if !before.part.is_gone() {
            return Ok(before);
        }
        let (home, options, recoveries) = (Arc::clone(&self.home), self.options, before.recoveries + 1);
        let opened = tokio::task::spawn_blocking(move || open(&home, options, recoveries)).await??;
        let lost = copy(&before.tier, &opened.tier).await?;
        let marked = self.marked.lock().clone();
        for id in marked {
            let mark = opened.tier.mark_open(id).await?;
            opened.marks.lock().push(mark);
        }
        let opened = Arc::new(opened);
        *self.current.write() = Arc::clone(&opened);
        self.home.note_restored(lost);
        Ok(opened)
    }

    /// Calls the tier, and once again if its directory was removed meanwhile.
    async fn call<T, F>(&self, call: impl Fn(SegmentColdTier) -> F) -> Result<T, BoxError>
    where
        F: Future<Output = Result<T, BoxError>>,
    {
        let opened = self.recovered().await?;
        match call(opened.tier.clone()).await {
            Err(_) if opened.part.is_gone() => call(self.recovered().await?.tier.clone()).await,
            done => done,
        }
    }
}

fn open(home: &StateHome, options: SegmentOptions, recoveries: u64) -> Result<Opened, BoxError> {
    let part = home.part(NAME)?;
    let tier = SegmentColdTier::open(&part.path, options)?;
    Ok(Opened { tier, part, recoveries, marks: Mutex::default() })
}

/// Copies all entries that can be read, and makes them durable. Returns the number of the others.
async fn copy(from: &SegmentColdTier, to: &SegmentColdTier) -> Result<usize, BoxError> {
    let (mut lost, mut entries, mut bytes) = (0, Vec::new(), 0);
    for key in from.list(b"").await? {
        match from.get(&key).await {
            Ok(Some(value)) => {
                bytes += value.len();
                entries.push(ColdEntry { key, value, base: None });
            }
            // Files that were closed to save descriptors are gone.
            Ok(None) | Err(_) => lost += 1,
        }
        if bytes >= COPIED_BYTES_MAX {
            to.put_many(std::mem::take(&mut entries)).await?;
            bytes = 0;
        }
    }
    to.put_many(entries).await?;
    to.flush().await?;
    Ok(lost)
}

#[async_trait]
impl ColdTier for RecoveringTier {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        self.call(|tier| async move { tier.get(key).await }).await
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        let keys = &keys;
        self.call(|tier| async move { tier.get_many(keys.clone()).await }).await
    }

    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        let keys = &keys;
        self.call(|tier| async move { tier.contains_many(keys.clone()).await }).await
    }

    fn value_bytes_max(&self) -> Option<u64> {
        self.current().tier.value_bytes_max()
    }

    fn shared(&self) -> Option<&dyn SharedColdTier> {
        Some(self)
    }

    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        let entries = &entries;
        self.call(|tier| async move { tier.put_many(entries.clone()).await }).await
    }

    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        let keys = &keys;
        self.call(|tier| async move { tier.remove_many(keys.clone()).await }).await
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        self.call(|tier| async move { tier.list(prefix).await }).await
    }

    async fn flush(&self) -> Result<(), BoxError> {
        self.call(|tier| async move { tier.flush().await }).await
    }

    async fn close(&self) -> Result<(), BoxError> {
        self.call(|tier| async move { tier.close().await }).await
    }

    fn stats(&self) -> ColdTierStats {
        self.current().tier.stats()
    }
}

#[async_trait]
impl SharedColdTier for RecoveringTier {
    async fn refresh(&self) -> Result<u64, BoxError> {
        let revision = self.call(|tier| async move { tier.refresh().await }).await?;
        Ok(self.current().recoveries << GENERATION_BITS | revision)
    }

    async fn flush_shared(&self) -> Result<(), BoxError> {
        self.call(|tier| async move { tier.flush_shared().await }).await
    }

    async fn write(&self, write: SharedWrite) -> Result<bool, BoxError> {
        let write = &write;
        self.call(|tier| async move { tier.write(write.clone()).await }).await
    }

    fn new_store_id(&self) -> u64 {
        self.current().tier.new_store_id()
    }

    async fn mark_open(&self, store_id: u64) -> Result<Box<dyn Send + Sync>, BoxError> {
        self.marked.lock().insert(store_id);
        self.call(|tier| async move { tier.mark_open(store_id).await }).await
    }

    async fn is_open(&self, store_id: u64) -> Result<bool, BoxError> {
        self.call(|tier| async move { tier.is_open(store_id).await }).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use greenwave_storage::{Store, StoreOptions};
    use greenwave_testing::STATE_DIRECTORY;

    use super::*;
    use crate::state_dir;

    fn open_store(project: &std::path::Path) -> (Store, Arc<StateHome>, fs::File) {
        let (directory, lock) = state_dir::lock(project).unwrap();
        let home = Arc::new(StateHome::new(project, directory, &[]));
        let tier = RecoveringTier::open(Arc::clone(&home), SegmentOptions::default()).unwrap();
        let options = StoreOptions { memory_bytes_max: 1 << 16, ..StoreOptions::default() };
        (Store::open(options, Arc::new(tier)).unwrap(), home, lock)
    }

    #[tokio::test]
    async fn contents_survive_the_removal_of_their_directory() {
        let project = tempfile::tempdir().unwrap();
        let state = project.path().join(STATE_DIRECTORY);
        let (store, home, lock) = open_store(project.path());
        // More than fits in memory.
        let content = Bytes::from(vec![1; 1 << 16]);
        store.put("before", content.clone()).await.unwrap();
        store.flush().await.unwrap();
        for round in 0..2 {
            fs::remove_dir_all(&state).unwrap();
            assert_eq!(store.get("before").await.unwrap().unwrap(), content, "round {round}");
            store.put(&format!("after-{round}"), "2".into()).await.unwrap();
            store.flush().await.unwrap();
            assert_eq!(home.take_restored(), Some(crate::state_home::Restored { lost: 0 }));
            assert_eq!(home.take_restored(), None);
        }
        // No other run can lock the new directory.
        let lock_file = fs::File::open(state.join("lock")).unwrap();
        assert!(matches!(lock_file.try_lock(), Err(fs::TryLockError::WouldBlock)));
        home.unlock();
        drop((store, home, lock));
        let (store, _home, _lock) = open_store(project.path());
        assert_eq!(store.list("").await.unwrap(), ["after-0", "after-1", "before"]);
        assert_eq!(store.get("before").await.unwrap().unwrap(), content);
    }
}
