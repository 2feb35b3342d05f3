//! Opens the directory in which a project's runs leave state for later runs.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// Name of the directory of Greenwave's state in a project.
pub const STATE_DIRECTORY: &str = ".greenwave";

/// Name of the subdirectory with the state of the project's own tests.
pub(crate) const TESTS: &str = "tests";

/// Name of the file that excludes the state from version control.
pub(crate) const IGNORE: &str = ".gitignore";

/// The directory `.greenwave/tests` of a project.
///
/// `docs/formats/state.md` describes the files in it.
#[derive(Debug, Clone)]
pub(crate) struct StateDirectory(PathBuf);

impl StateDirectory {
    /// Opens the directory. Creates it, with access for the current user only, if it is missing.
    ///
    /// # Errors
    /// [`Error::ForeignState`] if another user owns the directory, since its contents are trusted.
    /// [`Error::Io`] if it cannot be created or examined.
    pub(crate) fn open(project: &Path) -> Result<Self, Error> {
        let state = project.join(STATE_DIRECTORY);
        let directory = state.join(TESTS);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(Error::io("create", &directory))?;
        let owner =
            fs::symlink_metadata(&directory).map_err(Error::io("read metadata of", &directory))?.uid();
        let user = rustix::process::geteuid().as_raw();
        if owner != user {
            return Err(Error::ForeignState { path: directory, owner, user });
        }
        let ignore = state.join(IGNORE);
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(Error::io("write", &ignore))?;
        }
        Ok(Self(directory))
    }

    /// Returns the path of a file in the directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
