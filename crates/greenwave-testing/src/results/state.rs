//! Opens the directory in which a project's runs leave state for later runs.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenwave_dir::{Access, Dir};
use greenwave_inputs::{CLOCK_TICK, SealedContent, StateSeal, UserKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, TraceMode, TraceStatus};

/// Name of the directory of Greenwave's state in a project.
pub const STATE_DIRECTORY: &str = ".greenwave";

/// Name of the subdirectory with the state of the project's own tests.
const TESTS: &str = "tests";

/// Name of the file that excludes the state from version control.
const IGNORE: &str = ".gitignore";

/// A file in the directory of state.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StateFile {
    /// Up-to-date record.
    UpToDate,
    /// Up-to-date record of the commands that collect tests.
    CollectionsUpToDate,
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
    /// Reads of tests beyond their declarations.
    MoreReads,
    /// Files that tests left in caches which they maintain.
    Maintained,
}

impl StateFile {
    const ALL: [Self; 10] = [
        StateFile::UpToDate,
        StateFile::CollectionsUpToDate,
        StateFile::StatCache,
        StateFile::DirCache,
        StateFile::DependencyLog,
        StateFile::Statistics,
        StateFile::Tools,
        StateFile::Discoveries,
        StateFile::MoreReads,
        StateFile::Maintained,
    ];

    /// Returns whether a path is that of a file of state, in any project. Each run rewrites these,
    /// and they say nothing about a project that its files do not say.
    pub(crate) fn is_path(path: &Path) -> bool {
        let mut names = path.iter().rev();
        let file = names.next();
        let is_in_state = names.next().is_some_and(|name| name == TESTS)
            && names.next().is_some_and(|name| name == STATE_DIRECTORY);
        is_in_state && Self::ALL.iter().any(|known| file.is_some_and(|name| name == known.name()))
    }

    fn name(self) -> &'static str {
        match self {
            StateFile::UpToDate => "answer",
            StateFile::CollectionsUpToDate => "collections",
            StateFile::StatCache => "index",
            StateFile::DirCache => "tree",
            StateFile::DependencyLog => "notes.json",
            StateFile::Statistics => "statistics.json",
            StateFile::Tools => "tools.json",
            StateFile::Discoveries => "found.json",
            StateFile::MoreReads => "reads.json",
            StateFile::Maintained => "caches",
        }
    }
}

/// The directory `.greenwave/tests` of a project.
///
/// Every file in it is sealed. A file whose seal does not verify counts as missing: a clone brings
/// the files of its author. `docs/formats/state.md` describes the files.
#[derive(Debug, Clone)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    seal: StateSeal,
    /// Whether a file was not used because its seal does not verify.
    has_foreign: Arc<AtomicBool>,
    /// Whether files are read and written. In a run inside another run they are not: the outer
    /// run's test would depend on them.
    is_used: bool,
}

impl StateDirectory {
    /// Opens the directory of a project, which need not exist.
    ///
    /// # Errors
    /// [`Error::Io`] if the project does not exist.
    pub(crate) fn existing(project: &Path, key: &UserKey) -> Result<Self, Error> {
        let seal = key.for_project(project).map_err(Error::io("find", project))?;
        let path = project.join(STATE_DIRECTORY).join(TESTS);
        let is_used = TraceStatus::of(TraceMode::WhenPossible) != TraceStatus::TracedByOuter;
        Ok(Self { path, seal, has_foreign: Arc::default(), is_used })
    }

    /// Opens the directory. Creates it, with access for the current user only, if it is missing.
    ///
    /// # Errors
    /// [`Error::ForeignState`] if another user owns the directory.
    /// [`Error::Io`] if it cannot be created or examined.
    pub(crate) fn open(project: &Path, key: &UserKey) -> Result<Self, Error> {
        let opened = Self::existing(project, key)?;
        if !opened.is_used {
            return Ok(opened);
        }
        let state = project.join(STATE_DIRECTORY);
        let directory = opened.path.clone();
        let is_new = !state.exists();
        // A link that a clone brings is not followed.
        let created = Dir::open(project).and_then(|dir| dir.create_subdirectory(STATE_DIRECTORY, 0o700));
        let dir = created.map_err(Error::io("create", &state))?;
        if is_new {
            // A test that lists the project and starts at once would see a directory that has just
            // changed, and its first result would not be cached.
            std::thread::sleep(CLOCK_TICK + Duration::from_millis(1));
        }
        let tests = dir.create_subdirectory(TESTS, 0o700).map_err(Error::io("create", &directory))?;
        let owner = tests.metadata("").map_err(Error::io("read metadata of", &directory))?.owner();
        let user = rustix::process::geteuid().as_raw();
        if owner != user {
            return Err(Error::ForeignState { path: directory, owner, user });
        }
        exclude_from_version_control(&dir).map_err(Error::io("write", state.join(IGNORE)))?;
        Ok(opened)
    }

    /// Returns the path of the directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a file in the directory.
    pub(crate) fn path(&self, file: StateFile) -> PathBuf {
        self.path.join(file.name())
    }

    /// Returns whether files are read and written.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used
    }

    /// Returns the seal of the files.
    pub(crate) fn seal(&self) -> &StateSeal {
        &self.seal
    }

    /// Returns whether a file was not used because its seal does not verify: somebody else made it,
    /// or it belongs to another directory.
    pub(crate) fn has_foreign_files(&self) -> bool {
        self.has_foreign.load(Ordering::Relaxed)
    }

    /// Reads a file. Returns `None` if it is missing or its seal does not verify.
    pub(crate) fn read(&self, file: StateFile) -> Option<Vec<u8>> {
        if !self.is_used {
            return None;
        }
        let content = self.seal.read(&self.path(file));
        if content == SealedContent::Foreign {
            self.has_foreign.store(true, Ordering::Relaxed);
        }
        content.valid()
    }

    /// Returns the content of a file that was read. Returns `None` if the seal does not verify.
    pub(crate) fn unseal<'b>(&self, file: StateFile, sealed: &'b [u8]) -> Option<&'b [u8]> {
        self.seal.unseal(file.name(), sealed)
    }

    /// Replaces a file.
    ///
    /// # Errors
    /// [`Error::Inputs`] if the file cannot be replaced.
    pub(crate) fn replace(&self, file: StateFile, content: Vec<u8>) -> Result<(), Error> {
        if !self.is_used {
            return Ok(());
        }
        Ok(self.seal.replace(&self.path(file), content)?)
    }

    /// Removes a file. A file that cannot be removed stays.
    pub(crate) fn remove(&self, file: StateFile) {
        let above = self.path.parent().and_then(Path::parent).unwrap_or(&self.path);
        let path = Path::new(STATE_DIRECTORY).join(TESTS).join(file.name());
        let _ = Dir::open(above).and_then(|project| project.remove_file(path));
    }

    /// Replaces a file with what `update` returns for its content, under a lock of the directory.
    /// Does nothing if `update` returns `None`.
    ///
    /// # Errors
    /// [`Error::Inputs`] if the file cannot be replaced.
    pub(crate) fn update(
        &self,
        file: StateFile,
        update: impl FnOnce(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<(), Error> {
        if !self.is_used {
            return Ok(());
        }
        // Without a lock, as on some network file systems, one of two runs that save at the same
        // time can lose its state.
        let directory = File::open(&self.path);
        let _locked = directory.and_then(|directory| directory.lock().map(|()| directory));
        match update(self.read(file).as_deref()) {
            Some(content) => self.replace(file, content),
            None => Ok(()),
        }
    }

    /// Loads a JSON file. A file that is missing, foreign, damaged or of another version counts as
    /// empty.
    pub(crate) fn load_json<T: DeserializeOwned + Default>(&self, file: StateFile) -> T {
        let loaded = self.read(file).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        loaded.unwrap_or_default()
    }

    /// Replaces a JSON file.
    ///
    /// # Errors
    /// [`Error::Inputs`] if the file cannot be replaced.
    pub(crate) fn save_json(&self, file: StateFile, value: &impl Serialize) -> Result<(), Error> {
        let bytes = serde_json::to_vec(value).expect("state has no map keys other than strings");
        self.replace(file, bytes)
    }
}

fn exclude_from_version_control(state: &Dir) -> io::Result<()> {
    let mut ignore = state.open_file(IGNORE, Access::Create, 0o666)?;
    // A file that somebody has written stays as it is.
    if ignore.metadata()?.len() == 0 { ignore.write_all(b"*\n") } else { Ok(()) }
}
