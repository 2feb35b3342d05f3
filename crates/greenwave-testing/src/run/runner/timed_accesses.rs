//! Holds the traced accesses of a finished test.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use greenwave_cache::Key;

use super::accesses::Accesses;
use crate::run::observation::Seen;

/// The accesses of a finished test, and when they took place.
#[derive(Debug, Clone)]
pub(super) struct TimedAccesses {
    /// The accesses that the result depends on.
    pub(super) accesses: Arc<Accesses>,
    /// Those of this test, if it ran in one command with others and they are certain.
    pub(super) own: Option<Arc<Accesses>>,
    /// All traced accesses.
    pub(super) seen: Arc<Seen>,
    /// Directories that the program was built into, between `since` and `began`.
    pub(super) built: Vec<PathBuf>,
    /// Files there that the build made for the test, if `accesses` contain them.
    pub(super) products: Arc<HashSet<PathBuf>>,
    /// A file that the test read in a cache which it maintains.
    pub(super) from_cache: Option<PathBuf>,
    /// Earliest time of any access, in nanoseconds since the Unix epoch.
    pub(super) since: i64,
    /// Start of the test's process, in nanoseconds since the Unix epoch.
    pub(super) began: i64,
}

/// Everything that the process of a built program observed.
#[derive(Debug, Clone)]
pub(super) struct BuiltRun {
    /// Key of the list of the program's traces.
    pub(super) list: Key,
    pub(super) accesses: TimedAccesses,
}
