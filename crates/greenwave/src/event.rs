//! What a run tells those who watch it. Knows nothing of how it is shown.

use serde::Serialize;

/// A change worth seeing, the moment it happens.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run begins.
    Started {
        /// The plan's name.
        plan: String,
        /// Features of the plan.
        features: usize,
        /// Tests that may run at once.
        workers: u32,
        /// Questions that may be with agents at once.
        agents: u32,
        /// Kinds of the plan's agents (`scripted`, `command`).
        agent_kinds: Vec<String>,
    },
    /// A feature is green from an earlier run, and its tests' results are known for the files as they are.
    UpToDate {
        /// The feature.
        feature: String,
    },
    /// A feature has moved on.
    Phase {
        /// The feature.
        feature: String,
        /// Its phase now: red, yellow, review, merging, green, failed.
        phase: &'static str,
        /// How often the agent has been asked, this time included; 0 before.
        attempt: u32,
    },
    /// A file of an answer is complete.
    File {
        /// The feature.
        feature: String,
        /// Which attempt it belongs to.
        attempt: u32,
        /// The file's path in the project.
        path: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// A test has a result.
    Tests {
        /// The feature whose test it is.
        feature: String,
        /// The test's name.
        test: String,
        /// Where the result counts: red, yellow, review, merging.
        phase: &'static str,
        /// `passed`, or how it failed.
        status: String,
        /// Tests that passed, where the runner counted them.
        passed: Option<u32>,
        /// Tests that failed, where the runner counted them.
        failed: Option<u32>,
        /// Whether the result was known and the test was not run.
        cached: bool,
        /// How long it took, now or when it was run.
        seconds: f64,
    },
    /// An attempt came to nothing, and this is why. Another may follow.
    Refused {
        /// The feature.
        feature: String,
        /// Which attempt.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// A feature's files are in the project.
    Merged {
        /// The feature.
        feature: String,
        /// Files it changed.
        files: usize,
        /// Test results, its own and other features', that had to be made anew for the merge.
        retested: usize,
        /// Test results that were known.
        cached: usize,
    },
    /// A feature failed.
    Failed {
        /// The feature.
        feature: String,
        /// Why.
        reason: String,
    },
    /// A feature was never begun.
    Skipped {
        /// The feature.
        feature: String,
        /// The failed feature that it depends on.
        because: String,
    },
}
