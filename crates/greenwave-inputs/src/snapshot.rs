//! A project whose files are looked at again and again while its tests run: what has not changed is not read twice. Knows nothing of commands or
//! results.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::codec::path_bytes;
use crate::dir_cache::{DirCache, DurableDirectories};
use crate::manifest::{Entry, Manifest, ManifestLine};
use crate::observed::{ObjectExists, PathStates};
use crate::selection::{InputSpec, Selection};
use crate::stamp::{FileStamp, now_ns};
use crate::stat_cache::StatCache;
use crate::text::short_path;
use crate::walk::{self, FoundFile, WalkRoots};

/// Threads that hash the files that are not known yet.
const THREADS_MAX: usize = 8;
/// Files whose hashing is not worth a second thread.
const FILES_A_THREAD: usize = 64;
/// Files whose hashes are put together at once, some tens of microseconds.
const QUICK_FILES_MAX: usize = 100;
/// A look at the whole project costs at most this share of the time: one look waits for so many times what the last one took.
const LOOKS_APART: u32 = 40;
/// But nobody waits longer than this for a look, or than one takes.
const APART_MAX: Duration = Duration::from_millis(500);

/// A project's files, looked at as often as needed.
#[derive(Debug)]
pub struct ProjectFiles {
    root: PathBuf,
    index: Arc<Mutex<StatCache>>,
    object_exists: ObjectExists,
    selections: Arc<Vec<Selection>>,
    /// Which of these each test has, by its name.
    by_test: HashMap<String, usize>,
    roots: WalkRoots,
    tree: Arc<Mutex<Option<DirCache>>>,
    /// The newest look.
    newest: Mutex<Option<Arc<Snapshot>>>,
    /// One look at a time, so that all who wait for one share the next.
    looking: tokio::sync::Mutex<()>,
    looks: AtomicUsize,
    /// Tests that have not ended. While there are any, looks are kept apart.
    running: watch::Sender<usize>,
}

/// The state of a test's inputs at some moment.
#[derive(Debug, Clone)]
pub struct InputSnapshot {
    pub inputs: Manifest,
    /// Of whatever else it may look at.
    pub states: Arc<PathStates>,
}

/// The files of a project at some moment.
#[derive(Debug)]
pub struct Snapshot {
    began: Instant,
    took: Duration,
    pub taken_at: i64,
    root: PathBuf,
    index: Arc<Mutex<StatCache>>,
    files: Vec<FoundFile>,
    unexamined: Vec<PathBuf>,
    entries: Vec<OnceLock<Entry>>,
    /// By selection.
    manifests: Vec<OnceLock<Manifest>>,
    pub states: Arc<PathStates>,
    /// Whether a file was seen to change after it was listed.
    has_changed: AtomicBool,
}

impl ProjectFiles {
    /// The project in a folder, for these tests.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`].
    pub fn new(
        root: &Path,
        index: Arc<Mutex<StatCache>>,
        tree: Option<DirCache>,
        tests: impl IntoIterator<Item = (String, InputSpec)>,
        object_exists: ObjectExists,
    ) -> Result<Self, Error> {
        let (mut selections, mut known, mut by_test) = (Vec::new(), HashMap::new(), HashMap::new());
        for (test, spec) in tests {
            let at = match known.get(&spec) {
                Some(at) => *at,
                None => {
                    selections.push(Selection::of(&spec).map_err(|error| error.for_test(&test))?);
                    known.insert(spec, selections.len() - 1);
                    selections.len() - 1
                }
            };
            by_test.insert(test, at);
        }
        let roots = WalkRoots::of(selections.iter());
        Ok(Self {
            root: root.to_owned(),
            index,
            object_exists,
            selections: Arc::new(selections),
            by_test,
            roots,
            tree: Arc::new(Mutex::new(tree)),
            newest: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            looks: AtomicUsize::new(0),
            running: watch::Sender::new(0),
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Saves what is known of files.
    pub fn save(&self, index: &Path, tree: &Path) -> Result<(), Error> {
        self.index.lock().save(index)?;
        match self.tree.lock().as_mut() {
            Some(known) => known.save(tree),
            None => Ok(()),
        }
    }

    /// What is known of files outside the project, as it is saved.
    pub fn encode_external(&self) -> Vec<u8> {
        self.index.lock().outside()
    }

    /// The directories of the newest look and the files in them that say what is ignored, if their stamps can be believed in later runs.
    pub fn durable_directories(&self) -> Option<DurableDirectories> {
        self.tree.lock().as_ref()?.lasting()
    }

    /// So many tests are about to run.
    pub fn tests_started(&self, tests: usize) {
        self.running.send_replace(tests);
    }

    /// One of them has ended.
    pub fn test_ended(&self) {
        self.running.send_modify(|running| *running = running.saturating_sub(1));
    }

    /// How often the project was looked at.
    pub fn snapshot_count(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }

    /// The newest look at the project, which may be the first.
    pub async fn latest(&self) -> Result<Arc<Snapshot>, Error> {
        let newest = self.newest.lock().clone();
        match newest {
            Some(newest) => Ok(newest),
            None => self.snapshot_after(Instant::now()).await,
        }
    }

    /// A look that began after that moment.
    pub async fn snapshot_after(&self, after: Instant) -> Result<Arc<Snapshot>, Error> {
        let _turn = self.looking.lock().await;
        let newest = self.newest.lock().clone();
        if let Some(newest) = newest {
            if newest.began >= after {
                return Ok(newest);
            }
            let apart = (newest.took * LOOKS_APART).min(APART_MAX.max(newest.took));
            let mut running = self.running.subscribe();
            tokio::select! {
                () = tokio::time::sleep_until(newest.began + apart) => {}
                // Nobody is held up by a look any more.
                _ = running.wait_for(|running| *running == 0) => {}
            }
        }
        let (root, index) = (self.root.clone(), Arc::clone(&self.index));
        let object_exists = self.object_exists;
        let (roots, tree, selections) = (self.roots.clone(), Arc::clone(&self.tree), self.selections.len());
        let snapshot = Arc::new(
            blocking(move || Snapshot::take(root, index, object_exists, &roots, &tree, selections)).await?,
        );
        if self.looks.fetch_add(1, Ordering::Relaxed) == 0 {
            for path in &snapshot.unexamined {
                tracing::warn!(
                    "{} is left out with all below: its path is too long to be looked at",
                    short_path(path)
                );
            }
        }
        *self.newest.lock() = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// A test's inputs in a snapshot.
    pub async fn input_snapshot(&self, snapshot: &Arc<Snapshot>, test: &str) -> Result<InputSnapshot, Error> {
        let moment = |inputs| InputSnapshot { inputs, states: Arc::clone(&snapshot.states) };
        let Some(at) = self.by_test.get(test).copied() else {
            return Err(Error::UnknownTest { test: test.to_owned() });
        };
        if let Some(known) = snapshot.manifests[at].get() {
            return Ok(moment(known.clone()));
        }
        if let Some(known) = snapshot.quick_manifest(at, &self.selections[at]) {
            return Ok(moment(known));
        }
        let (of, selections) = (Arc::clone(snapshot), Arc::clone(&self.selections));
        let inputs = blocking(move || of.manifest(at, &selections[at])).await?;
        Ok(moment(inputs))
    }

    /// The inputs of all these tests, hashed by several threads where they are not known. Blocks.
    pub fn hash_all(&self, snapshot: &Snapshot) -> Result<(), Error> {
        snapshot.hash(&self.selections)?;
        for (at, selection) in self.selections.iter().enumerate() {
            // What cannot be read is told by the tests that need it; the others can do without.
            let _ = snapshot.manifest(at, selection);
        }
        Ok(())
    }

    /// The first of a test's patterns that no file matches.
    pub fn unmatched_pattern<'t>(&self, snapshot: &Snapshot, patterns: &'t [String]) -> Option<&'t str> {
        let matches = |pattern: &&String| match Selection::of_pattern(pattern) {
            Ok(selection) => snapshot.candidates(&selection).into_iter().any(|at| {
                let file = &snapshot.files[at];
                selection.includes(&file.path, file.is_ignored)
            }),
            Err(_) => true,
        };
        let mut positive = patterns.iter().filter(|pattern| !pattern.starts_with('!'));
        positive.find(|pattern| !matches(pattern)).map(String::as_str)
    }
}

impl Snapshot {
    fn take(
        root: PathBuf,
        index: Arc<Mutex<StatCache>>,
        object_exists: ObjectExists,
        roots: &WalkRoots,
        tree: &Mutex<Option<DirCache>>,
        selections: usize,
    ) -> Result<Self, Error> {
        let (began, at) = (Instant::now(), now_ns());
        let mut tree = tree.lock();
        let (files, unexamined) = match tree.as_ref().and_then(|tree| tree.check(&root, roots)) {
            Some(files) => (files, Vec::new()),
            None => {
                let listing = walk::list_below(&root, roots)?;
                *tree = DirCache::of(&listing, roots, at);
                (listing.files, listing.unexamined)
            }
        };
        drop(tree);
        let entries: Vec<OnceLock<Entry>> = {
            let index = index.lock();
            let known =
                |file: &FoundFile| (!file.is_link).then(|| index.get(&file.path, &file.stamp)).flatten();
            files.iter().map(|file| known(file).map_or_else(OnceLock::new, OnceLock::from)).collect()
        };
        let states = Arc::new(PathStates::new(&root, Arc::clone(&index), object_exists));
        Ok(Self {
            began,
            took: began.elapsed(),
            taken_at: at,
            root,
            index,
            files,
            unexamined,
            entries,
            manifests: (0..selections).map(|_| OnceLock::new()).collect(),
            states,
            has_changed: AtomicBool::new(false),
        })
    }

    /// All files, with what identifies those that were read.
    pub fn files(&self) -> impl Iterator<Item = (&FoundFile, Option<&Entry>)> {
        self.files.iter().zip(self.entries.iter().map(OnceLock::get))
    }

    pub fn changed_while_read(&self) -> bool {
        self.has_changed.load(Ordering::Relaxed)
    }

    fn manifest(&self, at: usize, selection: &Selection) -> Result<Manifest, Error> {
        if let Some(known) = self.manifests[at].get() {
            return Ok(known.clone());
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

    /// The same, if it is done in less time than it takes to have another thread do it: nothing is read from a disk.
    fn quick_manifest(&self, at: usize, selection: &Selection) -> Option<Manifest> {
        let candidates = self.candidates(selection);
        let is_quick = candidates.len() <= QUICK_FILES_MAX
            && candidates.iter().all(|at| self.entries[*at].get().is_some());
        is_quick.then(|| self.manifest(at, selection).ok()).flatten()
    }

    /// The files at or below a selection's roots.
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

    fn entry(&self, at: usize) -> Result<(Entry, FileStamp), Error> {
        let file = &self.files[at];
        if let Some(entry) = self.entries[at].get() {
            return Ok((*entry, file.stamp));
        }
        let path = self.root.join(&file.path);
        let (entry, stamp) = Entry::read(&path, file.is_link)?;
        if stamp != file.stamp {
            self.has_changed.store(true, Ordering::Relaxed);
            // Changed since it was listed: the stamp that belongs to the content is the one that counts.
            return Ok((entry, stamp));
        }
        if !file.is_link {
            self.index.lock().insert(&file.path, stamp, entry, self.taken_at);
        }
        let _ = self.entries[at].set(entry);
        Ok((entry, stamp))
    }

    /// Hashes what is not known, by several threads if there is much of it.
    fn hash(&self, selections: &[Selection]) -> Result<(), Error> {
        if self.entries.iter().all(|entry| entry.get().is_some()) {
            return Ok(());
        }
        let mut unknown: Vec<usize> = Vec::new();
        for selection in selections {
            let wanted = |at: &usize| {
                let file = &self.files[*at];
                self.entries[*at].get().is_none() && selection.includes(&file.path, file.is_ignored)
            };
            unknown.extend(self.candidates(selection).into_iter().filter(wanted));
        }
        unknown.sort_unstable();
        unknown.dedup();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.min(THREADS_MAX).min(unknown.len() / FILES_A_THREAD).max(1);
        let next = AtomicUsize::new(0);
        let work = || loop {
            match unknown.get(next.fetch_add(1, Ordering::Relaxed)) {
                None => return Ok(()),
                // What cannot be read is told when it is needed.
                Some(at) => drop(self.entry(*at)),
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mine: Result<(), Error> = work();
            for other in others {
                if let Err(panic) = other.join() {
                    std::panic::resume_unwind(panic);
                }
            }
            mine
        })
    }
}

/// Runs blocking file access on a thread where blocking is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
