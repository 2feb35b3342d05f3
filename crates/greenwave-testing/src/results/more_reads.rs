//! Records of tests that a traced run has seen read more than they declare.
//!
//! The result of an untraced run depends on declared files only, so it proves nothing for such a
//! test. Such reads are stored twice: in the project's directory of state, where they never expire,
//! and in the cache, where runs in other directories and on other machines find them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use greenwave_inputs::{ALWAYS_EXCLUDED, AccessKind, DiscoveredDeps};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::results::key;
use crate::results::state::{StateDirectory, StateFile};
use crate::{Error, Test};

/// Maximum number of files in the record of a test. With more, no declaration is enough.
const FILES_MAX: usize = 16;

/// Reads of a test beyond its declared inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MoreReads {
    /// These files of the project, by their relative paths.
    Files(BTreeSet<String>),
    /// Something that no pattern of inputs declares: a path outside of the project, the names in a
    /// directory, or the absence of a file.
    Undeclarable,
}

impl Default for MoreReads {
    fn default() -> Self {
        MoreReads::Files(BTreeSet::new())
    }
}

impl MoreReads {
    /// Returns whether the test has read nothing that it does not declare.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds an access. `relative` is its path relative to the project, or absolute.
    pub(crate) fn add(&mut self, project: &Path, relative: &Path, kind: AccessKind) {
        let is_excluded =
            ALWAYS_EXCLUDED.iter().any(|excluded| relative.iter().any(|name| name == *excluded));
        let is_declarable = kind == AccessKind::Content
            && relative.is_relative()
            && !is_excluded
            && project.join(relative).is_file();
        let path = relative.to_str().filter(|_| is_declarable);
        self.extend(path.map_or(MoreReads::Undeclarable, |path| MoreReads::Files([path.to_owned()].into())));
    }

    /// Adds other reads. Returns whether some were new.
    pub(crate) fn extend(&mut self, other: MoreReads) -> bool {
        let before = self.clone();
        match (&mut *self, other) {
            (MoreReads::Undeclarable, _) => return false,
            (MoreReads::Files(files), MoreReads::Files(more)) if files.len() + more.len() <= FILES_MAX => {
                files.extend(more);
            }
            _ => *self = MoreReads::Undeclarable,
        }
        *self != before
    }

    /// Returns whether the test declares all of these reads now.
    fn are_declared_by(&self, test: &Test) -> bool {
        let (MoreReads::Files(files), Ok(selection)) = (self, test.selection()) else { return false };
        // A file that is ignored now may not have been ignored then, and the other way around. A
        // pattern that matches it includes it in either case.
        files.iter().all(|path| selection.includes(Path::new(path), true))
    }

    /// Returns the reads as dependencies, the form in which they are stored in the cache.
    pub(crate) fn to_dependencies(&self) -> DiscoveredDeps {
        match self {
            MoreReads::Files(files) => {
                DiscoveredDeps::new(files.iter().map(|path| (PathBuf::from(path), AccessKind::Content)))
            }
            MoreReads::Undeclarable => DiscoveredDeps::new([(PathBuf::from("/"), AccessKind::Names)]),
        }
    }

    /// Converts dependencies from the cache.
    pub(crate) fn from_dependencies(set: &DiscoveredDeps) -> Self {
        let path = |(path, kind): &(PathBuf, AccessKind)| match kind {
            AccessKind::Content if path.is_relative() => path.to_str().map(str::to_owned),
            _ => None,
        };
        let files: Option<BTreeSet<String>> = set.accesses.iter().map(path).collect();
        files.map_or(MoreReads::Undeclarable, MoreReads::Files)
    }
}

/// Reads of a project's tests beyond their declared inputs, as seen by traced runs.
#[derive(Debug, Default)]
pub(crate) struct KnownReads {
    known: Mutex<SavedReads>,
}

/// The content of the file of state.
#[derive(Debug, Default, Serialize, Deserialize)]
struct SavedReads {
    /// By the hexadecimal key of the test.
    tests: BTreeMap<String, MoreReads>,
    #[serde(skip)]
    is_changed: bool,
}

impl KnownReads {
    /// Loads what earlier runs have saved.
    pub(crate) fn load(&self, state: &StateDirectory) {
        *self.known.lock() = state.load_json(StateFile::MoreReads);
    }

    /// Adds reads of a test.
    pub(crate) fn add(&self, test: &Test, reads: MoreReads) {
        if !reads.is_empty() {
            self.known.lock().add(key::reads_more(test).to_string(), reads);
        }
    }

    /// Returns the reads of a test that it does not declare now.
    pub(crate) fn undeclared(&self, test: &Test) -> Option<MoreReads> {
        let known = self.known.lock();
        let reads = known.tests.get(&key::reads_more(test).to_string())?;
        (!reads.are_declared_by(test)).then(|| reads.clone())
    }

    /// Saves new reads for later runs, and preserves those that another run has saved meanwhile.
    ///
    /// # Errors
    /// [`Error::Inputs`] if the file cannot be replaced.
    pub(crate) fn save(&self, state: &StateDirectory) -> Result<(), Error> {
        let mut known = self.known.lock();
        if !known.is_changed || !state.is_used() {
            return Ok(());
        }
        // Without a lock, as on some network file systems, one of two runs that save at the same
        // time can lose its reads. The cache still has them.
        let directory = File::open(state.directory());
        let _locked = directory.and_then(|directory| directory.lock().map(|()| directory));
        for (test, reads) in state.load_json::<SavedReads>(StateFile::MoreReads).tests {
            known.add(test, reads);
        }
        state.save_json(StateFile::MoreReads, &*known)?;
        known.is_changed = false;
        // The record of an untraced run says that results are valid which are not believed now.
        state.remove(StateFile::UpToDate);
        Ok(())
    }
}

impl SavedReads {
    fn add(&mut self, test: String, reads: MoreReads) {
        let is_new = self.tests.entry(test).or_default().extend(reads);
        self.is_changed |= is_new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> MoreReads {
        MoreReads::Files(paths.iter().map(|path| (*path).to_owned()).collect())
    }

    #[test]
    fn reads_count_until_they_are_declared() {
        let known = KnownReads::default();
        let test = Test { inputs: vec!["/in".to_owned()], ..Test::new("one", ["true"]) };
        assert_eq!(known.undeclared(&test), None);
        known.add(&test, files(&["data/a", "b"]));
        assert_eq!(known.undeclared(&test), Some(files(&["data/a", "b"])));
        let declaring = |patterns: &[&str]| Test {
            name: "another name".to_owned(),
            inputs: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
            ..test.clone()
        };
        assert!(known.undeclared(&declaring(&["/in", "/data"])).is_some());
        // Everything that is not ignored: one of the files may be.
        assert!(known.undeclared(&declaring(&[])).is_some());
        assert_eq!(known.undeclared(&declaring(&["/in", "/data", "/b"])), None);
        known.add(&test, MoreReads::Undeclarable);
        assert_eq!(known.undeclared(&declaring(&["/in", "/data", "/b"])), Some(MoreReads::Undeclarable));
        assert_eq!(known.undeclared(&Test::new("one", ["false"])), None);
    }

    #[test]
    fn too_many_files_cannot_be_declared() {
        let paths: Vec<String> = (0..FILES_MAX).map(|number| number.to_string()).collect();
        let mut reads = MoreReads::Files(paths.into_iter().collect());
        assert!(!reads.extend(MoreReads::default()));
        assert!(reads.extend(files(&["more"])));
        assert_eq!(reads, MoreReads::Undeclarable);
        assert!(!reads.extend(files(&["more"])));
    }

    #[test]
    fn reads_survive_encoding() {
        for reads in [files(&["a", "b/c"]), MoreReads::Undeclarable] {
            assert_eq!(MoreReads::from_dependencies(&reads.to_dependencies()), reads);
        }
    }

    #[test]
    fn only_existing_files_of_the_project_can_be_declared() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "").unwrap();
        let of = |path: &str, kind| {
            let mut reads = MoreReads::default();
            reads.add(dir.path(), Path::new(path), kind);
            reads
        };
        assert_eq!(of("a", AccessKind::Content), files(&["a"]));
        for path in ["missing", "/etc/hostname", ".git/HEAD"] {
            assert_eq!(of(path, AccessKind::Content), MoreReads::Undeclarable, "{path}");
        }
        assert_eq!(of("a", AccessKind::Names), MoreReads::Undeclarable);
    }
}
