//! Working copies and temporary directories that killed runs have left behind.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use greenwave_dir::{Dir, FileKind};

use super::{HASH_DIGITS, lock};
use crate::error::Error;
use crate::state_dir;

/// Size of the blocks in which the kernel counts the space of a file.
const BLOCK_BYTES: u64 = 512;

/// Removes the working copies of killed runs of all projects but one, and directories whose removal
/// was interrupted. Failures are logged.
pub(super) fn sweep(base: &Dir, except: &OsStr) {
    let swept = names(base).and_then(|names| {
        let mut others = names.iter().filter(|name| *name != except);
        let removed = others.try_for_each(|name| remove(base, name).map(drop));
        removed.and_then(|()| state_dir::remove_set_aside(base))
    });
    if let Err(error) = swept {
        tracing::warn!(error = crate::error::chain(&error), "cannot remove copies of killed runs");
    }
}

/// Returns the names of the directories of working copies of all projects, sorted.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn names(base: &Dir) -> Result<Vec<OsString>, Error> {
    let entries = base.entries().map_err(Error::io("list", base.path()))?.into_iter();
    let directories = entries.filter(|entry| entry.kind == FileKind::Directory).map(|entry| entry.name);
    let mut names: Vec<OsString> = directories.filter(|name| lock::is_marked(base, name)).collect();
    names.sort();
    Ok(names)
}

/// Returns whether a run uses a directory of working copies.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn is_in_use(base: &Dir, name: &OsString) -> Result<bool, Error> {
    let taken = lock::take(base, name).map_err(Error::io("lock", base.path().join(name)))?;
    Ok(taken.is_none())
}

/// Removes a directory of working copies, with the temporary directories of its runs. Returns
/// `false` if a run uses it.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn remove(base: &Dir, name: &OsString) -> Result<bool, Error> {
    let path = base.path().join(name);
    let Some((_, _lock)) = lock::take(base, name).map_err(Error::io("lock", &path))? else {
        return Ok(false);
    };
    remove_temporary_dirs(&path);
    state_dir::set_aside_stale(base, name)?;
    Ok(true)
}

/// Returns the start of the names of temporary directories, which no other project uses.
pub(super) fn temporary_prefix(of_project: &Path) -> String {
    let hash = blake3::hash(of_project.as_os_str().as_encoded_bytes()).to_hex();
    format!("greenwave-{}-", &hash[..HASH_DIGITS])
}

/// Returns the temporary directories of the runs of a project.
pub(crate) fn temporary_dirs(of_project: &Path) -> Vec<PathBuf> {
    let prefix = temporary_prefix(of_project);
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    ours.map(|entry| entry.path()).collect()
}

/// Removes the temporary directories of the runs of a project.
pub(super) fn remove_temporary_dirs(of_project: &Path) {
    for directory in temporary_dirs(of_project) {
        let _ = crate::remove::remove_all(&directory);
    }
}

/// Returns the space that a directory takes with everything in it, in bytes. Counts a file with
/// several names once for each. Leaves out what cannot be read.
pub(crate) fn disk_bytes(directory: &Path) -> u64 {
    let mut pending = vec![directory.to_owned()];
    let mut bytes = 0;
    while let Some(path) = pending.pop() {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        bytes += metadata.blocks() * BLOCK_BYTES;
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    bytes
}
