//! A cache of content hashes by file stamp, so that unchanged files are not read again.
//!
//! The cache is one file, replaced as a whole; `docs/formats/state.md` describes its layout.
//!
//! A damaged file, or one of another version, counts as empty. If two processes save at the same
//! time, the entries of one are lost. That is harmless: each entry is verified against its file
//! when it is used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use greenwave_dir::read_regular;

use crate::Error;
use crate::codec::{Header, replace_file};
use crate::discovered_deps::DiscoveredDeps;
use crate::manifest::{EntryKind, ManifestEntry};
use crate::seal::StateSeal;
use crate::stamp::FileStamp;

/// Maximum size of a file of entries, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
const HEADER: Header = Header { magic: [0xF5, b'G', b'W', b'I'], version: 1 };
/// Maximum number of entries. Files beyond it are not cached.
const ENTRIES_MAX: usize = 1 << 20;
/// Minimum size of an encoded entry, in bytes: that of an empty path.
const ENTRY_BYTES_MIN: usize = 4 + 44 + 1 + 32;
/// Maximum number of entries in a shared file, which is emptied when it is full.
const SHARED_ENTRIES_MAX: usize = 100_000;

type Entries = HashMap<PathBuf, (FileStamp, ManifestEntry)>;

/// Content hashes by path and [`FileStamp`].
///
/// Paths are relative to a project, or absolute for files outside of it.
#[derive(Debug, Default)]
pub struct StatCache {
    entries: Entries,
    is_changed: bool,
    shared: Option<SharedFile>,
}

impl StatCache {
    /// Creates a cache from the content of a sealed file. Returns an empty cache if there is none
    /// or it is damaged.
    pub fn load(content: Option<&[u8]>) -> Self {
        Self { entries: content.and_then(decode).unwrap_or_default(), ..Self::default() }
    }

    /// Shares entries of absolute paths with other projects of the user, through a file. Toolchains
    /// are large, and each new worktree would hash them again.
    pub fn share_with(&mut self, file: &Path) {
        self.shared = Some(SharedFile { file: file.to_owned(), entries: None, new: Vec::new() });
    }

    /// Returns the entry of the file at an absolute path, if this cache or the shared file has it
    /// with this stamp.
    pub fn lookup(&mut self, path: &Path, stamp: &FileStamp) -> Option<ManifestEntry> {
        if let Some(entry) = self.get(path, stamp) {
            return Some(entry);
        }
        let entry = self.shared.as_mut()?.lookup(path, stamp)?;
        self.entries.insert(path.to_owned(), (*stamp, entry));
        self.is_changed = true;
        Some(entry)
    }

    /// Returns the entry of a file, if this cache has it with this stamp.
    pub(crate) fn get(&self, path: &Path, stamp: &FileStamp) -> Option<ManifestEntry> {
        entry_of(&self.entries, path, stamp)
    }

    /// Inserts the entry of a file that was read at `at`, in nanoseconds since the Unix epoch. Does
    /// nothing if the stamp is [racy](FileStamp::is_racy) or the cache is full.
    pub fn insert(&mut self, path: &Path, stamp: FileStamp, entry: ManifestEntry, at: i64) {
        let has_space = self.entries.len() < ENTRIES_MAX || self.entries.contains_key(path);
        if stamp.is_racy(at) || !has_space {
            return;
        }
        self.entries.insert(path.to_owned(), (stamp, entry));
        self.is_changed = true;
        if let Some(shared) = self.shared.as_mut().filter(|_| path.is_absolute()) {
            shared.new.push(path.to_owned());
        }
    }

    /// Encodes the entries of absolute paths and of dependencies, for [`decode`](Self::decode).
    pub(crate) fn encode_used(&self, dependencies: &DiscoveredDeps) -> Vec<u8> {
        let external = self.entries.iter().filter(|(path, _)| path.is_absolute());
        let own = dependencies.accesses.iter().filter_map(|(path, _)| self.entries.get_key_value(path));
        encode(&external.chain(own).map(|(path, cached)| (path.clone(), *cached)).collect())
    }

    /// Decodes what [`ProjectFiles::encode_used`](crate::ProjectFiles::encode_used) has returned.
    /// Returns `None` if it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { entries: decode(bytes)?, ..Self::default() })
    }

    /// Saves the cache to a sealed file, and the new entries of absolute paths to the shared file.
    /// Does nothing if the cache is unchanged.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written. The old content remains.
    pub fn save(&mut self, file: &Path, seal: &StateSeal) -> Result<(), Error> {
        if !self.is_changed {
            return Ok(());
        }
        seal.replace(file, encode(&self.entries))?;
        self.is_changed = false;
        match &mut self.shared {
            Some(shared) => shared.save(&self.entries),
            None => Ok(()),
        }
    }
}

/// A file of entries that several projects use.
#[derive(Debug)]
struct SharedFile {
    file: PathBuf,
    /// Loaded by the first lookup that the cache itself cannot answer.
    entries: Option<Entries>,
    /// Paths that were inserted since the last save.
    new: Vec<PathBuf>,
}

impl SharedFile {
    fn lookup(&mut self, path: &Path, stamp: &FileStamp) -> Option<ManifestEntry> {
        let file = &self.file;
        let entries = self.entries.get_or_insert_with(|| load_entries(file));
        entry_of(entries, path, stamp)
    }

    /// Adds the new entries to the file, which other processes may have changed meanwhile.
    fn save(&mut self, cached: &Entries) -> Result<(), Error> {
        if self.new.is_empty() {
            return Ok(());
        }
        let mut entries = load_entries(&self.file);
        if entries.len() + self.new.len() > SHARED_ENTRIES_MAX {
            entries.clear();
        }
        let new = self.new.iter().filter_map(|path| cached.get_key_value(path));
        entries.extend(new.map(|(path, entry)| (path.clone(), *entry)));
        replace_file(&self.file, &encode(&entries))?;
        self.new.clear();
        Ok(())
    }
}

/// Returns the entry of a file with this stamp. Earlier versions have stored entries of files in
/// memory, whose stamps prove nothing.
fn entry_of(entries: &Entries, path: &Path, stamp: &FileStamp) -> Option<ManifestEntry> {
    let (cached, entry) = entries.get(path)?;
    (cached == stamp && !stamp.is_in_memory()).then_some(*entry)
}

fn load_entries(file: &Path) -> Entries {
    read_regular(file, FILE_BYTES_MAX).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default()
}

fn encode(entries: &Entries) -> Vec<u8> {
    let mut file = HEADER.writer(32 + entries.len() * 128);
    file.count(entries.len());
    for (path, (stamp, entry)) in entries {
        file.path(path);
        stamp.encode(&mut file.0);
        file.byte(entry.kind as u8).bytes(&entry.hash);
    }
    file.with_checksum()
}

fn decode(file: &[u8]) -> Option<Entries> {
    let mut reader = HEADER.checked_reader(file)?;
    let count = reader.count()?;
    // A damaged number of entries is no reason to reserve memory.
    let mut entries = HashMap::with_capacity(count.min(reader.0.len() / ENTRY_BYTES_MIN));
    for _ in 0..count {
        let (path, stamp) = (reader.path()?, FileStamp::decode(&mut reader)?);
        let entry = ManifestEntry { kind: EntryKind::from_number(reader.byte()?)?, hash: reader.array()? };
        entries.insert(path, (stamp, entry));
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::UserKey;

    const LATER: i64 = i64::MAX;

    fn stamp(size: u64) -> FileStamp {
        FileStamp { device: 1, inode: 2, size, modified: 3, changed: 4, mode: 5 }
    }

    fn entry(byte: u8) -> ManifestEntry {
        ManifestEntry { kind: EntryKind::Regular, hash: [byte; 32] }
    }

    #[test]
    fn projects_share_entries_of_absolute_paths() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let seal = UserKey::new([0; 32]).for_purpose("test");
        let open = |name: &str| {
            let mut cache = StatCache::load(seal.read(&path(name)).valid().as_deref());
            cache.share_with(&path("shared"));
            cache
        };
        let (mut one, mut two) = (open("one"), open("two"));
        one.insert(Path::new("/tool"), stamp(1), entry(1), LATER);
        one.insert(Path::new("inside"), stamp(1), entry(2), LATER);
        two.insert(Path::new("/other"), stamp(1), entry(3), LATER);
        one.save(&path("one"), &seal).expect("saved");
        two.save(&path("two"), &seal).expect("saved");
        let mut three = open("three");
        assert_eq!(three.lookup(Path::new("/tool"), &stamp(1)), Some(entry(1)));
        assert_eq!(three.lookup(Path::new("/other"), &stamp(1)), Some(entry(3)), "the second save merges");
        assert_eq!(three.lookup(Path::new("/tool"), &stamp(2)), None, "the file has changed");
        assert_eq!(three.lookup(Path::new("inside"), &stamp(1)), None, "relative paths are not shared");
        // A shared entry becomes an entry of the cache itself.
        three.save(&path("three"), &seal).expect("saved");
        fs::write(path("shared"), "damaged").expect("written");
        assert_eq!(open("three").lookup(Path::new("/tool"), &stamp(1)), Some(entry(1)));
        assert_eq!(open("four").lookup(Path::new("/tool"), &stamp(1)), None);
    }
}
