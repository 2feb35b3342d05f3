//! A snapshot of the files of a project: its listing, and the content hashes that were needed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Error;
use crate::codec::path_bytes;
use crate::dir_cache::DirCache;
use crate::maintained::MaintainedFiles;
use crate::manifest::{Manifest, ManifestEntry, ManifestLine};
use crate::path_states::{ObjectExists, PathStates};
use crate::selection::Selection;
use crate::stamp::{FileStamp, now_ns};
use crate::stat_cache::StatCache;
use crate::walk::{self, FoundFile, WalkRoots};

/// Maximum number of threads that hash files.
const THREADS_MAX: usize = 8;
/// Number of files that are worth one more thread.
const FILES_PER_THREAD: usize = 64;
/// Maximum number of hashed files whose manifest is assembled without another thread. It takes some
/// tens of microseconds.
const QUICK_FILES_MAX: usize = 100;

/// The state of a test's inputs in a [`Snapshot`].
#[derive(Debug, Clone)]
pub struct InputSnapshot {
    /// The declared inputs.
    pub inputs: Manifest,
    /// The states of all other paths.
    pub states: Arc<PathStates>,
}

/// The files of a project at one moment.
///
/// Creating a snapshot lists the project. Files are hashed when a manifest needs them; one that
/// changes in between is reported by [`changed_while_read`](Self::changed_while_read).
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    /// The time at which the listing began, in nanoseconds since the Unix epoch.
    pub taken_at: i64,
    root: PathBuf,
    stat_cache: Arc<Mutex<StatCache>>,
    files: Vec<FoundFile>,
    pub(crate) unexamined: Vec<PathBuf>,
    /// The entries of `files`, as far as they are needed.
    entries: Vec<OnceLock<ManifestEntry>>,
    /// By selection.
    manifests: Vec<OnceLock<Manifest>>,
    /// The states of paths outside the listing.
    pub states: Arc<PathStates>,
    /// The states without the names of outputs, by their patterns.
    states_without: Mutex<HashMap<Vec<String>, Arc<PathStates>>>,
    changed_while_read: AtomicBool,
}

/// The parts of a project that all its snapshots share.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotSource {
    pub(crate) root: PathBuf,
    pub(crate) stat_cache: Arc<Mutex<StatCache>>,
    pub(crate) object_exists: ObjectExists,
    pub(crate) maintained: Arc<MaintainedFiles>,
    pub(crate) roots: WalkRoots,
    pub(crate) dir_cache: Arc<Mutex<Option<DirCache>>>,
}

impl SnapshotSource {
    /// Takes a snapshot for a number of selections. Blocks.
    pub(crate) fn take(&self, selections: usize) -> Result<Snapshot, Error> {
        let (began, taken_at) = (Instant::now(), now_ns());
        let (files, unexamined) = self.list(taken_at)?;
        let entries: Vec<OnceLock<ManifestEntry>> = {
            let stat_cache = self.stat_cache.lock();
            // The hash of a link covers the file at its end, whose stamp is not the link's.
            let cached =
                |file: &FoundFile| (!file.is_link).then(|| stat_cache.get(&file.path, &file.stamp)).flatten();
            files.iter().map(|file| cached(file).map_or_else(OnceLock::new, OnceLock::from)).collect()
        };
        let states = PathStates::new(&self.root, Arc::clone(&self.stat_cache), self.object_exists)
            .with_maintained(Arc::clone(&self.maintained));
        Ok(Snapshot {
            began,
            took: began.elapsed(),
            taken_at,
            root: self.root.clone(),
            stat_cache: Arc::clone(&self.stat_cache),
            files,
            unexamined,
            entries,
            manifests: (0..selections).map(|_| OnceLock::new()).collect(),
            states: Arc::new(states),
            states_without: Mutex::default(),
            changed_while_read: AtomicBool::new(false),
        })
    }

    /// Returns the files and the unexamined paths, from the directory cache if it is up to date.
    fn list(&self, at: i64) -> Result<(Vec<FoundFile>, Vec<PathBuf>), Error> {
        let mut dir_cache = self.dir_cache.lock();
        if let Some(files) = dir_cache.as_ref().and_then(|cache| cache.refresh(&self.root, &self.roots)) {
            return Ok((files, Vec::new()));
        }
        let listing = walk::list_below(&self.root, &self.roots)?;
        *dir_cache = DirCache::of(&self.root, &listing, &self.roots, at);
        Ok((listing.files, listing.unexamined))
    }
}

impl Snapshot {
    /// Returns all files, each with its entry if it was hashed.
    pub fn files(&self) -> impl Iterator<Item = (&FoundFile, Option<&ManifestEntry>)> {
        self.files.iter().zip(self.entries.iter().map(OnceLock::get))
    }

    /// Returns the states of paths for a test with this selection, in which names of its outputs do
    /// not count.
    pub(crate) fn states_for(&self, selection: &Selection) -> Arc<PathStates> {
        let patterns = selection.output_patterns();
        if patterns.is_empty() {
            return Arc::clone(&self.states);
        }
        let mut all = self.states_without.lock();
        let new = || Arc::new(PathStates::without_outputs(&self.states, selection));
        Arc::clone(all.entry(patterns.to_vec()).or_insert_with(new))
    }

    /// Returns whether a file was changed after it was listed and before it was hashed.
    pub fn changed_while_read(&self) -> bool {
        self.changed_while_read.load(Ordering::Relaxed)
    }

    /// Returns the manifest of the selection with index `at`, if it was assembled before.
    pub(crate) fn cached_manifest(&self, at: usize) -> Option<Manifest> {
        self.manifests[at].get().cloned()
    }

    /// Returns the manifest of the selection with index `at`, hashing files if necessary.
    pub(crate) fn manifest(&self, at: usize, selection: &Selection) -> Result<Manifest, Error> {
        if let Some(cached) = self.cached_manifest(at) {
            return Ok(cached);
        }
        let mut lines = Vec::new();
        for at in self.candidates(selection) {
            let file = &self.files[at];
            if selection.includes(&file.path, file.is_ignored) {
                let (entry, stamp) = self.entry(at)?;
                lines.push(ManifestLine { path: file.path.clone(), entry, stamp });
            }
        }
        Ok(self.manifests[at].get_or_init(|| Manifest::new(lines, selection, &self.unexamined)).clone())
    }

    /// Returns the manifest if assembling it takes less time than handing it to another thread:
    /// there are few files, and all of them are hashed.
    pub(crate) fn quick_manifest(&self, at: usize, selection: &Selection) -> Option<Manifest> {
        let candidates = self.candidates(selection);
        let is_quick = candidates.len() <= QUICK_FILES_MAX
            && candidates.iter().all(|at| self.entries[*at].get().is_some());
        is_quick.then(|| self.manifest(at, selection).ok()).flatten()
    }

    /// Returns whether a selection includes a file.
    pub(crate) fn has_match(&self, selection: &Selection) -> bool {
        self.candidates(selection).into_iter().any(|at| {
            let file = &self.files[at];
            selection.includes(&file.path, file.is_ignored)
        })
    }

    /// Hashes all files that a selection includes, by several threads if there are many. Files that
    /// cannot be read are skipped; the manifests that need them return the error.
    pub(crate) fn hash(&self, selections: &[Selection]) {
        if self.entries.iter().all(|entry| entry.get().is_some()) {
            return;
        }
        let mut unhashed: Vec<usize> = Vec::new();
        for selection in selections {
            let is_wanted = |at: &usize| {
                let file = &self.files[*at];
                self.entries[*at].get().is_none() && selection.includes(&file.path, file.is_ignored)
            };
            unhashed.extend(self.candidates(selection).into_iter().filter(is_wanted));
        }
        unhashed.sort_unstable();
        unhashed.dedup();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.min(THREADS_MAX).min(unhashed.len() / FILES_PER_THREAD).max(1);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(at) = unhashed.get(next.fetch_add(1, Ordering::Relaxed)) {
                let _ = self.entry(*at);
            }
        };
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
    }

    /// Returns the indices of the files at or below the roots of a selection.
    fn candidates(&self, selection: &Selection) -> Vec<usize> {
        let mut at: Vec<usize> = selection.roots().into_iter().flat_map(|root| self.below(root)).collect();
        at.sort_unstable();
        at.dedup();
        at
    }

    fn below(&self, root: &Path) -> Vec<usize> {
        if root.as_os_str().is_empty() {
            return (0..self.files.len()).collect();
        }
        let first = self.files.partition_point(|file| path_bytes(&file.path) < path_bytes(root));
        let itself = self.files.get(first).filter(|file| file.path == root).map(|_| first);
        let inside = [path_bytes(root), b"/"].concat();
        let start = self.files.partition_point(|file| path_bytes(&file.path) < inside.as_slice());
        let length = self.files[start..].partition_point(|file| path_bytes(&file.path).starts_with(&inside));
        itself.into_iter().chain(start..start + length).collect()
    }

    /// Returns the entry of a file with the stamp that belongs to it, hashing the file if
    /// necessary.
    fn entry(&self, at: usize) -> Result<(ManifestEntry, FileStamp), Error> {
        let file = &self.files[at];
        if let Some(entry) = self.entries[at].get() {
            return Ok((*entry, file.stamp));
        }
        let path = self.root.join(&file.path);
        let (entry, stamp) = ManifestEntry::read(&path, file.is_link)?;
        if stamp != file.stamp {
            self.changed_while_read.store(true, Ordering::Relaxed);
            return Ok((entry, stamp));
        }
        if !file.is_link {
            self.stat_cache.lock().insert(&file.path, stamp, entry, self.taken_at);
        }
        let _ = self.entries[at].set(entry);
        Ok((entry, stamp))
    }
}
