//! Completes the index as needed: adds the records of one key that key tables find in unread
//! segments, or all records of these segments.
//!
//! Records may be applied to the index in any order and more than once. So a key is complete once
//! its record in each unread segment was applied, and a segment once all its records were.
//! Compaction and dropping the oldest values, which remove entries from the index, read all
//! segments before, so that a record that was found earlier cannot bring an entry back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Error;
use crate::entry::{Location, RecordInfo, SlotId};
use crate::error::unless_gone;
use crate::inner::Inner;
use crate::key_table::Found;
use crate::record::Header;
use crate::refresh::{Refresher, SegmentRole};
use crate::segment::Segment;

/// Attempts at completing a key while other threads change the list of unread segments.
const TRIES_MAX: usize = 64;

/// Result of completing a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    /// The entry of the key is equal to its entry in the whole index.
    Complete,
    /// Completing it would have to wait for the disk.
    WouldBlock,
    /// Another process has removed an unread segment; refresh, and try again.
    Gone,
}

/// Completes the index.
#[derive(Clone, Copy)]
pub(crate) struct Unread<'a> {
    inner: &'a Inner,
    refresher: Refresher<'a>,
}

impl<'a> Unread<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner, refresher: Refresher::new(inner) }
    }

    /// Completes the entry of a key. The caller may hold the writer.
    pub(crate) fn complete(&self, key: &[u8], may_block: bool) -> Result<Completion, Error> {
        for _ in 0..TRIES_MAX {
            let unread = {
                let index = self.inner.index.read();
                if !index.is_incomplete(key) {
                    return Ok(Completion::Complete);
                }
                index.unread().clone()
            };
            let mut records: Vec<(SlotId, u64, Header)> = Vec::new();
            let mut damaged = None;
            for segment in unread.iter() {
                match segment.table.find(&segment.segment, key, may_block) {
                    Ok(Found::Record(offset, header)) => records.push((segment.slot, offset, header)),
                    Ok(Found::Nothing) => {}
                    Ok(Found::WouldBlock) => return Ok(Completion::WouldBlock),
                    Ok(Found::Damaged) => damaged = Some(segment),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        return Ok(Completion::Gone);
                    }
                    Err(error) => return Err(Error::io("read", &segment.segment.path)(error)),
                }
            }
            if let Some(damaged) = damaged {
                if !may_block {
                    return Ok(Completion::WouldBlock);
                }
                tracing::warn!(path = %damaged.segment.path.display(), "a key table does not match its segment: reading the index file instead");
                if !self.load(damaged.slot, &damaged.segment)? {
                    return Ok(Completion::Gone);
                }
                continue;
            }
            let mut index = self.inner.index.write();
            // If the list has changed, entries may have been removed on purpose since.
            if Arc::ptr_eq(index.unread(), &unread) {
                for (slot, offset, header) in records {
                    index.apply(Location { slot, offset }, &RecordInfo::new(&header, key, &[]));
                }
                index.mark_complete(key);
                return Ok(Completion::Complete);
            }
        }
        Ok(Completion::Gone)
    }

    /// Reads all unread segments, and reads all segments that are found later.
    pub(crate) fn load_all(&self) -> Result<(), Error> {
        self.inner.loads_all.store(true, Ordering::SeqCst);
        loop {
            let Some(next) = self.inner.index.read().unread().first().cloned() else { return Ok(()) };
            if !self.load(next.slot, &next.segment)? {
                // Its live records are in other segments by now.
                self.refresher.refresh()?;
                if self.inner.index.read().unread().iter().any(|unread| unread.slot == next.slot) {
                    return Err(Error::io("read", &next.segment.path)(std::io::ErrorKind::NotFound.into()));
                }
            }
        }
    }

    /// Adds the records of an unread segment to the index; returns `false` if another process has
    /// removed it.
    fn load(&self, slot: SlotId, segment: &Segment) -> Result<bool, Error> {
        let _loading = self.inner.loading.lock();
        if !self.inner.index.read().unread().iter().any(|unread| unread.slot == slot) {
            return Ok(true);
        }
        tracing::debug!(path = %segment.path.display(), "reading the index of a segment");
        let read = unless_gone(self.refresher.read_records(slot, SegmentRole::Reader))?;
        if read.is_some() {
            self.inner.index.write().mark_read(slot);
        }
        Ok(read.is_some())
    }
}
