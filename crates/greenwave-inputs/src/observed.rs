//! What a test was seen to look at beside its declared inputs, and the state of that at some moment. Knows nothing of how it was seen, or of
//! results.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;

use crate::codec::{Reader, path_bytes};
use crate::manifest::{Entry, Manifest, hash_file};
use crate::stamp::{CLOCK_TICK, FileStamp, now_ns};
use crate::stat_cache::StatCache;
use crate::text::short_hash;
use crate::walk::{ALWAYS_EXCLUDED, is_cache_directory};

/// Paths that were observed, with a short description of what was there.
pub type ObservedStates = BTreeMap<String, String>;

/// Tells whether the object that a path stands for exists; `None` for ordinary paths.
pub type ObjectExists = fn(&Path) -> Option<bool>;

/// How a path was looked at. Numbers as they stand in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AccessKind {
    /// Its content was read, or could not be; or a link was followed.
    Content = 0,
    /// The names in a folder were read.
    Names = 1,
    /// Something was read that cargo builds in the workspace in this folder: it is brought up to date before the rest is compared. Has no state.
    Build = 2,
}

/// Paths with how each was looked at: relative to the project where they are inside it, absolute elsewhere. Sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DiscoveredDeps {
    pub accesses: Vec<(PathBuf, AccessKind)>,
}

impl DiscoveredDeps {
    pub fn new(looks: impl IntoIterator<Item = (PathBuf, AccessKind)>) -> Self {
        let mut looks: Vec<_> = looks.into_iter().collect();
        looks
            .sort_unstable_by(|one, other| (path_bytes(&one.0), one.1).cmp(&(path_bytes(&other.0), other.1)));
        looks.dedup();
        Self { accesses: looks }
    }

    pub fn is_empty(&self) -> bool {
        self.accesses.is_empty()
    }

    /// The workspaces that have to be built before the states of these paths are what they should be.
    pub fn builds(&self) -> impl Iterator<Item = &Path> {
        self.accesses.iter().filter(|(_, look)| *look == AccessKind::Build).map(|(path, _)| path.as_path())
    }

    /// Each look: its number, the length of what the path has in common with the one before, the length of the rest, and the rest.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(self.accesses.len() * 24);
        let mut last: &[u8] = b"";
        for (path, look) in &self.accesses {
            let path = path_bytes(path);
            let common = path.iter().zip(last).take_while(|(one, other)| one == other).count();
            encoded.push(*look as u8);
            encoded.extend_from_slice(&(common as u32).to_le_bytes());
            encoded.extend_from_slice(&((path.len() - common) as u32).to_le_bytes());
            encoded.extend_from_slice(&path[common..]);
            last = path;
        }
        encoded
    }

    pub fn decode(encoded: &[u8]) -> Option<Self> {
        let mut reader = Reader(encoded);
        let mut looks = Vec::new();
        let mut last: Vec<u8> = Vec::new();
        while !reader.0.is_empty() {
            let look = match reader.array()? {
                [0] => AccessKind::Content,
                [1] => AccessKind::Names,
                [2] => AccessKind::Build,
                _ => return None,
            };
            let common = u32::from_le_bytes(reader.array()?) as usize;
            let rest = u32::from_le_bytes(reader.array()?) as usize;
            if common > last.len() {
                return None;
            }
            last.truncate(common);
            last.extend_from_slice(reader.take(rest)?);
            looks.push((PathBuf::from(OsStr::from_bytes(&last)), look));
        }
        Some(Self { accesses: looks })
    }
}

/// What there is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    Absent,
    File(Entry),
    /// A folder; with its names, if these count.
    Folder([u8; 32]),
    /// It cannot be read: by nobody with our rights.
    Closed,
    /// A device, a pipe, a socket: what comes out of it is no input.
    Other,
    /// A symbolic link: its text, and what it leads to.
    Link([u8; 32]),
}

impl PathState {
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        self.write(&mut hasher);
        *hasher.finalize().as_bytes()
    }

    fn write(&self, hasher: &mut blake3::Hasher) {
        match self {
            PathState::Absent => hasher.update(&[0]),
            PathState::File(entry) => hasher.update(&[1, entry.kind as u8]).update(&entry.hash),
            PathState::Folder(names) => hasher.update(&[2]).update(names),
            PathState::Closed => hasher.update(&[3]),
            PathState::Other => hasher.update(&[4]),
            PathState::Link(hash) => hasher.update(&[5]).update(hash),
        };
    }
}

/// A set, and the hash of the states of its paths.
type Digested = (Arc<DiscoveredDeps>, [u8; 32]);

/// Sets, what is told of them, and a hash of that.
type Told = (Vec<Arc<DiscoveredDeps>>, String, Arc<ObservedStates>);

/// The states of paths, each found out once: at some moment between when this was made and when it was asked. Nothing of one is true for ever.
#[derive(Debug)]
pub struct PathStates {
    project: PathBuf,
    index: Arc<Mutex<StatCache>>,
    object_exists: ObjectExists,
    known: Mutex<HashMap<(PathBuf, AccessKind), (PathState, i64)>>,
    /// By the address of sets that live as long as this.
    digests: Mutex<HashMap<usize, Digested>>,
    /// The same, by the addresses of several.
    told: Mutex<HashMap<Vec<usize>, Told>>,
    /// When each folder, or one above it, was put where it is.
    directories: Mutex<HashMap<PathBuf, i64>>,
    /// The newest of these times for the inputs with this digest, and which folder's it is.
    moves: Mutex<HashMap<[u8; 32], (i64, PathBuf)>>,
}

impl PathStates {
    pub fn new(project: &Path, index: Arc<Mutex<StatCache>>, object_exists: ObjectExists) -> Self {
        Self {
            project: project.to_owned(),
            index,
            object_exists,
            known: Mutex::default(),
            digests: Mutex::default(),
            told: Mutex::default(),
            directories: Mutex::default(),
            moves: Mutex::default(),
        }
    }

    /// A hash of the states of all paths of a set.
    pub fn digest(&self, set: &Arc<DiscoveredDeps>) -> [u8; 32] {
        let address = Arc::as_ptr(set) as usize;
        if let Some((_, digest)) = self.digests.lock().get(&address) {
            return *digest;
        }
        let mut hasher = blake3::Hasher::new();
        for (path, look) in &set.accesses {
            self.state(path, *look).0.write(&mut hasher);
        }
        let digest = *hasher.finalize().as_bytes();
        self.digests.lock().insert(address, (Arc::clone(set), digest));
        digest
    }

    /// What is told of the paths of these sets, and a hash of that. FoundFile out once.
    pub fn describe(
        &self,
        sets: &[Arc<DiscoveredDeps>],
        tell: impl FnOnce(&[Arc<DiscoveredDeps>]) -> ObservedStates,
    ) -> (String, Arc<ObservedStates>) {
        let addresses: Vec<usize> = sets.iter().map(|set| Arc::as_ptr(set) as usize).collect();
        if let Some((_, hash, looks)) = self.told.lock().get(&addresses) {
            return (hash.clone(), Arc::clone(looks));
        }
        let looks = Arc::new(tell(sets));
        let mut hasher = blake3::Hasher::new();
        for text in looks.iter().flat_map(|(path, state)| [path, state]) {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        let hash = short_hash(hasher.finalize().as_bytes());
        self.told.lock().insert(addresses, (sets.to_vec(), hash.clone(), Arc::clone(&looks)));
        (hash, looks)
    }

    /// What there is at a path, and when it was last touched, in nanoseconds since the Unix epoch (0 if nothing can tell).
    pub fn state(&self, path: &Path, look: AccessKind) -> (PathState, i64) {
        let key = (path.to_owned(), look);
        if let Some(known) = self.known.lock().get(&key) {
            return *known;
        }
        let found = self.find(path, look);
        self.known.lock().insert(key, found);
        found
    }

    /// The latest moment at which a folder that a path is in can have been moved there, or was made, in nanoseconds since the Unix epoch: until
    /// then, another may have been there, with other files that were as old.
    pub fn arrived(&self, path: &Path) -> i64 {
        let mut directories = self.directories.lock();
        let (mut unknown, mut newest) = (Vec::new(), 0);
        let absolute = self.project.join(path);
        for folder in absolute.ancestors().skip(1) {
            match directories.get(folder) {
                Some(known) => {
                    newest = *known;
                    break;
                }
                None => unknown.push(folder.to_owned()),
            }
        }
        for folder in unknown.into_iter().rev() {
            let own = fs::symlink_metadata(&folder).map_or(0, |it| came_at_the_latest(&it));
            newest = newest.max(own);
            directories.insert(folder, newest);
        }
        newest
    }

    /// A folder of these inputs that was put where it is at this moment or later.
    pub fn moved_since(&self, inputs: &Manifest, since: i64) -> Option<PathBuf> {
        let find = || {
            let (mut newest, mut last) = ((0, PathBuf::new()), None);
            for (path, _) in inputs.files() {
                let folder = path.parent();
                if folder != last {
                    last = folder;
                    let at = self.arrived(path);
                    if at > newest.0 {
                        newest = (at, folder.unwrap_or(path).to_owned());
                    }
                }
            }
            newest
        };
        let mut moves = self.moves.lock();
        let (at, folder) = moves.entry(*inputs.digest()).or_insert_with(find);
        (*at >= since).then(|| folder.clone())
    }

    /// Whether the states of all these are known already.
    pub fn contains_all<'l>(
        &self,
        mut looks: impl Iterator<Item = &'l (PathBuf, AccessKind)>,
        project: &Path,
    ) -> bool {
        let known = self.known.lock();
        looks.all(|(path, look)| {
            let path = path.strip_prefix(project).unwrap_or(path);
            known.contains_key(&(path.to_owned(), *look))
        })
    }

    fn find(&self, path: &Path, look: AccessKind) -> (PathState, i64) {
        if look == AccessKind::Build {
            return (PathState::Folder([0; 32]), 0);
        }
        if let Some(is_there) = (self.object_exists)(path) {
            return (if is_there { PathState::Other } else { PathState::Absent }, 0);
        }
        let absolute = self.project.join(path);
        let (state, touched) = self.follow(&absolute, look);
        // Where a link leads to another place, what was read behind it is somewhere else.
        match fs::symlink_metadata(&absolute)
            .map(|link| (FileStamp::from_metadata(&link), fs::read_link(&absolute)))
        {
            Ok((stamp, Ok(text))) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&(path_bytes(&text).len() as u64).to_le_bytes()).update(path_bytes(&text));
                state.write(&mut hasher);
                let touched = touched.max(stamp.modified).max(stamp.changed);
                (PathState::Link(*hasher.finalize().as_bytes()), touched)
            }
            _ => (state, touched),
        }
    }

    fn follow(&self, absolute: &Path, look: AccessKind) -> (PathState, i64) {
        let metadata = match fs::metadata(absolute) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return (PathState::Closed, 0),
            Err(_) => return (PathState::Absent, 0),
        };
        let stamp = FileStamp::from_metadata(&metadata);
        let touched = stamp.modified.max(stamp.changed);
        let state = match () {
            () if metadata.is_file() => self.file(absolute, &stamp),
            () if metadata.is_dir() && look == AccessKind::Names => {
                names(absolute).map_or(PathState::Closed, PathState::Folder)
            }
            () if metadata.is_dir() => PathState::Folder([0; 32]),
            () => PathState::Other,
        };
        // That something in a folder was touched is no news to those who only saw that the folder is there; that it came, or was moved here, is.
        let touched = match (state, look) {
            (PathState::Folder(_), AccessKind::Content) => came(&metadata, &stamp),
            // What is written to a pipe touches it; that it came is news as well.
            (PathState::Other, _) => came(&metadata, &stamp),
            _ => touched,
        };
        (state, touched)
    }

    fn file(&self, path: &Path, stamp: &FileStamp) -> PathState {
        if let Some(entry) = self.index.lock().lookup(path, stamp) {
            return PathState::File(entry);
        }
        let at = now_ns();
        match hash_file(path) {
            Ok((entry, stamp)) => {
                self.index.lock().insert(path, stamp, entry, at);
                PathState::File(entry)
            }
            Err(_) => PathState::Closed,
        }
    }
}

/// When a folder, a pipe or a socket was made, or moved or opened to others: then it was changed itself, and not what is in it.
fn came(metadata: &fs::Metadata, stamp: &FileStamp) -> i64 {
    let made = metadata.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    let made = made.map(|since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
    let moved = if stamp.changed > stamp.modified { stamp.changed } else { 0 };
    made.map_or(stamp.changed, |made| made.max(moved))
}

/// The same with the kernel's tick, but not of a folder that was just made: what is in it is young itself.
fn came_at_the_latest(folder: &fs::Metadata) -> i64 {
    let stamp = FileStamp::from_metadata(folder);
    let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(0);
    let came = came(folder, &stamp);
    if stamp.changed > stamp.modified { came.max(stamp.changed.saturating_add(tick)) } else { came }
}

/// A hash of the names in a folder, but for those that are never a part of a project, or can be made again.
fn names(folder: &Path) -> Option<[u8; 32]> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let kind = entry.file_type().ok()?;
        let is_left_out = ALWAYS_EXCLUDED.iter().any(|name| entry.file_name() == *name)
            || (kind.is_dir() && is_cache_directory(&entry.path()));
        if !is_left_out {
            names.push((entry.file_name(), number(kind)));
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

/// Whoever lists a folder is told what each name is.
fn number(kind: fs::FileType) -> u8 {
    match () {
        () if kind.is_file() => 0,
        () if kind.is_dir() => 1,
        () if kind.is_symlink() => 2,
        () if kind.is_socket() => 3,
        () if kind.is_fifo() => 4,
        () => 5,
    }
}
