//! Finds out which calls that change files have succeeded.
//!
//! A call is reported before the kernel executes it, and its result is not reported. A file that a
//! command failed to replace, create, remove or move is not its output: a later read of it is
//! a dependency. So the file's state before the call is stored, and compared when the
//! command makes another call. A change that left no evidence by the next call of its thread has
//! failed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Number of calls of other threads after which the thread that makes a change is looked for. If it
/// has ended, a change without evidence counts as failed.
const CHECKS_MAX: u32 = 50;

/// The file at a path at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    /// Time of the last modification, in seconds and nanoseconds. Changes of the mode or the owner
    /// do not affect it.
    modified: (i64, i64),
}

impl FileState {
    /// Returns the state of a path, or `None` if it has no file or cannot be queried.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = path.symlink_metadata().ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    fn is_same_file(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// A call of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) thread: u32,
    pub(super) number: i32,
    pub(super) arguments: [u64; 6],
}

/// The ways in which a call changes the file at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Removes the content, or creates a file. `was_untouched` says that the call was the first
    /// access.
    Replace { was_untouched: bool },
    /// Creates a file or directory at a path without one.
    Create { is_directory: bool },
    /// Removes the file.
    Remove,
    /// Moves a file to the path from another one.
    MoveHere { from: PathBuf, moved: Option<FileState>, was_untouched: bool, is_directory: bool },
}

/// A change whose outcome is not certain yet.
#[derive(Debug)]
pub(super) struct ExpectedChange {
    pub(super) path: PathBuf,
    pub(super) change: Change,
    before: Option<FileState>,
    caller: Caller,
    checks_left: u32,
}

impl ExpectedChange {
    /// Counts a call of another thread, and returns whether the thread of this call has ended.
    fn is_abandoned(&mut self) -> bool {
        if self.checks_left > 0 {
            self.checks_left -= 1;
            return false;
        }
        self.checks_left = CHECKS_MAX;
        !Path::new(&format!("/proc/{}", self.caller.thread)).exists()
    }

    /// Returns whether the file system shows that the change was made.
    fn is_made(&self) -> bool {
        let now = FileState::of(&self.path);
        let is_other = |state: Option<FileState>, before: Option<FileState>| match (state, before) {
            (Some(state), Some(before)) => !state.is_same_file(before),
            (None, _) => true,
            (Some(_), None) => false,
        };
        match &self.change {
            Change::Replace { .. } => now.is_some() && now != self.before,
            Change::Create { .. } => now.is_some(),
            Change::Remove => is_other(now, self.before),
            Change::MoveHere { from, moved, .. } => {
                now.is_some() && (!is_other(now, *moved) || is_other(FileState::of(from), *moved))
            }
        }
    }
}

/// The changes whose outcome is not certain yet.
#[derive(Debug, Default)]
pub(super) struct ExpectedChanges {
    changes: Vec<ExpectedChange>,
    caller: Caller,
}

impl ExpectedChanges {
    /// Adds a change that the current call is going to make. A call that is made again, because a
    /// signal interrupted it, is added once.
    pub(super) fn add(&mut self, path: &Path, change: Change) {
        let is_same = |other: &ExpectedChange| other.path == path && other.caller == self.caller;
        if !self.changes.iter().any(is_same) {
            self.changes.push(ExpectedChange {
                path: path.to_owned(),
                change,
                before: FileState::of(path),
                caller: self.caller,
                checks_left: CHECKS_MAX,
            });
        }
    }

    /// Starts the next call, and returns the changes that are certain now, each with whether it was
    /// made.
    pub(super) fn next_call(&mut self, caller: Caller) -> Vec<(ExpectedChange, bool)> {
        self.caller = caller;
        self.take(|expected| {
            if expected.caller == caller {
                return false;
            }
            expected.caller.thread == caller.thread || expected.is_abandoned()
        })
    }

    /// Returns all changes after the last call, each with whether it was made.
    pub(super) fn finish(&mut self) -> Vec<(ExpectedChange, bool)> {
        self.take(|_| true)
    }

    /// Removes the changes that were made or count as failed.
    fn take(
        &mut self,
        mut is_failed: impl FnMut(&mut ExpectedChange) -> bool,
    ) -> Vec<(ExpectedChange, bool)> {
        let mut certain = Vec::new();
        let mut at = 0;
        while at < self.changes.len() {
            let is_made = self.changes[at].is_made();
            if is_made || is_failed(&mut self.changes[at]) {
                certain.push((self.changes.remove(at), is_made));
            } else {
                at += 1;
            }
        }
        certain
    }
}
