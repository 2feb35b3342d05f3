//! The inputs of a lookup in which all tests had a cached result.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use greenwave_inputs::{DiscoveredDeps, Snapshot};

use crate::run::test_id::TestId;

/// The inputs of a lookup in which all tests had a cached result.
#[derive(Debug)]
pub(crate) struct LookupInputs {
    /// The state of the project.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The first test with each program, and the fingerprint of the program.
    pub(crate) programs: Vec<(TestId, [u8; 32])>,
    /// Discovered dependencies of the tests.
    pub(crate) sets: Vec<Arc<DiscoveredDeps>>,
    /// Number of tests.
    pub(crate) tests: usize,
}

/// A test that was looked up.
pub(crate) struct LookedUpTest<'a> {
    pub(crate) id: TestId,
    /// The first word of its command, and the directory that the word is resolved in.
    pub(crate) program: (&'a str, &'a Path),
    /// Hash of the program's fingerprints.
    pub(crate) tool: [u8; 32],
    /// Discovered dependencies.
    pub(crate) sets: &'a [Arc<DiscoveredDeps>],
}

impl LookupInputs {
    /// Collects the inputs. `tests` has `None` for a test without a cached result; then the whole
    /// is `None`.
    pub(crate) fn collect<'a>(
        snapshot: &Arc<Snapshot>,
        tests: impl Iterator<Item = Option<LookedUpTest<'a>>>,
    ) -> Option<Self> {
        let (mut programs, mut sets, mut count) = (HashMap::new(), HashMap::new(), 0);
        for test in tests {
            let LookedUpTest { id, program, tool, sets: own } = test?;
            programs.entry(program).or_insert((id, tool));
            sets.extend(own.iter().map(|set| (Arc::as_ptr(set), Arc::clone(set))));
            count += 1;
        }
        Some(Self {
            snapshot: Arc::clone(snapshot),
            programs: programs.into_values().collect(),
            sets: sets.into_values().collect(),
            tests: count,
        })
    }
}
