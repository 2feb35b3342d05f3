//! Finds the top directory of a repository by its entry `.git`, without a call of git.

use std::path::{Path, PathBuf};

use crate::trusted_owner::is_trusted_above;

/// Returns the nearest directory at or above `directory` that has an entry `.git`. Returns `None`
/// if another user has put it there.
pub(crate) fn nearest_marker(directory: &Path) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    let has_marker = |above: &&Path| above.join(".git").symlink_metadata().is_ok();
    let found = directory.ancestors().find(has_marker)?;
    is_trusted_above(&found.join(".git"), &directory).then(|| found.to_owned())
}
