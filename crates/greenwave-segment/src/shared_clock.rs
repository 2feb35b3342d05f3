//! The shared clock: orders the timestamps of processes by acknowledgement, even if their clocks
//! differ, and keeps late records from being written below the floor.
//!
//! The file `clock` in the log's directory has four slots of 16 bytes: a timestamp (little-endian)
//! and the XXH3-64 of its bytes. The first two contain the clock, the others the floor. The later
//! of the two that verify counts. The other one is written next, so that a process that dies during
//! a write loses nothing. A process that reads the file without its lock and finds a slot that does
//! not verify reads again with the lock.
//!
//! A process that takes a timestamp at least [`STEP_NANOS`] later than the one in the file writes
//! it to the file first. No acknowledged timestamp is therefore later than the file's by more than
//! that. A writer whose clock is behind the file's timestamp by [`WRITERS_MAX`] nanoseconds or more
//! takes one that is later than the file's by [`STEP_NANOS`]. A smaller difference comes from
//! rounding, since a timestamp contains the number of its writer (see `writer_number.rs`).
//! If all clocks agree, this never happens: the file is read for each write, and written at most
//! about a thousand times a second.
//!
//! The *floor* is a timestamp that never decreases. A compactor raises it to the latest timestamp
//! of the segments that it is about to remove, and refreshes afterwards. A writer reads the floor
//! before it takes a timestamp, which is later than the floor, and again once the record is
//! written. If the floor has reached the record's timestamp meanwhile, the compactor may have
//! missed the record, and may have forgotten a newer one of the same key. The writer then writes
//! the record again, with a later timestamp. Every other record not later than the floor was read
//! by the compactor's refresh.
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
const SLOTS: usize = 4;
/// Number of the first slot of the clock, and of the floor.
const CLOCK: usize = 0;
const FLOOR: usize = 2;

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

    /// Returns a timestamp of `number` that is not earlier than `clock`, and is later than `seen`,
    /// the floor and every timestamp acknowledged to any process before. If the file cannot be read
    /// or written, timestamps are only as ordered as the clocks.
    pub(crate) fn timestamp(&self, clock: fn() -> u64, seen: u64, number: &WriterNumber) -> u64 {
        self.try_timestamp(clock, seen, number).unwrap_or_else(|error| {
            tracing::debug!(path = %self.path.display(), %error, "timestamps are ordered by the clocks alone");
            number.timestamp_from(clock().max(seen.saturating_add(1)))
        })
    }

    fn try_timestamp(&self, clock: fn() -> u64, seen: u64, number: &WriterNumber) -> io::Result<u64> {
        self.with_file(|file| {
            let slots = read_unlocked(file)?;
            let floor = slots.latest(FLOOR).unwrap_or(0);
            let now = clock();
            let wanted = number.timestamp_from(now.max(seen.max(floor).saturating_add(1)));
            if let Some(latest) = slots.latest(CLOCK)
                && !is_behind(now, latest)
                && wanted < latest.saturating_add(STEP_NANOS)
            {
                return Ok(wanted);
            }
            file.lock()?;
            let timestamp = publish(file, now, wanted, number);
            file.unlock()?;
            timestamp
        })
    }

    /// Returns whether the floor has reached `timestamp`, so that a compactor may have missed the
    /// record. Returns `false` if the file cannot be read.
    pub(crate) fn is_late(&self, timestamp: u64) -> bool {
        self.with_file(|file| Ok(read_unlocked(file)?.latest(FLOOR) >= Some(timestamp))).unwrap_or_else(
            |error| {
                tracing::debug!(path = %self.path.display(), %error, "cannot read the floor of timestamps");
                false
            },
        )
    }

    /// Raises the floor to `timestamp` or more. Every record written from now on is later, or is
    /// written again.
    pub(crate) fn raise_floor(&self, timestamp: u64) -> io::Result<()> {
        self.with_file(|file| {
            file.lock()?;
            let raised = read(file).and_then(|slots| {
                if slots.latest(FLOOR) >= Some(timestamp) {
                    Ok(())
                } else {
                    slots.write(file, FLOOR, timestamp)
                }
            });
            file.unlock()?;
            raised
        })
    }

    fn with_file<T>(&self, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        let mut file = self.file.lock();
        if let Some(file) = &*file {
            return work(file);
        }
        work(file.insert(self.descriptors.open(&self.disk, &self.path, Access::Create)?))
    }
}

/// Chooses a timestamp and writes it to the file. The caller holds the lock.
fn publish(file: &File, now: u64, wanted: u64, number: &WriterNumber) -> io::Result<u64> {
    let slots = read(file)?;
    let latest = slots.latest(CLOCK).unwrap_or(0);
    let timestamp = if is_behind(now, latest) {
        wanted.max(number.timestamp_from(latest.saturating_add(STEP_NANOS)))
    } else {
        wanted
    };
    if timestamp >= latest.saturating_add(STEP_NANOS) {
        slots.write(file, CLOCK, timestamp)?;
    }
    Ok(timestamp)
}

/// Returns whether a clock is behind the file's timestamp by more than rounding explains.
fn is_behind(now: u64, latest: u64) -> bool {
    now.saturating_add(WRITERS_MAX) <= latest
}

/// Timestamps in the file; `None` where a slot does not verify.
struct Slots {
    timestamps: [Option<u64>; SLOTS],
    /// Whether a slot was written but does not verify.
    torn: bool,
}

impl Slots {
    /// Returns the later timestamp of two slots.
    fn latest(&self, first: usize) -> Option<u64> {
        self.timestamps[first].max(self.timestamps[first + 1])
    }

    /// Writes a timestamp to the earlier of two slots.
    fn write(&self, file: &File, first: usize, timestamp: u64) -> io::Result<()> {
        let [one, two] = [self.timestamps[first], self.timestamps[first + 1]];
        let slot = if one > two { first + 1 } else { first };
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&timestamp.to_le_bytes());
        let check = xxh3_64(&bytes[..8]);
        bytes[8..].copy_from_slice(&check.to_le_bytes());
        file.write_at(&bytes, (slot * SLOT_BYTES) as u64)
    }
}

/// Reads the slots without the lock. If one of them is torn, reads them again with the lock: other
/// processes may have written both slots of a pair in the meantime, and the later timestamp may
/// have been in the torn one.
fn read_unlocked(file: &File) -> io::Result<Slots> {
    let slots = read(file)?;
    if !slots.torn {
        return Ok(slots);
    }
    file.lock()?;
    let slots = read(file);
    file.unlock()?;
    slots
}

fn read(file: &File) -> io::Result<Slots> {
    let mut bytes = [0; SLOT_BYTES * SLOTS];
    let len = file.read_at(&mut bytes, 0)?;
    let timestamp = |slot: usize| {
        let bytes = bytes[..len].get(slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES)?;
        let [timestamp, check] =
            [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")));
        (check == xxh3_64(&bytes[..8])).then_some(timestamp)
    };
    let timestamps = std::array::from_fn(timestamp);
    let is_torn =
        |(slot, timestamp): (&[u8], &Option<u64>)| timestamp.is_none() && slot.iter().any(|byte| *byte != 0);
    let torn = bytes.chunks_exact(SLOT_BYTES).zip(&timestamps).any(is_torn);
    Ok(Slots { timestamps, torn })
}
