//! Options for running one test and for running all tests of a project.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use greenwave_process::Jobserver;
use greenwave_sandbox::{LazyGuard, TraceMode};
use greenwave_scheduler::OrderRules;

use crate::harness::Harnesses;
use crate::run::continuation::Continuations;
use crate::run::output_observer::OutputObserver;
use crate::run::slots::TestSlots;

/// Environment variable that passes the results directory to tests.
pub const RESULTS_VARIABLE: &str = "GREENWAVE_OUTER_RESULTS";

/// A policy on tests whose result may depend on more than was traced, because they exchange data
/// with a server that they neither start nor declare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IncompleteMode {
    /// Results are stored with a coarse key: they depend on what was traced, and on all files of
    /// the project that are not ignored.
    #[default]
    Coarse,
    /// Results are not stored.
    Refuse,
}

/// Options for running tests.
#[derive(Debug, Clone, Default)]
pub struct RunnerOptions {
    /// Whether accesses of tests are traced, so that results also depend on discovered
    /// dependencies.
    pub trace: TraceMode,
    /// Whether results of tests that exchange data with undeclared servers are stored.
    pub incomplete: IncompleteMode,
    /// Whether a test fails when it reads a file of the project that is not one of its inputs.
    pub strict: bool,
    /// Whether failures are stored and cached like passes.
    pub cache_failures: bool,
    /// Jobserver whose tokens are shared with `make` and `cargo` inside tests.
    pub jobserver: Option<Jobserver>,
    /// Directory of lock files for the ports assigned to tests. Without it, tests get no ports.
    pub ports: Option<PathBuf>,
    /// Directory of results, passed to tests in [`RESULTS_VARIABLE`] so that a run inside a test
    /// uses the same results. Paths in it are not dependencies of tests.
    pub results: Option<PathBuf>,
    /// File through which a user's projects share the hashes of files outside of them. Without it,
    /// each project hashes these files itself.
    pub files: Option<PathBuf>,
    /// Guard that keeps tests from reading and changing what they must not. Where the kernel cannot
    /// enforce it, tests run without.
    pub guard: Option<Arc<LazyGuard>>,
    /// The harnesses that launch tests and read their output.
    pub harnesses: Harnesses,
    /// Receives the output of tests while they run.
    pub output: Option<OutputObserver>,
    /// Processes of collections that wait to run the tests which they have found. Without it, these
    /// processes end.
    pub continuations: Option<Continuations>,
    /// Limits how many tests run at once. Without it, as many run as the caller starts.
    pub slots: Option<TestSlots>,
}

/// Maximum number of times that a new or a failing test is repeated.
pub(crate) const REPETITIONS_MAX: u32 = 1000;

/// Options for running the tests of a project.
#[derive(Debug, Clone)]
pub struct SuiteOptions {
    /// Maximum number of tests that run at the same time; 0 counts as 1.
    pub workers: u32,
    /// Whether fewer tests run at the same time while the machine is busy with other work.
    pub follow_load: bool,
    /// Whether no test starts after the first failure.
    pub fail_fast: bool,
    /// Units of each named resource that tests may need. A resource that is not listed has one
    /// unit.
    pub resources: BTreeMap<String, u32>,
    /// Rules for the order in which tests start.
    pub rules: OrderRules,
    /// Share of cached results that are audited, that is, run again and compared, from 0 to 1.
    pub audit: f64,
    /// Seed for the selection of results to audit.
    pub audit_seed: u64,
    /// Number of times that a test runs that has never run in this project. It passes only if it
    /// passes each time. 0 and 1 mean once; values above 1000 count as 1000.
    pub stress_new: u32,
}

impl Default for SuiteOptions {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            follow_load: false,
            fail_fast: false,
            resources: BTreeMap::new(),
            rules: OrderRules::default(),
            audit: 0.0,
            audit_seed: 0,
            stress_new: 1,
        }
    }
}
