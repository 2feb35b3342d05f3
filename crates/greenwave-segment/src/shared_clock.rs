//! The shared clock: orders the timestamps of processes by acknowledgement, even if their clocks
//! differ.
//!
//! The file `clock` in the log's directory has two slots of 16 bytes: a timestamp (little-endian)
//! and the XXH3-64 of its bytes. The later of the two that verify counts. The other one is written
//! next, so that a process that dies during a write loses nothing.
//!
//! A process that takes a timestamp at least [`STEP_NANOS`] later than the one in the file writes
//! it to the file first. No acknowledged timestamp is therefore later than the file's by more than
//! that. A writer whose clock is behind the file's timestamp by [`WRITERS_MAX`] nanoseconds or more
//! takes one that is later than the file's by [`STEP_NANOS`]. A smaller difference comes from
//! rounding, since a timestamp contains the number of its writer (see `writer_number.rs`).
//! If all clocks agree, this never happens: the file is read for each write, and written at most
//! about a thousand times a second.
//!
//! The file is written under its lock (`flock` on Unix) and not synced. It may be lost when the
//! machine restarts, since opening a log reads every timestamp.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::access::Access;
use crate::descriptors::Descriptors;
use crate::disk::{Disk, File};
use crate::writer_number::{WRITERS_MAX, WriterNumber};

/// Clocks that differ by less are treated as equal, in nanoseconds: 1 ms.
const STEP_NANOS: u64 = 1_000_000;
const SLOT_BYTES: usize = 16;

/// The clock file, opened on first use.
#[derive(Debug)]
pub(crate) struct SharedClock {
    disk: Disk,
    descriptors: Arc<Descriptors>,
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl SharedClock {
    pub(crate) fn new(disk: &Disk, descriptors: &Arc<Descriptors>, dir: &Path) -> Self {
        Self {
            disk: disk.clone(),
            descriptors: descriptors.clone(),
            path: dir.join("clock"),
            file: Mutex::default(),
        }
    }

    /// Returns a timestamp of `number` that is at least `wanted`, and later than every timestamp
    /// acknowledged to any process before. `now` is the time of the clock, at most `wanted`. If the
    /// file cannot be read or written, returns `wanted`, and timestamps are only as ordered as the
    /// clocks.
    pub(crate) fn timestamp(&self, now: u64, wanted: u64, number: &WriterNumber) -> u64 {
        self.try_timestamp(now, wanted, number).unwrap_or_else(|error| {
            tracing::debug!(path = %self.path.display(), %error, "timestamps are ordered by the clocks alone");
            wanted
        })
    }

    fn try_timestamp(&self, now: u64, wanted: u64, number: &WriterNumber) -> io::Result<u64> {
        let mut file = self.file.lock();
        if file.is_none() {
            *file = Some(self.descriptors.open(&self.disk, &self.path, Access::Create)?);
        }
        let Some(file) = &*file else { return Ok(wanted) };
        if let Some(latest) = read(file)?
            && !is_behind(now, latest)
            && wanted < latest.saturating_add(STEP_NANOS)
        {
            return Ok(wanted);
        }
        file.lock()?;
        let timestamp = publish(file, now, wanted, number);
        file.unlock()?;
        timestamp
    }
}

/// Chooses a timestamp and writes it to the file. The caller holds the lock.
fn publish(file: &File, now: u64, wanted: u64, number: &WriterNumber) -> io::Result<u64> {
    let (latest, next) = slots(file)?;
    let latest = latest.unwrap_or(0);
    let timestamp = if is_behind(now, latest) {
        wanted.max(number.timestamp_from(latest.saturating_add(STEP_NANOS)))
    } else {
        wanted
    };
    if timestamp >= latest.saturating_add(STEP_NANOS) {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&timestamp.to_le_bytes());
        let check = xxh3_64(&bytes[..8]);
        bytes[8..].copy_from_slice(&check.to_le_bytes());
        file.write_at(&bytes, next)?;
    }
    Ok(timestamp)
}

/// Returns whether a clock is behind the file's timestamp by more than rounding explains.
fn is_behind(now: u64, latest: u64) -> bool {
    now.saturating_add(WRITERS_MAX) <= latest
}

/// Returns the latest timestamp in the file; `None` if it has none.
fn read(file: &File) -> io::Result<Option<u64>> {
    Ok(slots(file)?.0)
}

/// Returns the latest timestamp, and the offset of the slot to write next.
fn slots(file: &File) -> io::Result<(Option<u64>, u64)> {
    let mut bytes = [0; SLOT_BYTES * 2];
    let len = file.read_at(&mut bytes, 0)?;
    let timestamp = |offset: usize| {
        let offset = bytes[..len].get(offset..offset + SLOT_BYTES)?;
        let [timestamp, check] =
            [0, 8].map(|at| u64::from_le_bytes(offset[at..at + 8].try_into().expect("eight bytes")));
        (check == xxh3_64(&offset[..8])).then_some(timestamp)
    };
    let (first, second) = (timestamp(0), timestamp(SLOT_BYTES));
    let next = if first > second { SLOT_BYTES as u64 } else { 0 };
    Ok((first.max(second), next))
}
