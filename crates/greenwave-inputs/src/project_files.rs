//! Takes snapshots of a project while its tests run, without reading unchanged files again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::dir_cache::{DirCache, DurableDirectories};
use crate::discovered_deps::DiscoveredDeps;
use crate::maintained::MaintainedFiles;
use crate::manifest::Manifest;
use crate::path_states::ObjectExists;
use crate::seal::StateSeal;
use crate::selection::{InputSpec, Selection};
use crate::snapshot::{InputSnapshot, Snapshot, SnapshotSource};
use crate::stat_cache::StatCache;
use crate::text::short_path;
use crate::walk::WalkRoots;

/// Minimum time between two snapshots, as a multiple of the duration of the last one: snapshots
/// take at most this share of the time.
const SPACING: u32 = 40;
/// Maximum of that minimum, unless a single snapshot takes longer.
const SPACING_MAX: Duration = Duration::from_millis(500);

/// The files of a project, from which snapshots are taken as often as needed.
#[derive(Debug)]
pub struct ProjectFiles {
    source: SnapshotSource,
    selections: Arc<Vec<Selection>>,
    /// Indices into `selections` by the name of the test. Tests with equal specifications share
    /// one.
    by_test: HashMap<String, usize>,
    latest: Mutex<Option<Arc<Snapshot>>>,
    /// Held while a snapshot is taken, so that all callers that wait share the next one.
    turn: tokio::sync::Mutex<()>,
    snapshot_count: AtomicUsize,
    /// Number of running tests. While there are any, snapshots are spaced.
    running: watch::Sender<usize>,
}

impl ProjectFiles {
    /// Creates the files of the project in the directory `root`, for tests with these names and
    /// specifications.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`], with the name of the test.
    pub fn new(
        root: &Path,
        stat_cache: Arc<Mutex<StatCache>>,
        dir_cache: Option<DirCache>,
        tests: impl IntoIterator<Item = (String, InputSpec)>,
        object_exists: ObjectExists,
    ) -> Result<Self, Error> {
        let (mut selections, mut by_spec, mut by_test) = (Vec::new(), HashMap::new(), HashMap::new());
        for (test, spec) in tests {
            let at = match by_spec.get(&spec) {
                Some(at) => *at,
                None => {
                    selections.push(Selection::of(&spec).map_err(|error| error.for_test(&test))?);
                    by_spec.insert(spec, selections.len() - 1);
                    selections.len() - 1
                }
            };
            by_test.insert(test, at);
        }
        let source = SnapshotSource {
            root: root.to_owned(),
            stat_cache,
            object_exists,
            maintained: Arc::default(),
            roots: WalkRoots::of(selections.iter()),
            dir_cache: Arc::new(Mutex::new(dir_cache)),
        };
        Ok(Self {
            source,
            selections: Arc::new(selections),
            by_test,
            latest: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            snapshot_count: AtomicUsize::new(0),
            running: watch::Sender::new(0),
        })
    }

    /// Sets the records of files in caches that tests maintain. The default is an empty record.
    #[must_use]
    pub fn with_maintained(mut self, maintained: Arc<MaintainedFiles>) -> Self {
        self.source.maintained = maintained;
        self
    }

    /// Returns the directory of the project.
    pub fn root(&self) -> &Path {
        &self.source.root
    }

    /// Returns the latest snapshot. The first call takes one.
    ///
    /// # Errors
    /// [`Error::Io`] with the directory that cannot be listed.
    pub async fn latest(&self) -> Result<Arc<Snapshot>, Error> {
        let latest = self.latest.lock().clone();
        match latest {
            Some(latest) => Ok(latest),
            None => self.snapshot_after(Instant::now()).await,
        }
    }

    /// Returns a snapshot that began after the given time.
    ///
    /// Concurrent callers share a snapshot. While tests run, snapshots take at most a fortieth of
    /// the time: a call may wait for half a second, or for the duration of a snapshot if that is
    /// longer.
    ///
    /// # Errors
    /// [`Error::Io`] with the directory that cannot be listed.
    pub async fn snapshot_after(&self, after: Instant) -> Result<Arc<Snapshot>, Error> {
        let _turn = self.turn.lock().await;
        let latest = self.latest.lock().clone();
        if let Some(latest) = latest {
            if latest.began >= after {
                return Ok(latest);
            }
            let spacing = (latest.took * SPACING).min(SPACING_MAX.max(latest.took));
            let mut running = self.running.subscribe();
            tokio::select! {
                () = tokio::time::sleep_until(latest.began + spacing) => {}
                // Snapshots cannot slow down tests any more.
                _ = running.wait_for(|running| *running == 0) => {}
            }
        }
        let (source, selections) = (self.source.clone(), self.selections.len());
        let snapshot = Arc::new(blocking(move || source.take(selections)).await?);
        if self.snapshot_count.fetch_add(1, Ordering::Relaxed) == 0 {
            warn_of_unexamined(&snapshot.unexamined);
        }
        *self.latest.lock() = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Returns the number of snapshots that were taken.
    pub fn snapshot_count(&self) -> usize {
        self.snapshot_count.load(Ordering::Relaxed)
    }

    /// Returns the inputs of a test in a snapshot, hashing files if necessary.
    ///
    /// # Errors
    /// [`Error::UnknownTest`], or [`Error::Io`] with the file that cannot be read.
    pub async fn input_snapshot(&self, snapshot: &Arc<Snapshot>, test: &str) -> Result<InputSnapshot, Error> {
        let Some(at) = self.by_test.get(test).copied() else {
            return Err(Error::UnknownTest { test: test.to_owned() });
        };
        let inputs = self.manifest(snapshot, at).await?;
        Ok(InputSnapshot { inputs, states: snapshot.states_for(&self.selections[at]) })
    }

    async fn manifest(&self, snapshot: &Arc<Snapshot>, at: usize) -> Result<Manifest, Error> {
        let cached = snapshot.cached_manifest(at);
        if let Some(manifest) = cached.or_else(|| snapshot.quick_manifest(at, &self.selections[at])) {
            return Ok(manifest);
        }
        let (snapshot, selections) = (Arc::clone(snapshot), Arc::clone(&self.selections));
        blocking(move || snapshot.manifest(at, &selections[at])).await
    }

    /// Hashes the inputs of all tests in a snapshot, by several threads if there are many. Blocks.
    ///
    /// Files that cannot be read are skipped here. [`input_snapshot`](Self::input_snapshot) returns
    /// the error to the tests that need them.
    pub fn hash_all(&self, snapshot: &Snapshot) {
        snapshot.hash(&self.selections);
        for (at, selection) in self.selections.iter().enumerate() {
            let _ = snapshot.manifest(at, selection);
        }
    }

    /// Returns the first pattern that includes no file in a snapshot. Excluding patterns do not
    /// count.
    pub fn unmatched_pattern<'t>(&self, snapshot: &Snapshot, patterns: &'t [String]) -> Option<&'t str> {
        let matches = |pattern: &&String| match Selection::of_pattern(pattern) {
            Ok(selection) => snapshot.has_match(&selection),
            Err(_) => true,
        };
        let mut including = patterns.iter().filter(|pattern| !pattern.starts_with('!'));
        including.find(|pattern| !matches(pattern)).map(String::as_str)
    }

    /// Sets the number of running tests, during which snapshots are spaced.
    pub fn tests_started(&self, tests: usize) {
        self.running.send_replace(tests);
    }

    /// Decrements the number of running tests.
    pub fn test_ended(&self) {
        self.running.send_modify(|running| *running = running.saturating_sub(1));
    }

    /// Saves the stat cache and the directory cache to these files, sealed.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be written. Its old content remains.
    pub fn save(&self, stat_cache: &Path, dir_cache: &Path, seal: &StateSeal) -> Result<(), Error> {
        self.source.stat_cache.lock().save(stat_cache, seal)?;
        match self.source.dir_cache.lock().as_mut() {
            Some(cache) => cache.save(dir_cache, seal),
            None => Ok(()),
        }
    }

    /// Encodes the stat cache's entries of dependencies, and of all files outside the project, for
    /// [`StatCache::decode`](crate::StatCache::decode).
    pub fn encode_used(&self, dependencies: &DiscoveredDeps) -> Vec<u8> {
        self.source.stat_cache.lock().encode_used(dependencies)
    }

    /// Returns the directories and ignore files of the latest snapshot, if later runs can trust
    /// their stamps.
    pub fn durable_directories(&self) -> Option<DurableDirectories> {
        self.source.dir_cache.lock().as_ref()?.durable_directories()
    }
}

fn warn_of_unexamined(paths: &[PathBuf]) {
    for path in paths {
        tracing::warn!(
            "{} is excluded with everything below: its path is longer than the kernel accepts",
            short_path(path)
        );
    }
}

/// Runs file access on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
