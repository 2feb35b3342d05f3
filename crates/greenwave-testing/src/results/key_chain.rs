//! The keys that a lookup has followed, with the dependencies found under them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_cache::Key;
use greenwave_inputs::{DiscoveredDeps, PathStates};

use crate::results::key;

/// Maximum number of steps in a key chain. A longer chain is merged into one step.
pub(crate) const STEPS_MAX: usize = 8;

/// A chain of keys from the first key of a test on. `results/key.rs` explains how keys follow each
/// other.
#[derive(Debug, Clone)]
pub(crate) struct KeyChain {
    first: Key,
    last: Key,
    dependencies: Vec<Arc<DiscoveredDeps>>,
}

impl KeyChain {
    /// Creates a chain that consists of a test's first key.
    pub(crate) fn new(first: Key) -> Self {
        Self { first, last: first, dependencies: Vec::new() }
    }

    /// Creates the chain from a test's first key to a result that was stored by a trace.
    pub(crate) fn by_trace(first: Key, result: Key, trace: Arc<DiscoveredDeps>) -> Self {
        Self { first, last: result, dependencies: vec![trace] }
    }

    /// Returns the first key.
    pub(crate) fn first(&self) -> &Key {
        &self.first
    }

    /// Returns the last key, under which the lookup goes on or has ended.
    pub(crate) fn last(&self) -> &Key {
        &self.last
    }

    /// Returns the sets of dependencies between the keys.
    pub(crate) fn dependencies(&self) -> &[Arc<DiscoveredDeps>] {
        &self.dependencies
    }

    /// Returns whether no further step fits.
    pub(crate) fn is_full(&self) -> bool {
        self.dependencies.len() >= STEPS_MAX
    }

    /// Returns whether a run may continue the chain later: it starts at the current first key, and
    /// holds no dependencies that may have changed since.
    pub(crate) fn can_resume(&self, first: &Key) -> bool {
        self.first == *first && self.dependencies.is_empty()
    }

    /// Returns the workspaces that cargo must build before the result is valid.
    pub(crate) fn builds(&self) -> impl Iterator<Item = &Path> {
        self.dependencies.iter().flat_map(|set| set.builds())
    }

    /// Returns the first dependency in one of these directories.
    pub(crate) fn dependency_in(&self, project: &Path, directories: &[PathBuf]) -> Option<PathBuf> {
        let mut paths = self.dependencies.iter().flat_map(|set| &set.accesses).map(|(path, _)| path);
        let is_in = |path: &&PathBuf| directories.iter().any(|root| project.join(path).starts_with(root));
        paths.find(is_in).cloned()
    }

    /// Appends the key that covers the current states of a set of dependencies.
    pub(crate) fn then(mut self, set: Arc<DiscoveredDeps>, states: &PathStates) -> Self {
        self.last = key::next(&self.last, &states.digest(&set));
        self.dependencies.push(set);
        self
    }
}
