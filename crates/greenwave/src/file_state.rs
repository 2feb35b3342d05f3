//! Reads the present state of files.

use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use bytes::Bytes;
use greenwave_dir::{Access, Dir, FileKind, Metadata, refused};
use greenwave_storage::{BlobId, Store};
use greenwave_testing::EntryKind;

use crate::error::Error;
use crate::tree::File;

/// Returns the current state of a file. Returns `None` if it does not exist, is not a file, or is
/// behind a symbolic link.
pub(crate) fn file_at(root: &Dir, path: &str) -> Result<Option<File>, Error> {
    state_of(root, path).map_err(Error::io("read", root.path().join(path)))
}

/// Returns the current state of the file at a path, see [`file_at`].
pub(crate) fn state_of(root: &Dir, path: impl AsRef<Path>) -> io::Result<Option<File>> {
    let state = read_file(root, path.as_ref())?;
    Ok(state.map(|(kind, content)| File { kind, blob: BlobId::of(&content) }))
}

/// Stores the current content of a file, and returns its state, see [`file_at`].
pub(crate) async fn capture_file(root: &Dir, path: &str, store: &Store) -> Result<Option<File>, Error> {
    let read = read_file(root, Path::new(path)).map_err(Error::io("read", root.path().join(path)))?;
    let Some((kind, content)) = read else { return Ok(None) };
    let blob = store.put_blob(content).await.map_err(Error::store("write to"))?;
    Ok(Some(File { kind, blob }))
}

/// Returns the kind of a file or link. Returns `None` for other entries.
pub(crate) fn kind_of(metadata: &Metadata) -> Option<EntryKind> {
    match metadata.kind() {
        FileKind::Link => Some(EntryKind::Symlink),
        FileKind::File if metadata.permissions() & 0o100 != 0 => Some(EntryKind::Executable),
        FileKind::File => Some(EntryKind::Regular),
        _ => None,
    }
}

/// Returns the kind and the content of a file, see [`file_at`].
fn read_file(root: &Dir, path: &Path) -> io::Result<Option<(EntryKind, Bytes)>> {
    let is_gone =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let kind = match root.metadata(path) {
        Ok(metadata) => kind_of(&metadata),
        Err(error) if is_gone(&error) => None,
        Err(error) => return Err(error),
    };
    let Some(kind) = kind else { return Ok(None) };
    match read(root, path, kind) {
        // An editor that saves by rename leaves no file for a moment.
        Err(error) if is_gone(&error) || refused(&error).is_some() => Ok(None),
        content => Ok(Some((kind, content?))),
    }
}

/// Returns a file's content, or a link's target.
pub(crate) fn read(root: &Dir, path: impl AsRef<Path>, kind: EntryKind) -> io::Result<Bytes> {
    if kind == EntryKind::Symlink {
        return Ok(root.read_link(path)?.into_os_string().into_vec().into());
    }
    let mut content = Vec::new();
    root.open_file(path, Access::Read, 0)?.read_to_end(&mut content)?;
    Ok(content.into())
}
