//! What is remembered of a green feature between runs, as JSON in the scheduler's journal. Knows nothing of
//! how features become green.

use serde::{Deserialize, Serialize};

use crate::plan::Feature;
use crate::tree::Change;

/// A feature whose files are in the project, or were about to be written there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What the feature was ([`spec`]): another one of the same id starts anew.
    pub(crate) spec: String,
    /// How often the agent was asked.
    pub(crate) attempts: u32,
    /// The changes in the project.
    pub(crate) merged: Vec<Change>,
    /// Whether all of them are written. If not, the run was killed in between, and the next one goes on.
    pub(crate) written: bool,
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, numbers and lists always serialise")
    }

    /// A record that cannot be read counts as none: the feature is done again.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// What makes a feature the one that was green before, hashed: its id and its tests. Another prompt, title or
/// agent does not undo what the tests say is done; other tests are another feature, which has to be red first.
pub(crate) fn spec(feature: &Feature) -> String {
    let tests: Vec<_> = feature.tests.iter().map(|test| (&test.command, &test.directory)).collect();
    let text = serde_json::to_vec(&(&feature.id, tests)).unwrap_or_default();
    blake3::hash(&text).to_hex().to_string()
}
