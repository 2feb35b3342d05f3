//! Writes changes into a directory: a working copy, or the project.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use greenwave_dir::{Dir, Metadata, Temporary};
use greenwave_storage::Store;
use greenwave_testing::EntryKind;
use parking_lot::Mutex;
use tokio::sync::RwLock;

use crate::error::Error;
use crate::file_state::file_at;
use crate::guarded_write;
use crate::large_files;
use crate::steps::Steps;
use crate::tree::{self, Change};
use crate::workspace::owner;

/// Maximum size of file contents in memory while changes are written, in bytes.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Prefix of temporary files, which are renamed to their final names.
pub(super) const TEMPORARY_PREFIX: &str = ".greenwave-tmp-";

/// Read-locked by writes in flight. A write continues in its own thread when its stage is aborted.
///
/// Holds the locks of the project's state and of its copies, so that no other run starts before all
/// writes have ended.
pub(crate) type InFlight = Arc<RwLock<Vec<fs::File>>>;

/// A directory in which changes are written.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// The directory. Writes go through this handle, so that a link never leads them elsewhere.
    pub(crate) dir: Dir,
    pub(crate) in_flight: InFlight,
    pub(crate) steps: Steps,
    /// Whether this is the project, where the user may write at any moment. Each file is then
    /// compared with its expected state immediately before it is written.
    pub(crate) is_project: bool,
    /// Paths that were written, in the project.
    pub(crate) written: Arc<Mutex<BTreeSet<String>>>,
}

/// Writes all changes or none: if one fails, reverts those before it.
pub(crate) async fn apply_or_revert(
    destination: &Destination,
    changes: &[Change],
    store: &Store,
) -> Result<(), Error> {
    let Err(error) = apply(destination, changes, store).await else { return Ok(()) };
    revert(destination, changes, store).await;
    Err(error)
}

/// Reverts those changes that were made. Logs a warning for each file that cannot be reverted.
pub(crate) async fn revert(destination: &Destination, changes: &[Change], store: &Store) {
    // Created files come first, because they can be in the place of a removed one.
    let (created, other): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.before.is_none());
    for change in created.into_iter().chain(other) {
        let inverse = change.inverse();
        let was_made = file_at(&destination.dir, &change.path)
            .is_ok_and(|now| now == change.after && now != change.before);
        if was_made && let Err(error) = apply(destination, &[inverse], store).await {
            tracing::warn!(%error, path = change.path, "cannot revert a file of a failed merge");
        }
    }
}

/// Removes temporary files that a killed process has left beside the changed files.
pub(crate) fn remove_temporary_files(root: &Dir, changes: &[Change]) {
    for change in changes {
        guarded_write::recover(root, change);
        let Ok((directory, _)) = root.parent(&change.path) else { continue };
        let names = directory.entries().unwrap_or_default().into_iter().map(|entry| entry.name);
        let is_temporary = |name: &OsString| name.as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes());
        for name in names.filter(is_temporary) {
            let _ = directory.remove_file(&name);
        }
    }
}

/// Writes changes into a directory. A kill at any moment leaves each file either old or new.
///
/// # Errors
/// [`Error::Io`], [`Error::Store`], or [`Error::ConcurrentEdit`] in the project.
pub(crate) async fn apply(destination: &Destination, changes: &[Change], store: &Store) -> Result<(), Error> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    // Removals come first, because a file can make room for a directory.
    let (removed, written): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.after.is_none());
    for change in removed.into_iter().chain(written) {
        let mut turn = None;
        let content = match change.after {
            Some(file) => {
                turn = large_files::turn_for_blob(&file.blob).await;
                Some((file.kind, tree::content(store, &file.blob).await?))
            }
            None => None,
        };
        bytes += content.as_ref().map_or(0, |(_, content)| content.len());
        batch.push((change.clone(), content));
        if bytes >= BATCH_BYTES_MAX || turn.is_some() {
            write_batch(destination, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    write_batch(destination, batch).await
}

/// A change with the content that it writes.
type PlannedChange = (Change, Option<(EntryKind, Bytes)>);

async fn write_batch(destination: &Destination, batch: Vec<PlannedChange>) -> Result<(), Error> {
    let destination = destination.clone();
    let in_flight = Arc::clone(&destination.in_flight).read_owned().await;
    let written = tokio::task::spawn_blocking(move || {
        let _in_flight = in_flight;
        batch.iter().try_for_each(|(change, content)| write_one(&destination, change, content.as_ref()))
    });
    written.await.expect("writing files does not panic and is not cancelled")
}

fn write_one(
    destination: &Destination,
    change: &Change,
    content: Option<&(EntryKind, Bytes)>,
) -> Result<(), Error> {
    let root = &destination.dir;
    let path = root.path().join(&change.path);
    destination.steps.pass_blocking("write a file").map_err(Error::io("write", &path))?;
    if destination.is_project {
        destination.written.lock().insert(change.path.clone());
        let now = file_at(root, &change.path)?;
        if now == change.after {
            return Ok(());
        }
        if now != change.before {
            return Err(Error::ConcurrentEdit { path: change.path.clone() });
        }
    }
    if !destination.is_project {
        return match content {
            Some((kind, content)) => {
                put(root, &change.path, *kind, content).map_err(Error::io("write", &path))
            }
            None => remove(root, &change.path).map_err(Error::io("remove", &path)),
        };
    }
    let written = match content {
        Some((kind, content)) => put_guarded(root, *kind, content, change),
        None => remove_guarded(root, change),
    };
    if written.map_err(Error::io("write", &path))? {
        Ok(())
    } else {
        Err(Error::ConcurrentEdit { path: change.path.clone() })
    }
}

/// Like [`put`], but only if the file is still in the state before the change.
fn put_guarded(root: &Dir, kind: EntryKind, content: &[u8], change: &Change) -> io::Result<bool> {
    let (temporary, name) = temporary(root, &change.path, kind, content)?;
    guarded_write::replace(temporary, &name, change.before, change.after)
}

/// Like [`remove`], but only if the file is still in the state before the change.
fn remove_guarded(root: &Dir, change: &Change) -> io::Result<bool> {
    let (directory, name) = match root.parent(&change.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(change.before.is_none()),
        parent => parent?,
    };
    let is_removed = guarded_write::remove(&directory, &name, change.before)?;
    if is_removed {
        remove_empty_parents(root, &change.path);
    }
    Ok(is_removed)
}

/// Writes a temporary file and renames it, so that a reader finds the whole old or the whole new
/// file.
fn put(root: &Dir, path: &str, kind: EntryKind, content: &[u8]) -> io::Result<()> {
    let (temporary, name) = temporary(root, path, kind, content)?;
    temporary.replace(name)
}

/// Writes a temporary file beside the file that it is to replace, with its permissions and owner.
/// Returns it with the name of that file.
fn temporary(root: &Dir, path: &str, kind: EntryKind, content: &[u8]) -> io::Result<(Temporary, OsString)> {
    let (parent, name) = owner::create_parent(root, path)?;
    if kind == EntryKind::Symlink {
        let link = parent.temporary_link(TEMPORARY_PREFIX, OsStr::from_bytes(content))?;
        owner::inherit(&link, &parent, &name);
        return Ok((link, name));
    }
    let permissions = if kind == EntryKind::Executable { 0o777 } else { 0o666 };
    let mut temporary = parent.temporary(TEMPORARY_PREFIX, permissions)?;
    temporary.write_all(content)?;
    owner::inherit(&temporary, &parent, &name);
    if let Some(mode) = replaced_mode(&parent, &name, kind) {
        temporary.file().set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok((temporary, name))
}

/// Returns the permissions for a file that replaces another: those of the old file, with only the
/// executable bits adapted to `kind`. Returns `None` without a file to replace.
fn replaced_mode(directory: &Dir, name: &OsStr, kind: EntryKind) -> Option<u32> {
    let mode = directory.metadata(name).ok().filter(Metadata::is_file)?.permissions() & 0o777;
    let is_executable = mode & 0o100 != 0;
    match kind {
        EntryKind::Executable if !is_executable => Some(mode | (mode & 0o444) >> 2),
        EntryKind::Regular if is_executable => Some(mode & !0o111),
        _ => Some(mode),
    }
}

/// Removes a file, and the directories that are empty without it.
fn remove(root: &Dir, path: &str) -> io::Result<()> {
    match root.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove_empty_parents(root, path);
    Ok(())
}

fn remove_empty_parents(root: &Dir, path: &str) {
    let parents = Path::new(path).ancestors().skip(1).filter(|parent| *parent != Path::new(""));
    // Stops at the first directory that is not empty.
    let _ = parents.map(|parent| root.remove_empty(parent)).find(Result::is_err);
}
