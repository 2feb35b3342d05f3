//! A cold tier in memory, for tests and for stores that do not outlive their process.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use super::{ColdEntry, ColdTier, SharedColdTier};
use crate::{BoxError, ColdTierStats};

/// A map in memory, uncompressed and without a limit.
#[derive(Debug, Default)]
pub struct MemoryColdTier {
    entries: RwLock<BTreeMap<Bytes, Bytes>>,
}

impl MemoryColdTier {
    /// Creates an empty tier.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl ColdTier for MemoryColdTier {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        Ok(self.entries.read().get(key).cloned())
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        let entries = self.entries.read();
        Ok(keys.iter().map(|key| entries.get(key).cloned()).collect())
    }

    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        let entries = self.entries.read();
        Ok(keys.iter().map(|key| entries.contains_key(key)).collect())
    }

    fn value_bytes_max(&self) -> Option<u64> {
        None
    }

    fn shared(&self) -> Option<&dyn SharedColdTier> {
        None
    }

    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        self.entries.write().extend(entries.into_iter().map(|ColdEntry { key, value, .. }| (key, value)));
        Ok(())
    }

    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        let mut entries = self.entries.write();
        keys.iter().for_each(|key| drop(entries.remove(key)));
        Ok(())
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        let from = Bytes::copy_from_slice(prefix);
        let entries = self.entries.read();
        Ok(entries.range(from..).map_while(|(key, _)| key.starts_with(prefix).then(|| key.clone())).collect())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }

    fn stats(&self) -> ColdTierStats {
        let entries = self.entries.read();
        let bytes = entries.values().map(|value| value.len() as u64).sum();
        ColdTierStats {
            entries: Some(entries.len() as u64),
            stored_bytes: Some(bytes),
            raw_bytes: Some(bytes),
            disk_bytes: Some(0),
            codec: "none".to_owned(),
        }
    }
}
