//! The hashes of files by their stamps, kept between runs: what has not changed is not read again. Knows nothing of projects.
//!
//! One file, replaced as a whole. Integers are little-endian:
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | magic `F5 47 57 49` |
//! | 4 | version, 1 |
//! | 4 | number of entries |
//! | | each entry: length of its path (4), path, device (8), inode (8), size (8), modified (8), changed (8), mode (4), kind (1), hash (32) |
//! | 16 | the first bytes of BLAKE3 over all before |
//!
//! What is damaged, or of another version, is as good as empty. Two processes that save at once keep what one of them knew: every entry stands for
//! itself, and is checked against the file when it is used.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::codec::{Reader, replace_file};
use crate::manifest::{Entry, EntryKind};
use crate::stamp::FileStamp;

const MAGIC: [u8; 4] = [0xF5, b'G', b'W', b'I'];
const VERSION: u32 = 1;
const CHECKSUM_BYTES: usize = 16;
/// More files than that are not remembered.
const ENTRIES_MAX: usize = 1 << 20;
/// The same for what projects share, which then begins anew.
const SHARED_MAX: usize = 100_000;

/// Hashes by path and stamp.
#[derive(Debug, Default)]
pub struct StatCache {
    entries: HashMap<PathBuf, (FileStamp, Entry)>,
    is_changed: bool,
    /// What all projects of a user know of files by their absolute paths: tool chains are large, and each new work tree would read them anew.
    shared: Option<Shared>,
}

/// Read only when a file is not known here.
#[derive(Debug)]
struct Shared {
    file: PathBuf,
    entries: Option<HashMap<PathBuf, (FileStamp, Entry)>>,
    /// Paths that nobody knew.
    new: Vec<PathBuf>,
}

impl Shared {
    fn read(file: &Path) -> HashMap<PathBuf, (FileStamp, Entry)> {
        fs::read(file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default()
    }

    /// Adds what is new to what others have saved meanwhile.
    fn save(&mut self, known: &HashMap<PathBuf, (FileStamp, Entry)>) -> Result<(), Error> {
        if self.new.is_empty() {
            return Ok(());
        }
        let mut entries = Self::read(&self.file);
        if entries.len() + self.new.len() > SHARED_MAX {
            entries.clear();
        }
        let new = self.new.iter().filter_map(|path| known.get_key_value(path));
        entries.extend(new.map(|(path, entry)| (path.clone(), *entry)));
        replace_file(&self.file, &encode(&entries))?;
        self.new.clear();
        Ok(())
    }
}

impl StatCache {
    /// What an earlier run saved; empty if there is nothing that verifies.
    pub fn load(file: &Path) -> Self {
        Self { entries: Shared::read(file), ..Self::default() }
    }

    /// Knows as well what is in this file, which several projects share.
    pub fn share_with(&mut self, file: &Path) {
        self.shared = Some(Shared { file: file.to_owned(), entries: None, new: Vec::new() });
    }

    /// What identifies the file at an absolute path, if its stamp says that it is known here or to others.
    pub fn lookup(&mut self, path: &Path, stamp: &FileStamp) -> Option<Entry> {
        if let Some(known) = self.get(path, stamp) {
            return Some(known);
        }
        let shared = self.shared.as_mut()?;
        let file = &shared.file;
        let entries = shared.entries.get_or_insert_with(|| Shared::read(file));
        let (_, entry) = entries.get(path).filter(|(known, _)| known == stamp)?;
        let entry = *entry;
        self.entries.insert(path.to_owned(), (*stamp, entry));
        self.is_changed = true;
        Some(entry)
    }

    /// What identifies the file, if its stamp says that it is known.
    pub fn get(&self, path: &Path, stamp: &FileStamp) -> Option<Entry> {
        self.entries.get(path).filter(|(known, _)| known == stamp).map(|(_, entry)| *entry)
    }

    /// Takes note of what was read at a moment, unless the file was so young then that it could change again without its stamp changing.
    pub fn insert(&mut self, path: &Path, stamp: FileStamp, entry: Entry, at: i64) {
        if !stamp.is_racy(at) && (self.entries.len() < ENTRIES_MAX || self.entries.contains_key(path)) {
            self.entries.insert(path.to_owned(), (stamp, entry));
            self.is_changed = true;
            if let Some(shared) = self.shared.as_mut().filter(|_| path.is_absolute()) {
                shared.new.push(path.to_owned());
            }
        }
    }

    /// What is known of files outside the project, as it is saved.
    pub fn outside(&self) -> Vec<u8> {
        let outside = self.entries.iter().filter(|(path, _)| path.is_absolute());
        encode(&outside.map(|(path, known)| (path.clone(), *known)).collect())
    }

    /// What was saved; `None` if it does not verify.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { entries: decode(bytes)?, ..Self::default() })
    }

    /// Saves what has been learned, for the next run.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written. The old one stays.
    pub fn save(&mut self, file: &Path) -> Result<(), Error> {
        if !self.is_changed {
            return Ok(());
        }
        replace_file(file, &encode(&self.entries))?;
        self.is_changed = false;
        match &mut self.shared {
            Some(shared) => shared.save(&self.entries),
            None => Ok(()),
        }
    }
}

fn encode(entries: &HashMap<PathBuf, (FileStamp, Entry)>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + entries.len() * 128 + CHECKSUM_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for (path, (stamp, entry)) in entries {
        let path = path.as_os_str().as_bytes();
        bytes.extend_from_slice(&(path.len() as u32).to_le_bytes());
        bytes.extend_from_slice(path);
        stamp.encode(&mut bytes);
        bytes.push(entry.kind as u8);
        bytes.extend_from_slice(&entry.hash);
    }
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
    bytes
}

fn decode(bytes: &[u8]) -> Option<HashMap<PathBuf, (FileStamp, Entry)>> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    if blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] != *checksum {
        return None;
    }
    let mut reader = Reader(body);
    if reader.array()? != MAGIC || u32::from_le_bytes(reader.array()?) != VERSION {
        return None;
    }
    let count = u32::from_le_bytes(reader.array()?) as usize;
    let mut entries = HashMap::with_capacity(count.min(ENTRIES_MAX));
    for _ in 0..count {
        let length = u32::from_le_bytes(reader.array()?) as usize;
        let path = PathBuf::from(OsStr::from_bytes(reader.take(length)?));
        let stamp = FileStamp::decode(&mut reader)?;
        let [kind] = reader.array()?;
        let entry = Entry { kind: EntryKind::from_number(kind)?, hash: reader.array()? };
        entries.insert(path, (stamp, entry));
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: i64 = i64::MAX;

    fn stamp(size: u64) -> FileStamp {
        FileStamp { device: 1, inode: 2, size, modified: 3, changed: 4, mode: 5 }
    }

    fn entry(byte: u8) -> Entry {
        Entry { kind: EntryKind::Regular, hash: [byte; 32] }
    }

    #[test]
    fn projects_share_what_they_know_of_files_outside() {
        let folder = tempfile::tempdir().expect("there is room");
        let path = |name: &str| folder.path().join(name);
        let open = |name: &str| {
            let mut index = StatCache::load(&path(name));
            index.share_with(&path("shared"));
            index
        };
        let (mut one, mut two) = (open("one"), open("two"));
        one.insert(Path::new("/tool"), stamp(1), entry(1), FOREVER);
        one.insert(Path::new("inside"), stamp(1), entry(2), FOREVER);
        two.insert(Path::new("/other"), stamp(1), entry(3), FOREVER);
        one.save(&path("one")).expect("saved");
        two.save(&path("two")).expect("saved");
        let mut three = open("three");
        assert_eq!(three.lookup(Path::new("/tool"), &stamp(1)), Some(entry(1)));
        assert_eq!(
            three.lookup(Path::new("/other"), &stamp(1)),
            Some(entry(3)),
            "neither has lost the other's"
        );
        assert_eq!(three.lookup(Path::new("/tool"), &stamp(2)), None, "another file by now");
        assert_eq!(three.lookup(Path::new("inside"), &stamp(1)), None, "a project's own are not shared");
        // What was found there is known from now on, whatever becomes of it.
        three.save(&path("three")).expect("saved");
        fs::write(path("shared"), "damaged").expect("written");
        assert_eq!(open("three").lookup(Path::new("/tool"), &stamp(1)), Some(entry(1)));
        assert_eq!(open("four").lookup(Path::new("/tool"), &stamp(1)), None);
    }
}
