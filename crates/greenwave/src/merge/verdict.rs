//! Verdicts on features that were part of a batch.

use crate::error::FeatureError;
use crate::state::{StageResult, Wait};
use crate::tree::{Conflict, Tree};

/// Verdict on a feature that waited for its merge.
#[derive(Debug)]
pub(super) enum MergeVerdict {
    /// Its files are in the project.
    Merged,
    /// It overlaps with an edit of the user.
    Blocked(Wait),
    /// Its changes conflict with the project, whose files are these.
    Conflict { trunk: Tree, conflict: Conflict },
    /// A test fails on the candidate.
    Refused { trunk: Tree, candidate: Tree, refusal: StageResult },
    /// It cannot be merged at all.
    Failed(FeatureError),
}
