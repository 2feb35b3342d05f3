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
    /// The branch of the results, if the plan asks for a pull request. Not serialised.
    #[serde(skip)]
    pub branch: Option<BranchReport>,
}

/// A branch of results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BranchReport {
    /// Name of the branch.
    pub name: String,
    /// Messages of the commits that the user's `HEAD` does not contain, oldest first. The last
    /// paragraph of each has lines with evidence: `Feature`, `Red` (how its test failed before),
    /// `Attempts` and `Cost`.
    pub messages: Vec<String>,
}

/// Tokens and money that agents have used, as far as they report it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens that models have read, including cached ones.
    pub input_tokens: u64,
    /// Those of them that came from the providers' caches.
    pub cached_tokens: u64,
    /// Tokens that models have written.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar. `None` if no agent has reported it. Serialised in dollars
    /// as `cost_usd`.
    #[serde(rename = "cost_usd", serialize_with = "dollars")]
    pub cost: Option<u64>,
}

impl Usage {
    /// Adds another usage. Sums saturate.
    pub fn add(&mut self, other: Usage) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        if let Some(cost) = other.cost {
            self.cost = Some(self.cost.unwrap_or(0).saturating_add(cost));
        }
    }

    /// Returns whether no agent has reported any usage.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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
    /// Usage of its agent in this run. Not serialised if it is empty.
    #[serde(skip_serializing_if = "Usage::is_empty")]
    pub usage: Usage,
    /// The agent that has taken over, if another one began. Not serialised otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
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
    /// Sum of the times spent on all features: the run's duration without parallelism. Serialised
    /// in seconds.
    #[serde(serialize_with = "seconds")]
    pub sequential: Duration,
    /// Number of requests to agents.
    pub requests: u32,
    /// Usage of all agents. Not serialised if it is empty.
    #[serde(skip_serializing_if = "Usage::is_empty")]
    pub usage: Usage,
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

    /// Returns whether some feature waits for the approval of the user, and every other one is
    /// green or waits for such a feature.
    pub fn needs_approval_only(&self) -> bool {
        let has = |phase: &str| self.features.iter().any(|feature| feature.phase == phase);
        let is_expected = |feature: &FeatureReport| matches!(feature.phase, "green" | "held" | "waiting");
        has("held") && self.features.iter().all(is_expected)
    }

    /// Returns whether every feature is green.
    pub fn all_green(&self) -> bool {
        self.features.iter().all(|feature| feature.phase == "green")
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

#[expect(clippy::ref_option, reason = "the signature that serde requires")]
fn dollars<S: serde::Serializer>(cost: &Option<u64>, out: S) -> Result<S::Ok, S::Error> {
    match cost {
        Some(cost) => out.serialize_some(&(*cost as f64 / 1e6)),
        None => out.serialize_none(),
    }
}
