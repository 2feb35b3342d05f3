//! Batches of changes that are made together or not at all.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A batch of changes and conditions for [`Log::write`](crate::Log::write). The last change of a
/// key wins.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    pub(crate) changes: BTreeMap<Bytes, Option<Bytes>>,
    pub(crate) conditions: BTreeMap<Bytes, Option<Bytes>>,
}

impl WriteBatch {
    /// Creates a batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`. Copies both.
    #[must_use]
    pub fn put(self, key: &[u8], value: &[u8]) -> Self {
        self.put_bytes(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
    }

    /// Sets `key` to `value` without copying them. While the batch is written, each value that
    /// compression makes smaller is in memory a second time, compressed.
    #[must_use]
    pub fn put_bytes(mut self, key: Bytes, value: Bytes) -> Self {
        self.changes.insert(key, Some(value));
        self
    }

    /// Removes `key`.
    #[must_use]
    pub fn remove(mut self, key: &[u8]) -> Self {
        self.changes.insert(Bytes::copy_from_slice(key), None);
        self
    }

    /// Adds a condition: the batch is written only if `key` has this value then. `None` stands for
    /// no value.
    #[must_use]
    pub fn expect(mut self, key: &[u8], value: Option<&[u8]>) -> Self {
        self.conditions.insert(Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice));
        self
    }

    /// Returns whether the batch has no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
