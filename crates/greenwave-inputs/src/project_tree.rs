//! The state of a whole project: the dependency of a test that may depend on any file of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::codec::path_bytes;
use crate::manifest::ManifestEntry;
use crate::selection::{InputSpec, Selection};
use crate::stamp::{FileStamp, now_ns};
use crate::stat_cache::StatCache;
use crate::walk::{self, FoundFile};

/// Separates the patterns in the path of an [`AccessKind::Tree`](crate::AccessKind::Tree). No file
/// has it in its name.
const SEPARATOR: u8 = 0;

/// The state of all files of a project that its ignore files do not exclude.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectTree {
    /// BLAKE3 hash of the names, modes and contents of all files.
    pub digest: [u8; 32],
    /// The file that was changed last, and the time, in nanoseconds since the Unix epoch.
    pub newest: (PathBuf, i64),
    /// The directories, each with the time at which its list of names was last changed.
    pub directories: Vec<(PathBuf, i64)>,
}

/// Returns the path that represents the dependency on a whole project, without the files that match
/// patterns of outputs.
pub fn tree_path(outputs: &[String]) -> PathBuf {
    let mut path = Vec::new();
    for pattern in outputs {
        path.push(SEPARATOR);
        path.extend_from_slice(pattern.as_bytes());
    }
    PathBuf::from(OsStr::from_bytes(&path))
}

/// Returns the patterns in a path of [`tree_path`].
fn outputs(path: &Path) -> Vec<String> {
    let patterns = path_bytes(path).split(|byte| *byte == SEPARATOR).skip(1);
    patterns.map(|pattern| String::from_utf8_lossy(pattern).into_owned()).collect()
}

impl ProjectTree {
    /// Reads the state that a path of [`tree_path`] represents. Returns `None` if the project
    /// cannot be listed or a file cannot be read.
    pub(crate) fn read(project: &Path, path: &Path, stat_cache: &Mutex<StatCache>) -> Option<Self> {
        let spec = InputSpec { outputs: outputs(path), ..InputSpec::default() };
        let selection = Selection::of(&spec).ok()?;
        let listing = walk::list(project, &[&selection]).ok()?;
        if !listing.unexamined.is_empty() {
            return None;
        }
        let changed = |stamp: &FileStamp| stamp.modified.max(stamp.changed);
        let mut hasher = blake3::Hasher::new();
        let mut newest = (PathBuf::new(), 0);
        for file in listing.files.iter().filter(|file| selection.includes(&file.path, file.is_ignored)) {
            let (entry, stamp) = entry(project, file, stat_cache)?;
            let path = path_bytes(&file.path);
            hasher.update(&(path.len() as u64).to_le_bytes()).update(path);
            hasher.update(&[entry.kind as u8]).update(&entry.hash);
            if changed(&stamp) > newest.1 {
                newest = (file.path.clone(), changed(&stamp));
            }
        }
        let directories = listing.directories.into_iter().map(|(path, stamp)| (path, changed(&stamp)));
        Some(Self { digest: *hasher.finalize().as_bytes(), newest, directories: directories.collect() })
    }
}

/// Returns the entry of a file, reading it unless it is cached. The hash of a link covers the file
/// at its end, whose stamp is not the link's.
fn entry(
    project: &Path,
    file: &FoundFile,
    stat_cache: &Mutex<StatCache>,
) -> Option<(ManifestEntry, FileStamp)> {
    if !file.is_link
        && let Some(entry) = stat_cache.lock().get(&file.path, &file.stamp)
    {
        return Some((entry, file.stamp));
    }
    let at = now_ns();
    let (entry, stamp) = ManifestEntry::read(&project.join(&file.path), file.is_link).ok()?;
    if !file.is_link {
        stat_cache.lock().insert(&file.path, stamp, entry, at);
    }
    Some((entry, stamp))
}
