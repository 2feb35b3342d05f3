//! A machine in memory on which logs run: a file system that loses what was not synced, processes
//! that are interleaved at every file operation, and faults. For tests of this crate and of what
//! stands on it (feature `simulation`).
//!
//! Everything is deterministic: the same seed and the same decisions give the same run. A
//! [`Machine`] has one disk. A [`Process`] is a view of it that
//! [`Log::open_simulated`](crate::Log::open_simulated) takes. A [`Schedule`] runs one piece of code
//! a process, each as a coroutine that stops before every file operation, and its caller decides
//! which goes on.
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
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::access::{Access, FileStatus};
use disk::SimulatedDisk;
use schedule::wait;
pub use schedule::{Schedule, clock, pause};

/// A simulated machine. Clones share it.
#[derive(Clone)]
pub struct Machine {
    state: Arc<Mutex<SimulatedDisk>>,
}

/// One process of a machine. Clones are the same process.
#[derive(Clone)]
pub struct Process {
    state: Arc<Mutex<SimulatedDisk>>,
    id: usize,
}

/// An open file of a process. Dropping it closes it.
pub(crate) struct SimulatedFile {
    process: Process,
    description: u64,
    inode: usize,
}

/// What goes wrong. Each chance is out of a thousand calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Reads, writes and locks that are interrupted by a signal.
    pub interrupted: u16,
    /// Reads and writes that do a part only.
    pub short: u16,
    /// Syncs that fail.
    pub sync: u16,
    /// Bytes that all files together may have; 0 is no limit.
    pub capacity: u64,
    /// Files that a process may have open; 0 is no limit.
    pub open_files: usize,
}

/// How much of what was not synced a power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All of it.
    Kept,
    /// None of it.
    Lost,
    /// Each write on its own chance, some of them torn.
    Some,
}

/// For what a process waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitingFor {
    /// Its turn.
    Turn,
    /// A file's lock.
    Lock(usize),
}

impl Machine {
    /// A machine with an empty disk. The clock of this thread begins anew.
    pub fn new(seed: u64) -> Self {
        schedule::reset_clock();
        Self { state: Arc::new(Mutex::new(SimulatedDisk::new(seed))) }
    }

    /// Starts a process.
    pub fn process(&self) -> Process {
        let id = self.state.lock().start_process();
        Process { state: self.state.clone(), id }
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Ends all processes and loses what was not synced.
    pub fn cut_power(&self, unsynced: Unsynced) {
        self.state.lock().cut_power(unsynced);
    }

    /// A machine of its own with the same disk, and no processes.
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state.lock().fork())) }
    }

    /// A hash of all that the disk holds, synced and not, and of what each process has seen of it:
    /// equal for two machines whose processes, running deterministic code, will behave alike from
    /// here on.
    pub fn digest(&self) -> u64 {
        self.state.lock().digest(true)
    }

    /// A hash of all that the disk holds, synced and not.
    pub fn disk_digest(&self) -> u64 {
        self.state.lock().digest(false)
    }

    /// Gives the machine's disk another identity, as that of a copy has.
    pub fn set_identity(&self, identity: u64) {
        self.state.lock().identity = identity;
    }

    /// File operations so far.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// The paths of all files.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        self.state.lock().names.keys().cloned().collect()
    }

    /// A file's content.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        self.state.lock().content(path)
    }

    /// Replaces a file's content, as somebody else would; `None` removes the file.
    pub fn overwrite(&self, path: &Path, content: Option<&[u8]>) {
        self.state.lock().overwrite(path, content);
    }

    /// Keeps a line for each file operation from now on, for [`trace`](Self::trace).
    pub fn record(&self) {
        self.state.lock().trace = Some(Vec::new());
    }

    /// The recorded lines: process, operation, file.
    pub fn trace(&self) -> Vec<String> {
        self.state.lock().trace.clone().unwrap_or_default()
    }
}

impl Process {
    /// Ends the process as SIGKILL does: its locks are released, and what it wrote stays in the
    /// page cache.
    pub fn kill(&self) {
        self.state.lock().kill(self.id);
    }

    /// Sets how far the process's clock is ahead of the machine's, in nanoseconds.
    pub fn set_clock_ahead(&self, nanos: i64) {
        self.state.lock().set_clock_ahead(self.id, nanos);
    }

    pub(crate) fn clock_ahead(&self) -> i64 {
        self.state.lock().clock_ahead(self.id)
    }

    /// Waits for the turn to do one file operation, then does it. A process that was killed does
    /// nothing.
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

    pub(crate) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.operation("sync directory", dir, |state, _| state.sync_dir(dir))
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
