//! A project whose files are looked at again and again while its tests run: what has not changed is not read twice. Knows nothing of commands or
//! results.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::fingerprint::{Entry, Line, Manifest, bytes};
use crate::index::StatIndex;
use crate::listing::{self, Found};
use crate::reads::States;
use crate::select::{Selection, Spec};
use crate::stamp::now;
use crate::world::{Moment, blocking};
use crate::{Error, Test};

/// Threads that hash the files that are not known yet.
const THREADS_MAX: usize = 8;
/// Files whose hashing is not worth a second thread.
const FILES_A_THREAD: usize = 64;
/// A look at the whole project costs at most this share of the time: one look waits for so many times what the last one took.
const LOOKS_APART: u32 = 20;

/// A project's files, looked at as often as needed.
#[derive(Debug)]
pub(crate) struct Project {
    root: PathBuf,
    index: Arc<Mutex<StatIndex>>,
    selections: Arc<HashMap<Spec, Arc<Selection>>>,
    /// The newest look.
    newest: Mutex<Option<Arc<Snapshot>>>,
    /// One look at a time, so that all who wait for one share the next.
    looking: tokio::sync::Mutex<()>,
    looks: AtomicUsize,
}

/// The files of a project at some moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    began: Instant,
    took: Duration,
    at: i64,
    root: PathBuf,
    index: Arc<Mutex<StatIndex>>,
    files: Vec<Found>,
    entries: Vec<OnceLock<Entry>>,
    manifests: Mutex<HashMap<Spec, Manifest>>,
    pub(crate) states: Arc<States>,
}

impl Project {
    /// The project in a folder, for these tests.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`].
    pub(crate) fn new<'t>(
        root: &Path,
        index: Arc<Mutex<StatIndex>>,
        tests: impl IntoIterator<Item = &'t Test>,
    ) -> Result<Self, Error> {
        let mut selections = HashMap::new();
        for test in tests {
            let spec = Spec::of(test);
            if !selections.contains_key(&spec) {
                selections.insert(spec, Arc::new(Selection::of(test)?));
            }
        }
        Ok(Self {
            root: root.to_owned(),
            index,
            selections: Arc::new(selections),
            newest: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            looks: AtomicUsize::new(0),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Saves what is known of files.
    pub(crate) fn save(&self, file: &Path) -> Result<(), Error> {
        self.index.lock().save(file)
    }

    /// How often the project was looked at.
    pub(crate) fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }

    /// The newest look at the project, which may be the first.
    pub(crate) async fn newest(&self) -> Result<Arc<Snapshot>, Error> {
        let newest = self.newest.lock().clone();
        match newest {
            Some(newest) => Ok(newest),
            None => self.look(Instant::now()).await,
        }
    }

    /// A look that began after that moment.
    pub(crate) async fn look(&self, after: Instant) -> Result<Arc<Snapshot>, Error> {
        let _turn = self.looking.lock().await;
        let newest = self.newest.lock().clone();
        if let Some(newest) = newest {
            if newest.began >= after {
                return Ok(newest);
            }
            tokio::time::sleep_until(newest.began + newest.took * LOOKS_APART).await;
        }
        let (root, index, selections) =
            (self.root.clone(), Arc::clone(&self.index), Arc::clone(&self.selections));
        let snapshot = Arc::new(blocking(move || Snapshot::take(root, index, &selections)).await?);
        self.looks.fetch_add(1, Ordering::Relaxed);
        *self.newest.lock() = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// A test's inputs in a snapshot.
    pub(crate) async fn moment(&self, snapshot: &Arc<Snapshot>, test: &Test) -> Result<Moment, Error> {
        let spec = Spec::of(test);
        if let Some(known) = snapshot.manifests.lock().get(&spec) {
            return Ok(Moment { inputs: known.clone(), states: Arc::clone(&snapshot.states) });
        }
        let selection = match self.selections.get(&spec) {
            Some(selection) => Arc::clone(selection),
            None => Arc::new(Selection::of(test)?),
        };
        let of = Arc::clone(snapshot);
        let inputs = blocking(move || of.manifest(&spec, &selection)).await?;
        Ok(Moment { inputs, states: Arc::clone(&snapshot.states) })
    }

    /// The inputs of all these tests, hashed by several threads where they are not known. Blocks.
    pub(crate) fn read_all(&self, snapshot: &Snapshot) -> Result<(), Error> {
        snapshot.hash(self.selections.values().map(AsRef::as_ref))?;
        for (spec, selection) in self.selections.iter() {
            snapshot.manifest(spec, selection)?;
        }
        Ok(())
    }
}

impl Snapshot {
    fn take(
        root: PathBuf,
        index: Arc<Mutex<StatIndex>>,
        selections: &HashMap<Spec, Arc<Selection>>,
    ) -> Result<Self, Error> {
        let (began, at) = (Instant::now(), now());
        let selections: Vec<&Selection> = selections.values().map(AsRef::as_ref).collect();
        let files = listing::list(&root, &selections)?;
        let entries: Vec<OnceLock<Entry>> = {
            let index = index.lock();
            let known = |file: &Found| (!file.is_link).then(|| index.get(&file.path, &file.stamp)).flatten();
            files.iter().map(|file| known(file).map_or_else(OnceLock::new, OnceLock::from)).collect()
        };
        let states = Arc::new(States::new(&root, Arc::clone(&index)));
        Ok(Self {
            began,
            took: began.elapsed(),
            at,
            root,
            index,
            files,
            entries,
            manifests: Mutex::default(),
            states,
        })
    }

    /// The paths of all files that were found and are not ignored.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().filter(|file| !file.is_ignored).map(|file| file.path.as_path())
    }

    fn manifest(&self, spec: &Spec, selection: &Selection) -> Result<Manifest, Error> {
        if let Some(known) = self.manifests.lock().get(spec) {
            return Ok(known.clone());
        }
        let mut lines = Vec::new();
        for at in self.candidates(selection) {
            let file = &self.files[at];
            if selection.has(&file.path, file.is_ignored) {
                let (entry, stamp) = self.entry(at)?;
                lines.push(Line { path: file.path.clone(), entry, stamp });
            }
        }
        let manifest = Manifest::new(lines);
        self.manifests.lock().insert(spec.clone(), manifest.clone());
        Ok(manifest)
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
        let first = self.files.partition_point(|file| bytes(&file.path) < bytes(root));
        let itself = self.files.get(first).filter(|file| file.path == root).map(|_| first);
        let inside = [bytes(root), b"/"].concat();
        let start = self.files.partition_point(|file| bytes(&file.path) < inside.as_slice());
        let length = self.files[start..].partition_point(|file| bytes(&file.path).starts_with(&inside));
        itself.into_iter().chain(start..start + length).collect()
    }

    fn entry(&self, at: usize) -> Result<(Entry, crate::stamp::Stamp), Error> {
        let file = &self.files[at];
        if let Some(entry) = self.entries[at].get() {
            return Ok((*entry, file.stamp));
        }
        let path = self.root.join(&file.path);
        let (entry, stamp) = Entry::read(&path, file.is_link)?;
        if stamp != file.stamp {
            // Changed since it was listed: the stamp that belongs to the content is the one that counts.
            return Ok((entry, stamp));
        }
        if !file.is_link {
            self.index.lock().put(&file.path, stamp, entry, self.at);
        }
        let _ = self.entries[at].set(entry);
        Ok((entry, stamp))
    }

    /// Hashes what is not known, by several threads if there is much of it.
    fn hash<'s>(&self, selections: impl Iterator<Item = &'s Selection>) -> Result<(), Error> {
        let mut unknown: Vec<usize> = Vec::new();
        for selection in selections {
            let wanted = |at: &usize| {
                let file = &self.files[*at];
                self.entries[*at].get().is_none() && selection.has(&file.path, file.is_ignored)
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
