//! Detects changes of other processes without reading the directory.
//!
//! [`Log::is_up_to_date`](crate::Log::is_up_to_date) watches the directory and the unfinished
//! segments of other processes, and then compares them with the index once. If the comparison finds
//! no difference, the log is up to date until a notification arrives. A notification is queued
//! before the write that causes it returns, so every finished write has been noticed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, Watch};
use crate::segment::Segment;

/// Notifications about a log's directory.
#[derive(Debug)]
pub(crate) struct ChangeWatch {
    watch: Watch,
    /// Whether the index was up to date when the queue was last emptied.
    quiet: AtomicBool,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    /// Ids of segments whose files are watched.
    segments: HashSet<u64>,
    /// Whether notifications may be missing from now on.
    broken: bool,
}

impl ChangeWatch {
    /// Returns `None` where the system has no notifications.
    pub(crate) fn new(disk: &Disk, dir: &std::path::Path) -> Option<Self> {
        let watch = disk.watch(dir)?;
        Some(Self { watch, quiet: AtomicBool::new(false), watched: Mutex::default() })
    }

    /// Returns whether no change was reported since [`end`](Self::end).
    pub(crate) fn is_quiet(&self) -> bool {
        // In this order: the queue is emptied only after `quiet` was cleared.
        self.watch.is_empty() && self.quiet.load(Ordering::SeqCst)
    }

    /// Empties the queue, and watches these unfinished segments, before the index is compared with
    /// the directory. Returns whether every later change will be noticed. The caller holds the
    /// log's `refreshing`.
    pub(crate) fn begin<'s>(&self, segments: impl Iterator<Item = &'s Segment>) -> bool {
        self.quiet.store(false, Ordering::SeqCst);
        let mut watched = self.watched.lock();
        watched.broken |= !self.watch.drain();
        if watched.broken {
            return false;
        }
        let mut complete = true;
        for segment in segments {
            if !watched.segments.contains(&segment.id) {
                if self.watch.add_file(&segment.path) {
                    watched.segments.insert(segment.id);
                } else {
                    complete = false;
                }
            }
        }
        complete
    }

    /// Records that the comparison after [`begin`](Self::begin) found no differences.
    pub(crate) fn end(&self) {
        self.quiet.store(true, Ordering::SeqCst);
    }
}
