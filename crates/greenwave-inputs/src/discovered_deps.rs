//! Discovered dependencies: paths that a test was seen to access although they are not declared.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::codec::{Reader, Writer, path_bytes};

/// Maximum total length of decoded paths in bytes, such as half a million paths of 128 bytes. Paths
/// share prefixes in the encoding, so a short damaged or forged record could otherwise take up any
/// amount of memory.
const PATHS_BYTES_MAX: usize = 64 << 20;

/// The ways in which a test depends on a path. The numbers are stored in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AccessKind {
    /// It read the content, queried the metadata or existence, or followed a symbolic link.
    Content = 0,
    /// It read the names in the directory.
    Names = 1,
    /// It read something that cargo builds in the workspace in this directory, which must be built
    /// before other paths are compared. The path itself has no state.
    Build = 2,
    /// It may have read any file of the project, through a process that it did not start. The path
    /// is that of [`tree_path`](crate::tree_path).
    Tree = 3,
    /// Like `Content`, of a path that tests have written in a cache which they maintain. Its state
    /// is [`PathState::AsLeft`](crate::PathState::AsLeft) unless another program has changed it.
    Maintained = 4,
    /// Like `Names`, of a directory of such a cache. Its state covers only the names that no test
    /// has written and the names that another program has removed.
    MaintainedNames = 5,
    /// It asked whether a repository of git exists, and observed nothing else of it. The path is
    /// that of a `.git`, which is a directory in a clone and a file in a worktree or submodule.
    Repository = 6,
    /// It executed the program and did not access the file in any other way, so that only the
    /// content loaded into memory matters: neither debug information nor the build id.
    Loaded = 7,
}

impl AccessKind {
    /// Returns whether the access was to a path in a cache that tests maintain.
    pub fn is_maintained(self) -> bool {
        matches!(self, AccessKind::Maintained | AccessKind::MaintainedNames)
    }
}

/// Paths with the kind of access to each.
///
/// Paths inside the project are relative to it, all others are absolute. They are sorted by their
/// bytes and then by kind, without duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DiscoveredDeps {
    /// The accesses.
    pub accesses: Vec<(PathBuf, AccessKind)>,
}

impl DiscoveredDeps {
    /// Sorts accesses and removes duplicates.
    pub fn new(accesses: impl IntoIterator<Item = (PathBuf, AccessKind)>) -> Self {
        let mut accesses: Vec<_> = accesses.into_iter().collect();
        accesses
            .sort_unstable_by(|one, other| (path_bytes(&one.0), one.1).cmp(&(path_bytes(&other.0), other.1)));
        accesses.dedup();
        Self { accesses }
    }

    /// Returns whether there are no dependencies.
    pub fn is_empty(&self) -> bool {
        self.accesses.is_empty()
    }

    /// Returns the workspaces that must be built before the states of these paths are compared.
    pub fn builds(&self) -> impl Iterator<Item = &Path> {
        let builds = self.accesses.iter().filter(|(_, kind)| *kind == AccessKind::Build);
        builds.map(|(path, _)| path.as_path())
    }

    /// Returns whether a dependency is the whole project.
    pub fn has_tree(&self) -> bool {
        self.accesses.iter().any(|(_, kind)| *kind == AccessKind::Tree)
    }

    /// Returns whether a dependency is in a cache that tests maintain.
    pub fn has_maintained(&self) -> bool {
        self.accesses.iter().any(|(_, kind)| kind.is_maintained())
    }

    /// Encodes the accesses. Each is the number of its kind (1), the length of the prefix that its
    /// path shares with the previous path (4), the length of the rest (4), and the rest,
    /// little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoded = Writer(Vec::with_capacity(self.accesses.len() * 24));
        let mut last: &[u8] = b"";
        for (path, kind) in &self.accesses {
            let path = path_bytes(path);
            let shared = path.iter().zip(last).take_while(|(one, other)| one == other).count();
            encoded.byte(*kind as u8).count(shared).text(&path[shared..]);
            last = path;
        }
        encoded.0
    }

    /// Decodes the result of [`encode`](Self::encode). Returns `None` if it is damaged, or if the
    /// paths have more than 64 MiB in total.
    pub fn decode(encoded: &[u8]) -> Option<Self> {
        let mut reader = Reader(encoded);
        let mut accesses = Vec::new();
        let mut last: Vec<u8> = Vec::new();
        let mut total: usize = 0;
        while !reader.0.is_empty() {
            let kind = match reader.array()? {
                [0] => AccessKind::Content,
                [1] => AccessKind::Names,
                [2] => AccessKind::Build,
                [3] => AccessKind::Tree,
                [4] => AccessKind::Maintained,
                [5] => AccessKind::MaintainedNames,
                [6] => AccessKind::Repository,
                [7] => AccessKind::Loaded,
                _ => return None,
            };
            let (shared, rest) = (reader.count()?, reader.count()?);
            if shared > last.len() {
                return None;
            }
            last.truncate(shared);
            last.extend_from_slice(reader.take(rest)?);
            total += last.len();
            if total > PATHS_BYTES_MAX {
                return None;
            }
            accesses.push((PathBuf::from(OsStr::from_bytes(&last)), kind));
        }
        Some(Self { accesses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_record_of_long_paths_is_refused() {
        let long = |number: usize| {
            let path = format!("{}{number:05}", "d/".repeat(50_000));
            (PathBuf::from(path), AccessKind::Content)
        };
        for (count, is_decoded) in [(600, true), (800, false)] {
            let encoded = DiscoveredDeps::new((0..count).map(long)).encode();
            assert!(encoded.len() < 120_000);
            assert_eq!(DiscoveredDeps::decode(&encoded).is_some(), is_decoded, "{count} paths");
        }
    }
}
