//! Records of attempts that are under way, stored as JSON in the scheduler's journal.
//!
//! They let the next run continue where an interrupted one stopped: with the number of the attempt,
//! the feedback that the agent has not answered yet, and an answer that was not tested yet.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::candidate_record::CandidateRecord;
use crate::green_record;
use crate::state::Failure;
use crate::tree::Change;
use crate::written_tests::WrittenTests;

/// Version of the record. A record of another version does not count.
const VERSION: u32 = 1;
/// Prefix of the journal's keys. Ids of features have no slash.
const PREFIX: &str = "attempt/";

/// The attempt at which a feature continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttemptRecord {
    pub(crate) version: u32,
    /// Hash of the feature's [`definition`](crate::green_record::definition). A record with another
    /// hash does not count.
    pub(crate) definition: String,
    /// Number of the attempt, from 1.
    pub(crate) attempt: u32,
    /// Number of the first attempt at the code.
    #[serde(default = "first")]
    pub(crate) first_attempt: u32,
    /// Number of attempts before the current round. The plan sets the number of attempts per round.
    pub(crate) before_round: u32,
    /// The agent that has taken over from the feature's own.
    #[serde(default)]
    pub(crate) agent: Option<String>,
    /// Whether the answer to the attempt is complete. Then `changes` holds it, or `candidates`
    /// does.
    pub(crate) answered: bool,
    /// Feedback for the attempt's prompt.
    pub(crate) feedback: String,
    /// Tests that failed at the previous attempt, by the names that their runner prints.
    pub(crate) failing: BTreeSet<String>,
    /// Changes of the feature up to this attempt.
    pub(crate) changes: Vec<Change>,
    /// Whether the reviewer has approved the answer.
    #[serde(default)]
    pub(crate) is_reviewed: bool,
    /// The tests that an agent has written. Before they are accepted, the attempts are those at the
    /// tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tests: Option<WrittenTests>,
    /// The complete answers to an attempt that asks for several, until one is chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) candidates: Vec<CandidateRecord>,
    /// The last answer, if it was tested and refused.
    #[serde(default)]
    pub(crate) refused: Option<RefusedAnswer>,
}

/// Returns the number of the first attempt at the code of a feature whose tests the plan has.
fn first() -> u32 {
    1
}

/// An answer that was tested and refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedAnswer {
    /// Its changes.
    pub(crate) changes: Vec<Change>,
    pub(crate) failure: Failure,
}

impl AttemptRecord {
    /// Creates the record of an attempt that is about to be requested.
    pub(crate) fn new(definition: &str, attempt: u32, before_round: u32) -> Self {
        Self {
            version: VERSION,
            definition: definition.to_owned(),
            attempt,
            first_attempt: first(),
            before_round,
            agent: None,
            answered: false,
            feedback: String::new(),
            failing: BTreeSet::new(),
            changes: Vec::new(),
            is_reviewed: false,
            tests: None,
            candidates: Vec::new(),
            refused: None,
        }
    }

    /// Returns the key in the journal.
    pub(crate) fn key(feature: &str, definition: &str) -> String {
        format!("{PREFIX}{}", green_record::name(feature, definition))
    }

    /// Returns the id of the feature in a key.
    pub(crate) fn feature_of(key: &str) -> Option<&str> {
        Some(key.strip_prefix(PREFIX)?.rsplit_once('/')?.0)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and lists always serialise")
    }

    /// Decodes a record. An unreadable record counts as missing, so that its feature starts again.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.version == VERSION)
    }

    /// Starts a new round if the attempts of the current one are used up. Returns whether it did.
    pub(crate) fn begin_round(&mut self, attempts_max: u32) -> bool {
        let is_used_up = self.attempt > self.before_round.saturating_add(attempts_max);
        if is_used_up {
            self.before_round = self.attempt.saturating_sub(1);
        }
        is_used_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_other_versions_do_not_count() {
        let record = AttemptRecord::new("hash", 3, 0);
        assert_eq!(AttemptRecord::decode(&record.encode()), Some(record.clone()));
        let newer = AttemptRecord { version: VERSION + 1, ..record };
        assert_eq!(AttemptRecord::decode(&newer.encode()), None);
        assert_eq!(AttemptRecord::decode(b"{}"), None);
    }

    #[test]
    fn a_round_begins_when_the_attempts_are_used_up() {
        let mut record = AttemptRecord::new("hash", 3, 0);
        assert!(!record.begin_round(3));
        record.attempt = 4;
        assert!(record.begin_round(3));
        assert_eq!(record.before_round, 3);
        assert!(!record.begin_round(3));
    }
}
