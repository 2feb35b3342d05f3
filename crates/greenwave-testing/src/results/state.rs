//! The folder in which a project's runs of tests leave what later runs use. Knows nothing of what that is.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// The folder of all that Greenwave keeps of a project.
pub const STATE_DIRECTORY: &str = ".greenwave";

/// What is in it of the project's own tests.
pub(crate) const TESTS: &str = "tests";

/// The file that keeps it out of version control.
pub(crate) const IGNORE: &str = ".gitignore";

/// `.greenwave/tests` of a project.
#[derive(Debug, Clone)]
pub(crate) struct StateDirectory(PathBuf);

impl StateDirectory {
    /// Makes it where it is missing, readable to its user alone.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be made, or [`Error::ForeignState`] if it is another user's.
    pub(crate) fn open(project: &Path) -> Result<Self, Error> {
        let state = project.join(STATE_DIRECTORY);
        let folder = state.join(TESTS);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(Error::io("make", &folder))?;
        let owner = fs::symlink_metadata(&folder).map_err(Error::io("look at", &folder))?.uid();
        let user = rustix::process::geteuid().as_raw();
        if owner != user {
            return Err(Error::ForeignState { path: folder, owner, user });
        }
        let ignore = state.join(IGNORE);
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(Error::io("write", &ignore))?;
        }
        Ok(Self(folder))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
