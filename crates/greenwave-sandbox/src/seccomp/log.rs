//! Accumulates the accesses of a command.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::changes::{Caller, Change, ExpectedChange, ExpectedChanges, FileState};
use super::ipc::{IpcCall, IpcLog};
use super::parts::Parts;
use super::processes::process_of;
use super::readers::Readers;
use crate::{Access, FileTimes, Peer, Retimed, Trace, TraceReaders};

/// Maximum number of peers that are recorded.
const PEERS_MAX: usize = 1_000;

/// The recorded accesses.
#[derive(Debug)]
pub(super) struct AccessLog {
    paths: HashMap<PathBuf, PathRecord>,
    /// Directories that the command created. Everything in them is its own output.
    created: HashSet<PathBuf>,
    /// Changes after which a file may be the command's own output.
    expected: ExpectedChanges,
    ipc: IpcLog,
    incomplete: Option<String>,
    peers: BTreeSet<Peer>,
    /// Files whose timestamps the command has set.
    retimed: HashMap<PathBuf, Retimed>,
    /// Threads whose last call set the timestamps of a file.
    unsettled: Vec<(u32, PathBuf)>,
    pub(super) parts: Parts,
    readers: Readers,
    /// The thread that makes the current call.
    thread: u32,
    paths_max: usize,
}

#[derive(Debug, Default)]
struct PathRecord {
    access: Access,
    /// The command has replaced or removed the file: later accesses depend on its own output only.
    is_output: bool,
    /// The command has changed something other than timestamps.
    is_changed: bool,
    /// A file existed before that.
    existed: bool,
    /// The process that first read the names in the directory, even if it is an output by then.
    listed_by: Option<u32>,
    /// Another process has read the names or removed the directory.
    is_shared: bool,
    /// The first access came after the names in its directory were read.
    is_walked: bool,
    /// The command has executed the file.
    is_executed: bool,
    /// The command has accessed the path in another way than by executing it.
    is_examined: bool,
    /// The number of the program that was the first to depend on the path.
    reader: Option<u32>,
}

impl AccessLog {
    pub(super) fn new(paths_max: usize, parts: Parts) -> Self {
        Self {
            paths: HashMap::new(),
            created: HashSet::new(),
            expected: ExpectedChanges::default(),
            ipc: IpcLog::default(),
            incomplete: None,
            peers: BTreeSet::new(),
            retimed: HashMap::new(),
            unsettled: Vec::new(),
            parts,
            readers: Readers::default(),
            thread: 0,
            paths_max,
        }
    }

    /// Marks the log as incomplete. The first reason is reported.
    pub(super) fn incomplete(&mut self, reason: impl Into<String>) {
        self.incomplete.get_or_insert_with(|| reason.into());
    }

    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete.is_some()
    }

    /// Records that the command can exchange data with a peer.
    pub(super) fn reach(&mut self, peer: Peer) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains(&peer) {
            self.incomplete(format!("talks to more than {PEERS_MAX} servers"));
        } else {
            self.peers.insert(peer);
        }
    }

    /// Records that no server received at an address of this machine.
    pub(super) fn absent_server(&mut self, address: SocketAddr) {
        if !self.ipc.absent_server(address) {
            self.reach(Peer::Inet(address));
        }
    }

    /// Records the use of a kernel object that existed before the command.
    pub(super) fn use_object(&mut self, description: String) {
        self.ipc.set_foreign(description);
    }

    /// Returns whether the command has created or replaced the file at a path.
    pub(super) fn is_output(&self, path: &Path) -> bool {
        self.paths.get(path).is_some_and(|record| record.is_output) || self.is_in_created(path)
    }

    /// Records the use of a kernel object. `read_name` reads the name of a queue from the caller.
    pub(super) fn ipc(&mut self, call: IpcCall, read_name: impl FnOnce(u64) -> Option<Vec<u8>>) {
        self.ipc.record(call, read_name);
    }

    /// Records an access that depends on the state of the path.
    pub(super) fn depend(&mut self, path: &Path, set: impl FnOnce(&mut Access)) {
        self.depend_on(path, set);
        if let Some(record) = self.record(path) {
            record.is_examined = true;
        }
    }

    /// Records that a file was executed.
    pub(super) fn execute(&mut self, path: &Path) {
        self.depend_on(path, |access| access.read = true);
        if let Some(record) = self.record(path) {
            record.is_executed = true;
        }
    }

    fn depend_on(&mut self, path: &Path, set: impl FnOnce(&mut Access)) {
        self.parts.observe(path);
        // Most calls of a process are about files that an earlier one has read, such as libraries.
        let has_reader = self.paths.get(path).is_some_and(|record| record.reader.is_some());
        let reader = if has_reader { None } else { self.readers.number(self.thread) };
        if let Some(record) = self.record(path)
            && !record.is_output
        {
            set(&mut record.access);
            record.reader = record.reader.or(reader);
        }
    }

    /// Records that the current call may execute another program.
    pub(super) fn executes(&mut self) {
        self.readers.executes(self.thread);
    }

    /// Records that a file exists.
    pub(super) fn exists(&mut self, path: &Path) {
        if let Some(record) = self.record(path)
            && !record.is_output
        {
            record.existed = true;
        }
    }

    /// Records that the names in a directory were read.
    pub(super) fn list(&mut self, path: &Path) {
        self.parts.list(path);
        self.depend(path, |access| access.listed = true);
        let process = process_of(self.thread);
        if let Some(record) = self.record(path) {
            let lister = *record.listed_by.get_or_insert(process);
            record.is_shared |= lister != process && !record.is_output;
        }
    }

    /// Records a write that leaves a part of the earlier content.
    pub(super) fn write(&mut self, path: &Path) {
        self.parts.change(path, false);
        if let Some(record) = self.record(path) {
            record.access.written = true;
            record.is_changed = true;
        }
    }

    /// Records that a call opens a file for writing and leaves its content for now. The timestamps
    /// show whether the command then writes to the file.
    pub(super) fn open_for_writing(&mut self, path: &Path) {
        self.parts.change(path, false);
        if let Some(record) = self.record(path) {
            record.access.written = true;
        }
    }

    /// Records that a call sets the timestamps of a file.
    pub(super) fn set_times(&mut self, path: &Path) {
        let was_changed = self.record(path).is_none_or(|record| record.is_changed);
        self.write(path);
        let Some(before) = file_times(path).filter(|_| !was_changed) else { return };
        if let Some(record) = self.record(path) {
            record.is_changed = false;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        match self.retimed.get_mut(path) {
            Some(retimed) => retimed.add(before, now),
            None => drop(self.retimed.insert(path.to_owned(), Retimed::new(before, now))),
        }
        self.unsettled.push((self.thread, path.to_owned()));
    }

    /// Reads the timestamps that threads have set with their last calls.
    fn settle_times(&mut self, is_over: impl Fn(u32) -> bool) {
        let retimed = &mut self.retimed;
        self.unsettled.retain(|(thread, path)| {
            let is_over = is_over(*thread);
            if let (true, Some(times), Some(retimed)) = (is_over, file_times(path), retimed.get_mut(path)) {
                retimed.settle(times);
            }
            !is_over
        });
    }

    /// Starts the record of a call. Returns whether a change that an earlier call was expected to
    /// make has failed.
    pub(super) fn next_call(&mut self, caller: Caller) -> bool {
        self.thread = caller.thread;
        self.settle_times(|thread| thread == caller.thread);
        let certain = self.expected.next_call(caller);
        self.settle(certain)
    }

    /// Records a call that replaces the content, and succeeds whether a file existed or not.
    pub(super) fn replace(&mut self, path: &Path) {
        if let Some(was_untouched) = self.begin_output(path, false) {
            self.expected.add(path, Change::Replace { was_untouched });
        }
    }

    /// Records a call that creates a file at a path without one.
    pub(super) fn create(&mut self, path: &Path, is_directory: bool) {
        self.depend(path, |access| (access.queried, access.created) = (true, true));
        if self.begin_output(path, is_directory).is_some() || is_directory {
            self.expected.add(path, Change::Create { is_directory });
        }
    }

    /// Records a call that removes a file.
    pub(super) fn remove(&mut self, path: &Path) {
        self.depend(path, |access| access.queried = true);
        let thread = self.thread;
        if let Some(record) = self.record(path)
            && let Some(lister) = record.listed_by
        {
            record.is_shared |= !record.is_output && lister != process_of(thread);
        }
        let is_directory = self.parts.are_announced() && path.is_dir();
        if self.begin_output(path, is_directory).is_some() || self.created.contains(path) {
            self.expected.add(path, Change::Remove);
        }
    }

    /// Records a call that moves a file to a path, and replaces the file there. Call
    /// [`remove`](Self::remove) for its old path as well.
    pub(super) fn move_here(&mut self, from: &Path, path: &Path, is_directory: bool) {
        if is_directory && !self.is_in_created(from) {
            self.incomplete("moves a directory that it did not create");
        }
        let was_untouched = self.begin_output(path, is_directory);
        if was_untouched.is_some() || is_directory {
            let (from, moved) = (from.to_owned(), FileState::of(from));
            let was_untouched = was_untouched.unwrap_or_default();
            self.expected.add(path, Change::MoveHere { from, moved, was_untouched, is_directory });
        }
    }

    /// Records that a call writes to a file. Returns whether it is the first access, or `None` if
    /// the file is an output already.
    fn begin_output(&mut self, path: &Path, is_directory: bool) -> Option<bool> {
        self.parts.change(path, is_directory);
        let record = self.record(path)?;
        let was_untouched = record.access == Access::default();
        record.access.written = true;
        record.is_changed = true;
        (!record.is_output).then_some(was_untouched)
    }

    /// Records the outcomes of changes. Returns whether one has failed.
    fn settle(&mut self, certain: Vec<(ExpectedChange, bool)>) -> bool {
        let mut has_failed = false;
        for (ExpectedChange { path, change, .. }, is_made) in certain {
            has_failed |= !is_made;
            if is_made {
                self.made(&path, &change);
            } else {
                self.failed(&path);
            }
        }
        has_failed
    }

    fn made(&mut self, path: &Path, change: &Change) {
        if let Some(record) = self.record(path) {
            record.is_output = true;
            let untouched = Access { written: true, ..Access::default() };
            if let Change::Replace { was_untouched } | Change::MoveHere { was_untouched, .. } = change {
                record.access.output_only |= *was_untouched && record.access == untouched;
            }
        }
        match change {
            Change::Create { is_directory: true } | Change::MoveHere { is_directory: true, .. } => {
                self.created.insert(path.to_owned());
            }
            Change::Remove => {
                self.created.remove(path);
            }
            _ => {}
        }
    }

    /// Records that a call has changed nothing. Whether it can depends on the file's existence.
    fn failed(&mut self, path: &Path) {
        self.depend(path, |access| (access.queried, access.created) = (true, false));
    }

    pub(super) fn finish(mut self) -> Trace {
        self.settle_all();
        let (existing, swept, retimed) = (self.existing(), self.swept(), self.retimed());
        let readers = self.readers();
        Trace {
            readers,
            swept,
            only_executed: self.only_executed(),
            paths: self.paths.into_iter().map(|(path, record)| (path, record.access)).collect(),
            existing,
            retimed,
            objects: self.ipc.finish(),
            incomplete: self.incomplete,
            peers: self.peers,
            parts: self.parts.finish(),
        }
    }

    /// Returns a copy of the trace as of now.
    pub(super) fn snapshot(&mut self) -> Trace {
        self.settle_all();
        Trace {
            readers: self.readers(),
            swept: self.swept(),
            only_executed: self.only_executed(),
            paths: self.paths.iter().map(|(path, record)| (path.clone(), record.access)).collect(),
            existing: self.existing(),
            retimed: self.retimed(),
            objects: self.ipc.finish(),
            incomplete: self.incomplete.clone(),
            peers: self.peers.clone(),
            parts: self.parts.finish(),
        }
    }

    fn settle_all(&mut self) {
        self.settle_times(|_| true);
        let certain = self.expected.finish();
        self.settle(certain);
    }

    fn only_executed(&self) -> HashSet<PathBuf> {
        let is_only = |record: &PathRecord| {
            record.is_executed && !record.is_examined && !record.access.written && !record.is_output
        };
        self.paths.iter().filter(|(_, record)| is_only(record)).map(|(path, _)| path.clone()).collect()
    }

    fn readers(&self) -> TraceReaders {
        let with_reader = |(path, record): (&PathBuf, &PathRecord)| Some((path.clone(), record.reader?));
        let by_path = self.paths.iter().filter_map(with_reader).collect();
        TraceReaders { by_path, ..self.readers.finish() }
    }

    fn retimed(&self) -> HashMap<PathBuf, Retimed> {
        let is_only = |path: &PathBuf| self.paths.get(path).is_some_and(|record| !record.is_changed);
        let retimed = self.retimed.iter().filter(|(path, _)| is_only(path));
        retimed.map(|(path, retimed)| (path.clone(), retimed.clone())).collect()
    }

    fn existing(&self) -> HashSet<PathBuf> {
        self.paths.iter().filter(|(_, record)| record.existed).map(|(path, _)| path.clone()).collect()
    }

    /// Returns the directories that the command has removed with their unread content, and created
    /// again. Only the process that removed a directory has read the names in it.
    fn swept(&self) -> HashSet<PathBuf> {
        let is_unread = |record: &PathRecord| record.access.written && !record.access.read;
        let is_recreated = |directory: &&PathBuf| {
            self.paths
                .get(*directory)
                .is_some_and(|record| record.existed && is_unread(record) && !record.is_shared)
        };
        let mut swept: HashSet<PathBuf> = self.created.iter().filter(is_recreated).cloned().collect();
        if swept.is_empty() {
            return swept;
        }
        for (path, record) in self.paths.iter().filter(|(_, record)| record.existed) {
            if !(record.is_walked && is_unread(record) && !record.is_shared) {
                swept.retain(|directory| path == directory || !path.starts_with(directory));
            }
        }
        swept
    }

    fn is_in_created(&self, path: &Path) -> bool {
        !self.created.is_empty() && path.ancestors().any(|above| self.created.contains(above))
    }

    /// Returns the record of a path, or `None` if the log is full.
    fn record(&mut self, path: &Path) -> Option<&mut PathRecord> {
        if !self.paths.contains_key(path) {
            if self.paths.len() >= self.paths_max {
                self.incomplete(format!("uses more than {} paths", self.paths_max));
                return None;
            }
            let output_only = self.is_in_created(path);
            let access = Access { output_only, ..Access::default() };
            let is_walked = path
                .parent()
                .and_then(|parent| self.paths.get(parent))
                .is_some_and(|it| it.listed_by.is_some());
            let record = PathRecord { access, is_output: output_only, is_walked, ..PathRecord::default() };
            self.paths.insert(path.to_owned(), record);
        }
        self.paths.get_mut(path)
    }
}

/// Returns the timestamps of a regular file.
fn file_times(path: &Path) -> Option<FileTimes> {
    let metadata = path.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Some(FileTimes {
        modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    })
}
