//! A name that keeps the records of one writer apart from those of others.

use crate::{Key, KeyBuilder};

/// Keeps records apart within one backend: a record of a scope is stored under a hash of the
/// scope's name and its key. Readers with another scope, or with none, do not find it, and it does
/// not verify under the keys that they ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(String);

impl Scope {
    /// Creates a scope. The name may be any text, such as that of a branch.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    pub(crate) fn key(&self, key: &Key) -> Key {
        KeyBuilder::new("greenwave cache scope", 1).text(&self.0).key(key).finish()
    }
}
