//! The file system of a simulated machine: page cache, durable contents and locks.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::{Faults, Unsynced};
use crate::access::{Access, FileStatus};

/// Size that a disk writes atomically, in bytes.
const SECTOR_BYTES: usize = 512;

/// A change of a file that has not been synced.
#[derive(Debug, Clone, Hash)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// Contents as readers see them.
    data: Vec<u8>,
    /// Contents that have been synced.
    durable: Vec<u8>,
    pending: Vec<Change>,
    links: u32,
    open: u32,
    lock: Option<u64>,
}

#[derive(Debug, Clone)]
struct SimulatedProcess {
    alive: bool,
    open_files: usize,
    random: u64,
    ahead: i64,
    /// Hash of everything that the process has read from the disk, if reads are hashed.
    seen: u64,
}

/// Disk and processes of a machine.
#[derive(Debug)]
pub(super) struct SimulatedDisk {
    inodes: Vec<Inode>,
    /// Inodes by path. Strings compare faster than paths, component by component.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<(String, Option<usize>)>,
    processes: Vec<SimulatedProcess>,
    descriptions: u64,
    /// Paths by inode, for the trace.
    paths: HashMap<usize, PathBuf>,
    /// Whether what processes read is hashed, for [`digest`](Self::digest).
    pub(super) hashes_reads: bool,
    random: u64,
    pub(super) faults: Faults,
    pub(super) operations: u64,
    pub(super) identity: u64,
    pub(super) trace: Option<Vec<String>>,
    noted: Option<usize>,
    /// Which bytes the current operation reads, writes or keeps, for the trace.
    noted_bytes: String,
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            processes: Vec::new(),
            descriptions: 0,
            paths: HashMap::new(),
            hashes_reads: false,
            random: seed,
            faults: Faults::default(),
            operations: 0,
            identity: 1,
            trace: None,
            noted: None,
            noted_bytes: String::new(),
        }
    }

    pub(super) fn fork(&self) -> Self {
        let mut inodes = self.inodes.clone();
        inodes.iter_mut().for_each(|inode| (inode.lock, inode.open) = (None, 0));
        Self {
            inodes,
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            pending_names: self.pending_names.clone(),
            // New processes get new numbers, and so other random numbers.
            processes: self
                .processes
                .iter()
                .map(|p| SimulatedProcess { alive: false, ..p.clone() })
                .collect(),
            descriptions: self.descriptions,
            paths: self.paths.clone(),
            hashes_reads: self.hashes_reads,
            random: self.random,
            faults: Faults::default(),
            operations: 0,
            identity: self.identity,
            trace: None,
            noted: None,
            noted_bytes: String::new(),
        }
    }

    pub(super) fn start_process(&mut self) -> usize {
        let number = self.processes.len();
        let random = xxh3_64(&(number as u64).to_le_bytes());
        self.processes.push(SimulatedProcess { alive: true, open_files: 0, random, ahead: 0, seen: 0 });
        number
    }

    pub(super) fn is_alive(&self, id: usize) -> bool {
        self.processes[id].alive
    }

    pub(super) fn set_clock_ahead(&mut self, id: usize, nanos: i64) {
        self.processes[id].ahead = nanos;
    }

    pub(super) fn clock_ahead(&self, id: usize) -> i64 {
        self.processes[id].ahead
    }

    /// Returns a random number that depends on the process and the number of its calls, not on
    /// other processes.
    pub(super) fn random_of(&mut self, id: usize) -> u64 {
        let random = &mut self.processes[id].random;
        *random = next_random(*random);
        xxh3_64(&random.to_le_bytes())
    }

    fn chance(&mut self, per_mille: u16) -> bool {
        if per_mille == 0 {
            return false;
        }
        self.random = next_random(self.random);
        xxh3_64(&self.random.to_le_bytes()) % 1000 < u64::from(per_mille)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random = next_random(self.random);
        (xxh3_64(&self.random.to_le_bytes()) % bound.max(1) as u64) as usize
    }

    pub(super) fn kill(&mut self, id: usize) {
        self.processes[id].alive = false;
        for inode in &mut self.inodes {
            if inode.lock.is_some_and(|description| owner(description) == id) {
                inode.lock = None;
            }
        }
    }

    pub(super) fn cut_power(&mut self, unsynced: Unsynced) {
        for id in 0..self.processes.len() {
            self.kill(id);
        }
        let mut names = std::mem::take(&mut self.durable_names);
        for (path, inode) in std::mem::take(&mut self.pending_names) {
            if unsynced == Unsynced::All || unsynced == Unsynced::Some && self.chance(500) {
                match inode {
                    Some(inode) => drop(names.insert(path, inode)),
                    None => drop(names.remove(&path)),
                }
            }
        }
        for number in 0..self.inodes.len() {
            let mut inode = std::mem::take(&mut self.inodes[number]);
            let mut data = std::mem::take(&mut inode.durable);
            for change in inode.pending {
                match unsynced {
                    Unsynced::All => apply(&mut data, &change),
                    Unsynced::None => {}
                    Unsynced::Some => self.apply_some(&mut data, change),
                }
            }
            let links = u32::from(names.values().any(|named| *named == number));
            self.inodes[number] =
                Inode { durable: data.clone(), data, pending: Vec::new(), links, open: 0, lock: None };
        }
        self.names.clone_from(&names);
        self.durable_names = names;
    }

    /// Applies a change, ignores it, or applies some sectors of a write.
    fn apply_some(&mut self, data: &mut Vec<u8>, change: Change) {
        match self.below(4) {
            0 => {}
            1 | 2 => apply(data, &change),
            _ => {
                let Change::Write(offset, bytes) = change else { return };
                // The new length may have reached the disk without the bytes.
                if self.chance(500) {
                    let len = data.len().max(offset + bytes.len());
                    data.resize(len, 0);
                }
                let mut at = 0;
                while at < bytes.len() {
                    let end =
                        bytes.len().min((offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - offset);
                    if self.chance(500) {
                        apply(data, &Change::Write(offset + at, bytes[at..end].to_vec()));
                    }
                    at = end;
                }
            }
        }
    }

    fn used(&self) -> u64 {
        let existing = self.inodes.iter().filter(|inode| inode.links > 0 || inode.open > 0);
        existing.map(|inode| inode.data.len() as u64).sum()
    }

    /// Fails with `EMFILE` if a process has the maximum number of files open.
    pub(super) fn check_descriptors(&self, id: usize) -> io::Result<()> {
        let limit = self.faults.open_files;
        if limit > 0 && self.processes[id].open_files >= limit {
            return Err(io::Error::from_raw_os_error(24));
        }
        Ok(())
    }

    pub(super) fn open(&mut self, id: usize, path: &Path, access: Access) -> io::Result<(u64, usize)> {
        self.check_descriptors(id)?;
        let name = name_of(path)?;
        let inode = match (self.names.get(name), access) {
            (Some(_), Access::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => *inode,
            (None, Access::Read | Access::Write) => {
                self.learn(id, &0_u64.to_le_bytes());
                return Err(io::ErrorKind::NotFound.into());
            }
            (None, Access::Create | Access::CreateNew) => {
                self.inodes.push(Inode { links: 1, ..Inode::default() });
                let inode = self.inodes.len() - 1;
                self.names.insert(name.to_owned(), inode);
                self.pending_names.push((name.to_owned(), Some(inode)));
                inode
            }
        };
        self.learn(id, &1_u64.to_le_bytes());
        if self.trace.is_some() {
            self.paths.entry(inode).or_insert_with(|| path.to_owned());
        }
        self.inodes[inode].open += 1;
        self.processes[id].open_files += 1;
        self.descriptions += 1;
        Ok((self.descriptions << 16 | id as u64, inode))
    }

    pub(super) fn close(&mut self, id: usize, inode: usize, description: u64) {
        self.processes[id].open_files = self.processes[id].open_files.saturating_sub(1);
        let inode = &mut self.inodes[inode];
        inode.open = inode.open.saturating_sub(1);
        if inode.lock == Some(description) {
            inode.lock = None;
        }
    }

    pub(super) fn list(&mut self, id: usize, dir: &Path) -> io::Result<Vec<String>> {
        let dir = name_of(dir)?;
        let names: Vec<String> =
            self.names.keys().filter_map(|name| Some(name_in(dir, name)?.to_owned())).collect();
        names.iter().for_each(|name| self.learn(id, name.as_bytes()));
        Ok(names)
    }

    pub(super) fn status(&mut self, id: usize, path: &Path) -> io::Result<FileStatus> {
        let inode = self.names.get(name_of(path)?).copied();
        let len = inode.map(|inode| self.inodes[inode].data.len() as u64);
        self.learn(id, &len.unwrap_or(u64::MAX).to_le_bytes());
        let (Some(inode), Some(len)) = (inode, len) else { return Err(io::ErrorKind::NotFound.into()) };
        Ok(FileStatus { len, modified: 0, identity: [0, inode as i128, 0, 0] })
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let name = name_of(path)?;
        let Some(inode) = self.names.remove(name) else { return Err(io::ErrorKind::NotFound.into()) };
        self.inodes[inode].links -= 1;
        self.pending_names.push((name.to_owned(), None));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        if self.chance(self.faults.sync) {
            return Err(io::Error::other("the disk failed"));
        }
        let dir = name_of(dir)?;
        let (here, elsewhere) = std::mem::take(&mut self.pending_names)
            .into_iter()
            .partition(|(name, _): &(String, _)| name_in(dir, name).is_some());
        self.pending_names = elsewhere;
        for (path, inode) in here {
            match inode {
                Some(inode) => drop(self.durable_names.insert(path, inode)),
                None => drop(self.durable_names.remove(&path)),
            }
        }
        Ok(())
    }

    pub(super) fn read(&mut self, id: usize, inode: usize, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.chance(self.faults.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = self.inodes[inode].data.len();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(len);
        let mut count = buf.len().min(len - from);
        if count > 1 && self.chance(self.faults.short) {
            count = 1 + self.below(count - 1);
        }
        buf[..count].copy_from_slice(&self.inodes[inode].data[from..from + count]);
        self.note_bytes(from, count);
        if self.hashes_reads {
            self.learn(id, &xxh3_64(&buf[..count]).to_le_bytes());
        }
        Ok(count)
    }

    pub(super) fn write(&mut self, inode: usize, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.chance(self.faults.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let mut count = bytes.len();
        if count > 1 && self.chance(self.faults.short) {
            count = 1 + self.below(count - 1);
        }
        if self.faults.capacity > 0 {
            let len = self.inodes[inode].data.len();
            let room = self.faults.capacity.saturating_sub(self.used());
            let fits = usize::try_from(room).unwrap_or(usize::MAX).saturating_add(len.saturating_sub(offset));
            count = count.min(fits);
            if count == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.note_bytes(offset, count);
        let change = Change::Write(offset, bytes[..count].to_vec());
        let inode = &mut self.inodes[inode];
        apply(&mut inode.data, &change);
        inode.pending.push(change);
        Ok(count)
    }

    pub(super) fn set_len(&mut self, inode: usize, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.note_bytes(len, 0);
        let change = Change::Len(len);
        let inode = &mut self.inodes[inode];
        apply(&mut inode.data, &change);
        inode.pending.push(change);
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: usize) -> io::Result<()> {
        if self.chance(self.faults.sync) {
            return Err(io::Error::other("the disk failed"));
        }
        let inode = &mut self.inodes[inode];
        inode.durable.clone_from(&inode.data);
        inode.pending.clear();
        Ok(())
    }

    pub(super) fn try_lock(&mut self, id: usize, inode: usize, description: u64) -> bool {
        let holder = &mut self.inodes[inode].lock;
        let free = holder.is_none_or(|holder| holder == description);
        if free {
            *holder = Some(description);
        }
        self.learn(id, &[u8::from(free)]);
        free
    }

    pub(super) fn is_free(&self, inode: usize) -> bool {
        self.inodes[inode].lock.is_none()
    }

    pub(super) fn unlock(&mut self, inode: usize, description: u64) {
        let holder = &mut self.inodes[inode].lock;
        if *holder == Some(description) {
            *holder = None;
        }
    }

    pub(super) fn len(&mut self, id: usize, inode: usize) -> u64 {
        let len = self.inodes[inode].data.len() as u64;
        self.learn(id, &len.to_le_bytes());
        len
    }

    pub(super) fn is_unlinked(&mut self, id: usize, inode: usize) -> bool {
        let unlinked = self.inodes[inode].links == 0;
        self.learn(id, &[u8::from(unlinked)]);
        unlinked
    }

    pub(super) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        Some(self.inodes[*self.names.get(name_of(path).ok()?)?].data.clone())
    }

    pub(super) fn len_at(&self, path: &Path) -> Option<u64> {
        Some(self.inodes[*self.names.get(name_of(path).ok()?)?].data.len() as u64)
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.names.keys().map(PathBuf::from).collect()
    }

    pub(super) fn overwrite(&mut self, path: &Path, content: Option<&[u8]>) {
        let name = name_of(path).expect("a path in UTF-8");
        if let Some(inode) = self.names.remove(name) {
            self.inodes[inode].links -= 1;
            self.durable_names.remove(name);
        }
        if let Some(content) = content {
            let (data, durable) = (content.to_vec(), content.to_vec());
            self.inodes.push(Inode { data, durable, links: 1, ..Inode::default() });
            self.names.insert(name.to_owned(), self.inodes.len() - 1);
            self.durable_names.insert(name.to_owned(), self.inodes.len() - 1);
        }
    }

    fn learn(&mut self, id: usize, what: &[u8]) {
        if !self.hashes_reads {
            return;
        }
        let seen = &mut self.processes[id].seen;
        *seen = xxhash_rust::xxh3::xxh3_64_with_seed(what, *seen);
    }

    /// Records an operation in the trace, and its outcome in the hash of the process.
    pub(super) fn note(&mut self, id: usize, name: &str, path: &Path, outcome: Option<io::ErrorKind>) {
        let outcome_byte = outcome.map_or(0, |kind| 1 + kind as u8);
        self.learn(id, &[outcome_byte]);
        let noted = self.noted.take();
        let bytes = std::mem::take(&mut self.noted_bytes);
        if let Some(trace) = &mut self.trace {
            let path = noted.and_then(|inode| self.paths.get(&inode)).map_or(path, PathBuf::as_path);
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let failed = outcome.map_or_else(String::new, |kind| format!(": {kind}"));
            trace.push(format!("{id} {name} {file}{bytes}{failed}"));
        }
    }

    /// Records the file of the current operation.
    pub(super) fn note_file(&mut self, inode: usize) {
        self.noted = Some(inode);
    }

    /// Records where the current operation reads, writes or cuts a file.
    fn note_bytes(&mut self, offset: usize, count: usize) {
        if self.trace.is_some() {
            self.noted_bytes = format!(" at {offset}, {count} bytes");
        }
    }

    pub(super) fn digest(&self, with_processes: bool) -> u64 {
        let mut hasher = Xxh3Default::new();
        let mut number = |value: u64| hasher.update(&value.to_le_bytes());
        for (path, inode) in &self.names {
            number(xxh3_64(path.as_bytes()));
            number(*inode as u64);
        }
        for (path, inode) in &self.durable_names {
            number(xxh3_64(path.as_bytes()));
            number(!*inode as u64);
        }
        for (path, inode) in &self.pending_names {
            number(xxh3_64(path.as_bytes()));
            number(inode.map_or(u64::MAX, |inode| inode as u64));
        }
        for inode in self.inodes.iter().filter(|inode| inode.links > 0 || inode.open > 0) {
            number(xxh3_64(&inode.data));
            number(xxh3_64(&inode.durable));
            number(u64::from(inode.links));
            if with_processes {
                number(inode.lock.map_or(0, |description| 1 + owner(description) as u64));
            }
            for change in &inode.pending {
                match change {
                    Change::Write(offset, bytes) => {
                        number(*offset as u64);
                        number(xxh3_64(bytes));
                    }
                    Change::Len(len) => number(!*len as u64),
                }
            }
        }
        if with_processes {
            for process in &self.processes {
                number(process.seen);
                number(u64::from(process.alive));
            }
        }
        hasher.digest()
    }
}

fn apply(data: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, bytes) => {
            let end = offset + bytes.len();
            if data.len() < end {
                data.resize(end, 0);
            }
            data[*offset..end].copy_from_slice(bytes);
        }
        Change::Len(len) => data.resize(*len, 0),
    }
}

/// Returns a path as a name of the simulated file system.
fn name_of(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Returns the name of a file in a directory; `None` if the file is elsewhere.
fn name_in<'a>(dir: &str, name: &'a str) -> Option<&'a str> {
    let name = name.strip_prefix(dir)?.strip_prefix(MAIN_SEPARATOR)?;
    (!name.contains(MAIN_SEPARATOR)).then_some(name)
}

/// Returns the process that a file description belongs to.
fn owner(description: u64) -> usize {
    (description & 0xFFFF) as usize
}

fn next_random(state: u64) -> u64 {
    state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F)
}
