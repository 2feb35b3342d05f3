//! Finds the top directory of a repository by its entry `.git`, without a call of git.

use std::path::{Path, PathBuf};

/// Returns the nearest directory at or above `directory` that has an entry `.git`.
pub(crate) fn nearest_marker(directory: &Path) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    directory.ancestors().find(|above| above.join(".git").symlink_metadata().is_ok()).map(Path::to_owned)
}
