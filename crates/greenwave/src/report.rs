//! What became of a run. Knows nothing of how it is shown.

use std::time::Duration;

use serde::Serialize;

/// What became of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The plan's name.
    pub plan: String,
    /// The features in the order of the plan.
    pub features: Vec<FeatureReport>,
    /// The figures of the whole run.
    pub totals: Totals,
}

/// What became of a feature.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FeatureReport {
    /// The feature.
    pub feature: String,
    /// Its last phase.
    pub phase: &'static str,
    /// Whether it was green already, by an earlier run.
    pub up_to_date: bool,
    /// How often the agent was asked for it, by the run that made it green.
    pub attempts: u32,
    /// Tests that passed at the end, where runners counted them.
    pub tests: Option<u32>,
    /// Test commands that were run for it in this run.
    pub tests_run: u32,
    /// Test commands whose result was known.
    pub tests_cached: u32,
    /// Time spent working on it, waiting left out.
    #[serde(serialize_with = "seconds")]
    pub busy: Duration,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
}

/// The figures of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// From the start to the end.
    #[serde(serialize_with = "seconds")]
    pub wall: Duration,
    /// The sum of all the work: what one stage after another would have taken.
    #[serde(serialize_with = "seconds")]
    pub sequential: Duration,
    /// Questions that agents were asked.
    pub requests: u32,
    /// Test commands that were run.
    pub tests_run: u32,
    /// Test commands whose result was known.
    pub tests_cached: u32,
    /// The time that the tests with known results had taken when they were run.
    #[serde(serialize_with = "seconds")]
    pub time_saved: Duration,
    /// Busy time of the workers over what they could have done, from 0 to 1.
    pub efficiency: f64,
    /// Most workers that were busy at once.
    pub workers_peak: u32,
    /// Most memory that was resident, in units of 10⁶ bytes.
    pub memory_peak_mb: u64,
    /// Bytes of contents in memory, at most.
    pub storage_peak_bytes: u64,
    /// Contents that were moved from memory to disk.
    pub storage_spilled: u64,
    /// How contents on disk are compressed.
    pub storage_codec: String,
    /// Bytes that contents on disk occupy.
    pub storage_stored_bytes: u64,
    /// Bytes of the same contents before compression.
    pub storage_raw_bytes: u64,
}

impl Report {
    /// Whether every feature is green.
    pub fn all_green(&self) -> bool {
        self.features.iter().all(|feature| feature.phase == "green")
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}
