//! Removes what earlier runs have recorded about features.

use bytes::Bytes;

use crate::approval::forget_held;
use crate::attempt_record::AttemptRecord;
use crate::error::Error;
use crate::green_record::{self, definition};
use crate::merge::BatchRecord;
use crate::plan::Plan;
use crate::receipts::Receipts;
use crate::run_journal::RunJournal;
use crate::settings::Settings;
use crate::state_dir;

/// Records of one feature that [`forget`] has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Whether the feature was recorded as green.
    pub green: bool,
    /// Number of the attempt at which the next run would have continued.
    pub attempts: Option<u32>,
}

/// Removes the records of features, so that the next run starts them from the beginning. That
/// includes records of features with these ids in other plans of the project.
///
/// The project's files, the cached test results and the stored answers stay. Returns what was
/// removed, in the order of `features`.
///
/// # Errors
/// Returns [`Error::Busy`] while a run uses the project, and otherwise the reason why the project's
/// state cannot be read or written.
pub fn forget(plan: &Plan, settings: &Settings, features: &[String]) -> Result<Vec<Forgotten>, Error> {
    let (state_dir, _lock) = state_dir::lock(&plan.project)?;
    let receipts = Receipts::new(settings);
    for feature in plan.features.iter().filter(|feature| features.contains(&feature.id)) {
        let removed = receipts.remove(&definition(feature));
        removed.map_err(Error::io(
            "remove receipts from",
            settings.receipts.as_deref().unwrap_or(state_dir.path()),
        ))?;
    }
    let directory = state_dir::create(&state_dir, "journal")?;
    let journal = RunJournal::open(directory, settings.seal_of(&plan.project)?)?;
    let records = journal.finished()?;
    let mut forgotten = Vec::new();
    for feature in features {
        let is_in_batch = BatchRecord::forget(&journal, feature)?;
        // With any tests: in other plans, and before the tests were changed.
        let of_feature = |key: &str| green_record::feature_of(key) == Some(feature.as_str());
        let attempt_of_feature = |key: &str| AttemptRecord::feature_of(key) == Some(feature.as_str());
        let green: Vec<&String> = records.keys().filter(|key| of_feature(key)).collect();
        let attempts = records.iter().filter(|(key, _)| attempt_of_feature(key));
        let attempts: Vec<(&String, &Bytes)> = attempts.collect();
        for key in green.iter().copied().chain(attempts.iter().map(|(key, _)| *key)) {
            journal.forget(key)?;
        }
        forget_held(&plan.project, feature)?;
        let numbers = attempts.iter().filter_map(|(_, bytes)| Some(AttemptRecord::decode(bytes)?.attempt));
        forgotten.push(Forgotten { green: !green.is_empty() || is_in_batch, attempts: numbers.max() });
    }
    Ok(forgotten)
}
