//! Trees of files in memory: the inputs and outputs of an action.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::Error;

/// Maximum number of entries of a tree.
const ENTRIES_MAX: usize = 1 << 20;
/// Maximum total size of the contents of a tree, in bytes.
const BYTES_MAX: u64 = 4 << 30;
/// Maximum length of a path, in bytes.
const PATH_BYTES_MAX: usize = 4096;
/// Maximum number of directories above an entry.
const DEPTH_MAX: usize = 256;

/// Files, symbolic links and directories by their paths. Paths are relative, with `/` between
/// names, without `.` and `..`. The directories above an entry need not be listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
    bytes: u64,
}

/// An entry of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File {
        /// Its content.
        content: Bytes,
        /// Whether it can be executed.
        is_executable: bool,
    },
    /// A symbolic link to this target.
    Link(String),
    /// A directory.
    Directory,
}

impl Tree {
    /// Creates an empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry, or replaces that of the same path.
    ///
    /// # Errors
    /// Returns [`Error::InvalidAction`] if the path is invalid, if it leads through a file or a
    /// link of the tree, and if the tree becomes too large.
    pub fn insert(&mut self, path: &str, entry: Entry) -> Result<(), Error> {
        let invalid = |problem: String| Err(Error::InvalidAction { problem });
        check_path(path)?;
        let is_no_directory = |above: &str| !matches!(self.entries.get(above), None | Some(Entry::Directory));
        if let Some(above) = parents(path).find(|above| is_no_directory(above)) {
            return invalid(format!("`{path}` is below `{above}`, which is no directory"));
        }
        if entry != Entry::Directory && self.has_entries_below(path) {
            return invalid(format!("`{path}` is a directory with entries"));
        }
        if matches!(&entry, Entry::Link(target) if target.is_empty() || target.contains('\0')) {
            return invalid(format!("the link `{path}` has no valid target"));
        }
        let replaced = self.entries.get(path).map_or(0, Entry::bytes);
        let bytes = self.bytes - replaced + entry.bytes();
        if self.entries.len() >= ENTRIES_MAX || bytes > BYTES_MAX {
            return invalid(format!("a tree has at most {ENTRIES_MAX} entries and {BYTES_MAX} bytes"));
        }
        self.bytes = bytes;
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// Adds a file with this content.
    ///
    /// # Errors
    /// Like [`insert`](Self::insert).
    pub fn with_file(mut self, path: &str, content: impl Into<Bytes>) -> Result<Self, Error> {
        self.insert(path, Entry::File { content: content.into(), is_executable: false })?;
        Ok(self)
    }

    /// Returns the entry of a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Returns the entries, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Returns whether the tree has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the total size of the contents.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn has_directory(&self, path: &str) -> bool {
        self.entries.get(path) == Some(&Entry::Directory) || self.has_entries_below(path)
    }

    fn has_entries_below(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.entries.range(below.clone()..).next().is_some_and(|(found, _)| found.starts_with(&below))
    }
}

impl Entry {
    fn bytes(&self) -> u64 {
        match self {
            Self::File { content, .. } => content.len() as u64,
            Self::Link(target) => target.len() as u64,
            Self::Directory => 0,
        }
    }
}

/// Checks a path of a tree.
pub(crate) fn check_path(path: &str) -> Result<(), Error> {
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
    let is_valid = path.len() <= PATH_BYTES_MAX && path.split('/').count() <= DEPTH_MAX;
    if is_valid && path.split('/').all(is_name) {
        return Ok(());
    }
    let expected = "a relative path without empty names, `.` and `..`";
    Err(Error::InvalidAction {
        problem: format!("invalid path `{}`: expected {expected}", path.escape_debug()),
    })
}

/// Returns the paths of the directories above a path, the highest first.
pub(crate) fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}
