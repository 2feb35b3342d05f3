//! A folder that is kept equal to a tree. Knows nothing of features, agents or tests.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use greenwave_storage::{BlobId, Store};
use greenwave_testing::EntryKind;
use tokio::sync::RwLock;

use crate::parts::Steps;
use crate::tree::{self, Change, File, Tree};
use crate::{Error, confine};

/// Most bytes of file contents that are held at once while a folder is brought up to date.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// What files are called while they are written, before they get their names.
const BESIDE: &str = ".greenwave-tmp-";

/// Held by writes in flight, which go on in a thread of their own when the stage that wanted them is
/// aborted; holds the lock of the project's state, so that no other run begins before they have ended.
pub(crate) type InFlight = Arc<RwLock<Option<fs::File>>>;

/// A directory in which changes are performed.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) root: PathBuf,
    pub(crate) in_flight: InFlight,
    pub(crate) steps: Steps,
    /// Whether others write there at any moment. A file is then compared with what it was before
    /// immediately before it is written: it may have changed while the merge was made durable.
    pub(crate) is_project: bool,
}

/// A folder of our own, equal to a tree but for what programs that ran in it have left there.
#[derive(Debug)]
pub(crate) struct Workspace {
    place: Place,
    tree: Tree,
    /// Bringing it up to date has failed half-way, so that nobody knows what is in it.
    is_unsure: bool,
}

impl Workspace {
    /// An empty folder. Whatever an earlier run left there is removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn new(root: PathBuf, in_flight: InFlight) -> Result<Self, Error> {
        // What a killed run leaves half done in here is cleared by the next one: no step of it matters.
        let place = Place { root, in_flight, steps: Steps::default(), is_project: false };
        let mut workspace = Self { place, tree: Tree::new(), is_unsure: false };
        workspace.clear()?;
        Ok(workspace)
    }

    fn clear(&mut self) -> Result<(), Error> {
        let root = &self.place.root;
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("clear", root)(error));
            }
            _ => fs::create_dir_all(root).map_err(Error::io("make", root))?,
        }
        self.tree.clear();
        self.is_unsure = false;
        Ok(())
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.place.root
    }

    /// What is in it.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Brings the folder from its tree to another, touching only what differs.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Store`]; the folder is then something between the two, and this call may be repeated.
    pub(crate) async fn become_tree(&mut self, tree: &Tree, store: &Store) -> Result<(), Error> {
        if self.is_unsure {
            self.clear()?;
        }
        let changes = tree::changes(&self.tree, tree);
        self.is_unsure = true;
        perform(&self.place, &changes, store).await?;
        self.is_unsure = false;
        self.tree.clone_from(tree);
        Ok(())
    }

    /// Writes a file that somebody named, if its path stays inside.
    ///
    /// # Errors
    /// [`Error::Refused`] with the path, [`Error::Io`], or [`Error::Store`].
    pub(crate) async fn write(&mut self, path: &str, content: Bytes, store: &Store) -> Result<String, Error> {
        let path = confine::inside(self.root(), &confine::plain(path)?)?;
        let target = self.root().join(&path);
        let kind = self.tree.get(&path).map_or(EntryKind::Plain, |file| file.kind);
        put(&target, kind, &content).map_err(Error::io("write", &target))?;
        let stored = store.put_blob(content).await;
        let blob = stored.map_err(|error| Error::Store { operation: "write to", source: error.into() })?;
        self.tree.insert(path.clone(), File { kind, blob });
        Ok(path)
    }

    /// Removes the folder.
    pub(crate) fn remove(self) {
        if let Err(error) = fs::remove_dir_all(self.root()) {
            tracing::warn!(%error, folder = %self.root().display(), "could not remove a workspace");
        }
    }
}

/// Performs changes in a folder, all of them or none: what was changed before one failed is undone.
pub(crate) async fn perform_all(place: &Place, changes: &[Change], store: &Store) -> Result<(), Error> {
    let Err(error) = perform(place, changes, store).await else { return Ok(()) };
    undo(place, changes, store).await;
    Err(error)
}

/// Undoes changes as far as they were made. What cannot be undone is warned of.
pub(crate) async fn undo(place: &Place, changes: &[Change], store: &Store) {
    for change in changes {
        let undone = Change { path: change.path.clone(), before: change.after, after: change.before };
        if state_of(&place.root, &change.path).is_ok_and(|now| now == change.after && now != change.before)
            && let Err(error) = perform(place, &[undone], store).await
        {
            tracing::warn!(%error, path = change.path, "a file of a merge that failed could not be put back");
        }
    }
}

/// Removes what a process that was killed has left half written beside these files.
pub(crate) fn sweep(root: &Path, changes: &[Change]) {
    for change in changes {
        let path = root.join(&change.path);
        let entries =
            path.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        for left in
            entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(BESIDE.as_bytes()))
        {
            let _ = fs::remove_file(left.path());
        }
    }
}

/// What a file in a folder is at this moment; `None` where there is none, or something that is no file.
pub(crate) fn state_of(root: &Path, path: &str) -> Result<Option<File>, Error> {
    let path = root.join(path);
    let kind = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => EntryKind::Link,
        Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o100 != 0 => {
            EntryKind::Executable
        }
        Ok(metadata) if metadata.is_file() => EntryKind::Plain,
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("look at", &path)(error)),
    };
    let content = read(&path, kind).map_err(Error::io("read", &path))?;
    Ok(Some(File { kind, blob: BlobId::of(&content) }))
}

/// A file's content, or a link's target.
pub(crate) fn read(path: &Path, kind: EntryKind) -> io::Result<Bytes> {
    match kind {
        EntryKind::Link => Ok(Bytes::copy_from_slice(fs::read_link(path)?.as_os_str().as_bytes())),
        _ => fs::read(path).map(Bytes::from),
    }
}

/// Performs changes in a directory, each file at once or not at all, whatever moment the process is
/// killed at.
///
/// # Errors
/// [`Error::Io`], [`Error::Store`], or [`Error::ConcurrentEdit`] in the project.
pub(crate) async fn perform(place: &Place, changes: &[Change], store: &Store) -> Result<(), Error> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    // What goes makes room for what comes: a file can become a folder.
    let (gone, come): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.after.is_none());
    for change in gone.into_iter().chain(come) {
        let content = match change.after {
            Some(file) => Some((file.kind, tree::content(store, &file.blob).await?)),
            None => None,
        };
        bytes += content.as_ref().map_or(0, |(_, content)| content.len());
        batch.push((change.clone(), content));
        if bytes >= BATCH_BYTES_MAX {
            write_all(place, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    write_all(place, batch).await
}

type Planned = (Change, Option<(EntryKind, Bytes)>);

async fn write_all(place: &Place, batch: Vec<Planned>) -> Result<(), Error> {
    let place = place.clone();
    let in_flight = Arc::clone(&place.in_flight).read_owned().await;
    let written = tokio::task::spawn_blocking(move || {
        let _in_flight = in_flight;
        batch.iter().try_for_each(|(change, content)| write_one(&place, change, content.as_ref()))
    });
    written.await.expect("writing files does not panic and is not cancelled")
}

fn write_one(place: &Place, change: &Change, content: Option<&(EntryKind, Bytes)>) -> Result<(), Error> {
    let path = place.root.join(&change.path);
    place.steps.pass_blocking("write a file").map_err(Error::io("write", &path))?;
    if place.is_project {
        let now = state_of(&place.root, &change.path)?;
        if now == change.after {
            return Ok(());
        }
        if now != change.before {
            return Err(Error::ConcurrentEdit { path: change.path.clone() });
        }
    }
    match content {
        Some((kind, content)) => put(&path, *kind, content).map_err(Error::io("write", &path)),
        None => remove(&place.root, &path).map_err(Error::io("remove", &path)),
    }
}

/// Writes beside and renames, so that a reader finds the old file or the new one and never half of either.
fn put(path: &Path, kind: EntryKind, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    if kind == EntryKind::Link {
        let target = Path::new(std::ffi::OsStr::from_bytes(content));
        let beside = tempfile::Builder::new().prefix(BESIDE).make_in(folder, |path| symlink(target, path))?;
        return beside.into_temp_path().persist(path).map_err(|error| error.error);
    }
    let mode = if kind == EntryKind::Executable { 0o777 } else { 0o666 };
    let permissions = fs::Permissions::from_mode(mode);
    let mut beside = tempfile::Builder::new().prefix(BESIDE).permissions(permissions).tempfile_in(folder)?;
    beside.write_all(content)?;
    if let Some(mode) = known_mode(path, kind) {
        beside.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    }
    beside.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The permissions of the file that is replaced, if there is one: who may read it is up to whoever made it. Only
/// whether it may be executed is ours to change.
fn known_mode(path: &Path, kind: EntryKind) -> Option<u32> {
    let known = path.symlink_metadata().ok().filter(fs::Metadata::is_file)?.permissions().mode() & 0o777;
    let is_executable = known & 0o100 != 0;
    match kind {
        EntryKind::Executable if !is_executable => Some(known | (known & 0o444) >> 2),
        EntryKind::Plain if is_executable => Some(known & !0o111),
        _ => Some(known),
    }
}

/// Removes a file, and the folders that are empty without it.
fn remove(root: &Path, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folders = path.ancestors().skip(1).take_while(|folder| *folder != root);
    // The first that is not empty is where it ends.
    let _ = folders.map(fs::remove_dir).find(Result::is_err);
    Ok(())
}
