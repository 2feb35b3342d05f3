//! The report of a finished run.

use std::time::Duration;

use serde::Serialize;

/// Report of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name of the plan.
    pub plan: String,
    /// Reports of the features, in the order of the plan.
    pub features: Vec<FeatureReport>,
    /// Figures of the whole run.
    pub totals: Totals,
}

/// Report of a feature.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FeatureReport {
    /// Id of the feature.
    pub feature: String,
    /// Label of its last phase.
    pub phase: &'static str,
    /// Whether an earlier run made it green and its tests still pass.
    pub up_to_date: bool,
    /// Number of attempts, by the run that made it green.
    pub attempts: u32,
    /// Number of tests that passed at the end, if runners count them.
    pub tests: Option<u32>,
    /// Number of test commands that ran for it in this run.
    pub tests_run: u32,
    /// Number of test commands whose result was cached.
    pub tests_cached: u32,
    /// Time spent on it, without waiting. Serialised in seconds.
    #[serde(serialize_with = "seconds")]
    pub busy: Duration,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
    /// Instruction that would remove the reason, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Figures of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// Wall-clock time. Serialised in seconds.
    #[serde(serialize_with = "seconds")]
    pub wall: Duration,
    /// Sum of the times of all stages: the run's duration without parallelism. Serialised in
    /// seconds.
    #[serde(serialize_with = "seconds")]
    pub sequential: Duration,
    /// Number of requests to agents.
    pub requests: u32,
    /// Number of test commands that ran.
    pub tests_run: u32,
    /// Number of test commands whose result was cached.
    pub tests_cached: u32,
    /// Time that the cached tests took when they ran. Serialised in seconds.
    #[serde(serialize_with = "seconds")]
    pub time_saved: Duration,
    /// Share of the workers' time that was busy, from 0 to 1.
    pub efficiency: f64,
    /// Maximum number of workers that were busy at once.
    pub workers_peak: u32,
    /// Peak of resident memory, in units of 10⁶ bytes.
    pub memory_peak_mb: u64,
    /// Peak size of stored contents in memory, in bytes.
    pub storage_peak_bytes: u64,
    /// Number of contents that were moved from memory to disk.
    pub storage_spilled: u64,
    /// Compression of contents on disk.
    pub storage_codec: String,
    /// Size of contents on disk, in bytes.
    pub storage_stored_bytes: u64,
    /// Size of the same contents before compression, in bytes.
    pub storage_raw_bytes: u64,
}

impl Report {
    /// Returns whether every feature is green, or was seen to be red in a run that does no more.
    pub fn all_as_expected(&self) -> bool {
        self.features.iter().all(|feature| matches!(feature.phase, "green" | "red"))
    }

    /// Returns whether every feature is green.
    pub fn all_green(&self) -> bool {
        self.features.iter().all(|feature| feature.phase == "green")
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}
