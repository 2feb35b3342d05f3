//! A batch of changes, and its conditions.

use std::collections::BTreeMap;

/// Changes for [`Log::write`]. Of several changes of one key the last counts.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub(crate) conditions: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// A batch without changes.
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

    /// Writes the batch only if `key` has this value, or has none, when the batch is written.
    #[must_use]
    pub fn expect(mut self, key: &[u8], value: Option<&[u8]>) -> Self {
        self.conditions.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        self
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
