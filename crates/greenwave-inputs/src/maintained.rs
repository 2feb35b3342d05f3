//! Records the files that tests left in caches which they maintain, to find out whether another
//! program has changed one since.
//!
//! `docs/formats/state.md` describes the encoding.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::codec::{Header, Reader, path_bytes};
use crate::stamp::{FileStamp, now_ns};

const HEADER: Header = Header { magic: [0xF5, b'G', b'W', b'C'], version: 1 };
/// Maximum number of recorded paths. Files beyond it count by content.
const PATHS_MAX: usize = 50_000;
/// The digest of a path that another program has changed. No state has it.
const CHANGED: [u8; 32] = [0; 32];
/// The epoch of a cache that no other program has changed.
const FIRST_EPOCH: [u8; 32] = [0; 32];

/// The files that tests left in caches which they maintain.
///
/// A file that is as a test left it is no dependency of a test, because the tests derive it from
/// their other inputs. A file that another program has changed counts by its content until a test
/// writes it again. Each cache has an *epoch*, a hash of all such changes: a file that a test
/// writes after a change may be derived from it, so results of earlier epochs do not apply.
#[derive(Debug, Default)]
pub struct MaintainedFiles {
    caches: Mutex<Caches>,
}

#[derive(Debug, Default)]
struct Caches {
    by_root: BTreeMap<PathBuf, Cache>,
    is_changed: bool,
    /// The names in directories that were asked for since the last verification.
    names: HashMap<PathBuf, Names>,
}

/// The recorded files and directories of a cache.
#[derive(Debug, Clone, Default)]
struct Cache {
    epoch: [u8; 32],
    /// The epoch when the cache was loaded.
    loaded_epoch: [u8; 32],
    /// By the path relative to the cache.
    paths: BTreeMap<PathBuf, Recorded>,
    /// Paths whose record this process has changed.
    touched: BTreeSet<PathBuf>,
    /// Paths that another program had changed before a test wrote them, since the last
    /// verification.
    rewritten: BTreeSet<PathBuf>,
}

/// The state in which a test left a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recorded {
    /// Digest of the state, or [`CHANGED`].
    digest: [u8; 32],
    /// Stamp of a regular file with this state, if it was not racy.
    stamp: Option<FileStamp>,
}

/// The state of a path when it was read just now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observed {
    pub(crate) digest: [u8; 32],
    pub(crate) is_absent: bool,
    pub(crate) is_file: bool,
}

/// The relation of a path to the record of its cache, with the epoch of the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known {
    /// It is as a test left it.
    Left([u8; 32]),
    /// Another program has changed it.
    Changed,
    /// No test has written it in this directory.
    Never([u8; 32]),
}

/// The names in a directory of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Tests have written all of them, and no other program has removed one.
    AsLeft([u8; 32]),
    /// Hash of the names that no test has written and of the removed names.
    Foreign([u8; 32]),
    Unreadable,
}

impl MaintainedFiles {
    /// Replaces all records by the encoded ones. Damaged bytes contain no records.
    pub fn load(&self, content: Option<&[u8]>) {
        let by_root = content.and_then(decode).unwrap_or_default();
        *self.caches.lock() = Caches { by_root, ..Caches::default() };
    }

    /// Encodes the records if they have changed since they were loaded. Merges them with the
    /// records that another process has `stored` meanwhile.
    pub fn encode(&self, stored: Option<&[u8]>) -> Option<Vec<u8>> {
        let mut caches = self.caches.lock();
        if !caches.is_changed {
            return None;
        }
        for (root, stored) in stored.and_then(decode).unwrap_or_default() {
            caches.by_root.entry(root).or_default().merge(stored);
        }
        Some(encode(&caches.by_root))
    }

    /// Marks the encoded records as stored.
    pub fn stored(&self) {
        let mut caches = self.caches.lock();
        caches.is_changed = false;
        for cache in caches.by_root.values_mut() {
            cache.loaded_epoch = cache.epoch;
            cache.touched.clear();
        }
    }

    /// Returns whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.caches.lock().by_root.is_empty()
    }

    /// Returns whether the path has a record.
    pub fn contains(&self, path: &Path) -> bool {
        let caches = self.caches.lock();
        caches.cache_of(path).is_some_and(|(cache, inside)| cache.paths.contains_key(inside))
    }

    /// Finds the files that another program has changed since a test left them. `observe` reads the
    /// state of a path.
    pub(crate) fn verify(&self, observe: impl Fn(&Path) -> Observed) {
        let mut caches = self.caches.lock();
        caches.names.clear();
        let mut is_changed = false;
        for (root, cache) in &mut caches.by_root {
            is_changed |= cache.verify(root, &observe);
        }
        caches.is_changed |= is_changed;
    }

    /// Records the current states of paths that a test has written, each after the directory of its
    /// cache. `observe` reads the state of a path.
    pub(crate) fn record<'p>(
        &self,
        written: impl Iterator<Item = (&'p Path, &'p Path)>,
        observe: impl Fn(&Path) -> Observed,
    ) {
        let mut caches = self.caches.lock();
        let mut count: usize = caches.by_root.values().map(|cache| cache.paths.len()).sum();
        for (root, path) in written {
            let Ok(inside) = path.strip_prefix(root) else { continue };
            let Caches { by_root, names, is_changed } = &mut *caches;
            let cache = by_root.entry(root.to_owned()).or_default();
            for above in inside.ancestors() {
                if above != inside && cache.is_left(above) {
                    break;
                }
                *is_changed |= cache.record(above, observe(&root.join(above)), &mut count);
                let directory = above.parent().map(|parent| root.join(parent));
                if let Some(directory) = directory
                    && !matches!(names.get(&directory), Some(Names::AsLeft(_)))
                {
                    names.remove(&directory);
                }
            }
        }
    }

    /// Returns the relation of a path to the record of its cache.
    pub(crate) fn known(&self, path: &Path) -> Known {
        self.caches.lock().known(path)
    }

    /// Returns whether a test has written a path since the last verification which another program
    /// had changed before.
    pub(crate) fn is_rewritten(&self, path: &Path) -> bool {
        let caches = self.caches.lock();
        caches.cache_of(path).is_some_and(|(cache, inside)| cache.rewritten.contains(inside))
    }

    /// Returns the names in a directory that is as a test left it.
    pub(crate) fn names(&self, directory: &Path) -> Names {
        self.caches.lock().names(directory)
    }
}

impl Caches {
    /// Returns the recorded cache that a path is in, with the path relative to it.
    fn cache_of<'p>(&self, path: &'p Path) -> Option<(&Cache, &'p Path)> {
        let root = path.ancestors().find(|above| self.by_root.contains_key(*above))?;
        Some((self.by_root.get(root)?, path.strip_prefix(root).ok()?))
    }

    fn known(&self, path: &Path) -> Known {
        let Some((cache, inside)) = self.cache_of(path) else { return Known::Never(FIRST_EPOCH) };
        match cache.paths.get(inside) {
            Some(recorded) if recorded.digest == CHANGED => Known::Changed,
            Some(_) => Known::Left(cache.epoch),
            None => Known::Never(cache.epoch),
        }
    }

    fn names(&mut self, directory: &Path) -> Names {
        if let Some(known) = self.names.get(directory) {
            return *known;
        }
        let Some((cache, inside)) = self.cache_of(directory) else { return Names::Unreadable };
        let names = cache.names(directory, inside);
        self.names.insert(directory.to_owned(), names);
        names
    }
}

impl Cache {
    fn is_left(&self, inside: &Path) -> bool {
        self.paths.get(inside).is_some_and(|recorded| recorded.digest != CHANGED)
    }

    /// Records the state of a path that a test has written, and returns whether the record has
    /// changed. `count` is the number of recorded paths.
    fn record(&mut self, inside: &Path, observed: Observed, count: &mut usize) -> bool {
        let before = self.paths.get(inside).map(|recorded| recorded.digest);
        let is_full = before.is_none() && *count >= PATHS_MAX;
        let now = (!observed.is_absent && !is_full).then_some(observed.digest);
        if before == now {
            return false;
        }
        if before == Some(CHANGED) {
            self.rewritten.insert(inside.to_owned());
        }
        match now {
            Some(digest) => {
                let is_new = self.paths.insert(inside.to_owned(), Recorded { digest, stamp: None }).is_none();
                *count += usize::from(is_new);
            }
            None => *count -= usize::from(self.paths.remove(inside).is_some()),
        }
        self.touched.insert(inside.to_owned());
        true
    }

    /// Marks the paths that another program has changed. Returns whether a record has changed.
    fn verify(&mut self, root: &Path, observe: &impl Fn(&Path) -> Observed) -> bool {
        self.rewritten.clear();
        let (mut is_changed, mut changes) = (false, blake3::Hasher::new());
        changes.update(&self.epoch);
        for (inside, recorded) in &mut self.paths {
            if recorded.digest == CHANGED {
                continue;
            }
            let path = root.join(inside);
            let stamp = fs::symlink_metadata(&path).ok().map(|it| FileStamp::from_metadata(&it));
            if stamp.is_some() && stamp == recorded.stamp && !stamp.is_some_and(|it| it.is_in_memory()) {
                continue;
            }
            let Observed { digest, is_file, .. } = observe(&path);
            if digest == recorded.digest {
                let is_lasting = |stamp: &FileStamp| !stamp.is_link() && !stamp.is_racy(now_ns());
                let lasting = stamp.filter(|it| is_file && is_lasting(it));
                is_changed |= recorded.stamp != lasting;
                recorded.stamp = lasting;
            } else {
                let name = path_bytes(inside);
                changes.update(&(name.len() as u64).to_le_bytes()).update(name).update(&digest);
                *recorded = Recorded { digest: CHANGED, stamp: None };
                self.touched.insert(inside.clone());
                self.epoch = *changes.finalize().as_bytes();
                is_changed = true;
            }
        }
        // A cache that is removed as a whole holds nothing that is derived from a change.
        if self.epoch != FIRST_EPOCH && !root.is_dir() {
            self.epoch = FIRST_EPOCH;
            is_changed = true;
        }
        is_changed
    }

    fn names(&self, directory: &Path, inside: &Path) -> Names {
        let Ok(entries) = fs::read_dir(directory) else { return Names::Unreadable };
        let present: BTreeSet<PathBuf> =
            entries.filter_map(|entry| Some(inside.join(entry.ok()?.file_name()))).collect();
        let foreign = present.iter().filter(|path| !self.paths.contains_key(*path));
        let below = self.paths.range(inside.to_owned()..).take_while(|(path, _)| path.starts_with(inside));
        let removed = below
            .map(|(path, _)| path)
            .filter(|path| path.parent() == Some(inside) && !self.is_left(path) && !present.contains(*path));
        let (mut hasher, mut count) = (blake3::Hasher::new(), 0);
        for (path, kind) in foreign.map(|path| (path, 0)).chain(removed.map(|path| (path, 1))) {
            let name = path_bytes(path);
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(&[kind]);
            count += 1;
        }
        if count == 0 {
            Names::AsLeft(self.epoch)
        } else {
            Names::Foreign(*hasher.update(&self.epoch).finalize().as_bytes())
        }
    }

    /// Adds the records of another process to the records that this process has changed.
    fn merge(&mut self, stored: Self) {
        if stored.epoch != self.loaded_epoch && stored.epoch != self.epoch {
            let is_own = self.epoch != self.loaded_epoch;
            let both =
                || *blake3::Hasher::new().update(&stored.epoch).update(&self.epoch).finalize().as_bytes();
            self.epoch = if is_own { both() } else { stored.epoch };
        }
        let own = std::mem::take(&mut self.paths);
        let mut paths = stored.paths;
        paths.retain(|path, _| own.contains_key(path) || !self.touched.contains(path));
        for (path, own) in own {
            let other = paths.get(&path).map(|other| other.digest);
            // A record with the same state may have a newer stamp here.
            if self.touched.contains(&path) || other == Some(own.digest) {
                paths.insert(path, own);
            }
        }
        self.paths = paths;
    }
}

fn encode(caches: &BTreeMap<PathBuf, Cache>) -> Vec<u8> {
    let mut out = HEADER.writer(1 << 12);
    out.count(caches.len());
    for (root, cache) in caches {
        out.path(root).bytes(&cache.epoch).count(cache.paths.len());
        for (path, recorded) in &cache.paths {
            out.path(path).bytes(&recorded.digest).byte(u8::from(recorded.stamp.is_some()));
            if let Some(stamp) = recorded.stamp {
                stamp.encode(&mut out.0);
            }
        }
    }
    out.0
}

fn decode(content: &[u8]) -> Option<BTreeMap<PathBuf, Cache>> {
    let mut reader = HEADER.reader(content)?;
    let caches = reader.list(|reader| {
        let (root, epoch) = (reader.path()?, reader.array()?);
        let paths = reader.list(decode_path)?.into_iter().collect();
        Some((root, Cache { epoch, loaded_epoch: epoch, paths, ..Cache::default() }))
    })?;
    reader.0.is_empty().then(|| caches.into_iter().collect())
}

fn decode_path(reader: &mut Reader<'_>) -> Option<(PathBuf, Recorded)> {
    let (path, digest) = (reader.path()?, reader.array()?);
    let stamp = match reader.byte()? {
        0 => None,
        1 => Some(FileStamp::decode(reader)?),
        _ => return None,
    };
    Some((path, Recorded { digest, stamp }))
}
