//! Reads and caches the states of single paths, such as discovered dependencies.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_dir::open_regular;
use parking_lot::Mutex;

use crate::codec::path_bytes;
use crate::creation::created;
use crate::discovered_deps::{AccessKind, DiscoveredDeps};
use crate::loaded_program;
use crate::maintained::{Known, MaintainedFiles, Names, Observed};
use crate::manifest::{EntryKind, Manifest, ManifestEntry, hash_regular_file};
use crate::project_tree::ProjectTree;
use crate::selection::Selection;
use crate::stamp::{CLOCK_TICK, FileStamp, now_ns};
use crate::stat_cache::StatCache;
use crate::text::short_hash;
use crate::walk::{ALWAYS_EXCLUDED, is_cache_directory};

/// Follows the path of a program in the cache of hashes, where the hash is that of its loaded part.
/// No file has such a name.
const LOADED: &str = "\0loaded";

/// Paths with a short description of the state of each, for reports.
pub type ObservedStates = BTreeMap<String, String>;

/// A function that returns whether the kernel object that a path represents exists, or `None` if
/// the path is an ordinary one.
pub type ObjectExists = fn(&Path) -> Option<bool>;

/// The state of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// Nothing exists at the path.
    Absent,
    /// A regular file.
    File(ManifestEntry),
    /// A directory, with a hash of its names if the access read them and zeros otherwise.
    Directory([u8; 32]),
    /// A file or directory that this process has no permission to read.
    Unreadable,
    /// A device, pipe, socket or kernel object. Its content is not an input.
    Other,
    /// A symbolic link, with a hash of its text and of the state of its target.
    Symlink([u8; 32]),
    /// A path in a cache that tests maintain, which is as a test left it or which no test has
    /// created yet, with a hash of all changes of the cache by other programs.
    AsLeft([u8; 32]),
}

impl PathState {
    /// Returns the BLAKE3 hash of the state.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        self.hash(&mut hasher);
        *hasher.finalize().as_bytes()
    }

    fn hash(&self, hasher: &mut blake3::Hasher) {
        match self {
            PathState::Absent => hasher.update(&[0]),
            PathState::File(entry) => hasher.update(&[1, entry.kind as u8]).update(&entry.hash),
            PathState::Directory(names) => hasher.update(&[2]).update(names),
            PathState::Unreadable => hasher.update(&[3]),
            PathState::Other => hasher.update(&[4]),
            PathState::Symlink(hash) => hasher.update(&[5]).update(hash),
            PathState::AsLeft(epoch) => hasher.update(&[6]).update(epoch),
        };
    }
}

/// The states of paths during a short time.
///
/// Each state is read once, when it is first requested, and cached from then on. Create a new value
/// to observe later changes. All methods may block on file access.
#[derive(Debug)]
pub struct PathStates {
    project: PathBuf,
    /// Patterns of outputs, whose names in directories do not count, and the states of everything
    /// else.
    without: Option<(Selection, Arc<PathStates>)>,
    stat_cache: Arc<Mutex<StatCache>>,
    object_exists: ObjectExists,
    maintained: Arc<MaintainedFiles>,
    /// By the text of the path, which is compared and hashed faster than its components.
    states: Mutex<HashMap<(OsString, AccessKind), ReadState>>,
    /// By the address of the set. Holding the set prevents the address from being reused.
    digests: Mutex<HashMap<usize, SetDigest>>,
    descriptions: Mutex<HashMap<Vec<usize>, Description>>,
    /// By the path that represents the tree.
    trees: Mutex<HashMap<PathBuf, Option<Arc<ProjectTree>>>>,
    /// The latest arrival of each directory or of one of its ancestors.
    arrivals: Mutex<HashMap<PathBuf, i64>>,
    /// The latest arrival of a directory of the manifest with this digest, and that directory.
    latest_arrivals: Mutex<HashMap<[u8; 32], (i64, PathBuf)>>,
}

/// A state with the time of its last change and the time at which it was read, in nanoseconds since
/// the Unix epoch.
#[derive(Debug, Clone, Copy)]
struct ReadState {
    state: PathState,
    changed: i64,
    read_at: i64,
}

/// A set with the hash of its states.
type SetDigest = (Arc<DiscoveredDeps>, [u8; 32]);

/// Sets with their description and its hash.
type Description = (Vec<Arc<DiscoveredDeps>>, String, Arc<ObservedStates>);

impl PathStates {
    /// Creates an empty cache of states. Relative paths start in the directory `project`, and
    /// content hashes are looked up in and added to `stat_cache`.
    pub fn new(project: &Path, stat_cache: Arc<Mutex<StatCache>>, object_exists: ObjectExists) -> Self {
        Self {
            project: project.to_owned(),
            without: None,
            stat_cache,
            object_exists,
            maintained: Arc::default(),
            states: Mutex::default(),
            digests: Mutex::default(),
            descriptions: Mutex::default(),
            trees: Mutex::default(),
            arrivals: Mutex::default(),
            latest_arrivals: Mutex::default(),
        }
    }

    /// Sets the records of files in caches that tests maintain. The default is an empty record.
    #[must_use]
    pub fn with_maintained(self, maintained: Arc<MaintainedFiles>) -> Self {
        Self { maintained, ..self }
    }

    /// Creates an empty cache in which names of outputs do not count as names of a directory. Takes
    /// all other states from `all`.
    pub fn without_outputs(all: &Arc<Self>, selection: &Selection) -> Self {
        let states = Self::new(&all.project, Arc::clone(&all.stat_cache), all.object_exists);
        Self { without: Some((selection.clone(), Arc::clone(all))), ..states }
    }

    /// Reads the names in the directories that contain outputs: the project, `directory` and the
    /// parents of all outputs with a known path.
    ///
    /// Only names that were read before a test can prove that another process changed none of them.
    /// The timestamp of a directory does not if the test itself writes to it.
    pub fn read_directories_of_outputs(&self, directory: &Path) {
        let Some((selection, _)) = &self.without else { return };
        let parents = selection.output_roots().filter_map(Path::parent);
        for parent in [Path::new(""), directory].into_iter().chain(parents) {
            self.state(parent, AccessKind::Names);
        }
    }

    /// Returns the state of a path and the time at which it was read, in nanoseconds since the Unix
    /// epoch.
    pub fn state_read_at(&self, path: &Path, kind: AccessKind) -> (PathState, i64) {
        let ReadState { state, read_at, .. } = self.read_once(path, kind);
        (state, read_at)
    }

    /// Returns the state of a path, and the time at which it was last changed, in nanoseconds since
    /// the Unix epoch (0 if unknown).
    pub fn state(&self, path: &Path, kind: AccessKind) -> (PathState, i64) {
        let ReadState { state, changed, .. } = self.read_once(path, kind);
        (state, changed)
    }

    fn read_once(&self, path: &Path, kind: AccessKind) -> ReadState {
        if let Some((_, all)) = self.without.as_ref().filter(|_| kind != AccessKind::Names) {
            return all.read_once(path, kind);
        }
        let key = (path.as_os_str().to_owned(), kind);
        if let Some(cached) = self.states.lock().get(&key) {
            return *cached;
        }
        let (state, changed) = self.read(path, kind);
        let read = ReadState { state, changed, read_at: now_ns() };
        *self.states.lock().entry(key).or_insert(read)
    }

    /// Returns the state of the whole project. `path` is that of [`tree_path`](crate::tree_path).
    /// Returns `None` if it cannot be read.
    pub fn tree(&self, path: &Path) -> Option<Arc<ProjectTree>> {
        if let Some(cached) = self.trees.lock().get(path) {
            return cached.clone();
        }
        let tree = ProjectTree::read(&self.project, path, &self.stat_cache).map(Arc::new);
        self.trees.lock().insert(path.to_owned(), tree.clone());
        tree
    }

    /// Returns the BLAKE3 hash of the states of all paths of a set.
    pub fn digest(&self, set: &Arc<DiscoveredDeps>) -> [u8; 32] {
        let address = Arc::as_ptr(set) as usize;
        if let Some((_, digest)) = self.digests.lock().get(&address) {
            return *digest;
        }
        let mut hasher = blake3::Hasher::new();
        for (path, kind) in &set.accesses {
            self.state(path, *kind).0.hash(&mut hasher);
        }
        let digest = *hasher.finalize().as_bytes();
        self.digests.lock().insert(address, (Arc::clone(set), digest));
        digest
    }

    /// Returns a description of the states of some sets, and a short hash of it. `describe` is
    /// called once for the same sets.
    pub fn describe(
        &self,
        sets: &[Arc<DiscoveredDeps>],
        describe: impl FnOnce(&[Arc<DiscoveredDeps>]) -> ObservedStates,
    ) -> (String, Arc<ObservedStates>) {
        let addresses: Vec<usize> = sets.iter().map(|set| Arc::as_ptr(set) as usize).collect();
        if let Some((_, hash, states)) = self.descriptions.lock().get(&addresses) {
            return (hash.clone(), Arc::clone(states));
        }
        let states = Arc::new(describe(sets));
        let mut hasher = blake3::Hasher::new();
        for text in states.iter().flat_map(|(path, state)| [path, state]) {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        let hash = short_hash(hasher.finalize().as_bytes());
        self.descriptions.lock().insert(addresses, (sets.to_vec(), hash.clone(), Arc::clone(&states)));
        (hash, states)
    }

    /// Returns the latest time at which a directory above the path may have arrived at its place,
    /// by creation or by a rename, in nanoseconds since the Unix epoch.
    ///
    /// Before that time another directory may have been in its place, with other files of the same
    /// age.
    pub fn arrived(&self, path: &Path) -> i64 {
        if let Some((_, all)) = &self.without {
            return all.arrived(path);
        }
        let mut arrivals = self.arrivals.lock();
        let (mut uncached, mut latest) = (Vec::new(), 0);
        let absolute = self.project.join(path);
        for directory in absolute.ancestors().skip(1) {
            if let Some(cached) = arrivals.get(directory) {
                latest = *cached;
                break;
            }
            uncached.push(directory.to_owned());
        }
        for directory in uncached.into_iter().rev() {
            let arrived = fs::symlink_metadata(&directory).map_or(0, |it| latest_arrival(&directory, &it));
            latest = latest.max(arrived);
            arrivals.insert(directory, latest);
        }
        latest
    }

    /// Returns a directory of a manifest that arrived at its place at `since` or later, in
    /// nanoseconds since the Unix epoch.
    pub fn moved_since(&self, inputs: &Manifest, since: i64) -> Option<PathBuf> {
        if let Some((_, all)) = &self.without {
            return all.moved_since(inputs, since);
        }
        let find = || {
            let (mut latest, mut last) = ((0, PathBuf::new()), None);
            for (path, _) in inputs.files() {
                let directory = path.parent();
                if directory != last {
                    last = directory;
                    let arrived = self.arrived(path);
                    if arrived > latest.0 {
                        latest = (arrived, directory.unwrap_or(path).to_owned());
                    }
                }
            }
            latest
        };
        let mut latest_arrivals = self.latest_arrivals.lock();
        let (arrived, directory) = latest_arrivals.entry(*inputs.digest()).or_insert_with(find);
        (*arrived >= since).then(|| directory.clone())
    }

    /// Returns whether the states of all these accesses are cached. Paths inside `project` may be
    /// absolute.
    pub fn contains_all<'l>(
        &self,
        mut accesses: impl Iterator<Item = &'l (PathBuf, AccessKind)>,
        project: &Path,
    ) -> bool {
        let states = self.states.lock();
        let all = self.without.as_ref().map(|(_, all)| all.states.lock());
        accesses.all(|(path, kind)| {
            let path = path.strip_prefix(project).unwrap_or(path);
            let others = all.as_deref().filter(|_| *kind != AccessKind::Names);
            others.unwrap_or(&states).contains_key(&(path.as_os_str().to_owned(), *kind))
        })
    }

    fn read(&self, path: &Path, kind: AccessKind) -> (PathState, i64) {
        match kind {
            AccessKind::Build => return (PathState::Directory([0; 32]), 0),
            AccessKind::Tree => {
                return self.tree(path).map_or((PathState::Unreadable, 0), |tree| {
                    (PathState::Directory(tree.digest), tree.newest.1)
                });
            }
            AccessKind::Maintained | AccessKind::MaintainedNames => {
                return self.read_maintained(path, kind == AccessKind::MaintainedNames);
            }
            AccessKind::Repository => return self.read_repository(path),
            AccessKind::Loaded => {
                let loaded = self.read_loaded(path);
                return loaded.unwrap_or_else(|| self.read(path, AccessKind::Content));
            }
            AccessKind::Content | AccessKind::Names => {}
        }
        if let Some(exists) = (self.object_exists)(path) {
            return (if exists { PathState::Other } else { PathState::Absent }, 0);
        }
        let absolute = self.project.join(path);
        let link = match fs::symlink_metadata(&absolute) {
            Ok(link) if link.is_symlink() => link,
            // Most paths are no links, and take one query.
            found => return self.read_found(&absolute, found, kind, libc::O_NOFOLLOW),
        };
        let (state, changed) = self.read_found(&absolute, fs::metadata(&absolute), kind, 0);
        // A link to another file counts as a change even if the content of both files is equal.
        let Ok(text) = fs::read_link(&absolute) else { return (state, changed) };
        let stamp = FileStamp::from_metadata(&link);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(path_bytes(&text).len() as u64).to_le_bytes()).update(path_bytes(&text));
        state.hash(&mut hasher);
        let changed = changed.max(stamp.modified).max(stamp.changed);
        (PathState::Symlink(*hasher.finalize().as_bytes()), changed)
    }

    /// Reads the state of a `.git`: a file counts like a directory.
    fn read_repository(&self, path: &Path) -> (PathState, i64) {
        match fs::symlink_metadata(self.project.join(path)) {
            Ok(found) if found.is_file() => {
                let stamp = FileStamp::from_metadata(&found);
                (PathState::Directory([0; 32]), stamp.modified.max(stamp.changed))
            }
            _ => self.read(path, AccessKind::Content),
        }
    }

    /// Reads the state of a program without the parts that are not loaded. Returns `None` if the
    /// whole file counts.
    fn read_loaded(&self, path: &Path) -> Option<(PathState, i64)> {
        let absolute = self.project.join(path);
        let found = fs::symlink_metadata(&absolute).ok().filter(fs::Metadata::is_file)?;
        let stamp = FileStamp::from_metadata(&found);
        let changed = stamp.modified.max(stamp.changed);
        let mut cached = path.as_os_str().to_owned();
        cached.push(LOADED);
        if let Some(entry) = self.stat_cache.lock().lookup(Path::new(&cached), &stamp) {
            return Some((PathState::File(entry), changed));
        }
        let (at, file) = (now_ns(), open_regular(&absolute).ok()?);
        let hash = loaded_program::digest(&file).ok()??;
        let is_unchanged = FileStamp::from_metadata(&file.metadata().ok()?) == stamp;
        let entry = ManifestEntry { kind: EntryKind::of(&stamp), hash };
        if !is_unchanged {
            return None;
        }
        self.stat_cache.lock().insert(Path::new(&cached), stamp, entry, at);
        Some((PathState::File(entry), changed))
    }

    fn read_maintained(&self, path: &Path, reads_names: bool) -> (PathState, i64) {
        let absolute = self.project.join(path);
        let actual = || self.read(path, if reads_names { AccessKind::Names } else { AccessKind::Content });
        match self.maintained.known(&absolute) {
            Known::Left(_) if reads_names => match self.maintained.names(&absolute) {
                Names::AsLeft(epoch) => (PathState::AsLeft(epoch), 0),
                Names::Foreign(names) => (PathState::Directory(names), 0),
                Names::Unreadable => actual(),
            },
            Known::Left(epoch) => (PathState::AsLeft(epoch), 0),
            Known::Changed => actual(),
            Known::Never(epoch) => match actual() {
                (PathState::Absent, _) => (PathState::AsLeft(epoch), 0),
                existing => existing,
            },
        }
    }

    /// Returns whether a test has written a path in a cache during this run which another program
    /// had changed before. A concurrent test may have read either content.
    pub fn is_rewritten(&self, path: &Path) -> bool {
        self.maintained.is_rewritten(&self.project.join(path))
    }

    /// Finds the files in caches that another program has changed since a test left them. Must be
    /// called while no test of this process runs.
    pub fn verify_maintained(&self) {
        self.maintained.verify(|path| self.observe(path));
    }

    /// Records the current states of paths that a test has written, each after the directory of its
    /// cache. Must not hold older states of them.
    pub fn record_maintained<'p>(&self, written: impl Iterator<Item = (&'p Path, &'p Path)>) {
        self.maintained.record(written, |path| self.observe(path));
    }

    fn observe(&self, path: &Path) -> Observed {
        let (state, _) = self.state(path, AccessKind::Content);
        Observed {
            digest: state.digest(),
            is_absent: state == PathState::Absent,
            is_file: matches!(state, PathState::File(_)),
        }
    }

    /// Reads the state of a file with this metadata. `flags` are those with which it is opened.
    fn read_found(
        &self,
        absolute: &Path,
        found: io::Result<fs::Metadata>,
        kind: AccessKind,
        flags: i32,
    ) -> (PathState, i64) {
        let metadata = match found {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return (PathState::Unreadable, 0);
            }
            Err(_) => return (PathState::Absent, 0),
        };
        let stamp = FileStamp::from_metadata(&metadata);
        let changed = stamp.modified.max(stamp.changed);
        if metadata.is_file() {
            self.read_file(absolute, &stamp, flags)
        } else if !metadata.is_dir() {
            // Writing to a pipe changes its timestamps. Only its arrival matters.
            (PathState::Other, arrival(absolute, &metadata, &stamp))
        } else if kind == AccessKind::Names {
            let names = hash_names(absolute, |path, is_dir| self.is_output(path, is_dir));
            (names.map_or(PathState::Unreadable, PathState::Directory), changed)
        } else {
            // The access depends on the existence of the directory, and not on its names.
            (PathState::Directory([0; 32]), arrival(absolute, &metadata, &stamp))
        }
    }

    fn is_output(&self, absolute: &Path, is_dir: bool) -> bool {
        let Some((selection, _)) = &self.without else { return false };
        let Ok(path) = absolute.strip_prefix(&self.project) else { return false };
        // A pattern that ends with a slash matches everything in the directory.
        selection.is_output(path) || (is_dir && selection.is_output(&path.join("_")))
    }

    fn read_file(&self, absolute: &Path, stamp: &FileStamp, flags: i32) -> (PathState, i64) {
        let changed = stamp.modified.max(stamp.changed);
        // Snapshots cache the files of the project by their relative paths.
        let path = absolute.strip_prefix(&self.project).unwrap_or(absolute);
        if let Some(entry) = self.stat_cache.lock().lookup(path, stamp) {
            return (PathState::File(entry), changed);
        }
        let at = now_ns();
        match hash_regular_file(absolute, flags) {
            Ok((entry, stamp)) => {
                self.stat_cache.lock().insert(path, stamp, entry, at);
                // The file may be another one by now.
                (PathState::File(entry), changed.max(stamp.modified).max(stamp.changed))
            }
            Err(_) => (PathState::Unreadable, changed),
        }
    }
}

/// Returns when a directory, pipe or socket was created, renamed or given other permissions, as
/// opposed to a change of its content.
fn arrival(path: &Path, metadata: &fs::Metadata, stamp: &FileStamp) -> i64 {
    let moved = if stamp.changed > stamp.modified { stamp.changed } else { 0 };
    created(path, metadata).map_or(stamp.changed, |created| created.max(moved))
}

/// Returns the [`arrival`] of a directory plus the granularity of timestamps if it was renamed. A
/// directory that was just created needs no margin, because its files are as young.
fn latest_arrival(path: &Path, directory: &fs::Metadata) -> i64 {
    let stamp = FileStamp::from_metadata(directory);
    let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(0);
    let arrived = arrival(path, directory, &stamp);
    if stamp.changed > stamp.modified { arrived.max(stamp.changed.saturating_add(tick)) } else { arrived }
}

/// Hashes the names and types in a directory, except outputs and names that are never part of a
/// project. `is_output` receives the path and whether it is a directory.
fn hash_names(directory: &Path, is_output: impl Fn(&Path, bool) -> bool) -> Option<[u8; 32]> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).ok()? {
        let entry = entry.ok()?;
        let kind = entry.file_type().ok()?;
        let is_excluded = ALWAYS_EXCLUDED.iter().any(|name| entry.file_name() == *name)
            || (kind.is_dir() && is_cache_directory(&entry.path()))
            || is_output(&entry.path(), kind.is_dir());
        if !is_excluded {
            names.push((entry.file_name(), type_number(kind)));
        }
    }
    names.sort();
    let mut hasher = blake3::Hasher::new();
    for (name, kind) in names {
        let name = name.as_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(&[kind]);
    }
    Some(*hasher.finalize().as_bytes())
}

/// Numbers the file types, which a listing reports together with the names.
fn type_number(kind: fs::FileType) -> u8 {
    if kind.is_file() {
        0
    } else if kind.is_dir() {
        1
    } else if kind.is_symlink() {
        2
    } else if kind.is_socket() {
        3
    } else if kind.is_fifo() {
        4
    } else {
        5
    }
}
