//! The record of a complete answer to an attempt that asks for several.

use serde::{Deserialize, Serialize};

use crate::tree::Change;

/// A candidate whose agent has answered, as the next run finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CandidateRecord {
    pub(crate) number: u32,
    pub(crate) agent: String,
    /// Changes of the answer. `None` if it cannot be used.
    pub(crate) changes: Option<Vec<Change>>,
    /// Why it cannot be used.
    pub(crate) reason: String,
}

impl CandidateRecord {
    /// Returns whether the answer changes a file.
    pub(crate) fn has_changes(&self) -> bool {
        self.changes.as_ref().is_some_and(|changes| !changes.is_empty())
    }

    /// Returns the changes of the answer, or why it cannot be used.
    pub(crate) fn answer(&self) -> Result<&[Change], &str> {
        self.changes.as_deref().ok_or(&self.reason)
    }

    /// Returns whether the answer is that of one of these agents, in the order of the candidates.
    pub(crate) fn is_of(&self, agents: &[&String]) -> bool {
        let index = (self.number as usize).checked_sub(1);
        index.and_then(|index| agents.get(index)).is_some_and(|agent| **agent == self.agent)
    }
}
