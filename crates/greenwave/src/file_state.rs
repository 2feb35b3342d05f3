//! Reads the present state of files.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use greenwave_storage::{BlobId, Store};
use greenwave_testing::EntryKind;

use crate::error::Error;
use crate::tree::File;

/// Returns the current state of a file. Returns `None` if it does not exist or is not a file.
pub(crate) fn file_at(root: &Path, path: &str) -> Result<Option<File>, Error> {
    let path = root.join(path);
    state_of(&path).map_err(Error::io("read", &path))
}

/// Returns the current state of the file at a path, see [`file_at`].
pub(crate) fn state_of(path: &Path) -> io::Result<Option<File>> {
    let state = read_file(path)?;
    Ok(state.map(|(kind, content)| File { kind, blob: BlobId::of(&content) }))
}

/// Stores the current content of a file, and returns its state, see [`file_at`].
pub(crate) async fn capture_file(root: &Path, path: &str, store: &Store) -> Result<Option<File>, Error> {
    let path = root.join(path);
    let Some((kind, content)) = read_file(&path).map_err(Error::io("read", &path))? else { return Ok(None) };
    let blob = store.put_blob(content).await.map_err(Error::store("write to"))?;
    Ok(Some(File { kind, blob }))
}

/// Returns the kind and the content of a file, see [`file_at`].
pub(crate) fn read_file(path: &Path) -> io::Result<Option<(EntryKind, Bytes)>> {
    let kind = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => EntryKind::Symlink,
        Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o100 != 0 => {
            EntryKind::Executable
        }
        Ok(metadata) if metadata.is_file() => EntryKind::Regular,
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match read(path, kind) {
        // An editor that saves by rename leaves no file for a moment.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        content => Ok(Some((kind, content?))),
    }
}

/// Returns a file's content, or a link's target.
pub(crate) fn read(path: &Path, kind: EntryKind) -> io::Result<Bytes> {
    match kind {
        EntryKind::Symlink => Ok(Bytes::copy_from_slice(fs::read_link(path)?.as_os_str().as_bytes())),
        _ => fs::read(path).map(Bytes::from),
    }
}
