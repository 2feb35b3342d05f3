//! Records of green features, stored as JSON in the scheduler's journal.

use serde::{Deserialize, Serialize};

use crate::plan::Feature;
use crate::tree::Change;
use crate::written_tests::WrittenTests;

/// A feature whose files were merged into the project, or were about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GreenRecord {
    /// Hash of the feature's [`definition`]. A record with another hash does not count.
    #[serde(rename = "spec")]
    pub(crate) definition: String,
    /// Number of attempts until the feature was green.
    pub(crate) attempts: u32,
    /// Changes that the merge makes in the project.
    pub(crate) merged: Vec<Change>,
    /// Whether all changes are written. If not, the run was interrupted and the next one finishes
    /// the merge.
    pub(crate) written: bool,
    /// Commit of the changes, if the results of the plan go to a branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commit: Option<String>,
    /// Full name of that branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) branch: Option<String>,
    /// The tests, if an agent has written them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tests: Option<WrittenTests>,
}

/// First part of the keys of green features in the journal. Ids of features have no slash.
const PREFIX: &str = "green/";
/// Number of digits of a definition in a key.
const DEFINITION_DIGITS: usize = 32;

impl GreenRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and lists always serialise")
    }

    /// Decodes a record. An unreadable record counts as missing, so that its feature runs again.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Returns the key in the journal of a feature with this [`definition`].
///
/// Two plans of a project can have features with equal ids. Features with equal definitions are one
/// and the same, in whichever plan they are.
pub(crate) fn key(feature: &str, definition: &str) -> String {
    format!("{PREFIX}{}", name(feature, definition))
}

/// Returns the last part of the keys of a feature's records.
pub(crate) fn name(feature: &str, definition: &str) -> String {
    let digits = definition.get(..DEFINITION_DIGITS).unwrap_or(definition);
    format!("{feature}/{digits}")
}

/// Returns the id of the feature in a key.
pub(crate) fn feature_of(key: &str) -> Option<&str> {
    Some(key.strip_prefix(PREFIX)?.rsplit_once('/')?.0)
}

/// Returns the hash of what identifies a feature across runs: its id and its tests.
///
/// A new prompt, title or agent does not change whether the tests pass, so it does not count. New
/// tests make a new feature, whose tests must fail first. If an agent writes the tests, it does so
/// from the title and the prompt, so these count instead.
pub(crate) fn definition(feature: &Feature) -> String {
    let tests: Vec<_> = feature.tests.iter().map(|test| (&test.command, &test.directory)).collect();
    let text = match feature.writing_agent() {
        None => serde_json::to_vec(&(&feature.id, tests)),
        Some(_) => serde_json::to_vec(&(&feature.id, tests, &feature.title, &feature.prompt)),
    };
    let text = text.unwrap_or_default();
    blake3::hash(&text).to_hex().to_string()
}
