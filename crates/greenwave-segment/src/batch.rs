//! Batches of changes that are made together or not at all.

use std::collections::BTreeMap;

/// A batch of changes and conditions for [`Log::write`](crate::Log::write). The last change of a
/// key wins.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub(crate) conditions: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// Creates a batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    #[must_use]
    pub fn put(mut self, key: &[u8], value: &[u8]) -> Self {
        self.changes.insert(key.to_vec(), Some(value.to_vec()));
        self
    }

    /// Removes `key`.
    #[must_use]
    pub fn remove(mut self, key: &[u8]) -> Self {
        self.changes.insert(key.to_vec(), None);
        self
    }

    /// Adds a condition: the batch is written only if `key` has this value then. `None` stands for
    /// no value.
    #[must_use]
    pub fn expect(mut self, key: &[u8], value: Option<&[u8]>) -> Self {
        self.conditions.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        self
    }

    /// Returns whether the batch has no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
