//! A simulated machine for testing logs: a file system in memory that loses unsynced data,
//! processes that are interleaved at every file operation, and faults (feature `simulation`).
//!
//! Everything is deterministic: the same seed and the same decisions result in the same run. A
//! [`Machine`] has one disk. A [`Process`] accesses it; pass one to
//! [`Log::open_simulated`](crate::Log::open_simulated). A [`Schedule`] runs the code of each
//! process as a coroutine that stops before every file operation, and its caller decides which one
//! continues.
//!
//! ```
//! use greenwave_segment::simulation::{Machine, Schedule, clock};
//! use greenwave_segment::{Log, Options};
//!
//! let machine = Machine::new(1);
//! let mut schedule = Schedule::new();
//! for number in 0..2_u8 {
//!     let process = machine.process();
//!     schedule.spawn(&process.clone(), move || {
//!         let log = Log::open_simulated(&process, "/log", Options { clock, ..Options::default() }).unwrap();
//!         log.put(&[number], b"value").unwrap();
//!     });
//! }
//! let mut turn = 0;
//! while let Some(runnable) = schedule.runnable() {
//!     turn += 1;
//!     schedule.step(runnable[turn % runnable.len()]);
//! }
//! ```

mod disk;
mod schedule;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::access::{Access, FileStatus};
use disk::SimulatedDisk;
use schedule::wait;
pub use schedule::{Schedule, clock, pause};

/// A simulated machine. Clones share its state.
#[derive(Clone)]
pub struct Machine {
    state: Arc<Mutex<SimulatedDisk>>,
}

/// A process of a simulated machine. Clones are the same process.
#[derive(Clone)]
pub struct Process {
    state: Arc<Mutex<SimulatedDisk>>,
    id: usize,
}

/// An open file of a process. Dropping it closes the file.
pub(crate) struct SimulatedFile {
    process: Process,
    description: u64,
    inode: usize,
}

/// An open directory of a process. Opening it is not a step of its own, since no other process can
/// observe it.
#[derive(Debug)]
pub(crate) struct SimulatedDirectory {
    process: Process,
    path: PathBuf,
}

/// Injected faults. Probabilities are per thousand calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Probability that a read, write or lock is interrupted by a signal.
    pub interrupted: u16,
    /// Probability that a read or write transfers only a part.
    pub short: u16,
    /// Probability that a sync fails.
    pub sync: u16,
    /// Capacity of the disk in bytes; 0 is unlimited.
    pub capacity: u64,
    /// Maximum number of open files per process; 0 is unlimited.
    pub open_files: usize,
}

/// Share of the unsynced data that survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All of it.
    All,
    /// None of it.
    None,
    /// A random part of it. Writes may be torn.
    Some,
}

/// Event that a stopped process waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitingFor {
    /// The scheduler's decision.
    Turn,
    /// The release of a file's lock.
    Lock(usize),
}

impl Machine {
    /// Creates a machine with an empty disk. Resets the clock of this thread.
    pub fn new(seed: u64) -> Self {
        schedule::reset_clock();
        Self { state: Arc::new(Mutex::new(SimulatedDisk::new(seed))) }
    }

    /// Starts a process.
    pub fn process(&self) -> Process {
        let id = self.state.lock().start_process();
        Process { state: self.state.clone(), id }
    }

    /// Sets the faults to inject from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Ends all processes and loses unsynced data.
    pub fn cut_power(&self, unsynced: Unsynced) {
        self.state.lock().cut_power(unsynced);
    }

    /// Creates another machine with the same disk and no processes.
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state.lock().fork())) }
    }

    /// Starts hashing what processes read from the disk, for [`digest`](Self::digest).
    pub fn hash_reads(&self) {
        self.state.lock().hashes_reads = true;
    }

    /// Returns a hash of everything on the disk, synced or not, and of everything that each process
    /// has read from it. Processes that run deterministic code on two machines with the same hash
    /// will behave the same.
    ///
    /// # Panics
    ///
    /// Panics unless [`hash_reads`](Self::hash_reads) was called before the first process started.
    pub fn digest(&self) -> u64 {
        let state = self.state.lock();
        assert!(state.hashes_reads, "hash_reads was not called");
        state.digest(true)
    }

    /// Returns a hash of everything on the disk, synced or not.
    pub fn disk_digest(&self) -> u64 {
        self.state.lock().digest(false)
    }

    /// Sets the identity of the disk. A copy of a disk has another identity.
    pub fn set_identity(&self, identity: u64) {
        self.state.lock().identity = identity;
    }

    /// Returns the number of file operations.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Returns the paths of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.lock().paths()
    }

    /// Returns the contents of a file.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        self.state.lock().content(path)
    }

    /// Returns the size of a file in bytes.
    pub fn len(&self, path: &Path) -> Option<u64> {
        self.state.lock().len_at(path)
    }

    /// Replaces the contents of a file as another program would; `None` removes the file.
    pub fn overwrite(&self, path: &Path, content: Option<&[u8]>) {
        self.state.lock().overwrite(path, content);
    }

    /// Starts recording file operations for [`trace`](Self::trace).
    pub fn record(&self) {
        self.state.lock().trace = Some(Vec::new());
    }

    /// Returns the recorded operations, one line each: process, operation, file.
    pub fn trace(&self) -> Vec<String> {
        self.state.lock().trace.clone().unwrap_or_default()
    }
}

impl Process {
    /// Ends the process like SIGKILL: releases its locks, and leaves its writes in the page cache.
    pub fn kill(&self) {
        self.state.lock().kill(self.id);
    }

    /// Sets how far the clock of the process is ahead of the machine's, in nanoseconds.
    pub fn set_clock_ahead(&self, nanos: i64) {
        self.state.lock().set_clock_ahead(self.id, nanos);
    }

    pub(crate) fn clock_ahead(&self) -> i64 {
        self.state.lock().clock_ahead(self.id)
    }

    /// Waits for the scheduler, then performs one file operation. Fails in a killed process.
    fn operation<T>(
        &self,
        name: &str,
        path: &Path,
        work: impl FnOnce(&mut SimulatedDisk, usize) -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.state.lock().is_alive(self.id) {
            return Err(io::Error::other("the process was killed"));
        }
        wait(WaitingFor::Turn);
        let mut state = self.state.lock();
        if !state.is_alive(self.id) {
            return Err(io::Error::other("the process was killed"));
        }
        state.operations += 1;
        let result = work(&mut state, self.id);
        let outcome = result.as_ref().err().map(io::Error::kind);
        state.note(self.id, name, path, outcome);
        result
    }

    pub(crate) fn open(&self, path: &Path, access: Access) -> io::Result<SimulatedFile> {
        let (description, inode) = self.operation("open", path, |state, id| state.open(id, path, access))?;
        Ok(SimulatedFile { process: self.clone(), description, inode })
    }

    pub(crate) fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.operation("list", dir, |state, id| state.list(id, dir))
    }

    pub(crate) fn all_names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.names(dir)
    }

    pub(crate) fn identity(&self, _: &Path) -> io::Result<u64> {
        Ok(self.state.lock().identity)
    }

    pub(crate) fn status(&self, path: &Path) -> io::Result<FileStatus> {
        self.operation("stat", path, |state, id| state.status(id, path))
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation("remove", path, |state, _| state.remove(path))
    }

    pub(crate) fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn open_directory(&self, dir: &Path) -> io::Result<SimulatedDirectory> {
        self.state.lock().check_descriptors(self.id)?;
        Ok(SimulatedDirectory { process: self.clone(), path: dir.to_owned() })
    }

    pub(crate) fn random(&self) -> u64 {
        self.state.lock().random_of(self.id)
    }

    pub(crate) fn pause(&self, _: Duration) {
        if self.state.lock().is_alive(self.id) {
            wait(WaitingFor::Turn);
        }
    }
}

impl SimulatedDirectory {
    pub(crate) fn sync(&self) -> io::Result<()> {
        let Self { process, path } = self;
        process.operation("sync directory", path, |state, _| state.sync_dir(path))
    }
}

impl SimulatedFile {
    fn operation<T>(
        &self,
        name: &str,
        work: impl FnOnce(&mut SimulatedDisk, usize) -> io::Result<T>,
    ) -> io::Result<T> {
        let path = Path::new("");
        self.process.operation(name, path, |state, id| {
            let result = work(state, id);
            state.note_file(self.inode);
            result
        })
    }

    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.operation("read", |state, id| state.read(id, self.inode, buf, offset))
    }

    pub(crate) fn next_data(&self, offset: u64) -> u64 {
        offset
    }

    pub(crate) fn read_at_nowait(&self, _: &mut [u8], _: u64) -> bool {
        false
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.operation("write", |state, _| state.write(self.inode, bytes, offset))
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.operation("truncate", |state, _| state.set_len(self.inode, len))
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        self.operation("sync", |state, _| state.sync(self.inode))
    }

    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        self.operation("try to lock", |state, id| Ok(state.try_lock(id, self.inode, self.description)))
    }

    pub(crate) fn lock(&self) -> io::Result<()> {
        while !self.operation("lock", |state, id| Ok(state.try_lock(id, self.inode, self.description)))? {
            wait(WaitingFor::Lock(self.inode));
        }
        Ok(())
    }

    pub(crate) fn unlock(&self) -> io::Result<()> {
        self.operation("unlock", |state, _| {
            state.unlock(self.inode, self.description);
            Ok(())
        })
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        self.operation("measure", |state, id| Ok(state.len(id, self.inode)))
    }

    pub(crate) fn is_unlinked(&self, _: &Path) -> bool {
        self.operation("count links", |state, id| Ok(state.is_unlinked(id, self.inode))).unwrap_or(true)
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.process.state.lock().close(self.process.id, self.inode, self.description);
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimulatedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedFile").field("inode", &self.inode).finish_non_exhaustive()
    }
}
