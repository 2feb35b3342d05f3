//! Opens the directory in which a project's runs leave state for later runs.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use greenwave_inputs::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Name of the directory of Greenwave's state in a project.
pub const STATE_DIRECTORY: &str = ".greenwave";

/// Name of the subdirectory with the state of the project's own tests.
pub(crate) const TESTS: &str = "tests";

/// Name of the file that excludes the state from version control.
pub(crate) const IGNORE: &str = ".gitignore";

/// A file in the directory of state.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StateFile {
    /// Up-to-date record.
    UpToDate,
    /// Stat cache.
    StatCache,
    /// Directory cache.
    DirCache,
    /// Dependency log.
    DependencyLog,
    /// Statistics of tests.
    Statistics,
    /// Versions that tools have reported.
    Tools,
    /// Discovered tests.
    Discoveries,
}

impl StateFile {
    /// Returns the file's path in a project.
    pub(crate) fn in_project(self, project: &Path) -> PathBuf {
        project.join(STATE_DIRECTORY).join(TESTS).join(self.name())
    }

    fn name(self) -> &'static str {
        match self {
            StateFile::UpToDate => "answer",
            StateFile::StatCache => "index",
            StateFile::DirCache => "tree",
            StateFile::DependencyLog => "notes.json",
            StateFile::Statistics => "statistics.json",
            StateFile::Tools => "tools.json",
            StateFile::Discoveries => "found.json",
        }
    }
}

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
    pub(crate) fn path(&self, file: StateFile) -> PathBuf {
        self.0.join(file.name())
    }
}

/// Loads a JSON file of state. A file that is missing, damaged or of another version counts as
/// empty.
pub(crate) fn load_json<T: DeserializeOwned + Default>(file: &Path) -> T {
    let loaded = fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    loaded.unwrap_or_default()
}

/// Replaces a JSON file of state.
///
/// # Errors
/// [`Error::Inputs`] if the file cannot be replaced.
pub(crate) fn save_json(file: &Path, value: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).expect("state has no map keys other than strings");
    Ok(codec::replace_file(file, &bytes)?)
}
