//! The joined changes of a batch.

use super::line::Candidate;
use crate::tree::{Change, Tree};

/// Features whose changes are joined.
#[derive(Debug)]
pub(super) struct Joined {
    /// Features with the changes that each makes to the files of those before it.
    pub(super) features: Vec<(Candidate, Vec<Change>)>,
    /// Files with the changes of all of them.
    pub(super) files: Tree,
}

impl Joined {
    /// Returns the features of the batch.
    pub(super) fn into_candidates(self) -> Vec<Candidate> {
        self.features.into_iter().map(|(candidate, _)| candidate).collect()
    }
}
