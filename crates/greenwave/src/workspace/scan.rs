//! Finds what programs have changed in a workspace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use greenwave_dir::{Access, Dir, Metadata, refused};
use greenwave_inputs::{CLOCK_TICK, FileStamp, ManifestEntry, SharedHashes, now_ns};
use greenwave_storage::{BlobId, Store};
use greenwave_testing::EntryKind;

use super::Workspace;
use super::listing::{self, IgnoreRules, ListedFile, Listing, SpecialFile};
use crate::copies::BaseStamps;
use crate::error::Error;
use crate::file_state;
use crate::large_files;
use crate::tree::{self, Change, File, Tree};

/// Maximum size of a file that a scan takes, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Number of characters of a path that a message shows.
const SHOWN_CHARS_MAX: usize = 300;

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
    /// The path has too many levels or bytes.
    TooDeep,
}

impl std::fmt::Display for RefusedEntry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display().to_string();
        let path = path.escape_debug().to_string();
        match path.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => write!(formatter, "`{}…` ", &path[..end])?,
            None => write!(formatter, "`{path}` ")?,
        }
        match self.problem {
            EntryProblem::Special(kind) => write!(formatter, "is {kind}"),
            EntryProblem::NotUtf8 => formatter.write_str("has a name that is not UTF-8"),
            EntryProblem::TooDeep => write!(formatter, "is {}", listing::limits_of_depth()),
            EntryProblem::TooLarge => write!(formatter, "is larger than {FILE_BYTES_MAX} bytes"),
        }
    }
}

/// Contents of files by their stamps, so that unchanged files are not read again.
#[derive(Debug, Default, Clone)]
pub(super) struct StampedFiles {
    own: HashMap<String, StampedFile>,
    /// The files of an overlay that are not in `own`.
    shared: Option<SharedStamps>,
}

/// Files that overlays share, as one of them shows them.
#[derive(Debug, Clone)]
struct SharedStamps {
    files: Arc<BaseStamps>,
    device: u64,
    /// Time at which the overlay was mounted, in nanoseconds since the Unix epoch.
    at: i64,
}

impl SharedStamps {
    fn get(&self, path: &str) -> Option<StampedFile> {
        let (file, stamp) = *self.files.files.get(path)?;
        Some(StampedFile { stamp: FileStamp { device: self.device, ..stamp }, file, at: self.at })
    }
}

#[derive(Debug, Clone, Copy)]
struct StampedFile {
    stamp: FileStamp,
    file: File,
    /// Time at which the file had this content and this stamp, in nanoseconds since the Unix epoch.
    at: i64,
}

impl StampedFile {
    /// Returns whether every later change of the file changes its stamp. No stamp proves that a
    /// file in memory is unchanged.
    fn is_proof(&self) -> bool {
        let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(i64::MAX);
        last_change(&self.stamp) < self.at.saturating_sub(tick) && !self.stamp.is_in_memory()
    }
}

impl StampedFiles {
    /// Returns the files of an overlay that was mounted now, and shows them with this device.
    pub(super) fn shared(files: Arc<BaseStamps>, device: u64) -> Self {
        let shared = SharedStamps { files, device, at: now_ns() };
        Self { own: HashMap::new(), shared: Some(shared) }
    }

    /// Returns the file at a path if its stamp proves that it is unchanged. A file that was changed
    /// within a tick of the clock before the stamp was taken may have changed again without a new
    /// stamp.
    fn get(&self, path: &str, listed: &ListedFile) -> Option<File> {
        let stamped = self.own.get(path).copied();
        let stamped = stamped.or_else(|| self.shared.as_ref()?.get(path));
        let stamped = stamped.filter(|entry| entry.stamp == listed.stamp)?;
        stamped.is_proof().then_some(stamped.file)
    }

    /// Returns the files whose stamps prove that they are unchanged.
    pub(super) fn into_known(self) -> Vec<(String, File, FileStamp)> {
        let known = self.own.into_iter().filter(|(_, stamped)| stamped.is_proof());
        known.map(|(path, stamped)| (path, stamped.file, stamped.stamp)).collect()
    }

    /// Returns the hashes of the files whose stamps prove that they are unchanged. Links have none.
    pub(super) fn hashes(&self) -> Vec<(FileStamp, ManifestEntry)> {
        let known = self.own.values().filter(|stamped| stamped.is_proof());
        let files = known.filter(|stamped| stamped.file.kind != EntryKind::Symlink);
        let entry = |file: File| ManifestEntry { kind: file.kind, hash: *file.blob.as_bytes() };
        files.map(|stamped| (stamped.stamp, entry(stamped.file))).collect()
    }

    /// Returns the device and the hashes of the files of an overlay, if their stamps prove that the
    /// files are unchanged.
    pub(super) fn shared_hashes(&self) -> Option<(u64, &SharedHashes)> {
        let SharedStamps { files, device, at } = self.shared.as_ref()?;
        let mut stamps = files.files.values().map(|(file, stamp)| (*file, *stamp));
        let (file, stamp) = stamps.next()?;
        let newest = FileStamp { device: *device, modified: files.changed, changed: files.changed, ..stamp };
        let is_proof = StampedFile { stamp: newest, file, at: *at }.is_proof();
        is_proof.then_some((*device, &files.hashes))
    }

    /// Records files with the stamps that they have since this process has written them.
    pub(super) fn record(&mut self, written: impl IntoIterator<Item = (String, File, FileStamp)>) {
        let at = now_ns();
        let stamped = written.into_iter().map(|(path, file, stamp)| (path, StampedFile { stamp, file, at }));
        self.own.extend(stamped);
    }

    /// Records files that were written by this process, and by nobody else since.
    pub(super) fn record_written(&mut self, root: &Dir, changes: &[Change]) {
        let mut stamped = Vec::new();
        for change in changes {
            let metadata = root.metadata(&change.path).ok();
            match (change.after, metadata) {
                (Some(file), Some(metadata)) => {
                    stamped.push((change.path.clone(), file, FileStamp::from_stat(metadata.stat())));
                }
                // A file that was removed has its stamp no more.
                _ => drop(self.own.remove(&change.path)),
            }
        }
        self.record(stamped);
    }
}

fn last_change(stamp: &FileStamp) -> i64 {
    stamp.modified.max(stamp.changed)
}

/// A workspace as it is on disk.
pub(super) struct Observed {
    pub(super) listing: Listing,
    /// The files that could be read.
    pub(super) files: Tree,
    pub(super) too_large: Vec<String>,
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
                let size = self.dir().metadata(&change.path).map_or(0, |found| found.len());
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let _turn = large_files::turn_for(size).await;
                let read = file_state::read(self.dir(), &change.path, file.kind);
                let content = read.map_err(Error::io("read", &path))?;
                large_files::record(file.blob, content.len());
                let stored = store.put_blob(content).await.map_err(Error::store("write to"))?;
                if stored != file.blob {
                    let source =
                        io::Error::new(io::ErrorKind::ResourceBusy, "the file changes while it is read");
                    return Err(Error::io("read", &path)(source));
                }
            }
        }
        // An unchanged tree stays shared with others.
        if !changes.is_empty() {
            self.tree = observed.files;
        }
        let special = observed.listing.special.into_iter();
        let special = special.map(|(path, kind)| (path.into(), EntryProblem::Special(kind)));
        let not_utf8 = observed.listing.not_utf8.into_iter().map(|path| (path, EntryProblem::NotUtf8));
        let large = observed.too_large.into_iter().map(|path| (path.into(), EntryProblem::TooLarge));
        let deep = observed.listing.too_deep.into_iter().map(|path| (path.into(), EntryProblem::TooDeep));
        let refused = special.chain(not_utf8).chain(large).chain(deep);
        let refused = refused.map(|(path, problem)| RefusedEntry { path, problem }).collect();
        Ok(Scan { changes, refused })
    }

    /// Reads the state of the directory. Without rules, the ignore files on disk count. Files of
    /// `always` are never ignored.
    pub(super) async fn observe(
        &mut self,
        rules: Option<BTreeMap<String, Bytes>>,
        always: Tree,
    ) -> Result<Observed, Error> {
        let (root, repositories) = (self.dir().clone(), self.repositories.clone());
        let mut stamps = std::mem::take(&mut self.stamps);
        let (stamps, observed) = self
            .blocking(move || {
                open_to_owner(&root).map_err(Error::io("restore the mode of", root.path()))?;
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
        let paths = observed.files.into_iter().map(|(path, _)| path);
        Ok(paths.filter(|path| !tree.contains_key(path)).collect())
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

/// Restores the owner's access to a directory. A program may have taken it away.
fn open_to_owner(root: &Dir) -> io::Result<()> {
    let permissions = Metadata::of(root)?.permissions();
    if permissions & 0o700 == 0o700 { Ok(()) } else { root.set_own_permissions(permissions | 0o700) }
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
            stamps.own.insert(path.clone(), StampedFile { stamp, file, at });
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

#[cfg(test)]
mod tests;
