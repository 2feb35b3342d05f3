//! Finds what programs have changed in a workspace, and resets a workspace to a tree.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use greenwave_dir::{Access, Dir, Metadata, refused};
use greenwave_inputs::{CLOCK_TICK, FileStamp, now_ns};
use greenwave_storage::{BlobId, Store};
use greenwave_testing::EntryKind;

use super::listing::{self, IGNORE_FILES, IgnoreRules, ListedFile, Listing, SpecialFile};
use super::{Workspace, apply};
use crate::error::Error;
use crate::tree::{self, Change, File, Tree};

/// Age of the files in a fresh copy, in seconds.
const MTIME_AGE_S: i64 = 10;
/// Maximum size of a file that a scan takes, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The changes that programs have made in a workspace.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Changed files, sorted by path. A renamed file is one deleted and one created file.
    pub(crate) changes: Vec<Change>,
    /// Entries that cannot be part of a tree.
    pub(crate) refused: Vec<RefusedEntry>,
}

/// An entry of a workspace that cannot be part of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedEntry {
    /// Path relative to the workspace.
    pub(crate) path: PathBuf,
    /// The reason.
    pub(crate) problem: EntryProblem,
}

impl RefusedEntry {
    /// Returns whether the entry is a pipe, a socket or a device.
    pub(crate) fn is_special(&self) -> bool {
        matches!(self.problem, EntryProblem::Special(_))
    }
}

/// Reason why an entry cannot be part of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryProblem {
    /// The entry is a pipe, a socket or a device.
    Special(SpecialFile),
    /// The path is not UTF-8.
    NotUtf8,
    /// The file is larger than [`FILE_BYTES_MAX`].
    TooLarge,
}

impl std::fmt::Display for RefusedEntry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display().to_string();
        write!(formatter, "`{}` ", path.escape_debug())?;
        match self.problem {
            EntryProblem::Special(kind) => write!(formatter, "is {kind}"),
            EntryProblem::NotUtf8 => formatter.write_str("has a name that is not UTF-8"),
            EntryProblem::TooLarge => write!(formatter, "is larger than {FILE_BYTES_MAX} bytes"),
        }
    }
}

/// Contents of files by their stamps, so that unchanged files are not read again.
#[derive(Debug, Default, Clone)]
pub(super) struct StampedFiles(HashMap<String, StampedFile>);

#[derive(Debug, Clone, Copy)]
struct StampedFile {
    stamp: FileStamp,
    file: File,
    /// Time at which the file had this content and this stamp, in nanoseconds since the Unix epoch.
    at: i64,
}

impl StampedFiles {
    /// Returns the file at a path if its stamp proves that it is unchanged. A file that was changed
    /// within a tick of the clock before the stamp was taken may have changed again without a new
    /// stamp.
    fn get(&self, path: &str, listed: &ListedFile) -> Option<File> {
        let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(i64::MAX);
        let stamped = self.0.get(path).filter(|entry| entry.stamp == listed.stamp)?;
        (last_change(&stamped.stamp) < stamped.at.saturating_sub(tick)).then_some(stamped.file)
    }

    /// Records files that were written by this process, and by nobody else since.
    fn record_written(&mut self, root: &Dir, changes: &[Change]) {
        let mut stamped = Vec::new();
        for change in changes {
            let metadata = root.metadata(&change.path).ok();
            match (change.after, metadata) {
                (Some(file), Some(metadata)) => {
                    stamped.push((change.path.clone(), FileStamp::from_stat(metadata.stat()), file));
                }
                _ => drop(self.0.remove(&change.path)),
            }
        }
        let at = now_ns();
        self.0.extend(stamped.into_iter().map(|(path, stamp, file)| (path, StampedFile { stamp, file, at })));
    }
}

fn last_change(stamp: &FileStamp) -> i64 {
    stamp.modified.max(stamp.changed)
}

/// A workspace as it is on disk.
struct Observed {
    listing: Listing,
    /// The files that could be read.
    files: Tree,
    too_large: Vec<String>,
}

impl Workspace {
    /// Finds what programs have changed since the last reset or scan, stores the new contents, and
    /// updates [`tree`](Self::tree).
    ///
    /// Files that the ignore files in the workspace exclude are left out unless the tree has them,
    /// and so is build output. Links are not followed.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Store`].
    pub(crate) async fn scan(&mut self, store: &Store) -> Result<Scan, Error> {
        let observed = self.observe(None, self.tree.clone()).await?;
        let changes = tree::changes(&self.tree, &observed.files);
        for change in &changes {
            if let Some(file) = change.after {
                let path = self.root().join(&change.path);
                let read = super::read(self.dir(), &change.path, file.kind);
                let content = read.map_err(Error::io("read", &path))?;
                let stored = store.put_blob(content).await.map_err(Error::store("write to"))?;
                if stored != file.blob {
                    let source =
                        io::Error::new(io::ErrorKind::ResourceBusy, "the file changes while it is read");
                    return Err(Error::io("read", &path)(source));
                }
            }
        }
        self.tree = observed.files;
        let special = observed.listing.special.into_iter();
        let special = special.map(|(path, kind)| (path.into(), EntryProblem::Special(kind)));
        let not_utf8 = observed.listing.not_utf8.into_iter().map(|path| (path, EntryProblem::NotUtf8));
        let large = observed.too_large.into_iter().map(|path| (path.into(), EntryProblem::TooLarge));
        let refused = special.chain(not_utf8).chain(large);
        let refused = refused.map(|(path, problem)| RefusedEntry { path, problem }).collect();
        Ok(Scan { changes, refused })
    }

    /// Resets the directory to a tree, with any leftovers of programs in it: restores changed and
    /// deleted files and their modes, and removes everything that the tree does not have.
    ///
    /// Build output, and files that the ignore files of the tree exclude, stay.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Store`].
    pub(crate) async fn reset(&mut self, tree: &Tree, store: &Store) -> Result<(), Error> {
        let mut rules = BTreeMap::new();
        for (path, file) in tree {
            let name = path.rsplit('/').next().unwrap_or(path);
            if IGNORE_FILES.contains(&name) && file.kind != EntryKind::Symlink {
                rules.insert(path.clone(), tree::content(store, &file.blob).await?);
            }
        }
        let mut observed = self.observe(Some(rules), tree.clone()).await?;
        let Observed { listing, files, too_large } = &mut observed;
        files.retain(|path, _| !is_hard_link(&listing.files[path]));
        for path in too_large.drain(..) {
            files.remove(&path);
        }
        let changes = tree::changes(&observed.files, tree);
        let (root, wanted) = (self.dir().clone(), tree.clone());
        self.blocking(move || clean(&root, observed, &wanted)).await?;
        let written: Vec<Change> = changes.into_iter().filter(|change| change.after.is_some()).collect();
        apply(&self.destination, &written, store).await?;
        if let Some(git) = self.copies.as_ref().and_then(|copies| copies.git()).filter(|_| self.is_fresh) {
            set_times(&self.destination.dir, &written, git.mtime)?;
        }
        self.is_fresh = false;
        self.stamps.record_written(&self.destination.dir, &written);
        self.tree.clone_from(tree);
        Ok(())
    }

    /// Writes the first tree with an old modification time, and returns that time in seconds since
    /// the Unix epoch. An index of git with this time is valid for every such copy.
    pub(crate) async fn write_first(&mut self, tree: &Tree, store: &Store) -> Result<i64, Error> {
        // Git reads files again that changed in the second in which the index was written.
        let mtime = now_ns() / 1_000_000_000 - MTIME_AGE_S;
        self.reset(tree, store).await?;
        let written = tree::changes(&Tree::new(), tree);
        set_times(&self.destination.dir, &written, mtime)?;
        self.stamps.record_written(&self.destination.dir, &written);
        self.repositories.insert(String::new());
        Ok(mtime)
    }

    /// Reads the state of the directory. Without rules, the ignore files on disk count. Files of
    /// `always` are never ignored.
    async fn observe(
        &mut self,
        rules: Option<BTreeMap<String, Bytes>>,
        always: Tree,
    ) -> Result<Observed, Error> {
        let (root, repositories) = (self.dir().clone(), self.repositories.clone());
        let mut stamps = std::mem::take(&mut self.stamps);
        let (stamps, observed) = self
            .blocking(move || {
                let rules = rules.as_ref().map_or(IgnoreRules::OnDisk, IgnoreRules::Given);
                let observed = observe(&root, rules, &repositories, &always, &mut stamps);
                observed.map(|observed| (stamps, observed))
            })
            .await?;
        self.stamps = stamps;
        let mut observed = observed;
        let is_extra = |path: &str| self.included.contains(path) || self.set_up.contains(path);
        let is_of_tree = |path: &str| self.tree.contains_key(path);
        observed.listing.files.retain(|path, _| is_of_tree(path) || !is_extra(path));
        observed.files.retain(|path, _| is_of_tree(path) || !is_extra(path));
        Ok(observed)
    }

    /// Returns the files that a tree does not have.
    pub(super) async fn created(&mut self, tree: &Tree) -> Result<Vec<String>, Error> {
        let observed = self.observe(None, tree.clone()).await?;
        Ok(observed.files.into_keys().filter(|path| !tree.contains_key(path)).collect())
    }

    /// Does file operations in a thread that may block. The run waits for them even if the stage is
    /// aborted.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let in_flight = Arc::clone(&self.destination.in_flight).read_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _in_flight = in_flight;
            work()
        });
        done.await.expect("file operations do not panic and are not cancelled")
    }
}

fn observe(
    root: &Dir,
    rules: IgnoreRules<'_>,
    repositories: &BTreeSet<String>,
    always: &Tree,
    stamps: &mut StampedFiles,
) -> Result<Observed, Error> {
    let mut listing = listing::list(root, rules, repositories).map_err(Error::io("list", root.path()))?;
    for path in always.keys().filter(|path| !listing.files.contains_key(*path)).cloned().collect::<Vec<_>>() {
        // A file behind a link to a directory is not the file of the tree, and is not found.
        if let Ok(metadata) = root.metadata(&path)
            && let Some(file) = ListedFile::of(&metadata)
        {
            listing.files.insert(path, file);
        }
    }
    let (mut files, mut too_large) = (Tree::new(), Vec::new());
    for (path, listed) in &listing.files {
        if listed.stamp.size > FILE_BYTES_MAX {
            too_large.push(path.clone());
            // The file of the tree stays, because it was not deleted.
            files.extend(always.get(path).map(|file| (path.clone(), *file)));
        } else if let Some(file) = stamps.get(path, listed) {
            files.insert(path.clone(), file);
        } else if let Some((file, stamp, at)) = read_file(root, path, *listed)? {
            stamps.0.insert(path.clone(), StampedFile { stamp, file, at });
            files.insert(path.clone(), file);
        }
    }
    Ok(Observed { listing, files, too_large })
}

/// Reads a file or link, and returns it with its stamp and the time before the file was read.
/// Returns `None` if it does not exist any more.
fn read_file(root: &Dir, path: &str, listed: ListedFile) -> Result<Option<(File, FileStamp, i64)>, Error> {
    let at = now_ns();
    let read = || -> io::Result<(File, FileStamp)> {
        if listed.kind == EntryKind::Symlink {
            let target = root.read_link(path)?;
            let blob = BlobId::of(target.as_os_str().as_bytes());
            return Ok((File { kind: listed.kind, blob }, listed.stamp));
        }
        // A file with several links may be a file of the user, whose mode must not change.
        if listed.stamp.mode & 0o400 == 0 && listed.links == 1 {
            root.set_permissions(path, listed.stamp.mode & 0o7777 | 0o600)?;
        }
        let file = root.open_file(path, Access::Read, 0)?;
        let Some(now) = ListedFile::of(&Metadata::of(&file)?) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file.take(FILE_BYTES_MAX))?;
        let blob = BlobId::from_bytes(*hasher.finalize().as_bytes());
        Ok((File { kind: now.kind, blob }, now.stamp))
    };
    match read() {
        Ok((file, stamp)) => Ok(Some((file, stamp, at))),
        Err(error) if error.kind() == io::ErrorKind::NotFound || refused(&error).is_some() => Ok(None),
        Err(error) => Err(Error::io("read", root.path().join(path))(error)),
    }
}

/// Returns whether a file has other names. A change of its content or mode would change them too.
fn is_hard_link(listed: &ListedFile) -> bool {
    listed.links > 1 && listed.kind != EntryKind::Symlink
}

/// Removes paths that the tree does not have, and obstacles to its files and directories.
/// Restores modes.
fn clean(root: &Dir, observed: Observed, tree: &Tree) -> Result<(), Error> {
    let remove = |path: &Path| root.remove_all(path).map_err(Error::io("remove", root.path().join(path)));
    let Listing { files, directories, special, not_utf8, foreign_repositories } = observed.listing;
    for path in foreign_repositories.iter().chain(special.keys()) {
        remove(Path::new(path))?;
    }
    not_utf8.iter().try_for_each(|path| remove(path))?;
    for (path, listed) in &files {
        if !tree.contains_key(path) || is_hard_link(listed) {
            remove(Path::new(path))?;
        }
    }
    let mut wanted_directories = BTreeSet::new();
    for path in tree.keys() {
        let parents = Path::new(path).ancestors().skip(1).filter(|parent| *parent != Path::new(""));
        // The parents of a directory are inserted with it.
        for parent in parents {
            if !wanted_directories.insert(parent.to_owned()) {
                break;
            }
        }
    }
    for directory in &wanted_directories {
        match root.metadata(directory) {
            Ok(metadata) if !metadata.is_dir() => remove(directory)?,
            _ => {}
        }
    }
    for directory in directories.iter().rev().map(Path::new) {
        if !wanted_directories.contains(directory) {
            // Fails if ignored files are in it.
            let _ = root.remove_empty(directory);
        }
    }
    for path in tree.keys().map(Path::new) {
        if root.metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            remove(path)?;
        }
    }
    restore_modes(root, tree, &wanted_directories)
}

fn restore_modes(root: &Dir, tree: &Tree, directories: &BTreeSet<PathBuf>) -> Result<(), Error> {
    let umask = umask_of(root).map_err(Error::io("write in", root.path()))?;
    let set = |path: &Path, metadata: &Metadata, permissions: u32| {
        if metadata.permissions() == permissions {
            return Ok(());
        }
        let set = root.set_permissions(path, permissions);
        set.map_err(Error::io("restore the mode of", root.path().join(path)))
    };
    for directory in directories {
        if let Ok(metadata) = root.metadata(directory) {
            set(directory, &metadata, 0o777 & !umask | 0o700)?;
        }
    }
    for (path, file) in tree {
        match root.metadata(path) {
            Ok(metadata) if metadata.is_file() && metadata.links() == 1 => {
                let all = if file.kind == EntryKind::Executable { 0o777 } else { 0o666 };
                set(Path::new(path), &metadata, all & !umask | 0o600)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets the modification time of written files, in seconds since the Unix epoch.
fn set_times(root: &Dir, written: &[Change], seconds: i64) -> Result<(), Error> {
    for Change { path, .. } in written {
        let set = root.set_time(path, seconds, 0);
        set.map_err(Error::io("set the time of", root.path().join(path)))?;
    }
    Ok(())
}

/// Returns the permissions that new files lack, as bits.
fn umask_of(directory: &Dir) -> io::Result<u32> {
    let probe = directory.temporary(super::TEMPORARY_PREFIX, 0o777)?;
    Ok(!probe.file().metadata()?.permissions().mode() & 0o777)
}

#[cfg(test)]
mod tests;
