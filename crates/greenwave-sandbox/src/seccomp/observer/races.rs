//! Detects threads that change the path of a call while another thread makes the call.
//!
//! The kernel reads a path again when the call continues. No report follows, so the memory is
//! compared before the call continues, when the thread makes its next call, and when the process
//! ends. A thread that changes a path after the first comparison and restores it before the next
//! goes unnoticed.

use std::time::Duration;

use super::{Observer, RawPath, raw_path};
use crate::seccomp::call::{Call, PathArgument};
use crate::seccomp::tracee::Tracee;

/// Number of times that memory is compared during a call of a command with threads. A thread that
/// writes in a loop may have restored the content by the time of one comparison.
const MEMORY_SAMPLES: usize = 3;
/// Pause between two comparisons of a command in which the memory of a path held another path
/// later. On a busy machine, a thread that changes paths gets to run meanwhile.
const PAUSE: Duration = Duration::from_micros(20);
/// Maximum number of pauses in a trace, so that commands that reuse memory lose a millisecond at
/// most.
pub(super) const PAUSES_MAX: u32 = 12;
/// Maximum number of threads whose last call is checked when a process ends.
const LAST_CALLS_MAX: usize = 64;
/// Maximum number of threads whose last call is stored. All calls are removed when there are more.
const THREADS_MAX: usize = 10_000;

impl Observer {
    /// Compares the memory that was read, several times if other threads may write to it.
    pub(super) fn has_stable_memory(&mut self, tracee: &Tracee<'_>) -> bool {
        if !self.has_threads {
            return tracee.has_stable_memory();
        }
        (0..MEMORY_SAMPLES).all(|sample| {
            self.pause_before(sample);
            tracee.has_stable_memory()
        })
    }

    /// Lets other threads run before a further sample of their memory, if they may change paths.
    fn pause_before(&mut self, sample: usize) {
        if sample > 0 && self.is_suspicious && self.pauses_left > 0 {
            self.pauses_left -= 1;
            std::thread::sleep(PAUSE);
        }
    }

    /// Sets the path that the current call opens or queries, as it was read from memory.
    pub(super) fn set_current(&mut self, path: &RawPath) {
        if self.has_threads {
            self.current = Some(path.clone());
        }
    }

    /// Remembers a call that may be checked when its thread makes the next one.
    pub(super) fn remember(&mut self, thread: u32, call: Call) {
        if checked_path(call).is_some()
            && let Some(path) = self.current.take()
        {
            if self.previous.len() >= THREADS_MAX {
                self.previous.clear();
            }
            self.previous.insert(thread, (call, path));
        }
    }

    /// Records the previous call of a thread once more if another path is in its memory now. The
    /// kernel may have read that path, if another thread wrote it just before the call. A program
    /// that reuses the memory depends on one more file than before.
    pub(super) fn check_previous(&mut self, it: &Tracee<'_>) {
        if let Some((call, before)) = self.previous.remove(&it.thread) {
            self.check(it, call, &before);
        }
    }

    /// Checks the last calls of all threads like [`check_previous`](Self::check_previous), before a
    /// process ends: it makes no next call.
    pub(super) fn check_last_calls(&mut self, it: &Tracee<'_>) {
        let mut last: Vec<_> = self.previous.iter().map(|(thread, call)| (*thread, call.clone())).collect();
        last.truncate(LAST_CALLS_MAX);
        for sample in 0..MEMORY_SAMPLES {
            self.pause_before(sample);
            for (thread, (call, before)) in &last {
                self.check(&Tracee { thread: *thread, ..*it }, *call, before);
            }
        }
        // The other threads may change their memory as they like by now.
        it.reads.clear();
    }

    fn check(&mut self, it: &Tracee<'_>, call: Call, before: &RawPath) {
        let Some(argument) = checked_path(call) else { return };
        let Ok(path) = raw_path(it, argument) else { return };
        if path == *before || !self.resolver.resolve(it.thread, &path, true).target.exists() {
            return;
        }
        self.is_suspicious = true;
        let _ = self.record(it, call);
    }
}

/// Returns the path of a call that only reads. A call that changes files is not recorded twice: the
/// earlier state of a file that it replaces would not count any more.
fn checked_path(call: Call) -> Option<PathArgument> {
    match call {
        Call::Query { path, .. } => Some(path),
        Call::Open { path, flags } if flags & (libc::O_ACCMODE | libc::O_CREAT) == libc::O_RDONLY => {
            Some(path)
        }
        _ => None,
    }
}
