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
    let state = look_at(root, path.as_ref(), hash)?;
    Ok(state.map(|(kind, blob)| File { kind, blob }))
}

/// Stores the current content of a file, and returns its state, see [`file_at`].
pub(crate) async fn capture_file(root: &Dir, path: &str, store: &Store) -> Result<Option<File>, Error> {
    let read = look_at(root, Path::new(path), |root, path, kind| read(root, path, kind))
        .map_err(Error::io("read", root.path().join(path)))?;
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

/// Returns the kind of a file and what a function reads of it, see [`file_at`].
fn look_at<T>(
    root: &Dir,
    path: &Path,
    look: impl Fn(&Dir, &Path, EntryKind) -> io::Result<T>,
) -> io::Result<Option<(EntryKind, T)>> {
    let is_gone =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let kind = match root.metadata(path) {
        Ok(metadata) => kind_of(&metadata),
        Err(error) if is_gone(&error) => None,
        Err(error) => return Err(error),
    };
    let Some(kind) = kind else { return Ok(None) };
    match look(root, path, kind) {
        // An editor that saves by rename leaves no file for a moment.
        Err(error) if is_gone(&error) || refused(&error).is_some() => Ok(None),
        seen => Ok(Some((kind, seen?))),
    }
}

/// Returns the hash of a file's content, or of a link's target.
fn hash(root: &Dir, path: &Path, kind: EntryKind) -> io::Result<BlobId> {
    if kind == EntryKind::Symlink {
        return Ok(BlobId::of(&read(root, path, kind)?));
    }
    // The file does not pass through memory as a whole.
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(root.open_file(path, Access::Read, 0)?)?;
    Ok(BlobId::from_bytes(*hasher.finalize().as_bytes()))
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
